//! Where the tokens of a pass stand: which keys they see, and their rotation.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::Config;
use crate::kernel::Visible;

/// The places of the tokens of one pass, `[batch, time]`, on the host.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) batch: usize,
    pub(super) time: usize,
    /// No token sees a key from this place on.
    pub(super) keys: usize,
    /// For each row its sequence among the keys.
    pub(super) sequences: Vec<usize>,
    /// For each token the place of its own key in the sequence,
    pub(super) key: Vec<usize>,
    /// the first key of its text,
    first: Vec<usize>,
    /// its position in the text,
    position: Vec<u32>,
    /// and the length of the text so far, which dynamic rotary scaling wants to know.
    length: Vec<usize>,
}

impl Layout {
    pub(super) fn new(batch: usize, time: usize, keys: usize) -> Self {
        let tokens = batch * time;
        Self {
            batch,
            time,
            keys,
            sequences: Vec::with_capacity(batch),
            key: Vec::with_capacity(tokens),
            first: Vec::with_capacity(tokens),
            position: Vec::with_capacity(tokens),
            length: Vec::with_capacity(tokens),
        }
    }

    /// The next token.
    pub(super) fn push(&mut self, key: usize, first: usize, position: usize, length: usize) {
        self.key.push(key);
        self.first.push(first);
        self.position.push(position as u32);
        self.length.push(length);
    }
}

/// The places on the device, shared by all layers.
pub(super) struct Places {
    pub(super) keys: usize,
    /// Sequence and first place of each row, for writing into a cache.
    pub(super) write: Option<(Tensor<1, Int>, Tensor<1, Int>)>,
    ropes: Vec<(Tensor<2>, Tensor<2>)>,
    visible: Vec<(Option<usize>, Visible)>,
}

impl Places {
    pub(super) fn new(
        config: &Config,
        layout: &Layout,
        cached: bool,
        compute: DType,
        device: &Device,
    ) -> Self {
        let mut windows: Vec<_> = config.layers.iter().map(|layer| layer.sliding_window).collect();
        windows.sort_unstable();
        windows.dedup();
        let sequences = ints(layout.sequences.iter().copied(), device);
        let visible = windows
            .into_iter()
            .map(|window| (window, visible(layout, window, sequences.clone(), device)))
            .collect();
        let starts = || ints(layout.key.iter().copied().step_by(layout.time), device);
        Self {
            keys: layout.keys,
            write: cached.then(|| (sequences.clone(), starts())),
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
}

fn visible(
    layout: &Layout,
    window: Option<usize>,
    sequences: Tensor<1, Int>,
    device: &Device,
) -> Visible {
    let low = layout.key.iter().zip(&layout.first).map(|(&key, &first)| match window {
        Some(window) => first.max((key + 1).saturating_sub(window)),
        None => first,
    });
    let shape = [layout.batch, layout.time];
    Visible {
        sequences,
        low: ints(low, device).reshape(shape),
        high: ints(layout.key.iter().map(|&key| key + 1), device).reshape(shape),
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
