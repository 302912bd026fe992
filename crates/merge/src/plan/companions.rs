//! What goes with the weights: configuration, tokenizer, and the files that loaders look for.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::input::Input;
use super::layers;
use super::output::Output;
use super::pieces::Taken;
use super::quantised;
use super::vocabulary::{Vocabulary, tokenizer_inputs};
use crate::config::MergeConfig;
use crate::tokenizer::{self, ChatTemplate, Files};
use crate::{Error, dtype};

/// Files besides tokenizer and configuration that are taken over as they are.
const TAKEN_OVER: [&str; 9] = [
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE",
];

/// The files of the output that are not weights.
#[derive(Debug)]
pub struct Companions {
    files: Files,
    warnings: Vec<String>,
}

impl Companions {
    pub(super) fn new(
        config: &MergeConfig,
        inputs: &[Input],
        donor: usize,
        outputs: &[Output],
        taken: &[Taken],
        vocabulary: Option<&Vocabulary>,
    ) -> Result<Self, Error> {
        let mut files = Files::new();
        let mut warnings = Vec::new();
        let model = &inputs[donor];
        if model.checkpoint().is_raw() {
            return Ok(Self { files, warnings });
        }
        let mut model_config = model.config().clone();
        for taken in taken {
            layers::renumber(&mut model_config, taken, inputs, donor, &mut warnings);
        }
        quantised::forget(&mut model_config);
        set_dtype(&mut model_config, outputs);
        untie(&mut model_config, outputs, &mut warnings);
        let mut generation = read_json(model.path(), "generation_config.json")?;
        if let Some(vocabulary) = vocabulary {
            let merged = &vocabulary.tokenizer;
            warnings.extend(merged.warnings.iter().cloned());
            warnings.extend(merged.update_config(donor, &mut model_config).1);
            if let Some(generation) = &mut generation {
                warnings.extend(merged.update_ids(donor, generation).1);
            }
            files.extend(merged.files.clone());
        } else {
            files.extend(tokenizer::tokenizer_files(model.path())?);
            if let Some(text) = tokenizer::vocabularies_differ(&tokenizer_inputs(inputs))
                .unwrap_or_else(|error| Some(error.to_string()))
            {
                warnings.push(format!(
                    "the vocabularies differ and embeddings are merged row by row: {text} (`tokenizer_source` would align them)"
                ));
            }
        }
        if let Some(template) = &config.chat_template {
            let paths: Vec<&Path> = inputs.iter().map(Input::path).collect();
            let template = ChatTemplate::parse(template)?.resolve(&paths)?;
            match template {
                Some(text) => tokenizer::set_chat_template(&mut files, &text)?,
                None => warnings.push("`chat_template: auto`: no input has a template".into()),
            }
        }
        files.insert("config.json".into(), pretty(&model_config));
        if let Some(generation) = generation {
            files.insert("generation_config.json".into(), pretty(&generation));
        }
        take_over(model.path(), &mut files)?;
        Ok(Self { files, warnings })
    }

    /// Every file by its name.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn pretty(map: &Map<String, Value>) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(map).expect("JSON");
    text.push(b'\n');
    text
}

fn read_json(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>, Error> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map(Some).map_err(Error::json(&path))
}

/// The type that most of the weights have, where the configuration had one.
fn set_dtype(config: &mut Map<String, Value>, outputs: &[Output]) {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for output in outputs.iter().filter(|output| dtype::is_float(output.dtype)) {
        *sizes.entry(dtype::name(output.dtype)).or_default() += output.bytes();
    }
    let Some((name, _)) = sizes.into_iter().max_by_key(|(_, size)| *size) else { return };
    let known = [Dtype::F32, Dtype::BF16, Dtype::F16].map(dtype::name);
    // Also in the parts of a model with several.
    set_below(config, &name, &known);
    if !config.contains_key("dtype") && !config.contains_key("torch_dtype") {
        config.insert("dtype".into(), Value::from(name));
    }
}

fn set_below(config: &mut Map<String, Value>, name: &str, known: &[String]) {
    for (key, value) in config.iter_mut() {
        match value {
            Value::Object(nested) => set_below(nested, name, known),
            Value::String(text)
                if (key == "dtype" || key == "torch_dtype") && known.contains(text) =>
            {
                name.clone_into(text);
            }
            _ => {}
        }
    }
}

/// A head of its own in the output means that it is not tied any more.
fn untie(config: &mut Map<String, Value>, outputs: &[Output], warnings: &mut Vec<String>) {
    let head = outputs.iter().find(|output| output.name.ends_with("lm_head.weight"));
    let Some(head) = head else { return };
    // A file may hold a head that is tied all the same: then the two are merged alike.
    let inputs_tied = head.stored().iter().all(|(_, tensor)| {
        outputs
            .iter()
            .filter(|output| output.name.ends_with("embed_tokens.weight"))
            .any(|output| output.stored().iter().any(|(_, other)| other.bytes() == tensor.bytes()))
    });
    if inputs_tied {
        return;
    }
    let mut untied = false;
    let parts = ["text_config", "llm_config"];
    let own = std::iter::once(None).chain(parts.into_iter().map(Some));
    for part in own {
        let map = match part {
            None => Some(&mut *config),
            Some(part) => config.get_mut(part).and_then(Value::as_object_mut),
        };
        if let Some(map) = map
            && map.get("tie_word_embeddings") == Some(&Value::Bool(true))
        {
            map.insert("tie_word_embeddings".into(), Value::Bool(false));
            untied = true;
        }
    }
    if untied {
        let text =
            "the head is not tied to the embeddings any more: some inputs have a head of their own";
        warnings.push(text.into());
    }
}

/// Files that loaders look for: settings of processors, code of the model.
fn take_over(folder: &Path, files: &mut Files) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned();
        let is_code = Path::new(&name).extension().is_some_and(|extension| extension == "py");
        if (TAKEN_OVER.contains(&name.as_str()) || is_code) && !files.contains_key(&name) {
            let path = folder.join(&name);
            files.insert(name, std::fs::read(&path).map_err(Error::io(&path))?);
        }
    }
    Ok(())
}
