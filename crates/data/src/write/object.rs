//! A row as the object that stands in a file.

use serde_json::{Map, Value as Json};

use crate::row::{Body, Example, Row};

impl Row {
    /// The object that is written for this row: the columns of its form, its context and its metadata.
    ///
    /// # Errors
    /// Says which column of the metadata has the name of another.
    pub fn to_object(&self) -> Result<Map<String, Json>, String> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Json| drop(object.insert(key.into(), value));
        match &self.example {
            Example::Messages(messages) => {
                put("messages", messages.iter().cloned().map(Json::Object).collect());
            }
            Example::Text(text) => put("text", text.clone().into()),
            Example::Prompt(prompt) => put("prompt", prompt.to_json()),
            Example::PromptCompletion { prompt, completion } => {
                put("prompt", prompt.to_json());
                put("completion", completion.to_json());
            }
            Example::Preference { prompt, chosen, rejected, margin } => {
                put("prompt", prompt.to_json());
                put("chosen", chosen.to_json());
                put("rejected", rejected.to_json());
                if let Some(margin) = margin {
                    put("margin", (*margin).into());
                }
            }
            Example::Unpaired { prompt, completion, label } => {
                put("prompt", prompt.to_json());
                put("completion", completion.to_json());
                put("label", (*label).into());
            }
            Example::Steps { prompt, steps, labels } => {
                put("prompt", prompt.to_json());
                put("completions", steps.clone().into());
                put("labels", labels.clone().into());
            }
            Example::Ranked { prompt, completions, scores } => {
                put("prompt", prompt.to_json());
                put("completions", completions.iter().map(Body::to_json).collect());
                put("scores", scores.clone().into());
            }
        }
        let context = &self.context;
        for (key, items) in [("tools", &context.tools), ("documents", &context.documents)] {
            if !items.is_empty() {
                put(key, items.clone().into());
            }
        }
        if !context.variables.is_empty() {
            put("chat_template_kwargs", context.variables.clone().into());
        }
        for (key, value) in &self.metadata {
            if object.insert(key.clone(), value.clone()).is_some() {
                return Err(format!(
                    "the column `{key}` of its metadata has the name of one of its form; rename it"
                ));
            }
        }
        Ok(object)
    }
}
