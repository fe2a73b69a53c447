//! What a task counts: decided by the run, the same at every site.

use crate::run::{NumberTarget, RunSpec, Target};

/// The kind of a task, with what is needed to count and to read counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Each example has one label.
    Classification {
        /// In the order of the model's outputs.
        labels: Vec<String>,
    },
    /// Each example has any number of labels.
    MultiLabel {
        /// In the order of the model's outputs.
        labels: Vec<String>,
    },
    /// Each example has a number.
    Regression {
        /// How numbers are standardised.
        target: Scale,
    },
    /// Each token has the tokens before it.
    Language,
}

/// How a number is standardised: `(value - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Subtracted.
    pub mean: f64,
    /// Divided by, above 0.
    pub std: f64,
}

impl Kind {
    /// What the run's task counts.
    pub fn of(spec: &RunSpec) -> Self {
        let labels = || spec.task.labels().to_vec();
        match &spec.task.target {
            Target::Label { .. } | Target::Nothing => Self::Classification { labels: labels() },
            Target::Labels { .. } => Self::MultiLabel { labels: labels() },
            Target::Number(number) => Self::Regression { target: number.scale() },
            Target::NextToken { .. } => Self::Language,
        }
    }
}

impl NumberTarget {
    /// How it is standardised.
    pub fn scale(&self) -> Scale {
        Scale { mean: self.mean, std: self.std }
    }
}

impl Scale {
    /// A value in standard deviations from the mean.
    pub fn standardised(&self, value: f64) -> f64 {
        (value - self.mean) / self.std
    }
}
