//! Keys and certificates as files: written whole, and never over anything but by [`replace`].

use std::fs::{self, DirBuilder, File, OpenOptions};
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
pub fn make_private_dir(dir: &Path) -> Result<(), WriteError> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| WriteError::Io(dir.to_owned(), e))
}

/// Writes a key and its certificate, or neither of them.
pub fn write_pair(key: (&Path, &str), certificate: (&Path, &str)) -> Result<(), WriteError> {
    let key = Fresh::create(key.0, key.1, PRIVATE)?;
    let certificate = Fresh::create(certificate.0, certificate.1, PUBLIC)?;
    key.keep();
    certificate.keep();
    Ok(())
}

/// Writes a key that was not there before.
pub fn write_key(path: &Path, pem: &str) -> Result<(), WriteError> {
    Fresh::create(path, pem, PRIVATE).map(Fresh::keep)
}

/// Writes a public file that was not there before.
pub fn write_new(path: &Path, content: &str) -> Result<(), WriteError> {
    Fresh::create(path, content, PUBLIC).map(Fresh::keep)
}

/// Makes sure that a public file with this content is there.
pub fn ensure(path: &Path, content: &str) -> Result<(), WriteError> {
    match write_new(path, content) {
        Err(WriteError::AlreadyThere(_)) if fs::read(path).is_ok_and(|there| there == content.as_bytes()) => {
            Ok(())
        }
        result => result,
    }
}

/// Writes a public file in the place of what is there, whole or not at all.
pub fn replace(path: &Path, content: &str) -> Result<(), WriteError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(PUBLIC).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(|e| WriteError::Io(path.to_owned(), e))
}

/// Certificates (DER) as they are written to a file, in PEM form.
pub fn pem<T: AsRef<[u8]>>(certificates: impl IntoIterator<Item = T>) -> String {
    // The same bytes as `sheaf pki` writes, on every system.
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let block = |der: T| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.as_ref()), config);
    certificates.into_iter().map(block).collect()
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
        sync_folder(path).map_err(failed)?;
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

/// Makes durable that a file is in its folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
