//! The first elements in the order of their sizes `|d|`, without sorting: between two sizes that a sample
//! gives, or by counts of the upper bits of all sizes and then of the lower bits where the edge lies. Exact, and
//! of equal sizes the first places come first.

use pulp::Arch;
use safetensors::Dtype;

use super::bracket::{self, Ranked};
use super::task_vectors::subtract_base;
use crate::Error;
use crate::group::{Block, Group};

/// Counts of the upper bits: exponent and 7 bits of the mantissa.
const UPPER: usize = 1 << 15;
/// Counts of the lower bits.
const LOWER: usize = 1 << 16;
/// The upper bits of infinity, and beyond them what is no number.
const INFINITE: usize = 0x7f80;
/// Elements that are compared at a time.
const LANES: usize = 16;

/// How many elements of an order come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// So many of the smallest.
    Smallest(usize),
    /// So many of the largest.
    Largest(usize),
}

/// What divides the elements in two by their sizes: those in front of `place` by `before`, the others by
/// `after`. Sizes are compared as bits, which have the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The place that divides equal sizes.
    pub place: usize,
    /// The bits of the least size above the edge, for elements in front of the place.
    pub before: u32,
    /// The same for elements from the place on.
    pub after: u32,
}

impl Edge {
    /// Everything is above.
    pub const BOTTOM: Self = Self { place: 0, before: 0, after: 0 };
    /// Everything is below.
    pub const TOP: Self = Self { place: 0, before: u32::MAX, after: u32::MAX };

    /// Sets to zero what does not lie from `self` up to `to`, in deltas from the place `start` on.
    pub fn keep(self, to: Self, start: usize, d: &mut [f32]) {
        let split = |edge: Self| edge.place.saturating_sub(start).min(d.len());
        let (low, high) = (split(self).min(split(to)), split(self).max(split(to)));
        for (from, end) in [(0, low), (low, high), (high, d.len())] {
            let bits =
                |edge: Self| if start + from < edge.place { edge.before } else { edge.after };
            crate::ops::keep_sizes(&mut d[from..end], bits(self), bits(to));
        }
    }
}

/// For each question, an input and how many of its deltas come first, the edge: of the `Smallest` the first
/// are below it, of the `Largest` above.
///
/// # Errors
/// [`Error::Tensor`] if a delta is infinite or no number.
pub fn edges(group: &Group<'_>, questions: &[(usize, First)]) -> Result<Vec<Edge>, Error> {
    edges_of(group, |block| subtract_base(group, block), questions)
}

/// As [`edges`], for other values than the deltas: those that `values` puts in place of the inputs.
pub(super) fn edges_of(
    group: &Group<'_>,
    values: impl Fn(&mut Block) + Sync,
    questions: &[(usize, First)],
) -> Result<Vec<Edge>, Error> {
    let n = group.numel();
    let trivial = |first: First| match first {
        First::Smallest(0) => Some(Edge::BOTTOM),
        First::Largest(0) => Some(Edge::TOP),
        First::Largest(count) if count >= n => Some(Edge::BOTTOM),
        First::Smallest(count) if count >= n => Some(Edge::TOP),
        _ => None,
    };
    let open: Vec<(usize, First)> =
        questions.iter().copied().filter(|(_, first)| trivial(*first).is_none()).collect();
    let mut found = search(group, &values, &open)?.into_iter();
    let answers =
        questions.iter().filter_map(|(_, first)| trivial(*first).or_else(|| found.next()));
    Ok(answers.collect())
}

fn search(
    group: &Group<'_>,
    values: &(impl Fn(&mut Block) + Sync),
    questions: &[(usize, First)],
) -> Result<Vec<Edge>, Error> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let n = group.numel() as u64;
    let asked: Vec<Question> = questions
        .iter()
        .map(|(input, first)| Question {
            input: *input,
            rank: match first {
                First::Smallest(count) => *count as u64 - 1,
                First::Largest(count) => n - *count as u64,
            },
        })
        .collect();
    let ranked = match bracket::ranked(group, values, &asked) {
        Some(ranked) => ranked,
        None => counted(group, values, &asked)?,
    };
    let mut edges = Vec::with_capacity(questions.len());
    let mut ties = Vec::new();
    for (question, ((input, first), ranked)) in questions.iter().zip(&ranked).enumerate() {
        let Ranked { size, smaller, equal, of_blocks } = ranked;
        let (size, smaller, equal) = (*size, *smaller, *equal);
        let (wanted, before, after) = match first {
            First::Smallest(count) => (*count as u64 - smaller, size + 1, size),
            First::Largest(count) => (*count as u64 + smaller + equal - n, size, size + 1),
        };
        edges.push(Edge { place: group.numel(), before, after });
        // Which zeros are kept is all the same.
        if wanted < equal && size > 0 {
            ties.push(Tie { question, input: *input, size, wanted, of_blocks: of_blocks.clone() });
        }
    }
    for (tie, place) in ties.iter().zip(places(group, values, &ties)) {
        edges[tie.question].place = place;
    }
    Ok(edges)
}

/// The element of an input that has this many before it in the ascending order of sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) input: usize,
    pub(super) rank: u64,
}

/// The sizes at the ranks, by counting the upper bits of all sizes and then the lower bits of those that share
/// the upper bits of the one that is looked for.
fn counted(
    group: &Group<'_>,
    values: &(impl Fn(&mut Block) + Sync),
    questions: &[Question],
) -> Result<Vec<Ranked>, Error> {
    let mut inputs: Vec<usize> = questions.iter().map(|question| question.input).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let counts = group.count(inputs.len() * UPPER, |block, counts| {
        values(block);
        for (input, counts) in inputs.iter().zip(counts.as_chunks_mut().0) {
            count_upper(&block.inputs[*input], counts);
        }
    });
    let tables = counts.as_chunks::<UPPER>().0;
    for (input, counts) in inputs.iter().zip(tables) {
        let infinite: u64 = counts[INFINITE..].iter().sum();
        if infinite > 0 {
            let reason = format!(
                "{infinite} deltas of input {input} are infinite or no number, expected finite ones"
            );
            return Err(Error::tensor(group.name, reason));
        }
    }
    let upper: Vec<Found> = questions
        .iter()
        .map(|question| {
            let table = inputs.iter().position(|known| *known == question.input);
            find(&tables[table.unwrap_or_default()], question.rank)
        })
        .collect();
    // Of bf16 there are no lower bits.
    if group.arithmetic == Dtype::BF16 {
        let of = |upper: &Found| Ranked {
            size: upper.bucket << 16,
            smaller: upper.below,
            equal: upper.count,
            of_blocks: None,
        };
        return Ok(upper.iter().map(of).collect());
    }
    let counts = group.count(questions.len() * LOWER, |block, counts| {
        values(block);
        let tables = counts.as_chunks_mut().0;
        for ((question, upper), counts) in questions.iter().zip(&upper).zip(tables) {
            count_lower(&block.inputs[question.input], upper.bucket, counts);
        }
    });
    let of = |((question, upper), counts): ((&Question, &Found), &[u64])| {
        let lower = find(counts, question.rank - upper.below);
        Ranked {
            size: upper.bucket << 16 | lower.bucket,
            smaller: upper.below + lower.below,
            equal: lower.count,
            of_blocks: None,
        }
    };
    Ok(questions.iter().zip(&upper).zip(counts.chunks(LOWER)).map(of).collect())
}

/// Equal sizes at an edge, of which the first `wanted` are on the one side.
struct Tie {
    question: usize,
    input: usize,
    size: u32,
    wanted: u64,
    of_blocks: Option<Vec<u32>>,
}

/// The place behind the last wanted one of the equal sizes.
fn places(group: &Group<'_>, values: &(impl Fn(&mut Block) + Sync), ties: &[Tie]) -> Vec<usize> {
    if ties.is_empty() {
        return Vec::new();
    }
    let known = ties.iter().all(|tie| tie.of_blocks.is_some());
    let counts = if known {
        Vec::new()
    } else {
        group.map(|block| {
            values(block);
            let count = |tie: &Tie| count_equal(&block.inputs[tie.input], tie.size);
            ties.iter().map(count).collect::<Vec<_>>()
        })
    };
    let mut block = group.buffers();
    let place = |(index, tie): (usize, &Tie)| {
        let mut wanted = tie.wanted;
        let here = |block: usize| match &tie.of_blocks {
            Some(counts) => u64::from(counts[block]),
            None => u64::from(counts[block][index]),
        };
        let last = (0..group.blocks()).position(|block| {
            let here = here(block);
            let reached = here >= wanted;
            wanted -= if reached { 0 } else { here };
            reached
        });
        group.read(last.unwrap_or_default(), &mut block);
        values(&mut block);
        let sizes = block.inputs[tie.input].iter().map(|d| d.abs().to_bits());
        let mut equal = sizes.enumerate().filter(|(_, size)| *size == tie.size);
        equal.nth(wanted as usize - 1).map_or(group.numel(), |(at, _)| block.start + at + 1)
    };
    ties.iter().enumerate().map(place).collect()
}

/// A bucket of a table of counts.
struct Found {
    bucket: u32,
    /// What is in the buckets below it.
    below: u64,
    /// What is in it.
    count: u64,
}

/// The bucket that holds the element of this rank.
fn find(counts: &[u64], rank: u64) -> Found {
    let mut below = 0;
    for (bucket, count) in counts.iter().enumerate() {
        if below + count > rank {
            return Found { bucket: bucket as u32, below, count: *count };
        }
        below += count;
    }
    unreachable!("rank {rank} of {below} elements")
}

fn count_upper(d: &[f32], counts: &mut [u64; UPPER]) {
    for d in d {
        counts[(d.abs().to_bits() >> 16) as usize % UPPER] += 1;
    }
}

/// Few elements have these upper bits: most stretches are passed over.
fn count_lower(d: &[f32], upper: u32, counts: &mut [u64; LOWER]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for d in d.chunks(LANES) {
                let mut any = 0;
                for d in d {
                    any |= u32::from(d.abs().to_bits() >> 16 == upper);
                }
                if any == 0 {
                    continue;
                }
                for d in d {
                    let bits = d.abs().to_bits();
                    if bits >> 16 == upper {
                        counts[bits as usize % LOWER] += 1;
                    }
                }
            }
        },
    );
}

fn count_equal(d: &[f32], size: u32) -> u32 {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut count = 0;
            for d in d {
                count += u32::from(d.abs().to_bits() == size);
            }
            count
        },
    )
}
