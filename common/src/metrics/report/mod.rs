//! The metrics that people read, computed from counts with scikit-learn's definitions. Every ratio whose denominator
//! is 0 is 0 (`zero_division=0`).
//!
//! For programs (JSON) a report is the fields of its kind and `task`, the kind's name; `figures` says it for people.

mod classification;
mod figures;
mod language;
mod multi_label;
mod regression;
mod survey;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counts::Counts;
use super::curves::{Area, Scores};
use super::kind::Kind;
use super::ratios::Tally;

pub use classification::{CalibrationReport, ClassificationReport};
pub use figures::Figure;
pub use language::LanguageReport;
pub use multi_label::MultiLabelReport;
pub use regression::RegressionReport;
pub use survey::{ColumnReport, NumberReport, SurveyReport, WordReport};

/// What is read off counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Of a classifier.
    Classification(Box<ClassificationReport>),
    /// Of a classifier that gives any number of labels.
    MultiLabel(Box<MultiLabelReport>),
    /// Of a model of a number.
    Regression(RegressionReport),
    /// Of a language model.
    Language(LanguageReport),
    /// Of what sites hold.
    Survey(Box<SurveyReport>),
}

/// One label against the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// The label.
    pub label: String,
    /// Share of the predictions of this label that are right.
    pub precision: f64,
    /// Share of the examples of this label that were found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Examples of this label.
    pub support: u64,
    /// Area under the ROC curve against the rest; `None` when all or none of the examples have this label.
    pub roc_auc: Option<f64>,
    /// The most by which binning can have changed `roc_auc`.
    pub roc_auc_error: Option<f64>,
    /// Average precision against the rest; `None` when no example has this label.
    pub pr_auc: Option<f64>,
    /// The most by which binning can have changed `pr_auc`.
    pub pr_auc_error: Option<f64>,
}

/// The report of `counts`. A class without a name in `kind` is named by its number.
pub(super) fn report(counts: &Counts, kind: &Kind) -> Report {
    let labels = match kind {
        Kind::Classification { labels } | Kind::MultiLabel { labels } => labels.as_slice(),
        Kind::Regression { .. } | Kind::Language | Kind::Survey { .. } => &[],
    };
    match counts {
        Counts::Classification(counts) => {
            Report::Classification(Box::new(classification::report(counts, labels)))
        }
        Counts::MultiLabel(counts) => Report::MultiLabel(Box::new(multi_label::report(counts, labels))),
        Counts::Regression(counts) => Report::Regression(regression::report(counts, kind)),
        Counts::Language(counts) => Report::Language(language::report(counts)),
        Counts::Survey(counts) => Report::Survey(Box::new(survey::report(counts, kind))),
    }
}

/// Each label with its curves.
fn per_class<'a>(
    labels: &[String],
    classes: impl Iterator<Item = (Tally, &'a Scores)>,
) -> (Vec<ClassReport>, Curves) {
    let mut curves = Curves::default();
    let classes = classes.enumerate().map(|(class, (tally, scores))| {
        let (roc, pr) = (scores.roc_auc(), scores.pr_auc());
        curves.roc.push(roc);
        curves.pr.push(pr);
        ClassReport {
            label: labels.get(class).cloned().unwrap_or_else(|| class.to_string()),
            precision: tally.precision(),
            recall: tally.recall(),
            f1: tally.f1(),
            support: tally.support,
            roc_auc: roc.map(|area| area.value),
            roc_auc_error: roc.map(|area| area.error),
            pr_auc: pr.map(|area| area.value),
            pr_auc_error: pr.map(|area| area.error),
        }
    });
    (classes.collect(), curves)
}

/// The areas of each label that has one.
#[derive(Default)]
struct Curves {
    roc: Vec<Option<Area>>,
    pr: Vec<Option<Area>>,
}

/// The mean over the labels that have an area.
fn mean_area(areas: &[Option<Area>]) -> Option<Area> {
    Area::mean(&areas.iter().flatten().copied().collect::<Vec<_>>())
}

/// A report for programs: the fields of its kind, and its name.
#[derive(Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
enum Tagged<C, M, R, L, S> {
    Classification(C),
    MultiLabel(M),
    Regression(R),
    Language(L),
    Survey(S),
}

/// A report on the wire, whose format has no names.
#[derive(Serialize, Deserialize)]
enum Numbered<C, M, R, L, S> {
    Classification(C),
    MultiLabel(M),
    Regression(R),
    Language(L),
    Survey(S),
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The same variant of another enum, its contents borrowed.
        macro_rules! borrowed {
            ($into:ident) => {
                match self {
                    Self::Classification(report) => $into::Classification(report),
                    Self::MultiLabel(report) => $into::MultiLabel(report),
                    Self::Regression(report) => $into::Regression(report),
                    Self::Language(report) => $into::Language(report),
                    Self::Survey(report) => $into::Survey(report),
                }
            };
        }
        if serializer.is_human_readable() {
            borrowed!(Tagged).serialize(serializer)
        } else {
            borrowed!(Numbered).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The report out of the same variant of another enum.
        macro_rules! owned {
            ($from:ident) => {
                Ok(match $from::deserialize(deserializer)? {
                    $from::Classification(report) => Self::Classification(report),
                    $from::MultiLabel(report) => Self::MultiLabel(report),
                    $from::Regression(report) => Self::Regression(report),
                    $from::Language(report) => Self::Language(report),
                    $from::Survey(report) => Self::Survey(report),
                })
            };
        }
        if deserializer.is_human_readable() { owned!(Tagged) } else { owned!(Numbered) }
    }
}
