//! Watching a run: what happens in it, who is told, and what the numbers say.
//!
//! The loop of a recipe makes plain values ([`StepMetrics`], [`EvalMetrics`], [`Warning`], ...) and hands them
//! to an [`Observer`]. Observers write files, draw bars or send messages; they see a run and never steer it.
//!
//! The writers are [`JsonLines`], [`TensorBoard`] and [`Report`]; a `Vec` of boxed observers is one too.
//!
//! What steers is asked by the loop itself: [`Selection`] knows the best checkpoint and when to stop,
//! [`Detector`] makes warnings of losses, gradient norms and log-probabilities.

pub mod chart;
mod crc32c;
mod detector;
mod displacement;
mod divergence;
mod event;
pub(crate) mod exact;
mod extra;
mod flops;
pub mod html;
mod jsonl;
mod observer;
mod report;
mod selection;
mod spike;
mod tensorboard;
pub(crate) mod words;

pub use detector::Detector;
pub use event::{Checkpoint, EvalMetrics, RunInfo, StepMetrics, Stop, Summary, Warning};
pub use extra::Extras;
pub use flops::{flops_per_token, mfu, peak_flops};
pub use jsonl::{EVALUATIONS, JsonLines, METRICS, WARNINGS, read_lines};
pub use observer::Observer;
pub use report::{REPORT, Report};
pub use selection::{Selection, SelectionState, Verdict};
pub use tensorboard::TensorBoard;
