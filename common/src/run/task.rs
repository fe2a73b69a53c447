//! What is learned from what: the table `[task]`, complete and checked. It is the contract that every site's data must
//! meet, and nothing in it depends on a site.

use serde::{Deserialize, Serialize};

/// What is learned: the data contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The data set's name in every `site.toml`.
    pub dataset: String,
    /// The column that says which examples belong together, such as those of one patient: none of them is trained on
    /// when another is validated on.
    pub group: Option<String>,
    /// What is learned from.
    pub input: TaskInput,
    /// What is learned.
    pub target: Target,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TaskInput {
    /// One column of text, cut to `max_length` tokens (special tokens included).
    Text {
        /// The column.
        column: String,
        /// Tokens per text at most.
        max_length: u32,
    },
    /// Numeric and categorical columns.
    Table {
        /// The columns, in the order of the model's inputs.
        features: Vec<Feature>,
    },
    /// Images.
    Image {
        /// The column that holds their paths, where a site has a table of them.
        column: String,
        /// Their width and height in pixels as the model takes them; the model's own when not given.
        size: Option<u32>,
    },
    /// Nothing: for [`Architecture::Constant`](super::Architecture::Constant).
    Nothing,
}

/// What is learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// An example has one of these labels.
    Label {
        /// The column that holds it.
        column: String,
        /// In the order of the model's outputs. At least two.
        labels: Vec<String>,
    },
    /// An example has any number of these labels.
    Labels {
        /// The column that holds them.
        column: String,
        /// What stands between them there.
        separator: String,
        /// In the order of the model's outputs. At least one.
        labels: Vec<String>,
    },
    /// An example has a number.
    Number(NumberTarget),
    /// Each token of a text, from the tokens before it.
    NextToken {
        /// The column whose text follows the input; then only its tokens are learned.
        answer: Option<String>,
        /// What the model reads of the input: `{text}` in it, once, stands for the text.
        template: String,
    },
    /// Nothing: for [`Architecture::Constant`](super::Architecture::Constant).
    Nothing,
}

/// A number that is learned. The model gives `(number - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberTarget {
    /// The column that holds it.
    pub column: String,
    /// Centre.
    pub mean: f64,
    /// Scale, above 0.
    pub std: f64,
}

/// One column of a table and how it becomes model inputs. Fixed by the run, so that every site encodes alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The column.
    pub column: String,
    /// How it is read.
    pub kind: FeatureKind,
    /// Values that mean "missing" besides the empty string, compared as text and, for numbers, as numbers.
    pub missing: Vec<String>,
}

/// How a column becomes model inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FeatureKind {
    /// `(x - mean) / std`, and an input that is 1 where the value is missing (and the first one 0).
    Numeric {
        /// Centre.
        mean: f64,
        /// Scale, above 0.
        std: f64,
    },
    /// One input per category; all 0 where the value is missing.
    Categorical {
        /// The categories.
        categories: Vec<String>,
        /// Whether a value that is none of them is an input of its own, the last. If not, it breaks the contract.
        other: bool,
    },
    /// Words that nobody lists: the value's hash says which of so many inputs is 1 or -1, as in scikit-learn's
    /// `FeatureHasher`. All are 0 where the value is missing.
    Hashed {
        /// Inputs.
        buckets: u32,
    },
}

impl Task {
    /// The labels, in the order of the model's outputs; none when something else is learned.
    pub fn labels(&self) -> &[String] {
        match &self.target {
            Target::Label { labels, .. } | Target::Labels { labels, .. } => labels,
            Target::Number(_) | Target::NextToken { .. } | Target::Nothing => &[],
        }
    }

    /// Outputs of the model's head; 0 for a language model, whose outputs are its vocabulary.
    pub fn num_outputs(&self) -> u64 {
        match &self.target {
            Target::Label { labels, .. } | Target::Labels { labels, .. } => labels.len() as u64,
            Target::Number(_) => 1,
            Target::NextToken { .. } | Target::Nothing => 0,
        }
    }

    /// Number of inputs of a tabular model; 0 for others.
    pub fn num_inputs(&self) -> u64 {
        match &self.input {
            TaskInput::Table { features } => features.iter().map(|feature| feature.kind.width()).sum(),
            TaskInput::Text { .. } | TaskInput::Image { .. } | TaskInput::Nothing => 0,
        }
    }

    /// The columns that the model reads, in its order.
    pub fn input_columns(&self) -> Vec<&str> {
        match &self.input {
            TaskInput::Text { column, .. } | TaskInput::Image { column, .. } => vec![column],
            TaskInput::Table { features } => features.iter().map(|feature| feature.column.as_str()).collect(),
            TaskInput::Nothing => Vec::new(),
        }
    }
}

impl Target {
    /// The column that holds what is learned, if there is one.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Label { column, .. } | Self::Labels { column, .. } => Some(column),
            Self::Number(number) => Some(&number.column),
            Self::NextToken { answer, .. } => answer.as_deref(),
            Self::Nothing => None,
        }
    }
}

impl FeatureKind {
    /// Number of model inputs that the column becomes.
    pub fn width(&self) -> u64 {
        match self {
            Self::Numeric { .. } => 2,
            Self::Categorical { categories, other } => categories.len() as u64 + u64::from(*other),
            Self::Hashed { buckets } => u64::from(*buckets),
        }
    }
}
