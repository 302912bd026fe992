//! `NearSwap`: `y = w x + (1 - w) b`, `w = t / |b - x|` between 0 and 1.
//!
//! alchemonaut, <https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001>. Where the two models are
//! within `t` of each other the result is the other model's, and it moves by about `t` where they are not.
//! The distance is at least `1e-6`. A negative `t` is the base.

use super::gram::one_each;
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::task_vectors::require_base;
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, ops};

/// The smallest distance that is divided by.
const NEAR: f32 = 1e-6;

/// The base, moved to the other model where that is near.
#[derive(Clone, Debug, PartialEq)]
pub struct NearSwap {
    /// Up to what distance the other model's value is taken.
    pub t: f64,
}

pub(super) fn method() -> Method {
    Method::new("nearswap", Base::Required, 1..=1)
        .parameter(Parameter::number("t"))
        .reference("NearSwap", "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001")
        .build(|p: &Resolved| Ok(NearSwap { t: p.number_within("t", &FINITE)? }))
}

impl Merge for NearSwap {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        require_base(group)?;
        one_each(group.name, "t", 1, group.inputs.len())?;
        let (t, near) = (self.t as f32, group.rounded(NEAR));
        Ok(Box::new(move |block, y| {
            let (b, x) = (&mut block.base, &mut block.inputs[0]);
            // y = |b - x|, then 1 / y, then w.
            ops::sub(y, b, x);
            group.round(y);
            ops::each(y, |distance| 1.0 / distance.abs().max(near));
            group.round(y);
            ops::each(y, |inverse| inverse * t);
            group.round(y);
            ops::each(y, |w| w.clamp(0.0, 1.0));
            // x = w x, y = 1 - w, b = (1 - w) b.
            ops::scale_each(x, y);
            group.round(x);
            ops::each(y, |w| 1.0 - w);
            group.round(y);
            ops::scale_each(b, y);
            group.round(b);
            ops::add(y, x, b);
            group.round(y);
        }))
    }
}
