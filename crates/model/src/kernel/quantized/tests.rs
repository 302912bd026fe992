//! The kernels of the CPU against the reference, and gradients.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{linear, reference};
use crate::quant::{QuantizationKind, Quantized};

const KINDS: [QuantizationKind; 5] = [
    QuantizationKind::Nf4 { double: false },
    QuantizationKind::Nf4 { double: true },
    QuantizationKind::Fp4 { double: false },
    QuantizationKind::Fp4 { double: true },
    QuantizationKind::Int8,
];

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let numbers = numbers(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(numbers, shape), device)
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

/// Sizes whose rows begin inside of blocks, words and bytes, and whole ones.
const SHAPES: [[usize; 2]; 4] = [[5, 7], [50, 129], [3, 64], [100, 1100]];

fn each(mut check: impl FnMut(&Quantized, &str)) {
    let device = Device::flex();
    for kind in KINDS {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for shape in SHAPES {
                let w = numbers(shape[0] * shape[1], 3);
                let w = Quantized::new("w", &w, shape, kind, dtype, &device).unwrap();
                check(&w, &format!("{kind:?} {dtype:?} {shape:?}"));
            }
        }
    }
}

#[test]
fn tiles_are_dequantised_as_the_reference_does() {
    each(|w, what| {
        let parts = w.parts();
        let words = parts.words.try_into_primitive::<Flex>().unwrap();
        let scales = parts.scales.try_into_primitive::<Flex>().unwrap();
        let nested = parts.nested.try_into_primitive::<Flex>().unwrap();
        let expected = reference::dequantize::<Flex>(words, scales, nested, parts.form);
        let expected = expected.as_slice::<f32>().unwrap().to_vec();
        assert_eq!(values(w.dequantize()), expected, "{what}");
    });
}

#[test]
fn products_are_those_of_the_dequantised_matrix() {
    let device = Device::flex();
    each(|w, what| {
        let [out, inner] = w.dims();
        for rows in [1, 3, 200] {
            let x = tensor([1, rows, inner], 1, &device);
            let y = linear(x.clone(), &w.parts());
            assert_eq!(y.dims(), [1, rows, out]);
            let dense = w.dequantize().transpose().unsqueeze::<3>();
            let tolerance = 1e-6 * inner as f32;
            assert_near(&values(y), &values(x.matmul(dense)), tolerance, what);
        }
    });
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let device = Device::flex();
    let kind = QuantizationKind::Nf4 { double: true };
    let w = numbers(70 * 1100, 3);
    let w = Quantized::new("w", &w, [70, 1100], kind, DType::BF16, &device).unwrap();
    let x = tensor([150, 1100], 1, &device);
    let all = values(linear(x.clone(), &w.parts()));
    for rows in [1, 2, 7, 129] {
        let some = values(linear(x.clone().narrow(0, 0, rows), &w.parts()));
        assert_eq!(some, all[..rows * 70], "{rows} rows");
    }
}

#[test]
fn the_gradient_is_that_of_the_dequantised_matrix() {
    let device = Device::flex();
    each(|w, what| {
        let [out, inner] = w.dims();
        // The second in more than one piece.
        for rows in [9, 150] {
            let x = tensor([2, rows, inner], 1, &device).autodiff().require_grad();
            let dy = tensor([2, rows, out], 2, &device);
            let y = linear(x.clone(), &w.parts());
            let gradients = (y * Tensor::from_inner(dy.clone())).sum().backward();
            let expected = dy.matmul(w.dequantize().unsqueeze::<3>());
            let found = values(x.grad(&gradients).unwrap());
            assert_near(&found, &values(expected), 1e-6 * out as f32, what);
        }
    });
}

#[test]
fn what_is_not_finite_is_refused() {
    let device = Device::flex();
    for (wrong, kind) in [
        (f32::NAN, QuantizationKind::Nf4 { double: false }),
        (f32::INFINITY, QuantizationKind::Fp4 { double: false }),
        (1e5, QuantizationKind::Int8),
    ] {
        let found = Quantized::new("q_proj", &[1.0, wrong], [1, 2], kind, DType::F32, &device);
        let error = found.unwrap_err().to_string();
        assert!(error.contains("`q_proj`") && error.contains(&wrong.to_string()), "{error}");
    }
}

/// Codes and values by hand: 1 2 / 4 1 with one block of scale 4.
#[test]
fn two_by_two_by_hand() {
    let device = Device::flex();
    let kind = QuantizationKind::Nf4 { double: false };
    let w = Quantized::new("w", &[1.0, 2.0, 4.0, -4.0], [2, 2], kind, DType::F32, &device).unwrap();
    // 0.25 is nearest to 0.2461 (10), 0.5 to 0.4407 (12); 1 is 15 and −1 is 0.
    assert_eq!((w.codes(), w.scales()), (vec![0xac, 0xf0], vec![4.0]));
    let x = Tensor::<2>::from_data([[1.0, 10.0]], &device);
    let [a, b] = [0.246_112_3 * 4.0, 0.440_709_83 * 4.0];
    assert_eq!(values(linear(x, &w.parts())), [a + 10.0 * b, 4.0 - 40.0]);
    assert_eq!(w.bytes(), 8);
}
