//! How a checkpoint's authors recommend to sample from it.

use std::path::Path;

use posttrain_core::Sampling;
use serde_json::Value;

use super::reader::{Field, Reader, TokenIds};
use super::{Config, keys, read_json};
use crate::error::Error;

/// `generation_config.json`: the tokens that end an answer and recommended sampling parameters.
///
/// Chat models often end their answers with other tokens than `config.json` names, so this file's
/// `eos_token_id` comes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer; those of `config.json` where the file names none.
    pub eos_token_ids: Vec<u32>,
    /// Whether to sample; otherwise the most likely token is taken.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keeps the smallest set of tokens whose probability reaches this.
    pub top_p: Option<f32>,
    /// Drops tokens less likely than this times the most likely one.
    pub min_p: Option<f32>,
    /// Weakens the tokens that occurred.
    pub repetition_penalty: Option<f32>,
    /// The most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// The most tokens of prompt and answer together; [`GenerationConfig::sampling`] cannot say it.
    pub max_length: Option<usize>,
    /// Texts that end an answer.
    pub stop_strings: Vec<String>,
    /// Keys that ask for something this crate does not do (beam search, say), with their values:
    /// worth a warning where the checkpoint's own settings are used.
    pub unsupported: Vec<String>,
}

/// What transformers takes where neither file nor caller says: top-k sampling with this k.
const TOP_K: u32 = 50;

impl GenerationConfig {
    /// Reads `generation_config.json` of a model's folder; a folder without one has no
    /// recommendations beyond the end tokens of its `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] and, for an ill-typed field, [`Error::ConfigField`].
    pub fn from_model(folder: &Path, config: &Config) -> Result<Self, Error> {
        let path = folder.join("generation_config.json");
        if !path.exists() {
            let eos_token_ids = config.eos_token_ids.clone();
            return Ok(Self { eos_token_ids, ..Self::default() });
        }
        Self::from_json(&path, &read_json(&path)?, config)
    }

    /// Reads the content of a `generation_config.json`; the path is for errors only.
    ///
    /// # Errors
    /// [`Error::ConfigField`] for an ill-typed field.
    pub fn from_json(path: &Path, json: &Value, config: &Config) -> Result<Self, Error> {
        let mut r = Reader::new(path, json)?;
        let mut generation = Self {
            eos_token_ids: match r.get::<TokenIds>("eos_token_id")? {
                Some(ids) => ids.0,
                None => config.eos_token_ids.clone(),
            },
            do_sample: r.get("do_sample")?,
            temperature: r.get("temperature")?,
            top_k: r.get("top_k")?,
            top_p: r.get("top_p")?,
            min_p: r.get("min_p")?,
            repetition_penalty: r.get("repetition_penalty")?,
            max_new_tokens: r.get("max_new_tokens")?,
            max_length: r.get("max_length")?,
            stop_strings: r.get::<StopStrings>("stop_strings")?.map_or_else(Vec::new, |s| s.0),
            unsupported: Vec::new(),
        };
        generation.unsupported = r.unread(keys::is_harmless_in_generation);
        if let (Some(length), None) = (generation.max_length, generation.max_new_tokens) {
            generation.unsupported.push(format!("`max_length` {length}"));
        }
        Ok(generation)
    }

    /// The recommended sampling parameters, as transformers' `generate` would take them.
    ///
    /// Without `do_sample` that is greedy decoding, whatever the other fields say, with the
    /// repetition penalty. With it, transformers cuts to the 50 most likely tokens where the file
    /// has no `top_k` (vLLM does not), and so does this: for samples from the model's own
    /// distribution take [`Sampling::default`]. The end tokens belong to the model and are not
    /// repeated in `stop_token_ids`.
    pub fn sampling(&self) -> Sampling {
        let neutral = Sampling::default();
        let both = Sampling {
            repetition_penalty: self.repetition_penalty.unwrap_or(neutral.repetition_penalty),
            max_tokens: self.max_new_tokens.unwrap_or(neutral.max_tokens),
            stop: self.stop_strings.clone(),
            ..neutral
        };
        if self.do_sample != Some(true) {
            return Sampling { temperature: 0.0, ..both };
        }
        Sampling {
            temperature: self.temperature.unwrap_or(both.temperature),
            top_k: self.top_k.unwrap_or(TOP_K),
            top_p: self.top_p.unwrap_or(both.top_p),
            min_p: self.min_p.unwrap_or(both.min_p),
            ..both
        }
    }
}

/// One text or a list of them.
struct StopStrings(Vec<String>);

impl Field for StopStrings {
    const EXPECTED: &'static str = "a string or a list of strings";
    fn read(value: &Value) -> Option<Self> {
        let one = || String::read(value).map(|text| vec![text]);
        Vec::read(value).or_else(one).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let json = json!({"model_type": "llama", "eos_token_id": 9});
        Config::from_json(Path::new("config.json"), &json).unwrap()
    }

    fn read(json: &Value) -> GenerationConfig {
        GenerationConfig::from_json(Path::new("generation_config.json"), json, &config()).unwrap()
    }

    #[test]
    fn end_tokens_are_one_or_many_or_those_of_the_config() {
        assert_eq!(read(&json!({"eos_token_id": 3})).eos_token_ids, [3]);
        assert_eq!(read(&json!({"eos_token_id": [3, 4]})).eos_token_ids, [3, 4]);
        assert_eq!(read(&json!({"bos_token_id": 1, "pad_token_id": -1})).eos_token_ids, [9]);
        let missing = GenerationConfig::from_model(Path::new("/no/such/folder"), &config());
        let expected = GenerationConfig { eos_token_ids: vec![9], ..GenerationConfig::default() };
        assert_eq!(missing.unwrap(), expected);
    }

    #[test]
    fn sampling_is_what_generate_would_do() {
        // Llama 3.1's file: no top_k, so transformers' own.
        let llama = read(&json!({
            "bos_token_id": 128_000, "do_sample": true, "eos_token_id": [128_001, 128_008],
            "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.42.3",
        }));
        let neutral = Sampling::default();
        let expected = Sampling { temperature: 0.6, top_p: 0.9, top_k: 50, ..neutral.clone() };
        assert_eq!(llama.sampling(), expected);
        assert!(llama.unsupported.is_empty(), "{:?}", llama.unsupported);

        let greedy = read(&json!({
            "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 7,
            "stop_strings": "\n\n",
        }));
        let stop = vec!["\n\n".to_owned()];
        let expected = Sampling {
            temperature: 0.0,
            repetition_penalty: 1.05,
            max_tokens: 7,
            stop,
            ..neutral.clone()
        };
        assert_eq!(greedy.sampling(), expected);

        let all = read(&json!({"do_sample": true, "top_k": 0, "min_p": 0.1})).sampling();
        assert_eq!(all, Sampling { min_p: 0.1, ..neutral });
    }

    #[test]
    fn other_wishes_are_reported() {
        let wishes = json!({"num_beams": 4, "num_beam_groups": 1, "temprature": 0.1});
        let expected = ["`num_beams` = 4", "`temprature` = 0.1 (did you mean `temperature`?)"];
        assert_eq!(read(&wishes).unsupported, expected);
        let path = Path::new("generation_config.json");
        let error = GenerationConfig::from_json(path, &json!({"top_p": "1"}), &config());
        assert_eq!(
            error.unwrap_err().to_string(),
            "generation_config.json: `top_p` is \"1\", expected a number"
        );
    }
}
