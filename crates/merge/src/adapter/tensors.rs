//! An adapter's folder: every tensor of `adapter_model.safetensors` has its part.
//!
//! | name after `base_model.model.` | what |
//! |---|---|
//! | `X.lora_A.weight`, `X.lora_B.weight` | `A`, `B` of the module X |
//! | `X.lora_embedding_A`, `X.lora_embedding_B` | the same for an embedding |
//! | `X.lora_magnitude_vector` | `m` of `DoRA` |
//! | `X.lora_B.bias` | the bias of `B` (`lora_bias`) |
//! | `X.base_layer.weight`, `X.base_layer.bias` | what replaces the weight or bias of the base under `X` |
//! | others | what replaces the tensor of that name: `modules_to_save`, biases, embeddings of a resized vocabulary |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::AdapterConfig;
use super::low_rank::LowRank;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::source::Source;
use crate::{Error, dtype};

/// What PEFT puts before every name.
pub(super) const PREFIX: &str = "base_model.model.";
/// Modules that PEFT saves as a whole, unasked, when the vocabulary was resized, and their names in families
/// whose embeddings are called otherwise.
const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "lm_head",
    "wte",
    "embed_in",
    "embed_out",
    "word_embeddings",
    "tok_embeddings",
    "shared",
];

/// What an adapter has for one module.
#[derive(Clone, Debug)]
pub struct Module {
    /// `s B A`, what is added to its weight.
    pub delta: LowRank,
    /// `m`, the norms of the rows of the sum.
    pub magnitude: Option<Source>,
    /// What is added to its bias, before it is multiplied by `s`.
    pub bias: Option<Source>,
}

/// An adapter whose headers have been read; the tensors stay in their file until they are used.
///
/// ```no_run
/// let adapter = posttrain_merge::adapter::Adapter::open("path/to/adapter")?;
/// for (name, module) in adapter.modules() {
///     println!("{name}: rank {}, scale {}", module.delta.rank(), module.delta.scale);
/// }
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    config: AdapterConfig,
    modules: BTreeMap<String, Module>,
    whole: BTreeMap<String, Tensor>,
}

/// The tensors of a module while they are gathered.
#[derive(Debug, Default)]
struct Parts {
    a: Option<Tensor>,
    b: Option<Tensor>,
    embedding: bool,
    magnitude: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Adapter {
    /// Opens a folder with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Json`]; [`Error::Checkpoint`] for a broken file; [`Error::Adapter`] with every
    /// setting that is not read and every tensor that has no part, no partner or a wrong shape.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let config = AdapterConfig::open(folder.join("adapter_config.json"))?;
        let file = folder.join("adapter_model.safetensors");
        if !file.exists() && folder.join("adapter_model.bin").exists() {
            let reason = "the weights are a pickle (adapter_model.bin), expected adapter_model.safetensors \
                          (load and `save_pretrained` it with PEFT)";
            return Err(Error::checkpoint(folder, reason));
        }
        let tensors = Checkpoint::open(&file)?;
        let mut problems = Vec::new();
        let (parts, whole) = gather(&config, tensors.tensors(), &mut problems);
        let mut modules = BTreeMap::new();
        for (name, parts) in parts {
            match module(&config, &name, parts) {
                Ok(module) => {
                    modules.insert(name, module);
                }
                Err(mut found) => problems.append(&mut found),
            }
        }
        if modules.is_empty() && whole.is_empty() && problems.is_empty() {
            problems.push("no tensors".into());
        }
        if problems.is_empty() {
            return Ok(Self { path: folder.to_owned(), config, modules, whole });
        }
        Err(Error::Adapter { path: file, problems })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The adapted modules by their paths, without PEFT's `base_model.model.`.
    pub fn modules(&self) -> &BTreeMap<String, Module> {
        &self.modules
    }

    /// What replaces tensors of the base, by their names in the base.
    pub fn whole(&self) -> &BTreeMap<String, Tensor> {
        &self.whole
    }

    /// What is added to the tensor of this name in the base: `s B A`.
    pub fn delta_for(&self, tensor: &str) -> Option<&LowRank> {
        self.modules.get(tensor.strip_suffix(".weight")?).map(|module| &module.delta)
    }
}

/// Gives each tensor its part.
fn gather(
    config: &AdapterConfig,
    tensors: &BTreeMap<String, Tensor>,
    problems: &mut Vec<String>,
) -> (BTreeMap<String, Parts>, BTreeMap<String, Tensor>) {
    let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
    let mut whole = BTreeMap::new();
    let adapted = |module: &str| {
        let a = format!("{PREFIX}{module}.lora_A.weight");
        let embedding = format!("{PREFIX}{module}.lora_embedding_A");
        tensors.contains_key(&a) || tensors.contains_key(&embedding)
    };
    for (key, tensor) in tensors {
        let Some(name) = key.strip_prefix(PREFIX) else {
            problems.push(format!("tensor `{key}`: expected a name that begins with `{PREFIX}`"));
            continue;
        };
        if !dtype::is_float(tensor.dtype()) {
            problems
                .push(format!("tensor `{key}` is {:?}, expected floating point", tensor.dtype()));
            continue;
        }
        let tensor = tensor.clone();
        let of = |end: &str| name.strip_suffix(end).map(str::to_owned);
        if let Some(module) = of(".lora_A.weight") {
            parts.entry(module).or_default().a = Some(tensor);
        } else if let Some(module) = of(".lora_B.weight") {
            parts.entry(module).or_default().b = Some(tensor);
        } else if let Some(module) = of(".lora_embedding_A") {
            let parts = parts.entry(module).or_default();
            (parts.a, parts.embedding) = (Some(tensor), true);
        } else if let Some(module) = of(".lora_embedding_B") {
            let parts = parts.entry(module).or_default();
            (parts.b, parts.embedding) = (Some(tensor), true);
        } else if let Some(module) = of(".lora_magnitude_vector") {
            parts.entry(module).or_default().magnitude = Some(tensor);
        } else if let Some(module) = of(".lora_B.bias") {
            parts.entry(module).or_default().bias = Some(tensor);
        } else if name.contains(".lora_") {
            problems.push(format!(
                "tensor `{key}`: expected lora_A.weight, lora_B.weight, lora_embedding_A, lora_embedding_B, \
                 lora_magnitude_vector or lora_B.bias"
            ));
        } else if let Some((module, end)) = name.split_once(".base_layer.")
            && adapted(module)
        {
            whole.insert(format!("{module}.{end}"), tensor);
        } else if is_whole(config, name) {
            whole.insert(name.to_owned(), tensor);
        } else {
            problems.push(format!(
                "tensor `{key}`: neither part of an adapted module nor in `modules_to_save` {:?}",
                config.modules_to_save
            ));
        }
    }
    (parts, whole)
}

/// Whether a tensor may replace one of the base.
fn is_whole(config: &AdapterConfig, name: &str) -> bool {
    let Some((module, end)) = name.rsplit_once('.') else { return false };
    let saved =
        |path: &str| config.modules_to_save.iter().any(|known| path.ends_with(known.as_str()));
    // A module that is saved may have modules of its own.
    let mut path = module;
    loop {
        if saved(path) {
            return true;
        }
        match path.rsplit_once('.') {
            Some((parent, _)) => path = parent,
            None => break,
        }
    }
    let last = module.rsplit('.').next().unwrap_or(module);
    config.trains_bias && end == "bias" || EMBEDDINGS.contains(&last)
}

fn module(config: &AdapterConfig, name: &str, parts: Parts) -> Result<Module, Vec<String>> {
    let (Some(a), Some(b)) = (&parts.a, &parts.b) else {
        let (there, missing) = if parts.a.is_some() { ("A", "B") } else { ("B", "A") };
        let found = if parts.a.is_some() || parts.b.is_some() { there } else { "other parts" };
        return Err(vec![format!(
            "module `{name}`: found {found} and no {missing}, expected a pair"
        )]);
    };
    let mut problems = Vec::new();
    let r = config.rank(name);
    // Embeddings have matrices, convolutions more dimensions.
    let of_a = a.shape().first().copied();
    let of_b = if b.shape().len() >= 2 { b.shape().get(1).copied() } else { None };
    let ones = b.shape().iter().skip(2).all(|dimension| *dimension == 1);
    if a.shape().len() < 2 || of_a != Some(r) || of_b != Some(r) || !ones {
        problems.push(format!(
            "module `{name}`: A is {:?} and B is {:?}, expected the rank {r} that the configuration says as the \
             first dimension of A and the second of B",
            a.shape(),
            b.shape()
        ));
    }
    let rows = b.shape().first().copied().unwrap_or(0);
    if a.numel() == 0 || b.numel() == 0 {
        problems.push(format!(
            "module `{name}`: A is {:?} and B is {:?}: empty",
            a.shape(),
            b.shape()
        ));
    }
    for (what, tensor, wanted) in [
        ("magnitude", &parts.magnitude, config.use_dora),
        ("bias of B", &parts.bias, config.lora_bias),
    ] {
        let setting = if what == "magnitude" { "use_dora" } else { "lora_bias" };
        match tensor {
            None if wanted => {
                problems.push(format!("module `{name}`: no {what}, but `{setting}` is true"));
            }
            Some(_) if !wanted => {
                problems.push(format!("module `{name}`: a {what}, but `{setting}` is not true"));
            }
            Some(tensor) if tensor.numel() != rows => problems.push(format!(
                "module `{name}`: the {what} has {} numbers, expected {rows}, the rows of B",
                tensor.numel()
            )),
            _ => {}
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let stored = |tensor: &Tensor| Source::Stored(tensor.clone());
    let delta = LowRank {
        a: stored(a),
        b: stored(b),
        scale: config.scale(name) as f32,
        embedding: parts.embedding,
    };
    let [magnitude, bias] = [&parts.magnitude, &parts.bias].map(|part| part.as_ref().map(stored));
    Ok(Module { delta, magnitude, bias })
}
