//! A progress bar for a run, on standard error.

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressStyle};
use posttrain::train::Error;
use posttrain::train::watch::{
    Checkpoint, EvalMetrics, Extras, Observer, RunInfo, StepMetrics, Summary, Warning,
};

/// Shows the step, the loss, for pairs how many are in order and by how much, and the speed.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that appears when the run starts.
    pub(crate) fn new() -> Self {
        Self(ProgressBar::hidden())
    }

    /// A line above the bar, or without one where there is no terminal.
    fn say(&self, text: &str) {
        if self.0.is_hidden() { eprintln!("{text}") } else { self.0.println(text) }
    }
}

impl Observer for Bar {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        let style = "{bar:30} step {pos}/{len}  {msg}  {eta} left";
        let style = ProgressStyle::with_template(style).expect("a style");
        self.0 = ProgressBar::new(run.total_steps).with_style(style);
        self.0.set_position(run.resumed_from.unwrap_or(0));
        self.0.reset_eta();
        Ok(())
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        if self.0.length() != Some(total) {
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}").expect("a style");
            self.0 = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        }
        self.0.set_position(done);
        if done == total {
            self.0.finish_and_clear();
            self.say(&format!("{what}: {total}"));
        }
        Ok(())
    }

    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        self.0.set_position(step.step);
        let (loss, norm, speed) = (step.loss, step.grad_norm, step.tokens_per_second());
        let pairs = pairs(&step.extra, "  ");
        let text = format!("loss {loss:.4}{pairs}  gradient {norm:.3}  {speed:.0} tokens/s");
        // Where there is no terminal: twenty lines in all.
        let total = self.0.length().unwrap_or(0);
        if self.0.is_hidden() && (step.step.is_multiple_of(total.div_ceil(20).max(1))) {
            self.say(&format!("step {}/{total}: {text}", step.step));
        }
        self.0.set_message(text);
        Ok(())
    }

    fn evaluation(&mut self, found: &EvalMetrics) -> Result<(), Error> {
        let (step, loss, pairs) = (found.step, found.eval_loss, pairs(&found.extra, ", "));
        let perplexity = found.perplexity.map(|value| format!(", perplexity {value:.3}"));
        let perplexity = perplexity.unwrap_or_default();
        self.say(&format!("step {step}: validation loss {loss:.4}{perplexity}{pairs}"));
        Ok(())
    }

    fn checkpoint(&mut self, written: &Checkpoint) -> Result<(), Error> {
        let best = if written.best { ", the best so far" } else { "" };
        self.say(&format!("step {}: {}{best}", written.step, written.path.display()));
        Ok(())
    }

    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        self.say(&format!("warning: {warning}"));
        Ok(())
    }

    fn end(&mut self, _: &Summary) -> Result<(), Error> {
        self.0.finish_and_clear();
        Ok(())
    }
}

/// Of recipes that learn from pairs, each after `before`.
fn pairs(extra: &Extras, before: &str) -> String {
    let mut text = String::new();
    for (name, value) in [("accuracy", extra.accuracy()), ("margin", extra.margin())] {
        if let Some(value) = value {
            _ = write!(text, "{before}{name} {value:.3}");
        }
    }
    text
}
