//! The templates that this crate brings along, written for it in the styles that the field uses.

/// A built-in chat template. All of them mark the assistant's text with `{% generation %}`, the
/// end-of-turn token included.
///
/// ```
/// use posttrain_chat::Builtin;
///
/// assert_eq!("llama3".parse::<Builtin>().unwrap(), Builtin::Llama3);
/// assert!(Builtin::ALL.len() == 9);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// `<|im_start|>role\ncontent<|im_end|>`, with tools in Hermes form.
    ChatMl,
    /// `### Instruction:` and `### Response:`.
    Alpaca,
    /// `USER: ... ASSISTANT: ...`.
    Vicuna,
    /// `<|user|>\ncontent</s>`.
    Zephyr,
    /// `[INST] <<SYS>> ... <</SYS>> ... [/INST]`.
    Llama2,
    /// `<|start_header_id|>role<|end_header_id|>`, with tools as JSON.
    Llama3,
    /// `[INST] ... [/INST]`, with `[AVAILABLE_TOOLS]` and `[TOOL_CALLS]`.
    Mistral,
    /// `<start_of_turn>role\ncontent<end_of_turn>`.
    Gemma,
    /// The contents alone, a blank line between them; for base models without control tokens.
    Plain,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ChatMl,
        Self::Alpaca,
        Self::Vicuna,
        Self::Zephyr,
        Self::Llama2,
        Self::Llama3,
        Self::Mistral,
        Self::Gemma,
        Self::Plain,
    ];

    /// The name on a command line or in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatMl => "chatml",
            Self::Alpaca => "alpaca",
            Self::Vicuna => "vicuna",
            Self::Zephyr => "zephyr",
            Self::Llama2 => "llama2",
            Self::Llama3 => "llama3",
            Self::Mistral => "mistral",
            Self::Gemma => "gemma",
            Self::Plain => "plain",
        }
    }

    /// The Jinja source, to be saved as `chat_template.jinja` beside a trained model.
    pub const fn source(self) -> &'static str {
        match self {
            Self::ChatMl => include_str!("builtin/chatml.jinja"),
            Self::Alpaca => include_str!("builtin/alpaca.jinja"),
            Self::Vicuna => include_str!("builtin/vicuna.jinja"),
            Self::Zephyr => include_str!("builtin/zephyr.jinja"),
            Self::Llama2 => include_str!("builtin/llama2.jinja"),
            Self::Llama3 => include_str!("builtin/llama3.jinja"),
            Self::Mistral => include_str!("builtin/mistral.jinja"),
            Self::Gemma => include_str!("builtin/gemma.jinja"),
            Self::Plain => include_str!("builtin/plain.jinja"),
        }
    }

    /// The special tokens that the template takes for its own when none are set.
    pub(crate) const fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ChatMl => &[("eos_token", "<|im_end|>")],
            Self::Alpaca | Self::Vicuna | Self::Zephyr | Self::Llama2 | Self::Mistral => {
                &[("bos_token", "<s>"), ("eos_token", "</s>")]
            }
            Self::Llama3 => &[("bos_token", "<|begin_of_text|>"), ("eos_token", "<|eot_id|>")],
            Self::Gemma => &[("bos_token", "<bos>"), ("eos_token", "<end_of_turn>")],
            Self::Plain => &[("eos_token", "</s>")],
        }
    }
}

impl std::str::FromStr for Builtin {
    type Err = crate::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|builtin| builtin.name() == name);
        found.ok_or_else(|| crate::Error::UnknownTemplate {
            name: name.to_owned(),
            available: Self::ALL.iter().map(|builtin| builtin.name().to_owned()).collect(),
        })
    }
}
