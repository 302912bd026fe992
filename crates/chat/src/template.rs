//! A model's chat template.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bumpalo::Bump;
use jiff::civil::DateTime;
use serde_json::{Map, Value as Json};

use crate::arena;
use crate::builtin::Builtin;
use crate::chat::{ArgumentForm, Chat, Input};
use crate::continue_final;
use crate::error::{Error, Result};
use crate::jinja::{Dict, DictBuilder, Rendered, Template, Value, from_json};
use crate::source;

type Clock = Arc<dyn Fn() -> DateTime + Send + Sync>;

/// A chat template, rendered exactly as transformers 5.23 renders it.
///
/// ```
/// use posttrain_chat::{Builtin, ChatTemplate, RenderOptions};
/// use posttrain_core::{Conversation, Message};
///
/// let template = ChatTemplate::builtin(Builtin::ChatMl);
/// let chat = Conversation::new([Message::user("What is 6 times 7?")]);
/// let prompt = template.render(&chat, &RenderOptions::generation_prompt())?;
/// assert_eq!(prompt, "<|im_start|>user\nWhat is 6 times 7?<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), posttrain_chat::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    templates: BTreeMap<String, Arc<Named>>,
    /// `bos_token`, `eos_token` and the like, as the template sees them.
    special_tokens: Map<String, Json>,
    /// Those of a built-in template, where nobody set others.
    default_tokens: &'static [(&'static str, &'static str)],
    /// `chat_control_tokens` of the tokenizer's configuration.
    pub(crate) control_tokens: Option<Vec<String>>,
    clock: Clock,
}

/// One of a model's templates.
pub(crate) struct Named {
    pub(crate) source: String,
    pub(crate) template: Template,
    arguments: OnceLock<ArgumentForm>,
}

/// How to render.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RenderOptions {
    /// Ends with the header of an assistant turn, for the model to go on from.
    pub add_generation_prompt: bool,
    /// Leaves the last message open, for the model to go on with it.
    pub continue_final_message: Option<ContinueFinal>,
    /// The name of the template, where a model has several. By default `tool_use` when there are
    /// tools and such a template, else `default`.
    pub template: Option<String>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Json>,
    /// How the arguments of tool calls in a [`Conversation`](posttrain_core::Conversation) reach
    /// the template.
    pub tool_arguments: ToolArguments,
}

impl RenderOptions {
    /// With the header of an assistant turn at the end.
    pub fn generation_prompt() -> Self {
        Self { add_generation_prompt: true, ..Self::default() }
    }

    /// Adds a variable of the template.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }
}

/// Which field of the last message is left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContinueFinal {
    /// The content.
    Content,
    /// Another field, such as `reasoning_content`.
    Field(String),
}

/// How the arguments of tool calls reach the template.
///
/// `OpenAI` sends a string that holds JSON; most templates want an object and would quote the
/// string a second time, a few want the string. Transformers passes what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolArguments {
    /// The form that the template renders properly: it is asked once, with a probe call.
    #[default]
    Auto,
    /// As they stand in the conversation.
    AsGiven,
}

impl ChatTemplate {
    /// A template from its Jinja source.
    ///
    /// # Errors
    /// [`Error::Template`] with the line when the source does not parse.
    pub fn parse(source: &str) -> Result<Self> {
        Self::from_named([("default".to_owned(), source.to_owned())], Map::new())
    }

    /// One of the templates that this crate brings along.
    pub fn builtin(builtin: Builtin) -> Self {
        let template = Self::parse(builtin.source()).expect("the built-in templates parse");
        Self { default_tokens: builtin.special_tokens(), ..template }
    }

    /// The templates of a checkpoint folder: `chat_template.jinja` and
    /// `additional_chat_templates/*.jinja`, else `chat_template` in `tokenizer_config.json` (a string
    /// or a list of names and templates), else `chat_template.json`; and its special tokens.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] when there is none; [`Error::Read`], [`Error::Json`] or [`Error::Form`]
    /// for a broken file.
    pub fn from_model(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = source::tokenizer_config(folder)?;
        let templates = source::templates(folder, &config)?;
        if templates.is_empty() {
            return Err(Error::NoTemplate { path: folder.to_owned() });
        }
        Self::from_named(templates, Map::new())?.with_tokens_of(folder)
    }

    /// Takes over the special tokens of a checkpoint folder, except those that were set before: for
    /// a template of one's own, or a built-in one, on a model.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`] or [`Error::Form`] for a broken configuration.
    pub fn with_tokens_of(mut self, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = source::tokenizer_config(folder)?;
        let mut tokens = source::special_tokens(folder, &config)?;
        tokens.extend(std::mem::take(&mut self.special_tokens));
        self.special_tokens = tokens;
        self.control_tokens = source::control_tokens(folder, &config)?;
        Ok(self)
    }

    /// Templates by name (`default`, `tool_use`, ...) with the special tokens that they may use.
    ///
    /// # Errors
    /// [`Error::Template`] when one does not parse.
    pub fn from_named(
        templates: impl IntoIterator<Item = (String, String)>,
        special_tokens: Map<String, Json>,
    ) -> Result<Self> {
        let mut compiled = BTreeMap::new();
        for (name, source) in templates {
            let template = Template::parse(&source)?;
            let named = Named { source, template, arguments: OnceLock::new() };
            compiled.insert(name, Arc::new(named));
        }
        let clock: Clock = Arc::new(|| jiff::Zoned::now().datetime());
        let (default_tokens, control_tokens) = (&[], None);
        Ok(Self { templates: compiled, special_tokens, default_tokens, control_tokens, clock })
    }

    /// Sets a special token (`bos_token`, `eos_token`, ...) that the template may use.
    #[must_use]
    pub fn with_special_token(mut self, name: &str, token: &str) -> Self {
        self.special_tokens.insert(name.to_owned(), token.into());
        self
    }

    /// Sets what `strftime_now` takes for the present, instead of the local time.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> DateTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The names of the templates.
    pub fn names(&self) -> Vec<&str> {
        self.templates.keys().map(String::as_str).collect()
    }

    /// The source of the template that would be used.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`] or [`Error::NoDefault`].
    pub fn source(&self, name: Option<&str>, with_tools: bool) -> Result<&str> {
        Ok(&self.select(name, with_tools)?.source)
    }

    /// A special token by its name, as set by the tokenizer's configuration.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        let set = self.special_tokens.get(name).and_then(Json::as_str);
        set.or_else(|| {
            self.default_tokens.iter().find(|(k, _)| *k == name).map(|(_, token)| *token)
        })
    }

    /// Renders a conversation to text.
    ///
    /// # Errors
    /// [`Error::Template`] when the template raises: its `Display` is then the template's own
    /// message. [`Error::EmptyConversation`] and [`Error::Continue`] as in transformers.
    pub fn render(&self, chat: &impl Chat, options: &RenderOptions) -> Result<String> {
        arena::with(|arena| {
            let (named, input) = self.variables(arena, chat, options)?;
            Ok(self.render_input(arena, named, input, options, false)?.text)
        })
    }

    /// Renders a conversation to text, with the byte ranges that the template's
    /// `{% generation %}` blocks wrote; `None` when it has no such blocks.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_spans(
        &self,
        chat: &impl Chat,
        options: &RenderOptions,
    ) -> Result<(String, Option<Vec<Range<usize>>>)> {
        arena::with(|arena| {
            let (named, input) = self.variables(arena, chat, options)?;
            let rendered = self.render_input(arena, named, input, options, true)?;
            let spans = named.template.has_generation().then_some(rendered.generation);
            Ok((rendered.text, spans))
        })
    }

    pub(crate) fn select(&self, name: Option<&str>, with_tools: bool) -> Result<&Named> {
        let available = || self.templates.keys().cloned().collect();
        if let Some(name) = name {
            let found = self.templates.get(name);
            return found.map(|named| &**named).ok_or_else(|| Error::UnknownTemplate {
                name: name.to_owned(),
                available: available(),
            });
        }
        let by_tools = with_tools.then(|| self.templates.get("tool_use")).flatten();
        let found = by_tools.or_else(|| self.templates.get("default"));
        found.map(|named| &**named).ok_or_else(|| Error::NoDefault { available: available() })
    }

    /// Chooses the template and turns the conversation into its variables.
    pub(crate) fn prepare<'c>(
        &'c self,
        arena: &'c Bump,
        chat: &'c (impl Chat + ?Sized),
        options: &'c RenderOptions,
    ) -> Result<Prepared<'c>> {
        let (named, input) = self.variables(arena, chat, options)?;
        Ok(Prepared { arena, named, input, turns: chat.turns()? })
    }

    fn variables<'c>(
        &'c self,
        arena: &'c Bump,
        chat: &'c (impl Chat + ?Sized),
        options: &RenderOptions,
    ) -> Result<(&'c Named, Input<'c>)> {
        let named = self.select(options.template.as_deref(), chat.has_tools());
        let auto = options.tool_arguments == ToolArguments::Auto && chat.has_arguments();
        let form = match &named {
            Ok(named) if auto => self.argument_form(named),
            _ => ArgumentForm::AsGiven,
        };
        let input = chat.input(arena, form);
        if input.messages.is_empty() {
            return Err(Error::EmptyConversation);
        }
        Ok((named?, input))
    }

    pub(crate) fn render_prepared<'c>(
        &'c self,
        prepared: &Prepared<'c>,
        options: &'c RenderOptions,
    ) -> Result<Rendered> {
        self.render_input(prepared.arena, prepared.named, prepared.input.clone(), options, true)
    }

    /// Renders the conversation with other messages.
    fn render_edited<'c>(
        &'c self,
        prepared: &Prepared<'c>,
        options: &'c RenderOptions,
        edit: impl FnOnce(&mut Vec<Dict<'c>>),
    ) -> Result<String> {
        let mut input = prepared.input.clone();
        edit(&mut input.messages);
        Ok(self.render_input(prepared.arena, prepared.named, input, options, false)?.text)
    }

    /// Renders the first `count` messages, with a generation prompt or without.
    pub(crate) fn render_prefix<'c>(
        &'c self,
        prepared: &Prepared<'c>,
        options: &'c RenderOptions,
        count: usize,
    ) -> Result<String> {
        self.render_edited(prepared, options, |messages| messages.truncate(count))
    }

    /// Renders the first `count` messages and an assistant message that says `text`.
    pub(crate) fn render_answered<'c>(
        &'c self,
        prepared: &Prepared<'c>,
        options: &'c RenderOptions,
        count: usize,
        text: &'static str,
    ) -> Result<String> {
        let mut message = DictBuilder::new(prepared.arena, 2);
        message.push(Value::Str("role"), Value::Str("assistant"));
        message.push(Value::Str("content"), Value::Str(text));
        self.render_edited(prepared, options, |messages| {
            messages.truncate(count);
            messages.push(message.finish());
        })
    }

    /// Renders the whole conversation with another text in place of what message `at` says; its
    /// tool calls stay.
    pub(crate) fn render_replaced<'c>(
        &'c self,
        prepared: &Prepared<'c>,
        options: &'c RenderOptions,
        at: usize,
        text: &'static str,
    ) -> Result<String> {
        let old = prepared.input.messages[at];
        let mut message = DictBuilder::new(prepared.arena, old.entries.len() + 1);
        for (key, value) in old.entries {
            let said = key.equals_str("content")
                || REASONING_FIELDS.iter().any(|field| key.equals_str(field));
            if !said {
                message.push(*key, *value);
            }
        }
        message.push(Value::Str("content"), Value::Str(text));
        self.render_edited(prepared, options, |messages| messages[at] = message.finish())
    }

    /// Renders; with `spans` also finds the generation blocks in captured text.
    fn render_input<'c>(
        &'c self,
        arena: &'c Bump,
        named: &'c Named,
        input: Input<'c>,
        options: &'c RenderOptions,
        spans: bool,
    ) -> Result<Rendered> {
        let mut messages = input.messages;
        for message in &mut messages {
            alias_reasoning(arena, message);
        }
        let continued = match &options.continue_final_message {
            None => None,
            Some(_) if options.add_generation_prompt => {
                return Err(Error::Continue("it excludes add_generation_prompt".into()));
            }
            Some(field) => Some(continue_final::tag(arena, field, &named.source, &mut messages)?),
        };
        // Later variables win: special tokens, then the conversation's, then the options'.
        let mut variables: Vec<(&str, Value<'_>)> = Vec::with_capacity(16);
        variables
            .extend(self.default_tokens.iter().map(|(name, token)| (*name, Value::Str(token))));
        variables
            .extend(self.special_tokens.iter().map(|(k, v)| (k.as_str(), from_json(arena, v))));
        variables.extend(input.variables);
        variables.extend(options.variables.iter().map(|(k, v)| (k.as_str(), from_json(arena, v))));
        let messages = arena.alloc_slice_fill_iter(messages.into_iter().map(Value::Dict));
        variables.push(("messages", Value::List(messages)));
        variables.push(("tools", input.tools));
        variables.push(("documents", input.documents));
        variables.push(("add_generation_prompt", Value::Bool(options.add_generation_prompt)));
        let template = &named.template;
        let mut rendered = if spans {
            template.render_spans(arena, &variables, &*self.clock)?
        } else {
            template.render(arena, &variables, &*self.clock)?
        };
        if let Some(final_text) = continued {
            rendered.text = continue_final::cut(&rendered.text, &final_text)?;
            rendered.generation.clear();
        }
        Ok(rendered)
    }

    /// The form of tool-call arguments that a template renders without quoting or failing.
    pub(crate) fn argument_form(&self, named: &Named) -> ArgumentForm {
        *named.arguments.get_or_init(|| {
            let renders = |form| {
                let chat = crate::probe::tool_call();
                let options = RenderOptions::default();
                let arena = Bump::new();
                let input = crate::chat::sealed::Sealed::input(&chat, &arena, form);
                let rendered = self.render_input(&arena, named, input, &options, false);
                // A string that is quoted again shows its quotes escaped, an object that is printed
                // as it is shows Python's quotes.
                let faults = ["\\\"", "'city'"];
                rendered.is_ok_and(|rendered| {
                    let text = &rendered.text;
                    text.contains("Zanzibar") && !faults.iter().any(|fault| text.contains(fault))
                })
            };
            if !renders(ArgumentForm::Object) && renders(ArgumentForm::Text) {
                ArgumentForm::Text
            } else {
                ArgumentForm::Object
            }
        })
    }
}

/// A conversation ready to be rendered.
pub(crate) struct Prepared<'c> {
    arena: &'c Bump,
    pub(crate) named: &'c Named,
    pub(crate) input: Input<'c>,
    pub(crate) turns: Vec<(bool, Option<bool>)>,
}

/// The names under which reasoning is passed; templates read the first, or `thinking`.
pub(crate) const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Fills `reasoning_content` and `thinking` from whichever name the reasoning came under.
fn alias_reasoning<'a>(arena: &'a Bump, message: &mut Dict<'a>) {
    let found = REASONING_FIELDS.iter().find_map(|field| message.get_str(field));
    let Some(reasoning) = found else { return };
    let mut dict = DictBuilder::new(arena, message.entries.len() + 2);
    dict.push(Value::Str("thinking"), message.get_str("thinking").unwrap_or(reasoning));
    for (key, value) in message.entries {
        if !key.equals_str("thinking") {
            dict.push(*key, *value);
        }
    }
    dict.insert(Value::Str("reasoning_content"), reasoning);
    *message = dict.finish();
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("templates", &self.names())
            .field("special_tokens", &self.special_tokens)
            .finish_non_exhaustive()
    }
}
