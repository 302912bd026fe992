//! The tokenizer of a checkpoint, with a chat template or without.

use std::path::Path;

use posttrain_chat::{Chat, ChatTokenizer, EncodeOptions};
use posttrain_core::Prompt;
use tokenizers::Tokenizer;

use crate::error::Error;

/// A tokenizer, with a chat template or without (a base model).
#[derive(Debug)]
pub(crate) enum Text {
    Chat(Box<ChatTokenizer>),
    /// And what to tell who asks for a conversation.
    Plain(Box<Tokenizer>, String),
}

impl Text {
    /// Reads a folder.
    pub(crate) fn from_model(folder: &Path) -> Result<Self, Error> {
        match ChatTokenizer::from_model(folder) {
            Ok(chat) => Ok(Self::Chat(Box::new(chat))),
            Err(reason @ posttrain_chat::Error::NoTemplate { .. }) => {
                Ok(Self::Plain(Box::new(plain_tokenizer(folder)?), reason.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Chat(chat) => chat.tokenizer(),
            Self::Plain(tokenizer, _) => tokenizer,
        }
    }

    /// The tokenizer with its template.
    pub(crate) fn chat(&self) -> Result<&ChatTokenizer, Error> {
        match self {
            Self::Chat(chat) => Ok(chat),
            Self::Plain(_, reason) => Err(Error::NoChatTemplate { reason: reason.clone() }),
        }
    }

    /// A text as the tokenizer encodes it, with the special tokens that it adds or without.
    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer().encode(text, special);
        let encoding =
            encoding.map_err(|error| posttrain_chat::Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A prompt to be answered.
    pub(crate) fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        match prompt {
            Prompt::Text(text) => self.encode(text, true),
            Prompt::Conversation(chat) => {
                Ok(self.chat()?.encode_prompt(chat, &EncodeOptions::default())?)
            }
        }
    }

    /// A conversation with its last answer.
    pub(crate) fn encode_conversation(&self, chat: &impl Chat) -> Result<Vec<u32>, Error> {
        Ok(self.chat()?.encode_conversation(chat, &EncodeOptions::default())?)
    }
}

fn plain_tokenizer(folder: &Path) -> Result<Tokenizer, Error> {
    let path = folder.join("tokenizer.json");
    let fail = |error| posttrain_chat::Error::Tokenizer(format!("{}: {error}", path.display()));
    let mut tokenizer = Tokenizer::from_file(&path).map_err(fail)?;
    // Truncation and padding of tokenizer.json would cut prompts unseen.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    Ok(tokenizer)
}
