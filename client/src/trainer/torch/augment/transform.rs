//! torchvision's transforms of one image, `[channels, height, width]` of which 1 is white; square where it says so.

use tch::{Kind, TchError, Tensor};

use super::draw::Rectangle;

/// Which way an image is turned over.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    Height = 1,
    Width = 2,
}

/// A part of the image, scaled to the size of the whole by bilinear interpolation.
pub(super) fn resized_crop(image: &Tensor, part: Rectangle) -> Result<Tensor, TchError> {
    let size = &image.size()[1..];
    let part = image.f_narrow(1, part.top, part.height)?.f_narrow(2, part.left, part.width)?;
    part.f_unsqueeze(0)?.f_upsample_bilinear2d(size, false, None, None)?.f_squeeze_dim(0)
}

/// The image so many pixels further down and right, black where it came from.
pub(super) fn moved(image: &Tensor, down: i64, right: i64) -> Result<Tensor, TchError> {
    let size = image.size();
    let (down, right) = (down.clamp(-size[1], size[1]), right.clamp(-size[2], size[2]));
    // A negative padding cuts.
    image.f_constant_pad_nd([right, -right, down, -down])
}

/// Left and right, or top and bottom, in each other's place.
pub(super) fn flipped(image: &Tensor, axis: Axis) -> Result<Tensor, TchError> {
    image.f_flip([axis as i64])
}

/// A square image turned against the clock by bilinear interpolation, black where nothing was.
pub(super) fn rotated(image: &Tensor, degrees: f64) -> Result<Tensor, TchError> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    // Where each pixel comes from, y growing downwards.
    let from = Tensor::f_from_slice(&[cos, -sin, 0.0, sin, cos, 0.0])?;
    let from = from.f_view([1, 2, 3])?.f_to_kind(Kind::Float)?.f_to(image.device())?;
    let image = image.f_unsqueeze(0)?;
    let grid = Tensor::f_affine_grid_generator(&from, image.size(), false)?;
    image.f_grid_sampler(&grid, 0, 0, false)?.f_squeeze_dim(0)
}

/// Times `factor`.
pub(super) fn brightness(image: &Tensor, factor: f64) -> Result<Tensor, TchError> {
    image.f_mul_scalar(factor)?.f_clamp(0.0, 1.0)
}

/// So far from the image's mean grey.
pub(super) fn contrast(image: &Tensor, factor: f64) -> Result<Tensor, TchError> {
    blend(image, &grey(image)?.f_mean(Kind::Float)?, factor)
}

/// So far from the image in grey.
pub(super) fn saturation(image: &Tensor, factor: f64) -> Result<Tensor, TchError> {
    blend(image, &grey(image)?, factor)
}

/// Black in this part.
pub(super) fn erased(image: &Tensor, part: Rectangle) -> Result<Tensor, TchError> {
    let mut copy = image.f_empty_like()?;
    copy.f_copy_(image)?;
    let _ = copy.f_narrow(1, part.top, part.height)?.f_narrow(2, part.left, part.width)?.f_fill_(0.0)?;
    Ok(copy)
}

fn blend(image: &Tensor, other: &Tensor, factor: f64) -> Result<Tensor, TchError> {
    image.f_mul_scalar(factor)?.f_add(&other.f_mul_scalar(1.0 - factor)?)?.f_clamp(0.0, 1.0)
}

/// Luma of red, green and blue, `[1, height, width]`.
fn grey(image: &Tensor) -> Result<Tensor, TchError> {
    let luma = Tensor::f_from_slice(&[0.2989_f32, 0.587, 0.114])?.f_view([3, 1, 1])?.f_to(image.device())?;
    image.f_mul(&luma)?.f_sum_dim_intlist([0].as_slice(), true, Kind::Float)
}
