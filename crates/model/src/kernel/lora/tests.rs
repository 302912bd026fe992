//! The kernels of the CPU against the reference, and gradients.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Tensor, TensorData};

use super::{Form, LoraKernels, dropout, lora_add, reference, row_squares, uniform_like};
use crate::kernel::random::{Dropout, Stream};

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let numbers = numbers(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn flex<const N: usize>(shape: [usize; N], seed: usize) -> FlexTensor {
    tensor(shape, seed, &Device::flex()).try_into_primitive::<Flex>().unwrap()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: number {i} is {a}, not {b}");
    }
}

fn half() -> Dropout {
    Dropout::new(0.5, Stream::new(7, "q_proj")).unwrap()
}

/// Rows, input, rank and output of odd sizes, beyond one task.
const SIZES: [[usize; 4]; 4] =
    [[1, 5, 1, 3], [37, 33, 4, 70], [300, 130, 17, 257], [70, 64, 16, 64]];

#[test]
fn the_update_is_that_of_the_reference() {
    for [rows, inner, rank, out] in SIZES {
        for dropout in [None, Some(half())] {
            let form = Form { scale: 1.5, dropout, input_gradient: true };
            let what = format!("{rows} {inner} {rank} {out} {dropout:?}");
            let inputs = || {
                let (y, x) = (flex([1, rows, out], 1), flex([1, rows, inner], 2));
                (y, x, flex([rank, inner], 3), flex([out, rank], 4))
            };
            let (y, x, a, b) = inputs();
            let (found, found_h) = Flex::lora_add(y, x, a, b, form);
            let (y, x, a, b) = inputs();
            let (expected, h) = reference::lora_add::<Flex>(y, x, a, b, form);
            let numbers = |t: &FlexTensor| t.as_slice::<f32>().unwrap().to_vec();
            let tolerance = 2e-6 * (inner * rank) as f32;
            assert_near(&numbers(&found), &numbers(&expected), tolerance, &what);
            assert_near(&numbers(&found_h), &numbers(&h), tolerance, &what);

            let (dy, x, a, b) = inputs();
            let found = Flex::lora_backward(dy, x, h.clone(), a, b, form);
            let (dy, x, a, b) = inputs();
            let expected = reference::lora_backward::<Flex>(dy, x, h, a, b, form);
            let tolerance = 4e-6 * (rows * out.max(inner)) as f32;
            let by_x = (found.0.unwrap(), expected.0.unwrap());
            for (found, expected) in [by_x, (found.1, expected.1), (found.2, expected.2)] {
                assert_eq!(found.layout().shape(), expected.layout().shape());
                assert_near(&numbers(&found), &numbers(&expected), tolerance, &what);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let device = Device::flex();
    let (y, x) = (tensor([100, 70], 1, &device), tensor([100, 300], 2, &device));
    let (a, b) = (tensor([9, 300], 3, &device), tensor([70, 9], 4, &device));
    let sum = |rows| {
        let part = |t: &Tensor<2>| t.clone().narrow(0, 0, rows);
        values(lora_add(part(&y), part(&x), a.clone(), b.clone(), 2.0, Some(half())))
    };
    let all = sum(100);
    for rows in [1, 2, 31, 33] {
        assert_eq!(sum(rows), all[..rows * 70], "{rows} rows");
    }
}

/// The gradients of Σ c · (y + s drop(x) Aᵀ Bᵀ) by burn's own operations.
#[test]
fn gradients_are_those_of_the_formula() {
    let device = Device::flex();
    for drop in [None, Some(half())] {
        let leaf = |t: Tensor<2>| t.autodiff().require_grad();
        let (y, x) = (leaf(tensor([40, 30], 1, &device)), leaf(tensor([40, 20], 2, &device)));
        let (a, b) = (leaf(tensor([3, 20], 3, &device)), leaf(tensor([30, 3], 4, &device)));
        let c = Tensor::from_inner(tensor([40, 30], 5, &device));
        let ours = lora_add(y.clone(), x.clone(), a.clone(), b.clone(), 0.5, drop);
        let mask = match drop {
            Some(drop) => dropout(Tensor::ones([40, 20], &device), drop),
            None => Tensor::ones([40, 20], &device),
        };
        let kept = x.clone() * Tensor::from_inner(mask);
        let update = kept.matmul(a.clone().transpose()).matmul(b.clone().transpose());
        let theirs = y.clone() + update.mul_scalar(0.5);
        assert_near(&values(ours.clone().inner()), &values(theirs.clone().inner()), 1e-5, "sum");
        let (ours, theirs) = ((ours * c.clone()).sum().backward(), (theirs * c).sum().backward());
        for (leaf, name) in [(&y, "y"), (&x, "x"), (&a, "A"), (&b, "B")] {
            let of = |gradients| values(leaf.grad(gradients).unwrap());
            assert_near(&of(&ours), &of(&theirs), 1e-4, name);
        }
    }
}

#[test]
fn what_is_frozen_gets_no_gradient() {
    let device = Device::flex();
    let plain = |shape, seed| tensor::<2>(shape, seed, &device);
    let a = plain([3, 20], 3).autodiff().require_grad();
    let frozen = |t: Tensor<2>| Tensor::from_inner(t);
    let (y, x) = (frozen(plain([4, 30], 1)), frozen(plain([4, 20], 2)));
    let b = frozen(plain([30, 3], 4));
    let y = lora_add(y, x.clone(), a.clone(), b.clone(), 1.0, None);
    let gradients = y.sum().backward();
    assert!(a.grad(&gradients).is_some());
    assert!(x.grad(&gradients).is_none() && b.grad(&gradients).is_none());
}

/// x = (1, 2), A = (3, 4), B = (1, −1)ᵀ: x Aᵀ = 11, so y grows by ±11 s.
#[test]
fn an_update_by_hand() {
    let device = Device::flex();
    let leaf = |t: Tensor<2>| t.autodiff().require_grad();
    let x = leaf(Tensor::from_data([[1.0, 2.0]], &device));
    let (a, b) = (
        leaf(Tensor::from_data([[3.0, 4.0]], &device)),
        leaf(Tensor::from_data([[1.0], [-1.0]], &device)),
    );
    let y = leaf(Tensor::from_data([[0.5, 0.0]], &device));
    let sum = lora_add(y.clone(), x.clone(), a.clone(), b.clone(), 2.0, None);
    assert_eq!(values(sum.clone().inner()), [22.5, -22.0]);
    // d/d of the first output alone: g = s B₁ = 2.
    let gradients = sum.narrow(1, 0, 1).sum().backward();
    assert_eq!(values(x.grad(&gradients).unwrap()), [6.0, 8.0]);
    assert_eq!(values(a.grad(&gradients).unwrap()), [2.0, 4.0]);
    assert_eq!(values(b.grad(&gradients).unwrap()), [22.0, 0.0]);
    assert_eq!(values(y.grad(&gradients).unwrap()), [1.0, 0.0]);
}

#[test]
fn dropout_and_noise_are_those_of_the_reference_bit_for_bit() {
    for shape in [[3, 5], [100, 1000]] {
        let same = |found: FlexTensor, expected: FlexTensor| {
            assert_eq!(found.as_slice::<f32>().unwrap(), expected.as_slice::<f32>().unwrap());
        };
        let (drop, stream) = (half(), Stream::new(3, "noise"));
        let x = flex(shape, 1);
        same(Flex::dropout(x.clone(), drop), reference::dropout::<Flex>(x.clone(), drop));
        let expected = reference::uniform_like::<Flex>(x.clone(), stream);
        same(Flex::uniform_like(x, stream), expected);
    }
    let x = uniform_like(Tensor::<2>::zeros([100, 100], &Device::flex()), Stream::new(1, "x"));
    let (mean, square) = (x.clone().mean().into_scalar::<f32>(), x.square().mean());
    assert!(mean.abs() < 0.03 && (square.into_scalar::<f32>() - 1.0 / 3.0).abs() < 0.02);
}

#[test]
fn squares_of_rows_are_those_of_the_reference() {
    let w = flex([50, 333], 1);
    let (found, expected) = (Flex::row_squares(w.clone()), reference::row_squares::<Flex>(w));
    let (found, expected) = (found.as_slice().unwrap(), expected.as_slice().unwrap());
    assert_near(found, expected, 1e-4, "squares");
    let w = Tensor::<2>::from_data([[3.0, 4.0], [1.0, 0.0]], &Device::flex());
    assert_eq!(values(row_squares(w.clone())), [25.0, 1.0]);
    let narrow = w.cast(burn::tensor::DType::BF16);
    assert_eq!(values(row_squares(narrow)), [25.0, 1.0]);
}
