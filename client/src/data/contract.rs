//! Why a data set does not meet a run's contract: one reason, two sentences.
//!
//! The site's own log gets everything: file, line, column and the value. The operator gets what is needed to
//! talk to the site, and no value. Two things are held back that are not values at first sight: the names of
//! columns that the run does not ask for (in a file whose header is missing they are its first example), and the
//! line on which a value is outside the run's labels or categories (an operator could ask for one category after
//! another and read a column off the answers).

use std::fmt;
use std::path::{Path, PathBuf};

/// A data set does not meet a run's contract. `Display` is for the site's own log and may hold a value of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractError {
    dataset: String,
    file: PathBuf,
    breach: Box<Breach>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// The file cannot be read, in the system's words.
    Unreadable(String),
    /// There is nothing in the file.
    Empty,
    /// There is no row below the header.
    NoExamples,
    /// Columns of the contract, by the run's names, that are not there, those that are, and all that the file has.
    MissingColumns { missing: Vec<String>, found: Vec<String>, all: Vec<String> },
    /// Two columns bear the name `own`, which the run calls `column`.
    AmbiguousColumn { column: String, own: String },
    /// A line is no JSON object.
    NoObject { line: u64, why: String },
    /// A row has too few or too many fields.
    Ragged { line: u64, fields: usize, columns: usize },
    /// A column, by the run's name and the file's, holds what is neither words nor numbers.
    UnreadableColumn { column: String, own: String },
    /// A cell breaks the contract, in the column that the run calls `column` and the file `own`; and the line or row that it
    /// is in, if it is in one.
    Cell {
        place: Option<(&'static str, u64)>,
        column: String,
        own: String,
        value: String,
        problem: CellProblem,
    },
    /// An image, a path or its place in the file, cannot be had.
    Image { image: String, problem: ImageProblem },
    /// A file of IDX is not what it should be.
    Idx(String),
    /// Nobody says how large images are to be.
    NoSize,
    /// Examples that go to a file cannot be written there, in the system's words.
    NoRoom(String),
    /// Images would take so many bytes, and the site gives them `most`.
    TooMuch { bytes: u64, most: u64 },
}

/// A file of examples could not be written.
impl From<std::io::Error> for Breach {
    fn from(reason: std::io::Error) -> Self {
        Self::NoRoom(reason.to_string())
    }
}

/// What is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageProblem {
    /// It is not in the folder of images.
    Outside,
    /// There is no such file, or it cannot be opened, in the system's words.
    Unreadable(String),
    /// It is no image, a broken one or one that is too large, in the decoder's words.
    Undecodable(String),
}

/// What is wrong with one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellProblem {
    NotUtf8,
    NoLabel,
    NoGroup,
    UnknownLabel,
    UnknownCategory,
    NotANumber,
    NotFinite,
    TooLarge,
}

impl ContractError {
    pub(super) fn new(dataset: &str, file: &Path, breach: Breach) -> Self {
        Self { dataset: dataset.to_owned(), file: file.to_owned(), breach: Box::new(breach) }
    }

    /// One sentence for the operator: the reason, without any value of the site's data.
    pub fn for_operator(&self) -> String {
        let reason = match &*self.breach {
            Breach::Unreadable(_) => "its file cannot be read".to_owned(),
            Breach::Empty => "its file is empty".to_owned(),
            Breach::NoExamples => "its file holds no example".to_owned(),
            Breach::MissingColumns { missing, found, .. } if found.is_empty() => {
                format!("it has none of the run's columns {}", listed(missing))
            }
            Breach::MissingColumns { missing, found, .. } => {
                format!("it has no column {}; of the run's columns it has {}", listed(missing), listed(found))
            }
            Breach::AmbiguousColumn { column, .. } => format!("it has two columns `{column}`"),
            Breach::NoObject { line, .. } => format!("line {line} is no JSON object"),
            Breach::Ragged { line, fields, columns } => {
                format!("line {line} has {fields} fields where the file has {columns} columns")
            }
            Breach::UnreadableColumn { column, .. } => {
                format!(
                    "column `{column}` is nested or of a type that is neither words, numbers nor truth values"
                )
            }
            Breach::Cell { place, column, problem, .. } => match problem {
                CellProblem::UnknownLabel | CellProblem::UnknownCategory => {
                    format!(
                        "column `{column}` holds a value that {}; the site's log says which",
                        problem.of_a_value()
                    )
                }
                CellProblem::NotUtf8
                | CellProblem::NoLabel
                | CellProblem::NoGroup
                | CellProblem::NotANumber
                | CellProblem::NotFinite
                | CellProblem::TooLarge => {
                    let place = place.map(|(unit, at)| format!("{unit} {at}, ")).unwrap_or_default();
                    format!("{place}column `{column}` holds a value that {}", problem.of_a_value())
                }
            },
            Breach::Image { problem, .. } => {
                let what = match problem {
                    ImageProblem::Outside => "lies outside of the folder of images",
                    ImageProblem::Unreadable(_) => "cannot be read",
                    ImageProblem::Undecodable(_) => "cannot be decoded",
                };
                format!("an image {what}; the site's log says which")
            }
            Breach::Idx(_) => "its IDX files are not what they should be; the site's log says why".to_owned(),
            Breach::NoSize => {
                "the size of its images is not known: set task.image_size in run.toml".to_owned()
            }
            Breach::NoRoom(_) => {
                "its examples cannot be kept on the site's disk; its log says why".to_owned()
            }
            Breach::TooMuch { .. } => "its images take more memory than the site gives them".to_owned(),
        };
        format!("data set `{}`: {reason}", self.dataset)
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data set `{}`: {}", self.dataset, self.file.display())?;
        match &*self.breach {
            Breach::Unreadable(reason) => write!(f, " cannot be read: {reason}"),
            Breach::Empty => f.write_str(" is empty"),
            Breach::NoExamples => f.write_str(" holds no example below its header"),
            Breach::MissingColumns { missing, all, .. } => write!(
                f,
                " has no column {}; it has {}; give a column the run's name with the data set's `rename`",
                listed(missing),
                listed(all)
            ),
            Breach::AmbiguousColumn { own, .. } => {
                write!(f, " has two columns `{own}`; give one of them another name")
            }
            Breach::NoObject { line, why } => {
                write!(f, ", line {line}: no JSON object ({why}); write one per line")
            }
            Breach::Ragged { line, fields, columns } => write!(
                f,
                ", line {line}: {fields} fields where the file has {columns} columns; check the delimiter and the quotes"
            ),
            Breach::UnreadableColumn { own, .. } => write!(
                f,
                ", column `{own}` is nested or of a type that is neither words, numbers nor truth values; write it as one of these"
            ),
            Breach::Cell { place, own, value, problem, .. } => {
                if let Some((unit, at)) = place {
                    write!(f, ", {unit} {at}")?;
                }
                let (what, remedy) = (problem.of_a_value(), problem.remedy());
                write!(f, ", column `{own}`: {value:?} {what}; {remedy}")
            }
            Breach::Image { image, problem } => {
                write!(f, ": the image {image:?} ")?;
                match problem {
                    ImageProblem::Outside => f.write_str(
                        "lies outside of the folder of images; name that folder with `images` in site.toml",
                    ),
                    ImageProblem::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
                    ImageProblem::Undecodable(reason) => {
                        write!(f, "cannot be decoded: {reason}; replace it or leave it out")
                    }
                }
            }
            Breach::Idx(reason) => write!(f, " does not fit: {reason}"),
            Breach::NoSize => f.write_str(": neither the run nor its model says how large images are to be"),
            Breach::NoRoom(reason) => write!(
                f,
                ": its examples take more memory than `memory_mib`, and cannot be kept in `state_dir` instead: {reason}"
            ),
            Breach::TooMuch { bytes, most } => write!(
                f,
                ": its images take {} MiB of memory as they are in their file, and may take {} MiB; raise `memory_mib` in \
                 site.toml, or write them as PNG",
                bytes.div_ceil(1 << 20),
                most >> 20
            ),
        }
    }
}

impl std::error::Error for ContractError {}

impl CellProblem {
    /// Completes "a value that …".
    fn of_a_value(self) -> &'static str {
        match self {
            Self::NotUtf8 => "is not UTF-8",
            Self::NoLabel => "is empty where a label is expected",
            Self::NoGroup => "is empty where the run asks whose the example is",
            Self::UnknownLabel => "is none of the run's labels",
            Self::UnknownCategory => "is none of the run's categories",
            Self::NotANumber => "is not a number",
            Self::NotFinite => "is not a finite number",
            Self::TooLarge => "is too large a number",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::NotUtf8 => "convert the file to UTF-8, for example with iconv",
            Self::NoLabel => "label the row or leave it out",
            Self::NoGroup => "fill it in or leave the row out",
            Self::UnknownLabel => "write it as the run does, or leave the row out",
            Self::UnknownCategory => {
                "write it as the run does, or ask the operator to list it under `categories` or `missing`"
            }
            Self::NotANumber | Self::NotFinite => {
                "correct it, or ask the operator to list it under `missing` if it means that"
            }
            Self::TooLarge => "correct it",
        }
    }
}

/// "`a`, `b` and `c`", cut after twenty.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let quoted: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        shown if names.len() > MOST => format!("{} and {} more", shown.join(", "), names.len() - MOST),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
