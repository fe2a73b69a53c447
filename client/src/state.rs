//! What a site must not forget, in its own state directory: blobs, and the updates that wait for their round
//! to be over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::message::{Job, TaskId, Update};
use sheaf_common::model::Manifest;
use sheaf_common::wire;
use sheaf_transport::blobs::{BlobDir, BlobError};

use crate::session::Memory;

/// The state directory.
#[derive(Clone, Debug)]
pub struct SiteState {
    root: PathBuf,
    /// Models and global parameters.
    pub blobs: BlobDir,
    /// What our updates consist of.
    pub deltas: BlobDir,
    /// Masked vectors: what leaves the site in a secure sum.
    pub masked: BlobDir,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob could not be stored or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Another daemon uses it.
    #[error("{0} is in use by another sheaf-client")]
    InUse(PathBuf),
    /// A model's folder cannot be laid out.
    #[error("the model cannot be laid out: {0}")]
    Model(String),
    /// An update is too large to be described; never with a sound model.
    #[error(transparent)]
    Encode(#[from] wire::EncodeError),
}

impl SiteState {
    /// Opens or makes the directory.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        for folder in [root.to_owned(), root.join("updates"), root.join("models")] {
            fs::create_dir_all(&folder).map_err(|e| io_error("make", &folder, e))?;
        }
        let blobs = BlobDir::open(root.join("blobs"))?;
        let deltas = BlobDir::open(root.join("deltas"))?;
        let masked = BlobDir::open(root.join("masked"))?;
        Ok(Self { root: root.to_owned(), blobs, deltas, masked })
    }

    /// Takes the directory for this process, for as long as the file lives, and clears what a crash left over.
    pub fn lock(&self) -> Result<File, StateError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(|e| io_error("create", &path, e))?;
        file.try_lock().map_err(|_| StateError::InUse(self.root.clone()))?;
        self.blobs.remove_unnamed()?;
        self.deltas.remove_unnamed()?;
        self.masked.remove_unnamed()?;
        Ok(file)
    }

    /// The updates that were finished and not known to be over. One that cannot be read is dropped: its round
    /// will be trained again.
    pub fn updates(&self) -> Result<Vec<Update>, StateError> {
        let folder = self.root.join("updates");
        let mut updates = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|e| io_error("list", &folder, e))? {
            let path = entry.map_err(|e| io_error("list", &folder, e))?.path();
            let bytes = fs::read(&path).map_err(|e| io_error("read", &path, e))?;
            match wire::decode_record::<Update>(&bytes) {
                Ok(update) if self.deltas.length(update.delta).is_some() => updates.push(update),
                Ok(_) | Err(_) => {
                    tracing::warn!(path = %path.display(), "an unusable update is dropped");
                    fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
                }
            }
        }
        Ok(updates)
    }

    /// Makes an update durable; its blob is already.
    pub fn keep(&self, update: &Update) -> Result<(), StateError> {
        write_record(&self.update_path(&update.task), update)
    }

    /// What was remembered of secure sums; nothing when there is no such file.
    ///
    /// A file that cannot be read is an error: forgetting what was released could release it again.
    pub fn memory(&self) -> Result<Memory, StateError> {
        let path = self.memory_path();
        match fs::read(&path) {
            Ok(bytes) => wire::decode_record(&bytes)
                .map_err(|e| io_error("understand", &path, io::Error::other(e.to_string()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Makes what must be remembered of secure sums durable. It holds secrets.
    pub fn remember(&self, memory: &Memory) -> Result<(), StateError> {
        write_record(&self.memory_path(), memory)
    }

    /// An update serves another task: its record moves, its blob stays.
    pub fn rename(&self, from: &TaskId, update: &Update) -> Result<(), StateError> {
        self.keep(update)?;
        let path = self.update_path(from);
        fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))
    }

    /// Lets go of what belongs to a task: its update, and the global parameters that it started from.
    pub fn forget(&self, task: &TaskId, global: Option<BlobId>) -> Result<(), StateError> {
        let path = self.update_path(task);
        if let Some(update) =
            fs::read(&path).ok().and_then(|bytes| wire::decode_record::<Update>(&bytes).ok())
        {
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            self.deltas.remove(update.delta)?;
        }
        if let Some(global) = global {
            self.blobs.remove(global)?;
        }
        Ok(())
    }

    /// The folder of a job's imported model, laid out from its blobs, which are here.
    pub fn model_dir(&self, job: &Job) -> Result<Option<PathBuf>, StateError> {
        let Some(id) = job.model else { return Ok(None) };
        let manifest =
            Manifest::parse(&self.blobs.read(id)?).map_err(|e| StateError::Model(e.to_string()))?;
        let folder = self.root.join("models").join(id.to_string());
        fs::create_dir_all(&folder).map_err(|e| io_error("make", &folder, e))?;
        for file in &manifest.files {
            let path = folder.join(&file.path);
            match fs::hard_link(self.blobs.path(file.blob), &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("link", &path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Some(folder))
    }

    fn memory_path(&self) -> PathBuf {
        self.root.join("secagg")
    }

    fn update_path(&self, task: &TaskId) -> PathBuf {
        let TaskId { run, round, attempt } = task;
        self.root.join("updates").join(format!("{run}.{round}.{attempt}"))
    }
}

/// Writes a record that only its owner may read, whole or not at all.
fn write_record(path: &Path, record: &impl serde::Serialize) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&wire::encode_record(record).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|e| io_error("write", path, e))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.to_owned(), source }
}
