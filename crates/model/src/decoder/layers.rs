//! Linear layer, norm and gated feed-forward network.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::config::Config;
use crate::kernel;

/// y = x Wᵀ + b.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in the checkpoint.
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let y = kernel::linear(x, self.weight.val());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
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
    pub fn forward(&self, x: Tensor<3>, config: &Config) -> Tensor<3> {
        let (gate, up) = match (&self.gate_proj, &self.up_proj, &self.gate_up_proj) {
            (Some(gate), Some(up), _) => (gate.forward(x.clone()), up.forward(x)),
            (_, _, Some(both)) => {
                let mut parts = both.forward(x).chunk(2, 2).into_iter();
                (parts.next().expect("gate"), parts.next().expect("up"))
            }
            _ => unreachable!("a network has gate and up, apart or as one"),
        };
        self.down_proj.forward(kernel::gated(gate, up, config.hidden_act))
    }
}
