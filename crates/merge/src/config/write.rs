//! From a configuration to a tree, with the keys that it was read from.

use serde_json::{Map, Value, json};

use super::types::{
    Body, InputModel, InputSlice, MergeConfig, ModuleBody, OutputModule, OutputSlice,
};
use super::{
    Conditional, ModelRef, Parameters, Scalar, ScalarOrGradient, Setting, TokenConfig, TokenName,
    TokenSource, TokenizerConfig, TokenizerSource,
};
use crate::dtype;

impl MergeConfig {
    /// The configuration as a tree; [`from_value`](Self::from_value) gives it back. What is not set is
    /// left out, and parameters keep the form in which they were written, so that their key paths stay
    /// the same.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "name", self.name.clone());
        put(&mut map, "merge_method", Some(self.merge_method.clone()));
        put(&mut map, "base_model", self.base_model.as_ref().map(ModelRef::to_value));
        let (key, body) = match &self.body {
            Body::Models(models) => ("models", list(models, InputModel::to_value)),
            Body::Slices(slices) => ("slices", list(slices, OutputSlice::to_value)),
            Body::Modules(modules) => {
                let module =
                    |(name, module): &(String, OutputModule)| (name.clone(), module.to_value());
                ("modules", Value::Object(modules.iter().map(module).collect()))
            }
        };
        put(&mut map, key, Some(body));
        put_parameters(&mut map, &self.parameters);
        put(&mut map, "dtype", self.dtype.map(dtype::name));
        put(&mut map, "out_dtype", self.out_dtype.map(dtype::name));
        let source = self.tokenizer_source.as_ref();
        put(&mut map, "tokenizer_source", source.map(TokenizerSource::to_value));
        put(&mut map, "tokenizer", self.tokenizer.as_ref().map(TokenizerConfig::to_value));
        put(&mut map, "chat_template", self.chat_template.clone());
        Value::Object(map)
    }

    /// The configuration as YAML; [`parse`](Self::parse) gives it back.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&self.to_value())
            .expect("a tree of texts and finite numbers is YAML")
    }
}

impl ModelRef {
    /// The path if that is all and no part of it could be taken for something else, otherwise
    /// `{model: {path, revision}, lora: {path, revision}, override_architecture}`, which is never cut.
    pub fn to_value(&self) -> Value {
        let path = self.path.to_string_lossy();
        if *self == Self::new(&*self.path) && !path.contains(['@', '+']) {
            return path.into();
        }
        let located = |path: &std::path::Path, revision: &Option<String>| {
            let mut map = Map::new();
            put(&mut map, "path", Some(path.to_string_lossy()));
            put(&mut map, "revision", revision.clone());
            Value::Object(map)
        };
        let mut map = Map::new();
        put(&mut map, "model", Some(located(&self.path, &self.revision)));
        let lora = self.lora.as_ref();
        put(&mut map, "lora", lora.map(|lora| located(&lora.path, &lora.revision)));
        put(&mut map, "override_architecture", self.override_architecture.clone());
        Value::Object(map)
    }
}

impl InputModel {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "model", Some(self.model.to_value()));
        put_parameters(&mut map, &self.parameters);
        Value::Object(map)
    }
}

impl OutputSlice {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "sources", Some(list(&self.sources, InputSlice::to_value)));
        put(&mut map, "base_model", self.base_model.as_ref().map(ModelRef::to_value));
        put(&mut map, "residual_weight", self.residual_weight);
        put_parameters(&mut map, &self.parameters);
        Value::Object(map)
    }
}

impl InputSlice {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "model", Some(self.model.to_value()));
        let range = [self.layer_range.start, self.layer_range.end];
        put(&mut map, "layer_range", Some(json!(range)));
        put_parameters(&mut map, &self.parameters);
        Value::Object(map)
    }
}

impl OutputModule {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let (key, body) = match &self.body {
            ModuleBody::Models(models) => ("models", list(models, InputModel::to_value)),
            ModuleBody::Slices(slices) => ("slices", list(slices, OutputSlice::to_value)),
        };
        put(&mut map, key, Some(body));
        put_parameters(&mut map, &self.parameters);
        Value::Object(map)
    }
}

impl TokenizerSource {
    fn to_value(&self) -> Value {
        match self {
            Self::Union => "union".into(),
            Self::Base => "base".into(),
            // A folder of such a name.
            Self::Model(model)
                if model.path.as_os_str() == "union" || model.path.as_os_str() == "base" =>
            {
                json!({"model": {"path": model.path.to_string_lossy()}})
            }
            Self::Model(model) => model.to_value(),
        }
    }
}

impl TokenizerConfig {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "source", Some(self.source.to_value()));
        let token = |(token, config): &(String, TokenConfig)| (token.clone(), config.to_value());
        let tokens: Map<String, Value> = self.tokens.iter().map(token).collect();
        put(&mut map, "tokens", (!tokens.is_empty()).then_some(tokens));
        put(&mut map, "pad_to_multiple_of", self.pad_to_multiple_of);
        Value::Object(map)
    }
}

impl TokenConfig {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let source = self.source.as_ref().map(|source| match source {
            TokenSource::Model(model) => model.to_value(),
            TokenSource::Zero => json!({"kind": "zero"}),
            TokenSource::ModelToken { model, token } => {
                let (key, token) = match token {
                    TokenName::Text(text) => ("token", json!(text)),
                    TokenName::Id(id) => ("token_id", json!(id)),
                };
                json!({"kind": "model_token", "model": model.to_value(), key: token})
            }
        });
        put(&mut map, "source", source);
        put(&mut map, "force", self.force.then_some(true));
        Value::Object(map)
    }
}

impl Setting {
    /// The setting as it was written.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Value(value) => value.to_value(),
            Self::Conditional(one) => one.to_value(),
            Self::Conditionals(all) => list(all, Conditional::to_value),
        }
    }
}

impl Conditional {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put(&mut map, "filter", self.filter.clone());
        put(&mut map, "value", Some(self.value.to_value()));
        Value::Object(map)
    }
}

impl ScalarOrGradient {
    fn to_value(&self) -> Value {
        match self {
            Self::Scalar(scalar) => scalar.to_value(),
            Self::Gradient(values) => list(values, Scalar::to_value),
        }
    }
}

impl Scalar {
    /// The scalar as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Text(text) => json!(text),
        }
    }
}

fn list<T>(items: &[T], value: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(value).collect())
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}

fn put_parameters(map: &mut Map<String, Value>, parameters: &Parameters) {
    let setting = |(name, setting): &(String, Setting)| (name.clone(), setting.to_value());
    let settings: Map<String, Value> = parameters.0.iter().map(setting).collect();
    put(map, "parameters", (!settings.is_empty()).then_some(settings));
}
