//! A made-up run before all observers: killed, resumed, and what it leaves behind.
//!
//! With `POSTTRAIN_WATCH_DIR` set it is written there, for a look at the report and for
//! `tests/fixtures/watch/check_tensorboard.py`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use posttrain_train::watch::chart::Bars;
use posttrain_train::watch::html::table;
use posttrain_train::watch::{
    Checkpoint, Detector, EvalMetrics, Extras, JsonLines, METRICS, Observer, Report, RunInfo,
    Selection, StepMetrics, Summary, TensorBoard, WARNINGS, Warning, flops_per_token, mfu,
    read_lines,
};

const STEPS: u64 = 600;

/// A number from 0 to 1 that depends on the step alone.
fn noise(step: u64) -> f64 {
    let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
}

fn step(number: u64) -> StepMetrics {
    let at = number as f64;
    let mut step = StepMetrics::default();
    step.step = number;
    step.epoch = at / 200.0;
    let mut nll = 0.9 + 1.6 * (-at / 120.0).exp() + 0.25 * (noise(number) - 0.5);
    if (420..424).contains(&number) {
        nll += 3.0 / (at - 418.0);
    }
    (step.loss, step.nll) = (nll, Some(nll));
    step.grad_norm = 0.6 + 0.5 * noise(number + 1_000) + 2.0 * (nll - 1.2).max(0.0);
    let progress = at / STEPS as f64;
    step.learning_rate = 2e-4
        * if at < 30.0 { at / 30.0 } else { 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) };
    step.tokens = 3_900 + (200.0 * noise(number + 2_000)) as u64;
    step.trained_tokens = step.tokens / 3;
    step.seconds = 0.31 + 0.03 * noise(number + 3_000);
    step.entropy = Some(0.8 * nll);
    step.mean_token_accuracy = Some((-0.45 * nll).exp());
    let flops = flops_per_token(8_030_000_000, 42_000_000);
    step.mfu = mfu(flops, step.tokens_per_second(), "NVIDIA H100 80GB HBM3");
    step.peak_memory = Some(21 << 30);
    step.extra = extra(number, 0.3 * (noise(number + 4_000) - 0.5));
    step.rows = (0..16).map(|i| format!("train.jsonl:{}", number * 16 + i)).collect();
    step
}

/// What a recipe for preferences measures: the chosen rises, the rejected falls.
fn extra(number: u64, noise: f64) -> Extras {
    let learnt = 1.0 - (-(number as f64) / 150.0).exp();
    Extras::new([
        ("rewards/chosen", 0.4 * learnt + noise),
        ("rewards/rejected", -0.9 * learnt + noise),
        ("rewards/accuracies", 0.5 + 0.3 * learnt + noise / 3.0),
        ("rewards/margins", 1.3 * learnt),
        ("logps/chosen", -210.0 + 4.0 * learnt + 40.0 * noise),
        ("logps/rejected", -190.0 - 9.0 * learnt + 40.0 * noise),
    ])
    .unwrap()
}

fn evaluation(number: u64) -> EvalMetrics {
    let mut evaluation = EvalMetrics::default();
    evaluation.step = number;
    evaluation.epoch = number as f64 / 200.0;
    evaluation.eval_loss = 1.05
        + 1.5 * (-(number as f64) / 110.0).exp()
        + (number as f64 / STEPS as f64).powi(3) * 0.12;
    evaluation.tokens = 52_000;
    evaluation.trained_tokens = 17_311;
    evaluation.seconds = 4.7;
    evaluation.perplexity = Some(evaluation.eval_loss.exp());
    evaluation.extra = extra(number, 0.0);
    evaluation.eval_mean_token_accuracy = Some((-0.45 * evaluation.eval_loss).exp());
    evaluation
}

fn run_info(resumed_from: Option<u64>) -> RunInfo {
    let mut run = RunInfo::default();
    run.name = "Llama-3-8B on GSM8K, LoRA r 16".into();
    run.config = serde_json::json!({
        "model_name_or_path": "meta-llama/Meta-Llama-3-8B", "learning_rate": 2e-4, "max_length": 4096, "packing": true,
        "lr_scheduler_type": "cosine", "warmup_steps": 30, "max_steps": STEPS, "assistant_only_loss": true,
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "use_rslora": false},
    });
    run.facts = [
        ("parameters", "8.03 billion"),
        ("trained", "42 million (0.5 %)"),
        ("device", "NVIDIA H100 80GB HBM3"),
        ("precision", "bf16"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let lengths = Bars {
        title: "Lengths of the rows".into(),
        across: "tokens".into(),
        bars: (0..12)
            .map(|i| (format!("{}", i * 64), f64::from(1800 - (i - 2) * (i - 2) * 40).max(3.0)))
            .collect(),
    };
    run.data_report = format!(
        "<section class=\"data-report\">{}{}<p class=\"warning\">12 rows dropped: too long</p>\
         <p>First row:</p><pre>&lt;|user|&gt;\nHow many clips did Natalia sell in May?\n&lt;|assistant|&gt;\n\
         <mark>In May she sold 48 / 2 = 24 clips.\n#### 24&lt;|end|&gt;</mark></pre></section>",
        table([
            ("rows", "7,473"),
            ("tokens", "1,842,113"),
            ("trained tokens", "903,221 (49.0 %)"),
            ("truncated", "0"),
        ]),
        lengths.to_svg(),
    );
    run.total_steps = STEPS;
    run.resumed_from = resumed_from;
    run.started = 1_795_795_500;
    run
}

fn observers(folder: &Path) -> Vec<Box<dyn Observer>> {
    vec![
        Box::new(JsonLines::new(folder)),
        Box::new(TensorBoard::new(folder.join("runs"))),
        Box::new(Report::new(folder)),
    ]
}

/// What a checkpoint has of watching.
type State = (Detector, Selection);

/// The loop of a recipe without the training. Returns the state at its checkpoint after step 300.
fn train(folder: &Path, from: Option<u64>, mut state: State, to: u64) -> (State, State) {
    let mut observers = observers(folder);
    observers.start(&run_info(from)).unwrap();
    let (detector, selection) = &mut state;
    let mut saved = None;
    for number in from.unwrap_or(0) + 1..=to {
        let metrics = step(number);
        observers.step(&metrics).unwrap();
        for warning in detector.step(&metrics) {
            observers.warning(&warning).unwrap();
        }
        if number % 50 == 0 {
            let evaluation = evaluation(number);
            observers.evaluation(&evaluation).unwrap();
            selection.observe(&evaluation).unwrap();
        }
        if number % 300 == 0 {
            let mut checkpoint = Checkpoint::default();
            (checkpoint.step, checkpoint.path) = (number, format!("checkpoint-{number}").into());
            observers.checkpoint(&checkpoint).unwrap();
            saved = saved.or(Some((detector.clone(), selection.clone())));
        }
    }
    if to == STEPS {
        let mut summary = Summary::default();
        (summary.step, summary.seconds, summary.train_loss) = (STEPS, 212.0, 1.21);
        summary.best = selection.best();
        observers.end(&summary).unwrap();
    }
    (saved.unwrap(), state)
}

fn fresh() -> State {
    (Detector::default(), Selection::new("eval_loss", None, Some(3), 0.0).unwrap())
}

fn lines(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn a_killed_run_that_is_resumed_leaves_the_files_of_a_whole_one() {
    let temporary = tempfile::tempdir().unwrap();
    let chosen = std::env::var_os("POSTTRAIN_WATCH_DIR").map(PathBuf::from);
    let folder = chosen.as_deref().unwrap_or(temporary.path());
    let (whole, parts) = (folder.join("whole"), folder.join("parts"));

    let (_, end) = train(&whole, None, fresh(), STEPS);
    // Killed at step 437, which is after the spike, and resumed from the checkpoint before it.
    let (checkpoint, _) = train(&parts, None, fresh(), 437);
    let killed = lines(&parts, "report.html");
    assert!(killed.contains("running, as of step 400") && killed.ends_with("</html>\n"));
    assert_eq!(lines(&parts, METRICS).lines().count(), 437);
    let (_, resumed) = train(&parts, Some(300), checkpoint, STEPS);

    for name in ["metrics.jsonl", "evaluations.jsonl", "warnings.jsonl"] {
        assert_eq!(lines(&whole, name), lines(&parts, name), "{name}");
    }
    assert_eq!(lines(&whole, METRICS).lines().count(), 600);
    assert_eq!((resumed.0, resumed.1.best()), (end.0, end.1.best()));

    let warnings: Vec<Warning> = read_lines(&whole.join(WARNINGS)).unwrap();
    assert_eq!(warnings.iter().map(Warning::step).collect::<Vec<_>>(), [420], "{warnings:?}");
    assert_eq!(warnings[0].rows().len(), 16);

    // The curves and tables of both pages are the same; the header tells of the resumption.
    let (page, resumed) = (lines(&whole, "report.html"), lines(&parts, "report.html"));
    assert!(resumed.contains("resumed after step 300 · "));
    assert!(resumed.replace("resumed after step 300 · ", "") == page, "the pages differ");
    for part in [
        "finished",
        "step 420: the loss jumped",
        "<th>lora.r</th><td>16</td>",
        "Natalia",
        "train.jsonl:6735",
        r#"<figure class="chart" id="entropy""#,
        "<figcaption>Rewards</figcaption>",
        "chosen, validation",
        "<th>rewards/accuracies</th>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Nothing is fetched: the only addresses are names of XML.
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
    assert!(!parts.join("report.html.tmp").exists());
}
