//! Passthrough: `y = x`, or `y = scale x`.
//!
//! What merges of slices are made of (mergekit's).

use super::gram::one_each;
use super::parameter::{FINITE, Parameter, Resolved};
use super::registry::{Base, Method};
use super::{Apply, Merge};
use crate::group::Group;
use crate::{Error, ops};

/// One input as it is, or a multiple of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Passthrough {
    /// What it is multiplied by; 1 leaves every bit as it is.
    pub scale: f64,
}

pub(super) fn method() -> Method {
    Method::new("passthrough", Base::Ignored, 1..=1)
        .parameter(Parameter::number("scale").per_input().or(1.0))
        .reference("Passthrough", "https://github.com/arcee-ai/mergekit")
        .build(|p: &Resolved| {
            let scale = p.numbers_within("scale", &FINITE)?;
            match scale[..] {
                [scale] => Ok(Passthrough { scale }),
                _ => Err(Error::value(
                    "scale",
                    format!("{} values", scale.len()),
                    "one, of one input",
                )),
            }
        })
}

impl Merge for Passthrough {
    fn copies(&self) -> Option<usize> {
        (self.scale == 1.0).then_some(0)
    }

    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        one_each(group.name, "scale", 1, group.inputs.len())?;
        Ok(Box::new(move |block, y| ops::scaled(y, self.scale as f32, &block.inputs[0])))
    }
}
