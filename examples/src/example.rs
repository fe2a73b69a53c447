//! What an example is: sites with their data, a test set that all share, a run, and a model to start from.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::cache::NotFetched;
use crate::table::Table;
use crate::work::{Work, WriteError};

/// What the user may choose of an example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// Seed of the partition and of the run.
    pub(crate) seed: u64,
    /// Number of sites.
    pub(crate) sites: NonZeroUsize,
}

/// An example, ready to be run.
pub(crate) struct Example {
    /// Its name, which is also the federation's and the data set's.
    pub(crate) name: &'static str,
    /// What it shows, and how its data came to its sites: a few lines.
    pub(crate) about: String,
    /// What was chosen.
    pub(crate) choice: Choice,
    /// `run.toml`, as it lies in the example's folder.
    pub(crate) run: &'static str,
    /// The model that the run starts from.
    pub(crate) base: Base,
    /// Who takes part.
    pub(crate) sites: Vec<Site>,
    /// What every model is tested on. No site trains on any of it.
    pub(crate) test: Table,
}

/// One party of the federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Its name.
    pub(crate) name: String,
    /// Its own data.
    pub(crate) train: Table,
}

/// Where the model that a run starts from comes from.
pub(crate) enum Base {
    /// A folder of pretrained weights.
    Folder {
        /// Its name for `run.toml`.
        name: &'static str,
        /// Where it is.
        dir: PathBuf,
    },
    /// The first site trains it on its own data before the federation.
    FirstSite {
        /// Its name for `run.toml`.
        name: &'static str,
        /// `pretrain.toml`, as it lies in the example's folder.
        run: &'static str,
    },
}

/// An example's data cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExampleError {
    /// It was not fetched.
    #[error(transparent)]
    NotFetched(#[from] NotFetched),
    /// It cannot be read as a table.
    #[error("{path} cannot be read: {reason}", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, csv::Error),
    /// It is not the file that it should be.
    #[error("{path} {problem}", path = .0.display(), problem = .1)]
    Unexpected(PathBuf, String),
}

impl Site {
    /// The site's folder in the work folder.
    pub(crate) fn folder(&self) -> String {
        format!("sites/{}", self.name)
    }

    /// The site's configuration in the work folder.
    pub(crate) fn config(&self) -> String {
        format!("{}/site.toml", self.folder())
    }

    /// The file that holds its data, in its folder.
    pub(crate) fn data_file(&self) -> String {
        format!("train.{}", self.train.format.extension())
    }
}

impl Example {
    /// Tells what is going to happen and writes out who has which data, so that it can be looked at.
    pub(crate) fn introduce(&self, work: &Work) -> Result<(), WriteError> {
        println!("{}\n", self.about);
        let labels: Vec<&str> = self.test.label_counts().into_keys().collect();
        let row = |name: &str, table: &Table| {
            let counts = table.label_counts();
            let mut cells = vec![name.to_owned(), table.rows.len().to_string()];
            cells.extend(labels.iter().map(|label| counts.get(label).copied().unwrap_or(0).to_string()));
            cells
        };
        let mut lines = vec![["", "examples"].iter().chain(&labels).map(ToString::to_string).collect()];
        for site in &self.sites {
            work.table(&format!("{}/{}", site.folder(), site.data_file()), &site.train)?;
            lines.push(row(&site.name, &site.train));
        }
        work.table(&self.test_file(), &self.test)?;
        lines.push(row("test set", &self.test));
        println!("{}\n", crate::outcome::aligned(&lines));
        println!(
            "Everything happens in {}; every file that is named below lies there.",
            work.root().display()
        );
        Ok(())
    }

    /// The file of the common test set in the work folder.
    pub(crate) fn test_file(&self) -> String {
        format!("scoring/test.{}", self.test.format.extension())
    }

    /// All sites' data as if it lay in one place.
    pub(crate) fn pooled(&self) -> Table {
        let rows = self.sites.iter().flat_map(|site| site.train.rows.iter().cloned());
        self.test.with_rows(rows.collect())
    }
}
