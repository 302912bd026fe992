//! BLAKE3 of tensors, taken while their bytes are still in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use blake3::Hash;
use rayon::prelude::*;

use crate::checkpoint::Tensor;
use crate::plan::{Output, Plan};

/// The BLAKE3 of these bytes, which `b3sum` prints too.
pub(crate) fn of(bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    // Below this, sharing the work costs more than it saves.
    if bytes.len() < 1 << 17 {
        hasher.update(bytes);
    } else {
        hasher.update_rayon(bytes);
    }
    hasher.finalize()
}

/// The hashes of every tensor of the inputs: of those that are merged when they are merged, and of the
/// rest at the end.
#[derive(Debug)]
pub(crate) struct InputHashes<'a> {
    plan: &'a Plan,
    begun: Mutex<HashSet<(usize, &'a str)>>,
    hashes: Mutex<Vec<BTreeMap<String, Hash>>>,
}

impl<'a> InputHashes<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let hashes = Mutex::new(vec![BTreeMap::new(); plan.inputs().len()]);
        Self { plan, begun: Mutex::default(), hashes }
    }

    /// Hashes the tensors that this output is read from.
    pub(crate) fn add(&self, output: &'a Output) {
        for (input, tensor) in output.stored() {
            if let Some(name) = self.plan.inputs()[input].name_of(tensor) {
                self.one(input, name, tensor);
            }
        }
    }

    /// The hash of a tensor that is copied as it is.
    pub(crate) fn of_copy(&self, input: usize, tensor: &Tensor) -> Hash {
        let hash = of(tensor.bytes());
        if let Some(name) = self.plan.inputs()[input].name_of(tensor) {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.insert((input, name));
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes[input].insert(name.to_owned(), hash);
        }
        hash
    }

    /// Hashes what no output was read from.
    pub(crate) fn rest(&self) {
        for (index, input) in self.plan.inputs().iter().enumerate() {
            input.stored().par_iter().for_each(|(name, tensor)| self.one(index, name, tensor));
        }
    }

    fn one(&self, input: usize, name: &'a str, tensor: &Tensor) {
        let fresh = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.insert((input, name))
        };
        if fresh {
            let hash = of(tensor.bytes());
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes[input].insert(name.to_owned(), hash);
        }
    }

    pub(crate) fn finish(self) -> Vec<BTreeMap<String, Hash>> {
        self.hashes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
