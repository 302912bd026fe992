//! The operations on the CPU device: each against its reference body and against plain tensor
//! operations, values and gradients, from inputs of odd sizes, in any memory layout and type.
#![allow(clippy::unwrap_used, reason = "tests")]

mod attention;
mod cross_entropy;
mod layers;
mod logprobs;

use std::path::Path;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps as _;
use burn::backend::{DType, Flex};
use burn::tensor::{Device, Int, IntDType, Shape, Tensor, TensorData};
use safetensors::SafeTensors;

/// A float tensor of any rank: the rank of [`Tensor`] is not looked at below its methods.
type Any = Tensor<1>;

const F32: DType = DType::F32;
const BF16: DType = DType::BF16;

/// The tensor with its rank.
fn ranked<const D: usize>(x: &Any) -> Tensor<D> {
    Tensor::from_dispatch(x.clone().into_dispatch())
}

fn any<const D: usize>(x: Tensor<D>) -> Any {
    Tensor::from_dispatch(x.into_dispatch())
}

/// Numbers between -1 and 1 without a pattern.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

fn contiguous(shape: &[usize], seed: usize) -> FlexTensor {
    let count = shape.iter().product();
    FlexTensor::from_data(TensorData::new(numbers(count, seed), Shape::from(shape.to_vec())))
}

/// The same numbers in other places of memory.
#[derive(Clone, Copy, Debug)]
enum View {
    Contiguous,
    /// Without gaps, behind other numbers.
    Behind,
    /// Each row between other numbers.
    Narrow,
    /// First and last axis swapped.
    Swapped,
    /// From the last number to the first.
    Flipped,
}

const VIEWS: [View; 5] =
    [View::Contiguous, View::Behind, View::Narrow, View::Swapped, View::Flipped];

impl View {
    fn of(self, x: &FlexTensor) -> FlexTensor {
        let last = x.layout().shape().num_dims() - 1;
        let between = |axis: usize| {
            let length = x.layout().shape()[axis];
            let all = Flex::float_cat(vec![x.clone(), x.clone(), x.clone()], axis);
            all.narrow(axis, length, length)
        };
        let axes: Vec<usize> = (0..=last).collect();
        match self {
            Self::Contiguous => x.clone(),
            Self::Behind => between(0),
            Self::Narrow => between(last),
            Self::Swapped => x.transpose(0, last).to_contiguous().transpose(0, last),
            Self::Flipped => {
                Flex::float_flip(Flex::float_flip(x.clone(), &axes).to_contiguous(), &axes)
            }
        }
    }
}

/// Both as f64, of the same shape.
fn pair(found: Any, expected: Any, what: &str) -> [Vec<f64>; 2] {
    let both = [found.into_data(), expected.into_data()];
    assert_eq!(both[0].shape(), both[1].shape(), "{what}");
    both.map(|data| data.convert::<f64>().try_into_vec::<f64>().unwrap())
}

fn usual(numbers: &[f64]) -> f64 {
    (numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64).sqrt()
}

/// `tolerance` relative to the expected number, or to the usual size of all where it is smaller.
fn close(found: Any, expected: Any, tolerance: f64, what: &str) {
    let [found, expected] = pair(found, expected, what);
    let usual = usual(&expected);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let distance = (found - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(usual),
            "{what}, number {i}: {found} is not {expected}, off by {distance:.1e} (usual {usual:.1e})"
        );
    }
}

/// `tolerance` relative to the usual size, for the usual distance: in half precision terms are
/// rounded that may cancel.
fn close_on_the_whole(found: Any, expected: Any, tolerance: f64, what: &str) {
    let [found, expected] = pair(found, expected, what);
    let distances: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
    let (distance, usual) = (usual(&distances), usual(&expected));
    assert!(
        distance <= tolerance * usual,
        "{what}: off by {distance:.1e}, the size is {usual:.1e}"
    );
}

/// Value and gradients by the inputs of which `tracked` has the bit, with a factor on the loss.
fn gradients(op: Op<'_>, inputs: &[Any], tracked: usize) -> (Any, Vec<Option<Any>>) {
    let leaf = |(i, x): (usize, &Any)| x.clone().autodiff().set_require_grad(tracked >> i & 1 == 1);
    let inputs: Vec<Any> = inputs.iter().enumerate().map(leaf).collect();
    let y = op(&inputs);
    assert_eq!(y.is_tracked(), tracked != 0);
    if tracked == 0 {
        return (y, vec![None; inputs.len()]);
    }
    // Eighths, three times of which every type has.
    let factors = (0..y.shape().num_elements()).map(|i| (i * 7919 % 17) as f32 / 8.0 - 1.0);
    let factors = TensorData::new(factors.collect::<Vec<f32>>(), y.shape());
    let factors = Any::from_primitive::<Flex>(FlexTensor::from_data(factors));
    let loss = (y.clone() * factors.cast(y.dtype()).autodiff()).sum() * 3.0;
    let gradients = loss.backward();
    (y.inner(), inputs.iter().map(|x| x.grad(&gradients)).collect())
}

/// An operation with all that is no float tensor built in.
type Op<'a> = &'a dyn Fn(&[Any]) -> Any;

/// An operation, and what it is compared with.
struct Case<'a> {
    name: &'a str,
    /// Of the float tensors.
    shapes: &'a [&'a [usize]],
    /// The function of the module above.
    kernel: Op<'a>,
    /// Other tensor operations for the same.
    plain: Op<'a>,
    reference: &'a dyn Fn(Vec<FlexTensor>) -> FlexTensor,
}

impl Case<'_> {
    fn inputs(&self) -> Vec<FlexTensor> {
        self.shapes.iter().enumerate().map(|(i, shape)| contiguous(shape, i + 1)).collect()
    }

    /// The inputs on the device: each in another view, and another in each turn.
    fn viewed(inputs: &[FlexTensor], turn: usize) -> Vec<Any> {
        let view = |(i, x): (usize, &FlexTensor)| {
            Any::from_primitive::<Flex>(VIEWS[(i + turn) % VIEWS.len()].of(x))
        };
        inputs.iter().enumerate().map(view).collect()
    }

    fn what(&self, about: String) -> String {
        format!("{} {:?}, {about}", self.name, self.shapes)
    }

    /// f32: values from inputs in every view, gradients by every set of inputs, the latter against
    /// plain operations in f64.
    fn check(&self) {
        let inputs = self.inputs();
        let wide = inputs.iter().map(|x| Flex::float_cast(x.clone(), DType::F64.into()));
        let wide: Vec<FlexTensor> = wide.collect();
        let expected = Any::from_primitive::<Flex>((self.reference)(inputs.clone()));
        for turn in 0..VIEWS.len() {
            let found = (self.kernel)(&Self::viewed(&inputs, turn));
            assert_eq!(found.dtype(), F32, "{}", self.name);
            close(
                found,
                expected.clone(),
                1e-5,
                &self.what(format!("value in views of turn {turn}")),
            );
        }
        for tracked in 0..1 << inputs.len() {
            let what = |about: &str| self.what(format!("{about} with inputs {tracked:b} tracked"));
            let (y, found) = gradients(self.kernel, &Self::viewed(&inputs, tracked), tracked);
            let (known_y, known) = gradients(self.plain, &Self::viewed(&wide, 0), tracked);
            close(y, known_y, 1e-5, &what("value"));
            for (i, (found, known)) in found.into_iter().zip(known).enumerate() {
                match (found, known) {
                    (Some(found), Some(known)) => {
                        close(found, known, 1e-5, &what(&format!("gradient {i}")));
                    }
                    (found, known) => {
                        assert_eq!(found.is_some(), tracked >> i & 1 == 1, "{}", what("gradient"));
                        assert_eq!(known.is_some(), found.is_some(), "{}", what("gradient"));
                    }
                }
            }
        }
    }

    /// f64, f16 and bf16.
    fn check_types(&self, result: Option<DType>) {
        for dtype in [DType::F64, DType::F16, BF16] {
            self.check_types_of(&vec![dtype; self.shapes.len()], result.unwrap_or(dtype));
        }
    }

    /// Inputs of given types: the type of the result, its values to the precision of the first
    /// input, gradients in the types of the inputs.
    fn check_types_of(&self, types: &[DType], result: DType) {
        if self.shapes[0].iter().product::<usize>() < 10 {
            return; // Too few numbers for a precision on the whole.
        }
        let tolerance = |dtype| match dtype {
            DType::F16 => 2.0 / 2048.0,
            DType::BF16 => 2.0 / 256.0,
            _ => 1e-5,
        };
        let what = |about: &str| self.what(format!("{about} of {types:?}"));
        let cast = |(x, &dtype): (FlexTensor, &DType)| Flex::float_cast(x, dtype.into());
        let inputs: Vec<FlexTensor> = self.inputs().into_iter().zip(types).map(cast).collect();
        let wide: Vec<FlexTensor> =
            inputs.iter().map(|x| Flex::float_cast(x.clone(), F32.into())).collect();
        let expected = Any::from_primitive::<Flex>((self.reference)(wide.clone()));
        for turn in [0, 3] {
            let found = (self.kernel)(&Self::viewed(&inputs, turn));
            assert_eq!(found.dtype(), result, "{}", what("value"));
            close_on_the_whole(found, expected.clone(), tolerance(types[0]), &what("value"));
        }
        let all = (1 << inputs.len()) - 1;
        let (y, found) = gradients(self.kernel, &Self::viewed(&inputs, 1), all);
        let (_, known) = gradients(self.plain, &Self::viewed(&wide, 0), all);
        assert_eq!(y.dtype(), result, "{}", what("value under autodiff"));
        for (i, (found, known)) in found.into_iter().zip(known).enumerate() {
            let (found, known) = (found.unwrap(), known.unwrap());
            assert_eq!(found.dtype(), types[i], "{}", what(&format!("gradient {i}")));
            // Twice that of values: products of a value with what came from another one.
            let tolerance = 2.0 * tolerance(types[0]).max(tolerance(types[i]));
            close_on_the_whole(found, known, tolerance, &what(&format!("gradient {i}")));
        }
    }
}

/// Integers behind others, in one of the two types.
fn ints(values: &[usize], dtype: IntDType, device: &Device) -> Tensor<1, Int> {
    let all: Vec<i64> = [&[5], values].concat().into_iter().map(|value| value as i64).collect();
    let count = all.len();
    let all = Tensor::<1, Int>::from_data(TensorData::new(all, [count]), (device, DType::I64));
    all.cast(dtype).narrow(0, 1, values.len())
}

/// A matrix of integers with its axes swapped in memory.
fn int_rows(values: &[usize], rows: usize, dtype: IntDType, device: &Device) -> Tensor<2, Int> {
    let columns = values.len() / rows;
    let swapped: Vec<usize> =
        (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect();
    ints(&swapped, dtype, device).reshape([columns, rows]).swap_dims(0, 1)
}

/// The primitive that a reference body takes.
fn int_primitive<const D: usize>(x: Tensor<D, Int>) -> FlexTensor {
    x.try_into_primitive::<Flex>().unwrap()
}

/// What torch computed, from a file of `tests/fixtures/models`.
struct Fixture(Vec<u8>);

impl Fixture {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        Self(std::fs::read(folder.join(name)).unwrap())
    }

    /// A vector is a matrix of one column.
    fn matrix(&self, name: &str) -> Tensor<2> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let shape = [view.shape()[0], view.shape().get(1).copied().unwrap_or(1)];
        let numbers = view.data().chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
    }

    fn targets(&self) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor("targets").unwrap();
        let words = view.data().chunks_exact(8);
        words.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as usize).collect()
    }
}
