//! Clipping of gradients by their global norm (Pascanu et al. 2013, arXiv:1211.5063).

use burn::tensor::Tensor;
use posttrain_model::{Gradients, loops};
use rayon::prelude::*;

use super::slices::{InPlace, PART, in_place, look};
use super::sums::square_sum;

/// √Σg² over all numbers of all gradients: 0 without any, NaN or ∞ where a gradient is.
///
/// The sum is one in f64 over the tensors in the order of their names, and on the CPU within them,
/// whatever the number of threads; elsewhere the device adds within a tensor, and is waited for
/// once.
pub fn global_norm(gradients: &Gradients) -> f64 {
    let mut total = 0.0;
    let mut waiting = Vec::new();
    for (_, gradient) in gradients.iter() {
        match look(gradient, square_sum) {
            Some(sum) => total += sum,
            None => waiting.push((gradient.clone() * gradient.clone()).sum()),
        }
    }
    if !waiting.is_empty() {
        let sums = Tensor::cat(waiting, 0).into_data().iter::<f64>().collect::<Vec<_>>();
        total += sums.iter().sum::<f64>();
    }
    total.sqrt()
}

/// Multiplies all gradients by `max_norm` / (norm + 10⁻⁶) where that is below 1, as
/// `torch.nn.utils.clip_grad_norm_` does; returns the norm before.
///
/// `max_norm` 0 makes all of them 0 and ∞ leaves them as they are; the 0 of transformers'
/// `max_grad_norm` means the latter. A norm that is not finite makes every gradient so: look at it
/// before the step.
pub fn clip_global_norm(gradients: &mut Gradients, max_norm: f64) -> f64 {
    let norm = global_norm(gradients);
    let factor = max_norm / (norm + 1e-6);
    // The comparison is false for NaN, which then goes its way.
    if factor >= 1.0 {
        return norm;
    }
    gradients.map(|_, gradient| scale(gradient, factor as f32));
    norm
}

fn scale(gradient: Tensor<2>, factor: f32) -> Tensor<2> {
    let nothing = Tensor::empty([0, 0], &gradient.device());
    let scaled = in_place([gradient], [], nothing, |[g], [], _| {
        g.par_chunks_mut(PART).for_each(|g| loops::scale(g, factor));
    });
    match scaled {
        InPlace::Changed([gradient], []) => gradient,
        InPlace::Elsewhere([gradient], [], _) => gradient * factor,
    }
}
