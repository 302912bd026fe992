//! Philox4x32-10, a random number for every place: the same for any number of threads and any order.
//!
//! Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).

use pulp::Arch;

/// Groups of four that are computed side by side.
const SIDE: usize = 8;
const ROUNDS: usize = 10;
const M: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random words for a counter under a key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [a, b] =
            [u64::from(M[0]) * u64::from(counter[0]), u64::from(M[1]) * u64::from(counter[2])];
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(W[0]), key[1].wrapping_add(W[1])];
    }
    counter
}

/// A stream of uniform numbers for one tensor of one input.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    input: u32,
}

impl Stream {
    /// The stream of the `input`-th input of a tensor.
    pub fn new(seed: u64, tensor: &str, input: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(tensor.as_bytes());
        let key = hasher.finalize();
        let word = |at: usize| {
            u32::from_le_bytes(key.as_bytes()[at..at + 4].try_into().expect("four bytes"))
        };
        Self { key: [word(0), word(4)], input: input as u32 }
    }

    /// Numbers in `[0, 1)` for the elements from `start` on.
    pub fn fill(&self, start: usize, out: &mut [f32]) {
        // Up to the first whole group of four, whole groups side by side, and what is left.
        let head = out.len().min(start.next_multiple_of(4) - start);
        let (head, rest) = out.split_at_mut(head);
        self.some(start, head);
        let first = start + head.len();
        let (wide, tail) = rest.as_chunks_mut::<{ 4 * SIDE }>();
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (index, out) in wide.iter_mut().enumerate() {
                    self.side_by_side(first + index * 4 * SIDE, out);
                }
            },
        );
        self.some(first + wide.len() * 4 * SIDE, tail);
    }

    /// The numbers of at most a few elements.
    fn some(&self, start: usize, out: &mut [f32]) {
        for (element, place) in (start..).zip(out) {
            let group = (element / 4) as u64;
            let counter = [group as u32, (group >> 32) as u32, self.input, 0];
            *place = unit(philox(counter, self.key)[element % 4]);
        }
    }

    /// As [`philox`] for groups that follow each other, `start` being the first element of the first.
    #[expect(clippy::inline_always, reason = "as wide as its caller's vectors")]
    #[inline(always)]
    fn side_by_side(&self, start: usize, out: &mut [f32; 4 * SIDE]) {
        let (mut a, mut b) = ([0u32; SIDE], [0u32; SIDE]);
        let (mut c, mut d) = ([self.input; SIDE], [0u32; SIDE]);
        for lane in 0..SIDE {
            let group = (start / 4 + lane) as u64;
            (a[lane], b[lane]) = (group as u32, (group >> 32) as u32);
        }
        let mut key = self.key;
        for _ in 0..ROUNDS {
            for lane in 0..SIDE {
                let left = u64::from(M[0]) * u64::from(a[lane]);
                let right = u64::from(M[1]) * u64::from(c[lane]);
                a[lane] = (right >> 32) as u32 ^ b[lane] ^ key[0];
                b[lane] = right as u32;
                c[lane] = (left >> 32) as u32 ^ d[lane] ^ key[1];
                d[lane] = left as u32;
            }
            key = [key[0].wrapping_add(W[0]), key[1].wrapping_add(W[1])];
        }
        for (lane, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *out = [unit(a[lane]), unit(b[lane]), unit(c[lane]), unit(d[lane])];
        }
    }
}

/// 24 bits are what an f32 holds exactly.
#[inline]
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library, Random123.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in cases {
            assert_eq!(philox(counter, key), words);
        }
    }

    #[test]
    fn a_place_has_its_number_however_it_is_reached() {
        let stream = Stream::new(7, "model.norm.weight", 1);
        let mut whole = [0.0; 137];
        for (element, place) in whole.iter_mut().enumerate() {
            let words = philox([element as u32 / 4, 0, 1, 0], stream.key);
            *place = unit(words[element % 4]);
        }
        for start in 0..137 {
            for end in start..137 {
                let mut part = vec![0.0; end - start];
                stream.fill(start, &mut part);
                assert_eq!(part, whole[start..end]);
            }
        }
        let mut other = [0.0; 137];
        for stream in [
            Stream::new(8, "model.norm.weight", 1),
            Stream::new(7, "model.norm.bias", 1),
            Stream::new(7, "model.norm.weight", 2),
        ] {
            stream.fill(0, &mut other);
            assert_ne!(whole, other);
        }
    }

    #[test]
    fn uniform() {
        let mut numbers = vec![0.0; 100_000];
        Stream::new(1, "x", 0).fill(0, &mut numbers);
        let mut counts = [0i32; 20];
        for number in &numbers {
            counts[(number * 20.0) as usize] += 1;
        }
        // Chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % point.
        let chi: f64 = counts.iter().map(|c| f64::from(c - 5000).powi(2) / 5000.0).sum();
        assert!(chi < 43.8, "{chi}");
    }
}
