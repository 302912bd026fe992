//! Reward models: how they are trained, and how good their scores are.
//!
//! [`outcome_reward`] learns a score for an answer from pairs, [`process_reward`] one for each step from labelled steps. The
//! rest are pure functions of scores: pairs in order, area under the curve, calibration, and whether the length of the
//! answers would have said the same; a [`ScoreReport`] or [`StepReport`] has all of them, also by length.
//!
//! ```
//! use posttrain_train::reward::{ScoreReport, ScoredPair};
//!
//! let pair = |chosen, rejected, chosen_tokens, rejected_tokens| ScoredPair {
//!     chosen,
//!     rejected,
//!     chosen_tokens,
//!     rejected_tokens,
//! };
//! let pairs = [pair(1.5, -0.5, 40, 60), pair(0.25, 0.75, 90, 20), pair(2.0, 0.0, 30, 30)];
//! let report = ScoreReport::new(&pairs)?;
//! assert_eq!((report.all.order.wins, report.all.order.ties), (2, 0));
//! assert_eq!(report.all.auc, Some(8.0 / 9.0));
//! println!("{report}");
//! # Ok::<(), posttrain_train::Error>(())
//! ```
//!
//! | measure | says | source |
//! |---|---|---|
//! | [`PairOrder`] | how many pairs are in the right order | ties count half |
//! | [`auc`] | how well one threshold separates chosen and rejected answers | Mann and Whitney 1947 |
//! | [`Calibration`] | whether the probabilities of the model can be believed | arXiv:1706.04599, Brier 1950 |
//! | [`LengthBaseline`] | what the length of the answers says by itself | compare arXiv:2310.03716 |
//! | [`Share::wilson`] | how far a share can be trusted | Wilson 1927 |

mod auc;
mod buckets;
mod calibration;
mod diagram;
mod html;
mod length;
mod order;
mod outcome;
mod process;
mod report;
mod share;
mod steps;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use auc::auc;
pub use buckets::by_length;
pub use calibration::{Bin, Calibration, brier};
pub use diagram::{histogram, reliability};
pub use length::LengthBaseline;
pub use order::PairOrder;
pub use outcome::{outcome_reward, score_pairs};
pub use process::{StepRow, encode_steps, process_reward, score_steps};
pub use report::{Bucket, Measures, SCORES_HTML, SCORES_JSON, ScoreReport};
pub use share::Share;
pub use steps::{ScoredStep, StepBucket, StepMeasures, StepReport};

/// The scores of the two answers to one prompt, and how long these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredPair {
    /// Of the better one.
    pub chosen: f64,
    /// Of the worse one.
    pub rejected: f64,
    /// Tokens of the better one, without the prompt.
    pub chosen_tokens: usize,
    /// Tokens of the worse one.
    pub rejected_tokens: usize,
}

impl ScoredPair {
    /// Tokens of both answers.
    pub fn tokens(&self) -> usize {
        self.chosen_tokens + self.rejected_tokens
    }

    /// By how much the better one is ahead.
    pub fn margin(&self) -> f64 {
        self.chosen - self.rejected
    }
}
