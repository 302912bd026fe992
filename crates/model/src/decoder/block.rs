//! A layer: attention and feed-forward network on a residual stream.

use burn::module::Module;
use burn::tensor::Tensor;

use super::attention::Attention;
use super::cache::LayerCache;
use super::layers::{Mlp, Norm};
use super::places::{Few, Places};
use crate::config::{Config, NormPlacement};

/// One layer. Which norms it has follows from [`NormPlacement`].
#[derive(Module, Debug)]
pub struct Block {
    /// Attention.
    pub self_attn: Attention,
    /// Feed-forward network.
    pub mlp: Mlp,
    /// Before the attention.
    pub input_layernorm: Option<Norm>,
    /// Before the feed-forward network ([`NormPlacement::Pre`]), else after the attention.
    pub post_attention_layernorm: Norm,
    /// Before the feed-forward network.
    pub pre_feedforward_layernorm: Option<Norm>,
    /// After the feed-forward network.
    pub post_feedforward_layernorm: Option<Norm>,
}

impl Block {
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        config: &Config,
        index: usize,
        places: &Places,
        cache: Option<LayerCache<'_>>,
        few: Option<&Few>,
    ) -> Tensor<3> {
        let normed = |x: Tensor<3>, norm: &Option<Norm>| match norm {
            Some(norm) => norm.forward(x, config),
            None => x,
        };
        let (after_attention, before_mlp) = match config.norms {
            NormPlacement::Pre => (None, Some(&self.post_attention_layernorm)),
            NormPlacement::Sandwich => {
                (Some(&self.post_attention_layernorm), self.pre_feedforward_layernorm.as_ref())
            }
            NormPlacement::Post => (Some(&self.post_attention_layernorm), None),
        };
        let h = normed(x.clone(), &self.input_layernorm);
        let h = self.self_attn.forward(h, config, index, places, cache, few);
        let x = few.map_or(x.clone(), |few| few.of(x));
        let h = after_attention.map_or(h.clone(), |norm| norm.forward(h, config));
        let x = add(x, h, config.residual_multiplier);
        let h = before_mlp.map_or(x.clone(), |norm| norm.forward(x.clone(), config));
        let h = normed(self.mlp.forward(h, config, places.noise), &self.post_feedforward_layernorm);
        add(x, h, config.residual_multiplier)
    }
}

fn add(x: Tensor<3>, h: Tensor<3>, multiplier: f32) -> Tensor<3> {
    if multiplier == 1.0 { x + h } else { x + h.mul_scalar(multiplier) }
}
