//! Watching a run: what happens in it, who is told, and what the numbers say.
//!
//! The loop of a recipe makes plain values ([`StepMetrics`], [`EvalMetrics`], [`Warning`], ...) and hands them
//! to an [`Observer`]. Observers write files, draw bars or send messages; they see a run and never steer it.

mod event;
mod observer;

pub use event::{Checkpoint, EvalMetrics, RunInfo, Stop, StepMetrics, Summary, Warning};
pub use observer::Observer;
