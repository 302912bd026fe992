//! A method of one's own, as a function over whole tensors.

use std::fmt;

use super::{Apply, Merge};
use crate::Error;
use crate::group::Group;
use crate::source::Source;

/// What a function over whole tensors gets.
#[derive(Clone, Debug)]
pub struct WholeTensors<'a> {
    /// The tensor's name in the output.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// The base model's values.
    pub base: Option<Vec<f32>>,
    /// Each input's values, row-major.
    pub inputs: Vec<Vec<f32>>,
}

/// A method from a function over whole tensors. It is easier to write than [`Merge`] and needs the memory
/// of all inputs of a tensor in f32.
///
/// ```
/// use posttrain_merge::methods::{WholeTensor, merge};
///
/// let largest = WholeTensor::new(|tensors| {
///     let first = &tensors.inputs[0];
///     let of = |i: usize| tensors.inputs.iter().map(|x| x[i]).fold(f32::MIN, f32::max);
///     Ok((0..first.len()).map(of).collect())
/// });
/// assert_eq!(merge(&largest, &[2], None, &[&[1.0, 5.0], &[3.0, 2.0]], 0)?, [3.0, 5.0]);
/// # Ok::<(), posttrain_merge::Error>(())
/// ```
pub struct WholeTensor<F>(F);

impl<F> WholeTensor<F>
where
    F: Fn(WholeTensors<'_>) -> Result<Vec<f32>, String> + Send + Sync,
{
    /// From the function; it gives as many values as an input has, or says why it cannot.
    pub fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F> fmt::Debug for WholeTensor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WholeTensor")
    }
}

impl<F> Merge for WholeTensor<F>
where
    F: Fn(WholeTensors<'_>) -> Result<Vec<f32>, String> + Send + Sync,
{
    fn prepare<'a>(&'a self, group: &'a Group<'a>) -> Result<Apply<'a>, Error> {
        let read = |source: &Source| {
            let mut values = vec![0.0; source.numel()];
            source.read(0, &mut values);
            values
        };
        let tensors = WholeTensors {
            name: group.name,
            shape: group.shape,
            base: group.base.map(read),
            inputs: group.inputs.iter().map(read).collect(),
        };
        let merged = (self.0)(tensors).map_err(|reason| Error::tensor(group.name, reason))?;
        if merged.len() != group.numel() {
            let reason =
                format!("the method made {} values, expected {}", merged.len(), group.numel());
            return Err(Error::tensor(group.name, reason));
        }
        Ok(Box::new(move |block, y| {
            y.copy_from_slice(&merged[block.start..block.start + y.len()]);
        }))
    }
}
