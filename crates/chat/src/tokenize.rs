//! Conversations to token ids with their mask.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::chat::Chat;
use crate::error::{Error, Result, kind, read_json};
use crate::jinja::is_space;
use crate::mask::{Trained, TrainedTurns};
use crate::sanitize::{ControlTokens, MARK_END, MARK_START, Sanitize};
use crate::template::{ChatTemplate, RenderOptions};

/// A tokenizer with its chat template.
///
/// Special tokens are parsed once: the text that the template renders holds them already, so the
/// tokenizer adds none (a second BOS is the classic mistake).
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    stop_token_ids: Vec<u32>,
    control_tokens: ControlTokens,
    control_ids: HashMap<u32, String>,
    /// The same tokenizer without added tokens, made when a forged control token is first met.
    plain: OnceLock<Result<Tokenizer, String>>,
}

/// How to encode a conversation for training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodeOptions {
    /// How the template is rendered.
    pub render: RenderOptions,
    /// Which assistant turns are trained.
    pub turns: TrainedTurns,
    /// Whose control tokens are encoded as plain text.
    pub sanitize: Sanitize,
    /// The most tokens to keep; `None` keeps all.
    pub max_length: Option<usize>,
    /// What happens to a conversation that is longer.
    pub truncation: Truncation,
}

/// What happens to a conversation of more than `max_length` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Keeps the start, and warns.
    #[default]
    KeepStart,
    /// Keeps the end, and warns.
    KeepEnd,
}

/// A conversation as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For every token whether it is trained.
    pub mask: Vec<bool>,
    /// What deserves attention, to be counted over a data set.
    pub warnings: Vec<Warning>,
}

impl Encoded {
    /// Number of trained tokens.
    pub fn trained(&self) -> usize {
        self.mask.iter().filter(|&&trained| trained).count()
    }

    /// The ids as labels: `ignore_index` (-100 in transformers) where a token is not trained.
    pub fn labels(&self, ignore_index: i64) -> Vec<i64> {
        let label = |(&id, &trained)| if trained { i64::from(id) } else { ignore_index };
        self.ids.iter().zip(&self.mask).map(label).collect()
    }
}

/// Something about a conversation that training survives but that should be known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Tokens were cut off.
    #[error(
        "truncated from {tokens} to {kept} tokens, which lost {trained_lost} trained ones; raise \
         max_length or drop the row"
    )]
    Truncated {
        /// Tokens before.
        tokens: usize,
        /// Tokens after.
        kept: usize,
        /// Trained tokens lost.
        trained_lost: usize,
    },
    /// Trained turns do not end with a token that stops the generation, so the model would not
    /// learn to stop.
    #[error(
        "{turns} trained turns do not end with one of the stop tokens {stop_tokens:?}: the model will \
         not learn to stop. Use a template that ends assistant turns with one of them, or add its \
         own end token to eos_token_id in generation_config.json"
    )]
    StopNotTrained {
        /// How many turns.
        turns: usize,
        /// The texts of the stop tokens; empty when the model names none.
        stop_tokens: Vec<String>,
    },
}

impl ChatTokenizer {
    /// Reads `tokenizer.json`, the chat template, the special tokens, and the stop tokens of
    /// `generation_config.json` and `config.json` from a checkpoint folder.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::from_model`], and [`Error::Tokenizer`] for a missing or broken
    /// `tokenizer.json`.
    pub fn from_model(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let template = ChatTemplate::from_model(folder)?;
        Self::load(folder, template)
    }

    /// As [`ChatTokenizer::from_model`], with another template than the model's own, which takes
    /// over the model's special tokens.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::with_tokens_of`], and [`Error::Tokenizer`] for a missing or broken
    /// `tokenizer.json`.
    pub fn from_model_with_template(
        folder: impl AsRef<Path>,
        template: ChatTemplate,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        Self::load(folder, template.with_tokens_of(folder)?)
    }

    fn load(folder: &Path, template: ChatTemplate) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))?;
        let mut stop = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            let path = folder.join(file);
            if stop.is_empty() && path.exists() {
                stop = eos_ids(&path)?;
            }
        }
        Self::new(tokenizer, template, stop)
    }

    /// From parts. The end token of the template's special tokens counts as a stop token as well.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the control tokens are too many to be searched for.
    pub fn new(
        mut tokenizer: Tokenizer,
        template: ChatTemplate,
        stop_token_ids: Vec<u32>,
    ) -> Result<Self> {
        // Truncation and padding of tokenizer.json would cut conversations unseen.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let mut stop = stop_token_ids;
        let eos =
            template.special_token("eos_token").and_then(|token| tokenizer.token_to_id(token));
        stop.extend(eos);
        stop.sort_unstable();
        stop.dedup();
        let control_ids = control_tokens(&tokenizer, &template)?;
        let control_tokens = ControlTokens::new(control_ids.values().cloned())?;
        let plain = OnceLock::new();
        Ok(Self { tokenizer, template, stop_token_ids: stop, control_tokens, control_ids, plain })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The ids that end a generation: `eos_token_id` of the configurations and the end token.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_token_ids
    }

    /// A conversation for the model to answer: ids with a generation prompt (unless the final
    /// message is continued), without a mask. `turns` and `max_length` do not matter here.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`], [`Error::Tokenizer`] and [`Error::ControlToken`].
    pub fn encode_prompt(&self, chat: &impl Chat, options: &EncodeOptions) -> Result<Vec<u32>> {
        let mut render = self.marked_options(options);
        render.add_generation_prompt = render.continue_final_message.is_none();
        self.encode_rendered(chat, &render, options.sanitize)
    }

    /// A conversation with its last answer, for a model that judges it: ids without a mask. `turns`
    /// and `max_length` do not matter here.
    ///
    /// # Errors
    /// As [`ChatTokenizer::encode_prompt`].
    pub fn encode_conversation(
        &self,
        chat: &impl Chat,
        options: &EncodeOptions,
    ) -> Result<Vec<u32>> {
        self.encode_rendered(chat, &self.marked_options(options), options.sanitize)
    }

    fn encode_rendered(
        &self,
        chat: &impl Chat,
        render: &RenderOptions,
        sanitize: Sanitize,
    ) -> Result<Vec<u32>> {
        let marked = chat.marked(&self.control_tokens, sanitize);
        let text = self.template.render(marked.as_ref().unwrap_or(chat), render)?;
        Ok(self.encode_text(&text, sanitize)?.ids)
    }

    /// The options of the rendering, their variables sanitised where everything is.
    fn marked_options(&self, options: &EncodeOptions) -> RenderOptions {
        let mut render = options.render.clone();
        if options.sanitize == Sanitize::All {
            self.control_tokens.mark_variables(&mut render.variables, &mut false);
        }
        render
    }

    /// A conversation for training: ids with the mask of the trained tokens.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::trained_spans`], [`Error::Tokenizer`], [`Error::ControlToken`], and
    /// [`Error::TruncatedMask`] when no trained token is left.
    pub fn encode(&self, chat: &impl Chat, options: &EncodeOptions) -> Result<Encoded> {
        let marked = chat.marked(&self.control_tokens, options.sanitize);
        let source = marked.as_ref().unwrap_or(chat);
        let render = self.marked_options(options);
        let Trained { text, spans, ends } =
            self.template.trained(source, &render, options.turns)?;
        let Tokens { mut ids, offsets } = self.encode_text(&text, options.sanitize)?;
        let mut mask = vec![false; ids.len()];
        for span in &spans {
            // Tokens cover the text in order; all from the first that touches the span to the last.
            let first = offsets.partition_point(|&(_, end)| end <= span.start);
            let last = offsets.partition_point(|&(start, _)| start < span.end);
            mask[first..last.max(first)].fill(true);
        }
        let stops = |&end: &usize| {
            let until = offsets.partition_point(|&(start, _)| start < end);
            let blank = |&(start, end): &(usize, usize)| {
                text.get(start..end).is_some_and(|text| text.chars().all(is_space))
            };
            let last = offsets[..until].iter().rposition(|range| !blank(range));
            last.is_some_and(|last| self.stop_token_ids.contains(&ids[last]))
        };
        let endless = ends.iter().filter(|end| !stops(end)).count();
        let trained = mask.iter().filter(|&&trained| trained).count();
        if trained == 0 {
            let reason = "the trained text has no tokens".into();
            return Err(Error::EmptyMask { reason });
        }
        let mut warnings = Vec::new();
        if endless > 0 {
            let name = |&id: &u32| self.tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
            let stop_tokens = self.stop_token_ids.iter().map(name).collect();
            warnings.push(Warning::StopNotTrained { turns: endless, stop_tokens });
        }
        let tokens = ids.len();
        if let Some(max_length) = options.max_length.filter(|&max| max < tokens) {
            let cut = match options.truncation {
                Truncation::KeepStart => max_length..tokens,
                Truncation::KeepEnd => 0..tokens - max_length,
            };
            ids.drain(cut.clone());
            mask.drain(cut);
            let kept = mask.iter().filter(|&&trained| trained).count();
            if kept == 0 {
                return Err(Error::TruncatedMask { tokens, trained, max_length });
            }
            let trained_lost = trained - kept;
            warnings.push(Warning::Truncated { tokens, kept: max_length, trained_lost });
        }
        Ok(Encoded { ids, mask, warnings })
    }

    /// Encodes rendered text; the marked control tokens in it become plain text.
    fn encode_text(&self, text: &str, sanitize: Sanitize) -> Result<Tokens> {
        if sanitize == Sanitize::Off {
            return encode(&self.tokenizer, text);
        }
        if !text.contains([MARK_START, MARK_END]) {
            let tokens = encode(&self.tokenizer, text)?;
            self.check_spelling(text, &tokens)?;
            return Ok(tokens);
        }
        let newline = encode(&self.tokenizer, "\n")?.ids;
        let mut tokens = Tokens { ids: Vec::new(), offsets: Vec::new() };
        for piece in self.control_tokens.pieces(text) {
            let tokenizer = if piece.plain { self.plain()? } else { &self.tokenizer };
            let found = if piece.start == 0 {
                encode(tokenizer, piece.text)?
            } else {
                inner(tokenizer, piece.text, &newline)?
            };
            let forbidden = self.tokenizer.token_to_id(piece.text);
            if piece.plain && forbidden.is_some_and(|id| found.ids.contains(&id)) {
                return Err(Error::ControlToken { token: piece.text.to_owned() });
            }
            if !piece.plain {
                self.check_spelling(piece.text, &found)?;
            }
            tokens.ids.extend(found.ids);
            let shift = |(start, end): (usize, usize)| (start + piece.start, end + piece.start);
            tokens.offsets.extend(found.offsets.into_iter().map(shift));
        }
        Ok(tokens)
    }

    /// A normaliser can turn other text into a control token (`<TOOL>` into `<tool>`), which no
    /// search in the text finds: each control token must stand in the text as it is spelt.
    fn check_spelling(&self, text: &str, tokens: &Tokens) -> Result<()> {
        for (id, &(start, end)) in tokens.ids.iter().zip(&tokens.offsets) {
            if let Some(token) = self.control_ids.get(id)
                && text.get(start..end).is_none_or(|found| found.trim() != token.trim())
            {
                return Err(Error::ControlToken { token: token.clone() });
            }
        }
        Ok(())
    }

    fn plain(&self) -> Result<&Tokenizer> {
        let made = self.plain.get_or_init(|| {
            let mut json =
                serde_json::to_value(&self.tokenizer).map_err(|error| error.to_string())?;
            json["added_tokens"] = Json::Array(Vec::new());
            json["post_processor"] = Json::Null;
            let bytes = serde_json::to_vec(&json).map_err(|error| error.to_string())?;
            Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|error| Error::Tokenizer(error.clone()))
    }
}

/// Token ids with the byte ranges that they stand for.
struct Tokens {
    ids: Vec<u32>,
    offsets: Vec<(usize, usize)>,
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Tokens> {
    let encoding =
        tokenizer.encode(text, false).map_err(|error| Error::Tokenizer(error.to_string()))?;
    Ok(Tokens { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
}

/// Encodes a piece from the middle of a text: behind a newline, which is taken away again, so that
/// `SentencePiece` does not add the space that it puts before the start of a text.
fn inner(tokenizer: &Tokenizer, text: &str, newline: &[u32]) -> Result<Tokens> {
    let mut tokens = encode(tokenizer, &format!("\n{text}"))?;
    if !newline.is_empty() && tokens.ids.starts_with(newline) {
        tokens.ids.drain(..newline.len());
        tokens.offsets.drain(..newline.len());
        for (start, end) in &mut tokens.offsets {
            *start = start.saturating_sub(1);
            *end = end.saturating_sub(1);
        }
        return Ok(tokens);
    }
    encode(tokenizer, text)
}

/// The added tokens that text must not forge: the special ones, and those that the configuration
/// lists as `chat_control_tokens`, or else those that the templates write.
fn control_tokens(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<HashMap<u32, String>> {
    let mut written = String::new();
    for name in template.names() {
        for literal in template.select(Some(name), false)?.template.literals() {
            written.push_str(literal);
            written.push('\0');
        }
    }
    let is_control = |token: &tokenizers::AddedToken| {
        token.special
            || match &template.control_tokens {
                Some(listed) => listed.contains(&token.content),
                None => !token.content.trim().is_empty() && written.contains(&token.content),
            }
    };
    let added = tokenizer.get_added_tokens_decoder().into_iter();
    Ok(added
        .filter(|(_, token)| is_control(token))
        .map(|(id, token)| (id, token.content))
        .collect())
}

/// `eos_token_id` of a configuration: a number or a list of numbers.
fn eos_ids(path: &Path) -> Result<Vec<u32>> {
    let config = read_json(path)?;
    let form = |found: &Json| Error::Form {
        what: format!("`eos_token_id` in {}", path.display()),
        found: kind(found),
        expected: "a token id or a list of token ids",
    };
    let id =
        |json: &Json| json.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| form(json));
    match config.get("eos_token_id") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(ids)) => ids.iter().map(id).collect(),
        Some(found) => Ok(vec![id(found)?]),
    }
}
