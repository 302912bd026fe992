#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod arch;
pub mod checkpoint;
pub mod config;
mod decoder;
pub mod device;
mod error;
mod generate;
mod kernel;
pub mod quant;
pub mod reward;
pub mod rope;
mod text;

pub use decoder::{
    Activations, Attention, Batch, Block, Body, Branches, CrossEntropy, Decoder, Embedding, Factor,
    Gradients, KvCache, Linear, LoadOptions, Mlp, Noise, Norm, Parameter, Score, Scored, Targets,
    TokenLogprobs, ValueHead, Weight,
};
pub use error::Error;
pub use generate::{Generator, Next, Piece, TokenCompletion, TokenRequest};
pub use kernel::Objective;
pub use reward::{ProcessRewardModel, RewardModel};

/// For `posttrain-train`: loops that have to be compiled for the machine's vectors, which takes
/// `unsafe`, and what its planner has to know.
#[doc(hidden)]
pub mod loops {
    pub use crate::kernel::cpu::logprobs::rows_at_a_time;
    pub use crate::kernel::cpu::optimizer::{AdamWFactors, adamw, scale, square_sum};
}
