//! Tests of the preference losses: TRL's numbers, numbers by hand, laws for all.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod by_hand;
mod config;
mod laws;
mod parity;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Settings as users write them.
fn setting<T: DeserializeOwned>(config: &Value) -> T {
    serde_json::from_value(config.clone()).unwrap()
}
