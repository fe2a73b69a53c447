//! From a foreign file to Sheaf's `model.safetensors`, with the memory of one buffer, or of one tensor whose values lie in
//! another order.

use std::io::{self, SeekFrom, Write};

use super::{ForeignTensor, Index};
use crate::model::export::Source;
use crate::model::weights::f32_header;
use crate::params::to_bytes;

/// Bytes of a foreign file that are decoded at a time, at most.
const CHUNK_BYTES: u64 = 1 << 20;

/// A tensor of the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What it is made of, one after the other: for most tensors one, for some several below each other.
    pub parts: Vec<ForeignTensor>,
}

impl From<ForeignTensor> for Converted {
    /// The tensor under its own name.
    fn from(tensor: ForeignTensor) -> Self {
        Self { name: tensor.name.clone(), shape: tensor.shape.clone(), parts: vec![tensor] }
    }
}

/// `model.safetensors` to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    header: Vec<u8>,
    parts: Vec<ForeignTensor>,
}

impl Conversion {
    /// The file of these tensors, all of them f32. The parts of each have as many values as its shape.
    pub fn new(tensors: Vec<Converted>) -> Self {
        let shapes = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        let header = f32_header(shapes);
        Self { header, parts: tensors.into_iter().flat_map(|tensor| tensor.parts).collect() }
    }

    /// The file of all tensors of `index`, under their own names.
    pub fn all(index: &Index) -> Self {
        Self::new(index.tensors().cloned().map(Converted::from).collect())
    }

    /// Bytes of the foreign file that [`write`](Self::write) reads.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Writes the file; `told` learns how many bytes of the foreign one were read so far.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn write(
        &self,
        file: &mut dyn Source,
        out: &mut impl Write,
        told: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        out.write_all(&self.header)?;
        let mut done = 0;
        for part in &self.parts {
            file.seek(SeekFrom::Start(part.offset))?;
            // A chunk holds whole blocks; values in another order are read at once.
            let (_, block) = part.format.block();
            let step = if part.strides.is_some() { part.bytes.max(1) } else { CHUNK_BYTES / block * block };
            for start in (0..part.bytes).step_by(step as usize) {
                let mut bytes = vec![0; step.min(part.bytes - start) as usize];
                file.read_exact(&mut bytes)?;
                let mut values = Vec::new();
                part.format.decode(&bytes, &mut values);
                out.write_all(&to_bytes(&part.row_major(values)))?;
                done += bytes.len() as u64;
                told(done);
            }
        }
        Ok(())
    }
}
