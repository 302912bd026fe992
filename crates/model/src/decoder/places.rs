//! Where the tokens of a pass stand: which keys they see, and their rotation.
//!
//! Rows of unequal numbers of tokens lie one behind the other, so that no layer works on padding;
//! only for the attention are the queries laid out as filled-up rows.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::Noise;
use crate::config::Config;
use crate::kernel::Visible;

/// The places of the tokens of one pass, row after row, on the host.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// For each row its sequence among the keys.
    sequences: Vec<usize>,
    /// For each row its tokens.
    tokens: Vec<usize>,
    /// No token sees a key from this place on.
    keys: usize,
    /// Places of each sequence in the cache, if there is one.
    capacity: Option<usize>,
    /// For each sequence the tokens whose keys it has, where they are not a row of the tokens.
    shared: Vec<Vec<usize>>,
    /// Whether these are some of the tokens of a pass.
    few: bool,
    /// For each token the place of its own key in the sequence,
    key: Vec<usize>,
    /// the first key of its text,
    first: Vec<usize>,
    /// its position in the text,
    position: Vec<u32>,
    /// and the length of the text so far, which dynamic rotary scaling wants to know.
    length: Vec<usize>,
}

impl Layout {
    /// Without tokens yet, of which none will see a key from `keys` on.
    pub(super) fn new(keys: usize, capacity: Option<usize>) -> Self {
        Self {
            sequences: Vec::new(),
            tokens: Vec::new(),
            keys,
            capacity,
            shared: Vec::new(),
            few: false,
            key: Vec::new(),
            first: Vec::new(),
            position: Vec::new(),
            length: Vec::new(),
        }
    }

    /// The next token.
    pub(super) fn push(&mut self, key: usize, first: usize, position: usize, length: usize) {
        self.key.push(key);
        self.first.push(first);
        self.position.push(position as u32);
        self.length.push(length);
    }

    /// The tokens since the last row are a row of this sequence.
    pub(super) fn end_row(&mut self, sequence: usize) {
        let tokens = self.key.len() - self.tokens.iter().sum::<usize>();
        self.sequences.push(sequence);
        self.tokens.push(tokens);
    }

    /// The tokens since the last row are a row that sees the keys of these tokens, of which its own
    /// are the last.
    pub(super) fn end_row_of(&mut self, keys: Vec<usize>) {
        self.end_row(self.shared.len());
        self.shared.push(keys);
    }

    /// Some of the tokens, in ascending order: they see the same keys.
    pub(super) fn few(&self, tokens: &[usize]) -> Self {
        let chosen = |all: &[usize]| tokens.iter().map(|&token| all[token]).collect();
        let mut few = Self {
            few: true,
            key: chosen(&self.key),
            first: chosen(&self.first),
            position: tokens.iter().map(|&token| self.position[token]).collect(),
            length: chosen(&self.length),
            ..Self::new(self.keys, None)
        };
        let mut start = 0;
        for (&sequence, &count) in self.sequences.iter().zip(&self.tokens) {
            let row = start..start + count;
            start += count;
            let own = tokens.iter().filter(|&token| row.contains(token)).count();
            if own > 0 {
                few.sequences.push(sequence);
                few.tokens.push(own);
            }
        }
        few
    }

    /// `[rows, tokens of the longest]`.
    fn rows(&self) -> [usize; 2] {
        [self.tokens.len(), self.tokens.iter().copied().max().unwrap_or(0)]
    }

    fn is_ragged(&self) -> bool {
        let [rows, time] = self.rows();
        rows * time != self.key.len() || !self.shared.is_empty() || self.few
    }

    /// The shape in which the tokens pass the layers: rows, or all of them in one.
    pub(super) fn shape(&self) -> [usize; 2] {
        if self.is_ragged() { [1, self.key.len()] } else { self.rows() }
    }

    /// For each place of the filled-up rows a token, and whether it is the token's own place.
    /// The places behind a row's end have its last token.
    fn filled(&self) -> Vec<(usize, bool)> {
        let [_, time] = self.rows();
        let (mut places, mut start) = (Vec::new(), 0);
        for &tokens in &self.tokens {
            places.extend((0..time).map(|i| (start + i.min(tokens - 1), i < tokens)));
            start += tokens;
        }
        places
    }
}

/// The places on the device, shared by all layers.
pub(super) struct Places {
    pub(super) keys: usize,
    /// Of a training pass.
    pub(super) noise: Option<Noise>,
    /// For each token its place in a cache, counted through all sequences.
    pub(super) write: Option<Tensor<1, Int>>,
    ragged: Option<Ragged>,
    /// For each place of each sequence of keys its token, `[sequences, keys]`.
    shared: Option<Tensor<2, Int>>,
    ropes: Vec<(Tensor<2>, Tensor<2>)>,
    visible: Vec<(Option<usize>, Visible)>,
}

/// Tokens of which alone the last layer is wanted: nothing comes behind it that reads the others.
pub(super) struct Few {
    /// Which of the tokens of the pass.
    tokens: Tensor<1, Int>,
    pub(super) places: Places,
}

impl Few {
    pub(super) fn new(
        config: &Config,
        layout: &Layout,
        tokens: &[usize],
        compute: DType,
        device: &Device,
    ) -> Self {
        let places = Places::new(config, &layout.few(tokens), None, compute, device);
        Self { tokens: ints(tokens.iter().copied(), device), places }
    }

    /// Their rows of `[batch, time, width]`, `[1, tokens, width]`.
    pub(super) fn of(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        x.reshape([1, batch * time, width]).select(1, self.tokens.clone())
    }
}

/// From tokens one behind the other to filled-up rows, and back.
struct Ragged {
    rows: [usize; 2],
    /// For each place of the rows its token.
    token: Tensor<1, Int>,
    /// For each token its place in the rows.
    place: Tensor<1, Int>,
}

impl Places {
    pub(super) fn new(
        config: &Config,
        layout: &Layout,
        noise: Option<Noise>,
        compute: DType,
        device: &Device,
    ) -> Self {
        let mut windows: Vec<_> = config.layers.iter().map(|layer| layer.sliding_window).collect();
        windows.sort_unstable();
        windows.dedup();
        let filled = layout.filled();
        let sequences = ints(layout.sequences.iter().copied(), device);
        let visible = windows
            .into_iter()
            .map(|window| (window, visible(layout, &filled, window, sequences.clone(), device)))
            .collect();
        let write = layout.capacity.map(|capacity| {
            let sequences = layout.sequences.iter().zip(&layout.tokens);
            let sequences = sequences.flat_map(|(&row, &tokens)| std::iter::repeat_n(row, tokens));
            let places = sequences.zip(&layout.key).map(|(row, key)| row * capacity + key);
            ints(places, device)
        });
        let ragged = layout.is_ragged().then(|| {
            let own = filled.iter().enumerate().filter(|(_, (_, own))| *own);
            Ragged {
                rows: layout.rows(),
                token: ints(filled.iter().map(|&(token, _)| token), device),
                place: ints(own.map(|(place, _)| place), device),
            }
        });
        let shared = (!layout.shared.is_empty()).then(|| {
            // Places behind a sequence's end are seen by nobody.
            let all = layout.shared.iter().flat_map(|tokens| {
                let last = tokens.last().copied().unwrap_or(0);
                tokens.iter().copied().chain(std::iter::repeat_n(last, layout.keys - tokens.len()))
            });
            ints(all, device).reshape([layout.shared.len(), layout.keys])
        });
        Self {
            keys: layout.keys,
            noise,
            write,
            ragged,
            shared,
            ropes: config
                .ropes
                .iter()
                .map(|rope| rotation(rope, layout, compute, device))
                .collect(),
            visible,
        }
    }

    /// cos and sin, `[batch * time, half]`.
    pub(super) fn rope(&self, index: usize) -> (Tensor<2>, Tensor<2>) {
        self.ropes[index].clone()
    }

    pub(super) fn visible(&self, window: Option<usize>) -> &Visible {
        let found = self.visible.iter().find(|(known, _)| *known == window);
        &found.expect("a window of the configuration").1
    }

    /// Keys, or values, as sequences, `[sequences, keys, kv_heads, dim]`.
    pub(super) fn sequences(&self, k: Tensor<4>) -> Tensor<4> {
        let Some(shared) = &self.shared else { return k };
        let [_, _, heads, dim] = k.dims();
        let [sequences, keys] = shared.dims();
        let places = shared.clone().reshape([-1]);
        k.select(1, places).reshape([sequences, keys, heads, dim])
    }

    /// Queries as rows, `[rows, time, heads, dim]`.
    pub(super) fn rows(&self, q: Tensor<4>) -> Tensor<4> {
        let Some(Ragged { rows: [rows, time], token, .. }) = &self.ragged else { return q };
        let [_, _, heads, dim] = q.dims();
        q.select(1, token.clone()).reshape([*rows, *time, heads, dim])
    }

    /// What [`Places::rows`] made of the tokens, as the tokens were.
    pub(super) fn tokens(&self, o: Tensor<4>) -> Tensor<4> {
        let Some(Ragged { rows: [rows, time], place, .. }) = &self.ragged else { return o };
        let [_, _, heads, dim] = o.dims();
        o.reshape([1, rows * time, heads, dim]).select(1, place.clone())
    }
}

fn visible(
    layout: &Layout,
    filled: &[(usize, bool)],
    window: Option<usize>,
    sequences: Tensor<1, Int>,
    device: &Device,
) -> Visible {
    let low = filled.iter().map(|&(token, own)| {
        let (key, first) = (layout.key[token], layout.first[token]);
        match window {
            // Behind a row's end one key is enough.
            _ if !own => key,
            Some(window) => first.max((key + 1).saturating_sub(window)),
            None => first,
        }
    });
    let high = filled.iter().map(|&(token, _)| layout.key[token] + 1);
    let shape = layout.rows();
    Visible {
        sequences,
        low: ints(low, device).reshape(shape),
        high: ints(high, device).reshape(shape),
    }
}

fn rotation(
    rope: &crate::rope::Rope,
    layout: &Layout,
    compute: DType,
    device: &Device,
) -> (Tensor<2>, Tensor<2>) {
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    // Runs of tokens of one length: one text, or all texts where the length does not matter.
    let mut from = 0;
    while from < layout.position.len() {
        let length = layout.length[from];
        let same = |&other: &usize| other == length || !rope.depends_on_length();
        let run = layout.length[from..].iter().take_while(|&other| same(other)).count();
        let (more_cos, more_sin) = rope.cos_sin(&layout.position[from..from + run], length);
        cos.extend(more_cos);
        sin.extend(more_sin);
        from += run;
    }
    let shape = [layout.position.len(), rope.dim / 2];
    // In half precision cos and sin are rounded as transformers rounds them.
    let floats = |numbers| {
        Tensor::<2>::from_data(TensorData::new(numbers, shape), (device, DType::F32)).cast(compute)
    };
    (floats(cos), floats(sin))
}

fn ints(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.map(|value| value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
