//! What a site writes into its audit log: what it was asked, what left it, and what it refused.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{Name, RunId};
use sheaf_common::message::{SiteMessage, TaskId};
use sheaf_common::secagg::message::Answer;
use sheaf_transport::audit::{self, AuditError, AuditLog, Broken};
use sheaf_transport::reload::Current;
use sheaf_transport::tls::{CredentialError, Credentials};
use tracing::error;

use crate::config::{SiteConfig, SiteConfigError};

/// The file in the state folder.
const FILE: &str = "audit.log";

/// An event in the life of a site.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// The server welcomed the site.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The server asks for work.
    Asked {
        /// Run, round and attempt.
        #[serde(flatten)]
        task: Task<'a>,
        /// `train` or `evaluate`.
        work: &'a str,
        /// Whose word the run has, if it holds.
        author: Option<Name>,
        /// Hash of all that is fixed in the run.
        origin: BlobId,
        /// The imported model.
        model: Option<BlobId>,
        /// The global parameters.
        global: BlobId,
        /// Digest of the record of the round that made them.
        record: Option<String>,
    },
    /// Whether the site stands by for a run.
    Standby {
        /// The run.
        run: &'a RunId,
        /// Why not.
        held: Option<&'a str>,
    },
    /// A certificate for a new key is asked for.
    Renewing {
        /// Length of the message.
        bytes: u64,
    },
    /// Something came in.
    Fetched {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// What.
        blob: BlobId,
        /// How much of it was not here yet.
        bytes: u64,
    },
    /// An update, or the masked vector that stands for one, is about to leave.
    Sending {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// What.
        blob: BlobId,
        /// Whether it is masked, so that the server learns only sums.
        masked: bool,
        /// Its length.
        bytes: u64,
    },
    /// A message is about to leave.
    Saying {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// What: `ready`, `metrics` and the like.
        what: &'a str,
        /// Its length.
        bytes: u64,
    },
    /// The site refuses.
    Declined {
        /// Which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// Why.
        reason: &'a str,
    },
    /// The server did not count what the site sent.
    Rejected {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// Why.
        reason: &'a str,
    },
    /// The round is over.
    Over {
        /// Its task.
        #[serde(flatten)]
        task: Task<'a>,
    },
}

/// A task, as an auditor reads it.
#[derive(Debug, Serialize)]
pub struct Task<'a> {
    run: &'a RunId,
    round: u32,
    attempt: u32,
}

impl<'a> Event<'a> {
    /// Of a message that is about to leave and takes so many bytes; none of how far a task is.
    pub fn saying(message: &'a SiteMessage, bytes: u64) -> Option<Self> {
        let saying = |task: &'a TaskId, what| Self::Saying { task: task.into(), what, bytes };
        Some(match message {
            SiteMessage::Progress { .. } => return None,
            SiteMessage::Update(update) => saying(&update.task, "update"),
            SiteMessage::Evaluated { task, .. } => saying(task, "metrics"),
            SiteMessage::Ready(task) => saying(task, "ready"),
            SiteMessage::Secure { task, answer } => saying(
                task,
                match answer {
                    Answer::Advertisement(_) => "keys",
                    Answer::Shares(_) => "sealed shares",
                    Answer::Masked(_) => "masked vector",
                    Answer::Confirmed(_) => "signature of the survivors",
                    Answer::Unmasking(_) => "shares",
                },
            ),
            SiteMessage::Declined { task, reason } => {
                Self::Declined { task: task.into(), reason: audit::brief(reason) }
            }
            SiteMessage::Renew(_) => Self::Renewing { bytes },
            SiteMessage::Standby { run, held } => {
                Self::Standby { run, held: held.as_deref().map(audit::brief) }
            }
        })
    }
}

impl<'a> From<&'a TaskId> for Task<'a> {
    fn from(TaskId { run, round, attempt }: &'a TaskId) -> Self {
        Self { run, round: *round, attempt: *attempt }
    }
}

/// The daemon's log, for all that works in it.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Mutex<AuditLog>>);

impl Audit {
    /// Opens the log in a state folder.
    pub fn open(state_dir: &Path, current: Current) -> Result<Self, AuditError> {
        let software = concat!("sheaf-client ", env!("CARGO_PKG_VERSION"));
        Ok(Self(Arc::new(Mutex::new(AuditLog::open(&state_dir.join(FILE), current, software)?))))
    }

    /// Writes an event. Whether it is written: what is not may not be done.
    #[must_use]
    pub fn record(&self, event: &Event<'_>) -> bool {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).record(event);
        written.inspect_err(|error| error!(%error, "nothing leaves this site")).is_ok()
    }
}

/// What to do with the log.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check that no entry was changed, taken out or moved
    Verify {
        /// The log [default: this site's]
        file: Option<PathBuf>,
    },
}

/// The log could not be checked, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// `site.toml` is wrong.
    #[error(transparent)]
    Config(#[from] SiteConfigError),
    /// The federation's CA cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// It cannot be opened.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold.
    #[error("{path} does not hold: {why}", path = .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where, and how.
        why: Broken,
    },
    /// Printing.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl AuditCommand {
    /// Does it for the site of `site_toml`.
    pub fn execute(&self, site_toml: &Path, out: &mut dyn Write) -> Result<(), VerifyError> {
        let Self::Verify { file } = self;
        let config = SiteConfig::load(site_toml)?;
        let credentials = Credentials::load(&config.identity)?;
        let path = file.clone().unwrap_or_else(|| config.state_dir.join(FILE));
        let log = File::open(&path).map_err(|source| VerifyError::Read { path: path.clone(), source })?;
        let verified =
            audit::verify(log, credentials.authority()).map_err(|why| VerifyError::Broken { path, why })?;
        Ok(writeln!(out, "{verified}")?)
    }
}
