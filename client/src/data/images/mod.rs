//! Images at a site: where they are, and how they become the pixels that a model takes.
//!
//! `folder` lists a folder for each class, `idx` reads the files of MNIST, and a table names files in a column: all
//! three are rows of a [`Table`](super::table::Table) with a column that says which image it is. `pixels` decodes one.
//! Images are decoded once, when the data set is opened, on all cores, and kept as bytes, `3 * size * size` each: in memory,
//! or as `stored` says where the site gives them too little of it.

mod folder;
mod idx;
mod pixels;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use self::pixels::Pixels;
pub(super) use self::pixels::SIDE_MAX;
use super::contract::{Breach, ContractError, ImageProblem};
use super::{Inputs, Stored};
use crate::config::{DatasetConfig, Format};

/// Names of the columns of images and classes where the site gives them none: in folders and IDX files.
pub(super) const COLUMNS: [&str; 2] = ["image", "label"];

/// Bytes of images that are decoded at a time when they go to a file.
const PART: usize = 64 << 20;

/// The rows of a data set that is no table: which image, and its class.
pub(super) fn rows(config: &DatasetConfig) -> Result<Vec<[String; 2]>, Breach> {
    match config.format {
        Format::ImageFolder => folder::rows(&config.path),
        Format::Idx => {
            let name = |class: u8| {
                config.classes.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
            };
            let classes = idx::classes(config)?.into_iter().enumerate();
            Ok(classes.map(|(place, class)| [place.to_string(), name(class)]).collect())
        }
        Format::Delimited | Format::JsonLines | Format::Parquet => Ok(Vec::new()),
    }
}

/// The pixels of these images, each `[3, size, size]`, one after the other. An image is what the rows say: a path, or the
/// place of an image in an IDX file.
///
/// # Errors
/// The first image that cannot be had, or that there is no room for.
pub(super) fn read(
    config: &DatasetConfig,
    dataset: &str,
    images: &[String],
    size: u32,
) -> Result<Inputs, ContractError> {
    let error = |breach| ContractError::new(dataset, &config.path, breach);
    let each = Pixels::bytes(size);
    let bytes = (images.len() as u64).saturating_mul(each as u64);
    let source = Source::open(config).map_err(error)?;
    let side = size as usize;
    if bytes <= config.memory_bytes() {
        let mut values = vec![0; bytes as usize];
        fill(&source, images, size, &mut values).map_err(error)?;
        return Ok(Inputs::Images { size: side, values });
    }
    let mut part = vec![0; images.len().min((PART / each).max(1)) * each];
    let stored = Stored::new(&config.spill, images.len(), |file| {
        images.chunks(part.len() / each).try_for_each(|images| {
            let pixels = &mut part[..images.len() * each];
            fill(&source, images, size, pixels)?;
            Ok::<_, Breach>(file.write_all(pixels)?)
        })
    });
    Ok(Inputs::StoredImages { size: side, images: stored.map_err(error)? })
}

/// Decodes on all cores, each a part of the images, and gives the first that fails in the order of the images.
fn fill(source: &Source, images: &[String], size: u32, pixels: &mut [u8]) -> Result<(), Breach> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = images.len().div_ceil(workers).max(1);
    let each = Pixels::bytes(size);
    let decode = |images: &[String], pixels: &mut [u8]| {
        images.iter().zip(pixels.chunks_exact_mut(each)).try_for_each(|(image, pixels)| {
            let refused = |problem| Breach::Image { image: image.clone(), problem };
            let found = source.image(image, size).map_err(refused)?;
            pixels.copy_from_slice(&found.0);
            Ok(())
        })
    };
    thread::scope(|scope| {
        let parts = images.chunks(share).zip(pixels.chunks_mut(share * each));
        let parts: Vec<_> =
            parts.map(|(images, pixels)| scope.spawn(move || decode(images, pixels))).collect();
        // A decoder that panics is one that cannot decode.
        let panicked = || {
            let problem = ImageProblem::Undecodable("the decoder failed".to_owned());
            Err(Breach::Image { image: String::new(), problem })
        };
        parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(|_| panicked()))
    })
}

/// Where images come from.
enum Source {
    /// Files, none of which may lie outside of this folder.
    Files(PathBuf),
    /// An IDX file.
    Idx(idx::Images),
}

impl Source {
    fn open(config: &DatasetConfig) -> Result<Self, Breach> {
        if config.format == Format::Idx {
            return idx::Images::open(config).map(Self::Idx);
        }
        let root = match &config.images {
            Some(images) => images.as_path(),
            None if config.format == Format::ImageFolder => &config.path,
            None => match config.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            },
        };
        // Links are followed once, here and for each file, so that what is compared is where things really are.
        root.canonicalize().map(Self::Files).map_err(|reason| Breach::Unreadable(reason.to_string()))
    }

    fn image(&self, image: &str, size: u32) -> Result<Pixels, ImageProblem> {
        match self {
            Self::Files(root) => Pixels::decode(file(root, image)?, size),
            Self::Idx(images) => images.image(image, size),
        }
    }
}

/// The file at `image`, a path from `root` or one that leads into it.
fn file(root: &Path, image: &str) -> Result<File, ImageProblem> {
    let unreadable = |reason: std::io::Error| ImageProblem::Unreadable(reason.to_string());
    let path = root.join(image.trim()).canonicalize().map_err(unreadable)?;
    if !path.starts_with(root) {
        return Err(ImageProblem::Outside);
    }
    // A pipe would keep whoever opens it waiting.
    if !path.is_file() {
        return Err(ImageProblem::Unreadable("it is no file".to_owned()));
    }
    File::open(path).map_err(unreadable)
}
