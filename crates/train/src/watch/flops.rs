//! How much of a device's peak a run uses.
//!
//! Work for a token, with `n` weights of which `t` are trained, two operations a multiply-add:
//!
//! ```text
//! forward            2 n
//! input gradients    2 n
//! weight gradients   2 t
//! MFU = (4 n + 2 t) · tokens/s / peak
//! ```
//!
//! So `6 n` for full fine-tuning and `4 n` for LoRA, whose frozen weights have no gradients of their own.
//! Counting `6 n` there would call a run half again as efficient as it is. Attention over the context, and
//! what is computed twice under activation checkpointing, are not counted: the numbers compare with others
//! that are published in this form.

/// Operations for one token of training; embedding and head count as weights.
///
/// ```
/// use posttrain_train::watch::flops_per_token;
/// assert_eq!(flops_per_token(1_000, 1_000), 6_000.0); // full
/// assert_eq!(flops_per_token(1_000, 10), 4_020.0); // an adapter of 10, counted among the 1,000
/// ```
pub fn flops_per_token(weights: u64, trained: u64) -> f64 {
    4.0 * weights as f64 + 2.0 * trained as f64
}

/// Model FLOPs utilisation, from 0 to 1, where the device's peak is known.
///
/// `tokens_per_second` counts the tokens of the rows, not the padding.
pub fn mfu(flops_per_token: f64, tokens_per_second: f64, device: &str) -> Option<f64> {
    peak_flops(device).map(|peak| flops_per_token * tokens_per_second / peak)
}

/// The dense bf16 peak of a device in operations per second, by a part of its name; `None` for CPUs and for
/// what is not in the table.
///
/// The vendors' public figures, without sparsity and with f32 accumulation.
///
/// ```
/// use posttrain_train::watch::peak_flops;
/// assert_eq!(peak_flops("NVIDIA H100 80GB HBM3"), Some(989.4e12));
/// assert_eq!(peak_flops("NVIDIA H100 PCIe"), Some(756.5e12));
/// assert_eq!(peak_flops("AMD EPYC 9654"), None);
/// ```
pub fn peak_flops(device: &str) -> Option<f64> {
    let name = words(device);
    // Other chips under the same name, whose figures vary with the power they are given.
    if name.iter().any(|word| ["LAPTOP", "MOBILE", "MAX", "D"].contains(&word.as_str())) {
        return None;
    }
    let (_, teraflops) = PEAKS.iter().find(|(part, _)| {
        let part = words(part);
        name.windows(part.len()).any(|window| window == part)
    })?;
    Some(teraflops * 1e12)
}

/// Words of the name and dense bf16 teraflops; of two that match the first is taken.
const PEAKS: &[(&str, f64)] = &[
    ("GB300", 2500.0),
    ("B300", 2250.0),
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.5),
    ("H100", 989.4),
    ("H800", 989.4),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 6000 Ada", 364.2),
    ("RTX A6000", 154.8),
    ("RTX PRO 6000", 503.8),
    ("RTX 5090", 209.5),
    ("RTX 5080", 112.6),
    ("RTX 4090", 165.2),
    ("RTX 4080", 97.5),
    ("RTX 3090 Ti", 80.0),
    ("RTX 3090", 71.0),
    ("MI355X", 2516.6),
    ("MI350X", 2306.9),
    ("MI325X", 1307.4),
    ("MI300X", 1307.4),
    // A device is one of the card's two dies.
    ("MI250X", 191.5),
    ("MI250", 181.0),
];

fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_by_words() {
        for (name, teraflops) in [
            ("NVIDIA H200", Some(989.4)),
            ("NVIDIA H20", Some(148.0)),
            ("NVIDIA GH200 480GB", Some(989.4)),
            ("NVIDIA A100-SXM4-80GB", Some(312.0)),
            ("NVIDIA A10", Some(125.0)),
            ("NVIDIA A1000", None),
            ("NVIDIA GeForce RTX 4090", Some(165.2)),
            ("NVIDIA GeForce RTX 4090 D", None),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
            ("NVIDIA L40S", Some(362.0)),
            ("AMD Instinct MI300X", Some(1307.4)),
            ("SwiftShader Device (LLVM 10.0.0)", None),
            ("", None),
        ] {
            assert_eq!(peak_flops(name), teraflops.map(|t| t * 1e12), "{name}");
        }
    }

    #[test]
    fn the_published_mark() {
        // NeMo Automodel: Llama-3-8B, LoRA, one H100, 12,473 tokens/s are given as 40.6 %.
        let share = mfu(flops_per_token(8_030_000_000, 0), 12_473.0, "NVIDIA H100").unwrap();
        assert!((share - 0.406).abs() < 0.002, "{share}");
    }
}
