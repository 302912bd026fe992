//! Log-probabilities and entropies, and their gradients.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps as _;
use burn::tensor::{DType, Device, IntDType, Tensor, TensorData, activation};

use super::{
    Any, BF16, Case, F32, Fixture, VIEWS, any, close, contiguous, int_primitive, ints, ranked,
};
use crate::kernel::{self, Kernels as _, Logits, reference};

pub(super) const PLAIN: Logits = Logits { scale: 1.0, softcap: None };
pub(super) const CAPPED: Logits = Logits { scale: 0.7, softcap: Some(4.0) };
const SCALED: Logits = Logits { scale: 0.25, ..PLAIN };

/// Rows, width, vocabulary: one of each; more rows, and more words, than any loop takes at a time.
pub(super) const SIZES: [([usize; 3], Logits); 7] = [
    ([1, 1, 1], PLAIN),
    ([1, 5, 2], CAPPED),
    ([5, 33, 101], PLAIN),
    ([5, 33, 101], CAPPED),
    ([9, 64, 7], SCALED),
    ([300, 7, 530], CAPPED),
    ([1030, 3, 2], PLAIN),
];

pub(super) fn targets(rows: usize, vocabulary: usize) -> Vec<usize> {
    (0..rows).map(|row| row * 31 % vocabulary).collect()
}

/// The types of the targets in turn.
pub(super) fn int_type(rows: usize) -> IntDType {
    if rows.is_multiple_of(2) { IntDType::I64 } else { IntDType::I32 }
}

#[test]
fn logprobs() {
    for ([rows, width, vocabulary], how) in SIZES {
        let targets = targets(rows, vocabulary);
        let on = |device: &Device| ints(&targets, int_type(rows), device);
        let plain = |x: &[Any]| {
            let z = ranked::<2>(&x[0]).matmul(ranked::<2>(&x[1]).transpose()) * how.scale;
            let z = match how.softcap {
                Some(cap) => (z / cap).tanh() * cap,
                None => z,
            };
            let logs = activation::log_softmax(z, 1);
            let chosen = logs.clone().gather(1, on(&x[0].device()).reshape([rows, 1]));
            let entropy = (logs.clone().exp() * logs).sum_dim(1).neg();
            any(Tensor::cat(vec![chosen, entropy], 1))
        };
        let case = Case {
            name: "logprobs",
            shapes: &[&[rows, width], &[vocabulary, width]],
            kernel: &|x| {
                let targets = on(&x[0].device());
                any(kernel::logprobs(ranked(&x[0]), ranked(&x[1]), targets, how))
            },
            plain: &plain,
            reference: &|x| {
                let targets = int_primitive(on(&Device::flex()));
                reference::logprobs::<Flex>(x[0].clone(), x[1].clone(), targets, how)
            },
        };
        case.check();
        case.check_types(Some(F32));
        case.check_types_of(&[F32, BF16], F32);
        case.check_types_of(&[BF16, F32], F32);
        case.check_types_of(&[F32, DType::F16], F32);
    }
}

#[test]
fn the_backward_pass_equals_its_reference() {
    let float = Any::from_primitive::<Flex>;
    for ([rows, width, vocabulary], how) in SIZES {
        let all = [[rows, width], [vocabulary, width], [rows, 2]];
        let all: Vec<FlexTensor> =
            all.iter().enumerate().map(|(i, shape)| contiguous(shape, i + 4)).collect();
        let targets = || {
            let targets = targets(rows, vocabulary);
            int_primitive(ints(&targets, int_type(rows), &Device::flex()))
        };
        let [h, w, dy] = [0, 1, 2].map(|i| all[i].clone());
        let (dh, dw) = reference::logprobs_backward::<Flex>(h, w, targets(), dy, how, true);
        let dw = dw.unwrap();
        for turn in 0..VIEWS.len() {
            let view = |i: usize| VIEWS[(turn + i) % VIEWS.len()].of(&all[i]);
            let what = format!("{rows} rows, {width} wide, {vocabulary} words, turn {turn}");
            let found = Flex::logprobs_backward(view(0), view(1), targets(), view(2), how, true);
            close(float(found.0), float(dh.clone()), 1e-5, &what);
            close(float(found.1.unwrap()), float(dw.clone()), 1e-5, &what);
            // A gradient that nobody wants is not made.
            let [h, w, dy] = [0, 1, 2].map(view);
            for (dh_alone, none) in [
                Flex::logprobs_backward(h.clone(), w.clone(), targets(), dy.clone(), how, false),
                reference::logprobs_backward::<Flex>(h, w, targets(), dy, how, false),
            ] {
                close(float(dh_alone), float(dh.clone()), 1e-5, &what);
                assert!(none.is_none());
            }
        }
        // A narrow matrix, in the kernel and in the reference.
        let narrow = Flex::float_cast(all[1].clone(), BF16.into());
        let wide = Flex::float_cast(narrow.clone(), F32.into());
        let (h, dy) = (&all[0], &all[2]);
        let (dh, dw) =
            reference::logprobs_backward::<Flex>(h.clone(), wide, targets(), dy.clone(), how, true);
        let dw = dw.unwrap();
        for (found_h, found_w) in [
            Flex::logprobs_backward(h.clone(), narrow.clone(), targets(), dy.clone(), how, true),
            reference::logprobs_backward::<Flex>(
                h.clone(),
                narrow,
                targets(),
                dy.clone(),
                how,
                true,
            ),
        ] {
            let found_w = found_w.unwrap();
            assert_eq!((found_h.dtype(), found_w.dtype()), (F32, F32));
            close(float(found_h), float(dh.clone()), 1e-5, "dh of a bf16 matrix");
            close(float(found_w), float(dw.clone()), 1e-5, "dw of a bf16 matrix");
        }
    }
}

/// Sums of coefficients times log-probabilities and entropies: their values and gradients.
fn scored(
    h: Tensor<2>,
    w: Tensor<2>,
    targets: &[usize],
    coefficients: Tensor<2>,
    how: Logits,
) -> [Any; 3] {
    let (h, w) = (h.autodiff().require_grad(), w.autodiff().require_grad());
    let targets = ints(targets, IntDType::I32, &h.device());
    let y = kernel::logprobs(h.clone(), w.clone(), targets, how);
    let gradients = (y.clone() * coefficients.autodiff()).sum().backward();
    let [dh, dw] = [h, w].map(|x| any(x.grad(&gradients).unwrap()));
    [any(y.inner()), dh, dw]
}

#[test]
fn torch_says_the_same() {
    let file = Fixture::read("logprobs.safetensors");
    let matrix = |name: &str| file.matrix(name);
    let pair = |a: &str, b: &str| Tensor::cat(vec![matrix(a), matrix(b)], 1);
    let targets = file.targets();
    for (suffix, how) in [("", PLAIN), ("_capped", CAPPED)] {
        let named = |name: &str| format!("{name}{suffix}");
        let [y, dh, dw] = scored(matrix("h"), matrix("w"), &targets, pair("c", "e"), how);
        close(y, any(pair(&named("logprobs"), &named("entropy"))), 1e-5, suffix);
        close(dh, any(matrix(&named("dh"))), 1e-4, &named("dh"));
        close(dw, any(matrix(&named("dw"))), 1e-4, &named("dw"));
    }
}

/// h = (1), W = (0, ln 3)ᵀ, target 1: z = (0, ln 3), so p = (1/4, 3/4) and
///
/// log p₁ = ln 3/4,  H = 1/4 ln 4 + 3/4 ln 4/3 = ln 4 − 3/4 ln 3;
///
/// ∂ log p₁ / ∂z = (−p₀, 1 − p₁) = (−1/4, 1/4);
///
/// ∂H / ∂z = −p (log p + H): −1/4 (−ln 4 + H) = 3/16 ln 3 for z₀, and the negative for z₁.
///
/// Of the loss 2 log p₁ + 3 H: ∂/∂z = (−g, g) with g = 1/2 − 9/16 ln 3;  dh = g ln 3,  dW = (−g, g)ᵀ.
#[test]
fn two_words_by_hand() {
    let ln_3 = 3_f32.ln();
    let matrix = |rows: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(rows.to_vec(), shape), &Device::flex())
    };
    let (h, w) = (matrix(&[1.0], [1, 1]), matrix(&[0.0, ln_3], [2, 1]));
    let [y, dh, dw] = scored(h, w, &[1], matrix(&[2.0, 3.0], [1, 2]), PLAIN);
    let g = 0.5 - 9.0 / 16.0 * ln_3;
    close(y, any(matrix(&[0.75_f32.ln(), 4_f32.ln() - 0.75 * ln_3], [1, 2])), 1e-5, "values");
    close(dh, any(matrix(&[g * ln_3], [1, 1])), 1e-5, "dh");
    close(dw, any(matrix(&[-g, g], [2, 1])), 1e-5, "dw");
}
