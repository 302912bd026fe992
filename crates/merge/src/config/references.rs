//! Which models a configuration refers to.

use std::collections::HashSet;

use super::key_path::{index, key};
use super::types::{Body, InputModel, MergeConfig, ModuleBody, OutputSlice};
use super::{ModelRef, TokenSource, TokenizerSource};

impl MergeConfig {
    /// The base model and all inputs, each once, in the order of the file: the models whose vocabularies
    /// a union is made of.
    pub fn models(&self) -> Vec<&ModelRef> {
        let mut seen = HashSet::new();
        let merged = |path: &str| !path.starts_with("tokenizer");
        let all = self.references().into_iter().filter(|(path, _)| merged(path));
        all.map(|(_, model)| model).filter(|model| seen.insert(*model)).collect()
    }

    /// Every place with a model: its key path and the model. The base model is the first.
    pub fn references(&self) -> Vec<(String, &ModelRef)> {
        let mut found = Vec::new();
        found.extend(self.base_model.iter().map(|model| ("base_model".to_owned(), model)));
        match &self.body {
            Body::Models(models) => of_models("models", models, &mut found),
            Body::Slices(slices) => of_slices("slices", slices, &mut found),
            Body::Modules(modules) => {
                for (name, module) in modules {
                    let path = key("modules", name);
                    match &module.body {
                        ModuleBody::Models(models) => {
                            of_models(&key(&path, "models"), models, &mut found);
                        }
                        ModuleBody::Slices(slices) => {
                            of_slices(&key(&path, "slices"), slices, &mut found);
                        }
                    }
                }
            }
        }
        if let Some(TokenizerSource::Model(model)) = &self.tokenizer_source {
            found.push(("tokenizer_source".into(), model));
        }
        let Some(tokenizer) = &self.tokenizer else { return found };
        if let TokenizerSource::Model(model) = &tokenizer.source {
            found.push(("tokenizer.source".into(), model));
        }
        for (token, config) in &tokenizer.tokens {
            let path = key(&key("tokenizer.tokens", token), "source");
            match &config.source {
                Some(TokenSource::Model(model)) => found.push((path, model)),
                Some(TokenSource::ModelToken { model, .. }) => {
                    found.push((key(&path, "model"), model));
                }
                Some(TokenSource::Zero) | None => {}
            }
        }
        found
    }

    /// Changes every model in place, such as a document's name into the folder of its result.
    pub fn change_models(&mut self, mut change: impl FnMut(&mut ModelRef)) {
        let change = &mut change;
        self.base_model.iter_mut().for_each(&mut *change);
        match &mut self.body {
            Body::Models(models) => change_models(models, change),
            Body::Slices(slices) => change_slices(slices, change),
            Body::Modules(modules) => {
                for (_, module) in modules {
                    match &mut module.body {
                        ModuleBody::Models(models) => change_models(models, change),
                        ModuleBody::Slices(slices) => change_slices(slices, change),
                    }
                }
            }
        }
        if let Some(TokenizerSource::Model(model)) = &mut self.tokenizer_source {
            change(model);
        }
        let Some(tokenizer) = &mut self.tokenizer else { return };
        if let TokenizerSource::Model(model) = &mut tokenizer.source {
            change(model);
        }
        for (_, config) in &mut tokenizer.tokens {
            match &mut config.source {
                Some(TokenSource::Model(model) | TokenSource::ModelToken { model, .. }) => {
                    change(model);
                }
                Some(TokenSource::Zero) | None => {}
            }
        }
    }
}

fn of_models<'a>(path: &str, models: &'a [InputModel], found: &mut Vec<(String, &'a ModelRef)>) {
    let of = |(i, input): (usize, &'a InputModel)| (key(&index(path, i), "model"), &input.model);
    found.extend(models.iter().enumerate().map(of));
}

fn of_slices<'a>(path: &str, slices: &'a [OutputSlice], found: &mut Vec<(String, &'a ModelRef)>) {
    for (i, slice) in slices.iter().enumerate() {
        let path = index(path, i);
        found.extend(slice.base_model.iter().map(|model| (key(&path, "base_model"), model)));
        for (i, source) in slice.sources.iter().enumerate() {
            found.push((key(&index(&key(&path, "sources"), i), "model"), &source.model));
        }
    }
}

fn change_models(models: &mut [InputModel], change: &mut impl FnMut(&mut ModelRef)) {
    for input in models {
        change(&mut input.model);
    }
}

fn change_slices(slices: &mut [OutputSlice], change: &mut impl FnMut(&mut ModelRef)) {
    for slice in slices {
        slice.base_model.iter_mut().for_each(&mut *change);
        for source in &mut slice.sources {
            change(&mut source.model);
        }
    }
}
