//! What texts begin with, known once: a tree of token runs with their keys and values, and with what
//! the head said of the tokens that it was asked about.
//!
//! A run is a part of the texts that go through it; texts part where runs have children. Runs whose
//! numbers are not known yet are made known from the root downwards. Least recently used leaves go
//! first when there are too many tokens.

use std::collections::{BTreeMap, BTreeSet};

use crate::decoder::{Segment, part};

/// The number of a run.
pub(super) type Run = u64;

const ROOT: Run = 0;

/// Texts that part before so many tokens of a run that is not known yet do not share it: another pass
/// through the model costs more than the tokens.
const MIN_SHARED: usize = 16;

/// The runs.
#[derive(Debug)]
pub(super) struct Prefixes {
    runs: BTreeMap<Run, Tokens>,
    next: Run,
    clock: u64,
}

#[derive(Debug, Default)]
struct Tokens {
    parent: Run,
    children: Vec<Run>,
    ids: Vec<u32>,
    /// Which of them the head is asked about.
    asked: BTreeSet<usize>,
    known: Option<Known>,
    used: u64,
}

/// Tokens of a text, answers to what is asked, and known tokens on a way.
type Reach = (usize, usize, usize);

/// What the model found for the tokens of a run.
#[derive(Debug)]
struct Known {
    segment: Segment,
    /// Of the tokens that were asked about.
    scores: BTreeMap<usize, f32>,
}

impl Default for Prefixes {
    fn default() -> Self {
        let known = Some(Known { segment: Segment::new(), scores: BTreeMap::new() });
        let root = Tokens { known, ..Tokens::default() };
        Self { runs: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, clock: 0 }
    }
}

impl Prefixes {
    /// Adds a text, of whose tokens some are asked about; what of it is not there becomes runs of at most
    /// `most` tokens. A known run of which something new is asked is to be computed again.
    pub(super) fn insert(&mut self, ids: &[u32], asked: &[usize], most: usize) {
        self.add(ids, asked, most);
        let mut start = 0;
        for (run, common) in self.walk(ids, asked) {
            if let Some(tokens) = self.runs.get_mut(&run) {
                let own = asked.iter().filter(|&&place| (start..start + common).contains(&place));
                tokens.asked.extend(own.map(|place| place - start));
                let said = |known: &Known| {
                    tokens.asked.iter().all(|place| known.scores.contains_key(place))
                };
                if !tokens.known.as_ref().is_some_and(said) {
                    tokens.known = None;
                }
            }
            start += common;
        }
    }

    fn add(&mut self, ids: &[u32], asked: &[usize], most: usize) {
        self.clock += 1;
        let (mut parent, mut read) = (ROOT, 0);
        for (run, common) in self.walk(ids, asked) {
            let there = &self.runs[&run];
            if common < there.ids.len() && read + common < ids.len() {
                // They part within the run.
                if there.known.is_none() && common < MIN_SHARED {
                    break;
                }
                self.split(run, common);
            }
            (parent, read) = (run, read + common);
        }
        for part in ids[read..].chunks(most) {
            let run = self.next;
            self.next += 1;
            self.runs.entry(parent).or_default().children.push(run);
            let used = self.clock;
            let tokens = Tokens { parent, ids: part.to_vec(), used, ..Tokens::default() };
            self.runs.insert(run, tokens);
            parent = run;
        }
    }

    /// The runs that a text goes through, each with the number of tokens that are the text's: of all ways
    /// the one that goes furthest, of those the one on which most of what is asked is known, then most
    /// tokens. Siblings may begin alike, so that the run with most tokens of the text need not be the one
    /// that goes on.
    fn walk(&self, ids: &[u32], asked: &[usize]) -> Vec<(Run, usize)> {
        let (_, mut path) = self.furthest(ROOT, (ids, 0), asked);
        path.reverse();
        path
    }

    /// How far a way goes from the token at `start` on, and the way backwards.
    fn furthest(
        &self,
        at: Run,
        (ids, start): (&[u32], usize),
        asked: &[usize],
    ) -> (Reach, Vec<(Run, usize)>) {
        let ways = self.runs[&at].children.iter().filter_map(|&run| {
            let there = &self.runs[&run];
            let common = there.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
            let answered = |place: &&usize| {
                let own = place.checked_sub(start).filter(|own| *own < common);
                let known = there.known.as_ref();
                own.zip(known).is_some_and(|(own, known)| known.scores.contains_key(&own))
            };
            let answered = asked.iter().filter(answered).count();
            let known = if there.known.is_some() { common } else { 0 };
            let whole = common == there.ids.len() && common < ids.len();
            let (further, mut path) = if whole {
                self.furthest(run, (&ids[common..], start + common), asked)
            } else {
                Default::default()
            };
            path.push((run, common));
            let reach = (common + further.0, answered + further.1, known + further.2);
            (common > 0).then_some((reach, path))
        });
        ways.max_by_key(|(reach, _)| *reach).unwrap_or_default()
    }

    /// Parts a run after `at` of its tokens; the first part keeps the number.
    fn split(&mut self, run: Run, at: usize) {
        let new = self.next;
        self.next += 1;
        let Some(first) = self.runs.get_mut(&run) else { return };
        let length = first.ids.len();
        let ids = first.ids.split_off(at);
        let behind = |place: usize| place - at;
        let asked = first.asked.split_off(&at).into_iter().map(behind).collect();
        let children = std::mem::replace(&mut first.children, vec![new]);
        let known = first.known.as_mut().map(|known| {
            let scores = known.scores.split_off(&at).into_iter();
            let scores = scores.map(|(place, score)| (behind(place), score)).collect();
            let segment = part(&known.segment, at..length);
            known.segment = part(&known.segment, 0..at);
            Known { segment, scores }
        });
        let second = Tokens { parent: run, children, ids, asked, known, used: first.used };
        for child in second.children.clone() {
            if let Some(child) = self.runs.get_mut(&child) {
                child.parent = new;
            }
        }
        self.runs.insert(new, second);
    }

    /// The runs that are not known while their parents are, shortest first.
    pub(super) fn ready(&self) -> Vec<Run> {
        let known = |run: &Run| self.runs[run].known.is_some();
        let open = self.runs.iter().filter(|(_, tokens)| tokens.known.is_none());
        let open = open.filter(|(_, tokens)| known(&tokens.parent));
        let mut ready: Vec<Run> = open.map(|(run, _)| *run).collect();
        ready.sort_by_key(|run| self.runs[run].ids.len());
        ready
    }

    /// The tokens of a run.
    pub(super) fn ids(&self, run: Run) -> &[u32] {
        &self.runs[&run].ids
    }

    /// Which of the tokens of a run are asked about.
    pub(super) fn asked(&self, run: Run) -> impl Iterator<Item = usize> + '_ {
        self.runs[&run].asked.iter().copied()
    }

    /// Number of tokens before a run.
    pub(super) fn before(&self, run: Run) -> usize {
        self.ancestors(run).iter().map(|run| self.runs[run].ids.len()).sum()
    }

    /// Keys and values of the tokens before a run, in order.
    pub(super) fn segments(&self, run: Run) -> Vec<&Segment> {
        let known = |run: &Run| self.runs[run].known.as_ref().map(|known| &known.segment);
        self.ancestors(run).iter().filter_map(known).collect()
    }

    /// The runs before a run, the root not among them.
    fn ancestors(&self, run: Run) -> Vec<Run> {
        let (mut path, mut at) = (Vec::new(), self.runs[&run].parent);
        while at != ROOT {
            path.push(at);
            at = self.runs[&at].parent;
        }
        path.reverse();
        path
    }

    /// Keys and values of the tokens of a run, and scores of those that are asked about, in order.
    pub(super) fn learn(&mut self, run: Run, segment: Segment, scores: &[f32]) {
        if let Some(tokens) = self.runs.get_mut(&run) {
            let scores = tokens.asked.iter().copied().zip(scores.iter().copied()).collect();
            tokens.known = Some(Known { segment, scores });
        }
    }

    /// The scores of the tokens of a text that were asked about, all of which are known.
    pub(super) fn scores(&mut self, ids: &[u32], asked: &[usize]) -> Vec<f32> {
        self.clock += 1;
        let (mut scores, mut start) = (Vec::with_capacity(asked.len()), 0);
        for (run, common) in self.walk(ids, asked) {
            if let Some(tokens) = self.runs.get_mut(&run) {
                tokens.used = self.clock;
                let own = asked.iter().filter(|&&place| (start..start + common).contains(&place));
                let known = tokens.known.as_ref();
                scores.extend(own.filter_map(|place| known?.scores.get(&(place - start)).copied()));
            }
            start += common;
        }
        scores
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.runs.values().map(|tokens| tokens.ids.len()).sum()
    }

    /// Forgets runs that no other goes on from, least recently used first, until there are at most
    /// `most` tokens.
    pub(super) fn shrink(&mut self, most: usize) {
        let mut tokens = self.len();
        while tokens > most {
            let leaves = self.runs.iter();
            let leaves = leaves.filter(|(run, tokens)| **run != ROOT && tokens.children.is_empty());
            let Some((&run, _)) = leaves.min_by_key(|(_, tokens)| tokens.used) else { return };
            let Some(gone) = self.runs.remove(&run) else { return };
            tokens -= gone.ids.len();
            if let Some(parent) = self.runs.get_mut(&gone.parent) {
                parent.children.retain(|child| *child != run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes all runs known, with the sum of the text so far as the score of a token; returns the
    /// number of tokens in each round.
    fn compute(tree: &mut Prefixes) -> Vec<usize> {
        let mut rounds = Vec::new();
        loop {
            let ready = tree.ready();
            if ready.is_empty() {
                return rounds;
            }
            rounds.push(ready.iter().map(|run| tree.ids(*run).len()).sum());
            for run in ready {
                let before = tree.ancestors(run);
                let mut sum: u32 = before.iter().flat_map(|run| tree.ids(*run)).sum();
                let all = tree.ids(run).iter().map(|id| {
                    sum += id;
                    sum as f32
                });
                let all: Vec<f32> = all.collect();
                let scores: Vec<f32> = tree.asked(run).map(|place| all[place]).collect();
                tree.learn(run, Segment::new(), &scores);
            }
        }
    }

    fn all(ids: &[u32]) -> Vec<usize> {
        (0..ids.len()).collect()
    }

    fn sums(ids: &[u32]) -> Vec<f32> {
        ids.iter()
            .scan(0, |sum, id| {
                *sum += id;
                Some(*sum as f32)
            })
            .collect()
    }

    #[test]
    fn what_texts_begin_with_is_computed_once() {
        let prompt: Vec<u32> = (1..=20).collect();
        let text = |rest: &[u32]| [&prompt[..], rest].concat();
        let texts =
            [text(&[30, 31]), text(&[40]), text(&[30, 31]), text(&[30]), text(&[30, 31, 50])];
        let mut tree = Prefixes::default();
        for text in &texts {
            tree.insert(text, &all(text), 1000);
        }
        // The prompt, then both answers; the longer one behind the shorter.
        assert_eq!(compute(&mut tree), [20, 3, 1]);
        for text in &texts {
            assert_eq!(tree.scores(text, &all(text)), sums(text));
        }
        // A known run is shared wherever texts part.
        tree.insert(&[1, 2, 3, 99], &all(&[1, 2, 3, 99]), 1000);
        assert_eq!(compute(&mut tree), [1]);
        assert_eq!(tree.scores(&[1, 2, 3, 99], &[0, 1, 2, 3]), sums(&[1, 2, 3, 99]));
        for text in &texts {
            assert_eq!(tree.scores(text, &all(text)), sums(text));
        }
    }

    #[test]
    fn few_tokens_are_not_worth_a_pass() {
        let mut tree = Prefixes::default();
        let texts = [[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 5, 7]];
        for text in &texts {
            tree.insert(text, &all(text), 1000);
        }
        assert_eq!(compute(&mut tree), [12]);
        for text in &texts {
            assert_eq!(tree.scores(text, &all(text)), sums(text));
        }
    }

    #[test]
    fn long_runs_come_in_parts() {
        let mut tree = Prefixes::default();
        let long: Vec<u32> = (0..25).collect();
        tree.insert(&long, &all(&long), 10);
        assert_eq!(compute(&mut tree), [10, 10, 5]);
        assert_eq!(tree.scores(&long, &all(&long)), sums(&long));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut tree = Prefixes::default();
        let texts = [[1, 2, 3], [1, 2, 4], [7, 8, 9]];
        for text in &texts {
            tree.insert(text, &all(text), 10);
            compute(&mut tree);
        }
        assert_eq!(tree.len(), 7);
        tree.scores(&texts[0], &all(&texts[0]));
        tree.shrink(4);
        assert_eq!(tree.len(), 3);
        tree.insert(&texts[0], &all(&texts[0]), 10);
        assert!(compute(&mut tree).is_empty());
        tree.shrink(0);
        assert_eq!(tree.len(), 0);
        tree.insert(&texts[1], &all(&texts[1]), 10);
        assert_eq!(compute(&mut tree), [3]);
    }

    #[test]
    fn a_new_question_about_a_known_run_computes_it_again() {
        let ids = [1, 2, 3, 4];
        let mut tree = Prefixes::default();
        tree.insert(&ids, &[3], 10);
        assert_eq!(compute(&mut tree), [4]);
        assert_eq!(tree.scores(&ids, &[3]), [10.0]);
        tree.insert(&ids[..2], &[1], 10);
        // The text ends within the run.
        assert_eq!(compute(&mut tree), [4]);
        assert_eq!(tree.scores(&ids[..2], &[1]), [3.0]);
        tree.insert(&ids, &[1, 3], 10);
        assert!(compute(&mut tree).is_empty());
        assert_eq!(tree.scores(&ids, &[1, 3]), [3.0, 10.0]);
    }

    #[test]
    fn siblings_that_begin_alike_do_not_lead_astray() {
        let mut tree = Prefixes::default();
        let (one, two) = ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 8]);
        // Too little in common for a pass of its own: both stand below the root.
        tree.insert(&one, &all(&one), 10);
        tree.insert(&two, &all(&two), 10);
        assert_eq!(compute(&mut tree), [12]);
        // Known runs part anywhere: one of the two after two tokens, while the other has four of them.
        tree.insert(&[1, 2, 9], &[2], 10);
        compute(&mut tree);
        for text in [one, two] {
            assert_eq!(tree.scores(&text, &all(&text)), sums(&text));
        }
    }

    /// Over three tokens nearly everything begins like something else.
    #[test]
    fn random_texts_in_rounds() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut tree = Prefixes::default();
        for _ in 0..300 {
            let texts: Vec<Vec<u32>> = (0..=next(6))
                .map(|_| (0..=next(40)).map(|_| 1 + next(3) as u32).collect())
                .collect();
            for text in &texts {
                tree.insert(text, &[text.len() - 1], 16);
            }
            compute(&mut tree);
            for text in &texts {
                let last = text.len() - 1;
                assert_eq!(tree.scores(text, &[last]), [sums(text)[last]], "{text:?}");
            }
            tree.shrink(200);
        }
    }
}
