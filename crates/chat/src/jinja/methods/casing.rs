//! Upper, lower, title: Python's case rules.

use crate::jinja::python::is_alpha;

/// `str.lower`, with the final sigma.
pub(crate) fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// The title-case form of one character.
fn title_char(c: char, out: &mut String) {
    // The digraphs have a title form of their own.
    let title = match c {
        'Ǆ' | 'ǅ' | 'ǆ' => 'ǅ',
        'Ǉ' | 'ǈ' | 'ǉ' => 'ǈ',
        'Ǌ' | 'ǋ' | 'ǌ' => 'ǋ',
        'Ǳ' | 'ǲ' | 'ǳ' => 'ǲ',
        'ß' => {
            out.push_str("Ss");
            return;
        }
        'ﬀ'..='ﬆ' => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
            return;
        }
        c => {
            out.extend(c.to_uppercase());
            return;
        }
    };
    out.push(title);
}

/// `str.capitalize`
pub(crate) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        title_char(first, &mut out);
        // The rest is lowered with the first character in sight, which a final sigma looks at.
        let lowered = lower(text);
        let skip = first.to_lowercase().map(char::len_utf8).sum();
        out.push_str(lowered.get(skip..).unwrap_or_default());
    }
    out
}

/// `str.title`: upper after every character that has no case.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut previous_cased = false;
    for c in text.chars() {
        if previous_cased {
            out.extend(c.to_lowercase());
        } else {
            title_char(c, &mut out);
        }
        previous_cased = is_cased(c);
    }
    out
}

/// `str.swapcase`
pub(crate) fn swapcase(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// `str.casefold`: lower, with the letters that fold to several. Rust has no full table; these are
/// the folds that differ from lower-casing in the Latin, Greek and ligature blocks.
pub(crate) fn casefold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'ß' | 'ẞ' => out.push_str("ss"),
            'ς' => out.push('σ'),
            'ſ' => out.push('s'),
            'µ' => out.push('μ'),
            'ﬀ'..='ﬆ' => out.extend(c.to_uppercase().flat_map(char::to_lowercase)),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

pub(crate) fn is_cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || is_title(c)
}

fn is_title(c: char) -> bool {
    matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ')
        || ('ᾈ'..='ῼ').contains(&c) && is_alpha(c) && !c.is_lowercase()
}

/// `str.istitle`
pub(crate) fn is_title_text(text: &str) -> bool {
    let (mut cased, mut previous) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            if previous {
                return false;
            }
            (cased, previous) = (true, true);
        } else if c.is_lowercase() {
            if !previous {
                return false;
            }
            (cased, previous) = (true, true);
        } else {
            previous = false;
        }
    }
    cased
}
