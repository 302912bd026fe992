//! Pictures of a calibration.

use super::{Bin, Calibration};
use crate::watch::chart::{Bars, Chart, Look, Series};

/// The reliability diagram: how often predictions of a confidence are right. On the straight line a model is
/// calibrated, below it is too sure of itself.
///
/// ```
/// use posttrain_train::reward::{Calibration, reliability};
/// let found = Calibration::of(&[(0.75, 1.0), (0.75, 0.0), (0.25, 0.0)], 10).unwrap();
/// assert!(reliability(&found).to_svg().starts_with("<svg"));
/// ```
pub fn reliability(calibration: &Calibration) -> Chart {
    let bins = &calibration.bins;
    let first = bins.first().map_or(0.0, |bin| if bin.high >= 0.5 { 0.5 } else { 0.0 });
    let points = |of: fn(&Bin) -> f64| bins.iter().map(|bin| (bin.confidence, of(bin))).collect();
    let line = |name: &str, color, of| Series::line(name, color, points(of));
    Chart::new("Reliability", "confidence")
        .with(Series::line("calibrated", 6, vec![(first, first), (1.0, 1.0)]).looking(Look::Faint))
        .with(line("95 % from", 1, |bin| bin.accuracy.low).looking(Look::Faint))
        .with(line("to", 1, |bin| bin.accuracy.high).looking(Look::Faint))
        .with(line("share that is right", 1, |bin| bin.accuracy.value).looking(Look::Dots))
}

/// How many predictions have which confidence, from the lowest bin that is not empty.
pub fn histogram(calibration: &Calibration) -> Bars {
    let bar = |bin: &Bin| (format!("{:.2}–{:.2}", bin.low, bin.high), bin.count as f64);
    let bars = calibration.bins.iter().map(bar).collect();
    Bars { title: "Predictions by confidence".into(), across: "confidence".into(), bars }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: x from 0.5 to 1 lies between 52 and 626, so a confidence of 0.75 at 339.
    #[test]
    fn a_point_for_each_bin() {
        let found = Calibration::of(&[(0.75, 1.0), (0.75, 0.0), (1.0, 1.0)], 20).unwrap();
        let chart = reliability(&found);
        assert_eq!(chart.series[0].points, [(0.5, 0.5), (1.0, 1.0)]);
        assert_eq!(chart.series[3].points, [(0.75, 0.5), (1.0, 1.0)]);
        assert!(chart.to_svg().contains(r#"<circle cx="339.0""#), "{}", chart.to_svg());
        assert_eq!(histogram(&found).bars[0], ("0.70–0.75".into(), 2.0));
    }
}
