//! Blobs on disk: each stored once under its hash, whole or not at all.
//!
//! `ROOT/ab/abcd…` are complete and verified; `ROOT/partial/` holds what is still arriving. A blob moves from
//! one to the other by fsync and rename, so that a name in the first place is a promise.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sheaf_common::blob::BlobId;

use crate::durable::{self, Outlive};

/// Bytes hashed, read and written at a time; every transfer holds as many in memory.
pub const CHUNK: usize = 256 << 10;

/// Bytes after which the disk begins with what was written while more comes.
const BEGIN: u64 = 8 << 20;

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct BlobDir {
    root: PathBuf,
    outlive: Outlive,
    /// Folders of complete blobs whose own names are known to be on the disk.
    lasting: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// A blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk said no.
    #[error("cannot {what} blob file {path}: {source}{}", way_on(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what the name promises.
    #[error("blob {expected} arrived as {found}: the transfer was damaged")]
    Mismatch {
        /// The name.
        expected: BlobId,
        /// The hash of what came.
        found: BlobId,
    },
    /// It is not here.
    #[error("blob {0} is not here")]
    Missing(BlobId),
    /// Another arrival of it from the same sender has not ended: the connection before may not be known to be gone.
    #[error("another transfer of blob {0} has not ended yet: try again in a minute")]
    Busy(BlobId),
    /// Somebody else wrote to it, or removed it.
    #[error("blob file {0} was changed while it was written: send it again")]
    Changed(PathBuf),
}

/// What whoever runs the program can do about an error of the disk.
fn way_on(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // EFBIG, ENOSPC, EDQUOT
        Some(27 | 28 | 122) => ": free some space there",
        // EPERM, EACCES, EROFS
        Some(1 | 13 | 30) => ": let the user that runs the program write there",
        // ENFILE, EMFILE
        Some(23 | 24) => ": let the program have more files open (`ulimit -Hn`, or LimitNOFILE of systemd)",
        Some(_) | None => "",
    }
}

impl BlobDir {
    /// Opens the folder, making it when it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobError> {
        Self::open_to(Outlive::Power, root)
    }

    /// The same, and whatever is stored is to outlive this.
    pub fn open_to(outlive: Outlive, root: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let root = root.into();
        let partial = root.join("partial");
        if !partial.is_dir() {
            fs::create_dir_all(&partial).map_err(|e| io_error("make", &partial, e))?;
            for folder in [&root, durable::parent(&root)] {
                outlive.sync_folder(folder).map_err(|e| io_error("sync", folder, e))?;
            }
        }
        Ok(Self { root, outlive, lasting: Arc::default() })
    }

    /// Whether beginning and finishing a blob wait for the disk.
    pub fn waits(&self) -> bool {
        self.outlive == Outlive::Power
    }

    /// Where a complete blob lies.
    pub fn path(&self, blob: BlobId) -> PathBuf {
        let name = blob.to_string();
        self.root.join(&name[..2]).join(name)
    }

    /// A complete blob's length; `None` when it is not here.
    pub fn length(&self, blob: BlobId) -> Option<u64> {
        fs::metadata(self.path(blob)).ok().map(|metadata| metadata.len())
    }

    /// Opens a complete blob for reading.
    pub fn reader(&self, blob: BlobId) -> Result<File, BlobError> {
        let path = self.path(blob);
        File::open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                BlobError::Missing(blob)
            } else {
                io_error("open", &path, error)
            }
        })
    }

    /// A complete blob's bytes; for small ones.
    pub fn read(&self, blob: BlobId) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let mut reader = self.reader(blob)?;
        reader.read_to_end(&mut bytes).map_err(|e| io_error("read", &self.path(blob), e))?;
        Ok(bytes)
    }

    /// A complete blob's bytes, [`CHUNK`] at a time.
    pub fn each_chunk(
        &self,
        blob: BlobId,
        mut action: impl FnMut(&[u8]) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        let mut reader = self.reader(blob)?;
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            buffer.clear();
            let read = Read::by_ref(&mut reader).take(CHUNK as u64).read_to_end(&mut buffer);
            if read.map_err(|e| io_error("read", &self.path(blob), e))? == 0 {
                return Ok(());
            }
            action(&buffer)?;
        }
    }

    /// Stores bytes at hand.
    pub fn insert(&self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Copies a file in.
    pub fn insert_file(&self, path: &Path) -> Result<BlobId, BlobError> {
        let mut source = File::open(path).map_err(|e| io_error("open", path, e))?;
        let mut writer = self.writer()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer).map_err(|e| io_error("read", path, e))? {
                0 => return writer.finish(),
                length => writer.write(&buffer[..length])?,
            }
        }
    }

    /// Has a blob of another folder here too: as a link to the same file where that is possible, which is as good as a copy
    /// because no blob ever changes. False when it is not there.
    pub fn link(&self, from: &Self, blob: BlobId) -> Result<bool, BlobError> {
        if self.length(blob).is_some() {
            return Ok(true);
        }
        let (source, target) = (from.path(blob), self.path(blob));
        let folder = durable::parent(&target);
        fs::create_dir_all(folder).map_err(|e| io_error("make", folder, e))?;
        match fs::hard_link(&source, &target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Another file system, or one without links.
            Err(_) => match self.insert_file(&source)? {
                found if found == blob => Ok(true),
                found => Err(BlobError::Mismatch { expected: blob, found }),
            },
        }
    }

    /// Whether a complete blob is here and still what its name promises; reads it all.
    pub fn is_sound(&self, blob: BlobId) -> Result<bool, BlobError> {
        let mut reader = match self.reader(blob) {
            Err(BlobError::Missing(_)) => return Ok(false),
            reader => reader?,
        };
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut reader, &mut hasher).map_err(|e| io_error("read", &self.path(blob), e))?;
        Ok(BlobId::from(hasher.finalize()) == blob)
    }

    /// Removes every complete blob that is not what its name promises; reads them all. Returns how many.
    pub fn remove_damaged(&self) -> Result<u64, BlobError> {
        let mut gone = 0;
        for blob in self.list()? {
            if !self.is_sound(blob)? {
                self.remove(blob)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Makes a blob as young as one that has just come: it is about to be named. One that is not here is fine.
    pub fn refresh(&self, blob: BlobId) -> Result<(), BlobError> {
        match self.reader(blob) {
            Err(BlobError::Missing(_)) => Ok(()),
            Ok(file) => {
                file.set_modified(SystemTime::now()).map_err(|e| io_error("date", &self.path(blob), e))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes every blob but `kept`, and every arrival that was broken off, that were written `before`. Returns how many
    /// blobs went, and their bytes.
    pub fn remove_others(
        &self,
        kept: &BTreeSet<BlobId>,
        before: SystemTime,
    ) -> Result<(u64, u64), BlobError> {
        let mut gone = (0, 0);
        for blob in self.list()?.into_iter().filter(|blob| !kept.contains(blob)) {
            if let Some(bytes) = older(&self.path(blob), before) {
                self.remove(blob)?;
                gone = (gone.0 + 1, gone.1 + bytes);
            }
        }
        for path in entries(&self.root.join("partial"))? {
            if older(&path, before).is_some() {
                fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            }
        }
        Ok(gone)
    }

    /// Forgets a blob; one that is not here is fine.
    pub fn remove(&self, blob: BlobId) -> Result<(), BlobError> {
        let path = self.path(blob);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Forgets every blob, and what is arriving.
    pub fn clear(&self) -> Result<(), BlobError> {
        for folder in self.folders()? {
            fs::remove_dir_all(&folder).map_err(|e| io_error("remove", &folder, e))?;
        }
        for path in entries(&self.root.join("partial"))? {
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
        }
        Ok(())
    }

    /// Forgets a blob at once. The disk may take long to have its space back: that is for whoever drops what this returns.
    /// `None` when it was not here.
    pub fn set_aside(&self, blob: BlobId) -> Result<Option<Aside>, BlobError> {
        let (path, aside) = (self.path(blob), self.unnamed());
        match fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(Aside(aside))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("rename", &path, error)),
        }
    }

    fn unnamed(&self) -> PathBuf {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.root.join("partial").join(format!("new-{}-{number}", std::process::id()))
    }

    /// Starts a blob whose name is known when it is finished.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let path = self.unnamed();
        let file = File::create(&path).map_err(|e| io_error("create", &path, e))?;
        Ok(BlobWriter {
            dir: self.clone(),
            path,
            file,
            hasher: blake3::Hasher::new(),
            length: 0,
            begun: 0,
            keep: false,
        })
    }

    /// Goes on with (or starts) the arrival of `blob` from `sender`: what came before is kept, and counted in
    /// [`BlobWriter::length`]. One at a time: two that append to the same file would leave neither's blob in it.
    pub fn resume(&self, blob: BlobId, sender: &str) -> Result<BlobWriter, BlobError> {
        let path = self.partial(blob, sender);
        let mut file = loop {
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
            let file = file.map_err(|e| io_error("open", &path, e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(BlobError::Busy(blob)),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
            }
            // Whoever had the lock may have given the file its name, or removed it, after it was opened here.
            if durable::is_at(&file, &path).map_err(|e| io_error("look at", &path, e))? {
                break file;
            }
        };
        let begun = file.metadata().map_err(|e| io_error("look at", &path, e))?.len();
        let mut hasher = blake3::Hasher::new();
        // Most have nothing yet.
        let mut buffer = vec![0; usize::try_from(begun).unwrap_or(CHUNK).min(CHUNK)];
        let mut length = 0;
        loop {
            match file.read(&mut buffer).map_err(|e| io_error("read", &path, e))? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    length += read as u64;
                }
            }
        }
        Ok(BlobWriter { dir: self.clone(), path, file, hasher, length, begun: length, keep: true })
    }

    /// Makes a folder of complete blobs last. There are few, and each costs a wait for the disk only once.
    fn make(&self, folder: &Path) -> Result<(), BlobError> {
        let known = || self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_dir() && known().contains(folder) {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(|e| io_error("make", folder, e))?;
        self.outlive.sync_folder(&self.root).map_err(|e| io_error("sync", &self.root, e))?;
        known().insert(folder.to_owned());
        Ok(())
    }

    /// Every complete blob, in the order of names.
    pub fn list(&self) -> Result<Vec<BlobId>, BlobError> {
        let mut blobs = Vec::new();
        for folder in self.folders()? {
            let names = entries(&folder)?;
            blobs.extend(names.iter().filter_map(|path| path.file_name()?.to_str()?.parse::<BlobId>().ok()));
        }
        blobs.sort();
        Ok(blobs)
    }

    /// The folders of complete blobs.
    fn folders(&self) -> Result<Vec<PathBuf>, BlobError> {
        let mut folders = entries(&self.root)?;
        folders.retain(|folder| folder.is_dir() && !folder.ends_with("partial"));
        Ok(folders)
    }

    /// Removes what has arrived of `blob` from `sender`; nothing is fine.
    pub fn remove_partial(&self, blob: BlobId, sender: &str) -> Result<(), BlobError> {
        let path = self.partial(blob, sender);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what has arrived of blobs that are not wanted any more.
    pub fn remove_partials(&self, is_over: impl Fn(&BlobId) -> bool) -> Result<(), BlobError> {
        for path in entries(&self.root.join("partial"))? {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
            let blob = name.and_then(|(blob, _)| blob.parse().ok());
            if blob.is_some_and(|blob| is_over(&blob)) {
                fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            }
        }
        Ok(())
    }

    fn partial(&self, blob: BlobId, sender: &str) -> PathBuf {
        self.root.join("partial").join(format!("{blob}.{sender}"))
    }

    /// Removes what has no name yet, or no longer, since before the program started.
    pub fn remove_unnamed(&self) -> Result<(), BlobError> {
        let partial = self.root.join("partial");
        let entries = fs::read_dir(&partial).map_err(|e| io_error("list", &partial, e))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }
}

/// A blob that was forgotten, as long as it takes space.
#[derive(Debug)]
pub struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        // Best effort, as for a blob that is not finished.
        let _ = fs::remove_file(&self.0);
    }
}

/// A blob that is being written.
#[derive(Debug)]
pub struct BlobWriter {
    dir: BlobDir,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    length: u64,
    /// How much of it the disk has begun with.
    begun: u64,
    /// Whether what was written stays for [`BlobDir::resume`] when the writer is dropped unfinished.
    keep: bool,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file.write_all(bytes).map_err(|e| io_error("write", &self.path, e))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if self.length - self.begun >= BEGIN {
            self.dir.outlive.begin(&self.path, self.begun, self.length - self.begun);
            self.begun = self.length;
        }
        Ok(())
    }

    /// What was written so far, to be read again.
    pub fn written(&self) -> Result<File, BlobError> {
        File::open(&self.path).map_err(|e| io_error("open", &self.path, e))
    }

    /// What was written so far is wrong: it is not kept for [`BlobDir::resume`].
    pub fn discard(&mut self) {
        self.keep = false;
    }

    /// Makes the blob durable under the hash of what was written.
    pub fn finish(self) -> Result<BlobId, BlobError> {
        let blob = BlobId::from(self.hasher.finalize());
        self.store(blob)?;
        Ok(blob)
    }

    /// Makes the blob durable if it is what the name promises; throws it away otherwise.
    pub fn finish_as(mut self, expected: BlobId) -> Result<(), BlobError> {
        let found = BlobId::from(self.hasher.finalize());
        if found != expected {
            self.keep = false;
            return Err(BlobError::Mismatch { expected, found });
        }
        self.store(expected)
    }

    fn store(mut self, blob: BlobId) -> Result<(), BlobError> {
        let outlive = self.dir.outlive;
        outlive.sync(&self.file).map_err(|e| io_error("sync", &self.path, e))?;
        self.check()?;
        let target = self.dir.path(blob);
        let folder = durable::parent(&target);
        self.dir.make(folder)?;
        fs::rename(&self.path, &target).map_err(|e| io_error("rename", &self.path, e))?;
        self.keep = true;
        outlive.sync_folder(folder).map_err(|e| io_error("sync", folder, e))
    }

    /// What was hashed is what the name is about to be given to.
    fn check(&mut self) -> Result<(), BlobError> {
        let look = |error| io_error("look at", &self.path, error);
        let changed = || BlobError::Changed(self.path.clone());
        if !durable::is_at(&self.file, &self.path).map_err(look)? {
            return Err(changed());
        }
        if self.file.metadata().map_err(look)?.len() != self.length {
            self.keep = false;
            return Err(changed());
        }
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: a left-over is removed by `remove_unnamed` at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The length of a file that was written before a time.
fn older(path: &Path, before: SystemTime) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.modified().ok()? < before).then_some(metadata.len())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.map_err(|e| io_error("list", folder, e))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> BlobError {
    BlobError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, BlobDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = BlobDir::open(temp.path().join("blobs")).unwrap();
        (temp, dir)
    }

    #[test]
    fn stored_under_its_hash() {
        let (_temp, dir) = dir();
        let blob = dir.insert(b"weights").unwrap();
        assert_eq!(blob, BlobId::of(b"weights"));
        assert_eq!(dir.length(blob), Some(7));
        assert_eq!(dir.read(blob).unwrap(), b"weights");
    }

    #[test]
    fn an_arrival_goes_on_where_it_stopped() {
        let (_temp, dir) = dir();
        let blob = BlobId::of(b"weights");
        let mut first = dir.resume(blob, "site").unwrap();
        first.write(b"wei").unwrap();
        drop(first);
        let mut second = dir.resume(blob, "site").unwrap();
        assert_eq!(second.length(), 3);
        second.write(b"ghts").unwrap();
        second.finish_as(blob).unwrap();
        assert_eq!(dir.read(blob).unwrap(), b"weights");
    }

    #[test]
    fn an_arrival_has_one_writer_at_a_time() {
        let (_temp, dir) = dir();
        let blob = BlobId::of(b"weights");
        let mut first = dir.resume(blob, "site").unwrap();
        first.write(b"wei").unwrap();
        assert!(matches!(dir.resume(blob, "site"), Err(BlobError::Busy(busy)) if busy == blob));
        assert_eq!(dir.resume(blob, "other").unwrap().length(), 0);
        drop(first);
        assert_eq!(dir.resume(blob, "site").unwrap().length(), 3);
    }

    #[test]
    fn what_another_wrote_to_or_removed_gets_no_name() {
        let (_temp, dir) = dir();
        let blob = BlobId::of(b"weights");
        let mut writer = dir.resume(blob, "site").unwrap();
        writer.write(b"weights").unwrap();
        OpenOptions::new().append(true).open(&writer.path).unwrap().write_all(b"ghts").unwrap();
        assert!(matches!(writer.finish_as(blob), Err(BlobError::Changed(_))));
        let mut writer = dir.resume(blob, "site").unwrap();
        assert_eq!(writer.length(), 0);
        writer.write(b"weights").unwrap();
        dir.remove_partial(blob, "site").unwrap();
        let other = dir.resume(blob, "site").unwrap();
        assert!(matches!(writer.finish_as(blob), Err(BlobError::Changed(_))));
        assert_eq!((dir.length(blob), other.length()), (None, 0));
    }

    #[test]
    fn what_is_not_as_promised_is_thrown_away() {
        let (_temp, dir) = dir();
        let blob = BlobId::of(b"weights");
        let mut writer = dir.resume(blob, "site").unwrap();
        writer.write(b"other").unwrap();
        assert!(matches!(writer.finish_as(blob), Err(BlobError::Mismatch { .. })));
        assert_eq!(dir.length(blob), None);
        assert_eq!(dir.resume(blob, "site").unwrap().length(), 0);
    }

    #[test]
    fn a_blob_that_is_set_aside_is_in_nobody_s_way() {
        let (temp, dir) = dir();
        let blob = dir.insert(b"weights").unwrap();
        let aside = dir.set_aside(blob).unwrap().unwrap();
        assert!(dir.length(blob).is_none() && dir.set_aside(blob).unwrap().is_none());
        dir.insert(b"weights").unwrap();
        drop(aside);
        assert_eq!(dir.read(blob).unwrap(), b"weights");
        assert_eq!(fs::read_dir(temp.path().join("blobs/partial")).unwrap().count(), 0);
    }

    #[test]
    fn an_unfinished_blob_leaves_nothing() {
        let (temp, dir) = dir();
        let mut writer = dir.writer().unwrap();
        writer.write(b"half").unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(temp.path().join("blobs/partial")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_kept_goes_when_it_is_old() {
        use std::time::Duration;
        let (_temp, dir) = dir();
        let [kept, old, young] = [b"kept", b"old!", b"new!"].map(|bytes| dir.insert(bytes).unwrap());
        drop(dir.resume(BlobId::of(b"other"), "site").unwrap());
        let now = SystemTime::now();
        let long_ago = now - Duration::from_secs(1000);
        for path in [dir.path(kept), dir.path(old), entries(&dir.root.join("partial")).unwrap().remove(0)] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        let gone = dir.remove_others(&BTreeSet::from([kept]), now - Duration::from_secs(500)).unwrap();
        assert_eq!(gone, (1, 4));
        let mut left = vec![kept, young];
        left.sort();
        assert_eq!(dir.list().unwrap(), left);
        assert_eq!(entries(&dir.root.join("partial")).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_blob_that_was_cut_or_changed_is_not_sound() {
        let (_temp, dir) = dir();
        let blob = dir.insert(b"weights").unwrap();
        assert!(dir.is_sound(blob).unwrap());
        fs::write(dir.path(blob), b"weight").unwrap();
        assert!(!dir.is_sound(blob).unwrap());
        fs::write(dir.path(blob), b"wEights").unwrap();
        assert!(!dir.is_sound(blob).unwrap());
        let other = dir.insert(b"other weights").unwrap();
        assert_eq!(dir.remove_damaged().unwrap(), 1);
        assert_eq!(dir.list().unwrap(), [other]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = BlobDir::open(file.join("blobs")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make blob file") && error.contains("file/blobs"), "{error}");
    }
}
