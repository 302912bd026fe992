//! Adapters on a decoder: new ones, several by name, none.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Tensor};

use super::config::{Bias, LoraConfig};
use super::init::start;
use super::matching::{Kind, Matched, Target, matched, resolve};
use super::state::{Adapter, Adapters, magnitude, names};
use super::{Initial, dora};
use crate::decoder::{AnyTensor, Decoder, ModuleMut, Weight};
use crate::error::Error;

/// What an adapter starts from: a matrix of the base, by path.
type Matrices = BTreeMap<String, Weight>;

impl Decoder {
    /// Adds an adapter and makes it the active one: its parameters are trained, and nothing else.
    /// The same seed gives the same numbers.
    ///
    /// # Errors
    /// [`Error::ConfigField`] for a name or pattern that matches nothing (the error lists what there
    /// is) and for what is out of range, [`Error::Input`] for a name that is taken.
    pub fn add_adapter(&mut self, name: &str, config: &LoraConfig, seed: u64) -> Result<(), Error> {
        config.validate()?;
        self.check_new_name(name)?;
        let mut base = self.without_adapter();
        let mut adapter = base.plan_adapter(config, true)?;
        let matrices = base.target_matrices(&adapter);
        let device = self.device();
        let init = config.init_lora_weights;
        for target in &adapter.targets {
            let Target { path, kind, scale, .. } = target;
            let weight = &matrices[path];
            let numbers = || weight.numbers();
            let found = start(target, weight.dims(), init, seed, &device, numbers)?;
            let (a, b) = names(path, *kind);
            let initial = Initial { a: found.a.clone(), b: found.b.clone() };
            let initial = found.taken_out.then_some(initial);
            if config.use_dora {
                let norms = if *kind == Kind::Embedding {
                    let (a, b) = (found.a.clone(), found.b.clone());
                    dora::column_norms(weight.numbers(), a, b, *scale)
                } else {
                    let initial = initial.as_ref();
                    let factors = dora::Factors::new(&found.a, &found.b, *scale, initial);
                    dora::row_norms(weight, &factors)
                };
                adapter.tensors.insert(magnitude(path), AnyTensor::Vector(norms));
            }
            adapter.initial.extend(initial.map(|initial| (path.clone(), initial)));
            adapter.tensors.insert(a, AnyTensor::Matrix(found.a));
            adapter.tensors.insert(b, AnyTensor::Matrix(found.b));
        }
        let copies = base.copies(&adapter.whole);
        adapter.tensors.extend(copies);
        self.insert_adapter(name, adapter);
        Ok(())
    }

    /// Makes an adapter the active one.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown name.
    pub fn set_adapter(&mut self, name: &str) -> Result<(), Error> {
        self.known_adapter(name)?;
        self.take_adapter();
        self.put_adapter(name);
        Ok(())
    }

    /// The largest probability with which the active adapter drops numbers in training; 0 without one.
    pub fn dropout(&self) -> f32 {
        let active = self.active_adapter().and_then(|name| self.adapter_config(name));
        active.map_or(0.0, |config| config.lora_dropout)
    }

    /// The model without any adapter: the base, bit for bit. It shares the base's weights, and holds
    /// none of an adapter's, so that those may still be changed in place.
    #[must_use]
    pub fn without_adapter(&self) -> Self {
        let mut base = self.clone();
        base.take_adapter();
        base.adapters = Adapters::default();
        base.with_trainable(|_| false)
    }

    /// Forgets an adapter. If it is the active one, none is active afterwards.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown name.
    pub fn delete_adapter(&mut self, name: &str) -> Result<(), Error> {
        self.known_adapter(name)?;
        if self.active_adapter() == Some(name) {
            self.take_adapter();
        }
        self.adapters.known.remove(name);
        Ok(())
    }

    /// Forgets all adapters. All weights of the base are trainable again.
    #[must_use]
    pub fn unload(self) -> Self {
        self.without_adapter().with_trainable(|_| true)
    }

    /// The names of the adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &str> {
        self.adapters.known.keys().map(String::as_str)
    }

    /// The name of the active adapter.
    pub fn active_adapter(&self) -> Option<&str> {
        self.adapters.active.as_ref().map(|active| active.name.as_str())
    }

    /// The configuration of an adapter, with `target_modules` made explicit.
    pub fn adapter_config(&self, name: &str) -> Option<&LoraConfig> {
        self.adapters.known.get(name).map(|adapter| &adapter.config)
    }

    pub(crate) fn check_new_name(&self, name: &str) -> Result<(), Error> {
        let known: Vec<&str> = self.adapters().collect();
        if name.is_empty() || known.contains(&name) {
            return Err(Error::Input {
                what: "the name of a new adapter".into(),
                found: format!("`{name}`"),
                expected: format!("one that is not empty and not among [{}]", known.join(", ")),
            });
        }
        Ok(())
    }

    pub(crate) fn known_adapter(&self, name: &str) -> Result<&Adapter, Error> {
        self.adapters.known.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.adapters().collect();
            Error::Input {
                what: "the name of the adapter".into(),
                found: format!("`{name}`"),
                expected: format!("one of [{}]", known.join(", ")),
            }
        })
    }

    /// Adds an adapter whose tensors are there, and makes it the active one.
    pub(crate) fn insert_adapter(&mut self, name: &str, adapter: Adapter) {
        self.adapters.known.insert(name.into(), adapter);
        self.take_adapter();
        self.put_adapter(name);
    }

    /// What a configuration means for this model, still without tensors.
    pub(crate) fn plan_adapter(
        &self,
        config: &LoraConfig,
        all_used: bool,
    ) -> Result<Adapter, Error> {
        let tied = self.is_tied();
        let places = self.places();
        if config.classifies() && self.config().head.labels().is_none() {
            return Err(Error::ConfigField {
                path: "the LoRA configuration".into(),
                field: "task_type".into(),
                found: "one that classifies".into(),
                expected: "CAUSAL_LM for a language model; `with_head` puts another head on it"
                    .into(),
            });
        }
        let config = resolve(config, self.config().architecture, &places)?;
        let Matched { targets, mut whole } = matched(&config, &places, all_used)?;
        check_heads(&config, &targets, tied)?;
        let embeddings = ["model.embed_tokens", "lm_head"];
        let together = tied
            && config.ensure_weight_tying
            && whole.iter().any(|path| embeddings.contains(&path.as_str()));
        if together {
            // Both are trained as the embeddings are.
            whole.retain(|path| !embeddings.contains(&path.as_str()));
            whole.push("model.embed_tokens".into());
        }
        let shapes = self.shapes();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for path in &whole {
            let of_module = [format!("{path}.weight"), format!("{path}.bias")];
            names.extend(of_module.into_iter().filter(|name| shapes.contains_key(name)));
        }
        let biases = shapes.keys().filter_map(|name| Some((name, name.strip_suffix(".bias")?)));
        let trained = biases.filter(|(_, path)| match config.bias {
            Bias::None => false,
            Bias::All => true,
            Bias::LoraOnly => targets.iter().any(|target| target.path == **path),
        });
        names.extend(trained.map(|(name, _)| name.clone()));
        let whole = names.into_iter().collect();
        let (initial, tensors) = (BTreeMap::new(), BTreeMap::new());
        Ok(Adapter { config, targets, whole, together, initial, tensors })
    }

    /// The matrices of an adapter's targets.
    pub(crate) fn target_matrices(&mut self, adapter: &Adapter) -> Matrices {
        let mut matrices = Matrices::new();
        let shared = self.model.embed_tokens.weight.clone();
        self.each_module(&mut |path, module| {
            if adapter.target(path).is_some() {
                let weight = match module {
                    ModuleMut::Linear(linear) => linear.weight.clone(),
                    ModuleMut::Embedding(embedding) => embedding.weight.clone().into(),
                    ModuleMut::Norm(_) => unreachable!("norms are not adapted"),
                };
                matrices.insert(path.into(), weight);
            }
        });
        if adapter.target("lm_head").is_some() {
            matrices.entry("lm_head".into()).or_insert(shared.into());
        }
        matrices
    }

    /// Tensors of the base in f32, to be trained as a whole.
    fn copies(&mut self, wanted: &[String]) -> BTreeMap<String, AnyTensor> {
        fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
            if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(DType::F32) }
        }
        let mut found = BTreeMap::new();
        let mut add = |name: String, tensor: AnyTensor| {
            if wanted.contains(&name) {
                found.insert(name, tensor);
            }
        };
        let shared = self.model.embed_tokens.weight.clone();
        let tied = self.is_tied();
        self.each_module(&mut |path, module| {
            let weight = format!("{path}.weight");
            match module {
                ModuleMut::Linear(linear) => {
                    if wanted_matrix(wanted, &weight) {
                        add(weight, AnyTensor::Matrix(wide(linear.weight.numbers())));
                    }
                    if let Some(bias) = &linear.bias {
                        add(format!("{path}.bias"), AnyTensor::Vector(wide(bias.val())));
                    }
                }
                ModuleMut::Embedding(embedding) => {
                    if wanted_matrix(wanted, &weight) {
                        add(weight, AnyTensor::Matrix(wide(embedding.weight.val())));
                    }
                }
                ModuleMut::Norm(norm) => add(weight, AnyTensor::Vector(wide(norm.weight.val()))),
            }
        });
        if tied && wanted_matrix(wanted, "lm_head.weight") {
            add("lm_head.weight".into(), AnyTensor::Matrix(wide(shared.val())));
        }
        found
    }
}

/// Asked before a matrix is made wide.
fn wanted_matrix(wanted: &[String], name: &str) -> bool {
    wanted.iter().any(|wanted| wanted == name)
}

/// Refuses what embeddings and head cannot have.
fn check_heads(config: &LoraConfig, targets: &[Target], tied: bool) -> Result<(), Error> {
    let refuse = |field: &str, found: String, expected: &str| {
        Err(Error::ConfigField {
            path: "the LoRA configuration".into(),
            field: field.into(),
            found,
            expected: expected.into(),
        })
    };
    let either = targets.iter().find(|target| matches!(target.kind, Kind::Embedding | Kind::Head));
    if let Some(target) = either.filter(|_| tied && config.ensure_weight_tying) {
        let found = format!("true, and `target_modules` names `{}`", target.path);
        let expected = "false, or the module in `modules_to_save`: \
                        updates of tied matrices are not tied";
        return refuse("ensure_weight_tying", found, expected);
    }
    let head = targets.iter().any(|target| target.kind == Kind::Head);
    if head && config.lora_dropout > 0.0 {
        let found = format!("{}, and `target_modules` names `lm_head`", config.lora_dropout);
        let expected = "0: the head is projected a few rows at a time, without dropout";
        return refuse("lora_dropout", found, expected);
    }
    Ok(())
}
