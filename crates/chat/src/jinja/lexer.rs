//! Source text to tokens, with Jinja2's whitespace rules under `trim_blocks` and `lstrip_blocks`.

use super::error::{Result, syntax};
use super::python::{is_space, rstrip};
use super::unescape::unescape;

/// One token and the line on which it starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

pub(crate) fn lex(source: &str) -> Result<Vec<Token>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop(); // keep_trailing_newline is off
    }
    let mut lexer =
        Lexer { source: &source, pos: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.root()?;
    let line = lexer.line;
    lexer.tokens.push(Token { kind: Kind::End, line });
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    pos: usize,
    line: usize,
    /// Whether the text at `pos` starts a line, as far as `lstrip_blocks` is concerned.
    line_starting: bool,
    tokens: Vec<Token>,
}

/// The sign behind `{%` or before `%}`.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Minus,
    Plus,
    None,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.pos..]
    }

    /// Moves over `n` bytes, counting lines.
    fn advance(&mut self, n: usize) -> &'s str {
        let text = &self.source[self.pos..self.pos + n];
        self.line += text.bytes().filter(|&b| b == b'\n').count();
        self.pos += n;
        if let Some(last) = text.bytes().last() {
            self.line_starting = last == b'\n';
        }
        text
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn push_data(&mut self, text: &str, line: usize) {
        if !text.is_empty() {
            self.tokens.push(Token { kind: Kind::Data(text.to_owned()), line });
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        let n = rest.len() - rest.trim_start_matches(is_space).len();
        self.advance(n);
    }

    fn sign(&mut self) -> Sign {
        match self.rest().as_bytes().first() {
            Some(b'-') => {
                self.advance(1);
                Sign::Minus
            }
            Some(b'+') => {
                self.advance(1);
                Sign::Plus
            }
            _ => Sign::None,
        }
    }

    /// Template text up to the next tag, and the tags, until the source ends.
    fn root(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let Some((start, opener)) = next_opener(rest) else {
                let line = self.line;
                let text = self.advance(rest.len());
                self.push_data(text, line);
                return Ok(());
            };
            let (line, line_starting) = (self.line, self.line_starting);
            let text = self.advance(start);
            self.advance(2);
            let sign = self.sign();
            let lstrip = opener != b'{';
            self.push_data(strip_before(text, sign, lstrip, line_starting), line);
            match opener {
                b'#' => self.comment()?,
                b'{' => {
                    self.push(Kind::VariableBegin);
                    self.code("}}")?;
                }
                _ => {
                    if let Some(n) = raw_begin(self.rest()) {
                        self.advance(n);
                        self.raw()?;
                    } else {
                        self.push(Kind::BlockBegin);
                        self.code("%}")?;
                    }
                }
            }
        }
    }

    fn comment(&mut self) -> Result<()> {
        let line = self.line;
        let end = self.rest().find("#}");
        let Some(end) = end else { return Err(syntax(line, "missing end of comment tag")) };
        let sign = self.rest()[..end].bytes().last();
        self.advance(end + 2);
        match sign {
            Some(b'-') => self.skip_space(),
            Some(b'+') => {}
            _ => self.trim_newline(),
        }
        Ok(())
    }

    fn raw(&mut self) -> Result<()> {
        let (line, line_starting) = (self.line, self.line_starting);
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let start = from + found;
            if let Some((sign, end_sign, len)) = raw_end(&rest[start + 2..]) {
                let text = self.advance(start);
                self.push_data(strip_before(text, sign, true, line_starting), line);
                self.advance(2 + len);
                match end_sign {
                    Sign::Minus => self.skip_space(),
                    Sign::Plus => {}
                    Sign::None => self.trim_newline(),
                }
                return Ok(());
            }
            from = start + 2;
        }
        if rest.is_empty() {
            return Ok(()); // as in Jinja2, which stops reading before it misses the end
        }
        Err(syntax(line, "missing end of raw directive"))
    }

    /// `trim_blocks`: the first newline after a block is removed.
    fn trim_newline(&mut self) {
        if self.rest().starts_with('\n') {
            self.advance(1);
        }
    }

    /// The inside of `{{ }}` or `{% %}`.
    fn code(&mut self, closer: &'static str) -> Result<()> {
        let block = closer == "%}";
        let mut open: Vec<u8> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty() {
                let end = if block { Kind::BlockEnd } else { Kind::VariableEnd };
                if rest.starts_with(closer) {
                    self.push(end);
                    self.advance(2);
                    if block {
                        self.trim_newline();
                    }
                    return Ok(());
                }
                let signed = rest.get(1..).is_some_and(|r| r.starts_with(closer));
                if signed && (rest.starts_with('-') || block && rest.starts_with('+')) {
                    self.push(end);
                    self.advance(3);
                    if rest.starts_with('-') {
                        self.skip_space();
                    }
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return Err(syntax(self.line, format!("the tag is not closed by {closer:?}")));
            };
            if is_space(first) {
                self.skip_space();
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphanumeric() {
                let n = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Kind::Name(rest[..n].to_owned()));
                self.advance(n);
            } else if first == '"' || first == '\'' {
                self.string(first as u8)?;
            } else if let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) {
                match op {
                    "(" => open.push(b')'),
                    "[" => open.push(b']'),
                    "{" => open.push(b'}'),
                    ")" | "]" | "}" => match open.pop() {
                        Some(expected) if expected == op.as_bytes()[0] => {}
                        Some(expected) => {
                            let expected = expected as char;
                            let message = format!("unexpected '{op}', expected '{expected}'");
                            return Err(syntax(self.line, message));
                        }
                        None => return Err(syntax(self.line, format!("unexpected '{op}'"))),
                    },
                    _ => {}
                }
                self.push(Kind::Op(op));
                self.advance(op.len());
            } else {
                return Err(syntax(self.line, format!("unexpected character {first:?}")));
            }
        }
    }

    /// Integers in four bases and floats; underscores may stand between digits.
    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let run = |from: usize, digit: &dyn Fn(u8) -> bool| {
            let mut end = from;
            while end < bytes.len()
                && (digit(bytes[end])
                    || bytes[end] == b'_'
                        && end > from
                        && bytes.get(end + 1).is_some_and(|&b| digit(b)))
            {
                end += 1;
            }
            end
        };
        let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
            Some(b'x') if bytes[0] == b'0' => 16,
            Some(b'o') if bytes[0] == b'0' => 8,
            Some(b'b') if bytes[0] == b'0' => 2,
            _ => 10,
        };
        let digits = |b: u8| (b as char).is_digit(radix);
        let bad = |text: &str, line| syntax(line, format!("{text:?} is not a number"));
        if radix != 10 {
            let start = if bytes.get(2) == Some(&b'_') { 3 } else { 2 };
            let end = run(start, &digits);
            let value = i128::from_str_radix(&rest[start..end].replace('_', ""), radix)
                .map_err(|_| bad(&rest[..end], self.line))?;
            self.push(Kind::Int(value));
            self.advance(end);
            return Ok(());
        }
        let after_dot = self.source[..self.pos].ends_with('.');
        let whole = run(0, &digits);
        let mut end = whole;
        if !after_dot {
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            if bytes.get(end) == Some(&b'.') && is_digit(end + 1) {
                end = run(end + 1, &digits);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                if is_digit(end + 1 + sign) {
                    end = run(end + 1 + sign, &digits);
                }
            }
        }
        let text = rest[..end].replace('_', "");
        let leading_zero = text.len() > 1 && text.starts_with('0') && text.contains(|c| c != '0');
        if end == whole && leading_zero {
            return Err(bad(&text, self.line));
        }
        let kind = if end == whole {
            Kind::Int(text.parse().map_err(|_| bad(&text, self.line))?)
        } else {
            Kind::Float(text.parse().map_err(|_| bad(&text, self.line))?)
        };
        self.push(kind);
        self.advance(end);
        Ok(())
    }

    fn string(&mut self, quote: u8) -> Result<()> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut end = 1;
        loop {
            match bytes.get(end) {
                None => return Err(syntax(self.line, "a string is not closed")),
                Some(b'\\') => end += 2,
                Some(&b) if b == quote => break,
                Some(_) => end += 1,
            }
        }
        let text = unescape(&rest[1..end]).map_err(|message| syntax(self.line, message))?;
        self.push(Kind::Str(text));
        self.advance(end + 1);
        Ok(())
    }
}

/// The first `{{`, `{%` or `{#`: its offset and its second byte.
fn next_opener(text: &str) -> Option<(usize, u8)> {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(found) = text[from..].find('{') {
        let at = from + found;
        match bytes.get(at + 1) {
            Some(&b @ (b'{' | b'%' | b'#')) => return Some((at, b)),
            _ => from = at + 1,
        }
    }
    None
}

/// Whitespace control before a tag: `-` strips all whitespace, nothing strips the indentation of a
/// tag that stands first on its line (`lstrip_blocks`), `+` keeps everything.
fn strip_before(text: &str, sign: Sign, lstrip: bool, line_starting: bool) -> &str {
    match sign {
        Sign::Minus => rstrip(text),
        Sign::None if lstrip => {
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            let blank = text[line..].chars().all(is_space);
            if (line > 0 || line_starting) && blank { &text[..line] } else { text }
        }
        _ => text,
    }
}

/// Length of ` raw %}` behind `{%` and its sign.
fn raw_begin(text: &str) -> Option<usize> {
    let after = text.trim_start_matches(is_space).strip_prefix("raw")?;
    let after = after.trim_start_matches(is_space);
    let end = match after.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => after.strip_prefix("%}")?,
    };
    Some(text.len() - end.len())
}

/// Signs and length of ` endraw %}` behind `{%`, without the whitespace that it strips.
fn raw_end(text: &str) -> Option<(Sign, Sign, usize)> {
    let (sign, after) = match text.as_bytes().first() {
        Some(b'-') => (Sign::Minus, &text[1..]),
        Some(b'+') => (Sign::Plus, &text[1..]),
        _ => (Sign::None, text),
    };
    let after = after.trim_start_matches(is_space).strip_prefix("endraw")?;
    let after = after.trim_start_matches(is_space);
    let (end_sign, after) = match after.as_bytes().first() {
        Some(b'-') => (Sign::Minus, &after[1..]),
        Some(b'+') => (Sign::Plus, &after[1..]),
        _ => (Sign::None, after),
    };
    let end = after.strip_prefix("%}")?;
    Some((sign, end_sign, text.len() - end.len()))
}
