//! Keys and values of the tokens so far.

use burn::tensor::{DType, Device, Tensor};

use super::Decoder;
use super::places::{Layout, Places};
use crate::error::Error;
use crate::kernel;

/// Room for the keys and values of several sequences, each as long as it is. It grows as needed.
///
/// ```no_run
/// use posttrain_model::{Decoder, KvCache, device};
/// let model = Decoder::load("path/to/checkpoint", &device::open("flex")?)?;
/// let mut cache = KvCache::new(&model, 1);
/// let hidden = model.forward_cached(&[1, 15, 27], &[0], &mut cache)?; // [1, 3, hidden_size]
/// let hidden = model.forward_cached(&[42], &[0], &mut cache)?; // [1, 1, hidden_size]
/// assert_eq!(cache.len(0), 4);
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

    /// Makes room for `tokens` tokens shared evenly among the sequences, and says where they go.
    pub(super) fn append(&mut self, sequences: &[usize], tokens: usize) -> Result<Layout, Error> {
        let input = |what: &str, found: String, expected: &str| {
            Err(Error::Input { what: what.into(), found, expected: expected.into() })
        };
        if sequences.is_empty() || tokens == 0 || !tokens.is_multiple_of(sequences.len()) {
            let found = format!("{tokens} for {} sequences", sequences.len());
            return input(
                "the number of tokens",
                found,
                "the same number for each sequence, not 0",
            );
        }
        for (index, &sequence) in sequences.iter().enumerate() {
            if sequence >= self.lengths.len() || sequences[..index].contains(&sequence) {
                let expected = format!("different ones below {}", self.lengths.len());
                return input("the list of sequences", format!("{sequences:?}"), &expected);
            }
        }
        let time = tokens / sequences.len();
        let keys = sequences.iter().map(|&s| self.lengths[s] + time).max().unwrap_or(0);
        self.reserve(keys);
        let mut layout = Layout::new(sequences.len(), time, keys);
        for &sequence in sequences {
            let start = self.lengths[sequence];
            for place in start..start + time {
                layout.push(place, 0, place, start + time);
            }
            layout.sequences.push(sequence);
            self.lengths[sequence] = start + time;
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
        let (sequences, starts) = places.write.clone().expect("places for a cache");
        let k = kernel::cache_write(old_k, k, sequences.clone(), starts.clone());
        let v = kernel::cache_write(old_v, v, sequences, starts);
        *self.0 = Some((k.clone(), v.clone()));
        (k, v)
    }
}
