//! Attention over intervals of keys, and writes into a cache.

use burn::backend::Flex;
use burn::tensor::{Device, IntDType, Tensor, TensorData, activation};

use super::{Any, Case, any, contiguous, int_primitive, int_rows, ints, ranked};
use crate::kernel::{self, Scores, Visible, reference};

/// An attention over two of three sequences.
struct Form {
    queries: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    capacity: usize,
    low: Vec<usize>,
    high: Vec<usize>,
    scores: Scores,
    ints: IntDType,
}

const SEQUENCES: [usize; 2] = [2, 0];

impl Form {
    /// Row 0 sees a window of 5 keys behind an offset of 2, row 1 packed pieces of 7.
    fn new([queries, heads, kv_heads, dim]: [usize; 4], softcap: Option<f32>) -> Self {
        let keys = queries + 3;
        let rows = || 0..queries;
        Self {
            queries,
            heads,
            kv_heads,
            dim,
            capacity: keys + 4,
            low: rows()
                .map(|i| (i + 3_usize).saturating_sub(5))
                .chain(rows().map(|i| i / 7 * 7))
                .collect(),
            high: rows().map(|i| i + 3).chain(rows().map(|i| i + 1)).collect(),
            scores: Scores { scale: 0.7, softcap, keys },
            ints: if queries % 2 == 0 { IntDType::I64 } else { IntDType::I32 },
        }
    }

    fn visible(&self, device: &Device) -> Visible {
        Visible {
            sequences: ints(&SEQUENCES, self.ints, device),
            low: int_rows(&self.low, 2, self.ints, device),
            high: int_rows(&self.high, 2, self.ints, device),
        }
    }

    /// Row by row and head by head.
    fn plain(&self, x: &[Any]) -> Any {
        let [q, k, v] = [0, 1, 2].map(|i| ranked::<4>(&x[i]));
        let keys = self.scores.keys;
        let part = |x: &Tensor<4>, row: usize, head: usize, length: usize| {
            let part = x.clone().narrow(0, row, 1).narrow(1, 0, length).narrow(2, head, 1);
            part.reshape([length, self.dim])
        };
        let row_of = |(row, sequence): (usize, usize)| {
            let hidden = (0..self.queries * keys).map(|i| {
                let (place, key) = (row * self.queries + i / keys, i % keys);
                if (self.low[place]..self.high[place]).contains(&key) { 0.0 } else { -1e30 }
            });
            let hidden = TensorData::new(hidden.collect::<Vec<f32>>(), [self.queries, keys]);
            let hidden = Tensor::<2>::from_data(hidden, &q.device());
            let head_of = |head: usize| {
                let kv = head / (self.heads / self.kv_heads);
                let s = part(&q, row, head, self.queries)
                    .matmul(part(&k, sequence, kv, keys).transpose())
                    * self.scores.scale;
                let s = match self.scores.softcap {
                    Some(cap) => (s / cap).tanh() * cap,
                    None => s,
                };
                let o = activation::softmax(s.clone() + hidden.clone().cast(s.dtype()), 1);
                o.matmul(part(&v, sequence, kv, keys)).reshape([1, self.queries, 1, self.dim])
            };
            Tensor::cat((0..self.heads).map(head_of).collect(), 2)
        };
        any(Tensor::cat(SEQUENCES.into_iter().enumerate().map(row_of).collect(), 0))
    }
}

#[test]
fn attention() {
    let forms = [
        Form::new([1, 1, 1, 1], None),
        Form::new([1, 6, 2, 12], Some(2.0)),
        Form::new([5, 3, 3, 7], None),
        Form::new([8, 4, 2, 16], Some(0.5)),
        Form::new([67, 2, 1, 33], None),
        // More keys than a task has, and windows over the border of two tasks.
        Form::new([530, 1, 1, 8], None),
    ];
    for form in forms {
        let kv = [3, form.capacity, form.kv_heads, form.dim];
        let case = Case {
            name: "attention",
            shapes: &[&[2, form.queries, form.heads, form.dim], &kv, &kv],
            kernel: &|x| {
                let visible = form.visible(&x[0].device());
                let [q, k, v] = [0, 1, 2].map(|i| ranked(&x[i]));
                any(kernel::attention(q, k, v, &visible, form.scores))
            },
            plain: &|x| form.plain(x),
            reference: &|x| {
                let Visible { sequences, low, high } = form.visible(&Device::flex());
                let sequences = int_primitive(sequences);
                let (low, high) = (int_primitive(low), int_primitive(high));
                let [q, k, v] = [0, 1, 2].map(|i| x[i].clone());
                reference::attention::<Flex>(q, k, v, sequences, low, high, form.scores).0
            },
        };
        case.check();
        case.check_types(None);
    }
}

#[test]
fn cache_write() {
    // Places in sequences of their own, the last two to the end; unequal numbers of tokens.
    for (cache, new, places) in [
        ([1, 1, 1, 1], [1, 1, 1, 1], vec![0]),
        ([4, 9, 2, 5], [2, 3, 2, 5], vec![33, 34, 35, 9, 10, 11]),
        ([3, 20, 3, 7], [3, 1, 3, 7], vec![39, 4, 51]),
        ([3, 6, 1, 4], [1, 5, 1, 4], vec![14, 2, 3, 4, 5]),
        ([2, 17, 1, 33], [2, 17, 1, 33], (17..34).chain(0..17).collect()),
    ] {
        let dtype = if new[1] == 1 { IntDType::I64 } else { IntDType::I32 };
        let plain = |x: &[Any]| {
            let (mut y, new) = (ranked::<4>(&x[0]), ranked::<4>(&x[1]));
            let ([_, capacity, heads, dim], [batch, time, _, _]) = (y.dims(), new.dims());
            let new = new.reshape([1, batch * time, heads, dim]);
            for (token, &place) in places.iter().enumerate() {
                let (sequence, key) = (place / capacity, place % capacity);
                let at = [sequence..sequence + 1, key..key + 1, 0..heads, 0..dim];
                y = y.slice_assign(at, new.clone().narrow(1, token, 1));
            }
            any(y)
        };
        let write = |x: &[Any]| {
            let places = ints(&places, dtype, &x[0].device());
            any(kernel::cache_write(ranked(&x[0]), ranked(&x[1]), places))
        };
        let case = Case {
            name: "cache_write",
            shapes: &[&cache, &new],
            kernel: &write,
            plain: &plain,
            reference: &|x| {
                let places = int_primitive(ints(&places, dtype, &Device::flex()));
                reference::cache_write::<Flex>(x[0].clone(), x[1].clone(), places)
            },
        };
        case.check();
        case.check_types(None);
    }
}

#[test]
fn a_cache_is_written_in_place_unless_somebody_else_holds_it() {
    let place =
        |x: &Tensor<4>| x.clone().try_into_primitive::<Flex>().unwrap().bytes().as_ptr().addr();
    let cache = contiguous(&[2, 8, 1, 3], 1);
    let new = Any::from_primitive::<Flex>(contiguous(&[1, 2, 1, 3], 2));
    let numbers = |x: Tensor<4>| x.into_data().try_into_vec::<f32>().unwrap();
    let write = |cache| {
        let places = ints(&[13, 14], IntDType::I32, &new.device());
        kernel::cache_write(cache, ranked(&new), places)
    };

    let held = Tensor::<4>::from_primitive::<Flex>(cache.clone());
    let before = numbers(held.clone());
    let copy = write(held.clone());
    assert_eq!(numbers(held.clone()), before);
    assert_ne!(place(&copy), place(&held));
    assert_ne!(numbers(copy.clone()), before);

    let at = place(&copy);
    assert_eq!(place(&write(copy)), at);
}
