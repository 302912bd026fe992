//! Linear layer, embedding, norm and gated feed-forward network.
#![allow(non_snake_case, reason = "fields of adapters are named as PEFT's tensors")]

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use super::weight::Weight;
use super::{Noise, weight::plain};
use crate::adapter::{Initial, Low, dora};
use crate::config::Config;
use crate::kernel;

/// y = x Wᵀ + b, and the update of the active adapter.
///
/// The parameters of an adapter have the names of PEFT behind the path of the layer:
/// `lora_A.weight`, `lora_B.weight`, `lora_magnitude_vector`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in the checkpoint.
    pub weight: Weight,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// `[rank, in]`
    pub lora_A: Option<Factor>,
    /// `[out, rank]`
    pub lora_B: Option<Factor>,
    /// `[out]`, of DoRA.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    /// What an initialisation took out of the matrix.
    pub(crate) initial: Option<Initial>,
    #[module(skip)]
    pub(crate) low: Option<Low>,
}

/// A factor of an update.
#[derive(Module, Debug)]
pub struct Factor {
    /// `[rank, in]` of A, `[out, rank]` of B; in f32.
    pub weight: Param<Tensor<2>>,
}

impl Linear {
    /// A layer without an adapter.
    pub fn new(weight: impl Into<Weight>, bias: Option<Param<Tensor<1>>>) -> Self {
        let weight = weight.into();
        let (lora_A, lora_B, lora_magnitude_vector) = (None, None, None);
        Self { weight, bias, lora_A, lora_B, lora_magnitude_vector, initial: None, low: None }
    }

    /// `[.., in]` to `[.., out]`, without dropout.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, None)
    }

    /// As [`Linear::forward`], with the dropout of a training pass.
    pub fn forward_with<const D: usize>(&self, x: Tensor<D>, noise: Option<Noise>) -> Tensor<D> {
        let y = match (&self.low, &self.lora_A, &self.lora_B) {
            (Some(low), Some(a), Some(b)) => {
                self.adapted(x, noise, low, a.weight.val(), b.weight.val())
            }
            _ => self.weight.forward(x),
        };
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }

    /// The parameter alone, if the layer computes x Wᵀ and nothing else: what operations that fuse
    /// several layers may take.
    pub fn plain(&self) -> Option<Tensor<2>> {
        let alone = self.bias.is_none() && self.low.is_none();
        self.weight.dense().filter(|_| alone).map(Param::val)
    }

    fn adapted<const D: usize>(
        &self,
        x: Tensor<D>,
        noise: Option<Noise>,
        low: &Low,
        a: Tensor<2>,
        b: Tensor<2>,
    ) -> Tensor<D> {
        let dropout = noise.and_then(|noise| low.dropout(noise.seed));
        let base = |x: Tensor<D>| {
            let y = self.weight.forward(x.clone());
            match self.initial.clone() {
                Some(initial) => initial.subtract(y, x, low.scale),
                None => y,
            }
        };
        let Some(magnitude) = &self.lora_magnitude_vector else {
            return kernel::lora::lora_add(base(x.clone()), x, a, b, low.scale, dropout);
        };
        let factors = dora::Factors::new(&a, &b, low.scale, self.initial.as_ref());
        let norm = dora::row_norms(&self.weight, &factors);
        let c = dora::ratio(magnitude.val(), norm);
        let c = if c.dtype() == x.dtype() { c } else { c.cast(x.dtype()) };
        let times_c = |y: Tensor<D>| y * c.clone().unsqueeze();
        match dropout {
            // c (W + s B A) x
            None => times_c(kernel::lora::lora_add(base(x.clone()), x, a, b, low.scale, None)),
            // W x + (c − 1) W drop(x) + c s B A drop(x): as in PEFT, what is beside W sees only
            // what is not dropped.
            Some(dropout) => {
                let kept = kernel::lora::dropout(x.clone(), dropout);
                let through = base(kept.clone());
                let both = kernel::lora::lora_add(through.clone(), kept, a, b, low.scale, None);
                base(x) + times_c(both) - through
            }
        }
    }
}

/// Rows for tokens, and the update of the active adapter.
///
/// The parameters of an adapter have the names of PEFT: `lora_embedding_A`, `lora_embedding_B`,
/// `lora_magnitude_vector`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab_size, hidden_size]`
    pub weight: Param<Tensor<2>>,
    /// `[rank, vocab_size]`
    pub lora_embedding_A: Option<Param<Tensor<2>>>,
    /// `[hidden_size, rank]`
    pub lora_embedding_B: Option<Param<Tensor<2>>>,
    /// `[hidden_size]`, of DoRA.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) low: Option<Low>,
}

impl Embedding {
    /// A matrix without an adapter.
    pub fn new(weight: Param<Tensor<2>>) -> Self {
        let (a, b, magnitude) = (None, None, None);
        Self {
            weight,
            lora_embedding_A: a,
            lora_embedding_B: b,
            lora_magnitude_vector: magnitude,
            low: None,
        }
    }

    /// The rows of some tokens, `[tokens, hidden_size]`: E\[id\] + s A\[:, id\]ᵀ Bᵀ, without
    /// dropout, as in PEFT.
    pub fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let weight = self.weight.val();
        let rows = weight.select(0, ids.clone());
        let (Some(low), Some(a), Some(b)) =
            (&self.low, &self.lora_embedding_A, &self.lora_embedding_B)
        else {
            return rows;
        };
        let (a, b) = (a.val(), b.val());
        let rows = if rows.dtype() == a.dtype() { rows } else { rows.cast(a.dtype()) };
        let chosen = a.clone().transpose().select(0, ids);
        let y = rows + kernel::linear(chosen, b.clone()).mul_scalar(low.scale);
        match &self.lora_magnitude_vector {
            None => y,
            Some(magnitude) => {
                let norm =
                    dora::column_norms(plain(self.weight.val()), plain(a), plain(b), low.scale);
                y * dora::ratio(magnitude.val(), norm).unsqueeze()
            }
        }
    }
}

/// Root-mean-square norm.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
}

impl Norm {
    /// Over the last axis.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, config: &Config) -> Tensor<D> {
        let offset = if config.norm_unit_offset { 1.0 } else { 0.0 };
        kernel::rms_norm(x, self.weight.val(), config.rms_norm_eps, offset)
    }
}

/// down(act(gate(x)) · up(x)), with gate and up apart or as one matrix.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[intermediate_size, hidden_size]`
    pub gate_proj: Option<Linear>,
    /// `[intermediate_size, hidden_size]`
    pub up_proj: Option<Linear>,
    /// Gate above up, `[2 * intermediate_size, hidden_size]`
    pub gate_up_proj: Option<Linear>,
    /// `[hidden_size, intermediate_size]`
    pub down_proj: Linear,
}

impl Mlp {
    /// `[batch, time, hidden_size]` to the same.
    pub fn forward(&self, x: Tensor<3>, config: &Config, noise: Option<Noise>) -> Tensor<3> {
        let (gate, up) = match (&self.gate_proj, &self.up_proj, &self.gate_up_proj) {
            (Some(gate), Some(up), _) => {
                (gate.forward_with(x.clone(), noise), up.forward_with(x, noise))
            }
            (_, _, Some(both)) => {
                let mut parts = both.forward_with(x, noise).chunk(2, 2).into_iter();
                (parts.next().expect("gate"), parts.next().expect("up"))
            }
            _ => unreachable!("a network has gate and up, apart or as one"),
        };
        self.down_proj.forward_with(kernel::gated(gate, up, config.hidden_act), noise)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn param<const R: usize, const C: usize>(rows: [[f32; C]; R]) -> Param<Tensor<2>> {
        Param::from_tensor(Tensor::from_data(rows, &Device::flex()))
    }

    /// W = (1 2 / 0 1), A = (1 1), B = (1 / −1), s = 2: W + s B A = (3 4 / −2 −1).
    fn linear(magnitude: Option<[f32; 2]>) -> Linear {
        let factor = |weight| Some(Factor { weight });
        let magnitude =
            magnitude.map(|m| Param::from_tensor(Tensor::from_data(m, &Device::flex())));
        Linear {
            lora_A: factor(param([[1.0, 1.0]])),
            lora_B: factor(param([[1.0], [-1.0]])),
            lora_magnitude_vector: magnitude,
            low: Some(Low { name: "q".into(), scale: 2.0, dropout: 0.5 }),
            ..Linear::new(param([[1.0, 2.0], [0.0, 1.0]]), None)
        }
    }

    fn near(found: Tensor<2>, expected: [f32; 2]) {
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn lora_by_hand() {
        let x = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        near(linear(None).forward(x.clone()), [11.0, -4.0]);
        // The rows' norms are 5 and √5, and the magnitudes twice as long.
        let dora = linear(Some([10.0, 2.0 * 5.0_f32.sqrt()]));
        near(dora.forward(x), [22.0, -8.0]);
    }

    /// Which numbers of a pass are dropped is known, so the sums can be written down.
    #[test]
    fn dropout_by_hand() {
        let noise = (0..20).map(|seed| Noise { seed, neftune_alpha: None }).find(|noise| {
            let dropout = linear(None).low.unwrap().dropout(noise.seed).unwrap();
            dropout.at(0, 1.0) == 0.0 && dropout.at(1, 1.0) == 1.0
        });
        assert!(noise.is_some());
        let x = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        // The update sees (0, 4): x Wᵀ = (5, 2) plus 2 · 4 · (1, −1).
        near(linear(None).forward_with(x.clone(), noise), [13.0, -6.0]);
        // (5, 2) + (c − 1) W (0, 4) + c 2 · 4 (1, −1) with c = 2: W (0, 4) = (8, 4).
        let dora = linear(Some([10.0, 2.0 * 5.0_f32.sqrt()]));
        near(dora.forward_with(x, noise), [5.0 + 8.0 + 16.0, 2.0 + 4.0 - 16.0]);
    }
}
