//! Steps of full fine-tuning on a Llama of 32 million parameters, 4 rows of 256 tokens each: the side of this
//! crate in `benches/peers/training.py`.
//!
//! Prints one line of JSON for each step; the argument is the number of steps.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measurements")]

#[path = "../../model/benches/support/peak.rs"]
mod peak;
mod support;

use std::time::Instant;

use peak::peak_mib;
use posttrain_model::device::{in_pool, keep_freed_memory};
use posttrain_model::{Activations, Batch, Decoder, Gradients, Objective, Targets};
use posttrain_train::optim::{Optimizer, OptimizerConfig, OptimizerName, clip_global_norm};
use support::llama_32m;

const ROWS: usize = 4;
const TIME: usize = 256;

fn row(seed: usize) -> Vec<u32> {
    (0..TIME).map(|i| ((i * 7919 + seed * 104_729) % 8000 + 3) as u32).collect()
}

fn main() {
    let Some(steps) = std::env::args().find_map(|argument| argument.parse().ok()) else { return };
    keep_freed_memory();
    let model = llama_32m();
    in_pool(&model.device(), || run(model, steps));
}

fn run(mut model: Decoder, steps: usize) {
    let config = OptimizerConfig { optim: OptimizerName::AdamW, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(&config, 1e-4, &model).unwrap();
    for step in 0usize..steps {
        let start = Instant::now();
        let rows: Vec<_> = (0..ROWS).map(|i| row(step * ROWS + i)).collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let batch = Batch::padded(&rows, 0).unwrap();
        let targets = Targets::all(&batch);
        let weights = vec![1.0 / targets.len() as f32; targets.len()];
        let (mut gradients, mut loss) = (Gradients::default(), 0.0);
        model.backward(&batch, None, Activations::Keep, &mut gradients, |hidden, gradients| {
            let found =
                model.cross_entropy(hidden, &targets, &weights, Objective::Nll, Some(gradients));
            loss = found.loss;
            found.by_hidden.unwrap()
        });
        let backward = start.elapsed().as_secs_f64();
        let norm = clip_global_norm(&mut gradients, 1.0);
        model = optimizer.step(1e-4, model, gradients);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{{\"name\": \"step\", \"seconds\": {seconds:.4}, \"backward\": {backward:.4}, \"loss\": {loss:.5}, \
             \"norm\": {norm:.4}, \"peak_mib\": {:.1}}}",
            peak_mib()
        );
    }
}
