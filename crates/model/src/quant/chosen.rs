//! Which matrices are quantised, and how many bytes they take then.

use std::collections::BTreeSet;

use super::config::{Quantization, QuantizationKind};
use super::{BLOCK, NESTED_BLOCK};
use crate::checkpoint::Expected;
use crate::error::Error;

impl Quantization {
    /// The names of the matrices that are quantised: those of the layers, as bitsandbytes chooses
    /// them. `tensors` are those of [`Config::tensors`](crate::config::Config::tensors).
    ///
    /// # Errors
    /// [`Error::ConfigField`] for a name in `llm_int8_skip_modules` that names no matrix.
    pub fn matrices<'a>(&self, tensors: &'a [Expected]) -> Result<BTreeSet<&'a str>, Error> {
        let skipped = &self.llm_int8_skip_modules;
        let mut used = vec![false; skipped.len()];
        let mut names = BTreeSet::new();
        for Expected { name, shape } in tensors {
            let Some(path) = name.strip_suffix(".weight").filter(|_| shape.len() == 2) else {
                continue;
            };
            let covered = self.covers(path, &mut used);
            if covered && path.starts_with("model.layers.") {
                names.insert(name.as_str());
            }
        }
        if let Some((name, _)) = skipped.iter().zip(used).find(|(_, used)| !used) {
            return Err(Error::ConfigField {
                path: "quantization".into(),
                field: "llm_int8_skip_modules".into(),
                found: format!("`{name}`, which names no matrix"),
                expected: "names such as `down_proj` or `layers.0`".into(),
            });
        }
        Ok(names)
    }
}

impl QuantizationKind {
    /// Bytes of a matrix `[out, in]`: its codes and its scales, each list in whole words of 32 bits.
    pub fn bytes(self, [out, inner]: [usize; 2]) -> usize {
        let words = |bytes: usize| 4 * bytes.div_ceil(4);
        let count = out * inner;
        let Some((_, double)) = self.four_bit() else { return words(count) + 4 * out };
        let codes = words(count.div_ceil(2));
        let blocks = count.div_ceil(BLOCK);
        if double {
            return codes + words(blocks) + 4 * blocks.div_ceil(NESTED_BLOCK);
        }
        codes + 4 * blocks
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::quant::Quantized;

    #[test]
    fn bytes_are_those_of_the_tensors() {
        let device = crate::device::choose(None).unwrap();
        let (nf4, double) = (false, true);
        for shape in [[3, 5], [128, 100], [1, 1], [7, 333], [300, 64]] {
            for kind in [
                QuantizationKind::Nf4 { double: nf4 },
                QuantizationKind::Fp4 { double },
                QuantizationKind::Int8,
            ] {
                let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|i| i as f32).collect();
                let held = Quantized::new("w", &numbers, shape, kind, DType::F32, &device).unwrap();
                assert_eq!(kind.bytes(shape), held.bytes(), "{kind:?} {shape:?}");
            }
        }
        // By hand: 12,800 numbers are 6,400 bytes of codes and 200 blocks.
        let of = |kind: QuantizationKind| kind.bytes([128, 100]);
        assert_eq!(of(QuantizationKind::Nf4 { double: false }), 6400 + 800);
        assert_eq!(of(QuantizationKind::Nf4 { double: true }), 6400 + 200 + 4);
        assert_eq!(of(QuantizationKind::Int8), 12_800 + 512);
    }
}
