//! Steps derived by hand.

use super::{config, numbers, optimizer, tensor, weight};

/// The weights `[1, -2]` of a vector after a step along each gradient at the rate 0.1.
fn steps(yaml: &str, gradients: &[[f32; 2]]) -> Vec<f32> {
    let weights = [weight("model.layers.0.gate", &[2], vec![1.0, -2.0])];
    let mut optimizer = optimizer(&config(yaml), &weights);
    let [(parameter, mut weight)] = weights;
    for gradient in gradients {
        let gradient = tensor([1, 2], gradient.to_vec());
        weight = optimizer.update(0.1, &parameter.name, weight, gradient);
    }
    numbers(&weight)
}

fn close(found: &[f32], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{found}, not {expected}");
    }
}

#[test]
fn adamw() {
    // The first step is η sign(g): m / (1 − β₁) = g and v / (1 − β₂) = g².
    close(&steps("optim: adamw_torch", &[[0.5, -3.0]]), &[0.9, -1.9]);
    // With decay the weights are first multiplied by 1 − 0.1 · 0.5.
    close(
        &steps("{optim: adamw_torch, weight_decay: 0.5}", &[[0.5, -3.0]]),
        &[0.95 - 0.1, -1.9 + 0.1],
    );
    // g = 1, then −1, with β₁ = β₂ = ½: m = ½, −¼; v = ½, ¾. The second step is
    // −0.1 · (−¼ / ¾) / √(¾ / ¾) = 0.1 / 3.
    let half = "{optim: adamw_torch, adam_beta1: 0.5, adam_beta2: 0.5, adam_epsilon: 0}";
    close(&steps(half, &[[1.0, 1.0], [-1.0, -1.0]]), &[0.9 + 0.1 / 3.0, -2.1 + 0.1 / 3.0]);
    // ε stands outside of the root and is not corrected: 0.1 · 1 / (1 + 1).
    close(&steps("{optim: adamw_torch, adam_epsilon: 1}", &[[1.0, -1.0]]), &[0.95, -1.95]);
}

#[test]
fn lion() {
    // sign(β₁ 0 + (1 − β₁) g); a zero stays.
    close(&steps("optim: lion", &[[0.5, 0.0]]), &[0.9, -2.0]);
    // β₁ = β₂ = ½, g = 1 then −⅖: m = ½, then ½ · ½ − ½ · ⅖ > 0, so both steps go down.
    let half = "{optim: lion_32bit, adam_beta1: 0.5, adam_beta2: 0.5}";
    close(&steps(half, &[[1.0, 1.0], [-0.4, -0.4]]), &[0.8, -2.2]);
}

#[test]
fn sgd() {
    close(&steps("optim: sgd", &[[0.5, -3.0]]), &[0.95, -1.7]);
    // Decay is part of the gradient: g + ½ θ.
    close(&steps("{optim: sgd, weight_decay: 0.5}", &[[0.5, -3.0]]), &[0.9, -1.6]);
    // b = 1, then ½ · 1 + (1 − ¼) · 1 = 1.25.
    let damped = "{optim: sgd, optim_args: 'momentum=0.5, dampening=0.25'}";
    close(&steps(damped, &[[1.0, 1.0]; 2]), &[1.0 - 0.1 - 0.125, -2.0 - 0.1 - 0.125]);
    // b = 1, 1.5; steps g + ½ b = 1.5, 1.75.
    let nesterov = "{optim: sgd, optim_args: 'momentum=0.5, nesterov=true'}";
    close(&steps(nesterov, &[[1.0, 1.0]; 2]), &[1.0 - 0.325, -2.0 - 0.325]);
}

#[test]
fn adafactor_of_a_vector() {
    // β = 1 − 1 = 0 at the first step: u = g / |g|, of root mean square 1, which is the threshold.
    close(&steps("optim: adafactor", &[[0.5, -3.0]]), &[0.9, -1.9]);
    // Half the threshold, half the step.
    let clipped = "{optim: adafactor, optim_args: 'clip_threshold=0.5'}";
    close(&steps(clipped, &[[0.5, -3.0]]), &[0.95, -1.95]);
    // The rate is min(10⁻², 1/√1) whatever the schedule says, times rms(θ) = √2.5.
    let relative = "{optim: adafactor, optim_args: 'relative_step=true, scale_parameter=true'}";
    let step = 0.01 * 2.5_f64.sqrt();
    close(&steps(relative, &[[0.5, -3.0]]), &[1.0 - step, -2.0 + step]);
}

#[test]
fn adafactor_of_a_matrix() {
    // g² = [1 4; 4 16] has rank one, so that r cᵀ / mean(r) is g² itself and u = sign(g).
    let weights = [weight("model.layers.0.w", &[2, 2], vec![0.0; 4])];
    let mut optimizer = optimizer(&config("optim: adafactor"), &weights);
    let [(parameter, weight)] = weights;
    let gradient = tensor([2, 2], vec![1.0, -2.0, 2.0, 4.0]);
    let found = numbers(&optimizer.update(0.1, &parameter.name, weight, gradient));
    close(&found, &[-0.1, 0.1, -0.1, -0.1]);
}

#[test]
fn muon() {
    // A gradient whose singular values are equal stays on its direction: s U Vᵀ with s = 1/√2 after
    // the division by the norm, then s ← a s + b s³ + c s⁵ five times. Rows beyond the columns
    // make the step √(rows / columns) times as long.
    let newton_schulz = |mut s: f64| {
        for _ in 0..5 {
            s = 3.4445 * s - 4.775 * s.powi(3) + 2.0315 * s.powi(5);
        }
        s
    };
    let s = newton_schulz(0.5_f64.sqrt());
    let run = |yaml: &str, shape: [usize; 2], gradient: Vec<f32>| {
        let weights = [weight("model.layers.0.w", &shape, vec![0.0; shape[0] * shape[1]])];
        let mut optimizer = optimizer(&config(yaml), &weights);
        let [(parameter, weight)] = weights;
        numbers(&optimizer.update(0.1, &parameter.name, weight, tensor(shape, gradient)))
    };
    let wide = run("optim: muon", [2, 3], vec![0.0, -7.0, 0.0, 7.0, 0.0, 0.0]);
    close(&wide, &[0.0, 0.1 * s, 0.0, -0.1 * s, 0.0, 0.0]);
    let tall = run("optim: muon", [3, 2], vec![0.0, 7.0, 7.0, 0.0, 0.0, 0.0]);
    let size = 0.1 * s * 1.5_f64.sqrt();
    close(&tall, &[0.0, -size, -size, 0.0, 0.0, 0.0]);
    let adamw = "{optim: muon, optim_args: 'adjust_lr_fn=match_rms_adamw'}";
    let size = 0.1 * s * 0.2 * 3.0_f64.sqrt();
    close(&run(adamw, [3, 2], vec![0.0, 7.0, 7.0, 0.0, 0.0, 0.0]), &[0.0, -size, -size, 0.0]);
}

#[test]
fn a_parameter_without_gradients_does_not_age() {
    // The first step of AdamW is η sign(g) whenever it comes.
    let weights =
        [weight("model.a", &[1, 2], vec![0.0; 2]), weight("model.b", &[1, 2], vec![0.0; 2])];
    let mut optimizer = optimizer(&config("optim: adamw_torch"), &weights);
    let [(_, mut a), (_, b)] = weights;
    for _ in 0..10 {
        a = optimizer.update(0.1, "model.a", a, tensor([1, 2], vec![1.0; 2]));
    }
    let b = optimizer.update(0.1, "model.b", b, tensor([1, 2], vec![2.0, -2.0]));
    close(&numbers(&b), &[-0.1, 0.1]);
    close(&numbers(&a), &[-1.0, -1.0]);
}
