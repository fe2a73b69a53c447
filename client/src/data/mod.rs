//! A site's data, read from its own files and brought into the form that the run's contract fixes.

/// Examples in memory: inputs and labels, one each per example.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What the label is learned from.
    pub inputs: Inputs,
    /// Index of each example's label in the run's `labels`.
    pub labels: Vec<u32>,
}

/// The inputs of all examples.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// One text per example.
    Text(Vec<String>),
    /// Encoded rows: `values.len() == width * examples`, row-major, encoded as the run's features say.
    Table {
        /// Inputs per example.
        width: usize,
        /// All rows.
        values: Vec<f32>,
    },
}

/// A site's examples, divided once for the whole run: the same in every round.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What is trained on.
    pub train: Dataset,
    /// What is held out; may be empty.
    pub validation: Dataset,
}
