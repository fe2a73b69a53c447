//! One image as a model takes it: the largest square in its middle, scaled to `size` by bilinear interpolation, red,
//! green and blue.
//!
//! Transparency is left out, grey is repeated, and 16 bits are scaled to 8: white stays white. Orientation that a camera
//! has noted is not applied, as in torchvision.

use std::fs::File;
use std::io::BufReader;

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, ImageReader, Limits, RgbImage};

use super::super::contract::ImageProblem;

/// Longest side of an image that is decoded.
pub(in crate::data) const SIDE_MAX: u32 = 16_384;

/// Most memory for an image while it is decoded, in bytes.
const DECODE_MAX: u64 = 512 << 20;

/// The bytes of an image, `[3, size, size]`, row-major.
pub(super) struct Pixels(pub(super) Vec<u8>);

impl Pixels {
    /// Bytes of an image of this size.
    pub(super) fn bytes(size: u32) -> usize {
        3 * size as usize * size as usize
    }

    /// Decodes PNG or JPEG, whatever the file's name says.
    pub(super) fn decode(file: File, size: u32) -> Result<Self, ImageProblem> {
        let undecodable = |reason: String| ImageProblem::Undecodable(reason);
        let mut reader = ImageReader::new(BufReader::new(file))
            .with_guessed_format()
            .map_err(|reason| undecodable(reason.to_string()))?;
        if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
            return Err(undecodable("it is neither PNG nor JPEG".to_owned()));
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(SIDE_MAX);
        limits.max_image_height = Some(SIDE_MAX);
        limits.max_alloc = Some(DECODE_MAX);
        reader.limits(limits);
        let image = reader.decode().map_err(|reason| undecodable(reason.to_string()))?;
        Ok(Self::of(&image.into_rgb8(), size))
    }

    /// From rows of grey pixels.
    pub(super) fn from_grey(width: u32, height: u32, grey: &[u8], size: u32) -> Option<Self> {
        let image = GrayImage::from_raw(width, height, grey.to_vec())?;
        Some(Self::of(&image::DynamicImage::from(image).into_rgb8(), size))
    }

    /// The square is cut before it is scaled, so that a long and narrow image costs no more than another.
    fn of(image: &RgbImage, size: u32) -> Self {
        let (width, height) = image.dimensions();
        let side = width.min(height);
        let square =
            imageops::crop_imm(image, (width - side) / 2, (height - side) / 2, side, side).to_image();
        let scaled =
            if side == size { square } else { imageops::resize(&square, size, size, FilterType::Triangle) };
        let channel = |channel: usize| scaled.as_raw().iter().skip(channel).step_by(3).copied();
        Self((0..3).flat_map(channel).collect())
    }
}
