//! Making files last through a loss of power: the content first, then its name, then the folder that holds the name.

use std::fs::{self, File};
use std::io::{self, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Ends the name of a file that is being written. One that is left over is of no use.
pub const UNFINISHED: &str = ".new";

/// What is written must outlive this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlive {
    /// A loss of power.
    Power,
    /// The program alone: what a simulation writes is made again after worse, and waiting for the disk is most of its time.
    Program,
}

impl Outlive {
    /// Writes a file with these permissions, whole or not at all, in place of one that is there.
    pub fn write(self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        match self {
            Self::Power => write(path, content, mode),
            Self::Program => fs::rename(unfinished(path, content, mode)?.0, path),
        }
    }

    /// Has the disk begin with a part of a file that was written, without waiting for it: [`Self::sync`] waits the less.
    pub fn begin(self, path: &Path, from: u64, length: u64) {
        if self == Self::Power {
            begin(path, from, length);
        }
    }

    /// Makes what was written to a file last.
    pub fn sync(self, file: &File) -> io::Result<()> {
        match self {
            Self::Power => file.sync_all(),
            Self::Program => Ok(()),
        }
    }

    /// Makes the names in a folder last.
    pub fn sync_folder(self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Power => sync(folder),
            Self::Program => Ok(()),
        }
    }
}

/// Writes a file with these permissions, whole or not at all, in place of one that is there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (unfinished, file) = unfinished(path, content, mode)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync(parent(path))
}

fn unfinished(path: &Path, content: &[u8], mode: u32) -> io::Result<(PathBuf, File)> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(content)?;
    Ok((unfinished, file))
}

/// Gives a finished folder its name, with everything in it durable. An empty folder of that name gives way.
pub fn publish(folder: &Path, name: &Path) -> io::Result<()> {
    sync_all(folder)?;
    fs::rename(folder, name)?;
    sync(parent(name))
}

/// Makes a folder and those that it lies in, with their names durable. One that is there is fine.
pub fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make(parent(folder))?;
    fs::create_dir(folder)?;
    sync(parent(folder))
}

/// Whether a file that is open is the one of this name.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file, or a folder with all that is in it. What is not there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hint, which a thread of its own gives: a disk that has much to do lets it wait. Too many at once are dropped, and the
/// disk begins later.
#[cfg(target_os = "linux")]
fn begin(path: &Path, from: u64, length: u64) {
    use std::sync::LazyLock;
    use std::sync::mpsc::{SyncSender, sync_channel};

    static HINTS: LazyLock<SyncSender<(PathBuf, u64, u64)>> = LazyLock::new(|| {
        let (sender, hints) = sync_channel::<(PathBuf, u64, u64)>(16);
        // Without the thread nobody takes the hints, which are dropped then.
        let _ = std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || hints.iter().for_each(|(path, from, length)| hint(&path, from, length)));
        sender
    });
    let _ = HINTS.try_send((path.to_owned(), from, length));
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the C library has no safe interface to it")]
fn hint(path: &Path, from: u64, length: u64) {
    // Opened anew: whoever writes to it may have a lock on it, which a copy of its descriptor would hold.
    let (Ok(file), Ok(from), Ok(length)) = (File::open(path), from.try_into(), length.try_into()) else {
        return;
    };
    // SAFETY: it takes numbers alone, and the file is open here.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin(_path: &Path, _from: u64, _length: u64) {}

/// Makes a file, or the names in a folder, durable.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_all(&path)? } else { sync(&path)? }
    }
    sync(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_folder_gets_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let (path, folder) = (temp.path().join("record"), temp.path().join("made"));
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::create_dir_all(folder.join("in")).unwrap();
        fs::write(folder.join("in/file"), b"content").unwrap();
        publish(&folder, &temp.path().join("name")).unwrap();
        assert_eq!(fs::read(temp.path().join("name/in/file")).unwrap(), b"content");
        let names: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
    }

    #[test]
    fn a_folder_is_made_with_those_that_it_lies_in() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("a/b/c");
        make(&folder).unwrap();
        make(&folder).unwrap();
        assert!(folder.is_dir());
        fs::write(folder.join("file"), b"").unwrap();
        assert!(make(&folder.join("file/d")).is_err());
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("record");
        write(&path, b"one", 0o600).unwrap();
        // Something is in the way of the unfinished file.
        fs::create_dir(temp.path().join("record.new")).unwrap();
        assert!(write(&path, b"two", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
