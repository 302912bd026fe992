//! The update of an adapter into the weights.

use burn::module::Param;
use burn::tensor::{DType, Tensor};

use super::dora;
use super::state::Adapters;
use crate::checkpoint::Dtype;
use crate::decoder::{Batch, Decoder, Embedding, Linear, ModuleMut, Weight};
use crate::device::is_cpu;
use crate::error::Error;
use crate::kernel::random::Stream;

/// How a merge is checked.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// The tokens on which the merged model has to say what the adapted one says; `None` takes random
    /// ones.
    pub probe: Option<Batch>,
    /// The largest difference of a logit (or of a score), as a part of the largest. `None` takes 1e-4 for
    /// weights in f32, 1e-2 in f16, 5e-2 in bf16: merged weights are rounded to the type in which the
    /// model is saved.
    pub tolerance: Option<f32>,
}

impl Decoder {
    /// The model with the active adapter merged into its weights: W + s B A, or c (W + s B A) of
    /// `DoRA`. Its logits, or its scores, have been compared with those of the adapted model, so a merge that would
    /// change the model writes nothing.
    ///
    /// Where embeddings and head are one matrix and the adapter changes one of both, they are two
    /// afterwards (`tie_word_embeddings` is false).
    ///
    /// # Errors
    /// [`Error::Input`] without an active adapter, and for quantised weights, which cannot hold the
    /// sum ([`Decoder::dequantized`] makes them dense); [`Error::MergeMismatch`] when the logits
    /// differ.
    pub fn merge_and_unload(self, merge: &Merge) -> Result<Self, Error> {
        let Some(active) = &self.adapters.active else {
            return Err(Error::Input {
                what: "the active adapter".into(),
                found: "none".into(),
                expected: "one to merge; see `set_adapter`".into(),
            });
        };
        let adapter = self.adapters.known[&active.name].clone();
        let apart = self.config().tie_word_embeddings
            && self.config().has_logits()
            && (active.untied || adapter.target("model.embed_tokens").is_some());
        let probe = merge.probe.clone().unwrap_or_else(|| self.probe());
        let expected = self.said(&probe);

        let mut merged = self;
        if apart {
            merged.untie();
            merged.separate_head();
        }
        let stored = merged.stored.clone();
        let saved =
            |path: &str| stored.get(&format!("{path}.weight")).copied().unwrap_or(Dtype::F32);
        let mut coarsest = Dtype::F32;
        let mut quantized = None;
        merged.each_module(&mut |path, module| {
            let dtype = saved(path);
            let changed = match module {
                ModuleMut::Linear(linear) => merge_linear(linear, dtype).unwrap_or_else(|()| {
                    quantized.get_or_insert(path.to_owned());
                    false
                }),
                ModuleMut::Embedding(embedding) => merge_embedding(embedding, dtype),
                ModuleMut::Norm(_) => false,
            };
            if changed && digits(dtype) < digits(coarsest) {
                coarsest = dtype;
            }
        });
        if let Some(path) = quantized {
            return Err(Error::Input {
                what: format!("the weight of `{path}`"),
                found: "quantised".into(),
                expected: "a dense one, which can hold the sum: `dequantized` makes it so".into(),
            });
        }
        // Copies that were trained as a whole take the type of what they replace.
        merged.round_whole(&adapter.whole);
        merged.adapters = Adapters::default();
        let merged = merged.with_trainable(|_| true);

        let found = merged.said(&probe);
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let distance = (found - expected).abs().max().into_scalar::<f32>() / largest;
        let tolerance = merge.tolerance.unwrap_or(match coarsest {
            Dtype::BF16 => 5e-2,
            Dtype::F16 => 1e-2,
            _ => 1e-4,
        });
        // Also for a NaN.
        if distance <= tolerance {
            Ok(merged)
        } else {
            Err(Error::MergeMismatch { distance, tolerance })
        }
    }

    /// What the active adapter adds to the matrix of a module, `[out, in]` (an embedding's is
    /// `[vocab_size, hidden_size]`): s B A, as PEFT's `get_delta_weight`. `None` for a module that
    /// gets no update.
    pub fn delta_weight(&self, path: &str) -> Option<Tensor<2>> {
        let mut delta = None;
        let mut copy = self.clone();
        copy.each_module(&mut |at, module| {
            if at == path {
                delta = match module {
                    ModuleMut::Linear(linear) => linear_delta(linear),
                    ModuleMut::Embedding(embedding) => embedding_delta(embedding),
                    ModuleMut::Norm(_) => None,
                };
            }
        });
        delta
    }

    /// The model with dense weights in place of quantised ones: the values that the codes stand for,
    /// in the type of the original.
    #[must_use]
    pub fn dequantized(mut self) -> Self {
        self.each_module(&mut |_, module| {
            if let ModuleMut::Linear(Linear { weight, .. }) = module
                && let Weight::Quantized(codes) = weight
            {
                // The kernels of the CPU know no matrix in f16.
                let narrow = codes.dtype() == DType::BF16 || !is_cpu(&codes.device());
                let dtype = if narrow { codes.dtype() } else { DType::F32 };
                let dense = codes.dequantize().cast(dtype);
                *weight = Param::from_tensor(dense).set_require_grad(false).into();
            }
        });
        self
    }

    /// All logits or scores of a batch, a row for each token.
    fn said(&self, batch: &Batch) -> Tensor<2> {
        let hidden = self.forward(batch).flatten::<2>(0, 1);
        if self.config().has_logits() { self.logits(hidden) } else { self.score_rows(hidden) }
    }

    /// Random tokens, the same each time.
    fn probe(&self) -> Batch {
        const LENGTH: u32 = 16;
        let stream = Stream::new(0, "probe");
        let vocab = self.config().vocab_size as u64;
        let token = |i: u32| ((u64::from(stream.at(i)) * vocab) >> 32) as u32;
        let rows: Vec<Vec<u32>> =
            (0..2).map(|row| (row * LENGTH..(row + 1) * LENGTH).map(token).collect()).collect();
        Batch::padded(&[&rows[0], &rows[1]], 0).expect("rows with tokens")
    }

    /// Notes that the head has a matrix of its own.
    fn separate_head(&mut self) {
        let dtype = self.stored.get("model.embed_tokens.weight").copied();
        self.stored.extend(dtype.map(|dtype| ("lm_head.weight".to_owned(), dtype)));
        self.config.tie_word_embeddings = false;
        if let Some(json) = self.config.json.as_object_mut() {
            json.insert("tie_word_embeddings".into(), false.into());
        }
    }

    /// Rounds what was trained as a whole as it will be saved.
    fn round_whole(&mut self, whole: &[String]) {
        let stored = self.stored.clone();
        let saved = |path: &str, name: &str| {
            let name = format!("{path}.{name}");
            whole.contains(&name).then(|| stored.get(&name).copied().unwrap_or(Dtype::F32))
        };
        self.each_module(&mut |path, module| match module {
            ModuleMut::Linear(linear) => {
                if let (Some(dtype), Weight::Dense(param)) = (saved(path, "weight"), &linear.weight)
                {
                    linear.weight = rounded(param.val(), dtype, DType::F32).into();
                }
                if let (Some(dtype), Some(bias)) = (saved(path, "bias"), &linear.bias) {
                    linear.bias = Some(rounded(bias.val(), dtype, DType::F32));
                }
            }
            ModuleMut::Embedding(Embedding { weight, .. }) => {
                if let Some(dtype) = saved(path, "weight") {
                    *weight = rounded(weight.val(), dtype, DType::F32);
                }
            }
            ModuleMut::Norm(norm) => {
                if let Some(dtype) = saved(path, "weight") {
                    norm.weight = rounded(norm.weight.val(), dtype, DType::F32);
                }
            }
        });
    }
}

/// Digits of a type.
fn digits(dtype: Dtype) -> u8 {
    match dtype {
        Dtype::BF16 => 8,
        Dtype::F16 => 11,
        _ => 24,
    }
}

/// A parameter rounded to the type in which it is saved, and held in another.
fn rounded<const D: usize>(numbers: Tensor<D>, saved: Dtype, held: DType) -> Param<Tensor<D>> {
    let numbers = match saved {
        Dtype::BF16 => numbers.cast(DType::BF16),
        Dtype::F16 => numbers.cast(DType::F16),
        _ => numbers,
    };
    Param::from_tensor(if numbers.dtype() == held { numbers } else { numbers.cast(held) })
}

fn wide(numbers: Tensor<2>) -> Tensor<2> {
    if numbers.dtype() == DType::F32 { numbers } else { numbers.cast(DType::F32) }
}

fn linear_delta(linear: &Linear) -> Option<Tensor<2>> {
    let (low, a, b) = (linear.low.as_ref()?, linear.lora_A.as_ref()?, linear.lora_B.as_ref()?);
    Some(b.weight.val().matmul(a.weight.val()).mul_scalar(low.scale))
}

fn embedding_delta(embedding: &Embedding) -> Option<Tensor<2>> {
    let low = embedding.low.as_ref()?;
    let (a, b) = (embedding.lora_embedding_A.as_ref()?, embedding.lora_embedding_B.as_ref()?);
    Some(b.val().matmul(a.val()).transpose().mul_scalar(low.scale))
}

/// Merges the update of a layer; whether it had one. An error where the matrix cannot hold it.
fn merge_linear(linear: &mut Linear, saved: Dtype) -> Result<bool, ()> {
    let Some(delta) = linear_delta(linear) else { return Ok(false) };
    let Weight::Dense(param) = &linear.weight else { return Err(()) };
    let held = param.val().dtype();
    let mut sum = wide(param.val()) + delta;
    let scale = linear.low.as_ref().map_or(0.0, |low| low.scale);
    if let Some(initial) = &linear.initial {
        sum = sum - initial.b.clone().matmul(initial.a.clone()).mul_scalar(scale);
    }
    if let Some(magnitude) = &linear.lora_magnitude_vector {
        let norms = sum.clone().square().sum_dim(1).sqrt().reshape([-1]);
        sum = sum * dora::ratio(magnitude.val(), norms).unsqueeze_dim::<2>(1);
    }
    *linear = Linear::new(rounded(sum, saved, held), linear.bias.clone());
    Ok(true)
}

fn merge_embedding(embedding: &mut Embedding, saved: Dtype) -> bool {
    let Some(delta) = embedding_delta(embedding) else { return false };
    let held = embedding.weight.val().dtype();
    let mut sum = wide(embedding.weight.val()) + delta;
    if let Some(magnitude) = &embedding.lora_magnitude_vector {
        let norms = sum.clone().square().sum_dim(0).sqrt().reshape([-1]);
        sum = sum * dora::ratio(magnitude.val(), norms).unsqueeze_dim::<2>(0);
    }
    *embedding = Embedding::new(rounded(sum, saved, held));
    true
}
