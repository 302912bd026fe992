//! The matrix of a linear layer: a parameter, or frozen in few bits.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param,
};
use burn::tensor::{Device, Tensor};

use crate::kernel;
use crate::quant::Quantized;

/// `[out, in]`, as in the checkpoint.
///
/// Walks over a module meet the parameter under the name of the field, and no parameter where the
/// matrix is quantised: it is never trained.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A parameter.
    Dense(Param<Tensor<2>>),
    /// Codes of four or eight bits.
    Quantized(Box<Quantized>),
}

impl Weight {
    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(param) => param.lazy_shape().dims(),
            Self::Quantized(codes) => codes.dims(),
        }
    }

    /// The parameter, if it is one.
    pub fn dense(&self) -> Option<&Param<Tensor<2>>> {
        match self {
            Self::Dense(param) => Some(param),
            Self::Quantized(_) => None,
        }
    }

    /// The matrix as numbers, without a graph: those of the parameter, or those that the codes
    /// stand for, in f32.
    pub fn numbers(&self) -> Tensor<2> {
        match self {
            Self::Dense(param) => plain(param.val()),
            Self::Quantized(codes) => codes.dequantize(),
        }
    }

    /// x Wᵀ: `[.., in]` to `[.., out]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Dense(param) => kernel::linear(x, param.val()),
            Self::Quantized(codes) => kernel::quantized::linear(x, &codes.parts()),
        }
    }

    /// Σ w² of each row, without a graph.
    pub(crate) fn row_squares(&self) -> Tensor<1> {
        match self {
            Self::Dense(param) => kernel::lora::row_squares(plain(param.val())),
            Self::Quantized(codes) => kernel::quantized::row_squares(&codes.parts()),
        }
    }
}

/// The numbers without the graph.
pub(crate) fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() { tensor.inner() } else { tensor }
}

impl From<Param<Tensor<2>>> for Weight {
    fn from(param: Param<Tensor<2>>) -> Self {
        Self::Dense(param)
    }
}

impl Module for Weight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Dense(param) => param.collect_devices(devices),
            Self::Quantized(codes) => codes.collect_devices(devices),
        }
    }
    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.fork(device)),
            Self::Quantized(codes) => Self::Quantized(Box::new(codes.fork(device))),
        }
    }
    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.to_device(device)),
            Self::Quantized(codes) => Self::Quantized(Box::new(codes.to_device(device))),
        }
    }
    fn train(self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.train()),
            Self::Quantized(codes) => Self::Quantized(Box::new(codes.train())),
        }
    }
    fn valid(&self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.valid()),
            Self::Quantized(codes) => Self::Quantized(Box::new(codes.valid())),
        }
    }
    fn materialize(self) -> Self {
        self
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        if let Self::Dense(param) = self {
            Module::visit(param, visitor);
        }
    }
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(Module::map(param, mapper)),
            codes @ Self::Quantized(_) => codes,
        }
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Dense(param) => ModuleDisplayDefault::content(param, content),
            Self::Quantized(codes) => ModuleDisplayDefault::content(&**codes, content),
        }
    }
}

impl ModuleDisplay for Weight {}
