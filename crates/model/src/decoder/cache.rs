//! Keys and values of the tokens so far.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};

use super::Decoder;
use super::logprobs::indices;
use super::places::{Layout, Places};
use crate::error::Error;
use crate::kernel;

/// Room for the keys and values of several sequences, each as long as it is. It grows as needed.
///
/// ```no_run
/// use posttrain_model::{Decoder, KvCache, device};
/// let model = Decoder::load("path/to/checkpoint", &device::open("flex")?)?;
/// let mut cache = KvCache::new(&model, 2);
/// let hidden = model.forward_cached(&[(0, &[1, 15, 27]), (1, &[9])], &mut cache)?; // [4, hidden_size]
/// let hidden = model.forward_cached(&[(0, &[42])], &mut cache)?; // [1, hidden_size]
/// assert_eq!((cache.len(0), cache.len(1)), (4, 1));
/// # Ok::<(), posttrain_model::Error>(())
/// ```
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `[sequences, capacity, num_key_value_heads, head_dim]`.
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    lengths: Vec<usize>,
    capacity: usize,
    shape: [usize; 2],
    dtype: DType,
    device: Device,
}

/// Keys and values of one layer, to be written and read back.
pub(super) struct LayerCache<'a>(&'a mut Option<(Tensor<4>, Tensor<4>)>);

/// Keys and values of some tokens of a sequence, layer by layer:
/// `[1, tokens, num_key_value_heads, head_dim]`.
pub(crate) type Segment = Vec<(Tensor<4>, Tensor<4>)>;

/// The tokens `range` of a segment, in memory of their own.
pub(crate) fn part(segment: &Segment, range: Range<usize>) -> Segment {
    let Some((k, _)) = segment.first() else { return Segment::new() };
    let places = indices(range, &k.device());
    let of = |tensor: &Tensor<4>| tensor.clone().select(1, places.clone());
    segment.iter().map(|(k, v)| (of(k), of(v))).collect()
}

/// Places of the first allocation.
const FIRST_CAPACITY: usize = 64;

impl KvCache {
    /// An empty cache for `sequences` sequences.
    pub fn new(model: &Decoder, sequences: usize) -> Self {
        let config = model.config();
        Self {
            layers: (0..config.num_hidden_layers).map(|_| None).collect(),
            lengths: vec![0; sequences],
            capacity: 0,
            shape: [config.num_key_value_heads, config.head_dim],
            dtype: model.compute,
            device: model.device(),
        }
    }

    /// An empty cache with room for `places` tokens in each sequence.
    pub(crate) fn with_capacity(model: &Decoder, sequences: usize, places: usize) -> Self {
        let mut cache = Self::new(model, sequences);
        cache.reserve(places);
        cache
    }

    /// Appends tokens whose keys and values are known to a sequence. There has to be room.
    pub(crate) fn put(&mut self, sequence: usize, segment: &Segment) {
        let Some((k, _)) = segment.first() else { return };
        let ([_, tokens, _, _], start) = (k.dims(), self.lengths[sequence]);
        let from = sequence * self.capacity + start;
        let places = indices(from..from + tokens, &self.device);
        for (layer, (new_k, new_v)) in self.layers.iter_mut().zip(segment) {
            // Taken out, so that nobody else holds them and they are written in place.
            let (k, v) = layer.take().expect("room was made for the tokens");
            let k = kernel::cache_write(k, new_k.clone(), places.clone());
            let v = kernel::cache_write(v, new_v.clone(), places.clone());
            *layer = Some((k, v));
        }
        self.lengths[sequence] = start + tokens;
    }

    /// The keys and values of the tokens `range` of a sequence, in memory of their own.
    pub(crate) fn segment(&self, sequence: usize, range: Range<usize>) -> Segment {
        let from = sequence * self.capacity;
        let places = indices(from + range.start..from + range.end, &self.device);
        let of = |tensor: &Tensor<4>| {
            let [sequences, capacity, heads, dim] = tensor.dims();
            let all = tensor.clone().reshape([1, sequences * capacity, heads, dim]);
            all.select(1, places.clone())
        };
        self.layers.iter().flatten().map(|(k, v)| (of(k), of(v))).collect()
    }

    /// Tokens of a sequence.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn len(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Whether no sequence has a token.
    pub fn is_empty(&self) -> bool {
        self.lengths.iter().all(|&length| length == 0)
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Forgets all tokens of a sequence from `length` on.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        self.lengths[sequence] = self.lengths[sequence].min(length);
    }

    /// Forgets a sequence and its numbers: where one was not finite, hidden keys would spoil the
    /// next text on devices that multiply them by zero.
    pub(crate) fn clear(&mut self, sequence: usize) {
        self.lengths[sequence] = 0;
        for (k, v) in self.layers.iter_mut().flatten() {
            let [_, capacity, heads, dim] = k.dims();
            let place = [sequence..sequence + 1, 0..capacity, 0..heads, 0..dim];
            let zeros = k.clone().slice(place.clone()).zeros_like();
            *k = k.clone().slice_assign(place.clone(), zeros.clone());
            *v = v.clone().slice_assign(place, zeros);
        }
    }

    /// Makes room for new ids of some sequences, and says where they go.
    pub(super) fn append(&mut self, parts: &[(usize, &[u32])]) -> Result<Layout, Error> {
        let input = |what: String, found: String, expected: String| {
            Err(Error::Input { what, found, expected })
        };
        let sequences: Vec<usize> = parts.iter().map(|(sequence, _)| *sequence).collect();
        for (index, (sequence, ids)) in parts.iter().enumerate() {
            if *sequence >= self.lengths.len() || sequences[..index].contains(sequence) {
                let expected = format!("different ones below {}", self.lengths.len());
                return input("the list of sequences".into(), format!("{sequences:?}"), expected);
            }
            if ids.is_empty() {
                let what = format!("the number of new ids of sequence {sequence}");
                return input(what, "0".into(), "at least one".into());
            }
        }
        let ends = parts.iter().map(|(sequence, ids)| self.lengths[*sequence] + ids.len());
        let Some(keys) = ends.max() else {
            let what = "the list of sequences".into();
            return input(what, "empty".into(), "at least one".into());
        };
        self.reserve(keys);
        let mut layout = Layout::new(keys, Some(self.capacity));
        for (sequence, ids) in parts {
            let start = self.lengths[*sequence];
            let end = start + ids.len();
            (start..end).for_each(|place| layout.push(place, 0, place, end));
            layout.end_row(*sequence);
            self.lengths[*sequence] = end;
        }
        Ok(layout)
    }

    /// Room for `places` tokens in each sequence; at least doubled, so that growing is rare.
    fn reserve(&mut self, places: usize) {
        if places <= self.capacity {
            return;
        }
        self.capacity = places.max(2 * self.capacity).max(FIRST_CAPACITY);
        let shape = [self.lengths.len(), self.capacity, self.shape[0], self.shape[1]];
        for layer in &mut self.layers {
            let grown = |old: Option<Tensor<4>>| {
                let new = Tensor::zeros(shape, (&self.device, self.dtype));
                match old {
                    Some(old) => {
                        let [sequences, capacity, heads, dim] = old.dims();
                        new.slice_assign([0..sequences, 0..capacity, 0..heads, 0..dim], old)
                    }
                    None => new,
                }
            };
            let (k, v) = layer.take().map_or((None, None), |(k, v)| (Some(k), Some(v)));
            *layer = Some((grown(k), grown(v)));
        }
    }

    pub(super) fn layer(&mut self, index: usize) -> LayerCache<'_> {
        LayerCache(&mut self.layers[index])
    }
}

impl LayerCache<'_> {
    /// Adds new keys and values, and returns all.
    pub(super) fn write(
        self,
        k: Tensor<4>,
        v: Tensor<4>,
        places: &Places,
    ) -> (Tensor<4>, Tensor<4>) {
        // Taken out, so that nobody else holds them and they are written in place.
        let (old_k, old_v) = self.0.take().expect("room was made for the tokens");
        let places = places.write.clone().expect("places for a cache");
        let k = kernel::cache_write(old_k, k, places.clone());
        let v = kernel::cache_write(old_v, v, places);
        *self.0 = Some((k.clone(), v.clone()));
        (k, v)
    }
}
