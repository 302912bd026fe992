//! From a checkpoint folder to a decoder, and a decoder with random weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{Bytes, DType, Device, Shape, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution, Normal};

use super::Decoder;
use super::weights::{Given, build, expected};
use crate::checkpoint::{Checkpoint, Dtype, Expected, TensorView, is_derived_buffer};
use crate::config::Config;
use crate::device::{is_cpu, name_of};
use crate::error::Error;
use crate::quant::{Quantization, QuantizationKind, Quantized};

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The type of the weights on the device; `None` takes the checkpoint's, or f32 where the
    /// device cannot compute with that. On the CPU hidden states are f32 whatever the weights are:
    /// bf16 weights are widened where they are used, and f16 ones when they are loaded.
    /// Training wants [`Dtype::F32`].
    pub dtype: Option<Dtype>,
    /// Linear layers in four or eight bits, quantised tensor by tensor while they are loaded. They
    /// are frozen: an adapter trains in their place.
    pub quantization: Option<Quantization>,
}

impl Decoder {
    /// Loads a checkpoint folder: `config.json` and safetensors, in one file or several.
    ///
    /// Files are mapped, and read tensor by tensor. On the CPU weights that need no conversion stay
    /// in the mapped file, which must not be changed while the model lives (saving over it is fine:
    /// that makes new files).
    ///
    /// # Errors
    /// Those of [`Config::from_model`] and [`Checkpoint::open`], and [`Error::TensorMismatch`] with
    /// every tensor that is missing, unexpected or of another shape.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        Self::load_with(folder, device, &LoadOptions::default())
    }

    /// As [`Decoder::load`], in another type.
    ///
    /// # Errors
    /// Those of [`Decoder::load`], and [`Error::Input`] for a type that the device cannot compute
    /// with or a number that cannot be quantised, [`Error::ConfigField`] for a module to be left
    /// dense that there is not.
    pub fn load_with(
        folder: impl AsRef<Path>,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let mut config = Config::from_model(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        config.head = config.head.found_in(&checkpoint);
        let tied = config.tie_word_embeddings && !config.head.is_alone();
        let head = config.key("lm_head.weight");
        let ignored = |name: &str| is_derived_buffer(name) || (tied && name == head);
        let expected = expected(&config);
        let keys = expected.iter().map(|Expected { name, shape }| Expected {
            name: config.key(name).into_owned(),
            shape: shape.clone(),
        });
        checkpoint.check(&keys.collect::<Vec<_>>(), ignored)?;
        if tied {
            check_tied(&checkpoint, &config)?;
        }
        let of = |name: &str| checkpoint.get(&config.key(name)).expect("checked above");
        let majority = checkpoint.dtype().unwrap_or(Dtype::F32);
        let compute = compute_type(majority, options.dtype, device)?;
        let quantized = Chosen::new(options.quantization.as_ref(), &expected)?;
        let mut source = |name: &str, shape: &[usize]| {
            let view = of(name);
            let matrix = shape.len() > 1;
            if let Some(kind) = quantized.kind(name) {
                let original = on_device(options.dtype.unwrap_or(view.dtype));
                let shape = [shape[0], shape[1]];
                let numbers = view.to_f32()?;
                let codes = Quantized::new(name, &numbers, shape, kind, original, device)?;
                checkpoint.forget(view.name);
                return Ok(Given::Quantized(Box::new(codes)));
            }
            let dtype = if matrix && is_cpu(device) {
                matrix_on_cpu(options.dtype.unwrap_or(view.dtype))
            } else {
                compute
            };
            let data = if let Some(data) = shared(&checkpoint, &view, dtype, device) {
                data
            } else {
                let data = converted(&view, dtype)?;
                checkpoint.forget(view.name);
                data
            };
            Ok(Given::Dense(data, dtype))
        };
        let stored = expected.iter().map(|tensor| (tensor.name.clone(), of(&tensor.name).dtype));
        build(&config, device, compute, stored.collect(), &mut source)
    }

    /// A decoder with random weights: matrices from a normal distribution with standard deviation
    /// `initializer_range`, norms at one, biases at zero, as transformers initialises them. The
    /// same seed gives the same weights.
    ///
    /// # Errors
    /// [`Error::ConfigField`] for fields that contradict each other, [`Error::Input`] when
    /// `initializer_range` is not a positive number.
    pub fn random(
        config: &Config,
        initializer_range: f32,
        seed: u64,
        device: &Device,
    ) -> Result<Self, Error> {
        config.validate(Path::new("the configuration"))?;
        let normal = Normal::new(0.0, initializer_range).ok().filter(|_| initializer_range > 0.0);
        let normal = normal.ok_or_else(|| Error::Input {
            what: "initializer_range".into(),
            found: initializer_range.to_string(),
            expected: "a positive number".into(),
        })?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut source = |name: &str, shape: &[usize]| {
            let count = shape.iter().product();
            let numbers: Vec<f32> = if shape.len() > 1 {
                normal.sample_iter(&mut random).take(count).collect()
            } else {
                let norm_of_one = name.ends_with("weight") && !config.norm_unit_offset;
                vec![if norm_of_one { 1.0 } else { 0.0 }; count]
            };
            let data = TensorData::new(numbers, Shape::from(shape.to_vec()));
            Ok(Given::Dense(data, DType::F32))
        };
        build(config, device, DType::F32, BTreeMap::new(), &mut source)
    }
}

/// Which tensors are quantised: matrices of the layers, as bitsandbytes chooses them.
struct Chosen<'a> {
    names: BTreeSet<&'a str>,
    kind: Option<QuantizationKind>,
}

impl<'a> Chosen<'a> {
    fn new(quantization: Option<&Quantization>, expected: &'a [Expected]) -> Result<Self, Error> {
        let Some(quantization) = quantization else {
            return Ok(Self { names: BTreeSet::new(), kind: None });
        };
        let names = quantization.matrices(expected)?;
        Ok(Self { names, kind: Some(quantization.kind) })
    }

    fn kind(&self, name: &str) -> Option<QuantizationKind> {
        self.kind.filter(|_| self.names.contains(name))
    }
}

fn on_device(dtype: Dtype) -> DType {
    match dtype {
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => DType::F32,
    }
}

/// A head of its own beside tied embeddings has to be the embedding matrix.
fn check_tied(checkpoint: &Checkpoint, config: &Config) -> Result<(), Error> {
    let of = |name| checkpoint.get(&config.key(name));
    match (of("lm_head.weight"), of("model.embed_tokens.weight")) {
        (Some(head), Some(embedding)) if head.bytes != embedding.bytes => {
            Err(Error::BrokenCheckpoint {
                path: checkpoint.folder().to_owned(),
                reason: "`tie_word_embeddings` is true, but lm_head.weight differs from \
                         model.embed_tokens.weight; set it to false to use both"
                    .into(),
            })
        }
        _ => Ok(()),
    }
}

/// The type of hidden states, norms and biases; on a GPU also of the matrices.
fn compute_type(stored: Dtype, wanted: Option<Dtype>, device: &Device) -> Result<DType, Error> {
    if is_cpu(device) {
        return match wanted {
            None | Some(Dtype::F32 | Dtype::BF16) => Ok(DType::F32),
            Some(other) => Err(unusable(other, device)),
        };
    }
    let usable = |dtype: Dtype| match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16).filter(|&dtype| device.supports_dtype(dtype)),
        Dtype::BF16 => Some(DType::BF16).filter(|&dtype| device.supports_dtype(dtype)),
        _ => None,
    };
    match wanted {
        Some(wanted) => usable(wanted).ok_or_else(|| unusable(wanted, device)),
        None => Ok(usable(stored).unwrap_or(DType::F32)),
    }
}

/// In the kernels of the CPU only matrices may be narrow, and only as bf16.
fn matrix_on_cpu(dtype: Dtype) -> DType {
    if dtype == Dtype::BF16 { DType::BF16 } else { DType::F32 }
}

fn unusable(dtype: Dtype, device: &Device) -> Error {
    Error::Input {
        what: "the type of the weights".into(),
        found: dtype.to_string(),
        expected: format!("one that `{}` computes with", name_of(device)),
    }
}

/// The tensor as it lies in the mapped file, if nothing has to be done to it.
fn shared(
    checkpoint: &Checkpoint,
    view: &TensorView<'_>,
    dtype: DType,
    device: &Device,
) -> Option<TensorData> {
    let same = matches!((view.dtype, dtype), (Dtype::F32, DType::F32) | (Dtype::BF16, DType::BF16));
    let aligned = view.bytes.as_ptr().addr().is_multiple_of(dtype.size());
    if !(is_cpu(device) && same && aligned && cfg!(target_endian = "little")) {
        return None;
    }
    let bytes = bytes::Bytes::from_owner(checkpoint.shared(view.name)?);
    let bytes = Bytes::from_shared(bytes, burn::tensor::AllocationProperty::Other);
    Some(TensorData::from_bytes(bytes, Shape::from(view.shape.to_vec()), dtype))
}

fn converted(view: &TensorView<'_>, dtype: DType) -> Result<TensorData, Error> {
    let shape = Shape::from(view.shape.to_vec());
    Ok(match dtype {
        DType::BF16 => TensorData::new(view.to_bf16()?, shape),
        DType::F16 => TensorData::new(view.to_f16()?, shape),
        _ => TensorData::new(view.to_f32()?, shape),
    })
}
