//! What is changed at random in a batch each time it is trained on, as the run's `[training.augmentation]` says.
//!
//! `draw` draws, `transform` changes an image as it was drawn, `mix` mixes examples in pairs. Everything follows from one seed, that of the batch, so
//! that a round that is tried again sees the same examples. Validation never comes here.

mod draw;
mod mix;
#[cfg(test)]
mod tests;
mod transform;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sheaf_common::run::{Augmentation, FeatureKind, RunSpec, TaskInput};
use sheaf_common::seed;
use tch::{Device, Kind, TchError, Tensor};

use self::draw::{Share, around_one, crop_of, either, erased_of};
pub(super) use self::mix::Mix;
use self::transform::{
    Axis, brightness, contrast, erased, flipped, moved, resized_crop, rotated, saturation,
};
use super::network::seeded;
use super::ragged::Batch;
use super::tokenize::Tokens;
use crate::trainer::TrainError;

/// Changes training examples of one kind.
pub(super) struct Augment {
    asked: Augmentation,
    kind: Examples,
}

/// What the examples are.
enum Examples {
    /// `[batch, 1, channels, size, size]`.
    Images,
    /// Rows of a table, `[batch, 1, inputs]`; `[inputs]`, 1 at a number that the flag behind it says is there.
    Rows { numbers: Tensor },
    /// Token ids, `[batch, length]`; `[vocabulary]`, true at those that are special.
    Texts { mask: i64, special: Tensor },
}

impl Augment {
    /// What the run asks for, if anything.
    ///
    /// # Errors
    /// When tokens are to be masked and the model's tokenizer has no token for it.
    pub(super) fn new(
        spec: &RunSpec,
        tokens: Option<&Tokens>,
        device: Device,
    ) -> Result<Option<Self>, TrainError> {
        let Some(asked) = spec.training.augmentation else { return Ok(None) };
        let kind = match &spec.task.input {
            TaskInput::Image { .. } => Examples::Images,
            TaskInput::Table { features } => {
                let inputs = features.iter().flat_map(|feature| match &feature.kind {
                    FeatureKind::Numeric { .. } => vec![1.0_f32, 0.0],
                    words @ (FeatureKind::Categorical { .. } | FeatureKind::Hashed { .. }) => {
                        vec![0.0; words.width() as usize]
                    }
                });
                let inputs: Vec<f32> = inputs.collect();
                Examples::Rows { numbers: Tensor::f_from_slice(&inputs)?.f_to(device)? }
            }
            TaskInput::Text { .. } => {
                let hidden = tokens.and_then(Tokens::mask).ok_or_else(|| {
                    let sentence = "the model's tokenizer has no mask token: leave out training.augmentation.token_masking";
                    TrainError::Failed(sentence.to_owned())
                })?;
                let special = Tensor::f_from_slice(&hidden.special)?.f_to(device)?;
                Examples::Texts { mask: hidden.mask, special }
            }
            TaskInput::Nothing => return Ok(None),
        };
        Ok(Some(Self { asked, kind }))
    }

    /// The batch as it is trained on this time.
    pub(super) fn apply(&self, batch: Batch, seed: i64) -> Result<Batch, TchError> {
        let Batch { values, real } = batch;
        let values = match &self.kind {
            Examples::Images => self.images(&values, seed)?,
            Examples::Rows { numbers } => {
                // The flag behind a number is 1 where it is missing.
                let missing = values.f_roll([-1].as_slice(), [-1].as_slice())?;
                let there = (missing.f_neg()?.f_add_scalar(1.0)?).f_mul(numbers)?;
                values.f_add(&self.noise(&values, seed)?.f_mul(&there)?)?
            }
            Examples::Texts { mask, special } => {
                let mut random = seed::stream(seed as u64, &["tokens"]);
                let drawn: Vec<bool> =
                    (0..values.numel()).map(|_| either(&mut random, self.asked.token_masking)).collect();
                let drawn = Tensor::f_from_slice(&drawn)?.f_view_as(&values)?.f_to(values.device())?;
                let special = special.f_index_select(0, &values.f_flatten(0, -1)?)?.f_view_as(&values)?;
                values.f_masked_fill(&drawn.f_logical_and(&special.f_logical_not()?)?, *mask)?
            }
        };
        let values = match self.mix(values.size()[0] as usize, seed) {
            Some(mix) => mix.apply(&values)?,
            None => values,
        };
        Ok(Batch { values, real })
    }

    /// How the examples of the batch with this seed are mixed, if they are: [`Self::apply`] does so, and their loss must know.
    pub(super) fn mix(&self, examples: usize, seed: i64) -> Option<Mix> {
        Mix::draw(self.asked.mixup, examples, seed)
    }

    /// Images whose white is 1, whatever they were.
    fn images(&self, values: &Tensor, seed: i64) -> Result<Tensor, TchError> {
        let mut values = values.shallow_clone();
        if values.f_kind()? == Kind::Uint8 {
            values = values.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        }
        let each = (0..values.size()[0]).map(|place| {
            let mut random = seed::stream(seed as u64, &["image", &place.to_string()]);
            self.image(values.f_get(place)?.f_squeeze_dim(0)?, &mut random)?.f_unsqueeze(0)
        });
        let images = Tensor::f_stack(&each.collect::<Result<Vec<_>, TchError>>()?, 0)?;
        if self.asked.noise > 0.0 {
            images.f_add(&self.noise(&images, seed)?)?.f_clamp(0.0, 1.0)
        } else {
            Ok(images)
        }
    }

    /// One image, `[channels, size, size]`. What is not asked for draws nothing.
    fn image(&self, mut image: Tensor, random: &mut ChaCha8Rng) -> Result<Tensor, TchError> {
        let Augmentation { horizontal_flip, vertical_flip, rotation, crop, crop_padding, .. } = self.asked;
        let size = image.size()[1];
        if let Some([least, most]) = crop {
            image = resized_crop(&image, crop_of(random, size, Share { least, most }))?;
        }
        if crop_padding > 0 {
            let most = i64::from(crop_padding);
            let [down, right] = [0, 1].map(|_| random.random_range(-most..=most));
            image = moved(&image, down, right)?;
        }
        for (axis, probability) in [(Axis::Width, horizontal_flip), (Axis::Height, vertical_flip)] {
            if either(random, probability) {
                image = flipped(&image, axis)?;
            }
        }
        if rotation > 0.0 {
            image = rotated(&image, random.random_range(-rotation..=rotation))?;
        }
        image = self.colours(image, random)?;
        if either(random, self.asked.erasing) {
            image = erased(&image, erased_of(random, size))?;
        }
        Ok(image)
    }

    /// `ColorJitter`, in an order that is drawn, too.
    fn colours(&self, mut image: Tensor, random: &mut ChaCha8Rng) -> Result<Tensor, TchError> {
        type Change = fn(&Tensor, f64) -> Result<Tensor, TchError>;
        let mut changes: [(Change, f64); 3] = [
            (brightness, self.asked.brightness),
            (contrast, self.asked.contrast),
            (saturation, self.asked.saturation),
        ];
        changes.shuffle(random);
        for (change, strength) in changes.into_iter().filter(|(_, strength)| *strength > 0.0) {
            image = change(&image, around_one(random, strength))?;
        }
        Ok(image)
    }

    fn noise(&self, like: &Tensor, seed: i64) -> Result<Tensor, TchError> {
        // A stream of its own: dropout begins at the batch's seed, too.
        seeded(seed::integer(seed as u64, &["noise"]), || like.f_randn_like())?.f_mul_scalar(self.asked.noise)
    }
}
