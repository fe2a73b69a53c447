//! Images in the format of MNIST: what is fetched, and the files that a site has of it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::example::ExampleError;

/// Bytes before the pixels: a type, and three numbers that say how many images there are and how large.
const IMAGES_HEADER: usize = 16;
/// Bytes before the labels: a type and how many there are.
const LABELS_HEADER: usize = 8;

/// Images of 28 by 28 grey pixels, each of one class.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Images {
    /// Names of the classes, by number.
    pub(crate) classes: &'static [&'static str],
    pixels: Vec<[u8; 28 * 28]>,
    labels: Vec<u8>,
}

impl Images {
    /// Reads `PART-images-idx3-ubyte.gz` and the labels beside it.
    pub(crate) fn read(
        folder: &Path,
        part: &str,
        classes: &'static [&'static str],
    ) -> Result<Self, ExampleError> {
        let path = folder.join(format!("{part}-images-idx3-ubyte.gz"));
        let images = unpacked(&path)?;
        let labels = unpacked(&folder.join(format!("{part}-labels-idx1-ubyte.gz")))?;
        let (pixels, rest) = images.get(IMAGES_HEADER..).unwrap_or_default().as_chunks();
        let labels = labels.get(LABELS_HEADER..).unwrap_or_default();
        let known = labels.iter().all(|label| usize::from(*label) < classes.len());
        if pixels.is_empty() || pixels.len() != labels.len() || !rest.is_empty() || !known {
            let problem = "and its labels are not images of 28 by 28 with known classes: fetch them again";
            return Err(ExampleError::Unexpected(path, problem.to_owned()));
        }
        Ok(Self { classes, pixels: pixels.to_vec(), labels: labels.to_vec() })
    }

    /// Each image's place and class.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |(place, label): (usize, &u8)| {
            vec![place.to_string(), self.classes[usize::from(*label)].to_owned()]
        };
        self.labels.iter().enumerate().map(row).collect()
    }

    /// Writes the images at these places as a pair of IDX files.
    pub(crate) fn write(&self, places: &[usize], images: &Path, labels: &Path) -> io::Result<()> {
        let count = u32::try_from(places.len()).map_err(io::Error::other)?;
        let mut content = [0x0803, count, 28, 28].map(u32::to_be_bytes).concat();
        places.iter().for_each(|place| content.extend(self.pixels[*place]));
        fs::write(images, content)?;
        let mut content = [0x0801, count].map(u32::to_be_bytes).concat();
        content.extend(places.iter().map(|place| self.labels[*place]));
        fs::write(labels, content)
    }
}

fn unpacked(path: &Path) -> Result<Vec<u8>, ExampleError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| GzDecoder::new(file).read_to_end(&mut bytes));
    read.map_err(|error| ExampleError::Unreadable(path.to_owned(), error.into()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_gets_the_images_of_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let all = Images {
            classes: &["a", "b"],
            pixels: vec![[1; 784], [2; 784], [3; 784]],
            labels: vec![0, 1, 1],
        };
        assert_eq!(all.rows()[2], ["2", "b"]);
        all.write(&[2, 0], &path("images"), &path("labels")).unwrap();
        let images = fs::read(path("images")).unwrap();
        assert_eq!(images[..16], [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]);
        assert_eq!((images.len(), images[16], images[16 + 784]), (16 + 2 * 784, 3, 1));
        assert_eq!(fs::read(path("labels")).unwrap(), [0, 0, 8, 1, 0, 0, 0, 2, 1, 0]);
    }
}
