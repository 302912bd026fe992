//! `examples/preference.rs` with each of its configurations, on broken input, killed and resumed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::init_model::tiny_model;
use crate::runs::{
    self, json as read_json, killed_is_whole, left, lines, nothing_is_left, numbers,
};
use crate::support::{Files, Program};

const PROGRAM: Program = Program("preference");
const PAIRS: &str = "examples/data/gsm8k_pairs.jsonl";
/// What every loss over answers measures.
const ANSWERS: [&str; 7] = [
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "length/chosen",
    "length/rejected",
];

fn short_run(files: &Files, name: &str, more: &[&str]) -> (String, String) {
    runs::short_run(&PROGRAM, files, name, more)
}

/// The names of an evaluation.
fn evaluated(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("eval_{name}")).collect()
}

fn check(out: &str, more: &[&str]) {
    let (steps, evaluations) = left(out);
    assert_eq!(steps.len(), 6);
    assert!(!evaluations.is_empty());
    for step in &steps {
        numbers(step, &ANSWERS);
        numbers(step, more);
        numbers(step, &["entropy", "mean_token_accuracy"]);
    }
    for evaluation in &evaluations {
        for names in [evaluated(&ANSWERS), evaluated(more)] {
            numbers(evaluation, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    let report = fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert!(report.contains("rewards/margins"), "the rewards have their chart");
}

#[test]
fn dpo_of_an_adapter_learns_the_pairs() {
    let files = Files::new();
    // Few enough for one pass, so that each step sees the same.
    let few = rows(&files, "few.jsonl", 4, |pair| pair);
    let (out, said) =
        short_run(&files, "dpo_lora", &[&format!("data={few}"), "learning_rate=5e-3"]);
    check(&out, &["rewards/accuracies", "reference_kl"]);
    assert!(said.contains("better answers"), "what lengths say: {said}");
    assert!(said.contains("accuracy") && said.contains("margin"), "{said}");
    let (steps, _) = left(&out);
    let of = |name: &str| -> Vec<f64> {
        steps.iter().map(|step| step[name].as_f64().unwrap()).collect()
    };
    let (losses, margins) = (of("loss"), of("rewards/margins"));
    assert!(losses[5] < losses[0] && margins[5] > margins[0], "{losses:?}, {margins:?}");
    let adapter = read_json(&format!("{out}/adapter_config.json"));
    assert_eq!(
        (adapter["r"].as_u64(), adapter["task_type"].as_str()),
        (Some(16), Some("CAUSAL_LM"))
    );
    assert!(!Path::new(&out).join("model.safetensors").exists(), "the base stays where it is");
    let again = PROGRAM.failure(&["--config", &format!("{out}/config.yaml")]);
    assert!(again.contains("`overwrite_output_dir: true`"), "{again}");
}

#[test]
fn kto_on_four_bits_and_simpo_run() {
    let files = Files::new();
    check(&short_run(&files, "kto_qlora", &[]).0, &["kl", "reference_kl"]);
    let files = Files::new();
    let (out, _) = short_run(&files, "simpo", &[]);
    check(&out, &["rewards/accuracies"]);
    let chat = Program("chat").stdout(&["--model", &out, "--prompt", "Hello", "--json"]);
    assert!(chat.contains("text"));
    for step in left(&out).0 {
        assert!(step.get("reference_kl").is_none(), "there is no reference: {step}");
    }
}

/// Rows made of the first pairs of the example data.
fn rows(files: &Files, name: &str, count: usize, row: impl Fn(Value) -> Value) -> String {
    let rows = lines(&format!("{}/{PAIRS}", crate::support::root().display()));
    let rows = rows.into_iter().take(count).map(|pair| row(pair).to_string());
    files.write(name, &rows.collect::<Vec<_>>().join("\n"))
}

#[test]
fn each_loss_reads_the_rows_that_it_wants() {
    let files = Files::new();
    let model = tiny_model(&files);
    let ranked = rows(&files, "ranked.jsonl", 12, |pair| {
        let other = json!([{"role": "assistant", "content": "I do not know."}]);
        json!({"prompt": pair["prompt"], "scores": [1.0, 0.5, -2],
            "completions": [pair["chosen"], pair["rejected"], other]})
    });
    let gold = rows(&files, "gold.jsonl", 12, |pair| {
        json!({"prompt": pair["prompt"], "chosen": pair["chosen"], "rejected": pair["rejected"],
            "reference": [{"role": "assistant", "content": "42"}]})
    });
    let runs = [
        ("bco", "examples/data/gsm8k_unpaired.jsonl"),
        // A pair is two labelled answers.
        ("kto", PAIRS),
        ("orpo", PAIRS),
        ("tpo", &gold),
        ("{type: tpo, tpo_alpha: 0}", PAIRS),
        ("slic", &ranked),
        ("rrhf", PAIRS),
    ];
    for (index, (loss, data)) in runs.into_iter().enumerate() {
        let out = files.path(&format!("run-{index}"));
        let text = format!(
            "model: {model}\ndata: {data}\noutput_dir: {out}\nloss: {loss}\nmax_steps: 2\n\
             per_device_train_batch_size: 2\nval_set_size: 0\nsave_strategy: 'no'\n"
        );
        PROGRAM.answer(&["--config", &files.write("run.yaml", &text)], "");
        assert_eq!(lines(&format!("{out}/metrics.jsonl")).len(), 2, "{loss}");
        assert!(Path::new(&out).join("model.safetensors").exists(), "{loss}");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_trained() {
    let files = Files::new();
    let (model, out) = (tiny_model(&files), files.path("out"));
    let fails = |data: &str, more: &str, expected: &[&str]| {
        let text =
            format!("model: {model}\ndata: {data}\noutput_dir: {out}\nval_set_size: 0\n{more}");
        let message = PROGRAM.failure(&["--config", &files.write("run.yaml", &text)]);
        for expected in expected {
            assert!(message.contains(expected), "{message} has no {expected}");
        }
        nothing_is_left(&out);
    };
    fails(PAIRS, "los: dpo", &["line 5: unknown key `los` (did you mean `loss`?)"]);
    let typo = "loss:\n  type: dpo\n  loss_typ: ipo\n";
    fails(PAIRS, typo, &["line 5: `loss`: unknown field `loss_typ`", "did you mean `loss_type`?"]);
    fails(PAIRS, "loss: {beta: 0.2}", &["`loss`: missing field `type`, expected one of `dpo`"]);
    fails(PAIRS, "beta: 0.2", &["line 5: unknown key `beta` (did you mean `loss.beta`?)"]);
    fails(PAIRS, "loss: {type: dpo, beta: -1}", &["`loss.beta` is -1", "expected above 0"]);
    fails(PAIRS, "loss: orpo\nref_model: m", &["`ref_model` is given, expected nothing"]);
    fails(PAIRS, "ref_model: ./no/such", &["./no/such"]);
    fails("nowhere.jsonl", "", &["nowhere.jsonl: "]);
    fails(PAIRS, "eval_data: no-eval.jsonl", &["no-eval.jsonl: "]);

    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let says = |text: &str| json!([{"role": "assistant", "content": text}]);
    let good = json!({"prompt": user("6 times 7?"), "chosen": says("42"), "rejected": says("41")});
    let broken = |name: &str, second: &str, more: &str, expected: &str| {
        let path = files.write(name, &format!("{good}\n{second}\n{good}\n"));
        fails(&path, more, &[&format!("{name}:2"), expected]);
    };
    broken("json.jsonl", r#"{"prompt": "#, "", "");
    broken(
        "missing.jsonl",
        &json!({"prompt": user("x"), "chosen": says("y")}).to_string(),
        "",
        "rejected",
    );
    let equal = json!({"prompt": user("x"), "chosen": says("y"), "rejected": says("y")});
    broken("equal.jsonl", &equal.to_string(), "", "`chosen` and `rejected` are the same");
    let long = |end: &str| says(&format!("{}{end}", "word ".repeat(100)));
    let cut = json!({"prompt": user("x"), "chosen": long("y"), "rejected": long("z")}).to_string();
    let same = "two of its answers are the same tokens after truncation";
    broken("cut.jsonl", &cut, "max_length: 64\n", same);
    let empty = json!({"prompt": user("x"), "chosen": says("y"), "rejected": []});
    broken("empty.jsonl", &empty.to_string(), "", "rejected");
    let mixed = json!({"prompt": user("x"), "chosen": says("y"), "rejected": "z"});
    broken("mixed.jsonl", &mixed.to_string(), "", "rejected");
    // Rows of the wrong kind for the loss.
    let unpaired = "examples/data/gsm8k_unpaired.jsonl";
    fails(unpaired, "", &["gsm8k_unpaired.jsonl:1", "a preference: `chosen` and `rejected`"]);
    fails(
        PAIRS,
        "loss: tpo",
        &["gsm8k_pairs.jsonl:1", "column `reference`", "`loss.tpo_alpha: 0`"],
    );
    let steps = "examples/data/gsm8k_steps.jsonl";
    fails(steps, "loss: kto", &["gsm8k_steps.jsonl:1", "a `completion` with a `label`"]);
    fails(steps, "loss: slic", &["gsm8k_steps.jsonl:1", "`completions` with `scores`"]);
    let missing = PROGRAM.failure(&["--config", &files.path("missing.yaml")]);
    assert!(missing.contains("missing.yaml"));
}

/// A bad row may be tolerated; it is kept, and the others are trained on.
#[test]
fn bad_rows_are_put_aside_up_to_a_number() {
    let files = Files::new();
    let (model, out) = (tiny_model(&files), files.path("out"));
    let mut text = fs::read_to_string(crate::support::root().join(PAIRS)).unwrap();
    text.push_str("{\"prompt\": \n");
    let data = files.write("rows.jsonl", &text);
    let settings = format!(
        "model: {model}\ndata: {data}\noutput_dir: {out}\nval_set_size: 0\nmax_steps: 1\n\
         per_device_train_batch_size: 2\nmax_bad_rows: 1\nsave_strategy: 'no'\n"
    );
    let (_, said) = PROGRAM.answer(&["--config", &files.write("run.yaml", &settings)], "");
    assert!(said.contains("60"), "{said}");
    assert_eq!(lines(&format!("{out}/bad_rows.jsonl")).len(), 1);
    assert_eq!(lines(&format!("{out}/metrics.jsonl")).len(), 1);
}

/// The log-probabilities of the reference are computed once and used by a second run.
#[test]
fn a_reference_that_is_computed_before_is_said_and_reused() {
    let files = Files::new();
    let model = tiny_model(&files);
    let stored = files.path("ref.safetensors");
    let run = |name: &str, data: &str| {
        let out = files.path(name);
        let text = format!(
            "model: {model}\ndata: {data}\noutput_dir: {out}\nval_set_size: 0\nmax_steps: 2\n\
             per_device_train_batch_size: 2\nsave_strategy: 'no'\n\
             precompute_ref_log_probs: true\nref_log_probs: {stored}\n"
        );
        ["--config".to_owned(), files.write(&format!("{name}.yaml"), &text)]
    };
    let answer = |name: &str| {
        let args = run(name, PAIRS);
        PROGRAM.answer(&args.each_ref().map(String::as_str), "").1
    };
    let said = "log-probabilities of the reference: 120";
    assert!(answer("first").contains(said));
    assert!(!answer("second").contains(said));
    let steps = |name: &str| {
        let all = lines(&files.path(&format!("{name}/metrics.jsonl")));
        all.iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(steps("first"), steps("second"));
    let args = run("third", "examples/data/gsm8k_pairs_eval.jsonl");
    let stale = PROGRAM.failure(&args.each_ref().map(String::as_str));
    assert!(stale.contains("ref.safetensors: the training rows as tokens"), "{stale}");
    nothing_is_left(&files.path("third"));
}

#[test]
fn a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed() {
    let files = Files::new();
    let model = tiny_model(&files);
    let settings = |out: &str| {
        format!(
            "model: {model}\ndata: {PAIRS}\noutput_dir: {out}\nloss: dpo\nsync_ref_model: true\n\
             ref_model_sync_steps: 3\nmax_steps: 12\nsave_steps: 1\nsave_total_limit: 2\n\
             per_device_train_batch_size: 2\nlearning_rate: 1e-3\nval_set_size: 0\n\
             eval_strategy: 'no'\n"
        )
    };
    let state = [
        "model.safetensors",
        "optimizer.safetensors",
        "reference.safetensors",
        "trainer_state.json",
    ];
    killed_is_whole(&PROGRAM, &files, settings, &state);
}
