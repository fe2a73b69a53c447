//! The folder of a simulation's results: whose it is, who is at it, and what is there only until the simulation is over.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_transport::durable;

use crate::output::{self, OutputError};

/// The folder of what is needed only until the simulation is over.
const STATE: &str = "state";

/// Where that is on its way out: a state is there whole or not at all.
const GONE: &str = "state.gone";

/// The file that says that a simulation is, or was, in a folder.
const LOCK: &str = "lock";

/// The file in the state that says what it is of.
const OF: &str = "of";

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another program is at it.
    #[error("{0} is in use by another sheaf-sim")]
    InUse(PathBuf),
    /// Something is in the way.
    #[error(
        "{0} is not of a simulation, and would be replaced: choose another folder with --out, or move it away"
    )]
    Foreign(PathBuf),
    /// It is another simulation's.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The disk said no.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A folder, for one simulation alone while this is there.
pub(crate) struct Folder<'a> {
    out: &'a Path,
    state: PathBuf,
    /// Whether nobody had been here before.
    is_new: bool,
    /// Whether there was no such folder.
    is_made: bool,
    _lock: File,
}

impl<'a> Folder<'a> {
    /// Makes the folder if it is not there, and sees to it that nobody else uses it. What is not of a simulation stays: a state is
    /// removed in the end, and a model replaced.
    pub(crate) fn open(out: &'a Path) -> Result<Self, FolderError> {
        let (is_made, path) = (!out.exists(), out.join(LOCK));
        if let Some(other) = foreign(out)
            && !path.exists()
        {
            return Err(FolderError::Foreign(other));
        }
        fs::create_dir_all(out).map_err(|e| io_error("make", out, e))?;
        let (lock, is_new) = match File::create_new(&path) {
            Ok(lock) => (lock, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let lock = File::options().write(true).open(&path);
                (lock.map_err(|e| io_error("open", &path, e))?, false)
            }
            Err(error) => return Err(io_error("make", &path, error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse(out.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
        }
        // Whoever was here before may have taken it away since it was opened.
        if !durable::is_at(&lock, &path).map_err(|e| io_error("look at", &path, e))? {
            return Err(FolderError::InUse(out.to_owned()));
        }
        remove(&out.join(GONE))?;
        let folder = Self { out, state: out.join(STATE), is_new, is_made, _lock: lock };
        // Of somebody who was killed before it was known what it is of.
        if !folder.is_claimed()? {
            remove(&folder.state)?;
        }
        fs::create_dir_all(&folder.state).map_err(|e| io_error("make", &folder.state, e))?;
        Ok(folder)
    }

    fn is_claimed(&self) -> Result<bool, FolderError> {
        let path = self.state.join(OF);
        path.try_exists().map_err(|e| io_error("look for", &path, e))
    }

    /// All of it.
    pub(crate) fn out(&self) -> &'a Path {
        self.out
    }

    /// What is needed only until the simulation is over.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Notes what the state is of, so that no other simulation goes on from it.
    pub(crate) fn claim(&self, of: BlobId) -> Result<(), FolderError> {
        let (path, own) = (self.state.join(OF), of.to_string());
        match fs::read_to_string(&path) {
            Ok(found) if found == own => Ok(()),
            Ok(_) => Err(OutputError::Another(self.out.to_owned()).into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(output::write(&path, own.as_bytes())?)
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// The simulation is over, and nothing goes on from the state.
    pub(crate) fn finish(&self) -> Result<(), FolderError> {
        let gone = self.out.join(GONE);
        fs::rename(&self.state, &gone).map_err(|e| io_error("remove", &self.state, e))?;
        remove(&gone)
    }

    /// Nothing was begun: the folder is left as it was found.
    pub(crate) fn leave(self) {
        // The error that led here is the one to report.
        if !matches!(self.is_claimed(), Ok(false)) || self.finish().is_err() {
            return;
        }
        if self.is_new {
            let _ = fs::remove_file(self.out.join(LOCK));
        }
        if self.is_made {
            let _ = fs::remove_dir(self.out);
        }
    }
}

/// Something of somebody else's that would be removed or replaced, where no simulation was before.
fn foreign(out: &Path) -> Option<PathBuf> {
    // Whoever has a report may have taken the lock away.
    let outputs: &[&str] = if out.join(output::REPORT).exists() { &[] } else { &output::OUTPUTS };
    let own = [STATE, GONE].iter().chain(outputs);
    own.map(|name| out.join(name)).find(|path| path.exists())
}

fn remove(folder: &Path) -> Result<(), FolderError> {
    durable::remove(folder).map_err(|e| io_error("remove", folder, e))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> FolderError {
    FolderError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> BlobId {
        BlobId::from(blake3::hash(&[byte]))
    }

    #[test]
    fn a_folder_is_left_as_it_was_found_until_something_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        Folder::open(&out).unwrap().leave();
        assert!(!out.exists());
        fs::create_dir(&out).unwrap();
        fs::write(out.join("mine"), "precious").unwrap();
        Folder::open(&out).unwrap().leave();
        let names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["mine"]);
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        Folder::open(&empty).unwrap().leave();
        assert!(empty.exists(), "somebody else made it");
        let begun = Folder::open(&out).unwrap();
        assert!(matches!(Folder::open(&out), Err(FolderError::InUse(_))));
        begun.claim(id(1)).unwrap();
        begun.leave();
        let again = Folder::open(&out).unwrap();
        assert!(again.claim(id(1)).is_ok() && again.claim(id(2)).is_err());
    }

    #[test]
    fn what_was_not_claimed_before_a_kill_is_nothing_to_go_on_from() {
        let out = tempfile::tempdir().unwrap();
        let folder = Folder::open(out.path()).unwrap();
        fs::write(folder.state().join("half"), "done").unwrap();
        drop(folder);
        let folder = Folder::open(out.path()).unwrap();
        assert!(!folder.state().join("half").exists());
        folder.claim(id(1)).unwrap();
        fs::write(folder.state().join("half"), "done").unwrap();
        drop(folder);
        assert!(Folder::open(out.path()).unwrap().state().join("half").exists());
    }

    #[test]
    fn what_a_kill_left_of_a_state_that_was_over_is_in_nobodys_way() {
        let out = tempfile::tempdir().unwrap();
        let folder = Folder::open(out.path()).unwrap();
        folder.claim(id(1)).unwrap();
        // As if it had been killed while it removed the state.
        fs::rename(folder.state(), out.path().join(GONE)).unwrap();
        drop(folder);
        let folder = Folder::open(out.path()).unwrap();
        assert!(!out.path().join(GONE).exists() && folder.claim(id(2)).is_ok());
        folder.finish().unwrap();
        assert!(!folder.state().exists() && !out.path().join(GONE).exists());
    }
}
