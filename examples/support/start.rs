//! What the programs that train do alike before and after their recipe.

use std::error::Error;
use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;

use posttrain::model::checkpoint::{Checkpoint, Dtype};
use posttrain::model::config::Config;
use posttrain::train::config::{DataArguments, Method, Paths, Settings, When};
use posttrain::train::data::{
    Answers, Batches, DataReport, Marks, RowCounts, Samples, Split, answers_without_validation,
    split, split_answers, without_validation,
};
use posttrain::train::watch::{JsonLines, Observer, Report, TensorBoard};

use crate::bar::Bar;

/// All who are told what happens.
pub(crate) fn observers(out: &Path) -> Vec<Box<dyn Observer>> {
    vec![
        Box::new(JsonLines::new(out)),
        Box::new(TensorBoard::new(out)),
        Box::new(Report::new(out)),
        Box::new(Bar::new()),
    ]
}

/// That the files are there, before anything is made.
pub(crate) fn check_files(data: &DataArguments) -> Result<(), String> {
    for path in [&data.data, &data.eval_data].into_iter().flat_map(Paths::as_slice) {
        fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Rows to train and to validate on.
pub(crate) trait Set: Sized {
    fn rows(&self) -> usize;
    fn split(&self, share: f64, seed: u64) -> Result<Split<Self>, posttrain::train::Error>;
    fn without(
        self,
        validation: &Self,
        counts: &mut RowCounts,
    ) -> Result<Self, posttrain::train::Error>;
    fn texts(&self) -> &Samples;
}

impl Set for Samples {
    fn rows(&self) -> usize {
        self.len()
    }
    fn split(&self, share: f64, seed: u64) -> Result<Split, posttrain::train::Error> {
        split(self, share, seed)
    }
    fn without(
        self,
        validation: &Self,
        counts: &mut RowCounts,
    ) -> Result<Self, posttrain::train::Error> {
        without_validation(self, validation, counts)
    }
    fn texts(&self) -> &Samples {
        self
    }
}

impl Set for Answers {
    fn rows(&self) -> usize {
        self.len()
    }
    fn split(&self, share: f64, seed: u64) -> Result<Split<Self>, posttrain::train::Error> {
        split_answers(self, share, seed)
    }
    fn without(
        self,
        validation: &Self,
        counts: &mut RowCounts,
    ) -> Result<Self, posttrain::train::Error> {
        answers_without_validation(self, validation, counts)
    }
    fn texts(&self) -> &Samples {
        self.texts()
    }
}

/// Rows to train on, rows to validate on where that is wanted, and the report of both. `read` reads
/// files, and puts bad rows into the file that it is given.
pub(crate) fn sets<M: Method, S: Set>(
    config: &Settings<M>,
    read: impl Fn(&Paths, &Path) -> Result<(S, RowCounts), Box<dyn Error>>,
    report: impl Fn(&S, &RowCounts) -> DataReport,
) -> Result<(S, Option<S>, DataReport), Box<dyn Error>> {
    let (data, training) = (&config.data, &config.training);
    let out = &training.output_dir;
    let (rows, mut counts) = read(&data.data, &out.join("bad_rows.jsonl"))?;
    let (train, validation) = if !data.eval_data.as_slice().is_empty() {
        let (validation, of_validation) = read(&data.eval_data, &out.join("bad_eval_rows.jsonl"))?;
        let report = report(&validation, &of_validation);
        eprintln!("validation\n{}", report.text(marks()));
        save(&out.join("eval_data_report.json"), &serde_json::to_vec_pretty(&report)?)?;
        (rows.without(&validation, &mut counts)?, Some(validation))
    } else if training.eval_strategy != When::No && data.val_set_size > 0.0 {
        let share = data.validation_share(rows.rows());
        let Split { train, validation } = rows.split(share, training.order_seed())?;
        (train, Some(validation))
    } else {
        (rows, None)
    };
    let mut report = report(&train, &counts);
    if let Some(validation) = &validation {
        report = report.with_validation(validation.texts());
    }
    Ok((train, validation, report))
}

/// Shows rows and memory, and writes the report and every setting beside the output.
pub(crate) fn announce<M: Method>(
    config: &Settings<M>,
    base: &Path,
    batches: &Batches,
    report: &DataReport,
    cpu: bool,
) -> Result<(), Box<dyn Error>> {
    eprintln!("{}", report.text(marks()));
    let stored = Checkpoint::open(base)?.dtype().unwrap_or(Dtype::F32);
    let model = Config::from_model(base)?;
    eprintln!("memory\n{}", config.memory_report(&model, stored, batches.longest(), cpu)?);
    let out = &config.training.output_dir;
    save(&out.join("data_report.json"), &serde_json::to_vec_pretty(report)?)?;
    Ok(save(&out.join("config.yaml"), config.to_yaml().as_bytes())?)
}

/// Writes a file beside and renames it, so that it is whole or as it was.
pub(crate) fn save(path: &Path, content: &[u8]) -> Result<(), String> {
    let beside = path.with_extension("tmp");
    let written = fs::write(&beside, content).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// Colours on a terminal, brackets elsewhere.
fn marks() -> Marks {
    if std::io::stderr().is_terminal() { Marks::Ansi } else { Marks::Plain }
}

/// What is trained, in a few words.
pub(crate) fn title<M: Method>(config: &Settings<M>) -> String {
    let model = config.model.name().unwrap_or_default();
    match (&config.peft.lora, &config.peft.quantization) {
        (Some(lora), Some(_)) => format!("{model}, QLoRA r {}", lora.r),
        (Some(lora), None) => format!("{model}, LoRA r {}", lora.r),
        _ => model.to_owned(),
    }
}
