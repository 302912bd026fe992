//! Stop strings across the borders of text pieces.
//!
//! The text ends where a stop string is complete first; of several that are complete at the same
//! character, the longest counts. The answer is the text before it. This is what generation
//! character by character would do (transformers' `StopStringCriteria`; vLLM, which looks after
//! each token), so it does not depend on how the text is cut into pieces. It differs from a search
//! for the earliest start only when one stop string lies inside another (`cd` in `abcde`), where
//! that search would have to generate on after `cd`.
//!
//! Each stop string is searched with the automaton of Knuth, Morris and Pratt (1977): its state is
//! the longest prefix of the stop string that ends the text so far, which is also how much must be
//! held back. Time is linear in text × number of stop strings.

/// Finds the stop strings of one request in pieces of text.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    patterns: Vec<Pattern>,
    /// The end of the text that may be the start of a stop string.
    held: String,
    stopped: Option<usize>,
}

/// One stop string with its automaton.
#[derive(Clone, Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each prefix of `bytes` the length of its longest proper border.
    borders: Vec<usize>,
    /// How many bytes of the pattern end the text so far.
    matched: usize,
}

impl StopStrings {
    /// The stop strings of one request; none of them is empty.
    pub(crate) fn new<S: AsRef<str>>(stop: &[S]) -> Self {
        let patterns = stop.iter().map(|stop| Pattern::new(stop.as_ref())).collect();
        Self { patterns, held: String::new(), stopped: None }
    }

    /// Takes the next piece and returns the text that is now known to be part of the answer.
    /// After the stop string it is always empty.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        if self.patterns.is_empty() {
            return piece.to_owned();
        }
        let start = self.held.len();
        self.held.push_str(piece);
        for (at, &byte) in self.held.as_bytes().iter().enumerate().skip(start) {
            let mut longest = 0;
            for (index, pattern) in self.patterns.iter_mut().enumerate() {
                if pattern.advance(byte) && pattern.bytes.len() > longest {
                    longest = pattern.bytes.len();
                    self.stopped = Some(index);
                }
            }
            if longest > 0 {
                let mut answer = std::mem::take(&mut self.held);
                answer.truncate(at + 1 - longest);
                return answer;
            }
        }
        // A match starts with the first byte of a string, so the cut is between characters.
        let longest = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - longest);
        std::mem::replace(&mut self.held, held)
    }

    /// Which stop string ended the text, as an index into the list.
    pub(crate) fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// The text ends without a stop string: what was held back. Empty after a stop string.
    pub(crate) fn finish(&mut self) -> String {
        self.patterns.iter_mut().for_each(|pattern| pattern.matched = 0);
        std::mem::take(&mut self.held)
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut pattern = Self { borders: vec![0; bytes.len().min(1)], bytes, matched: 0 };
        // The borders of the pattern are the states after reading the pattern itself.
        for at in 1..pattern.bytes.len() {
            pattern.advance(pattern.bytes[at]);
            pattern.borders.push(pattern.matched);
        }
        pattern.matched = 0;
        pattern
    }

    /// Reads one byte; whether the pattern is complete with it.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.borders[self.matched - 1];
        }
        if self.bytes.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.matched > 0 && self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces; the pieces of the answer, the last one from `finish`.
    fn answer(stop: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut stops = StopStrings::new(stop);
        let mut answer: Vec<String> = pieces.iter().map(|piece| stops.push(piece)).collect();
        answer.push(stops.finish());
        (answer, stops.stopped())
    }

    #[test]
    fn text_before_the_stop_string_is_the_answer() {
        let (pieces, stopped) = answer(&["\nUser:"], &["Hi", "!\nUs", "er", ": no", "more"]);
        assert_eq!(pieces, ["Hi", "!", "", "", "", ""]);
        assert_eq!(stopped, Some(0));
    }

    #[test]
    fn what_might_become_a_stop_string_is_held_until_it_cannot() {
        let (pieces, stopped) = answer(&["</s>", "abab"], &["x</", "s", "b", "aba", "aba", "</s"]);
        assert_eq!(pieces, ["x", "", "</sb", "", "aba", "aba", "</s"]);
        assert_eq!(stopped, None);
        let (pieces, stopped) = answer(&["abab"], &["aba", "abab"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("aba", Some(0)));
    }

    #[test]
    fn the_first_complete_one_counts_and_the_longest_of_these() {
        let stop = |stop: &[&str], text| {
            let (pieces, stopped) = answer(stop, &[text]);
            (pieces.concat(), stopped)
        };
        assert_eq!(stop(&["abc", "ab"], "xabc"), ("x".into(), Some(1)));
        assert_eq!(stop(&["c", "bc", "abc"], "xabc"), ("x".into(), Some(2)));
        assert_eq!(stop(&["abcde", "cd"], "xabcde"), ("xab".into(), Some(1)));
    }

    #[test]
    fn characters_are_never_cut() {
        // é and ê share their first byte.
        let (pieces, stopped) = answer(&["é!"], &["aê", "é", "?é", "!"]);
        assert_eq!(pieces, ["aê", "", "é?", "", ""]);
        assert_eq!(stopped, Some(0));
    }

    /// The same by trying every end and every stop string.
    fn naive<'t>(stop: &[String], text: &'t str) -> &'t str {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        for end in ends {
            let ending = stop.iter().filter(|s| text[..end].ends_with(s.as_str()));
            if let Some(longest) = ending.map(String::len).max() {
                return &text[..end - longest];
            }
        }
        text
    }

    #[test]
    fn random_cuts_answer_like_a_search_of_the_whole_text() {
        let mut state = 1_u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n
        };
        let mut found = 0;
        for _ in 0..20_000 {
            let mut text = |length| -> String {
                (0..length).map(|_| ['a', 'b', 'é', 'ê'][below(4)]).collect()
            };
            let whole = text(30);
            let stop: Vec<String> = [2, 3, 4, 5].map(&mut text).into();
            let stop = &stop[below(4)..];
            let expected = naive(stop, &whole);

            let mut stops = StopStrings::new(stop);
            let (mut answer, mut rest) = (String::new(), whole.as_str());
            while !rest.is_empty() {
                let cut = rest.char_indices().nth(1 + below(4)).map_or(rest.len(), |(at, _)| at);
                answer += &stops.push(&rest[..cut]);
                assert!(expected.starts_with(&answer), "{stop:?} {whole} {answer}");
                rest = &rest[cut..];
            }
            answer += &stops.finish();
            assert_eq!(answer, expected, "{stop:?} {whole}");
            assert_eq!(stops.stopped().is_some(), answer.len() < whole.len());
            found += usize::from(stops.stopped().is_some());
        }
        assert!((2_000..18_000).contains(&found), "{found}");
    }

    #[test]
    fn without_stop_strings_everything_passes() {
        assert_eq!(answer(&[], &["a", "b"]), (vec!["a".into(), "b".into(), String::new()], None));
    }
}
