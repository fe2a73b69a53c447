//! A site's data, read from its own files and brought into the form that the run's contract fixes.
//!
//! 1. `table` reads rows from a file, `lines` those of JSON lines, `parquet` those of Parquet.
//!    `images` finds images and decodes them.
//! 2. `encode` turns the cells of a row into model inputs (`hashing`: words that no list holds), and `targets` holds what is
//!    learned.
//! 3. [`load()`] does both for a whole data set; `contract` says why it could not, once for the site and once
//!    for the operator, who must learn the reason but none of the site's values.
//! 4. [`count()`] reads the same for a survey, and keeps its counts alone.
//!    What takes more memory than it may goes to a file (`stored`).
//! 5. [`hold_out_test`] and then [`split()`] hold out parts for the test and for validation, once for the whole run
//!    (`folds`: one of several), and [`few`] bounds what is trained on.

mod contract;
mod count;
mod encode;
mod folds;
mod hashing;
mod images;
mod lines;
mod load;
mod parquet;
mod split;
mod stored;
mod table;
mod targets;
#[cfg(test)]
mod tests;

pub use contract::ContractError;
pub use count::count;
pub use load::{load, load_grouped};
pub use split::{Parts, few, hold_out_test, split};
pub use stored::{Foretold, Stored, StoredTexts};
pub use table::{Survey, survey};
pub use targets::Targets;

/// Examples in memory: inputs and targets, one each per example.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What is learned from.
    pub inputs: Inputs,
    /// What is learned.
    pub targets: Targets,
}

/// The inputs of all examples.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// One text per example.
    Text(Vec<String>),
    /// The same in a file, for want of memory.
    StoredText(StoredTexts),
    /// Encoded rows: `values.len() == width * examples`, row-major, encoded as the run's features say.
    Table {
        /// Inputs per example.
        width: usize,
        /// All rows.
        values: Vec<f32>,
    },
    /// The same in a file, for want of memory: `width` numbers in single precision an example.
    StoredTable {
        /// Inputs per example.
        width: usize,
        /// Where they are.
        rows: Stored,
    },
    /// Square images in red, green and blue: `values.len() == 3 * size * size * examples`, each `[3, size, size]`.
    Images {
        /// Width and height in pixels.
        size: usize,
        /// All pixels, of which 255 is white.
        values: Vec<u8>,
    },
    /// The same in a file, for want of memory.
    StoredImages {
        /// Width and height in pixels.
        size: usize,
        /// Where they are.
        images: Stored,
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

impl Dataset {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A data set of the same kind without an example.
    pub fn empty_like(&self) -> Self {
        let inputs = match &self.inputs {
            Inputs::Text(_) | Inputs::StoredText(_) => Inputs::Text(Vec::new()),
            Inputs::Table { width, .. } | Inputs::StoredTable { width, .. } => {
                Inputs::Table { width: *width, values: Vec::new() }
            }
            Inputs::Images { size, .. } | Inputs::StoredImages { size, .. } => {
                Inputs::Images { size: *size, values: Vec::new() }
            }
        };
        Self { inputs, targets: self.targets.empty_like() }
    }
}
