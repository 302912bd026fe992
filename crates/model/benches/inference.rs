//! Prefill, decoding, start-up: the side of this crate in `benches/peers/inference.py`.
//!
//! Prints one line of JSON for each measurement; the arguments are `MODE FOLDER ROUNDS`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measurements")]

#[path = "support/peak.rs"]
mod peak;

use std::time::{Instant, SystemTime};

use peak::peak_mib;
use posttrain_core::Sampling;
use posttrain_model::{Batch, Decoder, Next, TokenRequest, device};

fn prompt(length: usize, seed: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 7919 + seed * 104_729) % 8000 + 3) as u32).collect()
}

fn timed(rounds: usize, tokens: usize, name: &str, mut work: impl FnMut()) {
    for _ in 0..rounds {
        let start = Instant::now();
        work();
        let seconds = start.elapsed().as_secs_f64();
        let per_second = tokens as f64 / seconds;
        println!(
            "{{\"name\": \"{name}\", \"tokens_per_second\": {per_second:.1}, \"seconds\": \
             {seconds:.4}, \"peak_mib\": {:.1}}}",
            peak_mib()
        );
    }
}

fn requests(prompts: impl Iterator<Item = Vec<u32>>, max_tokens: usize) -> Vec<TokenRequest> {
    let sampling = Sampling { max_tokens, ..Sampling::greedy() };
    prompts.map(|ids| TokenRequest { ids, sampling: sampling.clone() }).collect()
}

/// Answers all requests, 8 at a time.
fn answer(model: &Decoder, requests: &[TokenRequest]) {
    let answers = model.continue_ids(requests, &[], 8, &mut |_, _| Next::Continue);
    for (answer, request) in answers.into_iter().zip(requests) {
        assert_eq!(answer.unwrap().ids.len(), request.sampling.max_tokens);
    }
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` runs without arguments: nothing to do.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [mode, folder, rounds] = arguments.as_slice() else { return };
    device::keep_freed_memory();
    let rounds: usize = rounds.parse().unwrap();
    let device = device::open("flex").unwrap();
    let model = Decoder::load(folder, &device).unwrap();
    match mode.as_str() {
        // Generation up to the first token of each answer: prompts of one length and of many.
        "prefill" => {
            let unequal = [128, 32, 256, 96, 224, 64, 192, 160];
            for (name, lengths) in [
                ("prefill 1 x 512", &[512][..]),
                ("prefill 8 x 128", &[128; 8]),
                ("prefill 8 x 32 to 256", &unequal),
            ] {
                let prompts = lengths.iter().enumerate().map(|(seed, &n)| prompt(n, seed));
                let requests = requests(prompts, 1);
                timed(rounds, lengths.iter().sum(), name, || answer(&model, &requests));
            }
        }
        "forward" => {
            let rows: Vec<_> = (0..4).map(|seed| prompt(256, seed)).collect();
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let batch = Batch::padded(&rows, 0).unwrap();
            timed(rounds, 4 * 256, "forward 4 x 256", || {
                let _ = model.logits(model.forward(&batch)).into_data();
            });
        }
        "decode" => {
            for (count, length) in [(8, 16), (1, 16)] {
                let requests = requests((0..count).map(|seed| prompt(length, seed)), 128);
                let name = format!("decode {count} x 128");
                timed(rounds, count * 128, &name, || answer(&model, &requests));
            }
        }
        "startup" => {
            answer(&model, &requests(std::iter::once(prompt(16, 0)), 1));
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            println!(
                "{{\"name\": \"start-up\", \"finished_at\": {:.4}, \"peak_mib\": {:.1}}}",
                now.as_secs_f64(),
                peak_mib()
            );
        }
        other => panic!("no mode {other}"),
    }
}
