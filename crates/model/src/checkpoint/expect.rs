//! Whether a checkpoint holds the tensors that a model has, no more and no fewer.

use std::collections::BTreeMap;

use super::reader::Checkpoint;
use crate::error::Error;

/// A tensor that a model needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape, the slowest dimension first.
    pub shape: Vec<usize>,
}

impl Checkpoint {
    /// Check that exactly the expected tensors are there.
    ///
    /// `ignore` names what may be there in addition, such as [`is_derived_buffer`] or a
    /// `lm_head.weight` that is tied to the embeddings. It does not excuse a missing tensor.
    ///
    /// # Errors
    /// [`Error::TensorMismatch`] with all missing, unexpected and misshaped tensors.
    pub fn check(&self, expected: &[Expected], ignore: impl Fn(&str) -> bool) -> Result<(), Error> {
        let expected: BTreeMap<&str, &[usize]> =
            expected.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
        let mut missing = Vec::new();
        let mut misshaped = Vec::new();
        for (&name, &shape) in &expected {
            match self.get(name) {
                None => missing.push(name.to_owned()),
                Some(found) if found.shape != shape => {
                    misshaped.push((name.to_owned(), found.shape.to_vec(), shape.to_vec()));
                }
                Some(_) => {}
            }
        }
        let unexpected: Vec<String> = self
            .names()
            .filter(|name| !expected.contains_key(name) && !ignore(name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() && unexpected.is_empty() && misshaped.is_empty() {
            return Ok(());
        }
        let path = self.folder().to_owned();
        Err(Error::TensorMismatch { path, missing, unexpected, misshaped })
    }
}

/// Whether this is the buffer of rotary frequencies, which old checkpoints hold once per layer and
/// which follows from the configuration: transformers ignores `rotary_emb.inv_freq` as well.
#[must_use]
pub fn is_derived_buffer(name: &str) -> bool {
    let last = name.strip_suffix("rotary_emb.inv_freq");
    last.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_derived_and_weights_are_not() {
        assert!(is_derived_buffer("model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(is_derived_buffer("rotary_emb.inv_freq"));
        assert!(!is_derived_buffer("model.layers.0.self_attn.q_proj.weight"));
        assert!(!is_derived_buffer("model.my_rotary_emb.inv_freq"));
    }
}
