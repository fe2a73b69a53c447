//! The audit log: what a program did, an entry a line, each signed with the program's key and chained to the one before.
//!
//! A line is the entry in JSON, a tab, and an Ed25519 signature over the entry in hexadecimal. An entry has a number,
//! the time, the hash of the line before, and the event's own fields. The first entry of each start, and one after
//! each renewal, holds the certificate that the signatures are by, so that whoever has the federation's CA can check a
//! copy of the file. Whoever changes, takes out or moves an entry is found, unless he has the key; that the newest
//! entries were cut off is seen only by comparing with a number and hash that were noted elsewhere, which [`verify`]
//! gives.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sheaf_common::id::Identity;
use sheaf_common::secagg::message::Signature;

use crate::authority::{Authority, NotOurs};
use crate::durable;
use crate::reload::Current;
use crate::tls::Credentials;

/// Longest line.
const LINE_MAX: usize = 1 << 20;

/// Longest entry: a line has a signature as well. What is longer is left out but for its name.
pub const ENTRY_MAX: usize = LINE_MAX - 1024;

/// Longest text of somebody else's that an entry should hold.
const BRIEF_MAX: usize = 500;

/// What a signature is over, in front of the entry.
const DOMAIN: &[u8] = b"sheaf-audit-v1/";

/// The events that show a certificate: a program's start, and another certificate in the place of the one before.
const STARTED: &str = "started";
const RENEWED: &str = "certificate-renewed";

/// An open log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    /// As they are now, and as the log last said them.
    current: Current,
    shown: Arc<Credentials>,
    last: Last,
    /// Where the newest entry ends.
    end: u64,
    /// Whether something lies behind it that is no entry.
    torn: bool,
    unsynced: bool,
}

/// The newest entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Last {
    number: u64,
    hash: String,
}

/// The log cannot be written, and so nothing may be done.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk said no.
    #[error("cannot write the audit log {path}, without which nothing is done: {source}; make sure that {folder} can be written and has space, then start again: everything goes on where it was", folder = .path.parent().unwrap_or(.path).display(), path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not end with an entry.
    #[error("the audit log {path} does not end with an entry: move it away, keep it, and start again", path = .0.display())]
    Damaged(PathBuf),
    /// The key does not sign.
    #[error("the audit log cannot be signed: {0}")]
    Key(#[from] NotOurs),
}

#[derive(Serialize)]
struct Written<'a, E> {
    number: u64,
    at: String,
    previous: &'a str,
    #[serde(flatten)]
    event: &'a E,
}

#[derive(Deserialize)]
struct Entry {
    number: u64,
    at: String,
    previous: String,
    event: String,
    certificate: Option<String>,
}

/// In the place of an event that is too long for a line.
#[derive(Serialize)]
struct LeftOut<'a> {
    event: &'a str,
    left_out_bytes: usize,
}

#[derive(Serialize)]
struct Shown<'a> {
    event: &'a str,
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    software: Option<&'a str>,
    certificate: String,
}

impl AuditLog {
    /// Opens the log of whom `current` names, or begins it, and writes that the program `software` started. An entry that
    /// a crash cut short was never acted on, and goes.
    pub fn open(path: &Path, current: Current, software: &str) -> Result<Self, AuditError> {
        let error = |source| AuditError::Io { path: path.to_owned(), source };
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(error)?;
        let (end, last) =
            tail(&mut file).map_err(error)?.ok_or_else(|| AuditError::Damaged(path.to_owned()))?;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(error)?;
        let shown = current.borrow().clone();
        let mut log =
            Self { path: path.to_owned(), file, current, shown, last, end, torn: false, unsynced: false };
        log.show(STARTED, Some(software))?;
        log.sync()?;
        if end == 0 {
            // It is new: its name must last as well.
            durable::sync(durable::parent(path)).map_err(error)?;
        }
        Ok(log)
    }

    /// Says by whose key the entries are from here on.
    fn show(&mut self, event: &str, software: Option<&str>) -> Result<(), AuditError> {
        self.shown = self.current.borrow().clone();
        let identity = self.shown.identity.to_string();
        let certificate = hex::encode(self.shown.certificate());
        self.write(&Shown { event, identity, software, certificate })
    }

    /// Writes an event, an object with the field `event`, and waits until it is on the disk.
    pub fn record(&mut self, event: &impl Serialize) -> Result<(), AuditError> {
        self.append(event)?;
        self.sync()
    }

    /// Writes an event. It may be lost in a crash until [`sync`](Self::sync) returns.
    pub fn append(&mut self, event: &impl Serialize) -> Result<(), AuditError> {
        if !Arc::ptr_eq(&self.shown, &*self.current.borrow()) {
            self.show(RENEWED, None)?;
        }
        self.write(event)
    }

    fn write(&mut self, event: &impl Serialize) -> Result<(), AuditError> {
        self.mend().map_err(|e| self.error(e))?;
        let number = self.last.number + 1;
        let mut entry = self.entry(event).map_err(|e| self.error(e.into()))?;
        if entry.len() > ENTRY_MAX {
            entry = self.left_out(&entry).map_err(|e| self.error(e.into()))?;
        }
        let signature = Signature::from(self.shown.sign(&signed(&entry))?);
        let line = format!("{entry}\t{signature}\n");
        self.unsynced = true;
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.torn = true;
            // If that fails too, the next entry tries again.
            let _ = self.mend();
            return Err(self.error(error));
        }
        self.end += line.len() as u64;
        self.last = Last { number, hash: hash(line.trim_end_matches('\n')) };
        Ok(())
    }

    fn entry(&self, event: &impl Serialize) -> Result<String, serde_json::Error> {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        serde_json::to_string(&Written { number: self.last.number + 1, at, previous: &self.last.hash, event })
    }

    /// In the place of an entry that nobody would read.
    fn left_out(&self, entry: &str) -> Result<String, serde_json::Error> {
        let Entry { event, .. } = serde_json::from_str(entry)?;
        self.entry(&LeftOut { event: brief(&event), left_out_bytes: entry.len() })
    }

    /// Takes off what was written of an entry when the disk was full: the next one would continue its line.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub fn sync(&mut self) -> Result<(), AuditError> {
        if self.unsynced {
            self.file.sync_data().map_err(|e| self.error(e))?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> AuditError {
        AuditError::Io { path: self.path.clone(), source }
    }
}

/// The beginning of somebody else's text, as an entry should hold it: no peer makes an entry longer than readers take.
pub fn brief(text: &str) -> &str {
    &text[..text.floor_char_boundary(BRIEF_MAX)]
}

/// Where the last whole line ends, and what it is; `None` when it is no entry.
fn tail(file: &mut File) -> io::Result<Option<(u64, Last)>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * LINE_MAX as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(2 * LINE_MAX as u64).read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        return Ok((length < LINE_MAX as u64).then(|| (0, Last::default())));
    };
    let begin = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = String::from_utf8_lossy(&bytes[begin..end]);
    let entry = line.split_once('\t').and_then(|(entry, _)| serde_json::from_str::<Entry>(entry).ok());
    Ok(entry.map(|entry| (start + end as u64 + 1, Last { number: entry.number, hash: hash(&line) })))
}

fn signed(entry: &str) -> Vec<u8> {
    [DOMAIN, entry.as_bytes()].concat()
}

fn hash(line: &str) -> String {
    blake3::hash(line.as_bytes()).to_hex().to_string()
}

/// What a log that holds was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whose it is.
    pub identity: String,
    /// Entries.
    pub entries: u64,
    /// Time of the first.
    pub from: String,
    /// Time of the last.
    pub to: String,
    /// Hash of the last line: note it elsewhere, and nobody can cut off entries up to here unseen.
    pub hash: String,
}

impl std::fmt::Display for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, entries, from, to, hash } = self;
        write!(
            f,
            "{entries} entries by {identity}, from {from} to {to}, hold\nthe last has the hash {hash}: note it elsewhere, and nobody can cut off entries up to here unseen"
        )
    }
}

/// A log does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it must be.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// There is none.
    #[error("it holds no entry")]
    Empty,
}

/// Checks a log from its first line to its last. `authority` vouches for the certificates in it, each at the time of its
/// entry.
pub fn verify(log: impl Read, authority: &Authority) -> Result<Verified, Broken> {
    let mut reader = BufReader::new(log);
    let mut owner: Option<(Identity, [u8; 32])> = None;
    let mut first = None;
    let (mut last, mut to) = (Last::default(), String::new());
    for line in 1.. {
        let broken = |why: String| Broken::Line { line, why };
        let mut text = Vec::new();
        if reader.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if text.pop() != Some(b'\n') {
            return Err(broken("it is cut short, as by a crash, or far too long".into()));
        }
        let text = String::from_utf8(text).map_err(|_| broken("it is no text".into()))?;
        let (written, signature) =
            text.split_once('\t').ok_or_else(|| broken("it has no signature".into()))?;
        let entry: Entry =
            serde_json::from_str(written).map_err(|e| broken(format!("it is no entry: {e}")))?;
        if [STARTED, RENEWED].contains(&entry.event.as_str()) {
            let started = certificate(&entry, authority).map_err(&broken)?;
            if owner.as_ref().is_some_and(|(identity, _)| *identity != started.0) {
                return Err(broken(format!("it is by {}, not by whom the entries before are", started.0)));
            }
            owner = Some(started);
        }
        let (_, key) =
            owner.as_ref().ok_or_else(|| broken("no entry before it says by whom it is".into()))?;
        let bytes: Option<[u8; 64]> = hex::decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        if !bytes.is_some_and(|bytes| Signature::from(bytes).is_valid(key, &signed(written))) {
            return Err(broken(format!("entry {} was changed: its signature does not fit", entry.number)));
        }
        let expected = last.number + 1;
        if entry.number > expected {
            let missing = (entry.number - 1).max(expected);
            return Err(broken(format!(
                "entries {expected} to {missing} are missing before entry {}",
                entry.number
            )));
        }
        if entry.number < expected {
            return Err(broken(format!("entry {} is not in its place: {expected} is due", entry.number)));
        }
        if entry.previous != last.hash {
            return Err(broken(format!(
                "entry {} follows another entry {} than the one here",
                entry.number, last.number
            )));
        }
        first.get_or_insert_with(|| entry.at.clone());
        (last, to) = (Last { number: entry.number, hash: hash(&text) }, entry.at);
    }
    let (Some(from), Some((identity, _))) = (first, owner) else { return Err(Broken::Empty) };
    Ok(Verified { identity: identity.to_string(), entries: last.number, from, to, hash: last.hash })
}

/// Whose the entries from here on are.
fn certificate(entry: &Entry, authority: &Authority) -> Result<(Identity, [u8; 32]), String> {
    let shown = entry.certificate.as_deref().ok_or("it shows no certificate")?;
    let shown = hex::decode(shown).map_err(|_| "its certificate is not hexadecimal")?;
    let at = humantime::parse_rfc3339(&entry.at).map_err(|_| "its time is not one of RFC 3339")?;
    let verified = authority.verify(&shown, at).or_else(|_| authority.verify_server(&shown, at));
    verified.map_err(|e| format!("of its certificate: {e}"))
}

#[cfg(test)]
mod tests;
