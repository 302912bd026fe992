//! Where the factors of an update start.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution, StandardNormal, Uniform};

use super::config::Init;
use super::matching::{Kind, Target};
use super::svd;
use crate::error::Error;
use crate::kernel::random::Stream;

/// Factors of an update, and what they take out of the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// `[r, in]`
    pub(crate) a: Tensor<2>,
    /// `[out, r]`
    pub(crate) b: Tensor<2>,
    /// Whether the same factors are subtracted from the matrix.
    pub(crate) taken_out: bool,
}

/// The factors for a matrix `[out, in]`; `weight` gives its numbers where they are wanted. For an
/// embedding `[vocab, width]` A is `[r, vocab]` and B `[width, r]`. The same seed gives the same
/// numbers, whatever other modules there are.
pub(crate) fn start(
    target: &Target,
    [out, inner]: [usize; 2],
    init: Init,
    seed: u64,
    device: &Device,
    weight: impl FnOnce() -> Tensor<2>,
) -> Result<Start, Error> {
    let rank = target.rank;
    let keys = Stream::new(seed, &target.path).keys;
    let seed = u64::from(keys[0]) | u64::from(keys[1]) << 32;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let tensor = |numbers: Vec<f32>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(numbers, shape), (device, DType::F32))
    };
    let mut normal = |count: usize, deviation: f32| -> Vec<f32> {
        let numbers = Distribution::<f32>::sample_iter(StandardNormal, &mut random);
        numbers.take(count).map(|x| x * deviation).collect()
    };
    if target.kind == Kind::Embedding {
        // As in PEFT, an embedding starts so whatever linear layers start from.
        let (vocab, width) = (out, inner);
        let a = match init {
            Init::Random => normal(rank * vocab, 1.0),
            _ => vec![0.0; rank * vocab],
        };
        let b = tensor(normal(width * rank, 1.0), [width, rank]);
        return Ok(Start { a: tensor(a, [rank, vocab]), b, taken_out: false });
    }
    let zeros = || vec![0.0; out * rank];
    let (a, b, taken_out) = match init {
        Init::Gaussian => (normal(rank * inner, 1.0 / rank as f32), zeros(), false),
        Init::Default | Init::Random => {
            // Kaiming's with a = √5: within ±1 / √fan_in.
            let mut uniform = |count: usize, fan_in: usize| -> Vec<f32> {
                let bound = 1.0 / (fan_in as f32).sqrt();
                let within = Uniform::new_inclusive(-bound, bound).expect("a positive bound");
                within.sample_iter(&mut random).take(count).collect()
            };
            let a = uniform(rank * inner, inner);
            let b = if init == Init::Random { uniform(out * rank, rank) } else { zeros() };
            (a, b, false)
        }
        Init::Pissa | Init::PissaNiter(_) | Init::Olora => {
            if rank > out.min(inner) {
                return Err(Error::ConfigField {
                    path: Path::new("the LoRA configuration").into(),
                    field: "r".into(),
                    found: format!("{rank} for `{}`, a matrix {out} by {inner}", target.path),
                    expected: "at most its smaller side, with this `init_lora_weights`".into(),
                });
            }
            let numbers = weight().into_data().convert::<f32>();
            let numbers: Vec<f32> = numbers.try_into_vec().expect("converted to f32");
            let (a, b) = decomposed(&numbers, [out, inner], init, target, seed);
            (a, b, true)
        }
    };
    Ok(Start { a: tensor(a, [rank, inner]), b: tensor(b, [out, rank]), taken_out })
}

/// A and B with s B A the part of the matrix that is trained.
fn decomposed(
    numbers: &[f32],
    shape: [usize; 2],
    init: Init,
    target: &Target,
    seed: u64,
) -> (Vec<f32>, Vec<f32>) {
    let rank = target.rank;
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
    let svd = match init {
        Init::PissaNiter(count) => svd::randomized(numbers, shape, rank, count, seed),
        Init::Pissa => svd::leading(numbers, shape, rank),
        _ => {
            // B = Q, A = R: here PEFT leaves the scale out.
            let (q, r) = svd::leading_qr(numbers, shape, rank);
            return (narrow(r), narrow(q));
        }
    };
    // B = U √(σ/s), A = √(σ/s) Vᵀ
    let roots: Vec<f64> =
        svd.sigma.iter().map(|sigma| (sigma / f64::from(target.scale)).sqrt()).collect();
    let b = svd.u.chunks(rank).flat_map(|row| row.iter().zip(&roots).map(|(u, root)| u * root));
    let a = (0..rank).flat_map(|c| {
        let (root, v) = (roots[c], &svd.v);
        v.chunks(rank).map(move |row| row[c] * root)
    });
    (narrow(a.collect()), narrow(b.collect()))
}
