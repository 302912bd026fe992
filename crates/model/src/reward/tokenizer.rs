//! The tokenizer of a reward model, with the special tokens and the template that it may have.

use std::path::Path;

use posttrain_chat::{ChatTemplate, ChatTokenizer};
use posttrain_core::{Conversation, Message, Prompt, Role};
use tokenizers::Tokenizer;

use crate::error::Error;
use crate::text::Text;

/// A tokenizer with the names of its special tokens, and a chat template or none.
#[derive(Debug)]
pub struct RewardTokenizer {
    text: Text,
    bos: Option<String>,
    eos: Option<String>,
}

impl RewardTokenizer {
    /// Reads `tokenizer.json`, the special tokens and the chat template of a folder. A missing template
    /// is an error only where one is needed.
    ///
    /// # Errors
    /// [`Error::Chat`] for a missing or broken tokenizer, or a broken template.
    pub fn from_model(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let text = Text::from_model(folder)?;
        let none = ChatTemplate::parse("")?.with_tokens_of(folder)?;
        let named = |name| none.special_token(name).map(str::to_owned);
        Ok(Self { text, bos: named("bos_token"), eos: named("eos_token") })
    }

    /// From a tokenizer with its template, for a model that has just been trained.
    pub fn new(chat: ChatTokenizer) -> Self {
        let named = |name| chat.template().special_token(name).map(str::to_owned);
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        Self { text: Text::Chat(Box::new(chat)), bos, eos }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.text.tokenizer()
    }

    /// The token that ends a text.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// The token that begins a text.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The id of the token that begins a text.
    pub(super) fn bos_id(&self) -> Option<u32> {
        self.tokenizer().token_to_id(self.bos.as_deref()?)
    }

    pub(super) fn text(&self) -> &Text {
        &self.text
    }

    /// A text without special tokens around it.
    pub(super) fn plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.text.encode(text, false)
    }

    /// The id of a tag, which has to be one token where it stands behind a letter.
    pub(super) fn tag(
        &self,
        convention: &'static str,
        what: &'static str,
        tag: &str,
    ) -> Result<u32, Error> {
        let (before, with) = (self.plain("a")?, self.plain(&format!("a{tag}"))?);
        match with.strip_prefix(&before[..]) {
            Some([id]) => Ok(*id),
            _ => Err(Error::NoTag {
                convention,
                what,
                tag: tag.to_owned(),
                reason: format!(
                    "it becomes {} tokens; choose another one",
                    with.len().saturating_sub(before.len())
                ),
            }),
        }
    }

    /// The id of a token that stands alone.
    pub(super) fn token(
        &self,
        convention: &'static str,
        what: &'static str,
        token: &str,
    ) -> Result<u32, Error> {
        let ids = self.plain(token)?;
        let [.., id] = ids[..] else {
            let (tag, reason) = (token.to_owned(), "it becomes no token".to_owned());
            return Err(Error::NoTag { convention, what, tag, reason });
        };
        let whole = self.tokenizer().id_to_token(id).unwrap_or_default();
        if ids.len() == 1 || whole.ends_with(token) {
            return Ok(id);
        }
        let reason = format!("it becomes {} tokens; choose another one", ids.len());
        Err(Error::NoTag { convention, what, tag: token.to_owned(), reason })
    }
}

/// A prompt as one text: itself, or the question of a conversation behind its system message.
///
/// # Errors
/// [`Error::Unscorable`] for a conversation of more turns, which a text has no place for.
pub(super) fn question(prompt: &Prompt) -> Result<String, Error> {
    let messages = match prompt {
        Prompt::Text(text) => return Ok(text.clone()),
        Prompt::Conversation(chat) => &chat.messages,
    };
    let texts = |messages: &[Message]| {
        messages.iter().map(|message| message.text().into_owned()).collect::<Vec<_>>().join("\n")
    };
    match &messages[..] {
        [user] if user.role == Role::User => Ok(texts(&messages[..])),
        [system, user] if system.role == Role::System && user.role == Role::User => {
            Ok(texts(&messages[..]))
        }
        _ => Err(Error::Unscorable(format!(
            "the prompt has {} messages, expected one question, with a system message or without",
            messages.len()
        ))),
    }
}

/// A prompt as a conversation.
pub(super) fn conversation(prompt: &Prompt) -> Conversation {
    match prompt {
        Prompt::Text(text) => Conversation::new([Message::user(text.clone())]),
        Prompt::Conversation(chat) => chat.clone(),
    }
}
