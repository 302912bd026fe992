//! One row to token ids.
//!
//! Conversations go through the chat template, which writes all special tokens itself. Raw texts
//! and completions are encoded as `SFTTrainer` of TRL 1.16 does it: with the special tokens that
//! the tokenizer adds (its token of beginning), and the end token at their end. A completion starts
//! where the ids of the prompt alone and those of both differ first.

use posttrain_chat::{Chat, ChatTokenizer, EncodeOptions, TrainedTurns, Truncation, Warning};

use super::{Packing, Reason, Row, RowOptions};
use crate::error::Error;

/// Encodes rows, from any number of threads.
pub(super) struct Encoder<'a> {
    tokenizer: &'a ChatTokenizer,
    options: &'a RowOptions,
    /// Those for conversations, without truncation.
    chat: EncodeOptions,
    eos: Option<String>,
    bos: Option<u32>,
    /// Tokens that end a generation, and the one behind raw texts.
    stop: Vec<u32>,
    /// Whether texts are joined, so that their first token has one before it.
    joined: bool,
    /// No row keeps more tokens.
    max_length: Option<usize>,
}

/// A row that can be trained on.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    pub(super) trained: Vec<bool>,
    pub(super) notes: Vec<Note>,
    pub(super) cut: Option<Cut>,
    /// Whether a trained token stops a generation.
    pub(super) stops: bool,
}

/// Something to be counted.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) kind: &'static str,
    pub(super) detail: String,
}

/// What truncation took.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) tokens: Vec<u32>,
    pub(super) trained: usize,
    /// Whether the end of a trained part is gone, while its start is kept.
    pub(super) end_lost: bool,
    /// Whether the tokens stood at the end.
    pub(super) at_end: bool,
}

/// A row that cannot be trained on.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(reason: Reason, detail: impl ToString) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}

impl<'a> Encoder<'a> {
    pub(super) fn new(
        tokenizer: &'a ChatTokenizer,
        options: &'a RowOptions,
    ) -> Result<Self, Error> {
        let id = |token: &str| tokenizer.tokenizer().token_to_id(token);
        let special = |name| tokenizer.template().special_token(name);
        let eos = options.eos_token.as_deref().or_else(|| special("eos_token"));
        if let Some(eos) = eos.filter(|eos| id(eos).is_none()) {
            return Err(Error::config("eos_token", eos, "a token of the tokenizer"));
        }
        if options.chat.max_length == Some(0) {
            return Err(Error::config("max_length", 0, "at least 1"));
        }
        let stop = tokenizer.stop_token_ids().iter().copied().chain(eos.and_then(id)).collect();
        let cuts = matches!(options.packing, Some(Packing::BfdSplit | Packing::Wrapped));
        Ok(Self {
            tokenizer,
            options,
            chat: EncodeOptions { max_length: None, ..options.chat.clone() },
            eos: eos.map(str::to_owned),
            bos: special("bos_token").and_then(id),
            stop,
            joined: options.packing == Some(Packing::Wrapped),
            max_length: options.chat.max_length.filter(|_| !cuts),
        })
    }

    pub(super) fn encode<C: Chat>(&self, row: &Row<C>) -> Result<Tokens, Refused> {
        let mut notes = Vec::new();
        let (ids, trained) = match row {
            Row::Chat(chat) => self.conversation(chat, &mut notes)?,
            Row::ChatCompletion { prompt, whole } => {
                let (ids, mut trained) = self.conversation(whole, &mut notes)?;
                if self.options.completion_only_loss {
                    let prompt = self.tokenizer.encode_prompt(prompt, &self.chat);
                    let prompt = prompt.map_err(|error| Refused::new(Reason::Encoding, error))?;
                    self.mask_prompt(&prompt, &ids, &mut trained, &mut notes);
                }
                (ids, trained)
            }
            Row::Completion { prompt, completion } => {
                let ids = self.text(&self.with_eos(completion, prompt)?)?;
                let mut trained = vec![true; ids.len()];
                if self.options.completion_only_loss {
                    self.mask_prompt(&self.text(prompt)?, &ids, &mut trained, &mut notes);
                }
                (ids, trained)
            }
            Row::Text(text) => {
                let ids = self.text(&self.with_eos(text, "")?)?;
                let trained = vec![true; ids.len()];
                (ids, trained)
            }
        };
        self.finish(ids, trained, notes)
    }

    fn conversation<C: Chat>(
        &self,
        chat: &C,
        notes: &mut Vec<Note>,
    ) -> Result<(Vec<u32>, Vec<bool>), Refused> {
        let encoded = self.tokenizer.encode(chat, &self.chat).map_err(|error| {
            let untrained = matches!(error, posttrain_chat::Error::EmptyMask { .. });
            let reason = if untrained { Reason::NoTrainedToken } else { Reason::Encoding };
            Refused::new(reason, error)
        })?;
        notes.extend(encoded.warnings.iter().map(|warning| Note {
            kind: match warning {
                Warning::StopNotTrained { .. } => "stop_not_trained",
                _ => "other",
            },
            detail: warning.to_string(),
        }));
        let mut trained = encoded.mask;
        if self.chat.turns == TrainedTurns::Everything {
            // Also tokens that stand for no characters.
            trained.fill(true);
        }
        Ok((encoded.ids, trained))
    }

    /// `before`, the text, and the end token if the text does not end with it.
    fn with_eos(&self, text: &str, before: &str) -> Result<String, Refused> {
        let eos = self.eos.as_deref().ok_or_else(|| {
            let reason = "the tokenizer has no end token to put behind the text: set eos_token";
            Refused::new(Reason::Encoding, reason)
        })?;
        Ok([before, text, if text.ends_with(eos) { "" } else { eos }].concat())
    }

    fn text(&self, text: &str) -> Result<Vec<u32>, Refused> {
        let encoding = self.tokenizer.tokenizer().encode(text, true);
        let encoding = encoding.map_err(|error| Refused::new(Reason::Encoding, error))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn mask_prompt(
        &self,
        prompt: &[u32],
        whole: &[u32],
        trained: &mut [bool],
        notes: &mut Vec<Note>,
    ) {
        let common = prompt.iter().zip(whole).take_while(|(a, b)| a == b).count();
        trained[..common].fill(false);
        if common < prompt.len() {
            let lost = self.tokenizer.tokenizer().decode(&prompt[common..], false);
            let lost = lost.unwrap_or_else(|_| format!("{:?}", &prompt[common..]));
            notes.push(Note {
                kind: "prompt_not_prefix",
                detail: format!(
                    "the prompt alone ends with {lost:?}, which the prompt with its completion \
                     does not have there: the model is trained on another context than it will \
                     see; use a template that renders both alike, or end the prompt on a token"
                ),
            });
        }
    }

    fn finish(
        &self,
        mut ids: Vec<u32>,
        mut trained: Vec<bool>,
        notes: Vec<Note>,
    ) -> Result<Tokens, Refused> {
        if let (Some(bos), [first, second, ..]) = (self.bos, &ids[..])
            && (*first, *second) == (bos, bos)
        {
            let token = self.tokenizer.tokenizer().id_to_token(bos).unwrap_or_default();
            let detail = format!(
                "the row starts with {token:?} twice: the text has it and the tokenizer adds it; \
                 take it out of the text"
            );
            return Err(Refused::new(Reason::DoubleBos, detail));
        }
        let before = self.targets(&trained);
        if before == 0 {
            let detail = format!("none of its {} tokens is trained", ids.len());
            return Err(Refused::new(Reason::NoTrainedToken, detail));
        }
        if let Some(max) = self.max_length.filter(|&max| self.options.whole && max < ids.len()) {
            let detail =
                format!("{} tokens, max_length is {max}: raise it or drop the row", ids.len());
            return Err(Refused::new(Reason::TooLong, detail));
        }
        let cut = self.truncate(&mut ids, &mut trained);
        if self.targets(&trained) == 0 {
            let detail = format!(
                "truncation to max_length {} takes all {before} trained tokens: raise it or drop \
                 the row",
                ids.len()
            );
            return Err(Refused::new(Reason::TruncatedAway, detail));
        }
        let is_stop = |(id, &trained): (&u32, &bool)| trained && self.stop.contains(id);
        let stops = ids.iter().zip(&trained).any(is_stop);
        Ok(Tokens { ids, trained, notes, cut, stops })
    }

    /// Trained tokens that have one before them.
    fn targets(&self, trained: &[bool]) -> usize {
        let from = usize::from(!self.joined).min(trained.len());
        trained[from..].iter().filter(|&&trained| trained).count()
    }

    fn truncate(&self, ids: &mut Vec<u32>, trained: &mut Vec<bool>) -> Option<Cut> {
        let (tokens, max) = (ids.len(), self.max_length?);
        if tokens <= max {
            return None;
        }
        let (range, end_lost) = match self.options.chat.truncation {
            Truncation::KeepStart => (max..tokens, trained[max - 1] && trained[max]),
            Truncation::KeepEnd => (0..tokens - max, false),
        };
        let lost = trained[range.clone()].iter().filter(|&&trained| trained).count();
        let tokens = ids.drain(range.clone()).collect();
        trained.drain(range);
        let at_end = self.options.chat.truncation == Truncation::KeepStart;
        Some(Cut { tokens, trained: lost, end_lost, at_end })
    }
}
