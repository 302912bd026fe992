//! The modules of a decoder by path, as transformers names them.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;

use super::{Decoder, Embedding, Linear, Norm, Score, Weight};
use crate::adapter::{Kind, Place};

/// A module with weights.
pub(crate) enum ModuleMut<'a> {
    Linear(&'a mut Linear),
    Embedding(&'a mut Embedding),
    Norm(&'a mut Norm),
}

impl Decoder {
    /// Every module with weights, in the order of transformers. The head is among them also where it
    /// is the embedding matrix.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        let mut copy = self.clone();
        copy.each_module(&mut |path, module| {
            let kind = match module {
                ModuleMut::Linear(_) if path == "lm_head" => Kind::Head,
                ModuleMut::Linear(_) if !path.starts_with("model.") => Kind::Score,
                ModuleMut::Linear(_) => Kind::Linear,
                ModuleMut::Embedding(_) => Kind::Embedding,
                ModuleMut::Norm(_) => Kind::Norm,
            };
            places.push(Place { path: path.into(), kind });
        });
        if self.is_tied() {
            places.push(Place { path: "lm_head".into(), kind: Kind::Head });
        }
        places
    }

    /// Visits every module with weights under its path, in the order of transformers.
    pub(crate) fn each_module(&mut self, visit: &mut dyn FnMut(&str, ModuleMut<'_>)) {
        visit("model.embed_tokens", ModuleMut::Embedding(&mut self.model.embed_tokens));
        for (index, block) in self.model.layers.iter_mut().enumerate() {
            let at = format!("model.layers.{index}");
            let attention = &mut block.self_attn;
            for (name, linear) in [
                ("q_proj", attention.q_proj.as_mut()),
                ("k_proj", attention.k_proj.as_mut()),
                ("v_proj", attention.v_proj.as_mut()),
                ("o_proj", Some(&mut attention.o_proj)),
                ("qkv_proj", attention.qkv_proj.as_mut()),
            ] {
                if let Some(linear) = linear {
                    visit(&format!("{at}.self_attn.{name}"), ModuleMut::Linear(linear));
                }
            }
            for (name, norm) in
                [("q_norm", attention.q_norm.as_mut()), ("k_norm", attention.k_norm.as_mut())]
            {
                if let Some(norm) = norm {
                    visit(&format!("{at}.self_attn.{name}"), ModuleMut::Norm(norm));
                }
            }
            let mlp = &mut block.mlp;
            for (name, linear) in [
                ("gate_proj", mlp.gate_proj.as_mut()),
                ("up_proj", mlp.up_proj.as_mut()),
                ("gate_up_proj", mlp.gate_up_proj.as_mut()),
                ("down_proj", Some(&mut mlp.down_proj)),
            ] {
                if let Some(linear) = linear {
                    visit(&format!("{at}.mlp.{name}"), ModuleMut::Linear(linear));
                }
            }
            for (name, norm) in [
                ("input_layernorm", block.input_layernorm.as_mut()),
                ("post_attention_layernorm", Some(&mut block.post_attention_layernorm)),
                ("pre_feedforward_layernorm", block.pre_feedforward_layernorm.as_mut()),
                ("post_feedforward_layernorm", block.post_feedforward_layernorm.as_mut()),
            ] {
                if let Some(norm) = norm {
                    visit(&format!("{at}.{name}"), ModuleMut::Norm(norm));
                }
            }
        }
        visit("model.norm", ModuleMut::Norm(&mut self.model.norm));
        if let Some(head) = &mut self.lm_head {
            visit("lm_head", ModuleMut::Linear(head));
        }
        for (path, layer) in self.score.iter_mut().flat_map(Score::layers_mut) {
            visit(path, ModuleMut::Linear(layer));
        }
        if let Some(head) = &mut self.v_head {
            visit("v_head.summary", ModuleMut::Linear(&mut head.summary));
        }
    }

    /// The shapes of the modules' tensors by name; those of the head also where it is tied.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| _ = shapes.insert(name, shape.to_vec());
        let mut copy = self.clone();
        copy.each_module(&mut |path, module| {
            let weight = format!("{path}.weight");
            match module {
                ModuleMut::Linear(linear) => {
                    add(weight, &linear.weight.dims());
                    if let Some(bias) = &linear.bias {
                        add(format!("{path}.bias"), &bias.lazy_shape().to_vec());
                    }
                }
                ModuleMut::Embedding(embedding) => {
                    add(weight, &embedding.weight.lazy_shape().to_vec());
                }
                ModuleMut::Norm(norm) => add(weight, &norm.weight.lazy_shape().to_vec()),
            }
        });
        if self.is_tied() {
            let shape = self.model.embed_tokens.weight.lazy_shape().to_vec();
            shapes.insert("lm_head.weight".into(), shape);
        }
        shapes
    }

    /// The paths of the modules whose matrix is quantised.
    pub fn quantized_modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.clone().each_module(&mut |path, module| {
            if let ModuleMut::Linear(Linear { weight: Weight::Quantized(_), .. }) = module {
                found.push(path.into());
            }
        });
        found
    }

    /// Gives a tied head a layer of its own, which shares the matrix with the embeddings.
    pub(crate) fn untie(&mut self) {
        if self.is_tied() {
            let shared: Tensor<2> = self.model.embed_tokens.weight.val();
            let frozen = Param::from_tensor(shared).set_require_grad(false);
            self.lm_head = Some(Linear::new(frozen, None));
        }
    }
}
