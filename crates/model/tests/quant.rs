//! Quantised weights against bitsandbytes 0.50: codes, scales and values, bit for bit.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use burn::tensor::{DType, Device};
use posttrain_model::quant::{Quantization, QuantizationKind, Quantized};
use safetensors::{Dtype, SafeTensors};

/// Numbers of a fixture in f32, which is exact.
fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let pairs = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap()));
    match view.dtype() {
        Dtype::F32 => {
            let words = view.data().chunks_exact(4);
            words.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Dtype::BF16 => pairs().map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
        Dtype::F16 => pairs().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn bytes(file: &SafeTensors<'_>, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).data().to_vec()
}

/// Bit for bit, but for the sign of a zero: the one of FP4 is negative in bitsandbytes only where a
/// row does not fill its vectors.
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let zeros = *a == 0.0 && *b == 0.0;
        assert!(zeros || a.to_bits() == b.to_bits(), "{what}: number {i} is {a:e}, not {b:e}");
    }
}

fn assert_codes(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a, b, "{what}: byte {i}");
    }
}

const KINDS: [(&str, QuantizationKind); 5] = [
    ("nf4", QuantizationKind::Nf4 { double: false }),
    ("nf4.double", QuantizationKind::Nf4 { double: true }),
    ("fp4", QuantizationKind::Fp4 { double: false }),
    ("fp4.double", QuantizationKind::Fp4 { double: true }),
    ("int8", QuantizationKind::Int8),
];

#[test]
fn codes_scales_and_values_are_those_of_bitsandbytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quant");
    let mut cases = 0;
    for name in ["even", "odd", "across", "many"] {
        let file = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        for (suffix, dtype) in
            [("float32", DType::F32), ("bfloat16", DType::BF16), ("float16", DType::F16)]
        {
            let case = format!("{name}.{suffix}");
            let Ok(weight) = file.tensor(&format!("{case}.weight")) else { continue };
            let shape = [weight.shape()[0], weight.shape()[1]];
            let numbers = floats(&file, &format!("{case}.weight"));
            for (kind_name, kind) in KINDS {
                let key = format!("{case}.{kind_name}");
                let found =
                    Quantized::new(&key, &numbers, shape, kind, dtype, &Device::flex()).unwrap();
                assert_codes(&found.codes(), &bytes(&file, &format!("{key}.codes")), &key);
                let scales = floats(&file, &format!("{key}.scales"));
                assert_same(&found.scales(), &scales, &format!("{key}.scales"));
                if let Some((nested, offset)) = found.nested_scales() {
                    assert_same(&[offset], &floats(&file, &format!("{key}.offset")), &key);
                    assert_codes(&nested, &bytes(&file, &format!("{key}.nested")), &key);
                }
                let value = found.dequantize().into_data().try_into_vec::<f32>().unwrap();
                let expected = floats(&file, &format!("{key}.value"));
                assert_same(&value, &expected, &format!("{key}.value"));
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 55);
}

/// The number of bits that a weight takes.
#[test]
fn storage_is_four_bits_a_weight() {
    let numbers: Vec<f32> = (0..256 * 1024).map(|i| ((i * 7919) % 997) as f32 / 1000.0).collect();
    for (kind, bits) in [
        (QuantizationKind::Nf4 { double: false }, 4.5),
        (QuantizationKind::Nf4 { double: true }, 4.0 + 8.0 / 64.0 + 32.0 / (64.0 * 256.0)),
        (QuantizationKind::Int8, 8.0 + 32.0 / 1024.0),
    ] {
        let found = Quantized::new("w", &numbers, [256, 1024], kind, DType::F32, &Device::flex());
        let found = 8.0 * found.unwrap().bytes() as f64 / numbers.len() as f64;
        assert!((found - bits).abs() < 1e-9, "{kind:?}: {found} bits");
    }
    let quantization = Quantization::new(QuantizationKind::Int8);
    assert!(quantization.llm_int8_skip_modules.is_empty());
}
