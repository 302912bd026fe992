//! Which tensor goes to which file.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;

use super::index::{Index, IndexMetadata};
use super::reader::CheckpointFile;
use super::writer::SaveOptions;
use super::{INDEX, Metadata, WEIGHTS};
use crate::error::Error;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape, the slowest dimension first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// How many bytes its elements take.
    ///
    /// # Errors
    /// When the shape overflows or the last byte would be half full.
    pub fn byte_len(&self) -> Result<usize, Error> {
        let bits = self
            .shape
            .iter()
            .try_fold(self.dtype.bitsize(), |bits, &size| bits.checked_mul(size))
            .filter(|bits| bits % 8 == 0);
        bits.map(|bits| bits / 8).ok_or_else(|| Error::Input {
            what: format!("the shape of tensor `{}`", self.name),
            found: format!("{:?}", self.shape),
            expected: format!("a whole number of bytes of {}", self.dtype),
        })
    }

    fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// How the tensors of a checkpoint that was read are spread over its files.
#[derive(Debug, Clone)]
pub struct Layout {
    files: Vec<LayoutFile>,
    index: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct LayoutFile {
    name: String,
    metadata: Metadata,
    tensors: Vec<TensorSpec>,
}

impl Layout {
    pub(super) fn of(files: &[CheckpointFile], index: Option<Vec<u8>>) -> Self {
        let spec = |tensor: super::TensorView<'_>| TensorSpec {
            name: tensor.name.to_owned(),
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
        };
        let files = files.iter().map(|file| LayoutFile {
            name: file.name().to_owned(),
            metadata: file.metadata().clone(),
            tensors: file.tensors().map(spec).collect(),
        });
        Self { files: files.collect(), index }
    }

    /// The `__metadata__` of the first file.
    pub fn metadata(&self) -> &Metadata {
        &self.files[0].metadata
    }

    /// The same files again, when the tensors are the same.
    fn plan<'a>(&self, tensors: &BTreeMap<&str, &'a TensorSpec>) -> Option<Plan<'a>> {
        let count: usize = self.files.iter().map(|file| file.tensors.len()).sum();
        if count != tensors.len() {
            return None;
        }
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let same = |spec: &TensorSpec| {
                tensors.get(spec.name.as_str()).copied().filter(|found| *found == spec)
            };
            let tensors = file.tensors.iter().map(same).collect::<Option<Vec<_>>>()?;
            files.push(PlannedFile {
                name: file.name.clone(),
                metadata: file.metadata.clone(),
                tensors,
            });
        }
        Some(Plan { files, index: self.index.clone() })
    }
}

/// What a save will write.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) files: Vec<PlannedFile<'a>>,
    pub(super) index: Option<Vec<u8>>,
}

/// One weight file of a [`Plan`].
#[derive(Debug)]
pub(super) struct PlannedFile<'a> {
    pub(super) name: String,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<&'a TensorSpec>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(tensors: &'a [TensorSpec], options: &SaveOptions) -> Result<Self, Error> {
        let by_name: BTreeMap<&str, &TensorSpec> =
            tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        if by_name.len() != tensors.len() || by_name.is_empty() {
            let mut seen = BTreeSet::new();
            let twice = tensors.iter().find(|tensor| !seen.insert(&tensor.name));
            return Err(Error::Input {
                what: "the tensors to save".to_owned(),
                found: twice.map_or("none".to_owned(), |twice| format!("`{}` twice", twice.name)),
                expected: "different names".to_owned(),
            });
        }
        if let Some(plan) = options.layout.as_ref().and_then(|layout| layout.plan(&by_name)) {
            return Ok(plan);
        }
        let shards = shards(tensors, options.max_shard_size)?;
        let metadata = &options.metadata;
        if let [_] = shards.as_slice() {
            let file = |tensors| PlannedFile {
                name: WEIGHTS.to_owned(),
                metadata: metadata.clone(),
                tensors,
            };
            return Ok(Self { files: shards.into_iter().map(file).collect(), index: None });
        }
        let count = shards.len();
        let file = |(i, tensors)| PlannedFile {
            name: format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            metadata: metadata.clone(),
            tensors,
        };
        let files: Vec<PlannedFile<'a>> = shards.into_iter().enumerate().map(file).collect();
        let index = index(&files, options.total_parameters)?;
        Ok(Self { files, index: Some(index) })
    }

    /// The names of the weight files and the index.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let index = self.index.is_some().then_some(INDEX);
        self.files.iter().map(|file| file.name.as_str()).chain(index)
    }
}

fn index(files: &[PlannedFile<'_>], parameters: Option<u64>) -> Result<Vec<u8>, Error> {
    let mut metadata = IndexMetadata { total_parameters: 0, total_size: 0 };
    let mut weight_map = BTreeMap::new();
    for file in files {
        for tensor in &file.tensors {
            metadata.total_parameters += tensor.elements();
            metadata.total_size += tensor.byte_len()? as u64;
            weight_map.insert(tensor.name.as_str(), file.name.as_str());
        }
    }
    metadata.total_parameters = parameters.unwrap_or(metadata.total_parameters);
    Ok(Index { metadata, weight_map }.to_bytes())
}

/// The rule of `huggingface_hub`: fill a shard in the order given until the next tensor would
/// exceed it; a tensor that is too large for any shard gets its own, before the one being filled.
fn shards(tensors: &[TensorSpec], max: u64) -> Result<Vec<Vec<&TensorSpec>>, Error> {
    let mut full = Vec::new();
    let mut open = Vec::new();
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.byte_len()? as u64;
        if bytes > max {
            full.push(vec![tensor]);
            continue;
        }
        if size + bytes > max {
            full.push(std::mem::take(&mut open));
            size = 0;
        }
        open.push(tensor);
        size += bytes;
    }
    if !open.is_empty() {
        full.push(open);
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, elements: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype: Dtype::U8, shape: vec![elements] }
    }

    fn names(tensors: &[TensorSpec], max: u64) -> Vec<Vec<&str>> {
        let shards = shards(tensors, max).unwrap();
        shards.into_iter().map(|shard| shard.iter().map(|t| t.name.as_str()).collect()).collect()
    }

    #[test]
    fn shards_fill_in_order_and_giants_go_first() {
        // The example of huggingface_hub's documentation.
        let tensors = ["a", "b", "c", "d", "e", "f"].into_iter().zip([6, 6, 2, 6, 2, 2]);
        let tensors: Vec<TensorSpec> = tensors.map(|(name, size)| spec(name, size)).collect();
        assert_eq!(names(&tensors, 10), [vec!["a"], vec!["b", "c"], vec!["d", "e", "f"]]);
        let giant = [spec("a", 1), spec("giant", 11), spec("b", 1)];
        assert_eq!(names(&giant, 10), [vec!["giant"], vec!["a", "b"]]);
    }

    #[test]
    fn names_must_differ() {
        let options = SaveOptions::default();
        let twice = [spec("a", 1), spec("a", 2)];
        let error = Plan::new(&twice, &options).unwrap_err().to_string();
        assert_eq!(error, "the tensors to save is `a` twice, expected different names");
        assert!(Plan::new(&[], &options).is_err());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(spec("a", usize::MAX).byte_len().is_err());
        let half = TensorSpec { name: "h".into(), dtype: Dtype::F4, shape: vec![3] };
        assert!(half.byte_len().is_err());
    }
}
