//! Preference alignment: by which loss, and against which reference.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Method, Settings};
use crate::Error;
use crate::data::{BatchOptions, RowOptions, SamplingStrategy};
use crate::memory::Reference;
use crate::preference::{KtoType, LossType, PreferenceLoss};

/// The settings of preference alignment.
pub type PreferenceConfig = Settings<PreferenceArguments>;

/// The section of preference alignment, with TRL's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the switches that users know from TRL")]
pub struct PreferenceArguments {
    /// The loss, with its own settings: `{type: dpo, beta: 0.1}`.
    pub loss: PreferenceLoss,
    /// The order of the rows.
    pub train_sampling_strategy: SamplingStrategy,
    /// Shuffles the rows once, before everything else.
    pub shuffle_dataset: bool,
    /// Trains without the dropout of adapters, so that the policy is the model that is compared with
    /// its reference. With dropout prompts are computed for each answer.
    pub disable_dropout: bool,
    /// A checkpoint to compare with, where that is not the model as it is before the first step.
    pub ref_model: Option<String>,
    /// Computes the log-probabilities of the reference once, before the first step, and forgets the
    /// reference.
    pub precompute_ref_log_probs: bool,
    /// Where they are kept; `ref_log_probs.safetensors` in `output_dir` without it. A file that was
    /// made of another model, other rows or another template is refused.
    pub ref_log_probs: Option<PathBuf>,
    /// Lets the reference follow the policy (Gorbatovski et al. 2024, TR-DPO, arXiv:2404.09656).
    pub sync_ref_model: bool,
    /// α of `π_ref` ← α π + (1 − α) `π_ref`.
    pub ref_model_mixup_alpha: f64,
    /// Steps between two of these.
    pub ref_model_sync_steps: u64,
}

impl Default for PreferenceArguments {
    fn default() -> Self {
        Self {
            loss: PreferenceLoss::default(),
            train_sampling_strategy: SamplingStrategy::Random,
            shuffle_dataset: false,
            disable_dropout: true,
            ref_model: None,
            precompute_ref_log_probs: false,
            ref_log_probs: None,
            sync_ref_model: false,
            ref_model_mixup_alpha: 0.6,
            ref_model_sync_steps: 512,
        }
    }
}

impl Method for PreferenceArguments {
    const LEARNING_RATE: f64 = 1e-6;

    fn reference(&self, new_adapter: bool) -> Reference {
        if !self.loss.has_reference() || self.precompute_ref_log_probs {
            Reference::Shared
        } else if self.sync_ref_model {
            Reference::Copies(2)
        } else if self.ref_model.is_some() {
            Reference::Model
        } else if new_adapter {
            Reference::Shared
        } else {
            Reference::Copies(1)
        }
    }

    fn validate(&self, settings: &Settings<Self>) -> Result<(), Error> {
        self.loss.validate().map_err(|error| within("loss", error))?;
        if let Some(measured) = self.loss.measured() {
            settings.training.selection()?.check(&measured)?;
        }
        let asked = [
            ("ref_model", self.ref_model.is_some()),
            ("precompute_ref_log_probs", self.precompute_ref_log_probs),
            ("sync_ref_model", self.sync_ref_model),
        ];
        let refuse = |key: &str, expected: &str| Err(Error::config(key, "given", expected));
        if let Some((key, _)) = asked.iter().find(|(_, asked)| *asked && !self.loss.has_reference())
        {
            return refuse(key, "nothing: this loss has no reference");
        }
        if self.ref_log_probs.is_some() && !self.precompute_ref_log_probs {
            return refuse("ref_log_probs", "`precompute_ref_log_probs: true` with it");
        }
        if self.sync_ref_model {
            if self.precompute_ref_log_probs || self.ref_model.is_some() {
                return refuse("sync_ref_model", "neither `ref_model` nor computing it before");
            }
            if settings.peft.lora.is_some() || settings.model.adapter.is_some() {
                return refuse(
                    "sync_ref_model",
                    "full fine-tuning: an adapter's base stays as it is",
                );
            }
            let alpha = self.ref_model_mixup_alpha;
            if !(alpha > 0.0 && alpha < 1.0) {
                return Err(Error::config("ref_model_mixup_alpha", alpha, "above 0 and below 1"));
            }
            if self.ref_model_sync_steps == 0 {
                return Err(Error::config("ref_model_sync_steps", 0, "at least 1"));
            }
        }
        let batch = settings.training.per_device_train_batch_size;
        let batches = [
            ("per_device_train_batch_size", batch),
            ("per_device_eval_batch_size", settings.training.per_device_eval_batch_size),
        ];
        let small = batches.into_iter().find(|(_, rows)| *rows < 2);
        match (&self.loss, small) {
            (PreferenceLoss::Kto(kto), Some((key, rows))) if kto.loss_type == KtoType::Kto => {
                let expected = "at least 2 for kto: the reference point is made of the answers of \
                                other prompts of the pass";
                Err(Error::config(key, rows, expected))
            }
            (PreferenceLoss::Kto(kto), _)
                if kto.loss_type == KtoType::Kto && self.precompute_ref_log_probs =>
            {
                refuse("precompute_ref_log_probs", "false for kto: each pass has pairs of its own")
            }
            (PreferenceLoss::Dpo(dpo), _)
                if batch < 2 && dpo.loss_type.iter().copied().any(sorts) =>
            {
                let expected =
                    "at least 2 for aot and aot_unpaired, which compare the pairs of a pass";
                Err(Error::config("per_device_train_batch_size", batch, expected))
            }
            _ => Ok(()),
        }
    }
}

fn sorts(kind: LossType) -> bool {
    matches!(kind, LossType::Aot | LossType::AotUnpaired)
}

/// An error of a value of a section, under the section's key.
fn within(section: &str, error: Error) -> Error {
    match error {
        Error::Config { key, found, expected } => {
            Error::Config { key: format!("{section}.{key}"), found, expected }
        }
        other => other,
    }
}

impl PreferenceConfig {
    /// How rows become token ids.
    pub fn row_options(&self) -> RowOptions {
        let mut options = RowOptions::default();
        options.chat.max_length = Some(self.data.max_length);
        options.chat.truncation = self.data.truncation_mode;
        options.chat.turns = posttrain_chat::TrainedTurns::Everything;
        options.bad_rows = self.data.untrained_rows;
        options
    }

    /// How rows become batches.
    pub fn batch_options(&self) -> BatchOptions {
        BatchOptions {
            shuffle_dataset: self.method.shuffle_dataset,
            train_sampling_strategy: self.method.train_sampling_strategy,
            ..self.training.batch_options(self.data.max_length)
        }
    }

    /// How validation rows become batches.
    pub fn eval_batch_options(&self) -> BatchOptions {
        self.training.eval_batch_options(self.batch_options())
    }

    /// Where the log-probabilities of the reference are kept.
    pub fn ref_log_probs(&self) -> PathBuf {
        let default = || self.training.output_dir.join("ref_log_probs.safetensors");
        self.method.ref_log_probs.clone().unwrap_or_else(default)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Document;

    fn read(text: &str, sets: &[&str]) -> Result<PreferenceConfig, Error> {
        let text = format!("model: m\ndata: d.jsonl\noutput_dir: o\n{text}");
        let mut document = Document::parse("run.yaml", &text)?;
        sets.iter().try_for_each(|set| document.set(set))?;
        PreferenceConfig::from_document(document)
    }

    fn loss(text: &str, sets: &[&str]) -> PreferenceLoss {
        read(text, sets).unwrap().method.loss
    }

    #[test]
    fn a_loss_by_its_name_or_with_its_settings() {
        let dpo = |change: fn(&mut crate::preference::Dpo)| {
            let mut dpo = crate::preference::Dpo::default();
            change(&mut dpo);
            PreferenceLoss::Dpo(dpo)
        };
        assert_eq!(loss("", &[]), dpo(|_| {}));
        assert_eq!(loss("loss: dpo", &[]), dpo(|_| {}));
        let ipo = dpo(|dpo| dpo.loss_type = vec![LossType::Ipo]);
        assert_eq!(loss("loss: {type: dpo, loss_type: ipo}", &[]), ipo);
        assert_eq!(loss("loss: {type: dpo, loss_type: [ipo]}", &[]), ipo);
        let file = "loss:\n  type: dpo\n  beta: 0.5\n";
        assert_eq!(loss(file, &["loss.beta=0.2"]), dpo(|dpo| dpo.beta = 0.2));
        assert_eq!(
            loss(file, &["loss=kto"]),
            PreferenceLoss::Kto(crate::preference::Kto::default())
        );
        // As it is written it is read again.
        for name in ["dpo", "kto", "bco", "orpo", "cpo", "tpo", "rrhf", "slic"] {
            let config = read(&format!("loss: {name}"), &[]).unwrap();
            let document = Document::parse("resolved.yaml", &config.to_yaml()).unwrap();
            assert_eq!(PreferenceConfig::from_document(document).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn what_is_misspelt_has_its_line_and_a_suggestion() {
        let error = |text: &str, sets: &[&str]| read(text, sets).unwrap_err().to_string();
        let key = error("loss:\n  type: dpo\n  bta: 0.1\n", &[]);
        assert!(key.starts_with("run.yaml: line 4: `loss`: unknown field `bta`"), "{key}");
        assert!(key.ends_with("(did you mean `beta`?)"), "{key}");
        let name = error("loss: {type: dop}", &[]);
        assert!(name.contains("unknown variant `dop`, expected one of `dpo`"), "{name}");
        assert!(name.ends_with("(did you mean `dpo`?)"), "{name}");
        let kind = error("loss: {type: dpo, loss_type: sigmod}", &[]);
        assert!(kind.ends_with("(did you mean `sigmoid`?)"), "{kind}");
        let kind = error("loss: {type: dpo, loss_type: [sft, hing]}", &[]);
        assert!(kind.ends_with("(did you mean `hinge`?)"), "{kind}");
        let of_another = error("loss: {type: kto, cpo_alpha: 1}", &[]);
        assert!(of_another.contains("unknown field `cpo_alpha`, expected one of"), "{of_another}");
        for (text, sets) in [("loss: {beta: 0.2}", &[][..]), ("", &["loss.beta=0.2"])] {
            let untyped = error(text, sets);
            assert!(untyped.contains("`loss`: missing field `type`, expected one of `dpo`"));
            assert!(untyped.contains("as in `{type: dpo, beta: 0.1}`"), "{untyped}");
        }
        let flat = error("beta: 0.2\n", &[]);
        assert_eq!(flat, "run.yaml: line 4: unknown key `beta` (did you mean `loss.beta`?)");
        let near = error("ref_modle: m\n", &[]);
        assert_eq!(near, "run.yaml: line 4: unknown key `ref_modle` (did you mean `ref_model`?)");
        let number = error("loss: {type: dpo, beta: high}", &[]);
        assert!(number.contains("line 4: `loss`: invalid type: string \"high\""), "{number}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        let sync = "sync_ref_model=true";
        let before = "precompute_ref_log_probs=true";
        for (key, sets) in [
            ("loss.beta", &["loss={type: dpo, beta: 0}"][..]),
            ("loss.beta", &["loss={type: kto, beta: -1}"]),
            ("loss.label_smoothing", &["loss={type: dpo, label_smoothing: 0.5}"]),
            ("loss.label_smoothing", &["loss={type: dpo, loss_type: exo_pair}"]),
            ("loss.loss_weights", &["loss={type: dpo, loss_weights: [1, 2]}"]),
            ("loss.ld_alpha", &["loss={type: dpo, ld_alpha: 2}"]),
            ("loss.desirable_weight", &["loss={type: kto, desirable_weight: -1}"]),
            ("loss.alpha", &["loss={type: cpo, loss_type: alphapo}"]),
            ("loss.tpo_alpha", &["loss={type: tpo, tpo_alpha: -1}"]),
            ("loss.rrhf_weight", &["loss={type: rrhf, rrhf_weight: -1}"]),
            ("loss.delta", &["loss={type: slic, delta: -1}"]),
            ("metric_for_best_model", &["metric_for_best_model=rewards/accuracy"]),
            ("ref_model", &["loss=orpo", "ref_model=m"]),
            ("precompute_ref_log_probs", &["loss=cpo", before]),
            ("sync_ref_model", &["loss=slic", sync]),
            ("ref_log_probs", &["ref_log_probs=file"]),
            ("sync_ref_model", &[sync, before]),
            ("sync_ref_model", &[sync, "ref_model=m"]),
            ("sync_ref_model", &[sync, "lora={r: 2}"]),
            ("sync_ref_model", &[sync, "adapter=a"]),
            ("ref_model_mixup_alpha", &[sync, "ref_model_mixup_alpha=1"]),
            ("ref_model_mixup_alpha", &[sync, "ref_model_mixup_alpha=0"]),
            ("ref_model_sync_steps", &[sync, "ref_model_sync_steps=0"]),
            ("per_device_train_batch_size", &["loss=kto", "per_device_train_batch_size=1"]),
            ("per_device_eval_batch_size", &["loss=kto", "per_device_eval_batch_size=1"]),
            ("precompute_ref_log_probs", &["loss=kto", before]),
            (
                "per_device_train_batch_size",
                &["loss={type: dpo, loss_type: [sft, aot]}", "per_device_train_batch_size=1"],
            ),
        ] {
            let error = read("", sets).unwrap_err();
            let Error::Config { key: found, .. } = &error else { panic!("{sets:?}: {error}") };
            assert_eq!(found, key, "{sets:?}: {error}");
        }
        // What is near to them is allowed.
        for sets in [
            &[sync][..],
            &[before, "ref_log_probs=file"],
            &[before, "loss=bco"],
            &["ref_model=m", "lora={r: 2}"],
            &["loss={type: kto, loss_type: apo_zero_unpaired}", "per_device_train_batch_size=1"],
            &["loss={type: kto, loss_type: apo_zero_unpaired}", before],
            &["per_device_train_batch_size=1"],
        ] {
            assert!(read("", sets).is_ok(), "{sets:?}");
        }
    }
}
