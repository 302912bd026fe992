//! What holds for every optimizer.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};

use super::super::rule::Kept;
use super::{config, noise, numbers, on_tensors, optimizer, tensor, weight};
use crate::optim::Optimizer;

/// Every optimizer, with a learning rate that suits it.
const ALL: &[(&str, f64)] = &[
    ("optim: adamw_torch", 0.05),
    ("{optim: adamw_torch_fused, weight_decay: 0.01, adam_beta1: 0.8, adam_beta2: 0.95}", 0.05),
    ("optim: adamw_8bit", 0.05),
    ("{optim: adamw_bnb_8bit, weight_decay: 0.01}", 0.05),
    ("{optim: lion_32bit, weight_decay: 0.01}", 0.02),
    ("optim: muon", 0.15),
    ("{optim: muon, optim_args: 'nesterov=false, adjust_lr_fn=match_rms_adamw'}", 0.05),
    ("optim: adafactor", 0.05),
    ("{optim: adafactor, weight_decay: 0.01, optim_args: 'beta1=0.9, scale_parameter=true'}", 0.05),
    ("{optim: adafactor, optim_args: 'relative_step=true, scale_parameter=true'}", 0.05),
    ("optim: sgd", 0.5),
    ("{optim: sgd, weight_decay: 0.01, optim_args: 'momentum=0.8'}", 0.1),
    ("{optim: sgd, optim_args: 'momentum=0.8, nesterov=true'}", 0.1),
];

const NAME: &str = "model.layers.0.mlp.up_proj.weight";
/// Large enough for codes of one byte, and with a last block that is not full.
const SHAPE: [usize; 2] = [17, 301];
const COUNT: usize = SHAPE[0] * SHAPE[1];

/// An optimizer and the weight it was made for.
struct Run {
    optimizer: Optimizer,
    weight: Tensor<2>,
    rate: f64,
}

impl Run {
    fn new(yaml: &str, rate: f64, dtype: DType) -> Self {
        let (parameter, weight) = weight(NAME, &SHAPE, noise(1, COUNT));
        let weights = [(parameter, weight.cast(dtype))];
        let optimizer = optimizer(&config(yaml), &weights);
        let [(_, weight)] = weights;
        Self { optimizer, weight, rate }
    }

    fn step(&mut self, gradient: Vec<f32>) {
        let weight = std::mem::replace(&mut self.weight, tensor([0, 0], Vec::new()));
        self.weight = self.optimizer.update(self.rate, NAME, weight, tensor(SHAPE, gradient));
    }

    /// Steps along gradients that look random.
    fn walk(mut self, steps: std::ops::Range<u64>) -> Self {
        steps.for_each(|step| self.step(noise(10 + step, COUNT)));
        self
    }

    fn bits(&self) -> Vec<u32> {
        numbers(&self.weight).iter().map(|x| x.to_bits()).collect()
    }
}

fn each(law: impl Fn(&str, f64)) {
    for &(yaml, rate) in ALL {
        law(yaml, rate);
    }
}

/// The largest difference, relative to the largest number.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn a_quadratic_is_descended() {
    each(|yaml, rate| {
        let mut run = Run::new(yaml, rate, DType::F32);
        let target = noise(2, COUNT);
        let loss = |run: &Run| {
            let off = numbers(&run.weight).into_iter().zip(&target).map(|(w, t)| (w - t).powi(2));
            off.map(f64::from).sum::<f64>() / COUNT as f64
        };
        let start = loss(&run);
        for step in 0..400 {
            run.rate = rate * (1.0 - f64::from(step) / 400.0);
            let gradient = numbers(&run.weight).iter().zip(&target).map(|(w, t)| w - t).collect();
            run.step(gradient);
        }
        let end = loss(&run);
        assert!(end < 2e-3 * start, "{yaml}: from {start} to {end}");
    });
}

#[test]
fn without_gradient_and_decay_nothing_moves() {
    each(|yaml, rate| {
        if yaml.contains("decay") {
            return;
        }
        let mut run = Run::new(yaml, rate, DType::F32);
        let before = run.bits();
        run.step(vec![0.0; COUNT]);
        run.step(vec![0.0; COUNT]);
        assert_eq!(run.bits(), before, "{yaml}");
    });
}

#[test]
fn decay_alone_shrinks_all_weights_alike() {
    each(|yaml, rate| {
        if !yaml.contains("decay") {
            return;
        }
        let mut run = Run::new(yaml, rate, DType::F32);
        let before = numbers(&run.weight);
        run.step(vec![0.0; COUNT]);
        let after = numbers(&run.weight);
        // Adafactor's rate is relative to the weights, whose root mean square is √⅓ here; SGD's
        // momentum is the gradient itself at the first step.
        let scale = if yaml.contains("scale_parameter") { (1.0 / 3.0_f64).sqrt() } else { 1.0 };
        let expected = 1.0 - rate * scale * 0.01;
        for (before, after) in before.iter().zip(after) {
            let found = f64::from(after / before);
            assert!((found - expected).abs() < 1e-5, "{yaml}: {found}, not {expected}");
        }
    });
}

#[test]
fn a_narrow_weight_is_the_image_of_its_master() {
    each(|yaml, rate| {
        let mut wide = Run::new(yaml, rate, DType::F32);
        let mut narrow = Run::new(yaml, rate, DType::BF16);
        // The same start: what bf16 can hold.
        wide.weight = narrow.weight.clone().cast(DType::F32);
        (wide, narrow) = (wide.walk(0..5), narrow.walk(0..5));
        assert_eq!(narrow.weight.dtype(), DType::BF16, "{yaml}");
        let image = numbers(&wide.weight.clone().cast(DType::BF16));
        assert_eq!(numbers(&narrow.weight), image, "{yaml}");
        let master = narrow.optimizer.slots[NAME].master.clone().unwrap();
        assert_eq!(numbers(&master), numbers(&wide.weight), "{yaml}");
    });
}

#[test]
fn steps_smaller_than_bf16_can_hold_add_up() {
    let mut run = Run::new("optim: sgd", 1e-4, DType::BF16);
    let before = numbers(&run.weight);
    for _ in 0..1000 {
        run.step(vec![1.0; COUNT]);
    }
    for (before, after) in before.iter().zip(numbers(&run.weight)) {
        assert!((before - after - 0.1).abs() < 0.005, "{before} to {after}");
    }
}

#[test]
fn saved_and_loaded_it_goes_on_bit_for_bit() {
    each(|yaml, rate| {
        for dtype in [DType::F32, DType::BF16] {
            let whole = Run::new(yaml, rate, dtype).walk(0..10);
            let half = Run::new(yaml, rate, dtype).walk(0..5);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("optimizer.safetensors");
            half.optimizer.save(&path).unwrap();
            let mut resumed = Run::new(yaml, rate, dtype);
            let device = half.weight.device();
            super::super::store::load_optimizer(&mut resumed.optimizer, &path, &device).unwrap();
            resumed.weight = half.weight.clone();
            assert_eq!(resumed.walk(5..10).bits(), whole.bits(), "{yaml} in {dtype:?}");
        }
    });
}

#[test]
fn the_weight_and_what_is_kept_stay_where_they_are() {
    let places = |run: &Run| {
        let place = |numbers: &Tensor<2>| {
            let primitive = numbers.clone().try_into_primitive::<Flex>().unwrap();
            primitive.bytes().as_ptr().addr()
        };
        let kept = run.optimizer.slots[NAME].kept.iter().map(|kept| match kept {
            Kept::Numbers(numbers) => place(numbers),
            Kept::Codes(codes) => {
                let primitive = codes.clone().try_into_primitive::<Flex>().unwrap();
                assert_eq!(primitive.bytes().len(), COUNT, "one byte each");
                primitive.bytes().as_ptr().addr()
            }
        });
        std::iter::once(place(&run.weight)).chain(kept).collect::<Vec<_>>()
    };
    each(|yaml, rate| {
        let run = Run::new(yaml, rate, DType::F32).walk(0..1);
        let before = places(&run);
        let after = places(&run.walk(1..3));
        // Adafactor's mean of updates is the one that moves.
        let movable = usize::from(yaml.contains("beta1="));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(moved <= movable, "{yaml}: {before:?} to {after:?}");
    });
}

#[test]
fn the_number_of_threads_changes_nothing() {
    each(|yaml, rate| {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Run::new(yaml, rate, DType::F32).walk(0..4).bits())
        };
        let one = with(1);
        assert_eq!(one, with(2), "{yaml}");
        assert_eq!(one, with(5), "{yaml}");
    });
}

#[test]
fn tensor_operations_give_the_same_numbers() {
    each(|yaml, rate| {
        let loops = Run::new(yaml, rate, DType::F32).walk(0..6);
        let tensors = on_tensors(|| Run::new(yaml, rate, DType::F32).walk(0..6));
        let off = distance(&numbers(&loops.weight), &numbers(&tensors.weight));
        assert!(off < 1e-5, "{yaml}: {off}");
    });
}

/// Reversing the rows of weight and gradients reverses those of the result. (Blocks of one byte
/// each go along the rows where the rows are as long as blocks.)
#[test]
fn the_order_of_the_rows_does_not_matter() {
    let shape = [16, 256];
    let reversed =
        |numbers: Vec<f32>| -> Vec<f32> { numbers.chunks(256).rev().flatten().copied().collect() };
    each(|yaml, rate| {
        let run = |order: &dyn Fn(Vec<f32>) -> Vec<f32>| {
            let weights = [weight(NAME, &shape, order(noise(1, 16 * 256)))];
            let mut optimizer = optimizer(&config(yaml), &weights);
            let [(_, mut weight)] = weights;
            for step in 0..4 {
                let gradient = tensor(shape, order(noise(10 + step, 16 * 256)));
                weight = optimizer.update(rate, NAME, weight, gradient);
            }
            order(numbers(&weight))
        };
        let off = distance(&run(&|numbers| numbers), &run(&reversed));
        let sums_over_rows = yaml.contains("muon") || yaml.contains("adafactor");
        let limit = if sums_over_rows { 1e-5 } else { 0.0 };
        assert!(off <= limit, "{yaml}: {off}");
    });
}
