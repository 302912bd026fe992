//! What may change between a checkpoint and the run that goes on with it.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::read_state;
use crate::error::Error;

/// Settings that say what is learned and by which numbers: with others it would be another run.
const FIXED: [&str; 19] = [
    "adapter",
    "trainable",
    "frozen",
    "lora",
    "quantization",
    "loss_type",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "ema_decay",
    "dtype",
    "loss",
    "disable_dropout",
    "ref_model",
    "sync_ref_model",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "kind",
    "convention",
    "center_rewards_coefficient",
];
/// Settings that have no part in what a step does.
const FREE: [&str; 3] = ["output_dir", "resume_from_checkpoint", "overwrite_output_dir"];

/// Names the settings that differ from the checkpoint's, each as `key: now, was then`.
///
/// # Errors
/// [`Error::Checkpoint`] for one that must not differ.
pub(crate) fn changed(checkpoint: &Path, then: &str, now: &Value) -> Result<Vec<String>, Error> {
    // Both through text, so that numbers are rounded alike.
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (then, now) = (read(then), read(&now.to_string()));
    let (Some(then), Some(now)) = (then.as_object(), now.as_object()) else {
        return Ok(Vec::new()); // A recipe without settings.
    };
    let keys = then.keys().chain(now.keys().filter(|key| !then.contains_key(*key)));
    let mut found = Vec::new();
    for key in keys.filter(|key| !FREE.contains(&key.as_str())) {
        let [was, is] = [then, now].map(|all| all.get(key).unwrap_or(&Value::Null));
        if was == is {
            continue;
        }
        if FIXED.contains(&key.as_str()) {
            let reason = format!("it was made with `{key}: {was}`, not {is}");
            return Err(Error::Checkpoint { path: checkpoint.to_owned(), reason });
        }
        found.push(format!("{key}: {is}, was {was}"));
    }
    Ok(found)
}

/// Refuses settings that must not differ from those of a checkpoint, before any long work.
///
/// # Errors
/// Those of [`changed`], and of reading the checkpoint.
pub(crate) fn check(checkpoint: &Path, now: &Value) -> Result<(), Error> {
    let state: Value = read_state(checkpoint)?;
    let then = state.get("settings").and_then(Value::as_str).unwrap_or_default();
    changed(checkpoint, then, now).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_learned_stays_and_the_rest_is_named() {
        let path = Path::new("checkpoint-3");
        let then = json!({"learning_rate": 1e-3, "lora": {"r": 8}, "output_dir": "a"}).to_string();
        let of = |now| changed(path, &then, &now);
        let same = json!({"learning_rate": 1e-3, "lora": {"r": 8}, "output_dir": "b"});
        assert!(of(same).unwrap().is_empty());
        let other = json!({"learning_rate": 0.5, "lora": {"r": 8}, "max_steps": 3});
        assert_eq!(of(other).unwrap(), ["learning_rate: 0.5, was 0.001", "max_steps: 3, was null"]);
        let error = of(json!({"learning_rate": 1e-3, "lora": {"r": 4}})).unwrap_err().to_string();
        assert!(error.contains("`lora: {\"r\":8}`, not {\"r\":4}"), "{error}");
    }
}
