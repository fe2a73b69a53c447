//! What a site counts over its validation split (a survey: over all its data): integers only, so that adding them up is exact and the order
//! does not matter.

use serde::{Deserialize, Serialize};

use super::classification::Classification;
use super::fixed::EXAMPLES_MAX;
use super::kind::Kind;
use super::language::Language;
use super::multi_label::MultiLabel;
use super::regression::Regression;
use super::report::{self, Report};
use super::survey::Survey;

/// What a site sends: counts over its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counts {
    /// Of a classifier.
    Classification(Classification),
    /// Of a classifier that gives any number of labels.
    MultiLabel(MultiLabel),
    /// Of a model of a number.
    Regression(Regression),
    /// Of a language model.
    Language(Language),
    /// Of what sites hold.
    Survey(Survey),
}

/// Two sites' counts cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They count for different kinds of tasks.
    #[error("counts of different kinds of tasks cannot be added")]
    Kinds,
    /// They count different numbers of classes.
    #[error("counts over {0} labels cannot be added to counts over {1}")]
    Labels(usize, usize),
    /// A sum does not fit its integer.
    #[error("the sum of the counts overflows")]
    Overflow,
}

/// Counts from the network are no counts of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// They count for another kind of task.
    #[error("the metrics are not those of the run's kind of task")]
    Kind,
    /// The confusion matrix or the list of classes has the wrong size.
    #[error("the metrics are not over the run's {0} labels")]
    Labels(usize),
    /// More than [`EXAMPLES_MAX`] a site.
    #[error("the metrics claim more than {EXAMPLES_MAX} examples a site")]
    TooMany,
    /// A histogram has a bin that does not exist or is empty, or another total than the other counts.
    #[error("the score histograms of label {0} contradict the other counts")]
    Histogram(usize),
    /// A bin of the calibration curve holds what it cannot.
    #[error("bin {0} of the calibration curve contradicts the other counts")]
    Calibration(usize),
    /// A survey is of other columns, or other words, than the run's.
    #[error("the survey is not over the run's {0} columns")]
    Columns(usize),
    /// A column of a survey holds what it cannot.
    #[error("column {0} of the survey contradicts the other counts")]
    Column(usize),
    /// A sum or a count is more than so many examples can have.
    #[error("the {0} is larger than so many examples can have")]
    Sum(&'static str),
}

impl Counts {
    /// Nothing counted yet.
    pub fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Classification { labels } => Self::Classification(Classification::new(labels.len())),
            Kind::MultiLabel { labels } => Self::MultiLabel(MultiLabel::new(labels.len())),
            Kind::Regression { .. } => Self::Regression(Regression::default()),
            Kind::Language => Self::Language(Language::default()),
            Kind::Survey { columns } => Self::Survey(Survey::new(columns)),
        }
    }

    /// Adds another site's counts. On an error nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Mismatch> {
        *self = match (&*self, other) {
            (Self::Classification(own), Self::Classification(other)) => {
                Self::Classification(own.merged(other)?)
            }
            (Self::MultiLabel(own), Self::MultiLabel(other)) => Self::MultiLabel(own.merged(other)?),
            (Self::Regression(own), Self::Regression(other)) => {
                Self::Regression(own.merged(other).ok_or(Mismatch::Overflow)?)
            }
            (Self::Language(own), Self::Language(other)) => {
                Self::Language(own.merged(other).ok_or(Mismatch::Overflow)?)
            }
            (Self::Survey(own), Self::Survey(other)) if own.is_like(other) => {
                Self::Survey(own.merged(other).ok_or(Mismatch::Overflow)?)
            }
            (
                Self::Classification(_)
                | Self::MultiLabel(_)
                | Self::Regression(_)
                | Self::Language(_)
                | Self::Survey(_),
                _,
            ) => return Err(Mismatch::Kinds),
        };
        Ok(())
    }

    /// Number of examples counted; for a language model, of texts.
    pub fn num_examples(&self) -> u64 {
        match self {
            Self::Classification(counts) => counts.num_examples(),
            Self::MultiLabel(counts) => counts.num_examples(),
            Self::Regression(counts) => counts.num_examples(),
            Self::Language(counts) => counts.num_examples(),
            Self::Survey(counts) => counts.examples,
        }
    }

    /// Whether counts that came from the network can be the counts of `sites` sites over a task of that kind. Only
    /// such counts may be merged and reported on.
    pub fn is_sound(&self, kind: &Kind, sites: u64) -> Result<(), Unsound> {
        let most = EXAMPLES_MAX.saturating_mul(sites);
        match (self, kind) {
            (Self::Classification(counts), Kind::Classification { labels }) => {
                counts.is_sound(labels.len(), most)
            }
            (Self::MultiLabel(counts), Kind::MultiLabel { labels }) => counts.is_sound(labels.len(), most),
            (Self::Regression(counts), Kind::Regression { .. }) => counts.is_sound(most),
            (Self::Language(counts), Kind::Language) => counts.is_sound(most),
            (Self::Survey(counts), Kind::Survey { columns }) => counts.is_sound(columns, most),
            (
                Self::Classification(_)
                | Self::MultiLabel(_)
                | Self::Regression(_)
                | Self::Language(_)
                | Self::Survey(_),
                _,
            ) => Err(Unsound::Kind),
        }
    }

    /// The metrics of a task of that kind: its labels name the classes, and one without a name there is named by
    /// its number.
    pub fn report(&self, kind: &Kind) -> Report {
        report::report(self, kind)
    }
}

impl From<Classification> for Counts {
    fn from(counts: Classification) -> Self {
        Self::Classification(counts)
    }
}

impl From<MultiLabel> for Counts {
    fn from(counts: MultiLabel) -> Self {
        Self::MultiLabel(counts)
    }
}

impl From<Regression> for Counts {
    fn from(counts: Regression) -> Self {
        Self::Regression(counts)
    }
}

impl From<Language> for Counts {
    fn from(counts: Language) -> Self {
        Self::Language(counts)
    }
}

impl From<Survey> for Counts {
    fn from(counts: Survey) -> Self {
        Self::Survey(counts)
    }
}
