//! Making the masked vector: the update's delta, read chunk by chunk, quantised and masked on all cores, into a
//! blob that tells nothing without everybody else's.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sheaf_common::blob::BlobId;
use sheaf_common::message::Update;
use sheaf_common::params::{VALUE_BYTES, from_bytes};
use sheaf_common::secagg::client::Client;
use sheaf_common::secagg::mask::{Masker, Tally};
use sheaf_common::secagg::quantize::NotFinite;
use sheaf_transport::blobs::BlobError;
use sheaf_transport::chunks::in_order;

use crate::state::SiteState;

/// Values per chunk.
const CHUNK: usize = 1 << 18;

/// The masked vector could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// The disk said no.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The delta could not be read to its end.
    #[error("cannot read the update: {0}")]
    Read(#[from] std::io::Error),
    /// The update holds a NaN or an infinity.
    #[error("the update holds a NaN or an infinity: lower training.learning_rate or set max_grad_norm")]
    NotFinite(#[from] NotFinite),
    /// The attempt is over.
    #[error("there is nothing to be masked")]
    Nothing,
}

impl MaskError {
    /// One sentence for the operator, without a path of the site's.
    pub fn for_operator(&self) -> String {
        match self {
            Self::NotFinite(_) | Self::Nothing => self.to_string(),
            Self::Blob(_) | Self::Read(_) => "the site's disk failed; its log says how".into(),
        }
    }
}

/// Makes the masked vector of `update`, durably, and names it. Blocks.
pub fn mask(state: &SiteState, client: &Client, update: &Update) -> Result<BlobId, MaskError> {
    let (params, plan) = client.plan().ok_or(MaskError::Nothing)?;
    let masker = Masker::new(params, plan, update.num_examples);
    let delta = state.deltas.reader(update.delta)?;
    let length = params.layout.values();
    let mut writer = state.masked.writer()?;
    let mut tally = Tally::default();
    let make = |start, len| chunk(&masker, &delta, start, len);
    in_order(length, CHUNK, make, |_, (bytes, part): (Vec<u8>, _)| {
        tally.add(&part);
        Ok::<_, MaskError>(writer.write(&bytes)?)
    })?;
    let metrics = metrics(update, params.layout.metrics as usize);
    writer.write(&masker.slots(&tally, update.train_loss, &metrics))?;
    Ok(writer.finish()?)
}

fn chunk(masker: &Masker<'_>, delta: &File, start: u64, len: usize) -> Result<(Vec<u8>, Tally), MaskError> {
    let mut bytes = vec![0; len * VALUE_BYTES as usize];
    delta.read_exact_at(&mut bytes, start * VALUE_BYTES)?;
    let mut out = Vec::with_capacity(bytes.len());
    let tally = masker.chunk(start, &from_bytes(&bytes), &mut out)?;
    Ok((out, tally))
}

/// Both sets of metrics as slots; a set that the site does not have counts nothing.
fn metrics(update: &Update, slots: usize) -> Vec<u64> {
    let sets = [&update.global_metrics, &update.local_metrics];
    let each = sets.iter().find_map(|set| set.as_ref()).map_or(0, |counts| counts.to_slots().len());
    let mut all: Vec<u64> = sets
        .iter()
        .flat_map(|set| set.as_ref().map_or_else(|| vec![0; each], sheaf_common::metrics::Counts::to_slots))
        .collect();
    all.resize(slots, 0);
    all
}
