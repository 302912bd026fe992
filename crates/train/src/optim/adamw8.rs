//! AdamW with a state of one byte a number (Dettmers et al. 2022, arXiv:2110.02861), as
//! bitsandbytes computes it: m and v are widened block by block, updated as in [`super::adamw`],
//! used, and rounded again.
//!
//! Parameters of fewer than 4,096 numbers and embeddings keep a state in f32, as with transformers.

use burn::tensor::{DType, Int, Tensor, TensorData};
use posttrain_model::Parameter;
use posttrain_model::loops::{self, AdamWFactors};
use rayon::prelude::*;

use super::adamw::{self, AdamW};
use super::dynamic::{BLOCK, Dynamic, SIGNED, UNSIGNED};
use super::rule::{Kept, Part, Step, Stepped};
use super::slices::{InPlace, in_place};

/// The least number of numbers for codes to be worth it.
const LEAST: usize = 4096;
/// Blocks that one task works on.
const BLOCKS: usize = 32;

/// Whether a parameter has its state in bytes.
pub(super) fn is_for(parameter: &Parameter) -> bool {
    parameter.count() >= LEAST && !parameter.name.ends_with("embed_tokens.weight")
}

pub(super) fn parts(shape: [usize; 2]) -> Vec<Part> {
    let blocks = [1, (shape[0] * shape[1]).div_ceil(BLOCK)];
    vec![
        Part::codes("state1", shape),
        Part::codes("state2", shape),
        Part::numbers("absmax1", blocks),
        Part::numbers("absmax2", blocks),
    ]
}

pub(super) fn step(
    rule: AdamW,
    weight: Tensor<2>,
    gradient: Tensor<2>,
    kept: Vec<Kept>,
    step: Step,
) -> Stepped {
    let Ok([Kept::Codes(m), Kept::Codes(v), Kept::Numbers(m_scale), Kept::Numbers(v_scale)]) =
        <[Kept; 4]>::try_from(kept)
    else {
        unreachable!("the parts of this rule");
    };
    let by = rule.factors(step);
    let changed = in_place(
        [weight, m_scale, v_scale],
        [m, v],
        gradient,
        |[w, m_scale, v_scale], [m, v], g| {
            let part = BLOCKS * BLOCK;
            w.par_chunks_mut(part)
                .zip(m.par_chunks_mut(part).zip(v.par_chunks_mut(part)))
                .zip(m_scale.par_chunks_mut(BLOCKS).zip(v_scale.par_chunks_mut(BLOCKS)))
                .zip(g.par_chunks(part))
                .for_each(|(((w, (m, v)), (m_scale, v_scale)), g)| {
                    let states = m.chunks_mut(BLOCK).zip(v.chunks_mut(BLOCK));
                    let scales = m_scale.iter_mut().zip(v_scale);
                    let weights = w.chunks_mut(BLOCK).zip(g.chunks(BLOCK));
                    for ((w, g), ((m, v), (m_scale, v_scale))) in weights.zip(states.zip(scales)) {
                        update(by, w, g, (m, m_scale), (v, v_scale));
                    }
                });
        },
    );
    let ([weight, m_scale, v_scale], [m, v]) = match changed {
        InPlace::Changed(numbers, codes) => (numbers, codes),
        InPlace::Elsewhere(numbers, codes, gradient) => {
            update_tensors(by, numbers, codes, gradient)
        }
    };
    let numbers = [Kept::Numbers(m_scale), Kept::Numbers(v_scale)];
    (weight, [Kept::Codes(m), Kept::Codes(v)].into_iter().chain(numbers).collect())
}

/// One block.
fn update(
    by: AdamWFactors,
    w: &mut [f32],
    g: &[f32],
    (m_codes, m_scale): (&mut [u8], &mut f32),
    (v_codes, v_scale): (&mut [u8], &mut f32),
) {
    let (mut m, mut v) = ([0.0; BLOCK], [0.0; BLOCK]);
    let (m, v) = (&mut m[..w.len()], &mut v[..w.len()]);
    SIGNED.dequantize(m_codes, *m_scale, m);
    UNSIGNED.dequantize(v_codes, *v_scale, v);
    loops::adamw(w, m, v, g, by);
    *m_scale = SIGNED.quantize(m, m_codes);
    *v_scale = UNSIGNED.quantize(v, v_codes);
}

/// The same on any device.
pub(super) fn update_tensors(
    by: AdamWFactors,
    [w, m_scale, v_scale]: [Tensor<2>; 3],
    [m, v]: [Tensor<2, Int>; 2],
    g: Tensor<2>,
) -> ([Tensor<2>; 3], [Tensor<2, Int>; 2]) {
    let shape = w.dims();
    let m = dequantize(&SIGNED, m, m_scale);
    let v = dequantize(&UNSIGNED, v, v_scale);
    let [w, m, v] = adamw::update_tensors([w, m, v], g, by);
    let (m, m_scale) = quantize(&SIGNED, m);
    let (v, v_scale) = quantize(&UNSIGNED, v);
    ([w, m_scale, v_scale], [m.reshape(shape), v.reshape(shape)])
}

/// The numbers as rows of [`BLOCK`], the last filled up with zeros.
fn blocks(numbers: Tensor<2>) -> Tensor<2> {
    let count = numbers.dims().iter().product::<usize>();
    let missing = count.next_multiple_of(BLOCK) - count;
    let flat = numbers.reshape([count]);
    let flat = if missing == 0 {
        flat
    } else {
        Tensor::cat(vec![flat.clone(), Tensor::zeros([missing], (&flat.device(), DType::F32))], 0)
    };
    flat.reshape([count.div_ceil(BLOCK), BLOCK])
}

fn dequantize(table: &Dynamic, codes: Tensor<2, Int>, scales: Tensor<2>) -> Tensor<2> {
    let (shape, device) = (codes.dims(), scales.device());
    let count = shape[0] * shape[1];
    let values = Tensor::<1>::from_data(TensorData::from(table.values), (&device, DType::F32));
    let values = values.select(0, codes.reshape([count]).cast(DType::I32));
    let blocks = blocks(values.reshape([1, count]));
    let rows = blocks.dims()[0];
    (blocks * scales.reshape([rows, 1])).reshape([rows * BLOCK]).narrow(0, 0, count).reshape(shape)
}

/// Codes in a row and scales, by a binary search in the bounds.
fn quantize(table: &Dynamic, numbers: Tensor<2>) -> (Tensor<1, Int>, Tensor<2>) {
    let (count, device) = (numbers.dims().iter().product::<usize>(), numbers.device());
    let blocks = blocks(numbers);
    let rows = blocks.dims()[0];
    let scales = blocks.clone().abs().max_dim(1);
    let x = (blocks * scales.clone().clamp_min(1e-38).recip()).clamp(-1.0, 1.0);
    let x = x.reshape([rows * BLOCK]).narrow(0, 0, count);
    let bounds = Tensor::<1>::from_data(TensorData::from(table.bounds), (&device, DType::F32));
    let mut codes = Tensor::<1, Int>::zeros([count], (&device, DType::I32));
    for bit in (0..8).rev() {
        let next = codes.clone() + (1 << bit);
        let above = bounds.clone().select(0, next.clone() - 1).lower(x.clone());
        codes = codes.mask_where(above, next);
    }
    (codes.cast(DType::U8), scales.reshape([1, rows]))
}
