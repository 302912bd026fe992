//! The spherical methods, Model Stock, and those that choose element by element.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod edges;
mod mergekit;
mod numbers;
mod selecting;
mod spherical;
