//! One step of each optimizer and of clipping, on the weights of a Llama of 32 million parameters:
//! the side of this crate in `benches/peers/optim.py`.
//!
//! Prints one line of JSON for each measurement; the argument is the number of rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measurements")]

use std::time::Instant;

use burn::tensor::{DType, Tensor};
use posttrain_model::{Decoder, Gradients};
use posttrain_train::optim::{Optimizer, OptimizerConfig, OptimizerName, clip_global_norm};

mod support;

use support::llama_32m;

/// Gradients of the size of one hundredth.
fn gradients(model: &Decoder) -> Gradients {
    let mut gradients = Gradients::default();
    let _ = model.clone().map_trainable(&mut |parameter, weight| {
        let shape = weight.dims();
        let row = Tensor::<1, burn::tensor::Int>::arange(0..shape[1] as i64, &weight.device());
        let row = row.float().cast(DType::F32).sin().mul_scalar(0.01).reshape([1, shape[1]]);
        gradients.add(&parameter.name, weight.clone() * 0.1 + row);
        weight
    });
    gradients
}

fn timed(name: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!("{{\"name\": \"{name}\", \"seconds\": {:.5}}}", start.elapsed().as_secs_f64());
}

fn main() {
    let rounds: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let start = llama_32m();
    let gradients = gradients(&start);
    for optim in [
        OptimizerName::AdamW,
        OptimizerName::AdamW8Bit,
        OptimizerName::Adafactor,
        OptimizerName::Lion,
        OptimizerName::Sgd,
        OptimizerName::Muon,
    ] {
        let config = OptimizerConfig { optim, weight_decay: 0.01, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&config, 1e-4, &start).unwrap();
        let mut model = Some(start.clone());
        // Muon takes seconds.
        let rounds = if optim == OptimizerName::Muon { 1 } else { rounds };
        // The first step touches fresh memory.
        for round in 0..=rounds {
            let mut given = gradients.clone();
            // A copy, for clipping changes gradients in place.
            given.map(|_, gradient| gradient * 1.0);
            if optim == OptimizerName::AdamW && round > 0 {
                timed("clip", || {
                    clip_global_norm(&mut given, 1.0);
                });
            }
            // Freeing the gradients is not part of the step (Adafactor uses up its own).
            let _held = (optim != OptimizerName::Adafactor).then(|| given.clone());
            let step = || model = model.take().map(|model| optimizer.step(1e-4, model, given));
            if round == 0 { step() } else { timed(optim.name(), step) }
        }
    }
}
