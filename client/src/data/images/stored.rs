//! Images that the memory is too small for: decoded once like all others, and kept in a file without a name, which is gone
//! when nobody uses it any more, also after a crash. How they are divided is a list of places; no image moves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Images of one size in a file, `3 * size * size` bytes each, and which of them these are.
#[derive(Clone, Debug)]
pub struct Stored {
    file: Arc<File>,
    /// Images in the file.
    pub all: usize,
    /// The place of each example's image in the file.
    pub places: Vec<usize>,
}

impl Stored {
    /// Makes room in `folder`, has `write` write `images` images, and keeps all of them.
    pub(super) fn new<E: From<io::Error>>(
        folder: &Path,
        images: usize,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Self, E> {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::tempfile_in(folder)?;
        write(&mut file)?;
        Ok(Self { file: Arc::new(file), all: images, places: (0..images).collect() })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The images of the examples at these places, in this order.
    pub(in crate::data) fn select(&self, places: &[usize]) -> Self {
        Self { places: places.iter().map(|place| self.places[*place]).collect(), ..self.clone() }
    }

    /// The images of the examples that are not at these places, and of those that are.
    pub(in crate::data) fn divided(self, taken: &BTreeSet<usize>) -> [Self; 2] {
        let of = |wanted: bool| {
            let all = self.places.iter().enumerate();
            let kept = all.filter(|(example, _)| taken.contains(example) == wanted);
            Self { places: kept.map(|(_, place)| *place).collect(), ..self.clone() }
        };
        [of(false), of(true)]
    }
}

/// The same images of the same file.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.places == other.places
    }
}
