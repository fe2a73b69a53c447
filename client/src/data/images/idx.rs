//! IDX, the format of MNIST's files, plain or compressed by gzip: four bytes that say what is in it, the size of each axis
//! and then the bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use flate2::read::GzDecoder;

use super::super::contract::{Breach, ImageProblem};
use super::pixels::{Pixels, SIDE_MAX};
use crate::config::DatasetConfig;

/// Grey images of one size.
pub(super) struct Images {
    width: u32,
    height: u32,
    /// `[images, height, width]`.
    bytes: Vec<u8>,
}

/// The number of each image's class.
pub(super) fn classes(config: &DatasetConfig) -> Result<Vec<u8>, Breach> {
    let path = config.labels.as_deref().unwrap_or(&config.path);
    let labels = Idx::<1>::open(path)?;
    let ([of], [images, ..]) = (labels.sizes, Idx::<3>::open(&config.path)?.sizes);
    if of != images {
        return Err(Breach::Idx(format!("it has {images} images, and {} has {of} labels", path.display())));
    }
    labels.bytes(config.memory_bytes())
}

impl Images {
    pub(super) fn open(config: &DatasetConfig) -> Result<Self, Breach> {
        let file = Idx::<3>::open(&config.path)?;
        let [_, height, width] = file.sizes;
        if width.min(height) == 0 || width.max(height) > SIDE_MAX {
            return Err(Breach::Idx(format!("its images are {width} x {height}")));
        }
        Ok(Self { width, height, bytes: file.bytes(config.memory_bytes())? })
    }

    /// The image at a place, from 0, which is written out.
    pub(super) fn image(&self, place: &str, size: u32) -> Result<Pixels, ImageProblem> {
        let each = self.width as usize * self.height as usize;
        let grey = place.parse().ok().and_then(|place: usize| self.bytes.chunks_exact(each).nth(place));
        grey.and_then(|grey| Pixels::from_grey(self.width, self.height, grey, size))
            .ok_or_else(|| ImageProblem::Unreadable("there is no such image".to_owned()))
    }
}

/// A file of bytes with so many axes, past its header.
struct Idx<const AXES: usize> {
    sizes: [u32; AXES],
    reader: Box<dyn Read>,
    name: String,
}

impl<const AXES: usize> Idx<AXES> {
    fn open(path: &Path) -> Result<Self, Breach> {
        let name = path.display().to_string();
        let mut reader = plain(path).map_err(|reason| unreadable(&name, &reason))?;
        let mut number = || {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes).map(|()| u32::from_be_bytes(bytes))
        };
        // Two zeros, 8 for unsigned bytes, and the number of axes.
        let wanted = 0x0800 | AXES as u32;
        let found = number().map_err(|reason| unreadable(&name, &reason))?;
        if found != wanted {
            return Err(Breach::Idx(format!("{name} begins with {found:#010x} in place of {wanted:#010x}")));
        }
        let mut sizes = [0; AXES];
        for size in &mut sizes {
            *size = number().map_err(|reason| unreadable(&name, &reason))?;
        }
        Ok(Self { sizes, reader, name })
    }

    /// All bytes, if they are not more than `most`.
    fn bytes(self, most: u64) -> Result<Vec<u8>, Breach> {
        let Self { sizes, reader, name } = self;
        let wanted = sizes.iter().fold(1u64, |product, size| product.saturating_mul(u64::from(*size)));
        if wanted > most {
            return Err(Breach::TooMuch { bytes: wanted, most });
        }
        let mut bytes = Vec::new();
        reader.take(wanted).read_to_end(&mut bytes).map_err(|reason| unreadable(&name, &reason))?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(Breach::Idx(format!("{name} ends after {} of {wanted} bytes", bytes.len())))
        }
    }
}

/// The file's content, decompressed if it begins as gzip does.
fn plain(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    file.by_ref().take(2).read_to_end(&mut first)?;
    file.rewind()?;
    let file = BufReader::new(file);
    Ok(if first == [0x1f, 0x8b] { Box::new(GzDecoder::new(file)) } else { Box::new(file) })
}

fn unreadable(name: &str, reason: &io::Error) -> Breach {
    Breach::Idx(format!("{name} cannot be read: {reason}"))
}
