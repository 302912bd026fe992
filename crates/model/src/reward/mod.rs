//! Reward models: answers and steps of solutions, judged by a model.
//!
//! ```no_run
//! use posttrain_core::{Conversation, Message, Prompt, Reward, Sample, StepReward, StepSample};
//! use posttrain_model::{ProcessRewardModel, RewardModel, device};
//! let device = device::open("flex")?;
//! let model = RewardModel::load("path/to/reward/model", &device)?;
//! let prompt = Prompt::from(Conversation::new([Message::user("What is 6 times 7?")]));
//! let columns = serde_json::Map::new();
//! let sample = Sample { prompt: &prompt, response: "42", columns: &columns };
//! for reward in model.reward(&[sample]) {
//!     println!("{}", reward?);
//! }
//!
//! let model = ProcessRewardModel::load("path/to/process/reward/model", &device)?;
//! let steps = ["6 times 7 is 7 times 6.".to_owned(), "So it is 42.".to_owned()];
//! for scores in model.step_reward(&[StepSample { prompt: &prompt, steps: &steps }]) {
//!     println!("{:?}", scores?); // one number between 0 and 1 for each step
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How a process reward model marks steps and says what it thinks of them is its [`Convention`], one
//! file each; training uses the same functions as scoring. What all models share: tokens that several
//! texts begin with are computed once, and kept for the next call, and texts of unequal
//! length cost no padding.

mod convention;
mod math_shepherd;
mod outcome;
mod prefix;
mod process;
mod qwen_math;
mod reading;
mod rlhflow;
mod scorer;
mod skywork;
mod tokenizer;
mod trl;

pub(crate) use convention::CONVENTION;
pub use convention::{Convention, Marked};
pub use math_shepherd::MathShepherd;
pub use outcome::{RewardModel, RewardOptions};
pub use process::{ProcessOptions, ProcessRewardModel};
pub use qwen_math::QwenMath;
pub use reading::Reading;
pub use rlhflow::Rlhflow;
pub use skywork::Skywork;
pub use tokenizer::RewardTokenizer;
pub use trl::Trl;
