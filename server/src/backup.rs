//! A copy of the data directory while the server works on it, and a data directory from such a copy.
//!
//! The copy is of one moment: SQLite says what the runs were then, and everything that they named is in it. Blobs never
//! change under their name, so that on one file system a link is as good as a copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::time::Timestamp;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable;

use crate::config::{DataDir, ServerConfig};
use crate::retention::{Needed, NeededError};
use crate::store::{Store, StoreError};

/// Updates go while their round is closed: so often a moment is looked for at which everything is there.
const TRIES: usize = 10;

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Runs.
    pub runs: usize,
    /// Blobs.
    pub blobs: usize,
}

/// Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there.
    #[error("{0} is already there, and nothing is ever overwritten: move it away, or choose another")]
    AlreadyThere(PathBuf),
    /// There is no database.
    #[error("{0} is no data directory of a sheaf-server: it holds no sheaf.db")]
    NoDatabase(PathBuf),
    /// A file cannot be made.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is missing.
    #[error("blob {0}, which a run or a model needs, is not in {1}: it cannot be copied whole")]
    Incomplete(BlobId, PathBuf),
    /// Something is not what it was.
    #[error("blob {0} in {1} is damaged: use another backup")]
    Damaged(BlobId, PathBuf),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is needed cannot be told.
    #[error(transparent)]
    Needed(#[from] NeededError),
    /// A blob cannot be read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Copies the data directory of `config` as it is at `now` to `into`, which must not be there. The server may run.
pub fn backup(config: &ServerConfig, into: &Path, now: Timestamp) -> Result<Contents, BackupError> {
    let from = DataDir(&config.data_dir);
    let store = existing(from)?;
    let workshop = Workshop::beside(into)?;
    let source = (BlobDir::open(from.blobs())?, BlobDir::open(from.updates())?);
    let copy = (BlobDir::open(workshop.data().blobs())?, BlobDir::open(workshop.data().updates())?);
    let mut tries = 0;
    let needed = loop {
        tries += 1;
        // An update that goes in the next moment is still needed in this one.
        for blob in source.1.list()? {
            let _ = copy.1.link(&source.1, blob)?;
        }
        let database = workshop.data().database();
        store.copy_to(&database)?;
        let runs = Store::existing(&database)?;
        let needed = Needed::of(&runs.runs()?, &runs, &source.0, config.retention, now)?;
        match missing(&needed, &source, &copy)? {
            None => break needed,
            Some(blob) if tries == TRIES => {
                return Err(BackupError::Incomplete(blob, config.data_dir.clone()));
            }
            Some(_) => {}
        }
    };
    copy_audit_log(from, workshop.data())?;
    for blob in copy.1.list()?.into_iter().filter(|blob| !needed.updates.contains(blob)) {
        copy.1.remove(blob)?;
    }
    workshop.publish(into)
}

/// Links what is needed; names a blob that is not there.
fn missing(
    needed: &Needed,
    source: &(BlobDir, BlobDir),
    copy: &(BlobDir, BlobDir),
) -> Result<Option<BlobId>, BlobError> {
    for (blobs, source, copy) in [(&needed.blobs, &source.0, &copy.0), (&needed.updates, &source.1, &copy.1)]
    {
        for blob in blobs {
            if !copy.link(source, *blob)? {
                return Ok(Some(*blob));
            }
        }
    }
    Ok(None)
}

/// Makes the data directory of `config`, which must not be there or be empty, from the backup `from`. Every blob is
/// checked on the way.
pub fn restore(config: &ServerConfig, from: &Path, now: Timestamp) -> Result<Contents, BackupError> {
    let source = DataDir(from);
    let store = existing(source)?;
    let workshop = Workshop::beside(&config.data_dir)?;
    store.copy_to(&workshop.data().database())?;
    copy_audit_log(source, workshop.data())?;
    let dirs = [(source.blobs(), workshop.data().blobs()), (source.updates(), workshop.data().updates())];
    for (source, copy) in &dirs {
        let (source, copy) = (BlobDir::open(source)?, BlobDir::open(copy)?);
        for blob in source.list()? {
            if copy.insert_file(&source.path(blob))? != blob {
                return Err(BackupError::Damaged(blob, from.to_owned()));
            }
        }
    }
    let copy = (BlobDir::open(&dirs[0].1)?, BlobDir::open(&dirs[1].1)?);
    let needed = Needed::of(&store.runs()?, &store, &copy.0, config.retention, now)?;
    match missing(&needed, &copy, &copy)? {
        Some(blob) => Err(BackupError::Incomplete(blob, from.to_owned())),
        None => workshop.publish(&config.data_dir),
    }
}

/// Copies the audit log, which runs ahead of the database: copied after it, it lacks nothing that the database remembers.
fn copy_audit_log(from: DataDir<'_>, into: DataDir<'_>) -> Result<(), BackupError> {
    match fs::copy(from.audit_log(), into.audit_log()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::Write { path: into.audit_log(), source }),
    }
}

fn existing(data: DataDir<'_>) -> Result<Store, BackupError> {
    if data.database().is_file() {
        Ok(Store::existing(&data.database())?)
    } else {
        Err(BackupError::NoDatabase(data.0.to_owned()))
    }
}

/// A folder beside the one that is to be made, gone when it is dropped.
struct Workshop {
    data: PathBuf,
    _dir: tempfile::TempDir,
}

impl Workshop {
    fn beside(target: &Path) -> Result<Self, BackupError> {
        let there = |_| BackupError::AlreadyThere(target.to_owned());
        if fs::symlink_metadata(target).is_ok() && fs::read_dir(target).map_err(there)?.next().is_some() {
            return Err(BackupError::AlreadyThere(target.to_owned()));
        }
        let parent = durable::parent(target);
        let failed = |source| BackupError::Write { path: parent.to_owned(), source };
        fs::create_dir_all(parent).map_err(failed)?;
        let dir = tempfile::Builder::new().prefix(".sheaf-backup.").tempdir_in(parent).map_err(failed)?;
        let data = dir.path().join("data");
        fs::create_dir(&data).map_err(failed)?;
        Ok(Self { data, _dir: dir })
    }

    fn data(&self) -> DataDir<'_> {
        DataDir(&self.data)
    }

    /// Gives the folder its name.
    fn publish(self, name: &Path) -> Result<Contents, BackupError> {
        let count = |dir: PathBuf| Ok::<_, BlobError>(BlobDir::open(dir)?.list()?.len());
        let contents = Contents {
            runs: Store::existing(&self.data().database())?.runs()?.len(),
            blobs: count(self.data().blobs())? + count(self.data().updates())?,
        };
        let failed = |source| BackupError::Write { path: name.to_owned(), source };
        durable::publish(&self.data, name).map_err(failed)?;
        Ok(contents)
    }
}
