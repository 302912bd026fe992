//! Rates by hand, and settings that are refused.

use super::{Schedule, ScheduleConfig};

fn config(yaml: &str) -> ScheduleConfig {
    serde_saphyr::from_str(yaml).unwrap()
}

fn schedule(yaml: &str) -> Schedule {
    Schedule::new(&config(yaml), 1.0, 100).unwrap()
}

#[test]
fn a_warmup_is_steps_or_a_share() {
    for (yaml, expected) in [
        ("{}", 0),
        ("warmup_steps: 7", 7),
        ("warmup_steps: 0.125", 13),
        ("warmup_ratio: 0.1", 10),
        ("warmup_ratio: 1.0", 100),
    ] {
        assert_eq!(schedule(yaml).warmup_steps(), expected, "{yaml}");
    }
}

#[test]
fn by_hand() {
    let linear = schedule("warmup_steps: 20");
    assert_eq!(
        [0, 10, 20, 60, 100, 101].map(|step| linear.rate(step)),
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    );
    let restarts =
        schedule("{lr_scheduler_type: cosine_with_restarts, lr_scheduler_kwargs: {num_cycles: 2}}");
    assert_eq!([0, 50, 100].map(|step| restarts.rate(step)), [1.0, 1.0, 0.0]);
    assert!((restarts.rate(25) - 0.5).abs() < 1e-15);
    let power =
        schedule("{lr_scheduler_type: polynomial, lr_scheduler_kwargs: {power: 2, lr_end: 0.2}}");
    assert!((power.rate(50) - (0.8 * 0.25 + 0.2)).abs() < 1e-15);
    let root = schedule("{lr_scheduler_type: inverse_sqrt, warmup_steps: 9}");
    assert_eq!([9, 36].map(|step| root.rate(step)), [1.0, 0.5]);
    let stable = schedule(
        "{lr_scheduler_type: warmup_stable_decay, warmup_steps: 10, \
         lr_scheduler_kwargs: {num_decay_steps: 40, decay_type: 1-sqrt, min_lr_ratio: 0.1}}",
    );
    // Up from a tenth, level to step 60, then 0.9 (1 − √(k / 40)) + 0.1.
    assert_eq!([0, 10, 60, 100].map(|step| stable.rate(step)), [0.1, 1.0, 1.0, 0.1]);
    assert!((stable.rate(5) - 0.55).abs() < 1e-15);
    assert!((stable.rate(70) - 0.55).abs() < 1e-15);
}

#[test]
fn wrong_settings_are_named() {
    let error = |yaml: &str| Schedule::new(&config(yaml), 1e-3, 100).unwrap_err().to_string();
    for (yaml, expected) in [
        ("warmup_steps: -1", "`warmup_steps` is -1, expected at least 0"),
        (
            "warmup_steps: 1.5",
            "`warmup_steps` is 1.5, expected a whole number, or a share of all steps below 1",
        ),
        ("warmup_ratio: 2", "`warmup_ratio` is 2, expected from 0 to 1"),
        (
            "lr_scheduler_kwargs: {num_cycles: 2}",
            "`lr_scheduler_kwargs.num_cycles` is 2.0, expected nothing: linear has no arguments",
        ),
        (
            "{lr_scheduler_type: cosine, lr_scheduler_kwargs: {min_lr: 0.1}}",
            "`lr_scheduler_kwargs.min_lr` is 0.1, expected nothing: cosine has only num_cycles",
        ),
        (
            "lr_scheduler_type: cosine_with_min_lr",
            "`lr_scheduler_kwargs.min_lr` is missing, expected either this or min_lr_rate",
        ),
        (
            "{lr_scheduler_type: polynomial, lr_scheduler_kwargs: {lr_end: 0.1}}",
            "`lr_scheduler_kwargs.lr_end` is 0.1, expected below the learning rate 0.001",
        ),
        (
            "lr_scheduler_type: warmup_stable_decay",
            "`lr_scheduler_kwargs.num_decay_steps` is missing, expected the steps of the decay",
        ),
        (
            "{lr_scheduler_type: warmup_stable_decay, warmup_steps: 50, \
             lr_scheduler_kwargs: {num_decay_steps: 60}}",
            "`lr_scheduler_kwargs.num_decay_steps` is 60, expected at most 50",
        ),
    ] {
        assert_eq!(error(yaml), expected, "{yaml}");
    }
    let both = config("{warmup_steps: 5, warmup_ratio: 0.1}");
    assert!(Schedule::new(&both, 1e-3, 100).is_err());
    assert!(Schedule::new(&ScheduleConfig::default(), 0.0, 100).is_err());
    assert!(serde_saphyr::from_str::<ScheduleConfig>("lr_scheduler_type: cosin").is_err());
}
