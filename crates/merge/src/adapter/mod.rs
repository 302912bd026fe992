//! Adapters: `LoRA` (Hu et al. 2021, arXiv 2106.09685) as PEFT stores it, without loading a model.
//!
//! - [`Adapter::open`] reads a folder and accounts for every tensor in it.
//! - [`fold`] gives the tensors of `base + adapter`, each computed where it is read.
//! - [`combine`] makes one adapter of several, without the base.
//! - [`extract`] makes an adapter of the difference of two checkpoints.

mod combine;
mod config;
mod difference;
mod extract;
mod fold;
mod folded;
mod jacobi;
mod low_rank;
mod methods;
mod names;
mod orthonormal;
mod product;
mod randomized;
mod tensors;
mod together;
mod write;

pub use combine::{Combination, Combined, CombinedModule, combine};
pub use config::AdapterConfig;
pub use extract::{
    Embeddings, ExtractOptions, Extracted, ExtractedModule, Others, RankRule, extract,
};
pub use fold::fold;
pub(crate) use fold::fold_into;
pub use folded::Folded;
pub use low_rank::LowRank;
pub(crate) use randomized::{COLUMNS, Tiles};
pub use tensors::{Adapter, Module};
