//! Settings that are refused, with the key that the error names.

use serde_json::{Value, json};

use super::setting;
use crate::Error;
use crate::preference::{BradleyTerry, Cpo, Dpo, Kto, Tpo};

fn refused(result: Result<(), Error>, key: &str) {
    match result {
        Err(Error::Config { key: found, .. }) => assert_eq!(found, key),
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    for (config, key) in [
        (json!({"beta": 0.0}), "beta"),
        (json!({"loss_type": []}), "loss_type"),
        (json!({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}), "loss_weights"),
        (json!({"loss_type": "exo_pair"}), "label_smoothing"),
        (json!({"loss_type": "robust", "label_smoothing": 0.5}), "label_smoothing"),
        (json!({"loss_type": "hinge", "label_smoothing": 0.1}), "label_smoothing"),
        (json!({"loss_type": "aot", "f_divergence_type": "forward_kl"}), "f_divergence_type"),
        (json!({"loss_type": "aot", "use_weighting": true}), "use_weighting"),
        (json!({"ld_alpha": 1.5}), "ld_alpha"),
        (json!({"loss_type": "discopop", "discopop_tau": 0.0}), "discopop_tau"),
    ] {
        refused(setting::<Dpo>(&config).validate(), key);
    }
    refused(setting::<Cpo>(&json!({"loss_type": "alphapo"})).validate(), "alpha");
    refused(setting::<Cpo>(&json!({"cpo_alpha": -1.0})).validate(), "cpo_alpha");
    refused(setting::<Tpo>(&json!({"tpo_alpha": -1.0})).validate(), "tpo_alpha");
    refused(setting::<Kto>(&json!({"undesirable_weight": -1.0})).validate(), "undesirable_weight");
    let reward: BradleyTerry = setting(&json!({"center_rewards_coefficient": -1.0}));
    refused(reward.validate(), "center_rewards_coefficient");
}

#[test]
fn defaults_are_fine_and_unknown_keys_are_not() {
    Dpo::default().validate().unwrap();
    Cpo::default().validate().unwrap();
    Tpo::default().validate().unwrap();
    Kto::default().validate().unwrap();
    let misspelt: Result<Dpo, _> = serde_json::from_value::<Dpo>(json!({"bata": 0.1}));
    assert!(misspelt.unwrap_err().to_string().contains("bata"));
    let written: Value = serde_json::to_value(Dpo::default()).unwrap();
    assert_eq!(setting::<Dpo>(&written), Dpo::default());
}
