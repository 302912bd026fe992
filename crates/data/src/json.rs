//! A strict reader of JSON.
//!
//! Not `serde_json`'s, because rows have to come out as they went in, or not at all: there the last of
//! two equal keys wins, an integer beyond 64 bits turns into a rounded float, and floats may be off in
//! their last bit. Here the first two are faults, and floats are the nearest ones. What is read is
//! `serde_json`'s `Value`.

use serde_json::{Map, Number, Value};

use crate::fault::Fault;

/// How deep lists and objects may be nested.
const MAX_DEPTH: usize = 128;

/// Reads one object that is the whole text, with white space around it.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, Fault> {
    match parse(text)? {
        Value::Object(object) => Ok(object),
        found => Err(Fault::NotAnObject { found: kind(&found) }),
    }
}

/// Reads one value that is the whole text.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(Fault::Utf8 { at: error.valid_up_to() + 1 }),
    };
    let mut parser = Parser { text, bytes, at: 0 };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.unexpected("the end of the row")),
    }
}

/// The kind of a JSON value, for messages.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".into(),
        Value::Array(items) if items.is_empty() => "an empty list".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The fault that something else than `expected` stands here.
    fn unexpected(&self, expected: &'static str) -> Fault {
        let at = self.at + 1;
        match self.text[self.at..].chars().next() {
            Some('\0') => Fault::Nul { at },
            Some(found) => Fault::Json { at, found: format!("{found:?}"), expected },
            None => Fault::Json { at, found: "the end".into(), expected },
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        let expected = "a JSON value";
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{' | b'[') if depth == MAX_DEPTH => {
                Err(Fault::TooDeep { at: self.at + 1, limit: MAX_DEPTH })
            }
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.list(depth + 1),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [("true", Value::Bool(true)), ("false", Value::Bool(false))];
                for (word, value) in words.into_iter().chain([("null", Value::Null)]) {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                // Python's json module writes these, and no other reader takes them.
                for word in ["NaN", "Infinity"] {
                    if self.bytes[self.at..].starts_with(word.as_bytes()) {
                        return Err(Fault::Number { at: self.at + 1, found: word.into() });
                    }
                }
                Err(self.unexpected(expected))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        self.at += 1;
        let mut object = Map::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(object));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in quotes"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:` after a key"));
            }
            self.at += 1;
            self.space();
            let value = self.value(depth)?;
            match object.entry(key) {
                serde_json::map::Entry::Vacant(entry) => entry.insert(value),
                serde_json::map::Entry::Occupied(entry) => {
                    return Err(Fault::DuplicateKey { at: start + 1, key: entry.key().clone() });
                }
            };
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(object));
                }
                _ => return Err(self.unexpected("`,` or `}`")),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.bytes[self.at..].starts_with(b"Infinity") {
            return Err(Fault::Number { at: start + 1, found: "-Infinity".into() });
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let number = if integer && text != "-0" {
            let signed = text.parse::<i64>().ok().map(Number::from);
            signed.or_else(|| text.parse::<u64>().ok().map(Number::from))
        } else {
            text.parse::<f64>().ok().and_then(Number::from_f64)
        };
        match number {
            Some(number) => Ok(Value::Number(number)),
            None => Err(Fault::Number { at: start + 1, found: text.to_owned() }),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let start = self.at;
        self.at += plain(&self.bytes[start..]);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(self.text[start..self.at - 1].to_owned());
        }
        let mut string = String::with_capacity(2 * (self.at - start) + 16);
        string.push_str(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(self.unexpected("`\"`, or the control character escaped")),
            }
            let start = self.at;
            self.at += plain(&self.bytes[start..]);
            string.push_str(&self.text[start..self.at]);
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        self.at += 1;
        let escaped = match self.peek() {
            Some(b'n') => '\n',
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                let start = self.at;
                let first = self.hex()?;
                if let Some(char) = char::from_u32(first) {
                    return Ok(char);
                }
                // Characters beyond 16 bits are written as two halves.
                let second = if self.bytes[self.at..].starts_with(b"\\u") {
                    self.at += 1;
                    self.hex()?
                } else {
                    0
                };
                let high = (0xD800..0xDC00).contains(&first);
                if high && (0xDC00..0xE000).contains(&second) {
                    let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let found = format!("\\u{first:04x}, half of a character");
                return Err(Fault::Json { at: start, found, expected: "both halves of it" });
            }
            _ => return Err(self.unexpected("one of \"\\/bfnrtu after a backslash")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// Four hexadecimal digits behind the `u` that stands here.
    fn hex(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("four hexadecimal digits after \\u"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

/// How many bytes from the start of a string stand for themselves.
///
/// Eight bytes at once. For `n` up to 128, `(x - n) & !x` has the high bit of the first byte set that is
/// below `n`, since a borrow only spoils bytes behind it; and a byte is `c` where `x ^ c` is below 1.
fn plain(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let below = |word: u64, n: u64| word.wrapping_sub(n * EACH) & !word;
    let is = |word: u64, byte: u8| below(word ^ (u64::from(byte) * EACH), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let special = (is(word, b'"') | is(word, b'\\') | below(word, 0x20)) & (0x80 * EACH);
        if special != 0 {
            return 8 * i + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |&byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    8 * words.len() + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [
            r#"{"a":[1,-2,0,-0,0.5,1e3,1E-7,18446744073709551615,-9223372036854775808],"b":{}}"#,
            " [ ] ",
            "\t{\r\n\"x\" : null , \"y\":[true,false]}",
            r#""\"\\\/\b\f\n\r\t\u00e9\uD83D\ude00é😀 a string that is longer than a block of 32 bytes""#,
            r#"[[[[[[]]]]],"",{"":{"":""}}]"#,
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn floats_are_the_nearest_ones() {
        // serde_json's default reading of this one is one unit off in the last place.
        let value = parse(b"0.6931471805599453094172321214581765680755").unwrap();
        assert_eq!(value.as_f64(), Some(std::f64::consts::LN_2));
        for text in
            ["1.7976931348623157e308", "5e-324", "9007199254740993.0", "122.416294033786585"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap().as_f64(), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn faults_name_the_byte_what_is_there_and_what_should_be() {
        for (text, expected) in [
            ("", "not valid JSON at byte 1: found the end, expected a JSON value"),
            (r#"{"a" 1}"#, "not valid JSON at byte 6: found '1', expected `:` after a key"),
            (r#"{"a":1"#, "not valid JSON at byte 7: found the end, expected `,` or `}`"),
            (r#"{"a":1,}"#, "not valid JSON at byte 8: found '}', expected a key in quotes"),
            ("[1 2]", "not valid JSON at byte 4: found '2', expected `,` or `]`"),
            ("[01]", "not valid JSON at byte 3: found '1', expected `,` or `]`"),
            ("{} {}", "not valid JSON at byte 4: found '{', expected the end of the row"),
            ("'a'", "not valid JSON at byte 1: found '\\'', expected a JSON value"),
            ("\u{feff}{}", "not valid JSON at byte 1: found '\\u{feff}', expected a JSON value"),
            ("1.", "not valid JSON at byte 3: found the end, expected a digit"),
            (
                r#""\ud83d""#,
                "not valid JSON at byte 2: found \\ud83d, half of a character, expected both halves of it",
            ),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
        assert_eq!(
            fault("\"a\nb\""),
            "not valid JSON at byte 3: found '\\n', expected `\"`, or the control character escaped"
        );
        assert!(matches!(parse(b"\"a\0\""), Err(Fault::Nul { at: 3 })));
        assert!(matches!(parse(b"\0\0\0"), Err(Fault::Nul { at: 1 })));
        assert!(matches!(parse(b"{\"a\": \"\xff\"}"), Err(Fault::Utf8 { at: 8 })));
    }

    #[test]
    fn what_cannot_be_kept_is_a_fault() {
        assert!(fault("18446744073709551616").contains("18446744073709551616"));
        assert!(fault("1e999").contains("1e999"));
        assert!(fault("[NaN]").contains("NaN"));
        assert!(fault("-Infinity").contains("-Infinity"));
        let double = parse(br#"{"a": {"role": 1, "b": 2, "role": 3}}"#).unwrap_err();
        assert_eq!(double, Fault::DuplicateKey { at: 27, key: "role".into() });
        let deep = "[".repeat(129);
        assert!(matches!(parse(deep.as_bytes()), Err(Fault::TooDeep { at: 129, .. })));
        let fits = format!("{}{}", "[".repeat(128), "]".repeat(128));
        assert!(parse(fits.as_bytes()).is_ok());
    }

    #[test]
    fn the_first_special_byte_is_found() {
        for special in 0..=255_u8 {
            for at in 0..20 {
                for around in [b' ', b'x', 0x7f, 0x80, 0xff, b'!', b'#', b'[', b']'] {
                    let mut bytes = [around; 24];
                    bytes[at] = special;
                    bytes[at + 2] = b'"';
                    let stops = matches!(special, b'"' | b'\\' | 0..0x20);
                    assert_eq!(
                        plain(&bytes),
                        if stops { at } else { at + 2 },
                        "{special} {around}"
                    );
                }
            }
        }
        assert_eq!(plain(b"abc"), 3);
        assert_eq!(plain(b""), 0);
    }

    /// Numbers of a linear congruential generator.
    fn random(state: &mut u64) -> usize {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }

    /// Texts changed at random are read as `serde_json` reads them, or refused by both, except where
    /// this reader is stricter on purpose.
    #[test]
    fn random_changes_are_judged_as_serde_json_judges_them() {
        let seed = r#"{"messages":[{"role":"user","content":"caf\u00e9 \ud83d\ude00 é"},{"role":"assistant","content":null}],"n":[1,-2.5e3,true]}"#;
        let mut state = 7;
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=random(&mut state) % 3 {
                let at = random(&mut state) % bytes.len();
                match random(&mut state) % 3 {
                    0 => bytes[at] = b"\"\\{}[],:0e-.u \x00\xff"[random(&mut state) % 16],
                    1 => bytes.truncate(at.max(1)),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let theirs = serde_json::from_slice::<Value>(&bytes);
            match parse(&bytes) {
                Ok(ours) => assert_eq!(Some(ours), theirs.ok(), "{}", bytes.escape_ascii()),
                Err(Fault::DuplicateKey { .. } | Fault::Number { .. }) => {}
                Err(fault) => assert!(theirs.is_err(), "{fault}: {}", bytes.escape_ascii()),
            }
        }
    }
}
