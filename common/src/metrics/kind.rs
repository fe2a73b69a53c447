//! What a task counts: decided by the run, the same at every site.

use crate::run::{FeatureKind, NumberTarget, RunSpec, Target, Task, TaskInput};

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
    /// Nothing is learned yet: what the sites hold is counted, column by column.
    Survey {
        /// The features, then what is learned.
        columns: Vec<Asked>,
    },
}

/// A column that a survey asks about.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The run's name for it.
    pub column: String,
    /// What is counted.
    pub asks: Asks,
}

/// What a survey counts in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Asks {
    /// Numbers, standardised by what the run says of them so far.
    Number(Scale),
    /// How many examples have each word.
    Words {
        /// The words.
        words: Vec<String>,
        /// How many of them an example has.
        occurs: Occurs,
    },
}

/// How many words an example has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// One: the label.
    Once,
    /// One, or the value is missing: a category.
    AtMostOnce,
    /// Any number: several labels.
    Freely,
}

/// What a survey calls values that are none of the categories.
const OTHER: &str = "(other)";
/// What a survey calls whatever a hashed column holds.
const ANY: &str = "(any value)";

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
        if spec.is_survey() {
            return Self::Survey { columns: surveyed(&spec.task) };
        }
        let labels = || spec.task.labels().to_vec();
        match &spec.task.target {
            Target::Label { .. } | Target::Nothing => Self::Classification { labels: labels() },
            Target::Labels { .. } => Self::MultiLabel { labels: labels() },
            Target::Number(number) => Self::Regression { target: number.scale() },
            Target::NextToken { .. } => Self::Language,
        }
    }
}

/// What a survey asks of a task's data.
fn surveyed(task: &Task) -> Vec<Asked> {
    let features = match &task.input {
        TaskInput::Table { features } => features.as_slice(),
        TaskInput::Text { .. } | TaskInput::Image { .. } | TaskInput::Nothing => &[],
    };
    let words = |words: &[String], occurs| Asks::Words { words: words.to_vec(), occurs };
    let features = features.iter().map(|feature| {
        let asks = match &feature.kind {
            FeatureKind::Numeric { mean, std } => Asks::Number(Scale { mean: *mean, std: *std }),
            FeatureKind::Categorical { categories, other } => {
                let others = other.then(|| OTHER.to_owned());
                let named: Vec<String> = categories.iter().cloned().chain(others).collect();
                words(&named, Occurs::AtMostOnce)
            }
            FeatureKind::Hashed { .. } => words(&[ANY.to_owned()], Occurs::AtMostOnce),
        };
        Asked { column: feature.column.clone(), asks }
    });
    let target = match &task.target {
        Target::Label { column, labels } => Some((column, words(labels, Occurs::Once))),
        Target::Labels { column, labels, .. } => Some((column, words(labels, Occurs::Freely))),
        Target::Number(number) => Some((&number.column, Asks::Number(number.scale()))),
        Target::NextToken { .. } | Target::Nothing => None,
    };
    features.chain(target.map(|(column, asks)| Asked { column: column.clone(), asks })).collect()
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
