//! Counting and wrapping words.

use crate::jinja::args::{Args, int_or, text};
use crate::jinja::error::{Result, value_error};
use crate::jinja::interp::Interp;
use crate::jinja::methods::split_lines;
use crate::jinja::value::Value;

pub(super) fn wordcount<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    args.none("wordcount")?;
    let text = value.to_str(interp.arena);
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let words = text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    Ok(Value::int(words.count() as i128))
}

/// Wraps each line at `width` characters, as Python's `textwrap` does without its whitespace rules.
pub(super) fn wordwrap<'a>(
    interp: &mut Interp<'a>,
    value: Value<'a>,
    args: Args<'a>,
) -> Result<Value<'a>> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, break_long_words, wrapstring, break_on_hyphens] =
        args.bind("wordwrap", names, 0)?;
    let width = usize::try_from(int_or("wordwrap", width.as_ref(), 79)?)
        .ok()
        .filter(|&width| width > 0)
        .ok_or_else(|| value_error("wordwrap wants a width above 0"))?;
    let wrapstring = wrapstring.filter(|v| !matches!(v, Value::None)).unwrap_or(Value::Str("\n"));
    let wrapstring = text("wordwrap", &wrapstring)?;
    let break_long_words = break_long_words.is_none_or(|v| v.is_true());
    let break_on_hyphens = break_on_hyphens.is_none_or(|v| v.is_true());
    let text = text("wordwrap", &value)?;
    let mut lines = Vec::new();
    for line in split_lines(text, false) {
        if line.is_empty() {
            lines.push(String::new());
        } else {
            wrap(line, width, break_long_words, break_on_hyphens, &mut lines);
        }
    }
    Ok(Value::string(interp.arena, lines.join(wrapstring)))
}

/// Runs of spaces and words; a word also ends behind a hyphen between letters.
fn chunks(line: &str, break_on_hyphens: bool) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut chunks: Vec<String> = Vec::new();
    let mut chunk = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let space = c == ' ' || c == '\t';
        if i > 0 && (chars[i - 1] == ' ' || chars[i - 1] == '\t') != space {
            chunks.push(std::mem::take(&mut chunk));
        }
        chunk.push(c);
        let letter =
            |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphabetic());
        let hyphen = c == '-'
            && letter(i.checked_sub(1))
            && letter(i.checked_sub(2))
            && letter(Some(i + 1))
            && letter(Some(i + 2));
        if break_on_hyphens && hyphen {
            chunks.push(std::mem::take(&mut chunk));
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn wrap(line: &str, width: usize, break_long: bool, hyphens: bool, lines: &mut Vec<String>) {
    let mut chunks: Vec<String> = chunks(line, hyphens);
    chunks.reverse();
    let is_blank = |chunk: &String| chunk.trim_matches([' ', '\t']).is_empty();
    let first = lines.len();
    while !chunks.is_empty() {
        let mut current: Vec<String> = Vec::new();
        let mut length = 0;
        // A wrapped line does not start with the space at which it was broken.
        if lines.len() > first && chunks.last().is_some_and(is_blank) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.last() {
            let len = chunk.chars().count();
            if length + len > width {
                break;
            }
            length += len;
            current.extend(chunks.pop());
        }
        if let Some(chunk) = chunks.last()
            && chunk.chars().count() > width
        {
            let room = width - length;
            if break_long {
                let head: String = chunk.chars().take(room.max(1)).collect();
                let tail: String = chunk.chars().skip(room.max(1)).collect();
                chunks.pop();
                chunks.push(tail);
                current.push(head);
            } else if current.is_empty() {
                current.extend(chunks.pop());
            }
        }
        if current.last().is_some_and(is_blank) {
            current.pop();
        }
        if !current.is_empty() {
            lines.push(current.concat());
        }
    }
}
