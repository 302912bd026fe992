//! NuSLERP, Multi-SLERP, Karcher mean, Model Stock, SCE, RAM, RAM+, NearSwap, Arcee Fusion, passthrough.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod edges;
mod mergekit;
mod numbers;
mod selecting;
mod spherical;
