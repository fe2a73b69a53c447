//! What torchvision's transforms draw, from a stream that is the same everywhere.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Tries to find a rectangle that fits, as in torchvision.
const TRIES: usize = 10;

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) top: i64,
    pub(super) left: i64,
    pub(super) height: i64,
    pub(super) width: i64,
}

/// Bounds of a share of an image's area.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) least: f64,
    pub(super) most: f64,
}

/// Yes, with this probability; draws nothing when it is 0.
pub(super) fn either(random: &mut ChaCha8Rng, probability: f64) -> bool {
    probability > 0.0 && random.random_bool(probability.min(1.0))
}

/// A factor of up to 1 plus or minus `strength`, never below 0.
pub(super) fn around_one(random: &mut ChaCha8Rng, strength: f64) -> f64 {
    random.random_range((1.0 - strength).max(0.0)..=1.0 + strength)
}

/// The part of a square image that `RandomResizedCrop` keeps: of sides 3 to 4 at most; all of it when none is found.
pub(super) fn crop_of(random: &mut ChaCha8Rng, size: i64, share: Share) -> Rectangle {
    let all = Rectangle { top: 0, left: 0, height: size, width: size };
    rectangle(random, size, share, [3.0 / 4.0, 4.0 / 3.0]).unwrap_or(all)
}

/// The part of a square image that `RandomErasing` erases: 2 to 33 % of it, of sides 3 to 10 at most; nothing when none is found.
pub(super) fn erased_of(random: &mut ChaCha8Rng, size: i64) -> Rectangle {
    let none = Rectangle { top: 0, left: 0, height: 0, width: 0 };
    rectangle(random, size, Share { least: 0.02, most: 0.33 }, [0.3, 3.3]).unwrap_or(none)
}

/// A rectangle in a square image, of a share of its area that is uniform and a ratio of sides whose logarithm is.
fn rectangle(random: &mut ChaCha8Rng, size: i64, share: Share, ratios: [f64; 2]) -> Option<Rectangle> {
    let [low, high] = ratios.map(f64::ln);
    (0..TRIES).find_map(|_| {
        let area = (size * size) as f64 * random.random_range(share.least..=share.most);
        let ratio = random.random_range(low..=high).exp();
        let (width, height) = ((area * ratio).sqrt().round() as i64, (area / ratio).sqrt().round() as i64);
        let fits = (1..=size).contains(&width) && (1..=size).contains(&height);
        fits.then(|| Rectangle {
            top: random.random_range(0..=size - height),
            left: random.random_range(0..=size - width),
            height,
            width,
        })
    })
}
