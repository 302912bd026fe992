//! Numbers that survive JSON bit for bit, for states from which a run goes on.
//!
//! `serde_json` reads decimal fractions quickly rather than exactly: the last bit may differ. The standard
//! library's shortest decimal form, kept as text, comes back as it was.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An `f64` that is written as text.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub(super) struct Exact(pub(super) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]`: an `f64` as text.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Exact(*value).serialize(serializer)
}

/// For `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Exact::deserialize(deserializer).map(|Exact(value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_comes_back() {
        let awkward =
            [0.1, 1.0 / 3.0, -0.0, 5e-324, f64::MAX, f64::INFINITY, 2.225_073_858_507_201e-308];
        // Bit patterns all over the range.
        let spread =
            (0..2_000u64).map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2));
        for value in awkward.into_iter().chain(spread) {
            let text = serde_json::to_string(&Exact(value)).unwrap();
            let read: Exact = serde_json::from_str(&text).unwrap();
            assert_eq!(read.0.to_bits(), value.to_bits(), "{text}");
        }
        assert!(serde_json::from_str::<Exact>("\"one\"").is_err());
    }
}
