//! Losses of preference alignment and reward models: numbers in, numbers out.
//!
//! A loss takes log-probabilities that the model gave to answers and returns its mean over the
//! batch, the gradient by each of these log-probabilities, and metrics by TRL's names. Whatever
//! has no reference model takes no reference. A loss of your own is any closure from pairs to a
//! [`Loss`].
//!
//! ```
//! use posttrain_train::preference::{Dpo, Pair};
//!
//! let policy = [Pair::of(&[-0.5, -0.25], &[-1.0, -0.5, -0.5])];
//! let reference = [Pair::of(&[-0.75, -0.25], &[-0.75, -0.5, -0.5])];
//! let result = Dpo::default().loss(&policy, &reference);
//! assert!(result.loss < 2_f64.ln()); // β (c − r) = 0.1 · (0.25 + 0.25)
//! let by_token = result.gradient[0].chosen.by_token(2, 2);
//! assert!(by_token.into_iter().all(|slope| slope < 0.0));
//! ```
//!
//! | loss | answers | reference | paper |
//! |---|---|---|---|
//! | [`Dpo`], 15 [`LossType`]s | pairs | yes | at each |
//! | [`Kto`] | labelled | yes | arXiv:2402.01306 |
//! | [`Bco`] | labelled | yes | arXiv:2404.04656 |
//! | [`Orpo`] | pairs | no | arXiv:2403.07691 |
//! | [`Cpo`] with `SimPO` and `AlphaPO` | pairs | no | arXiv:2401.08417 |
//! | [`Tpo`] | pairs and a gold answer | no | arXiv:2405.16681 |
//! | [`Rrhf`] | ranked | no | arXiv:2304.05302 |
//! | [`Slic`] | ranked | no | arXiv:2210.00045 |
//! | [`BradleyTerry`] | pairs of rewards | no | arXiv:2204.05862 |
//!
//! Values and gradients are finite for log-probabilities of answers from −10⁴ to 0. Functions
//! panic where lists that belong together differ in length.

mod batch;
mod bco;
mod bradley_terry;
mod choice;
mod cpo;
mod dpo;
mod kto;
pub(crate) mod maths;
mod orpo;
mod own;
mod ranking;
mod recipe;
mod reference;
mod rrhf;
mod slic;
mod stored;
#[cfg(test)]
mod tests;
mod tokens;
mod tpo;

pub use batch::{Answer, AnswerGradient, Loss, Metrics, Pair, PairGradient};
pub use bco::{Bco, Shift};
pub use bradley_terry::BradleyTerry;
pub use choice::PreferenceLoss;
pub use cpo::{Cpo, CpoType};
pub use dpo::{Dpo, FDivergence, LossType};
pub use kto::{Kto, KtoType, reference_point};
pub use orpo::Orpo;
pub use own::OwnLoss;
pub use ranking::Group;
pub use recipe::preference;
pub use rrhf::Rrhf;
pub use slic::Slic;
pub use tpo::{Tpo, TpoType};

use crate::Error;

/// That a setting is a finite number above 0.
fn positive(key: &str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(Error::config(key, value, "above 0"))
    }
}

/// That a setting is a finite number, at least 0.
fn weight(key: &str, value: f64) -> Result<(), Error> {
    let fine = value >= 0.0 && value.is_finite();
    if fine { Ok(()) } else { Err(Error::config(key, value, "at least 0")) }
}

/// That a label smoothing is one.
fn smoothing(value: f64) -> Result<(), Error> {
    let fine = (0.0..0.5).contains(&value);
    if fine { Ok(()) } else { Err(Error::config("label_smoothing", value, "from 0 to below 0.5")) }
}
