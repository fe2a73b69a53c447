//! The work folder of a demo, made anew each time: `target/demo/EXAMPLE`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::table::Table;

/// The work folder.
pub(crate) struct Work {
    root: PathBuf,
    programs: PathBuf,
}

/// There can be no work folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// This program does not know where it is.
    #[error("cannot find the other programs: {0}")]
    Programs(io::Error),
    /// The folder cannot be made anew.
    #[error("cannot empty {0}: {1}")]
    Folder(PathBuf, io::Error),
}

/// A file of the work folder was not written or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub(crate) struct WriteError(PathBuf, Box<dyn std::error::Error + Send + Sync>);

impl Work {
    /// Empties the work folder of this name. It lies beside the folder of the programs, `target/debug` as a rule.
    pub(crate) fn make(folder: &str) -> Result<Self, MakeError> {
        let own = std::env::current_exe().and_then(fs::canonicalize).map_err(MakeError::Programs)?;
        let programs = own.parent().unwrap_or(Path::new("/")).to_owned();
        let root = programs.parent().unwrap_or(&programs).join("demo").join(folder);
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(MakeError::Folder(root, error));
            }
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&root).map_err(|error| MakeError::Folder(root.clone(), error))?;
        Ok(Self { root, programs })
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds this program and those that it runs.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// A file in the folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// Writes a file.
    pub(crate) fn write(&self, file: &str, content: &str) -> Result<(), WriteError> {
        let path = self.parent_made(file)?;
        fs::write(&path, content).map_err(|error| WriteError(path, error.into()))
    }

    /// Writes a data set into a folder.
    pub(crate) fn table(&self, folder: &str, name: &str, table: &Table) -> Result<(), WriteError> {
        let parent = self.folder(folder)?;
        table.write(&parent, name).map_err(|error| WriteError(parent.join(name), error.into()))
    }

    /// Reads a file that a program wrote.
    pub(crate) fn read(&self, file: &str) -> Result<String, WriteError> {
        let path = self.path(file);
        fs::read_to_string(&path).map_err(|error| WriteError(path, error.into()))
    }

    /// Reads a JSON file that a program wrote.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, file: &str) -> Result<T, WriteError> {
        serde_json::from_str(&self.read(file)?).map_err(|error| WriteError(self.path(file), error.into()))
    }

    /// Writes a JSON file.
    pub(crate) fn write_json(&self, file: &str, value: &impl serde::Serialize) -> Result<(), WriteError> {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.write(file, &format!("{text}\n")),
            Err(error) => Err(WriteError(self.path(file), error.into())),
        }
    }

    fn parent_made(&self, file: &str) -> Result<PathBuf, WriteError> {
        if let Some((folder, _)) = file.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(self.path(file))
    }

    fn folder(&self, folder: &str) -> Result<PathBuf, WriteError> {
        let path = self.path(folder);
        fs::create_dir_all(&path).map_err(|error| WriteError(path.clone(), error.into()))?;
        Ok(path)
    }
}
