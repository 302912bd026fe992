//! Losses of targets, with their gradients in the same pass.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps as _;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::logprobs::{CAPPED, PLAIN, SIZES, int_type, targets};
use super::{
    Any, BF16, F32, Fixture, VIEWS, any, close, close_on_the_whole, contiguous, int_primitive, ints,
};
use crate::kernel::{self, Kernels as _, Logits, Objective, Wanted, reference};

const OBJECTIVES: [Objective; 3] = [Objective::Nll, Objective::Dft, Objective::LabelSmoothing(0.1)];
const BOTH: Wanted = Wanted { input: true, weight: true };

/// h, W and the weights of the targets.
fn inputs([rows, width, vocabulary]: [usize; 3]) -> [FlexTensor; 3] {
    [contiguous(&[rows, width], 1), contiguous(&[vocabulary, width], 2), contiguous(&[rows], 3)]
}

/// Rows, dh and dw by plain tensor operations and burn's own gradients.
fn plain(
    inputs: &[FlexTensor; 3],
    targets: &[usize],
    objective: Objective,
    how: Logits,
) -> [Any; 3] {
    let [h, w, weights] = inputs.clone();
    let leaf = |x| Tensor::<2>::from_primitive::<Flex>(x).autodiff().require_grad();
    let (h, w) = (leaf(h), leaf(w));
    let weights = Tensor::<1>::from_primitive::<Flex>(weights).autodiff();
    let rows = targets.len();
    let z = h.clone().matmul(w.clone().transpose()) * how.scale;
    let z = match how.softcap {
        Some(cap) => (z / cap).tanh() * cap,
        None => z,
    };
    let logs = activation::log_softmax(z.clone(), 1);
    let at = ints(targets, int_type(rows), &h.device()).reshape([rows, 1]);
    let logprob = logs.clone().gather(1, at.clone());
    let entropy = (logs.clone().exp() * logs.clone()).sum_dim(1).neg();
    let top1 = z.clone().gather(1, at).greater_equal(z.max_dim(1)).float();
    let nll = logprob.clone().neg();
    let loss = match objective {
        Objective::Nll => nll,
        Objective::Dft => nll * logprob.clone().exp().detach(),
        Objective::LabelSmoothing(e) => nll * (1.0 - e) - logs.mean_dim(1) * e,
    };
    let gradients = (loss.clone() * weights.reshape([rows, 1])).sum().backward();
    let all = Tensor::cat(vec![logprob, entropy, top1, loss], 1).inner();
    [any(all), any(h.grad(&gradients).unwrap()), any(w.grad(&gradients).unwrap())]
}

#[test]
fn kernel_and_reference_equal_plain_operations() {
    let float = Any::from_primitive::<Flex>;
    for (sizes, how) in SIZES {
        let [rows, _, vocabulary] = sizes;
        let (inputs, targets) = (inputs(sizes), targets(rows, vocabulary));
        for objective in OBJECTIVES {
            let known = plain(&inputs, &targets, objective, how);
            for turn in 0..VIEWS.len() {
                let view = |i: usize| VIEWS[(turn + i) % VIEWS.len()].of(&inputs[i]);
                let (h, w, weights) = (view(0), view(1), view(2));
                let on = || int_primitive(ints(&targets, int_type(rows), &Device::flex()));
                let kernel = |wanted| {
                    let (h, w, weights) = (h.clone(), w.clone(), weights.clone());
                    Flex::cross_entropy(h, w, on(), weights, objective, how, wanted)
                };
                let reference = |wanted| {
                    let (h, w, weights) = (h.clone(), w.clone(), weights.clone());
                    reference::cross_entropy::<Flex>(h, w, on(), weights, objective, how, wanted)
                };
                let what = format!("{objective:?} of {sizes:?}, turn {turn}");
                for (found, dh, dw) in [kernel(BOTH), reference(BOTH)] {
                    close(float(found), known[0].clone(), 1e-5, &what);
                    close(float(dh.unwrap()), known[1].clone(), 1e-5, &format!("dh, {what}"));
                    close(float(dw.unwrap()), known[2].clone(), 1e-5, &format!("dw, {what}"));
                }
                // What nobody wants is not made.
                for wanted in [Wanted::NOTHING, Wanted { input: true, ..Wanted::NOTHING }] {
                    for (found, dh, dw) in [kernel(wanted), reference(wanted)] {
                        close(float(found), known[0].clone(), 1e-5, &what);
                        assert_eq!((dh.is_some(), dw.is_some()), (wanted.input, false));
                        if let Some(dh) = dh {
                            close(float(dh), known[1].clone(), 1e-5, &what);
                        }
                    }
                }
            }
        }
    }
}

/// Rows and the gradient by W are f32, the gradient by h has its type.
#[test]
fn narrow_types() {
    let float = Any::from_primitive::<Flex>;
    let (all, targets) = (inputs([33, 40, 101]), targets(33, 101));
    // Small logits: p[t] of DFT is as inexact, relatively, as a logit is absolutely.
    let how = Logits { scale: 0.125, ..PLAIN };
    for (h_type, w_type) in [(F32, BF16), (BF16, BF16), (BF16, F32)] {
        let narrow =
            |x: &FlexTensor, dtype: burn::backend::DType| Flex::float_cast(x.clone(), dtype.into());
        let (h, w) = (narrow(&all[0], h_type), narrow(&all[1], w_type));
        let wide = [narrow(&h, F32), narrow(&w, F32), all[2].clone()];
        for objective in OBJECTIVES {
            let known = plain(&wide, &targets, objective, how);
            let on = int_primitive(ints(&targets, int_type(33), &Device::flex()));
            let (h, w, weights) = (h.clone(), w.clone(), all[2].clone());
            let (found, dh, dw) = Flex::cross_entropy(h, w, on, weights, objective, how, BOTH);
            let (dh, dw) = (dh.unwrap(), dw.unwrap());
            assert_eq!([found.dtype(), dh.dtype(), dw.dtype()], [F32, h_type, F32]);
            let tolerance = if h_type == F32 { 1e-5 } else { 4.0 / 256.0 };
            // Whether a word is the likeliest may tip over.
            let columns = |x: Any| super::ranked::<2>(&x).slice_dim(1, 0..2);
            let found = columns(float(found));
            close_on_the_whole(any(found), any(columns(known[0].clone())), tolerance, "rows");
            close_on_the_whole(float(dh), known[1].clone(), tolerance, "dh");
            close_on_the_whole(float(dw), known[2].clone(), tolerance, "dw");
        }
    }
}

#[test]
fn torch_says_the_same() {
    let file = Fixture::read("cross_entropy.safetensors");
    let targets = file.targets();
    let weights = file.matrix("weights").reshape([-1]);
    for (suffix, how) in [("", PLAIN), ("_capped", CAPPED)] {
        for (name, objective) in ["nll", "dft", "smoothed"].into_iter().zip(OBJECTIVES) {
            let found = kernel::cross_entropy(
                file.matrix("h"),
                file.matrix("w"),
                ints(&targets, int_type(0), &Device::flex()),
                weights.clone(),
                objective,
                how,
                BOTH,
            );
            let loss = format!("{name}{suffix}.loss");
            let columns = [
                format!("logprobs{suffix}"),
                format!("entropy{suffix}"),
                format!("top1{suffix}"),
                loss.clone(),
            ];
            let known = columns.iter().map(|column| file.matrix(column)).collect();
            close(any(found.rows), any(Tensor::cat(known, 1)), 1e-5, &loss);
            for (gradient, found) in [("dh", found.by_hidden), ("dw", found.by_weight)] {
                let gradient = format!("{name}{suffix}.{gradient}");
                close(any(found.unwrap()), any(file.matrix(&gradient)), 1e-4, &gradient);
            }
        }
    }
}

/// h = (1), W = (0, ln 3)ᵀ, target 1, weight 2: p = (1/4, 3/4), log p₁ = ln 3/4, and 1 is likelier.
///
/// | objective | loss | ∂/∂z = 2 ∂l/∂z |
/// |---|---|---|
/// | Nll | −ln 3/4 | (1/2, −1/2) |
/// | Dft | −3/4 ln 3/4 | (3/8, −3/8) |
/// | LabelSmoothing(0.2) | −0.8 ln 3/4 − 0.1 (ln 1/4 + ln 3/4) | (0.3, −0.3): 2 (1/4 − 0.1), 2 (3/4 − 0.9) |
///
/// dh = ∂/∂z₁ ln 3,  dW = (∂/∂z₀, ∂/∂z₁)ᵀ.
#[test]
fn two_words_by_hand() {
    let ln_3 = 3_f32.ln();
    let matrix = |rows: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(rows.to_vec(), shape), &Device::flex())
    };
    let nll = -0.75_f32.ln();
    let smoothed = 0.8 * nll - 0.1 * (0.25_f32.ln() + 0.75_f32.ln());
    for (objective, loss, g) in [
        (Objective::Nll, nll, 0.5),
        (Objective::Dft, 0.75 * nll, 0.375),
        (Objective::LabelSmoothing(0.2), smoothed, 0.3),
    ] {
        let found = kernel::cross_entropy(
            matrix(&[1.0], [1, 1]),
            matrix(&[0.0, ln_3], [2, 1]),
            ints(&[1], int_type(0), &Device::flex()),
            Tensor::from_data([2.0], &Device::flex()),
            objective,
            PLAIN,
            BOTH,
        );
        let entropy = 4_f32.ln() - 0.75 * ln_3;
        let row = matrix(&[-nll, entropy, 1.0, loss], [1, 4]);
        close(any(found.rows), any(row), 1e-5, "row");
        let (dh, dw) = (found.by_hidden.unwrap(), found.by_weight.unwrap());
        close(any(dh), any(matrix(&[-g * ln_3], [1, 1])), 1e-5, "dh");
        close(any(dw), any(matrix(&[g, -g], [2, 1])), 1e-5, "dw");
    }
}
