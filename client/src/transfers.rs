//! What moves between site and server: a task's blobs to the site, each checked for what it must be before anything is made of it, and an
//! update's to the server. A transfer goes on for as long as the connection stands.

use std::time::{Duration, Instant};

use sheaf_common::blob::BlobId;
use sheaf_common::message::TaskId;
use sheaf_common::model::{MANIFEST_MAX, Manifest};
use sheaf_common::secagg::client::Witness;
use sheaf_common::status::{Phase, Progress};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::connection::Connection;
use sheaf_transport::transfer::{self, TransferError};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::audit::{Audit, Event as Audited};
use crate::config::Policy;
use crate::departure::Uplink;
use crate::session::{Task, TransferFailure};
use crate::state::SiteState;
use crate::verification::{self, Unverified};
use crate::worker::Report;

/// A broken transfer over a connection that still stands is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What an operator is told of it.
pub(crate) const DISK_FAILED: &str = "the site's disk failed; its log says how";

/// What transfers need.
#[derive(Clone, Debug)]
pub(crate) struct Transfers {
    pub(crate) state: SiteState,
    pub(crate) audit: Audit,
    pub(crate) policy: Policy,
    /// Where they tell how far they are.
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) uplink: Uplink,
}

impl Transfers {
    /// Has what a task names here, or says why not. Goes on while the connection stands.
    pub(crate) async fn fetch(
        &self,
        connection: &Connection,
        task: &Task,
        witness: Option<Box<Witness>>,
    ) -> Result<(), TransferFailure> {
        while let Err(error) = self.fetch_model(connection, task).await {
            pause(connection, error).await?;
        }
        // Before as many bytes are fetched as they say.
        verification::check_plan(&self.state.blobs, task, &self.policy).map_err(refused)?;
        while let Err(error) = self.fetch_start(connection, task, witness.as_deref()).await {
            pause(connection, error).await?;
        }
        verify(&self.state, task, witness).await
    }

    /// Sends a task's blob, a masked vector or the delta of a run that is not encrypted, or says why not. Goes on while the
    /// connection stands.
    pub(crate) async fn upload(
        &self,
        connection: &Connection,
        task: &TaskId,
        blob: BlobId,
    ) -> Result<(), TransferFailure> {
        let masked = self.state.masked.length(blob).is_some();
        let dir = if masked { &self.state.masked } else { &self.state.deltas };
        let bytes = dir.length(blob).unwrap_or(0);
        if !self.audit.record(&Audited::Sending { task: task.into(), blob, masked, bytes }) {
            return Err(TransferFailure::Refused("the site's audit log cannot be written".into()));
        }
        loop {
            match self.put(connection, dir, task, blob).await {
                Ok(bytes) => {
                    info!(%task, blob = %blob.short(), bytes, "sent the update");
                    return Ok(());
                }
                Err(error) => pause(connection, error).await?,
            }
        }
    }

    /// Fetches the manifest and the files of a task's model, if it has one: once.
    async fn fetch_model(&self, connection: &Connection, task: &Task) -> Result<(), TransferError> {
        let Some(id) = task.job().model else { return Ok(()) };
        transfer::fetch(connection, &self.state.blobs, id, MANIFEST_MAX, &mut |_, _| {}).await?;
        let manifest = Manifest::parse(&self.state.blobs.read(id)?)
            .map_err(|error| TransferError::Refused { blob: id, why: error.to_string() })?;
        for file in &manifest.files {
            self.get(connection, task.id(), file.blob, file.bytes).await?;
        }
        Ok(())
    }

    /// Fetches the global parameters that a task starts from, or the sum that they are made of.
    async fn fetch_start(
        &self,
        connection: &Connection,
        task: &Task,
        witness: Option<&Witness>,
    ) -> Result<(), TransferError> {
        let job = task.job();
        let record = task.record().and_then(|record| Some((&record.body, record.body.sum()?)));
        let Some((witness, (record, sum))) = witness.zip(record) else {
            return self.get(connection, task.id(), job.global, job.params.bytes()).await;
        };
        self.get(connection, task.id(), record.model_in, job.params.bytes()).await?;
        let length = witness.params.layout.sum_bytes(witness.params.encoding.ring_bytes());
        self.get(connection, task.id(), sum.blob, length).await
    }

    async fn get(
        &self,
        connection: &Connection,
        task: &TaskId,
        blob: BlobId,
        max: u64,
    ) -> Result<(), TransferError> {
        let mut progress = self.progress(task, Phase::Fetching);
        let bytes = transfer::fetch(connection, &self.state.blobs, blob, max, &mut progress).await?;
        if bytes > 0 {
            info!(%task, blob = %blob.short(), bytes, "fetched");
            let _ = self.audit.record(&Audited::Fetched { task: task.into(), blob, bytes });
        }
        Ok(())
    }

    /// Sends a blob, and learns how fast the line is.
    async fn put(
        &self,
        connection: &Connection,
        dir: &BlobDir,
        task: &TaskId,
        blob: BlobId,
    ) -> Result<u64, TransferError> {
        let mut progress = self.progress(task, Phase::Uploading);
        let started = Instant::now();
        let moved = transfer::put(connection, dir, blob, &mut progress).await?;
        self.uplink.moved(moved, started.elapsed());
        Ok(moved)
    }

    fn progress(&self, task: &TaskId, phase: Phase) -> impl FnMut(u64, u64) + Send + use<> {
        let (task, reports) = (task.clone(), self.reports.clone());
        move |done, total| {
            let _ = reports.send(Report::Progress(task.clone(), Progress::new(phase, done, total)));
        }
    }
}

/// Why a transfer that panicked gave nothing.
pub(crate) fn broken_down() -> Result<(), TransferFailure> {
    Err(TransferFailure::Refused("the transfer broke down; the site's log says where".into()))
}

/// Waits before a transfer that broke off is tried again, if that may help.
async fn pause(connection: &Connection, error: TransferError) -> Result<(), TransferFailure> {
    warn!(%error, "a transfer broke off");
    match error {
        TransferError::Lost { .. } if connection.close_reason().is_some() => Err(TransferFailure::Lost),
        TransferError::Lost { .. } => {
            tokio::time::sleep(RETRY).await;
            Ok(())
        }
        TransferError::Refused { .. } | TransferError::Blob(BlobError::Mismatch { .. }) => {
            Err(TransferFailure::Refused(error.to_string()))
        }
        // The operator need not know of the site's folders.
        TransferError::Blob(_) => Err(TransferFailure::Refused(DISK_FAILED.into())),
    }
}

/// What is said of a task that does not hold.
fn refused(error: Unverified) -> TransferFailure {
    warn!(%error, "what the task asks for, or starts from, does not hold");
    TransferFailure::Refused(error.for_operator())
}

/// Sees to it that the global parameters are what follows: before round 1 from the run and its model, and after it, when there
/// is something to check it with, from the published sum, of which they are made here.
async fn verify(
    state: &SiteState,
    task: &Task,
    witness: Option<Box<Witness>>,
) -> Result<(), TransferFailure> {
    let (blobs, task) = (state.blobs.clone(), task.clone());
    let check = move || match witness.zip(task.record()) {
        Some((witness, record)) => {
            verification::rebuild(&blobs, task.job(), &record.body, &witness)?;
            info!(task = %task.id(), model = %task.job().global.short(), "the published sum is what the sites sent, and the model is what follows from it");
            Ok(())
        }
        None => verification::check_start(&blobs, &task),
    };
    match tokio::task::spawn_blocking(check).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refused(error)),
        Err(error) => Err(TransferFailure::Refused(format!("the model could not be checked: {error}"))),
    }
}
