//! Who is told what happens in a run.

use super::{Checkpoint, EvalMetrics, RunInfo, StepMetrics, Summary, Warning};
use crate::error::Error;

/// Someone who is told what happens in a run. Implement the methods you need; the others do nothing.
///
/// An observer sees a run and does not steer it. The errors are for observers that write: a disk that is full
/// ends the run with the last checkpoint intact, as it would when the next checkpoint is written. For errors
/// of other kinds there is [`Error::Observer`].
///
/// ```
/// use posttrain_train::Error;
/// use posttrain_train::watch::{Observer, StepMetrics};
///
/// /// Remembers the lowest loss.
/// #[derive(Default)]
/// struct Lowest(Option<f64>);
///
/// impl Observer for Lowest {
///     fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
///         self.0 = Some(self.0.map_or(step.loss, |lowest| lowest.min(step.loss)));
///         Ok(())
///     }
/// }
///
/// let mut lowest = Lowest::default();
/// for loss in [2.0, 1.5, 1.75] {
///     let mut step = StepMetrics::default();
///     step.loss = loss;
///     lowest.step(&step)?;
/// }
/// assert_eq!(lowest.0, Some(1.5));
/// # Ok::<(), Error>(())
/// ```
#[expect(clippy::missing_errors_doc, reason = "said once, above: the observer cannot do its work")]
pub trait Observer: Send {
    /// Before the first step.
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        let _ = run;
        Ok(())
    }

    /// While something takes long before the first step: what, and how much of it is done.
    fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        let _ = (what, done, total);
        Ok(())
    }

    /// After a step of the optimizer.
    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        let _ = step;
        Ok(())
    }

    /// After a pass over the validation rows.
    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        let _ = evaluation;
        Ok(())
    }

    /// When a checkpoint is on disk.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let _ = checkpoint;
        Ok(())
    }

    /// When something looks wrong.
    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        let _ = warning;
        Ok(())
    }

    /// After the last step, also when the run failed.
    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        let _ = summary;
        Ok(())
    }
}

/// Nobody.
impl Observer for () {}

/// An observer that the caller keeps.
impl<O: Observer + ?Sized> Observer for &mut O {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        (**self).start(run)
    }
    fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        (**self).progress(what, done, total)
    }
    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        (**self).step(step)
    }
    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        (**self).evaluation(evaluation)
    }
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        (**self).checkpoint(checkpoint)
    }
    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        (**self).warning(warning)
    }
    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        (**self).end(summary)
    }
}

/// Several: each is told, also when one before it fails; the first error is returned.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn start(&mut self, run: &RunInfo) -> Result<(), Error> {
        all(self, |o| o.start(run))
    }
    fn progress(&mut self, what: &str, done: u64, total: u64) -> Result<(), Error> {
        all(self, |o| o.progress(what, done, total))
    }
    fn step(&mut self, step: &StepMetrics) -> Result<(), Error> {
        all(self, |o| o.step(step))
    }
    fn evaluation(&mut self, evaluation: &EvalMetrics) -> Result<(), Error> {
        all(self, |o| o.evaluation(evaluation))
    }
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        all(self, |o| o.checkpoint(checkpoint))
    }
    fn warning(&mut self, warning: &Warning) -> Result<(), Error> {
        all(self, |o| o.warning(warning))
    }
    fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        all(self, |o| o.end(summary))
    }
}

fn all<'a>(
    observers: &mut [Box<dyn Observer + 'a>],
    mut tell: impl FnMut(&mut Box<dyn Observer + 'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut first = Ok(());
    for observer in observers {
        first = first.and(tell(observer));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counts<'a>(&'a mut u32, bool);

    impl Observer for Counts<'_> {
        fn step(&mut self, _: &StepMetrics) -> Result<(), Error> {
            *self.0 += 1;
            if self.1 { Err(Error::Observer("no".into())) } else { Ok(()) }
        }
    }

    #[test]
    fn all_are_told_and_the_first_error_is_returned() {
        let (mut a, mut b) = (0, 0);
        let mut both: Vec<Box<dyn Observer + '_>> =
            vec![Box::new(Counts(&mut a, true)), Box::new(Counts(&mut b, false))];
        let error = both.step(&StepMetrics::default()).unwrap_err();
        assert_eq!(error.to_string(), "an observer failed: no");
        assert!(both.end(&Summary::default()).is_ok());
        drop(both);
        assert_eq!((a, b), (1, 1));
    }
}
