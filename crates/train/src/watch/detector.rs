//! What the stream of losses, gradient norms and log-probabilities says about a run.

use serde::{Deserialize, Serialize};

use super::displacement::Displacement;
use super::divergence::Trend;
use super::exact::Exact;
use super::spike::{Limit, Window};
use super::{StepMetrics, Warning};

/// A loss is a spike from here on.
const LOSS: Limit = Limit { deviations: 8.0, relative: 0.1, absolute: 0.1 };
/// Gradient norms vary more, and clipping takes the edge off them.
const GRAD_NORM: Limit = Limit { deviations: 10.0, relative: 4.0, absolute: 0.0 };
/// What is left of the learning rate in a suggestion.
const SHARE: f64 = 1.0 / 3.0;

/// Finds loss spikes, gradient spikes, divergence and, in recipes that learn from pairs, answers that become less
/// likely on both sides. Its serialised form is part of a checkpoint: a resumed
/// run warns at the same steps as one that was never stopped.
///
/// The suggested learning rate is a third of the highest rate that the run has used, so under a warmup and decay
/// a third of the peak. Values that are not finite are for the loop to refuse; here they change nothing.
///
/// ```
/// use posttrain_train::watch::{Detector, StepMetrics, Warning};
///
/// let mut detector = Detector::default();
/// let mut warnings = Vec::new();
/// for number in 1..=50 {
///     let mut step = StepMetrics::default();
///     step.step = number;
///     step.loss = if number == 40 { 9.0 } else { 2.0 + 0.01 * (number % 5) as f64 };
///     step.learning_rate = 3e-4;
///     step.rows = vec![format!("train.jsonl:{number}")];
///     warnings.extend(detector.step(&step));
/// }
/// assert_eq!(warnings.len(), 1);
/// assert_eq!((warnings[0].step(), warnings[0].rows()), (40, &["train.jsonl:40".to_owned()][..]));
/// let Warning::LossSpike { usual, suggested_learning_rate, .. } = &warnings[0] else { unreachable!() };
/// assert!((usual - 2.02).abs() < 1e-9 && (suggested_learning_rate - 1e-4).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    losses: Window,
    grad_norms: Window,
    trend: Trend,
    highest_rate: Exact,
    #[serde(default)]
    displacement: Displacement,
}

impl Detector {
    /// Takes one step into account; most often there is nothing to say.
    pub fn step(&mut self, step: &StepMetrics) -> Vec<Warning> {
        if !(step.loss.is_finite() && step.grad_norm.is_finite()) {
            return Vec::new();
        }
        self.highest_rate = Exact(self.highest_rate.0.max(step.learning_rate));
        let suggested_learning_rate = self.highest_rate.0 * SHARE;
        let rows = || step.rows.clone();
        let usual_grad_norm = self.grad_norms.median();

        let loss = self.losses.push(step.loss, LOSS).map(|spike| Warning::LossSpike {
            step: step.step,
            loss: step.loss,
            usual: spike.usual,
            deviations: spike.deviations,
            grad_norm: step.grad_norm,
            usual_grad_norm,
            rows: rows(),
            suggested_learning_rate,
        });
        // A spike of the loss brings one of the gradient; once is enough.
        let grad_norm = self.grad_norms.push(step.grad_norm, GRAD_NORM).filter(|_| loss.is_none());
        let grad_norm = grad_norm.map(|spike| Warning::GradNormSpike {
            step: step.step,
            grad_norm: step.grad_norm,
            usual: spike.usual,
            rows: rows(),
            suggested_learning_rate,
        });
        let rise = self.trend.push(step.step, step.loss).map(|rise| Warning::Divergence {
            step: step.step,
            smoothed: rise.smoothed,
            lowest: rise.lowest,
            lowest_step: rise.lowest_step,
            rows: rows(),
            suggested_learning_rate,
        });
        let pairs = ["rewards/margins", "logps/chosen", "logps/rejected"];
        let found = match pairs.map(|name| step.extra.get(name)) {
            [Some(margin), Some(chosen), Some(rejected)] => {
                self.displacement.push(step.step, [margin, chosen, rejected])
            }
            _ => None,
        };
        let displaced = found.map(|found| Warning::LikelihoodDisplacement {
            step: step.step,
            steps: found.steps,
            margins: found.margins,
            chosen: found.chosen,
            rejected: found.rejected,
        });
        [loss, grad_norm, rise, displaced].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::super::Extras;
    use super::*;

    /// Normal noise by the sum of twelve uniform numbers.
    fn noise(random: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| f64::from(random.next_u32()) / f64::from(u32::MAX)).sum::<f64>() - 6.0
    }

    fn at(step: u64, loss: f64, grad_norm: f64) -> StepMetrics {
        StepMetrics { step, loss, grad_norm, learning_rate: 1e-3, ..StepMetrics::default() }
    }

    /// A loss that falls as a power of the step, with normal noise or with the skewed noise of small batches.
    fn healthy(seed: u64, steps: u64, skewed: bool) -> Vec<StepMetrics> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let steps = 1..=steps;
        steps
            .map(|step| {
                let level = 0.8 + 3.0 * (step as f64).powf(-0.3);
                let loss = if skewed {
                    level * (0.4 * noise(&mut random)).exp()
                } else {
                    level + 0.1 * noise(&mut random)
                };
                at(step, loss, 0.7 * (0.4 * noise(&mut random)).exp())
            })
            .collect()
    }

    fn warnings(steps: &[StepMetrics]) -> Vec<Warning> {
        let mut detector = Detector::default();
        steps.iter().flat_map(|step| detector.step(step)).collect()
    }

    #[test]
    fn healthy_runs_are_left_alone() {
        let found: Vec<Warning> =
            (0..20).flat_map(|seed| warnings(&healthy(seed, 5_000, false))).collect();
        assert!(found.is_empty(), "{found:?}");
        // Skewed noise has true outliers; at most one in 10,000 steps is told.
        let found: Vec<Warning> =
            (0..20).flat_map(|seed| warnings(&healthy(seed, 5_000, true))).collect();
        assert!(found.len() <= 10, "{} {found:?}", found.len());
        assert!(!found.iter().any(|w| matches!(w, Warning::Divergence { .. })), "{found:?}");
    }

    #[test]
    fn spikes_in_noise_are_found() {
        for (seed, skewed) in [(1, false), (2, true), (3, false), (4, true)] {
            let mut steps = healthy(seed, 1_000, skewed);
            for spike in [300, 650] {
                steps[spike - 1].loss *= if skewed { 8.0 } else { 2.0 };
                steps[spike - 1].rows = vec![format!("a.jsonl:{spike}")];
            }
            steps[799].grad_norm = 40.0;
            let found = warnings(&steps);
            let told: Vec<u64> = found.iter().map(Warning::step).collect();
            assert_eq!(told, [300, 650, 800], "{found:?}");
            assert_eq!(found[1].rows(), ["a.jsonl:650"]);
            assert!(matches!(found[2], Warning::GradNormSpike { .. }), "{found:?}");
        }
    }

    #[test]
    fn divergence_in_noise_is_found_soon() {
        for seed in 0..10 {
            let mut steps = healthy(seed, 1_000, true);
            for (i, step) in steps[500..].iter_mut().enumerate() {
                step.loss += 0.02 * i as f64;
            }
            let found = warnings(&steps);
            let first = found.iter().find(|w| matches!(w, Warning::Divergence { .. })).unwrap();
            assert!((520..700).contains(&first.step()), "{first:?}");
        }
    }

    #[test]
    fn the_suggestion_is_a_third_of_the_peak() {
        let mut steps = healthy(1, 200, false);
        for step in &mut steps {
            // Up to 6e-4 in the first half, then down.
            step.learning_rate = 6e-6 * (step.step.min(200 - step.step) as f64);
        }
        steps[190].loss = 20.0;
        let found = warnings(&steps);
        let Warning::LossSpike { step: 191, suggested_learning_rate, .. } = &found[0] else {
            panic!("{found:?}")
        };
        assert!((suggested_learning_rate - 2e-4).abs() < 1e-12);
    }

    #[test]
    fn a_resumed_detector_is_the_same_bit_for_bit() {
        let mut steps = of_pairs(5, 400, [-0.6, -1.0]);
        steps[320].loss = 30.0;
        for cut in [0, 1, 25, 60, 120, 319, 320, 321] {
            let mut first = Detector::default();
            for step in &steps[..cut] {
                first.step(step);
            }
            let text = serde_json::to_string(&first).unwrap();
            let mut second: Detector = serde_json::from_str(&text).unwrap();
            assert_eq!(second, first);
            for step in &steps[cut..] {
                assert_eq!(second.step(step), first.step(step), "{}", step.step);
            }
            assert_eq!(second, first);
        }
    }

    /// Steps of a recipe that learns from pairs: by so much a step for the chosen and the rejected, in noise.
    fn of_pairs(seed: u64, steps: u64, slopes: [f64; 2]) -> Vec<StepMetrics> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut healthy = healthy(seed, steps, false);
        for step in &mut healthy {
            // Lengths of the answers differ from batch to batch and move both alike.
            let (at, both) = (step.step as f64, 20.0 * noise(&mut random));
            let chosen = slopes[0] * at + 4.0 * noise(&mut random);
            let rejected = slopes[1] * at + 4.0 * noise(&mut random);
            step.extra = Extras::new([
                ("logps/chosen", -210.0 + both + chosen),
                ("logps/rejected", -200.0 + both + rejected),
                ("rewards/margins", 0.1 * (chosen - rejected)),
            ])
            .unwrap();
        }
        healthy
    }

    #[test]
    fn answers_that_fall_on_both_sides_are_told_once() {
        for seed in 0..10 {
            let found = warnings(&of_pairs(seed, 300, [-0.6, -1.0]));
            let [Warning::LikelihoodDisplacement { step, steps, margins, chosen, rejected }] =
                &found[..]
            else {
                panic!("{found:?}")
            };
            assert!((30..160).contains(step) && (30..=100).contains(steps), "{found:?}");
            assert!(margins[1] > margins[0] && chosen[1] < chosen[0] && rejected[1] < rejected[0]);
        }
        // The chosen rises, stands still, or all three do.
        for slopes in [[0.3, -1.0], [0.0, -0.6], [0.0, 0.0], [-0.5, -0.5]] {
            for seed in 0..10 {
                let found = warnings(&of_pairs(seed, 1_000, slopes));
                assert!(found.is_empty(), "{slopes:?} {found:?}");
            }
        }
    }

    /// A checkpoint of 0.1.0 from before this detector.
    #[test]
    fn an_old_state_is_read() {
        let mut state = serde_json::to_value(Detector::default()).unwrap();
        assert!(state.as_object_mut().unwrap().remove("displacement").is_some());
        assert_eq!(serde_json::from_value::<Detector>(state).unwrap(), Detector::default());
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        let mut detector = Detector::default();
        for step in healthy(6, 50, false) {
            detector.step(&step);
        }
        let before = detector.clone();
        assert!(detector.step(&at(51, f64::NAN, 1.0)).is_empty());
        assert!(detector.step(&at(51, 1.0, f64::INFINITY)).is_empty());
        assert_eq!(detector, before);
    }
}
