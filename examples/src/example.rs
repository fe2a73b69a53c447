//! What an example is: sites with their data, a test set that all share, a run, and a model to start from.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use rand::Rng;
use sheaf_common::seed;

use crate::cache::NotFetched;
use crate::metric::Metric;
use crate::table::Table;
use crate::work::{Work, WriteError};

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The example.
    pub(crate) example: &'static str,
    /// Seed of the partition and of the run.
    pub(crate) seed: u64,
    /// Number of sites.
    pub(crate) sites: NonZeroUsize,
    /// Fewer examples and rounds, to see that everything works.
    pub(crate) reduced: bool,
}

/// An example, ready to be run.
pub(crate) struct Example {
    /// What it shows, and how its data came to its sites: a few lines.
    pub(crate) about: String,
    /// What was chosen. The example's name is also the federation's and the data set's.
    pub(crate) choice: Choice,
    /// `run.toml`, as it lies in the example's folder.
    pub(crate) run: &'static str,
    /// Rounds of the reduced example.
    pub(crate) reduced_rounds: u32,
    /// Whether the sites count what they hold first, and the constants of `run.toml` come from that.
    pub(crate) survey: bool,
    /// The model that the run starts from.
    pub(crate) base: Base,
    /// Who takes part.
    pub(crate) sites: Vec<Site>,
    /// What every model is tested on. No site trains on any of it.
    pub(crate) test: Table,
    /// What the models are compared by. The first two that are shares are drawn by round.
    pub(crate) metrics: &'static [Metric],
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
    /// A pretrained model.
    Pretrained {
        /// Its name for `run.toml`.
        name: &'static str,
        /// Its folder or file.
        path: PathBuf,
        /// What it is, when it does not say so itself.
        kind: Option<&'static str>,
    },
    /// The first site trains it on its own data before the federation.
    FirstSite {
        /// Its name for `run.toml`.
        name: &'static str,
        /// `pretrain.toml`, as it lies in the example's folder.
        run: &'static str,
    },
    /// The run makes a new one.
    New,
}

/// The folder in which models are compared.
pub(crate) const SCORING: &str = "scoring";

/// An example's data cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExampleError {
    /// It was not fetched.
    #[error(transparent)]
    NotFetched(#[from] NotFetched),
    /// It cannot be read as what it should be.
    #[error("{path} cannot be read: {reason}", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, Box<dyn std::error::Error + Send + Sync>),
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
}

impl Choice {
    /// The random stream for one use, and for what it is used.
    pub(crate) fn stream(&self, one: &str, of: &[&str]) -> impl Rng + use<> {
        let purpose = format!("{} {one}", self.example);
        seed::stream(self.seed, &[&[purpose.as_str()], of].concat())
    }

    /// A size of the whole or of the reduced example.
    pub(crate) fn size(&self, whole: usize, reduced: usize) -> usize {
        if self.reduced { reduced } else { whole }
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
            work.table(&site.folder(), "train", &site.train)?;
            lines.push(row(&site.name, &site.train));
        }
        work.table(SCORING, "test", &self.test)?;
        lines.push(row("test set", &self.test));
        println!("{}\n", crate::outcome::aligned(&lines));
        println!(
            "Everything happens in {}; every file that is named below lies there.",
            work.root().display()
        );
        Ok(())
    }

    /// All sites' data as if it lay in one place.
    pub(crate) fn pooled(&self) -> Table {
        let rows = self.sites.iter().flat_map(|site| site.train.rows.iter().cloned());
        self.sites.first().map_or(&self.test, |site| &site.train).with_rows(rows.collect())
    }
}
