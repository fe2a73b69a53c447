//! What is changed at random in an example each time it is trained on: the table `[training.augmentation]`. Names and
//! definitions are torchvision's where it has the transform.

use serde::{Deserialize, Serialize};

/// What is changed in training examples; nothing where a number is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// `RandomHorizontalFlip`: probability that left and right change places.
    pub horizontal_flip: f64,
    /// `RandomVerticalFlip`: probability that top and bottom change places.
    pub vertical_flip: f64,
    /// `RandomRotation`: degrees to either side at most.
    pub rotation: f64,
    /// `RandomResizedCrop`: least and largest share of the area that is kept and scaled to the whole.
    pub crop: Option<[f64; 2]>,
    /// `RandomCrop` with `padding`: an image is moved by so many pixels at most.
    pub crop_padding: u32,
    /// `ColorJitter`: brightness changes by a factor of up to 1 plus or minus this; never below 0.
    pub brightness: f64,
    /// The same of contrast.
    pub contrast: f64,
    /// The same of saturation.
    pub saturation: f64,
    /// `RandomErasing`: probability that a rectangle is blackened.
    pub erasing: f64,
    /// Standard deviation of what is added: to pixels, of which 1 is white, or to a table's numbers, which are scaled.
    pub noise: f64,
    /// Probability that a token, none of the special ones, gives way to the mask token.
    pub token_masking: f64,
    /// Mixup (Zhang et al. 2018): each example is mixed with another of its batch, and so is what is learned of them; the share
    /// is drawn from Beta(mixup, mixup).
    pub mixup: f64,
}
