//! The formats in which models write tool calls.

use posttrain_core::Tool;

use super::blocks::{Found, scan};
use super::{bare, deepseek, glm, hermes, kimi, llama, mistral, qwen_xml, sections};

/// How a model writes its tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseFormat {
    /// No tool calls: all of the answer is content.
    #[default]
    Plain,
    /// `{"name": ..., "arguments": {...}}`, or a list of such, with no marker around it. An object
    /// is a call when it starts a line outside of code fences and has both a name and the key
    /// `arguments` or `parameters`.
    Json,
    /// `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`: Hermes, Qwen2.5, Qwen3,
    /// Granite 4.
    Hermes,
    /// `<tool_call>\n<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>\n</tool_call>`:
    /// Qwen3-Coder, Qwen3.5, Nemotron 3, and Seed-OSS with its own outer tags.
    QwenXml,
    /// `<tool_call>name\n<arg_key>key</arg_key>\n<arg_value>value</arg_value>\n</tool_call>`:
    /// GLM-4.5 and later.
    Glm,
    /// `{"name": ..., "parameters": {...}}`, bare as in [`ResponseFormat::Json`] or behind
    /// `<|python_tag|>`, and `<|python_tag|>name.call(key="value")`: Llama 3.1 to 3.3.
    Llama3,
    /// `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`, and the newer
    /// `[TOOL_CALLS]name[ARGS]{...}` and `[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}`.
    Mistral,
    /// ``<｜tool▁call▁begin｜>function<｜tool▁sep｜>name\n```json\n{...}\n```<｜tool▁call▁end｜>`` of V2,
    /// V3 and R1, and `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>` of V3.1.
    DeepSeek,
    /// `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>`:
    /// Kimi K2.
    Kimi,
}

impl ResponseFormat {
    /// The format that a chat template writes, known by its markers; `None` when it shows none of
    /// these formats.
    ///
    /// ```
    /// use posttrain_chat::response::ResponseFormat;
    ///
    /// let template = r#"{{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}"#;
    /// assert_eq!(ResponseFormat::detect(template), Some(ResponseFormat::Hermes));
    /// assert_eq!(ResponseFormat::detect("{{ messages[0].content }}"), None);
    /// ```
    pub fn detect(chat_template: &str) -> Option<Self> {
        let has = |marker: &str| chat_template.contains(marker);
        // Between double quotes a template escapes the quotes of JSON.
        let has_key = |key| has(&format!("\"{key}\":")) || has(&format!("\\\"{key}\\\":"));
        // Every format that shares an outer marker with another comes before it.
        if has("<arg_key>") && has("<tool_call>") {
            Some(Self::Glm)
        } else if has("<function=") && has("<parameter=") {
            Some(Self::QwenXml)
        } else if has("<|tool_calls_section_begin|>") {
            Some(Self::Kimi)
        } else if has("<｜tool▁calls▁begin｜>") {
            Some(Self::DeepSeek)
        } else if has("[TOOL_CALLS]") {
            Some(Self::Mistral)
        } else if has("<tool_call>") && has_key("arguments") && !has("<tool_calls>") {
            Some(Self::Hermes)
        } else if has("<|start_header_id|>") && has_key("parameters") {
            Some(Self::Llama3)
        } else {
            None
        }
    }

    /// Reads everything that the format knows out of a text.
    pub(super) fn read(self, text: &str, tools: &[Tool]) -> Found {
        scan(text, |from| match self {
            Self::Plain => None,
            Self::Json => bare::next(text, from, text.len(), |_| text.len()),
            Self::Hermes => hermes::next(text, from),
            Self::QwenXml => qwen_xml::next(text, from, tools),
            Self::Glm => glm::next(text, from, tools),
            Self::Llama3 => llama::next(text, from),
            Self::Mistral => mistral::next(text, from),
            Self::DeepSeek => sections::next(text, from, &deepseek::MARKERS),
            Self::Kimi => sections::next(text, from, &kimi::MARKERS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseFormat::{self, DeepSeek, Glm, Hermes, Kimi, Llama3, Mistral, QwenXml};

    #[test]
    fn formats_of_templates() {
        for (template, expected) in [
            (r#""<tool_call>\n{\"name\": \"" ~ name ~ "\", \"arguments\": ""#, Some(Hermes)),
            (r#"'<tool_call>\n{"name": "' + name + '", "arguments": ' + args"#, Some(Hermes)),
            (r"'<tool_call>\n<function=' + name + '>\n<parameter=' + key", Some(QwenXml)),
            ("'<seed:tool_call>' '<function=' '<parameter='", Some(QwenXml)),
            (r"'\n<tool_call>' + tc.name <arg_key>{{ k }}</arg_key>", Some(Glm)),
            ("'<|start_header_id|>' '{\"name\": \"' + name '\"parameters\": '", Some(Llama3)),
            ("'[TOOL_CALLS]' + name + '[ARGS]' + arguments", Some(Mistral)),
            ("'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name", Some(DeepSeek)),
            ("<|tool_calls_section_begin|>", Some(Kimi)),
            // A list in tags of its own, and a function that takes JSON.
            (r#"within <tool_call> tags: <tool_calls>[{"name": "arguments": "#, None),
            ("<|start_header_id|> '<function=' + name + '>' + arguments", None),
            ("<|im_start|>", None),
            ("", None),
        ] {
            assert_eq!(ResponseFormat::detect(template), expected, "{template}");
        }
    }
}
