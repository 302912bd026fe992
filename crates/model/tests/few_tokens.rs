//! The last layer for some tokens alone gives what it gives for them among all, to the bit on the CPU,
//! and leaves the same cache.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use posttrain_model::{Decoder, KvCache};
use support::{cases, device, models, numbers};

const PARTS: [&[u32]; 3] = [&[5, 9, 17, 3, 8, 21, 4], &[7, 30], &[14, 3, 3, 9, 40, 41, 42, 43, 44]];

#[test]
fn as_among_all_tokens() {
    for case in cases() {
        let model = Decoder::load(models().join(&case), &device()).unwrap();
        let width = model.config().hidden_size;
        let parts: Vec<(usize, &[u32])> = PARTS.iter().copied().enumerate().collect();
        let mut whole = KvCache::new(&model, PARTS.len());
        let all = numbers(model.forward_cached(&parts, &mut whole).unwrap());
        for wanted in [&[0_usize, 6, 8, 17][..], &[6, 17], &[7], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let mut cache = KvCache::new(&model, PARTS.len());
            let few = numbers(model.forward_cached_at(&parts, wanted, &mut cache).unwrap());
            let expected: Vec<f32> = wanted
                .iter()
                .flat_map(|&token| all[token * width..(token + 1) * width].iter().copied())
                .collect();
            assert!(few == expected, "{case} {wanted:?}");
            // What goes on from either cache is the same.
            let next: [(usize, &[u32]); 2] = [(0, &[2, 6]), (2, &[11])];
            let mut copy = KvCache::new(&model, PARTS.len());
            model.forward_cached(&parts, &mut copy).unwrap();
            let expected = numbers(model.forward_cached(&next, &mut copy).unwrap());
            assert!(
                numbers(model.forward_cached(&next, &mut cache).unwrap()) == expected,
                "{case}"
            );
        }
    }
}

#[test]
fn tokens_that_are_not_new_or_out_of_order_are_errors() {
    let case = &cases()[0];
    let model = Decoder::load(models().join(case), &device()).unwrap();
    for wanted in [&[][..], &[2], &[1, 0], &[0, 0]] {
        let mut cache = KvCache::new(&model, 1);
        let error = model.forward_cached_at(&[(0, &[5, 6])], wanted, &mut cache).unwrap_err();
        assert!(error.to_string().contains("some below 2, in ascending order"), "{error}");
        assert!(cache.is_empty());
    }
}
