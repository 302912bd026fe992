//! Spherical linear interpolation between the base `a` and one other model `c`:
//! `y = sin((1 - t) theta) / sin theta a + sin(t theta) / sin theta c`, theta the angle between them.
//!
//! Shoemake 1985. The coefficients multiply the tensors as they are, not their directions. Where they are
//! almost collinear (`|cos theta| > 0.9995`) it is linear: `(1 - t) a + t c`.

use super::parameter::{Parameter, Resolved};
use super::registry::{Base, Method};
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, ops};

/// Above this cosine the arc is a line.
const COLLINEAR: f64 = 0.9995;
/// A norm up to this is no direction.
const NO_NORM: f64 = 1e-8;

/// Interpolation on the arc from the base (`t = 0`) to the other model (`t = 1`).
#[derive(Clone, Debug, PartialEq)]
pub struct Slerp {
    /// Where between the two.
    pub t: f64,
}

pub(super) fn method() -> Method {
    Method::new("slerp", Base::Required, 1..=1)
        .parameter(Parameter::number("t"))
        .reference("SLERP", "https://en.wikipedia.org/wiki/Slerp")
        .build(|p: &Resolved| Ok(Slerp { t: p.number("t") }))
}

impl Merge for Slerp {
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        let [aa, cc, ac] = group.sum(|block| {
            let (a, c) = (&block.base, &block.inputs[0]);
            [ops::dot(a, a), ops::dot(c, c), ops::dot(a, c)]
        });
        let norm = |square: f64| if square.sqrt() > NO_NORM { square.sqrt() } else { 1.0 };
        let cos = (ac / norm(aa) / norm(cc)).clamp(-1.0, 1.0);
        let t = self.t;
        let (on_a, on_c) = if cos.abs() > COLLINEAR {
            (f64::from(1.0 - t as f32), t)
        } else {
            let theta = cos.acos();
            (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin())
        };
        Ok(Box::new(move |block, y| {
            ops::scaled(y, on_a as f32, &block.base);
            ops::axpy(y, on_c as f32, &block.inputs[0]);
        }))
    }
}
