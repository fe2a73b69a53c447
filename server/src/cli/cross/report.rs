//! What a cross-validation found, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use sheaf_common::id::{Name, RunId};
use sheaf_common::metrics::{Figure, Report};
use sheaf_common::status::{RunState, RunStatus};

use super::plan::Scheme;
use crate::cli::metrics::number;
use crate::cli::table::{Align, table};
use crate::cli::units::count;

/// What became of one model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// The fold's number, or the site.
    pub(super) held_out: String,
    pub(super) run: RunId,
    pub(super) state: RunState,
    /// Why so; empty when there is nothing to say.
    pub(super) detail: String,
    /// The run's result on what was held out; `None` unless it was completed and evaluated.
    pub(super) metrics: Option<Report>,
}

/// All models.
pub(super) struct Findings {
    pub(super) scheme: Scheme,
    /// The run that they were made of.
    pub(super) name: Name,
    pub(super) outcomes: Vec<Outcome>,
}

/// A metric over the models that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    mean: f64,
    /// Sample standard deviation (`n - 1`); `None` of fewer than two.
    sd: Option<f64>,
}

impl Outcome {
    /// What became of a run that is over.
    pub(super) fn of(held_out: String, status: &RunStatus) -> Self {
        let summary = &status.summary;
        let completed = summary.state == RunState::Completed;
        let metrics =
            status.metrics_after(status.result).filter(|report| completed && report.num_examples() > 0);
        let mut detail = summary.detail.clone();
        if completed && metrics.is_none() && detail.is_empty() {
            detail = "no metrics came from the sites".into();
        }
        let metrics = metrics.cloned();
        Self { held_out, run: summary.run.clone(), state: summary.state.clone(), detail, metrics }
    }

    /// The server would not take the run.
    pub(super) fn refused(held_out: String, run: RunId, why: String) -> Self {
        Self { held_out, run, state: RunState::Failed, detail: why, metrics: None }
    }
}

impl Findings {
    /// Whether every model was measured.
    pub(super) fn are_complete(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.metrics.is_some())
    }

    /// A row for each model, then mean and standard deviation.
    pub(super) fn text(&self) -> String {
        let names: Vec<(&str, String)> =
            self.headline().iter().map(|figure| (figure.key, figure.name.to_uppercase())).collect();
        let start = [("RUN", Align::Left), (self.column(), Align::Left), ("EXAMPLES", Align::Right)];
        let figures = names.iter().map(|(_, name)| (name.as_str(), Align::Right));
        let end = [("STATE", Align::Left), ("DETAIL", Align::Left)];
        let columns: Vec<(&str, Align)> = start.into_iter().chain(figures).chain(end).collect();
        let rows = self.outcomes.iter().map(|outcome| {
            let values = outcome.metrics.as_ref().map(values).unwrap_or_default();
            let examples =
                outcome.metrics.as_ref().map_or_else(|| "-".into(), |report| count(report.num_examples()));
            let start = [outcome.run.to_string(), outcome.held_out.clone(), examples];
            let figures = names.iter().map(|(key, _)| number(values.get(key).copied()));
            let end = [outcome.state.to_string(), outcome.detail.clone()];
            start.into_iter().chain(figures).chain(end).collect::<Vec<_>>()
        });
        let spreads = self.spreads();
        let last = |name: &str, pick: fn(&Spread) -> Option<f64>| {
            let figures = names.iter().map(|(key, _)| number(spreads.get(key).and_then(pick)));
            [name.to_owned(), String::new(), String::new()].into_iter().chain(figures).collect::<Vec<_>>()
        };
        let last = [last("mean", |spread| Some(spread.mean)), last("sd", |spread| spread.sd)];
        let measured = self.outcomes.iter().filter(|outcome| outcome.metrics.is_some()).count();
        format!(
            "{}\n\nmean and sd are over {measured} of {} models, each counting once; sd is the sample standard deviation (n - 1)",
            table(&columns, rows.chain(last)),
            self.outcomes.len()
        )
    }

    /// Everything for programs: the fields are an interface.
    pub(super) fn json(&self) -> Json {
        let model = |outcome: &Outcome| {
            json!({
                "run": outcome.run,
                "held_out": outcome.held_out,
                "state": outcome.state,
                "detail": outcome.detail,
                "metrics": outcome.metrics,
            })
        };
        let spreads = self.spreads();
        json!({
            "name": self.name,
            "scheme": match self.scheme {
                Scheme::Folds(_) => "folds",
                Scheme::Sites => "leave-one-site-out",
            },
            "models": self.outcomes.iter().map(model).collect::<Json>(),
            "mean": spreads.iter().map(|(key, spread)| (*key, spread.mean)).collect::<BTreeMap<_, _>>(),
            "sd": spreads.iter().map(|(key, spread)| (*key, spread.sd)).collect::<BTreeMap<_, _>>(),
        })
    }

    fn column(&self) -> &'static str {
        match self.scheme {
            Scheme::Folds(_) => "FOLD",
            Scheme::Sites => "SITE",
        }
    }

    fn headline(&self) -> Vec<Figure> {
        self.outcomes
            .iter()
            .find_map(|outcome| outcome.metrics.as_ref())
            .map(Report::headline)
            .unwrap_or_default()
    }

    /// Every metric that a model has, by its name for programs.
    fn spreads(&self) -> BTreeMap<&'static str, Spread> {
        let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for report in self.outcomes.iter().filter_map(|outcome| outcome.metrics.as_ref()) {
            for (key, value) in values(report) {
                all.entry(key).or_default().push(value);
            }
        }
        all.into_iter().map(|(key, values)| (key, spread(&values))).collect()
    }
}

/// A report's metrics that are numbers.
fn values(report: &Report) -> BTreeMap<&'static str, f64> {
    let finite = |figure: Figure| Some((figure.key, figure.value.filter(|value| value.is_finite())?));
    report.figures().into_iter().filter_map(finite).collect()
}

/// Of at least one value.
fn spread(values: &[f64]) -> Spread {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Spread { mean, sd: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()) }
}

#[cfg(test)]
mod tests {
    use sheaf_common::metrics::{Counts, Kind, Regression, Scale};

    use super::*;

    /// A regression with one example that is off by so much.
    fn report(off: f64) -> Report {
        let mut counts = Regression::default();
        counts.observe(1.0, 1.0 + off);
        Counts::from(counts).report(&Kind::Regression { target: Scale { mean: 0.0, std: 1.0 } })
    }

    fn findings(offs: &[Option<f64>]) -> Findings {
        let outcome = |(index, off): (usize, &Option<f64>)| Outcome {
            held_out: (index + 1).to_string(),
            run: format!("toy-fold{}", index + 1).parse().unwrap(),
            state: if off.is_some() { RunState::Completed } else { RunState::Failed },
            detail: if off.is_some() { String::new() } else { "no site answered".into() },
            metrics: off.map(report),
        };
        let outcomes = offs.iter().enumerate().map(outcome).collect();
        Findings { scheme: Scheme::Folds(3), name: "toy".parse().unwrap(), outcomes }
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        // statistics.mean and statistics.stdev of Python.
        let Spread { mean, sd } = spread(&[1.0, 2.0, 4.0]);
        assert!((mean - 7.0 / 3.0).abs() < 1e-12 && (sd.unwrap() - 1.5275252316519468).abs() < 1e-12);
        assert_eq!(spread(&[2.5]), Spread { mean: 2.5, sd: None });
    }

    #[test]
    fn each_model_has_a_row_and_all_together_two() {
        let all = findings(&[Some(0.5), Some(1.0), Some(1.5)]);
        assert!(all.are_complete());
        assert_eq!(
            all.text(),
            "RUN        FOLD  EXAMPLES     MAE    RMSE  R²  STATE      DETAIL\n\
             toy-fold1  1            1  0.5000  0.5000   -  completed\n\
             toy-fold2  2            1  1.0000  1.0000   -  completed\n\
             toy-fold3  3            1  1.5000  1.5000   -  completed\n\
             mean                       1.0000  1.0000   -\n\
             sd                         0.5000  0.5000   -\n\n\
             mean and sd are over 3 of 3 models, each counting once; sd is the sample standard deviation (n - 1)"
        );
        let json = all.json();
        assert_eq!((&json["mean"]["mae"], &json["sd"]["mae"]), (&json!(1.0), &json!(0.5)));
        assert_eq!(json["models"][1]["metrics"]["mae"], json!(1.0));
    }

    #[test]
    fn a_model_that_failed_is_told_and_not_counted() {
        let some = findings(&[Some(0.5), None]);
        assert!(!some.are_complete());
        let text = some.text();
        assert!(
            text.contains("toy-fold2  2            -       -       -   -  failed     no site answered\n"),
            "{text}"
        );
        assert!(text.contains("\nsd                              -       -   -\n"), "{text}");
        assert!(text.contains("over 1 of 2 models"), "{text}");
        assert_eq!(some.json()["sd"]["mae"], Json::Null);
        assert!(findings(&[None]).text().starts_with("RUN        FOLD  EXAMPLES  STATE"));
    }
}
