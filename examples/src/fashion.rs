//! Shops that learn to tell clothes apart together: Fashion-MNIST and an EfficientNet-Lite0 that ImageNet taught to
//! see. The partition is simulated.

use std::rc::Rc;

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError};
use crate::idx::Images;
use crate::metric::{ACCURACY, CALIBRATION_ERROR, MACRO_F1, ROC_AUC};
use crate::skewed::Skewed;
use crate::table::{Format, Table};

/// What the numbers of the files of labels mean.
const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// The example, with its images dealt out.
pub(crate) fn example(choice: Choice) -> Result<Example, ExampleError> {
    let (train, test) = (read("train")?, read("t10k")?);
    let size = choice.size(300, 60);
    Ok(Example {
        about: format!(
            "{} shops learn to tell clothes apart together (Fashion-MNIST), each from {size} images of its own.\n\
             The partition is simulated: four in five of a shop's images are of its own classes, drawn with seed {}.",
            choice.sites, choice.seed
        ),
        choice,
        run: include_str!("../fashion/run.toml"),
        reduced_rounds: 3,
        survey: false,
        base: Base::Pretrained {
            name: "efficientnet-lite0",
            path: cache::find("efficientnet-lite0")?.join("efficientnet-lite0.pth"),
            kind: Some("efficientnet-lite0"),
        },
        sites: Skewed { party: "shop", size, strays: size / 5 }.partition(&train, choice),
        test: test.sample(choice.size(1000, 200), &mut choice.stream("test", &[])),
        metrics: &[ACCURACY, MACRO_F1, ROC_AUC, CALIBRATION_ERROR],
    })
}

fn read(part: &str) -> Result<Table, ExampleError> {
    let images = Images::read(&cache::find("fashion-mnist")?, part, &CLASSES)?;
    let rows = images.rows();
    Ok(Table { format: Format::Idx(Rc::new(images)), columns: vec!["image", "class"], label: 1, rows })
}

#[cfg(test)]
mod tests {
    use sheaf_common::run::RunSpec;

    #[test]
    fn the_run_knows_every_class() {
        let run = RunSpec::parse("run.toml", include_str!("../fashion/run.toml")).unwrap();
        assert_eq!(run.task.labels(), super::CLASSES);
    }
}
