//! An update's blob, plain or packed, read in pieces.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use sheaf_common::aggregate::Finding;
use sheaf_common::blob::BlobId;
use sheaf_common::compression::{self, BLOCK, BLOCK_HEADER, Block, Form, HEADER};
use sheaf_common::params::VALUE_BYTES;
use sheaf_transport::blobs::{BlobDir, BlobError};

use crate::core::Inspection;

/// An update that is open.
#[derive(Debug)]
pub(crate) struct Delta {
    file: File,
    /// Bytes of the file.
    length: u64,
    /// Values in it, as it says.
    numel: u64,
    form: Option<Form>,
    /// Where the blocks of a packed one begin, once [`Delta::indexed`].
    blocks: Vec<u64>,
}

impl Delta {
    pub(crate) fn open(blobs: &BlobDir, blob: BlobId) -> Result<Self, BlobError> {
        let file = blobs.reader(blob)?;
        let length = blobs.length(blob).unwrap_or(0);
        let mut header = [0; HEADER];
        let packed = file.read_exact_at(&mut header, 0).ok().and_then(|()| compression::opened(header));
        let (form, numel) = packed.map_or((None, length / VALUE_BYTES), |(form, numel)| (Some(form), numel));
        Ok(Self { file, length, numel, form, blocks: Vec::new() })
    }

    /// Finds where blocks begin, of an update that is known to have as many values as it says.
    pub(crate) fn indexed(mut self) -> io::Result<Self> {
        if let Some(form) = self.form {
            let mut at = HEADER as u64;
            for start in (0..self.numel).step_by(BLOCK) {
                self.blocks.push(at);
                at = self.block(form, at, self.len_from(start))?.1;
            }
        }
        Ok(self)
    }

    /// Fills `values` with those from number `start` on, where a block begins: one block at most.
    pub(crate) fn read(&self, start: usize, values: &mut [f32]) -> io::Result<()> {
        let Some(form) = self.form else {
            let mut bytes = vec![0; size_of_val(values)];
            self.file.read_exact_at(&mut bytes, start as u64 * VALUE_BYTES)?;
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            return Ok(());
        };
        let at = self.blocks.get(start / BLOCK).ok_or(ErrorKind::UnexpectedEof)?;
        self.unpack(form, *at, values).map(drop)
    }

    /// Looks at every value.
    pub(crate) fn inspect(&self) -> io::Result<Inspection> {
        let finding = match self.findings() {
            Ok(finding) => finding,
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => {
                Finding::Damaged
            }
            Err(error) => return Err(error),
        };
        Ok(Inspection { numel: self.numel, form: self.form, finding })
    }

    fn findings(&self) -> io::Result<Finding> {
        let mut values = vec![0.0; BLOCK];
        let mut finding = Finding::Sound;
        let mut at = HEADER as u64;
        for start in (0..self.numel).step_by(BLOCK) {
            let values = &mut values[..self.len_from(start)];
            match self.form {
                // A number that is too large for the machine is beyond the end.
                None => self.read(usize::try_from(start).unwrap_or(usize::MAX), values)?,
                Some(form) => at = self.unpack(form, at, values)?,
            }
            match Finding::of(values.iter().copied()) {
                Finding::Sound => {}
                Finding::TooLarge => finding = Finding::TooLarge,
                worse @ (Finding::NotFinite | Finding::Damaged) => return Ok(worse),
            }
        }
        let end = self.form.map_or(self.numel * VALUE_BYTES, |_| at);
        Ok(if end == self.length { finding } else { Finding::Damaged })
    }

    /// Values of the block that begins with number `start`.
    fn len_from(&self, start: u64) -> usize {
        (self.numel - start).min(BLOCK as u64) as usize
    }

    /// The header of a block, and where the next one begins.
    fn block(&self, form: Form, at: u64, numel: usize) -> io::Result<(Block, u64)> {
        let mut header = [0; BLOCK_HEADER];
        self.file.read_exact_at(&mut header, at)?;
        let block = Block::opened(header, form, numel).map_err(bad)?;
        Ok((block, at + BLOCK_HEADER as u64 + block.length as u64))
    }

    /// Fills `values` with those of a block, and says where the next one begins.
    fn unpack(&self, form: Form, at: u64, values: &mut [f32]) -> io::Result<u64> {
        let (block, next) = self.block(form, at, values.len())?;
        let mut bytes = vec![0; block.length];
        self.file.read_exact_at(&mut bytes, at + BLOCK_HEADER as u64)?;
        block.unpack(form, &bytes, values).map_err(bad)?;
        Ok(next)
    }
}

fn bad(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use sheaf_common::compression::{Compression, Encoding};
    use sheaf_common::params::to_bytes;
    use sheaf_common::seed;

    use super::*;

    fn dir() -> (tempfile::TempDir, BlobDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = BlobDir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn packed(encoding: Encoding, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let how = Compression { encoding, zstd: true };
        how.pack(&mut values.to_vec(), &mut seed::stream(0, &[]), &mut bytes).unwrap();
        bytes
    }

    fn inspected(blobs: &BlobDir, bytes: &[u8]) -> Inspection {
        Delta::open(blobs, blobs.insert(bytes).unwrap()).unwrap().inspect().unwrap()
    }

    #[test]
    fn plain_or_packed_its_values_are_read_from_any_block_on() {
        let (_temp, blobs) = dir();
        let values: Vec<f32> = (0..2 * BLOCK + 17).map(|i| (i as f32).sin()).collect();
        for bytes in [to_bytes(&values), packed(Encoding::F32, &values), packed(Encoding::TopK(1.0), &values)]
        {
            let delta = Delta::open(&blobs, blobs.insert(&bytes).unwrap()).unwrap().indexed().unwrap();
            assert_eq!(
                (delta.numel, delta.inspect().unwrap().finding),
                (values.len() as u64, Finding::Sound)
            );
            for start in [2 * BLOCK, 0, BLOCK] {
                let mut read = vec![0.0; BLOCK.min(values.len() - start)];
                delta.read(start, &mut read).unwrap();
                let off = read.iter().zip(&values[start..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1.0 / 256.0, "{off}");
            }
        }
    }

    #[test]
    fn what_is_no_update_is_found() {
        let (_temp, blobs) = dir();
        let mut values = vec![0.5f32; BLOCK + 1];
        let sound = packed(Encoding::Int8, &values);
        values[BLOCK] = f32::NAN;
        for bytes in [to_bytes(&values), packed(Encoding::Bf16, &values)] {
            assert_eq!(inspected(&blobs, &bytes).finding, Finding::NotFinite);
        }
        values[BLOCK] = 1e9;
        assert_eq!(inspected(&blobs, &packed(Encoding::F32, &values)).finding, Finding::TooLarge);
        let of = |bytes: &[u8]| inspected(&blobs, bytes);
        assert_eq!(of(&sound).finding, Finding::Sound);
        assert_eq!(of(&sound[..sound.len() - 1]).finding, Finding::Damaged);
        assert_eq!(of(&[&sound[..], &[0]].concat()).finding, Finding::Damaged);
        assert_eq!(of(&[0; 7]).finding, Finding::Damaged);
        let mut longer = sound.clone();
        longer[8..16].copy_from_slice(&(1u64 << 33).to_le_bytes());
        assert_eq!(
            of(&longer),
            Inspection { numel: 1 << 33, form: Some(Form::Int8), finding: Finding::Damaged }
        );
    }
}
