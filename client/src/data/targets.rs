//! What is learned of each example, in the form in which trainers take it.

use super::stored::Foretold;

/// What is learned, of all examples.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Index of each example's label in the run's `labels`.
    Label(Vec<u32>),
    /// Of each example, for each of the run's labels whether it has it: `values.len() == width * examples`, row-major.
    Labels {
        /// Labels of the run.
        width: usize,
        /// All rows.
        values: Vec<bool>,
    },
    /// Each example's number in standard deviations from the run's mean.
    Number(Vec<f32>),
    /// Each example's answer: the text that follows its input.
    Answer(Vec<String>),
    /// The inputs themselves, of so many examples.
    Inputs(usize),
    /// The tokens at each example's end that a language model foretells: what a trainer makes of answers and inputs.
    Tokens(Foretold),
}

impl Targets {
    /// Number of examples.
    pub fn len(&self) -> usize {
        match self {
            Self::Label(labels) => labels.len(),
            Self::Labels { width, values } => values.len() / width.max(&1),
            Self::Number(numbers) => numbers.len(),
            Self::Answer(answers) => answers.len(),
            Self::Inputs(examples) => *examples,
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Targets of the same kind of no example.
    pub fn empty_like(&self) -> Self {
        self.select(&[])
    }

    /// The targets of the examples at these places, in this order.
    pub fn select(&self, places: &[usize]) -> Self {
        match self {
            Self::Label(labels) => Self::Label(places.iter().map(|place| labels[*place]).collect()),
            Self::Labels { width, values } => {
                let row = |place: &usize| &values[place * width..(place + 1) * width];
                Self::Labels { width: *width, values: places.iter().flat_map(row).copied().collect() }
            }
            Self::Number(numbers) => Self::Number(places.iter().map(|place| numbers[*place]).collect()),
            Self::Answer(answers) => {
                Self::Answer(places.iter().map(|place| answers[*place].clone()).collect())
            }
            Self::Inputs(_) => Self::Inputs(places.len()),
            Self::Tokens(tokens) => Self::Tokens(tokens.select(places)),
        }
    }

    /// The class of each example, by which splits are stratified and classes are balanced: its label, or the same for
    /// all where an example has not exactly one.
    pub fn classes(&self) -> Vec<u32> {
        match self {
            Self::Label(labels) => labels.clone(),
            Self::Labels { .. } | Self::Number(_) | Self::Answer(_) | Self::Inputs(_) | Self::Tokens(_) => {
                vec![0; self.len()]
            }
        }
    }

    /// Examples of each of the run's `num_labels` labels; nothing where there are no labels.
    pub fn label_counts(&self, num_labels: usize) -> Vec<u64> {
        let mut counts = vec![0; num_labels];
        let mut count = |label: usize| counts.get_mut(label).map(|count| *count += 1);
        match self {
            Self::Label(labels) => labels.iter().for_each(|label| _ = count(*label as usize)),
            Self::Labels { width, values } => {
                let places = (0..*width).cycle().zip(values);
                places.filter(|(_, has)| **has).for_each(|(label, _)| _ = count(label));
            }
            Self::Number(_) | Self::Answer(_) | Self::Inputs(_) | Self::Tokens(_) => {}
        }
        counts
    }
}
