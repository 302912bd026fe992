//! In which order rows are seen.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// The order of an epoch, with the names of transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingStrategy {
    /// Another random order in each epoch.
    #[default]
    Random,
    /// As the rows come.
    Sequential,
    /// Random, with rows of like length beside each other, so that there is little padding:
    /// groups of up to 50 windows of a random order, each sorted by length, the longest row first
    /// of all, so that a lack of memory shows at once.
    GroupByLength,
}

/// What a random order is for: orders for different purposes or epochs have nothing in common.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// The order of an epoch.
    Epoch(u64),
    /// The order before packing.
    Packing,
}

/// A random permutation of `0..count`, by Fisher and Yates. It depends on the arguments alone, so
/// that the order of any epoch is known without those before it.
pub(super) fn shuffled(count: usize, seed: u64, purpose: Purpose) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(match purpose {
        Purpose::Packing => 0,
        Purpose::Epoch(epoch) => epoch + 1,
    });
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        order.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    order
}

/// A random number below `bound`, each with the same probability (Lemire 2019, arXiv:1805.10941).
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let wide = u128::from(random.next_u64()) * u128::from(bound);
        if wide as u64 >= threshold {
            return (wide >> 64) as u64;
        }
    }
}

/// The order of [`SamplingStrategy::GroupByLength`] from a random one, as `get_length_grouped_indices`
/// of transformers makes it; `window` is the number of rows of a step.
pub(super) fn grouped(
    mut order: Vec<u32>,
    window: usize,
    length: impl Fn(u32) -> usize,
) -> Vec<u32> {
    let multiple = (order.len() / (window * 4)).clamp(1, 50);
    let group = multiple * window;
    for group in order.chunks_mut(group) {
        group.sort_by_key(|&index| std::cmp::Reverse(length(index)));
    }
    // The first of the longest.
    let longest = (0..order.len()).step_by(group).rev().max_by_key(|&at| length(order[at]));
    if let Some(longest) = longest {
        order.swap(0, longest);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_its_arguments_fix() {
        let order = shuffled(1000, 42, Purpose::Epoch(3));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(order, shuffled(1000, 42, Purpose::Epoch(3)));
        for (seed, purpose) in
            [(42, Purpose::Epoch(2)), (43, Purpose::Epoch(3)), (42, Purpose::Packing)]
        {
            let other = shuffled(1000, seed, purpose);
            let same = order.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} places agree");
        }
        assert_eq!(shuffled(0, 1, Purpose::Packing), [0; 0]);
    }

    #[test]
    fn every_permutation_of_three_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(shuffled(3, seed, Purpose::Epoch(0))).or_insert(0_i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        // 1000 each, standard deviation 29.
        assert!(counts.values().all(|count| (count - 1000).abs() < 130), "{counts:?}");
    }

    #[test]
    fn groups_are_sorted_and_the_longest_row_comes_first() {
        // By hand: 9 rows, windows of 1: groups of 9 / 4 = 2 windows.
        let lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5];
        let order = grouped((0..9).collect(), 1, |index| lengths[index as usize]);
        // Sorted: [0 1] [2 3] [5 4] [7 6] [8]; then 5 and 0 change places.
        assert_eq!(order, [5, 1, 2, 3, 0, 4, 7, 6, 8]);
    }
}
