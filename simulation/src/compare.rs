//! Variants of a simulation side by side, each over several seeds: a table with means and standard deviations, and what is
//! plotted.

use std::path::{Path, PathBuf};

use sheaf_common::metrics::{Counts, Kind};
use sheaf_common::run::TaskInput;

use crate::columns::{Cells, Columns};
use crate::config::Setting;
use crate::output::{OutputError, Report};
use crate::rounds::{Score, Traffic};
use crate::simulate::{Audience, SimulateError, simulate};

/// A metric that a variant is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target(pub f64);

/// What came of a variant with each seed.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its file's name without the ending.
    pub name: String,
    /// The reports, in the order of seeds.
    pub reports: Vec<Report>,
}

/// A mean with its standard deviation over seeds, and of how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample; 0 for one value.
    pub sd: f64,
    /// Values that it is of.
    pub count: usize,
}

/// One of the simulations that are compared could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{variant}, seed {seed}: {reason}")]
pub struct CompareError {
    /// Which variant.
    pub variant: String,
    /// With which seed.
    pub seed: u64,
    /// Why.
    #[source]
    pub reason: Box<SimulateError>,
}

/// The metrics that a simulation may have.
pub fn metrics(setting: &Setting) -> Vec<&'static str> {
    if setting.spec.task.input == TaskInput::Nothing {
        return Vec::new();
    }
    let kind = Kind::of(&setting.spec);
    Counts::new(&kind).report(&kind).figures().into_iter().map(|figure| figure.key).collect()
}

/// Simulates every setting with every seed, each in a folder of its own below `out`. Interrupted, nothing comes of it, and
/// the same call goes on later.
pub fn run(
    settings: &[(String, Setting)],
    seeds: u64,
    out: &Path,
    audience: &mut dyn Audience,
) -> Result<Option<Vec<Variant>>, CompareError> {
    let mut variants = Vec::new();
    for (name, setting) in settings {
        let mut reports = Vec::new();
        for number in 0..seeds {
            let setting = setting.clone().reseeded(number);
            let seed = setting.simulation.seed;
            audience.begins(&format!("{name}, seed {seed}"));
            let folder: PathBuf = out.join(name).join(format!("seed-{seed}"));
            match simulate(&setting, &folder, audience) {
                Ok(Some(report)) => reports.push(report),
                Ok(None) => return Ok(None),
                Err(reason) => {
                    return Err(CompareError { variant: name.clone(), seed, reason: Box::new(reason) });
                }
            }
        }
        variants.push(Variant { name: name.clone(), reports });
    }
    Ok(Some(variants))
}

impl Mean {
    /// Of these values; nothing of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Some(Self { mean, sd, count })
    }
}

impl Variant {
    /// A figure of every report that has it.
    pub fn mean(&self, of: impl Fn(&Report) -> Option<f64>) -> Option<Mean> {
        Mean::of(&self.reports.iter().filter_map(of).collect::<Vec<_>>())
    }

    /// How many rounds it took to reach the target on a metric, in those simulations that did.
    pub fn rounds_to(&self, metric: &str, Target(target): Target) -> Option<Mean> {
        let reaches = |point: &Point| {
            if is_loss(metric) { point.value <= target } else { point.value >= target }
        };
        let first = |report: &Report| points(report, metric).into_iter().find(reaches);
        self.mean(|report| Some(f64::from(first(report)?.round)))
    }
}

/// Metrics of which less is better.
const LOSSES: [&str; 6] = ["loss", "perplexity", "mae", "rmse", "brier_score", "calibration_error"];

/// Whether less of a metric is better.
pub fn is_loss(metric: &str) -> bool {
    LOSSES.contains(&metric)
}

/// A point of a plot: a round of one simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Rounds completed.
    pub round: u32,
    /// Bytes until then, up and down.
    pub bytes: u64,
    /// Simulated seconds until then.
    pub seconds: f64,
    /// The metric.
    pub value: f64,
}

/// A metric by round of one simulation, on the test set. Without one, on the clients' validation splits: in a round they
/// answer for the model that it starts from, and after the last one for what came of it.
pub fn points(report: &Report, metric: &str) -> Vec<Point> {
    let is_tested = report.history.iter().any(|row| !row.test.is_empty());
    let (mut points, mut sent, mut before) = (Vec::new(), Traffic::default(), (0, 0, 0.0));
    let mut add = |score: &Score, (round, bytes, seconds)| {
        points.extend(score.get(metric).map(|value| Point { round, bytes, seconds, value: *value }));
    };
    for row in &report.history {
        sent += row.traffic;
        if row.is_completed() {
            let after = (row.round, sent.up + sent.down, row.simulated);
            if is_tested {
                add(&row.test, after)
            } else {
                add(&row.validation, before)
            }
            before = after;
        }
    }
    if !is_tested {
        add(&report.validation, before);
    }
    points
}

/// Writes every point of every simulation to `path` and, beside it, as Parquet.
pub fn write(variants: &[Variant], metric: &str, path: &Path) -> Result<(), OutputError> {
    let mut rows: Vec<(&str, u64, Point)> = Vec::new();
    for variant in variants {
        for report in &variant.reports {
            let points = points(report, metric).into_iter();
            rows.extend(points.map(|point| (variant.name.as_str(), report.seed, point)));
        }
    }
    let counts = |of: fn(&(&str, u64, Point)) -> u64| Cells::Counts(rows.iter().map(of).collect());
    let numbers = |of: fn(&Point) -> f64| Cells::Numbers(rows.iter().map(|row| Some(of(&row.2))).collect());
    Columns::default()
        .with("variant", Cells::Words(rows.iter().map(|row| Some(row.0.to_owned())).collect()))
        .with("seed", counts(|row| row.1))
        .with("round", counts(|row| row.2.round.into()))
        .with("bytes", counts(|row| row.2.bytes))
        .with("simulated_seconds", numbers(|point| point.seconds))
        .with(metric, numbers(|point| point.value))
        .write(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_of_a_sample() {
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[3.0]), Some(Mean { mean: 3.0, sd: 0.0, count: 1 }));
        assert_eq!(Mean::of(&[1.0, 2.0, 3.0]), Some(Mean { mean: 2.0, sd: 1.0, count: 3 }));
    }
}
