//! What a template can render: a [`Conversation`], or JSON as it came ([`JsonChat`]).

use std::path::Path;

use bumpalo::Bump;
use posttrain_core::{Arguments, Content, Conversation, Message, ToolCall};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result, kind, read_json};
use crate::jinja::{Dict, DictBuilder, Value, copy_map, from_json, from_map};
use crate::sanitize::{ControlTokens, Sanitize, strip_map};

/// A conversation that a chat template can render.
///
/// Implemented by [`Conversation`], and by [`JsonChat`] for conversations that are not in the
/// `OpenAI` form (other roles, other fields), which reach the template as they are.
pub trait Chat: sealed::Sealed {}

pub(crate) mod sealed {
    use bumpalo::Bump;

    use super::Input;
    use crate::error::Result;
    use crate::sanitize::{ControlTokens, Sanitize};

    pub trait Sealed {
        #[doc(hidden)]
        fn input<'a>(&'a self, arena: &'a Bump, arguments: ArgumentForm) -> Input<'a>;
        /// Whether there are tools.
        #[doc(hidden)]
        fn has_tools(&self) -> bool;
        /// Whether the form of arguments makes a difference.
        #[doc(hidden)]
        fn has_arguments(&self) -> bool;
        /// For every message whether it is an assistant turn, and its own flag for training.
        #[doc(hidden)]
        fn turns(&self) -> Result<Vec<(bool, Option<bool>)>>;
        /// A copy with its control tokens wrapped in marks; `None` when there is none to wrap.
        #[doc(hidden)]
        fn marked(&self, tokens: &ControlTokens, which: Sanitize) -> Option<Self>
        where
            Self: Sized;
    }

    /// How the arguments of a tool call reach the template.
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[doc(hidden)]
    pub enum ArgumentForm {
        AsGiven,
        Object,
        Text,
    }
}

pub(crate) use sealed::ArgumentForm;

/// The variables of a conversation, as Python values.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Input<'a> {
    pub(crate) messages: Vec<Dict<'a>>,
    pub(crate) tools: Value<'a>,
    pub(crate) documents: Value<'a>,
    pub(crate) variables: Vec<(&'a str, Value<'a>)>,
}

impl Chat for Conversation {}

impl sealed::Sealed for Conversation {
    fn input<'a>(&'a self, arena: &'a Bump, arguments: ArgumentForm) -> Input<'a> {
        let tools = self.tools.iter().map(|tool| Value::Dict(from_map(arena, &tool.0)));
        let documents = self.documents.iter().map(|doc| Value::Dict(from_map(arena, &doc.0)));
        let messages = self.messages.iter().map(|message| message_dict(arena, message, arguments));
        Input {
            messages: messages.collect(),
            tools: list(arena, tools),
            documents: list(arena, documents),
            variables: Vec::new(),
        }
    }

    fn has_tools(&self) -> bool {
        !self.tools.is_empty()
    }

    fn has_arguments(&self) -> bool {
        self.messages.iter().any(|message| !message.tool_calls.is_empty())
    }

    fn turns(&self) -> Result<Vec<(bool, Option<bool>)>> {
        let turn =
            |message: &Message| (message.role == posttrain_core::Role::Assistant, message.train);
        Ok(self.messages.iter().map(turn).collect())
    }

    fn marked(&self, tokens: &ControlTokens, which: Sanitize) -> Option<Self> {
        tokens.mark_conversation(self, which)
    }
}

/// A list, or `None` where it would be empty.
fn list<'a>(arena: &'a Bump, items: impl ExactSizeIterator<Item = Value<'a>>) -> Value<'a> {
    if items.len() == 0 { Value::None } else { Value::List(arena.alloc_slice_fill_iter(items)) }
}

fn message_dict<'a>(arena: &'a Bump, message: &'a Message, arguments: ArgumentForm) -> Dict<'a> {
    let mut dict = DictBuilder::new(arena, 4 + message.extra.len());
    let mut push = |key, value| dict.push(Value::Str(key), value);
    push("role", Value::Str(message.role.as_str()));
    match &message.content {
        None => {}
        Some(Content::Text(text)) => push("content", Value::Str(text)),
        Some(Content::Parts(parts)) => {
            let parts = parts.iter().map(|part| Value::Dict(from_map(arena, &part.0)));
            push("content", Value::List(arena.alloc_slice_fill_iter(parts)));
        }
    }
    if let Some(reasoning) = &message.reasoning_content {
        push("reasoning_content", Value::Str(reasoning));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| call_dict(arena, call, arguments));
        push("tool_calls", Value::List(arena.alloc_slice_fill_iter(calls)));
    }
    if let Some(id) = &message.tool_call_id {
        push("tool_call_id", Value::Str(id));
    }
    if let Some(name) = &message.name {
        push("name", Value::Str(name));
    }
    for (key, value) in &message.extra {
        if !value.is_null() {
            push(key, from_json(arena, value));
        }
    }
    dict.finish()
}

fn call_dict<'a>(arena: &'a Bump, call: &'a ToolCall, form: ArgumentForm) -> Value<'a> {
    let arguments = match (&call.function.arguments, form) {
        (Arguments::Object(object), ArgumentForm::Text) => {
            Value::string(arena, Json::Object(object.clone()).to_string())
        }
        (Arguments::Object(object), _) => Value::Dict(from_map(arena, object)),
        (Arguments::Text(text), ArgumentForm::Object) => {
            match call.function.arguments.to_object() {
                Ok(object) => Value::Dict(copy_map(arena, &object)),
                Err(_) => Value::Str(text),
            }
        }
        (Arguments::Text(text), _) => Value::Str(text),
    };
    let mut function = DictBuilder::new(arena, 2);
    function.push(Value::Str("name"), Value::Str(&call.function.name));
    function.push(Value::Str("arguments"), arguments);
    let mut dict = DictBuilder::new(arena, 3);
    if let Some(id) = &call.id {
        dict.push(Value::Str("id"), Value::Str(id));
    }
    dict.push(Value::Str("type"), Value::Str("function"));
    dict.push(Value::Str("function"), Value::Dict(function.finish()));
    Value::Dict(dict.finish())
}

/// A conversation as JSON: what a template sees is what stands there, as in transformers.
///
/// ```
/// use posttrain_chat::{Builtin, ChatTemplate, JsonChat, RenderOptions};
/// use serde_json::json;
///
/// let chat = JsonChat::new(json!([{"role": "user", "content": "Hi"}]))?;
/// let template = ChatTemplate::builtin(Builtin::ChatMl);
/// assert_eq!(
///     template.render(&chat, &RenderOptions::default())?,
///     "<|im_start|>user\nHi<|im_end|>\n"
/// );
/// # Ok::<(), posttrain_chat::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct JsonChat {
    messages: Vec<Map<String, Json>>,
    tools: Option<Vec<Json>>,
    documents: Option<Vec<Json>>,
    variables: Map<String, Json>,
}

impl JsonChat {
    /// Reads [`JsonChat::new`]'s form from a file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`] with line and column, or [`Error::Form`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(read_json(path.as_ref())?)
    }

    /// A list of messages, or an object with `messages` and optionally `tools`, `documents` and any
    /// other variable of the template.
    ///
    /// # Errors
    /// [`Error::Form`] when a part has another form.
    pub fn new(json: Json) -> Result<Self> {
        let form = |what: &str, found: &Json, expected| Error::Form {
            what: what.to_owned(),
            found: kind(found),
            expected,
        };
        let mut variables = match json {
            Json::Array(messages) => {
                let mut object = Map::new();
                object.insert("messages".into(), Json::Array(messages));
                object
            }
            Json::Object(object) => object,
            found => {
                return Err(form(
                    "the conversation",
                    &found,
                    "a list of messages or an object with `messages`",
                ));
            }
        };
        for key in ["add_generation_prompt", "continue_final_message", "chat_template"] {
            if variables.contains_key(key) {
                return Err(Error::Form {
                    what: format!("the key `{key}` of the conversation"),
                    found: "an option of the rendering".into(),
                    expected: "a variable of the template; set the option where you render",
                });
            }
        }
        let Some(messages) = variables.shift_remove("messages") else {
            let keys: Vec<&String> = variables.keys().collect();
            return Err(Error::Form {
                what: "the conversation".into(),
                found: format!("an object with the keys {keys:?}"),
                expected: "an object with `messages`",
            });
        };
        let Json::Array(messages) = messages else {
            return Err(form("`messages`", &messages, "a list"));
        };
        let message = |(i, message)| match message {
            Json::Object(message) => Ok(message),
            found => {
                Err(form(&format!("message {i}"), &found, "an object with `role` and `content`"))
            }
        };
        let messages = messages.into_iter().enumerate().map(message).collect::<Result<_>>()?;
        let mut list = |key: &str| match variables.shift_remove(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Array(items)) => match items.iter().find(|item| !item.is_object()) {
                None => Ok(Some(items)),
                Some(item) => Err(form(&format!("an item of `{key}`"), item, "an object")),
            },
            Some(found) => Err(form(&format!("`{key}`"), &found, "a list of objects")),
        };
        let (tools, documents) = (list("tools")?, list("documents")?);
        Ok(Self { messages, tools, documents, variables })
    }

    /// Replaces the tools: a list of objects.
    ///
    /// # Errors
    /// [`Error::Form`] when an item is not an object.
    pub fn with_tools(self, tools: Vec<Json>) -> Result<Self> {
        match tools.iter().position(|tool| !tool.is_object()) {
            None => Ok(Self { tools: Some(tools), ..self }),
            Some(i) => Err(Error::Form {
                what: format!("tool {i}"),
                found: kind(&tools[i]),
                expected: "an object, the JSON schema of a tool",
            }),
        }
    }

    /// Replaces the tools by the list in a file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`] with line and column, or [`Error::Form`].
    pub fn with_tools_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match read_json(path)? {
            Json::Array(tools) => self.with_tools(tools),
            found => Err(Error::Form {
                what: path.display().to_string(),
                found: kind(&found),
                expected: "a list of tools",
            }),
        }
    }
}

impl Chat for JsonChat {}

impl sealed::Sealed for JsonChat {
    fn input<'a>(&'a self, arena: &'a Bump, _: ArgumentForm) -> Input<'a> {
        let values = |items: &'a Option<Vec<Json>>| match items {
            None => Value::None,
            Some(items) => {
                let items = items.iter().map(|item| from_json(arena, item));
                Value::List(arena.alloc_slice_fill_iter(items))
            }
        };
        let message = |message: &'a Map<String, Json>| {
            if message.values().any(Json::is_null) {
                // As apply_chat_template does: a null field is no field.
                let mut dict = DictBuilder::new(arena, message.len());
                for (key, value) in message.iter().filter(|(_, value)| !value.is_null()) {
                    dict.push(Value::Str(key), from_json(arena, value));
                }
                return dict.finish();
            }
            from_map(arena, message)
        };
        let variables = self.variables.iter().map(|(k, v)| (k.as_str(), from_json(arena, v)));
        Input {
            messages: self.messages.iter().map(message).collect(),
            tools: values(&self.tools),
            documents: values(&self.documents),
            variables: variables.collect(),
        }
    }

    fn has_tools(&self) -> bool {
        self.tools.is_some()
    }

    fn has_arguments(&self) -> bool {
        // They are what stands there.
        false
    }

    fn turns(&self) -> Result<Vec<(bool, Option<bool>)>> {
        let turn = |(i, message): (usize, &Map<String, Json>)| {
            let assistant = message.get("role").and_then(Json::as_str) == Some("assistant");
            let given = |key| message.get(key).filter(|flag| !flag.is_null());
            let flag = given("weight").or_else(|| given("train"));
            let flag = flag.map(posttrain_core::training_flag).transpose();
            let flag = flag.map_err(|found| Error::Form {
                what: format!("the weight of message {i}"),
                found,
                expected: "0, 1, true or false",
            })?;
            Ok((assistant, flag))
        };
        self.messages.iter().enumerate().map(turn).collect()
    }

    fn marked(&self, tokens: &ControlTokens, which: Sanitize) -> Option<Self> {
        if which == Sanitize::Off {
            return None;
        }
        let mut chat = self.clone();
        let mut changed = false;
        for message in &mut chat.messages {
            // Any role but these may carry what somebody else wrote.
            let role = message.get("role").and_then(Json::as_str);
            let trusted = matches!(role, Some("assistant" | "system" | "developer"));
            if which == Sanitize::All || !trusted {
                tokens.mark_map(message, &mut changed);
            } else {
                strip_map(message, &mut changed);
            }
        }
        let tools = chat.tools.iter_mut().filter(|_| which == Sanitize::All);
        for item in tools.chain(&mut chat.documents).flatten().filter_map(Json::as_object_mut) {
            tokens.mark_map(item, &mut changed);
        }
        if which == Sanitize::All {
            tokens.mark_variables(&mut chat.variables, &mut changed);
        }
        changed.then_some(chat)
    }
}
