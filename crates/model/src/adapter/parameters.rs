//! The tensors of an adapter, before there is a model.

use super::config::LoraConfig;
use super::matching::Kind;
use super::state::names;
use crate::config::Config;
use crate::decoder::{Decoder, Parameter};
use crate::error::Error;

impl LoraConfig {
    /// The tensors that an adapter of this configuration has on a model of this configuration, by the
    /// names that [`Decoder::parameters`] gives them. Those that are not trained are the factors that
    /// `pissa` and `olora` start from, which stay beside the trained ones.
    ///
    /// ```
    /// use posttrain_model::adapter::LoraConfig;
    /// # fn run(model: &posttrain_model::config::Config) -> Result<(), posttrain_model::Error> {
    /// let config = LoraConfig { target_modules: Some(["q_proj"].into()), ..LoraConfig::default() };
    /// let count: usize = config.parameters(model)?.iter().map(|p| p.count()).sum();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ConfigField`] for what is out of range, and where no module is named.
    pub fn parameters(&self, model: &Config) -> Result<Vec<Parameter>, Error> {
        self.validate()?;
        let skeleton = Decoder::skeleton(model);
        let adapter = skeleton.plan_adapter(self, false)?;
        let expected = adapter.expected(&skeleton);
        // An embedding starts from a normal distribution whatever the others start from.
        let kept = adapter.targets.iter().filter(|target| {
            self.init_lora_weights.changes_base() && target.kind != Kind::Embedding
        });
        let kept = kept.flat_map(|target| <[String; 2]>::from(names(&target.path, target.kind)));
        let kept: Vec<String> = kept.collect();
        let initial = expected.iter().filter(|(name, _)| kept.contains(name));
        let initial = initial.map(|(name, shape)| Parameter {
            name: format!("{name}.initial"),
            shape: shape.clone(),
            trainable: false,
        });
        let initial: Vec<Parameter> = initial.collect();
        let trained =
            expected.into_iter().map(|(name, shape)| Parameter { name, shape, trainable: true });
        Ok(trained.chain(initial).collect())
    }
}
