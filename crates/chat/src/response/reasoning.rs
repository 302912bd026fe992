//! The reasoning that a model writes before its answer.

use std::borrow::Cow;

/// The tags around a model's reasoning.
///
/// ```
/// use posttrain_chat::response::ReasoningTags;
///
/// assert!(ReasoningTags::THINK.opened_by("<|im_start|>assistant\n<think>\n"));
/// let custom = ReasoningTags::new("<reason>", "</reason>");
/// assert_eq!(custom.close(), "</reason>");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasoningTags {
    open: Cow<'static, str>,
    close: Cow<'static, str>,
}

impl ReasoningTags {
    /// `<think>` and `</think>`: Qwen3, DeepSeek-R1, GLM and most others.
    pub const THINK: Self = Self::fixed("<think>", "</think>");
    /// `[THINK]` and `[/THINK]`: Magistral and Ministral.
    pub const MISTRAL: Self = Self::fixed("[THINK]", "[/THINK]");
    /// `<seed:think>` and `</seed:think>`: Seed-OSS.
    pub const SEED: Self = Self::fixed("<seed:think>", "</seed:think>");
    /// `◁think▷` and `◁/think▷`: Kimi-VL.
    pub const KIMI: Self = Self::fixed("◁think▷", "◁/think▷");

    /// Tags of one's own.
    pub fn new(open: impl Into<Cow<'static, str>>, close: impl Into<Cow<'static, str>>) -> Self {
        Self { open: open.into(), close: close.into() }
    }

    const fn fixed(open: &'static str, close: &'static str) -> Self {
        Self { open: Cow::Borrowed(open), close: Cow::Borrowed(close) }
    }

    /// The opening tag.
    pub fn open(&self) -> &str {
        &self.open
    }

    /// The closing tag.
    pub fn close(&self) -> &str {
        &self.close
    }

    /// The tags that a chat template writes or asks for; `None` when it knows none of those above.
    pub fn detect(chat_template: &str) -> Option<Self> {
        [Self::MISTRAL, Self::SEED, Self::KIMI, Self::THINK]
            .into_iter()
            .find(|tags| chat_template.contains(&*tags.open))
    }

    /// Whether the prompt ends with the opening tag, so that the answer starts inside the reasoning.
    pub fn opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(&*self.open)
    }
}

/// The reasoning at the start of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reasoning<'t> {
    /// Trimmed; `None` when there is none or nothing but whitespace.
    pub(super) text: Option<&'t str>,
    /// Where the answer begins.
    pub(super) end: usize,
    /// The text ends before the reasoning does.
    pub(super) cut: bool,
}

/// Splits the reasoning off the start of `text`. Tags further on are content: an answer may speak
/// about them, and a tool may be called with them.
pub(super) fn split<'t>(text: &'t str, tags: &ReasoningTags, already_open: bool) -> Reasoning<'t> {
    let inner = text.trim_start().strip_prefix(&*tags.open);
    let Some(inner) = inner.or(already_open.then_some(text)) else {
        return Reasoning { text: None, end: 0, cut: false };
    };
    let start = text.len() - inner.len();
    let close = inner.find(&*tags.close);
    let reasoning = inner[..close.unwrap_or(inner.len())].trim();
    Reasoning {
        text: (!reasoning.is_empty()).then_some(reasoning),
        end: close.map_or(text.len(), |at| start + at + tags.close.len()),
        cut: close.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'t>(
        text: &'t str,
        tags: &ReasoningTags,
        open: bool,
    ) -> (Option<&'t str>, &'t str, bool) {
        let found = split(text, tags, open);
        (found.text, &text[found.end..], found.cut)
    }

    #[test]
    fn blocks_of_every_kind() {
        for tags in [
            ReasoningTags::THINK,
            ReasoningTags::MISTRAL,
            ReasoningTags::SEED,
            ReasoningTags::KIMI,
            ReasoningTags::new("<|begin|>", "<|end|>"),
        ] {
            let (open, close) = (tags.open(), tags.close());
            let whole = format!("\n{open}\n 2+2 \n{close}\n\n4");
            assert_eq!(parts(&whole, &tags, false), (Some("2+2"), "\n\n4", false));
            let prompted = format!("2+2\n{close}4");
            assert_eq!(parts(&prompted, &tags, true), (Some("2+2"), "4", false));
            assert_eq!(parts(&prompted, &tags, false), (None, &*prompted, false));
            let repeated = format!("{open}2+2{close}4");
            assert_eq!(parts(&repeated, &tags, true), (Some("2+2"), "4", false));
            let empty = format!("{open}\n\n{close}4");
            assert_eq!(parts(&empty, &tags, false), (None, "4", false));
            let cut = format!("{open} 2+");
            assert_eq!(parts(&cut, &tags, false), (Some("2+"), "", true));
            assert_eq!(parts("2+", &tags, true), (Some("2+"), "", true));
            assert_eq!(parts("", &tags, true), (None, "", true));
            assert_eq!(parts("", &tags, false), (None, "", false));
            let later = format!("The tag {open} opens, {close} closes.");
            assert_eq!(parts(&later, &tags, false), (None, &*later, false));
        }
    }

    #[test]
    fn only_the_first_close_counts() {
        let text = "a</think>b</think>c";
        assert_eq!(parts(text, &ReasoningTags::THINK, true), (Some("a"), "b</think>c", false));
    }

    #[test]
    fn prompts_that_open_it() {
        let tags = ReasoningTags::THINK;
        assert!(tags.opened_by("<｜Assistant｜><think>\n"));
        assert!(tags.opened_by("<think>"));
        assert!(!tags.opened_by("<think>\n\n</think>\n\n"));
        assert!(!tags.opened_by("use <think> tags<|im_start|>assistant\n"));
    }

    #[test]
    fn tags_of_templates() {
        assert_eq!(ReasoningTags::detect("{{ '<think>\\n' }}"), Some(ReasoningTags::THINK));
        assert_eq!(ReasoningTags::detect("'[THINK]' + x"), Some(ReasoningTags::MISTRAL));
        assert_eq!(ReasoningTags::detect("= '<seed:think>'"), Some(ReasoningTags::SEED));
        assert_eq!(ReasoningTags::detect("'◁think▷'"), Some(ReasoningTags::KIMI));
        assert_eq!(ReasoningTags::detect("{{ bos_token }}"), None);
    }
}
