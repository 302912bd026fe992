//! A loss of the user's own: a closure.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Loss, Pair, PairGradient};

type Function = dyn Fn(&[Pair], &[Pair]) -> Loss<PairGradient> + Send + Sync;

/// Pairs under the policy and under the reference to a loss.
#[derive(Clone)]
pub struct OwnLoss {
    function: Arc<Function>,
    /// Whether it reads the reference; without, it is given none.
    pub(super) reads_reference: bool,
}

impl OwnLoss {
    /// A loss that reads the reference.
    pub fn new(
        function: impl Fn(&[Pair], &[Pair]) -> Loss<PairGradient> + Send + Sync + 'static,
    ) -> Self {
        Self { function: Arc::new(function), reads_reference: true }
    }

    /// A loss of the policy alone.
    pub fn without_reference(
        function: impl Fn(&[Pair]) -> Loss<PairGradient> + Send + Sync + 'static,
    ) -> Self {
        let function = move |policy: &[Pair], _: &[Pair]| function(policy);
        Self { function: Arc::new(function), reads_reference: false }
    }

    pub(super) fn loss(&self, policy: &[Pair], reference: &[Pair]) -> Loss<PairGradient> {
        (self.function)(policy, reference)
    }
}

impl fmt::Debug for OwnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OwnLoss");
        shown.field("reads_reference", &self.reads_reference).finish_non_exhaustive()
    }
}

/// The same closure.
impl PartialEq for OwnLoss {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function)
    }
}

/// That there is one; a file cannot say which.
impl Serialize for OwnLoss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        std::collections::BTreeMap::<&str, bool>::new().serialize(serializer)
    }
}
