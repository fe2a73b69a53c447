//! `site.toml`: which server, which identity, which device, and which files are which data sets.
//!
//! `file` holds the written form. The typed form is complete: relative paths have become paths from the
//! configuration's own folder, so that the daemon may be started from anywhere.

mod file;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_transport::network::Network;
use sheaf_transport::tls::CredentialPaths;

use crate::device::DeviceChoice;

pub use file::DatasetFile;
pub use policy::{Models, Policy};

/// Everything that a site's `site.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteConfig {
    /// Address of the federation's server, `host:port`; the site dials it and listens nowhere.
    pub server: String,
    /// The site's own folder for models, updates not yet delivered and logs of what left it. Made when missing.
    pub state_dir: PathBuf,
    /// Where training runs.
    pub device: DeviceChoice,
    /// How to get there.
    pub network: Network,
    /// Who the site is: the PEM files that `sheaf pki issue site NAME` made.
    pub identity: CredentialPaths,
    /// What the site agrees to.
    pub policy: Policy,
    /// The data sets by the name that runs call them.
    pub datasets: BTreeMap<String, DatasetConfig>,
}

/// One data set: a text file of rows, or images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetConfig {
    /// The file, in UTF-8; the folder, or the file of images.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
    /// Byte between two fields.
    pub delimiter: u8,
    /// Whether `"` may stand around a field; when not, it is a character like any other.
    pub quotes: bool,
    /// Where the columns' names come from.
    pub header: Header,
    /// Rows after the header (or at the top, without one) that hold no example.
    pub skip_rows: u64,
    /// What the file calls a column, by the name that runs call it.
    pub rename: BTreeMap<String, String>,
    /// The folder that the paths of images in a table start at, and stay in; the file's own when not given.
    pub images: Option<PathBuf>,
    /// The file of labels beside one of images.
    pub labels: Option<PathBuf>,
    /// Names of the classes that the file of labels numbers from 0; the numbers themselves when there are none.
    pub classes: Vec<String>,
    /// MiB of memory that examples may take.
    pub memory_mib: u64,
    /// The folder for examples that take more memory than that: the site's `state_dir`.
    pub spill: PathBuf,
}

/// Where the names of columns come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The file's first row.
    FirstRow,
    /// The configuration: the file starts with an example.
    Named(Vec<String>),
}

/// How a data set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Cells between delimiters, a row a line.
    Delimited,
    /// A JSON object per line.
    JsonLines,
    /// Columns of Apache Parquet.
    Parquet,
    /// A folder of images, with a folder in it for each class.
    ImageFolder,
    /// MNIST's: a file of images and one of labels.
    Idx,
}

impl DatasetConfig {
    /// The same data set, with paths that start at `folder`.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        for path in
            [&mut self.path, &mut self.spill].into_iter().chain(&mut self.images).chain(&mut self.labels)
        {
            *path = folder.join(&*path);
        }
        self
    }

    /// Sees to it that its files are there; it is written at `place`.
    pub fn find(&self, place: &str) -> Result<(), Invalid> {
        let kind = if self.format == Format::ImageFolder { "folder" } else { "file" };
        let all = [
            ("path", Some(&self.path), kind),
            ("images", self.images.as_ref(), "folder"),
            ("labels", self.labels.as_ref(), "file"),
        ];
        for (key, path, kind) in all {
            let Some(path) = path else { continue };
            if !(if kind == "file" { path.is_file() } else { path.is_dir() }) {
                let what = if path.exists() { format!("is not a {kind}") } else { "does not exist".into() };
                return Err(Invalid::new(
                    format!("{place}.{key}"),
                    format!("{} {what}; a relative path starts at this file's folder", path.display()),
                ));
            }
        }
        Ok(())
    }

    /// [`DatasetConfig::memory_mib`] in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_mib.saturating_mul(1 << 20)
    }
}

/// `site.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteConfigError {
    /// It cannot be read.
    #[error("the site's configuration {path} cannot be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
}

impl SiteConfig {
    /// Reads `site.toml`, and sees to it that the data sets that it names are there.
    ///
    /// The identity's files are left to whoever makes a connection of them.
    pub fn load(path: &Path) -> Result<Self, SiteConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|reason| SiteConfigError::Unreadable { path: path.to_owned(), reason })?;
        let file = path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new(""));
        let config = Self::parse(&file, &text)?.relative_to(folder);
        config.find_datasets().map_err(|invalid| ConfigError::locate(&file, &text, &invalid))?;
        Ok(config)
    }

    /// The meaning of `site.toml`'s text, paths as they are written. `file` is its name for the message.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        config::read::<file::SiteFile, Self>(file, text)
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        let CredentialPaths { certificate, key, ca } = &mut self.identity;
        for path in [certificate, key, ca, &mut self.state_dir] {
            *path = folder.join(&*path);
        }
        let datasets = std::mem::take(&mut self.datasets).into_iter();
        self.datasets = datasets.map(|(name, dataset)| (name, dataset.relative_to(folder))).collect();
        self
    }

    fn find_datasets(&self) -> Result<(), Invalid> {
        self.datasets.iter().try_for_each(|(name, dataset)| dataset.find(&format!("datasets.{name}")))
    }
}
