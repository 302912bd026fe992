//! The tensors of a configuration: their names and shapes, and a decoder made of them.

use std::collections::BTreeMap;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

use super::{
    Attention, Block, Body, Decoder, Embedding, Linear, Mlp, Norm, Score, ValueHead, Weight,
};
use crate::adapter::Adapters;
use crate::checkpoint::{Dtype, Expected};
use crate::config::{Config, Head, NormPlacement, QkNorm};
use crate::error::Error;
use crate::quant::Quantized;

/// A tensor for a model.
pub(super) enum Given {
    /// Its numbers, and their type on the device.
    Dense(TensorData, DType),
    /// The matrix of a linear layer in few bits.
    Quantized(Box<Quantized>),
}

/// Gives a tensor by its name and shape.
pub(super) type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Given, Error> + 'a;

/// Names and shapes of all tensors of a configuration, in the order of transformers' state dict.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let mut tensors = Tensors { device: Device::default(), source: None, listed: Vec::new() };
    // Without a source no tensor is made, so nothing can fail.
    let _ = tensors.parts(config);
    tensors.listed
}

impl Config {
    /// Names and shapes of all tensors of the model, in the order of transformers' state dict.
    pub fn tensors(&self) -> Vec<Expected> {
        expected(self)
    }
}

impl Decoder {
    /// A decoder whose tensors are not there yet, only their names and shapes.
    pub(crate) fn skeleton(config: &Config) -> Self {
        let device = Device::default();
        let mut tensors = Tensors { device, source: None, listed: Vec::new() };
        let parts = tensors.parts(config).expect("no source, so nothing can fail");
        parts.decoder(config, DType::F32, BTreeMap::new())
    }
}

/// A decoder whose tensors come from `source`, one after the other.
pub(super) fn build(
    config: &Config,
    device: &Device,
    compute: DType,
    stored: BTreeMap<String, Dtype>,
    source: &mut Source<'_>,
) -> Result<Decoder, Error> {
    let mut tensors = Tensors { device: device.clone(), source: Some(source), listed: Vec::new() };
    Ok(tensors.parts(config)?.decoder(config, compute, stored))
}

/// The modules of a decoder.
struct Parts {
    model: Body,
    lm_head: Option<Linear>,
    score: Option<Score>,
    v_head: Option<ValueHead>,
}

impl Parts {
    fn decoder(self, config: &Config, compute: DType, stored: BTreeMap<String, Dtype>) -> Decoder {
        let Self { model, lm_head, score, v_head } = self;
        let (config, adapters) = (config.clone(), Adapters::default());
        Decoder { model, lm_head, score, v_head, config, compute, stored, adapters }
    }
}

struct Tensors<'a, 'b> {
    device: Device,
    source: Option<&'a mut Source<'b>>,
    listed: Vec<Expected>,
}

impl Tensors<'_, '_> {
    fn parts(&mut self, config: &Config) -> Result<Parts, Error> {
        let (vocab, width) = (config.vocab_size, config.hidden_size);
        let weight = self.tensor("model.embed_tokens.weight", [vocab, width])?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| self.block(&format!("model.layers.{index}"), config))
            .collect::<Result<_, _>>()?;
        let norm = self.norm("model.norm", width)?;
        let model = Body { embed_tokens: Embedding::new(weight), layers, norm };
        let mut lm_head =
            self.linear_if(config.stores_lm_head(), "lm_head", [vocab, width], false)?;
        let (mut score, mut v_head) = (None, None);
        match config.head {
            Head::Language => {}
            Head::Sequence { labels } => score = Some(self.score([labels, width], false)?),
            Head::Token { labels, bias } => score = Some(self.score([labels, width], bias)?),
            Head::Perceptron { labels, .. } => {
                // Nothing reads an output matrix beside it, so nothing trains it.
                lm_head = lm_head.map(Module::no_grad);
                let first = self.linear("score.0", [width, width], true)?;
                let last = self.linear("score.2", [labels, width], true)?;
                score = Some(Score::Perceptron(Box::new([first, last])));
            }
            Head::Value { .. } => {
                v_head =
                    Some(ValueHead { summary: self.linear("v_head.summary", [1, width], true)? });
            }
        }
        Ok(Parts { model, lm_head, score, v_head })
    }

    fn score(&mut self, shape: [usize; 2], bias: bool) -> Result<Score, Error> {
        Ok(Score::Linear(Box::new(self.linear("score", shape, bias)?)))
    }

    fn block(&mut self, at: &str, config: &Config) -> Result<Block, Error> {
        let width = config.hidden_size;
        let (pre, sandwich) =
            (config.norms == NormPlacement::Pre, config.norms == NormPlacement::Sandwich);
        Ok(Block {
            self_attn: self.attention(&format!("{at}.self_attn"), config)?,
            mlp: self.mlp(&format!("{at}.mlp"), config)?,
            input_layernorm: self.norm_if(pre || sandwich, at, "input_layernorm", width)?,
            post_attention_layernorm: self
                .norm(&format!("{at}.post_attention_layernorm"), width)?,
            pre_feedforward_layernorm: self.norm_if(
                sandwich,
                at,
                "pre_feedforward_layernorm",
                width,
            )?,
            post_feedforward_layernorm: self.norm_if(
                !pre,
                at,
                "post_feedforward_layernorm",
                width,
            )?,
        })
    }

    fn attention(&mut self, at: &str, config: &Config) -> Result<Attention, Error> {
        let width = config.hidden_size;
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        let (fused, bias) = (config.fused_projections, config.attention_bias);
        let (q_norm, k_norm) = match config.qk_norm {
            QkNorm::None | QkNorm::PerHead => (config.head_dim, config.head_dim),
            QkNorm::WholeProjection => (q, kv),
        };
        let normed = config.qk_norm != QkNorm::None;
        let name = |part: &str| format!("{at}.{part}");
        Ok(Attention {
            q_proj: self.linear_if(!fused, &name("q_proj"), [q, width], bias.qkv)?,
            k_proj: self.linear_if(!fused, &name("k_proj"), [kv, width], bias.qkv)?,
            v_proj: self.linear_if(!fused, &name("v_proj"), [kv, width], bias.qkv)?,
            o_proj: self.linear(&name("o_proj"), [width, q], bias.o)?,
            qkv_proj: self.linear_if(fused, &name("qkv_proj"), [q + 2 * kv, width], bias.qkv)?,
            q_norm: self.norm_if(normed, at, "q_norm", q_norm)?,
            k_norm: self.norm_if(normed, at, "k_norm", k_norm)?,
        })
    }

    fn mlp(&mut self, at: &str, config: &Config) -> Result<Mlp, Error> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (fused, bias) = (config.fused_projections, config.mlp_bias);
        let name = |part: &str| format!("{at}.{part}");
        Ok(Mlp {
            gate_proj: self.linear_if(!fused, &name("gate_proj"), [inner, width], bias)?,
            up_proj: self.linear_if(!fused, &name("up_proj"), [inner, width], bias)?,
            gate_up_proj: self.linear_if(fused, &name("gate_up_proj"), [2 * inner, width], bias)?,
            down_proj: self.linear(&name("down_proj"), [width, inner], bias)?,
        })
    }

    fn linear(&mut self, at: &str, [out, inner]: [usize; 2], bias: bool) -> Result<Linear, Error> {
        let weight = self.weight(&format!("{at}.weight"), [out, inner])?;
        let bias = bias.then(|| self.tensor(&format!("{at}.bias"), [out])).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    fn linear_if(
        &mut self,
        there: bool,
        at: &str,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<Option<Linear>, Error> {
        there.then(|| self.linear(at, shape, bias)).transpose()
    }

    fn norm(&mut self, at: &str, width: usize) -> Result<Norm, Error> {
        Ok(Norm { weight: self.tensor(&format!("{at}.weight"), [width])? })
    }

    fn norm_if(
        &mut self,
        there: bool,
        at: &str,
        name: &str,
        width: usize,
    ) -> Result<Option<Norm>, Error> {
        there.then(|| self.norm(&format!("{at}.{name}"), width)).transpose()
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, Error> {
        match self.given(name, shape)? {
            Some(Given::Quantized(codes)) => Ok(Weight::Quantized(codes)),
            given => Ok(self.param(given, shape).into()),
        }
    }

    fn tensor<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, Error> {
        let given = self.given(name, shape)?;
        Ok(self.param(given, shape))
    }

    fn given<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Option<Given>, Error> {
        self.listed.push(Expected { name: name.into(), shape: shape.to_vec() });
        self.source.as_mut().map(|source| source(name, &shape)).transpose()
    }

    fn param<const D: usize>(&self, given: Option<Given>, shape: [usize; D]) -> Param<Tensor<D>> {
        match given {
            Some(Given::Dense(data, dtype)) => {
                Param::from_tensor(Tensor::from_data(data, (&self.device, dtype)))
            }
            Some(Given::Quantized(_)) => unreachable!("linear layers alone are quantised"),
            None => {
                let make = move |device: &Device, _| Tensor::empty(shape, device);
                let (id, device) = (ParamId::new(), self.device.clone());
                Param::uninitialized(id, make, device, true, Shape::from(shape))
            }
        }
    }
}
