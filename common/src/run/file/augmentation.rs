//! The table `[training.augmentation]`: which numbers it may hold, and for which tasks.

use super::{forbid, within};
use crate::config::Invalid;
use crate::run::{Architecture, Augmentation, ModelSource, ModelSpec, Target, Task, TaskInput};

/// Whether every number is one, and what the run learns from can be changed so.
pub(super) fn check(augmentation: &Augmentation, model: &ModelSpec, task: &Task) -> Result<(), Invalid> {
    in_range(augmentation)?;
    fits(augmentation, model, task)
}

fn in_range(given: &Augmentation) -> Result<(), Invalid> {
    let ranges = [
        ("horizontal_flip", given.horizontal_flip, 1.0),
        ("vertical_flip", given.vertical_flip, 1.0),
        ("rotation", given.rotation, 180.0),
        ("brightness", given.brightness, 10.0),
        ("contrast", given.contrast, 10.0),
        ("saturation", given.saturation, 10.0),
        ("erasing", given.erasing, 1.0),
        ("noise", given.noise, 10.0),
        ("token_masking", given.token_masking, 0.9),
        ("mixup", given.mixup, 10.0),
    ];
    for (name, value, most) in ranges {
        if !(0.0..=most).contains(&value) {
            return Err(Invalid::new(key(name), format!("{value} is not in [0, {most}]")));
        }
    }
    within(&key("crop_padding"), u64::from(given.crop_padding), 0, 1024)?;
    let Some([least, most]) = given.crop else { return Ok(()) };
    if !(least > 0.0 && least <= most && most <= 1.0) {
        let why = "give the least and the largest share of the area that is kept, such as [0.08, 1.0]";
        return Err(Invalid::new(key("crop"), why));
    }
    forbid(&key("crop_padding"), given.crop_padding > 0, "cannot be had with `crop`: use one of them")
}

fn fits(given: &Augmentation, model: &ModelSpec, task: &Task) -> Result<(), Invalid> {
    let is_image = matches!(task.input, TaskInput::Image { .. });
    let is_table = matches!(task.input, TaskInput::Table { .. });
    let is_text = matches!(task.input, TaskInput::Text { .. });
    let images = [
        ("horizontal_flip", given.horizontal_flip > 0.0),
        ("vertical_flip", given.vertical_flip > 0.0),
        ("rotation", given.rotation > 0.0),
        ("crop", given.crop.is_some()),
        ("crop_padding", given.crop_padding > 0),
        ("brightness", given.brightness > 0.0),
        ("contrast", given.contrast > 0.0),
        ("saturation", given.saturation > 0.0),
        ("erasing", given.erasing > 0.0),
    ];
    for (name, given) in images {
        forbid(&key(name), given && !is_image, "is for images: leave it out for this task")?;
    }
    let softmax = model.source == ModelSource::Fresh(Architecture::Softmax);
    for (name, given) in [("noise", given.noise > 0.0), ("mixup", given.mixup > 0.0)] {
        let why = "is for images and tables: leave it out for this task";
        forbid(&key(name), given && !is_image && !is_table, why)?;
        let why = "is not for softmax regression: use architecture = \"mlp\", hidden = []";
        forbid(&key(name), given && softmax, why)?;
    }
    let masked = given.token_masking > 0.0;
    let encoder = is_text && !matches!(task.target, Target::NextToken { .. });
    let why = "is for text encoders, which know a mask token: leave it out for this task";
    forbid(&key("token_masking"), masked && !encoder, why)
}

fn key(name: &str) -> String {
    format!("training.augmentation.{name}")
}
