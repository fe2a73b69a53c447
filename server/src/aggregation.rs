//! The mean of a round's updates that are not encrypted: read from their blobs, chunk by chunk, into the next global parameters.
//!
//! Memory is a few chunks per core, whatever the number of sites and the size of the model. The result depends
//! on neither the order of arrival nor the number of cores.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sheaf_common::aggregate::{AT_ONCE, Aggregate as Sum, FedAvg, ServerOptimizer};
use sheaf_common::blob::BlobId;
use sheaf_common::compression::BLOCK;
use sheaf_common::message::Job;
use sheaf_common::params::VALUE_BYTES;
use sheaf_common::record::MadeOf;
use sheaf_transport::base::{BadBase, finish_round};
use sheaf_transport::blobs::{BlobDir, BlobError, BlobWriter};
use sheaf_transport::chunks::in_order;
use sheaf_transport::tls::Credentials;

use crate::core::{Aggregate, Inspection};
use crate::delta::Delta;
use crate::publication::{Made, Unsigned, publish};

/// Parameters per chunk.
pub(crate) const CHUNK: usize = 1 << 18;

/// The average could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AggregationError {
    /// A blob could not be read or the result not be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// What the next round begins to train could not be had.
    #[error("the base model: {0}")]
    Base(#[from] BadBase),
    /// The record of the round cannot be made.
    #[error(transparent)]
    Record(#[from] Unsigned),
    /// A blob could not be read to its end.
    #[error("cannot read blob {blob}: {source}")]
    Read {
        /// The blob.
        blob: BlobId,
        /// Why.
        source: io::Error,
    },
}

impl AggregationError {
    /// Whether the disk is to blame, and the round could be averaged if that were put right.
    pub fn is_of_disk(&self) -> bool {
        match self {
            Self::Blob(error) | Self::Base(BadBase::Blob(error)) => matches!(error, BlobError::Io { .. }),
            Self::Base(_) | Self::Record(_) | Self::Read { .. } => false,
        }
    }
}

/// Makes the next global parameters of `job` out of `updates`, durably in `blobs`, and signs what they were made of.
/// Blocks.
pub fn aggregate(
    blobs: &BlobDir,
    updates: &BlobDir,
    job: &Job,
    round: &Aggregate,
    credentials: &Credentials,
) -> Result<Made, AggregationError> {
    let optimizer = FedAvg { learning_rate: job.spec.server.learning_rate };
    let moved = plain(blobs, updates, &optimizer, round, job.params.numel())?;
    let global = finish_round(moved, blobs, job, round.task.round)?;
    let (made_of, models) = (MadeOf::Updates(round.updates.clone()), (round.global, global));
    let record = publish(job, &round.task, made_of, models, round.previous, credentials)?;
    Ok(Made { global, record: Some(record), summed: None })
}

fn plain(
    blobs: &BlobDir,
    deltas: &BlobDir,
    optimizer: &dyn ServerOptimizer,
    round: &Aggregate,
    length: u64,
) -> Result<BlobWriter, AggregationError> {
    let global = Values::open(blobs, round.global)?;
    let updates = round
        .updates
        .iter()
        .map(|counted| {
            let blob = counted.update;
            let delta = Delta::open(deltas, blob)?.indexed();
            Ok((blob, delta.map_err(|source| AggregationError::Read { blob, source })?, counted.num_examples))
        })
        .collect::<Result<Vec<_>, AggregationError>>()?;
    let mut writer = blobs.writer()?;
    // A chunk's start fits, being less than the length.
    let make = |start, len| chunk(&global, &updates, optimizer, (start as usize, len));
    in_order(length, CHUNK, make, |_, bytes: Vec<u8>| Ok::<_, AggregationError>(writer.write(&bytes)?))?;
    Ok(writer)
}

/// The new global values, as bytes, of the `length` parameters from `start` on.
fn chunk(
    global: &Values,
    updates: &[(BlobId, Delta, u64)],
    optimizer: &dyn ServerOptimizer,
    (start, length): (usize, usize),
) -> Result<Vec<u8>, AggregationError> {
    let mut bytes = vec![0; length * VALUE_BYTES as usize];
    let mut sum = Sum::zero(0);
    // Blocks of values and their sums stay in the cache of a core.
    let mut read = vec![0.0; BLOCK.min(length) * AT_ONCE];
    for (number, block) in bytes.chunks_mut(BLOCK * VALUE_BYTES as usize).enumerate() {
        let start = start + number * BLOCK;
        let length = block.len() / VALUE_BYTES as usize;
        sum.reset(length);
        for updates in updates.chunks(AT_ONCE) {
            for ((blob, update, _), values) in updates.iter().zip(read.chunks_mut(length)) {
                update
                    .read(start, values)
                    .map_err(|source| AggregationError::Read { blob: *blob, source })?;
            }
            let read = read.chunks(length).zip(updates).map(|(values, (_, _, weight))| (values, *weight));
            sum.add_all(&read.collect::<Vec<_>>());
        }
        let values = &mut read[..length];
        global.read(start, block)?;
        values.iter_mut().zip(floats(block)).for_each(|(value, global)| *value = global);
        optimizer.step(values, sum.mean());
        for (target, value) in block.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *target = value.to_le_bytes();
        }
    }
    Ok(bytes)
}

/// Looks at every value of an update's blob. `None` when it is not here. Blocks.
pub fn inspect(blobs: &BlobDir, blob: BlobId) -> Result<Option<Inspection>, AggregationError> {
    match Delta::open(blobs, blob) {
        Err(BlobError::Missing(_)) => Ok(None),
        delta => Ok(Some(delta?.inspect().map_err(|source| AggregationError::Read { blob, source })?)),
    }
}

/// A blob of f32 values that is read in pieces.
struct Values {
    blob: BlobId,
    file: File,
}

impl Values {
    fn open(blobs: &BlobDir, blob: BlobId) -> Result<Self, AggregationError> {
        Ok(Self { blob, file: blobs.reader(blob)? })
    }

    /// Fills `bytes` with the values from number `start` on.
    fn read(&self, start: usize, bytes: &mut [u8]) -> Result<(), AggregationError> {
        let offset = start as u64 * VALUE_BYTES;
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|source| AggregationError::Read { blob: self.blob, source })
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value))
}

#[cfg(test)]
mod tests {
    use sheaf_common::params::to_bytes;
    use sheaf_common::record::Counted;

    use super::*;

    fn counted(site: &str, update: BlobId, num_examples: u64) -> Counted {
        Counted { site: site.parse().unwrap(), update, num_examples }
    }

    #[test]
    fn chunks_and_a_plain_loop_give_the_same_bits() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(temp.path()).unwrap();
        let length = 2 * CHUNK + 17;
        let values = |factor: f32| -> Vec<f32> { (0..length).map(|i| (i as f32 * factor).sin()).collect() };
        let (global, a, b) = (values(0.1), values(0.2), values(0.3));
        let store = |values: &[f32]| blobs.insert(&to_bytes(values)).unwrap();
        let round = Aggregate {
            task: sheaf_common::message::TaskId { run: "r".parse().unwrap(), round: 1, attempt: 1 },
            global: store(&global),
            updates: vec![counted("a", store(&a), 3), counted("b", store(&b), 5)],
            previous: None,
        };
        let optimizer = FedAvg { learning_rate: 1.0 };
        let average = |length| plain(&blobs, &blobs, &optimizer, &round, length);
        let result = average(length as u64).unwrap().finish().unwrap();

        let mut sum = Sum::zero(length);
        sum.add(&b, 5);
        sum.add(&a, 3);
        let mut expected = global;
        FedAvg { learning_rate: 1.0 }.step(&mut expected, sum.mean());
        assert_eq!(blobs.read(result).unwrap(), to_bytes(&expected));
        let at = CHUNK + 5;
        let plain_mean = (3.0 * f64::from(a[at]) + 5.0 * f64::from(b[at])) / 8.0;
        assert!((f64::from(expected[at]) - (f64::from(values(0.1)[at]) + plain_mean)).abs() < 1e-6);

        // A model that lost its end is no shorter model.
        std::fs::write(blobs.path(round.global), &to_bytes(&values(0.1))[..8 * CHUNK]).unwrap();
        let error = average(length as u64).unwrap_err();
        assert!(matches!(error, AggregationError::Read { .. }) && !error.is_of_disk(), "{error}");
        // A disk that takes nothing more is not the round's fault.
        std::fs::remove_dir(temp.path().join("partial")).unwrap();
        let error = average(length as u64).unwrap_err();
        assert!(error.is_of_disk() && error.to_string().starts_with("cannot create blob file"), "{error}");
    }
}
