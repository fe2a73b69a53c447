//! Opening a secure sum: the survivors' masked vectors, read from their blobs chunk by chunk, less the masks, into
//! the next global parameters.
//!
//! Memory is a few chunks per core, whatever the number of sites and the size of the model. No value of a single
//! site exists here at any time.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sheaf_common::aggregate::{FedAvg, ServerOptimizer};
use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::metrics::{Counts, Kind};
use sheaf_common::params::{VALUE_BYTES, from_bytes, to_bytes};
use sheaf_common::record::{MadeOf, Sum as Published};
use sheaf_common::secagg::layout::Head;
use sheaf_common::secagg::mask::{LOSS_UNITS, Tally};
use sheaf_common::secagg::outcome;
use sheaf_common::secagg::ring::pack;
use sheaf_common::secagg::server::{Unmasker, WrongShares};
use sheaf_common::status::SecureSum;
use sheaf_transport::base::finish_round;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::chunks::in_order;
use sheaf_transport::tls::Credentials;

use crate::aggregation::{AggregationError, CHUNK};
use crate::core::{Open, Summed};
use crate::publication::{Made, Unsigned, publish};

/// The sum could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret could not be reconstructed.
    #[error(transparent)]
    Shares(#[from] WrongShares),
    /// A blob could not be read or written.
    #[error(transparent)]
    Blob(#[from] AggregationError),
    /// The record of the round cannot be made.
    #[error(transparent)]
    Record(#[from] Unsigned),
    /// A site did not follow the protocol.
    #[error("the sum contradicts its own checksum: a site sent something else than its masked update")]
    Contradiction,
}

impl OpenError {
    /// Whether the disk is to blame, and the sum could be opened if that were put right.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, Self::Blob(error) if error.is_of_disk())
    }
}

impl From<BlobError> for OpenError {
    fn from(error: BlobError) -> Self {
        Self::Blob(error.into())
    }
}

/// Makes the next global parameters out of a secure sum, durably in `blobs`, publishes and signs what they were
/// made of, and says what else the sum gave. Blocks.
pub fn open(
    blobs: &BlobDir,
    updates: &BlobDir,
    job: &Job,
    open: &Open,
    credentials: &Credentials,
) -> Result<Made, OpenError> {
    let unmasker = open.unmasking.open()?;
    let vectors = open
        .unmasking
        .masked()
        .values()
        .map(|blob| Ok(Vector { blob: *blob, file: updates.reader(*blob)? }))
        .collect::<Result<Vec<_>, BlobError>>()?;
    let params = open.unmasking.params();
    let after = params.layout.values() * u64::from(params.encoding.ring_bytes());
    let slots = vectors
        .iter()
        .map(|vector| vector.read(after, 8 * params.layout.slots()))
        .collect::<Result<Vec<_>, AggregationError>>()?;
    let opened = unmasker.slots(slots.iter().map(Vec::as_slice)).ok_or(OpenError::Contradiction)?;
    let head = opened.head;
    // The final evaluation is over metrics alone: there is nothing to apply, and nothing to publish.
    let applied = (params.layout.values() > 0)
        .then(|| Sum { blobs, job, open, unmasker: &unmasker, vectors, head }.apply())
        .transpose()?;
    let tally = applied.as_ref().map_or_else(Tally::default, |applied| applied.tally);
    if !unmasker.agrees(tally, &head) {
        // They are named nowhere; if they stay on disk that harms nobody.
        let wrong = applied.iter().flat_map(|applied| [applied.model, applied.sum]);
        wrong.filter(|blob| *blob != open.global).for_each(|blob| _ = blobs.remove(blob));
        return Err(OpenError::Contradiction);
    }
    let record = applied
        .as_ref()
        .map(|applied| {
            let sum = Published {
                t2: open.unmasking.transcript(),
                survivors: open.unmasking.masked().keys().cloned().collect(),
                blob: applied.sum,
            };
            let (models, previous) = ((open.global, applied.model), params.previous);
            publish(job, &open.task, MadeOf::Sum(sum), models, previous, credentials)
        })
        .transpose()?;
    let moved = applied.as_ref().map(|applied| applied.moved.clone()).unwrap_or_default();
    let [global_metrics, local_metrics] = metrics(job, &opened.metrics, head.sites);
    let summed = Summed {
        train_loss: (head.weight > 0 && applied.is_some())
            .then(|| head.loss as f64 / LOSS_UNITS / head.weight as f64),
        sum: secure_sum(open, &head, &moved),
        global_metrics,
        local_metrics,
        ranges: outcome::next_ranges(params, &head, &moved.largest),
        culprits: unmasker.culprits.clone(),
    };
    let global = applied.map_or(open.global, |applied| applied.model);
    Ok(Made { global, record, summed: Some(Box::new(summed)) })
}

/// Both sets of pooled metrics; one that is not sound is left out.
fn metrics(job: &Job, slots: &[u64], sites: u64) -> [Option<Counts>; 2] {
    let kind = Kind::of(&job.spec);
    let each = Counts::num_slots(&kind);
    let set = |at: usize| {
        let counts = Counts::from_slots(&kind, slots.get(at * each..(at + 1) * each)?)?;
        (counts.is_sound(&kind, sites).is_ok() && counts.num_examples() > 0).then_some(counts)
    };
    [set(0), set(1)]
}

fn secure_sum(open: &Open, head: &Head, moved: &Moved) -> SecureSum {
    let params = open.unmasking.params();
    let errors = outcome::rounding_error(params, head);
    let error: f64 =
        errors.iter().zip(&params.layout.tensors).map(|(error, len)| error * error * *len as f64).sum();
    let values = (params.layout.values() * head.sites).max(1) as f64;
    SecureSum {
        sites: head.sites,
        num_examples: head.weight,
        clamped: head.clamped as f64 / values,
        rounding_error: if moved.squares > 0.0 { (error / moved.squares).sqrt() } else { 0.0 },
    }
}

/// How far the parameters moved.
#[derive(Clone, Debug, Default)]
struct Moved {
    /// Largest magnitude of each tensor's mean update.
    largest: Vec<f64>,
    /// Sum of the squares of the mean update.
    squares: f64,
}

struct Sum<'a> {
    blobs: &'a BlobDir,
    job: &'a Job,
    open: &'a Open,
    unmasker: &'a Unmasker<'a>,
    vectors: Vec<Vector>,
    head: Head,
}

/// What all chunks gave.
struct Applied {
    /// The new global parameters.
    model: BlobId,
    /// What is published of the sum.
    sum: BlobId,
    tally: Tally,
    moved: Moved,
}

/// What one chunk gave.
struct Chunk {
    model: Vec<u8>,
    sum: Vec<u8>,
    tally: Tally,
    mean: Vec<f64>,
}

impl Sum<'_> {
    /// Moves the global parameters by the mean of the sum, chunk by chunk, on all cores.
    fn apply(&self) -> Result<Applied, OpenError> {
        let params = self.open.unmasking.params();
        let global = Vector { blob: self.open.global, file: self.blobs.reader(self.open.global)? };
        let (mut model, mut sum) = (self.blobs.writer()?, self.blobs.writer()?);
        let mut tally = Tally::default();
        let mut moved = Moved { largest: vec![0.0; params.layout.tensors.len()], squares: 0.0 };
        let make = |start, len| Ok(self.chunk(&global, start, len)?);
        in_order(params.layout.values(), CHUNK, make, |start, chunk: Chunk| {
            model.write(&chunk.model)?;
            sum.write(&chunk.sum)?;
            tally.add(&chunk.tally);
            moved.add(params.layout.pieces(start, chunk.mean.len()), &chunk.mean);
            Ok::<_, OpenError>(())
        })?;
        let head: Vec<u8> = self.head.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
        sum.write(&head)?;
        let model = finish_round(model, self.blobs, self.job, self.open.task.round)
            .map_err(AggregationError::from)?;
        Ok(Applied { model, sum: sum.finish()?, tally, moved })
    }

    fn chunk(&self, global: &Vector, start: u64, len: usize) -> Result<Chunk, AggregationError> {
        let params = self.open.unmasking.params();
        let ring = usize::from(params.encoding.ring_bytes());
        let mut sums = vec![0u32; len];
        for vector in &self.vectors {
            self.unmasker.add(&vector.read(start * ring as u64, len * ring)?, &mut sums);
        }
        let tally = self.unmasker.finish_chunk(start, &mut sums);
        let mut sum = Vec::with_capacity(len * ring);
        pack(&sums, params.encoding.ring_bytes(), &mut sum);
        let mean = outcome::mean(params, &self.head, start, &sums);
        let mut values = from_bytes(&global.read(start * VALUE_BYTES, len * VALUE_BYTES as usize)?);
        let optimizer = FedAvg { learning_rate: self.job.spec.server.learning_rate };
        optimizer.step(&mut values, &mean);
        Ok(Chunk { model: to_bytes(&values), sum, tally, mean })
    }
}

impl Moved {
    fn add(&mut self, pieces: impl Iterator<Item = (usize, usize)>, mean: &[f64]) {
        let mut at = 0;
        for (tensor, len) in pieces {
            for value in &mean[at..at + len] {
                self.largest[tensor] = self.largest[tensor].max(value.abs());
                self.squares += value * value;
            }
            at += len;
        }
    }
}

/// A blob that is read in pieces.
struct Vector {
    blob: BlobId,
    file: File,
}

impl Vector {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, AggregationError> {
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| AggregationError::Read { blob: self.blob, source })?;
        Ok(bytes)
    }
}
