//! An update on its way out of the site: local minus global, packed as the run asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sheaf_common::blob::BlobId;
use sheaf_common::compression::{BLOCK, Compression, Encoding};
use sheaf_common::message::TrainTask;
use sheaf_common::params::{from_bytes, to_bytes};
use sheaf_common::run::SecureAggregation;
use sheaf_common::seed;
use sheaf_transport::blobs::BlobError;

use crate::state::{StateError, io_error};
use crate::worker::Site;

/// Bytes of an upload that tell how fast it went.
const TELLING: u64 = 1 << 20;

/// Blocks that are compressed to see what it takes.
const SAMPLE: usize = 32;

/// How fast the site's last upload of some length went.
#[derive(Clone, Debug, Default)]
pub struct Uplink(Arc<AtomicU64>);

impl Uplink {
    /// An upload of so many bytes took so long.
    pub fn moved(&self, bytes: u64, took: Duration) {
        if bytes >= TELLING {
            self.0.store((bytes as f64 / took.as_secs_f64().max(1e-9)) as u64, Ordering::Relaxed);
        }
    }

    /// Bytes per second; not known before the first.
    fn rate(&self) -> Option<f64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            rate => Some(rate as f64),
        }
    }
}

/// Stores what a task's training changed, durably, in the form in which it travels.
pub(crate) fn store(site: &Site, task: &TrainTask, trained: Vec<f32>) -> Result<BlobId, StateError> {
    let compression = task.job.spec.compression;
    // What is summed securely is masked as it is.
    if compression.is_off() || task.job.spec.secure_aggregation != SecureAggregation::Off {
        return Ok(plain(site, task.job.global, &trained)?);
    }
    let mut delta = trained;
    subtract(site, task.job.global, &mut delta)?;
    pack(site, task, compression, delta)
}

/// Reads the global values again, a chunk at a time, so that no third copy is in memory.
fn plain(site: &Site, global: BlobId, local: &[f32]) -> Result<BlobId, BlobError> {
    let mut writer = site.state.deltas.writer()?;
    let mut rest = local;
    site.state.blobs.each_chunk(global, |bytes| {
        let mut delta = from_bytes(bytes);
        let (now, later) = rest.split_at(delta.len().min(rest.len()));
        rest = later;
        for (value, local) in delta.iter_mut().zip(now) {
            *value = local - *value;
        }
        writer.write(&to_bytes(&delta))
    })?;
    writer.finish()
}

fn subtract(site: &Site, global: BlobId, local: &mut [f32]) -> Result<(), BlobError> {
    let mut rest = local.iter_mut();
    site.state.blobs.each_chunk(global, |bytes| {
        from_bytes(bytes).into_iter().zip(&mut rest).for_each(|(global, local)| *local -= global);
        Ok(())
    })
}

fn pack(
    site: &Site,
    task: &TrainTask,
    mut compression: Compression,
    mut delta: Vec<f32>,
) -> Result<BlobId, StateError> {
    let leaves_out = matches!(compression.encoding, Encoding::TopK(_));
    if leaves_out {
        let rest = site.state.rest(&task.id, &task.job)?;
        delta.iter_mut().zip(rest).for_each(|(value, rest)| *value += rest);
    }
    compression.zstd = compression.zstd && pays(compression, &delta, site.uplink.rate());
    let labels = ["compression", site.name.as_str(), &task.id.to_string()];
    let mut rng = seed::stream(task.job.spec.seed, &labels);
    let mut writer = site.state.deltas.writer()?;
    let packed = compression.pack(&mut delta, &mut rng, &mut writer);
    packed.map_err(|error| io_error("write an update to", site.state.root(), error))?;
    if leaves_out {
        site.state.keep_rest(&task.id, &task.job, &delta)?;
    }
    Ok(writer.finish()?)
}

/// Whether zstd and a shorter upload take less time than the upload as it is, by a sample of the values. Where nothing is
/// known of the line, it is taken for a slow one.
fn pays(compression: Compression, delta: &[f32], rate: Option<f64>) -> bool {
    let Some(rate) = rate else { return true };
    let sample = &delta[..delta.len().min(SAMPLE * BLOCK)];
    let packed = |zstd| {
        let (mut bytes, started) = (Vec::new(), Instant::now());
        let how = Compression { zstd, ..compression };
        let packed = how.pack(&mut sample.to_vec(), &mut seed::stream(0, &[]), &mut bytes);
        packed.ok().map(|()| started.elapsed().as_secs_f64() + bytes.len() as f64 / rate)
    };
    packed(true) < packed(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_for_lines_that_are_slower_than_it() {
        let zstd = Compression { encoding: Encoding::F32, zstd: true };
        let delta: Vec<f32> = (0..BLOCK).map(|i| (i % 100) as f32 * 1e-3).collect();
        let uplink = Uplink::default();
        assert!(pays(zstd, &delta, uplink.rate()), "nothing is known");
        uplink.moved(TELLING - 1, Duration::from_nanos(1));
        assert_eq!(uplink.rate(), None, "too short to tell");
        uplink.moved(1 << 20, Duration::from_secs(1));
        assert!(pays(zstd, &delta, uplink.rate()), "1 MiB/s");
        uplink.moved(1 << 40, Duration::from_millis(1));
        assert!(!pays(zstd, &delta, uplink.rate()), "no compressor moves a petabyte a second");
    }
}
