//! The attention of a layer: projections, norms of queries and keys, rotation, cache.

use burn::module::Module;
use burn::tensor::Tensor;

use super::Noise;
use super::cache::LayerCache;
use super::layers::{Linear, Norm};
use super::places::{Few, Places};
use crate::config::{Config, QkNorm};
use crate::kernel;

/// Attention with grouped heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[num_attention_heads * head_dim, hidden_size]`
    pub q_proj: Option<Linear>,
    /// `[num_key_value_heads * head_dim, hidden_size]`
    pub k_proj: Option<Linear>,
    /// `[num_key_value_heads * head_dim, hidden_size]`
    pub v_proj: Option<Linear>,
    /// `[hidden_size, num_attention_heads * head_dim]`
    pub o_proj: Linear,
    /// Queries above keys above values, where they are one matrix.
    pub qkv_proj: Option<Linear>,
    /// Norm of the queries.
    pub q_norm: Option<Norm>,
    /// Norm of the keys.
    pub k_norm: Option<Norm>,
}

impl Attention {
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        config: &Config,
        index: usize,
        places: &Places,
        cache: Option<LayerCache<'_>>,
        few: Option<&Few>,
    ) -> Tensor<3> {
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let asking = few.map_or(places, |few| &few.places);
        let (q, k, v) = self.project(x, config, places.noise, few);
        let whole = config.qk_norm == QkNorm::WholeProjection;
        let q = if whole { normed(q, self.q_norm.as_ref(), config) } else { q };
        let k = if whole { normed(k, self.k_norm.as_ref(), config) } else { k };
        let split = |x: Tensor<3>, heads| {
            let [batch, time, _] = x.dims();
            x.reshape([batch, time, heads, config.head_dim])
        };
        let (mut q, mut k, v) = (split(q, heads), split(k, kv_heads), split(v, kv_heads));
        if config.qk_norm == QkNorm::PerHead {
            q = normed(q, self.q_norm.as_ref(), config);
            k = normed(k, self.k_norm.as_ref(), config);
        }
        let layer = config.layers[index];
        if let Some(rope) = layer.rope {
            let (cos, sin) = asking.rope(rope);
            q = kernel::rotary(q, cos, sin);
            let (cos, sin) = places.rope(rope);
            k = kernel::rotary(k, cos, sin);
        }
        let (k, v) = match cache {
            Some(cache) => cache.write(k, v, places),
            None => (places.sequences(k), places.sequences(v)),
        };
        let scores = kernel::Scores {
            scale: config.attention_multiplier,
            softcap: config.attn_logit_softcapping,
            keys: places.keys,
        };
        let visible = asking.visible(layer.sliding_window);
        let o = asking.tokens(kernel::attention(asking.rows(q), k, v, visible, scores));
        let [batch, time, _, _] = o.dims();
        self.o_proj.forward_with(o.reshape([batch, time, heads * config.head_dim]), places.noise)
    }

    fn project(
        &self,
        x: Tensor<3>,
        config: &Config,
        noise: Option<Noise>,
        few: Option<&Few>,
    ) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let asking = |x: Tensor<3>| few.map_or(x.clone(), |few| few.of(x));
        match (&self.q_proj, &self.k_proj, &self.v_proj, &self.qkv_proj) {
            (Some(q), Some(k), Some(v), _) => (
                q.forward_with(asking(x.clone()), noise),
                k.forward_with(x.clone(), noise),
                v.forward_with(x, noise),
            ),
            (_, _, _, Some(qkv)) => {
                let (q, kv) = (
                    config.num_attention_heads * config.head_dim,
                    config.num_key_value_heads * config.head_dim,
                );
                let all = qkv.forward_with(x, noise);
                let part = |from, width| all.clone().narrow(2, from, width);
                (asking(part(0, q)), part(q, kv), part(q + kv, kv))
            }
            _ => unreachable!("attention has q, k and v, apart or as one"),
        }
    }
}

fn normed<const D: usize>(x: Tensor<D>, norm: Option<&Norm>, config: &Config) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(x, config),
        None => x,
    }
}
