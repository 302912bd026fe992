//! The element of a rank by its size `|d|`, found between two sizes that a sample gives.
//!
//! One pass instead of two, and without a table that every element is counted in: what lies below the
//! bracket is only counted, what lies in it is kept, and selected from.

use pulp::Arch;
use rayon::prelude::*;

use super::select::Question;
use crate::group::{Block, Group};

/// Tensors of fewer blocks are not worth a sample.
const LEAST_BLOCKS: usize = 64;
/// The bracket: so much of all elements on either side of the rank.
const MARGIN: f64 = 0.006;
/// The most that is kept, in sizes: beyond it, as with many equal sizes, tables need less memory.
const MOST: usize = 1 << 20;
/// Elements of a sample: their ranks are those of the whole to a fifth of a percent.
const SAMPLE: usize = 1 << 16;
/// Elements that are gone over several times while they are in the first cache.
const PIECE: usize = 2048;
/// Elements that are compared at a time.
const LANES: usize = 8;
/// The bits of infinity; what is no number lies above.
const INFINITE: u32 = 0x7f80_0000;

/// What makes a size heavy: a share of the sample. Deltas of bf16 checkpoints have a few such sizes.
const HEAVY: f64 = 0.002;
/// The most heavy sizes in a bracket.
const MOST_HEAVY: usize = 4;

/// The size at a rank, and how many elements are smaller and equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranked {
    pub(super) size: u32,
    pub(super) smaller: u64,
    pub(super) equal: u64,
    /// How many of the equal ones are in each block, where that is known.
    pub(super) of_blocks: Option<Vec<u32>>,
}

/// The sizes at the ranks of the questions; `None` where a bracket would hold too much, missed its rank, or a
/// delta is no finite number.
pub(super) fn ranked(
    group: &Group<'_>,
    values: &(impl Fn(&mut Block) + Sync),
    questions: &[Question],
) -> Option<Vec<Ranked>> {
    if group.blocks() < LEAST_BLOCKS {
        return None;
    }
    let brackets = brackets(group, values, questions)?;
    let parts = group.map(|block| {
        values(block);
        let of = |(question, bracket): (&Question, &Bracket)| {
            bracket.within(&block.inputs[question.input])
        };
        questions.iter().zip(&brackets).map(of).collect::<Vec<_>>()
    });
    let of = |index: usize| {
        let parts = parts.iter().map(|part| &part[index]);
        brackets[index].ranked(&parts.collect::<Vec<_>>(), questions[index].rank)
    };
    (0..questions.len()).into_par_iter().map(of).collect()
}

/// The least and the largest size that are looked at, and the heavy ones among them.
#[derive(Clone, Debug)]
struct Bracket {
    low: u32,
    high: u32,
    heavy: Vec<u32>,
}

/// Of one block: how many lie below the bracket, how many are infinite or no number, how many there are of each
/// heavy size, and the other sizes in the bracket.
struct Within {
    below: u32,
    infinite: u32,
    heavy: [u32; MOST_HEAVY],
    light: Vec<u32>,
}

impl Bracket {
    fn within(&self, d: &[f32]) -> Within {
        let (low, width) = (self.low, self.high.saturating_sub(self.low));
        Arch::new().dispatch(|| {
            let mut found = Within { below: 0, infinite: 0, heavy: [0; _], light: Vec::new() };
            for d in d.chunks(PIECE) {
                let mut inside = 0;
                for d in d {
                    let size = d.abs().to_bits();
                    found.below += u32::from(size < low);
                    found.infinite += u32::from(size >= INFINITE);
                    inside += u32::from(size.wrapping_sub(low) <= width);
                }
                for (heavy, count) in self.heavy.iter().zip(&mut found.heavy) {
                    let mut here = 0;
                    for d in d {
                        here += u32::from(d.abs().to_bits() == *heavy);
                    }
                    inside -= here;
                    *count += here;
                }
                if inside > 0 {
                    self.collect(d, &mut found.light);
                }
            }
            found
        })
    }

    /// The sizes in the bracket that are not heavy. Most stretches have none.
    #[inline]
    fn collect(&self, d: &[f32], light: &mut Vec<u32>) {
        let (low, width) = (self.low, self.high.saturating_sub(self.low));
        for d in d.chunks(LANES) {
            let mut any = 0;
            for d in d {
                any |= u32::from(d.abs().to_bits().wrapping_sub(low) <= width);
            }
            if any != 0 {
                let sizes = d.iter().map(|d| d.abs().to_bits());
                light.extend(
                    sizes.filter(|size| {
                        size.wrapping_sub(low) <= width && !self.heavy.contains(size)
                    }),
                );
            }
        }
    }

    /// The element at a rank, of what was found in all blocks.
    fn ranked(&self, parts: &[&Within], rank: u64) -> Option<Ranked> {
        if parts.iter().any(|part| part.infinite > 0) {
            return None;
        }
        let below: u64 = parts.iter().map(|part| u64::from(part.below)).sum();
        // Sizes with their numbers, in ascending order.
        let mut light: Vec<u32> = parts.iter().flat_map(|part| &part.light).copied().collect();
        light.sort_unstable();
        let mut counts: Vec<(u32, u64)> =
            light.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u64)).collect();
        for (index, size) in self.heavy.iter().enumerate() {
            counts.push((*size, parts.iter().map(|part| u64::from(part.heavy[index])).sum()));
        }
        counts.sort_unstable();
        let mut smaller = below;
        if rank < smaller {
            return None;
        }
        for (size, equal) in counts {
            if rank < smaller + equal {
                let heavy = self.heavy.iter().position(|heavy| *heavy == size);
                let of = |part: &&Within| match heavy {
                    Some(index) => part.heavy[index],
                    None => part.light.iter().filter(|light| **light == size).count() as u32,
                };
                let of_blocks = Some(parts.iter().map(of).collect());
                return Some(Ranked { size, smaller, equal, of_blocks });
            }
            smaller += equal;
        }
        None
    }
}

/// Brackets from a sample of whole blocks, spread evenly.
fn brackets(
    group: &Group<'_>,
    values: &(impl Fn(&mut Block) + Sync),
    questions: &[Question],
) -> Option<Vec<Bracket>> {
    let blocks = group.blocks();
    let count = (blocks / 32).clamp(16, 64);
    let stride = (count * group.block / SAMPLE).max(1);
    let sample: Vec<Vec<Vec<u32>>> = (0..count)
        .into_par_iter()
        .map_init(
            || group.buffers(),
            |block, index| {
                // The last block may be short.
                group.read(index * (blocks - 1) / count, block);
                values(block);
                let sizes = |question: &Question| {
                    let d = block.inputs[question.input].iter().step_by(stride);
                    d.map(|d| d.abs().to_bits()).collect()
                };
                questions.iter().map(sizes).collect()
            },
        )
        .collect();
    let one = |index: usize| {
        let mut sizes: Vec<u32> = sample.iter().flat_map(|of| &of[index]).copied().collect();
        let share = questions[index].rank as f64 / group.numel() as f64;
        bracket(&mut sizes, share, group.numel())
    };
    (0..questions.len()).into_par_iter().map(one).collect()
}

/// The bracket around the size that this share of a sample lies below; `None` where too much lies in it.
fn bracket(sizes: &mut [u32], share: f64, numel: usize) -> Option<Bracket> {
    let all = sizes.len();
    let mut at = |share: f64, otherwise: u32| {
        let place = (share * all as f64) as usize;
        if share <= 0.0 || place >= all {
            return otherwise;
        }
        *sizes.select_nth_unstable(place).1
    };
    let (low, high) = (at(share - MARGIN, 0), at(share + MARGIN, INFINITE - 1));
    let mut inside: Vec<u32> =
        sizes.iter().copied().filter(|size| (low..=high).contains(size)).collect();
    inside.sort_unstable();
    let mut heavy: Vec<(usize, u32)> = inside
        .chunk_by(|a, b| a == b)
        .map(|same| (same.len(), same[0]))
        .filter(|(count, _)| *count as f64 > HEAVY * all as f64)
        .collect();
    heavy.sort_unstable();
    heavy.reverse();
    heavy.truncate(MOST_HEAVY);
    let light = inside.len() - heavy.iter().map(|(count, _)| count).sum::<usize>();
    let kept = light as f64 / all as f64 * numel as f64;
    let few = kept <= MOST as f64 && light * 16 <= all;
    few.then(|| Bracket { low, high, heavy: heavy.into_iter().map(|(_, size)| size).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes as fine-tuned bf16 checkpoints have them: few values, some of them heavy.
    #[test]
    fn heavy_sizes_are_counted_and_the_others_kept() {
        let value = |i: usize| [0.5f32, 0.5, 0.25, 0.75, 0.5, -0.5, 1.0, 0.5][i % 8];
        let d: Vec<f32> = (0..1000).map(|i| if i % 100 == 7 { 0.6 } else { value(i) }).collect();
        let bits = |x: f32| x.to_bits();
        let bracket = Bracket { low: bits(0.5), high: bits(0.7), heavy: vec![bits(0.5)] };
        let found = bracket.within(&d);
        let count = |test: &dyn Fn(f32) -> bool| d.iter().filter(|d| test(d.abs())).count() as u32;
        assert_eq!(found.below, count(&|d| d < 0.5));
        assert_eq!(found.heavy[0], count(&|d| d == 0.5));
        assert_eq!(found.light, vec![bits(0.6); count(&|d| d == 0.6) as usize]);
        let mut sorted: Vec<u32> = d.iter().map(|d| bits(d.abs())).collect();
        sorted.sort_unstable();
        for rank in [found.below as usize, 400, 500, 620, 640, 750] {
            let wanted = sorted[rank];
            match bracket.ranked(&[&found], rank as u64) {
                Some(ranked) => {
                    assert_eq!(ranked.size, wanted);
                    assert_eq!(ranked.smaller, sorted.partition_point(|s| *s < wanted) as u64);
                    let equal = sorted.iter().filter(|s| **s == wanted).count();
                    assert_eq!(ranked.equal, equal as u64);
                    assert_eq!(ranked.of_blocks, Some(vec![equal as u32]));
                }
                None => assert!(wanted > bits(0.7)),
            }
        }
    }
}
