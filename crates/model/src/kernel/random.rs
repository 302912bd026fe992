//! Random bits by counting: a number of a stream is a function of the stream and the number's place.
//! Nothing is stored, a pass that is computed anew sees the same bits, and every device makes the
//! same ones.

/// A stream of 32-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) keys: [u32; 2],
}

impl Stream {
    /// The stream of a name under a seed.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name.
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let bits = finish(finish(seed).wrapping_add(name));
        Self { keys: [bits as u32, (bits >> 32) as u32] }
    }

    /// The number at a place.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "must vectorise in loops compiled for the machine")]
    pub(crate) fn at(self, place: u32) -> u32 {
        mix(mix(place ^ self.keys[0]) ^ self.keys[1])
    }
}

/// Constants of [`mix`] (Wellons 2018, the hash `lowbias32`).
pub(crate) const MIX: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// Turns a word into another in which every bit depends on all bits.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must vectorise in loops compiled for the machine")]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MIX[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(MIX[1]);
    x ^ x >> 16
}

/// The output function of `SplitMix64` (Steele et al. 2014).
fn finish(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Dropout (Srivastava et al. 2014): each number is zero with some probability, else divided by the
/// probability to stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dropout {
    pub(crate) stream: Stream,
    /// Of 2²⁴: how many of the values of 24 bits drop a number.
    pub(crate) dropped: u32,
}

impl Dropout {
    /// `None` for a probability of 0.
    pub(crate) fn new(probability: f32, stream: Stream) -> Option<Self> {
        let dropped = (f64::from(probability) * f64::from(1 << 24)).round() as u32;
        (dropped > 0).then_some(Self { stream, dropped })
    }

    /// What stays is multiplied by this.
    pub(crate) fn factor(self) -> f32 {
        let dropped = f64::from(self.dropped) / f64::from(1 << 24);
        if dropped < 1.0 { (1.0 / (1.0 - dropped)) as f32 } else { 0.0 }
    }

    /// 0 or the factor.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "must vectorise in loops compiled for the machine")]
    pub(crate) fn at(self, place: u32, factor: f32) -> f32 {
        if self.stream.at(place) >> 8 < self.dropped { 0.0 } else { factor }
    }
}

/// A uniform number in [−1, 1) from a word.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must vectorise in loops compiled for the machine")]
pub(crate) fn uniform(bits: u32) -> f32 {
    // 24 bits: exact in f32.
    (bits >> 8) as f32 * (2.0 / (1 << 24) as f32) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of `n` draws for which `what` holds.
    fn share(n: u32, what: impl Fn(u32) -> bool) -> f64 {
        f64::from((0..n).filter(|&i| what(i)).count() as u32) / f64::from(n)
    }

    #[test]
    fn streams_are_fair_and_independent() {
        let n = 1 << 20;
        // Four standard deviations of a fair coin.
        let near = |share: f64, p: f64| {
            let limit = 4.0 * (p * (1.0 - p) / f64::from(n)).sqrt();
            assert!((share - p).abs() < limit, "{share} is not {p}");
        };
        let streams = [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (u64::MAX, "a")];
        let streams = streams.map(|(seed, name)| Stream::new(seed, name));
        for (i, &one) in streams.iter().enumerate() {
            for bit in [0, 7, 8, 31] {
                near(share(n, |place| one.at(place) >> bit & 1 == 1), 0.5);
                // Neighbours, and places a power of two apart.
                for step in [1, 2, 512, 65_536] {
                    let same = |place: u32| (one.at(place) ^ one.at(place + step)) >> bit & 1 == 0;
                    near(share(n, same), 0.5);
                }
                for &other in &streams[..i] {
                    near(share(n, |place| (one.at(place) ^ other.at(place)) >> bit & 1 == 0), 0.5);
                }
            }
            for p in [0.05_f32, 0.1, 0.5] {
                let dropout = Dropout::new(p, one).unwrap();
                near(share(n, |place| dropout.at(place, 1.0) == 0.0), f64::from(p));
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_definition() {
        // By hand, with the two rounds of the hash spelt out in another language.
        let stream = Stream { keys: [0, 0] };
        assert_eq!(stream.at(0), 0);
        assert_eq!((uniform(0), uniform(1 << 31)), (-1.0, 0.0));
        assert_eq!(uniform(u32::MAX), 1.0 - 2.0_f32.powi(-23));
        assert_eq!(Dropout::new(0.0, stream), None);
        let quarter = Dropout::new(0.25, stream).unwrap();
        assert_eq!((quarter.dropped, quarter.factor()), (1 << 22, 4.0 / 3.0));
        assert_eq!(Dropout::new(1.0, stream).unwrap().factor(), 0.0);
    }
}
