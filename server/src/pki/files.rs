//! A key and its certificate as files: written whole, once, and never over anything.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// The files were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something is there.
    #[error(
        "{0} is already there, and nothing is ever overwritten: move it away, or choose another name or folder"
    )]
    AlreadyThere(PathBuf),
    /// The file system refused.
    #[error("cannot write {0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Makes a folder that only its owner can look into; one that exists stays as it is.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), WriteError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| WriteError::Io(dir.to_owned(), e))
}

/// Writes a key and its certificate, or neither of them.
pub(super) fn write_pair(key: (&Path, &str), certificate: (&Path, &str)) -> Result<(), WriteError> {
    let key = Fresh::create(key.0, key.1, PRIVATE)?;
    let certificate = Fresh::create(certificate.0, certificate.1, PUBLIC)?;
    key.keep();
    certificate.keep();
    Ok(())
}

/// Makes sure that a public file with this content is there.
pub(super) fn ensure(path: &Path, content: &str) -> Result<(), WriteError> {
    match Fresh::create(path, content, PUBLIC) {
        Ok(fresh) => {
            fresh.keep();
            Ok(())
        }
        Err(WriteError::AlreadyThere(_)) if fs::read(path).is_ok_and(|there| there == content.as_bytes()) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// A file that was not there before, and is gone again when it is dropped without [`Fresh::keep`].
struct Fresh<'a> {
    path: &'a Path,
    kept: bool,
}

impl<'a> Fresh<'a> {
    fn create(path: &'a Path, content: &str, mode: u32) -> Result<Self, WriteError> {
        let failed = |e: io::Error| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                WriteError::AlreadyThere(path.to_owned())
            } else {
                WriteError::Io(path.to_owned(), e)
            }
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
        let fresh = Self { path, kept: false };
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(fresh)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done: the error that led here is the one to report.
            let _ = fs::remove_file(self.path);
        }
    }
}
