//! Seeing for ourselves: the published sum is the sum of what the sites sent, and the new model is the one that
//! follows from it. What a site trains on next it has made itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sheaf_common::aggregate::{FedAvg, ServerOptimizer};
use sheaf_common::message::Job;
use sheaf_common::params::{VALUE_BYTES, from_bytes, to_bytes};
use sheaf_common::record::Record;
use sheaf_common::secagg::client::{Witness, WrongSum};
use sheaf_common::secagg::layout::{HEAD, Head};
use sheaf_common::secagg::mask::Tally;
use sheaf_common::secagg::outcome;
use sheaf_common::secagg::ring::unpack_add;
use sheaf_transport::base::{BadBase, finish_round};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::chunks::in_order;

/// Values per chunk.
const CHUNK: usize = 1 << 18;

/// The server's account of a round does not hold, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// The updates were sent in the open.
    #[error("the record of the round before names no sum")]
    NoSum,
    /// Not what the sites sent.
    #[error(transparent)]
    Sum(#[from] WrongSum),
    /// It has not the length that the model asks for.
    #[error("the published sum has not the length of the model's")]
    Length,
    /// Not what the sum gives.
    #[error("the model is not the one that follows from the published sum")]
    Model,
    /// What the next round begins to train could not be had.
    #[error("the base model: {0}")]
    Base(#[from] BadBase),
    /// The disk said no.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob could not be read to its end.
    #[error("cannot read what the round was made of: {0}")]
    Read(#[from] std::io::Error),
}

impl Unverified {
    /// One sentence for the operator, without a path of the site's.
    pub fn for_operator(&self) -> String {
        match self {
            Self::NoSum | Self::Sum(_) | Self::Length | Self::Model => self.to_string(),
            Self::Base(_) | Self::Blob(_) | Self::Read(_) => {
                "the site's disk failed; its log says how".into()
            }
        }
    }
}

/// Checks the sum of the round before and makes of it, in `blobs`, the parameters that `job` starts from. Blocks.
pub fn rebuild(blobs: &BlobDir, job: &Job, record: &Record, witness: &Witness) -> Result<(), Unverified> {
    let published = record.sum().ok_or(Unverified::NoSum)?;
    let params = &witness.params;
    let ring_bytes = params.encoding.ring_bytes();
    let (values, ring) = (params.layout.values(), u64::from(ring_bytes));
    if blobs.length(published.blob) != Some(params.layout.sum_bytes(ring_bytes)) {
        return Err(Unverified::Length);
    }
    let (sum, before) = (blobs.reader(published.blob)?, blobs.reader(record.model_in)?);
    let head = head(&read(&sum, values * ring, 8 * HEAD)?);
    let (check, optimizer) = (witness.check(), FedAvg { learning_rate: job.spec.server.learning_rate });
    let mut writer = blobs.writer()?;
    let mut tally = Tally::default();
    let make = |start: u64, len: usize| {
        let mut sums = vec![0; len];
        unpack_add(&read(&sum, start * ring, len * ring as usize)?, ring_bytes, &mut sums);
        let mut values = from_bytes(&read(&before, start * VALUE_BYTES, len * VALUE_BYTES as usize)?);
        let mean = outcome::mean(params, &head, start, &sums);
        optimizer.step(&mut values, &mean);
        Ok::<_, Unverified>((to_bytes(&values), check.chunk(start, &sums)))
    };
    in_order(values, CHUNK, make, |_, (bytes, part)| {
        tally.add(&part);
        Ok(writer.write(&bytes)?)
    })?;
    check.finish(tally, &head, published.survivors.len())?;
    let made = finish_round(writer, blobs, job, record.task.round)?;
    if made != job.global {
        blobs.remove(made)?;
        return Err(Unverified::Model);
    }
    Ok(blobs.remove(published.blob)?)
}

fn head(bytes: &[u8]) -> Head {
    let (slots, _) = bytes.as_chunks::<8>();
    Head::from_slots(std::array::from_fn(|at| slots.get(at).map_or(0, |slot| u64::from_le_bytes(*slot))))
}

fn read(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
