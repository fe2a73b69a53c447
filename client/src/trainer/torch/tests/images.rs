//! From a folder of images to a trained classifier, through everything that a site does.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sheaf_common::metrics::Kind;
use sheaf_common::model::{CONFIG_FILE, ModelConfig, WEIGHTS_FILE};
use sheaf_common::params::to_bytes;
use sheaf_common::run::*;

use super::fixture::{job, text_spec};
use crate::config::{DatasetConfig, Format, Header, Policy};
use crate::device::DeviceChoice;
use crate::trainer::open::open;
use crate::trainer::{Round, Unwatched};

const CONFIG: &str = r#"{"model_type": "torchvision_resnet", "image_size": 32, "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25], "block": "basic", "depths": [1, 1], "widths": [4, 8], "batch_norm_eps": 1e-5}"#;

/// A small residual network of fixed weights, as it is imported.
pub(super) fn model(folder: &Path) -> ModelConfig {
    let config = ModelConfig::parse(CONFIG.as_bytes()).unwrap();
    fs::write(folder.join(CONFIG_FILE), CONFIG).unwrap();
    let ModelConfig::Image(image) = &config else { panic!("an image classifier") };
    let tensors = image.architecture.tensors(None);
    let values = tensors.all().map(|tensor| {
        let count = tensor.shape.iter().product::<u64>();
        let value = |at: u64| match tensor.shape.len() {
            1 if tensor.name.ends_with("weight") || tensor.name.ends_with("running_var") => 1.0,
            1 => 0.0,
            _ => ((at * 37 + at * at * 11) % 101) as f32 / 200.0 - 0.25,
        };
        to_bytes(&(0..count).map(value).collect::<Vec<f32>>())
    });
    let values: Vec<Vec<u8>> = values.collect();
    let views = tensors.all().zip(&values).map(|(tensor, bytes)| {
        let shape = tensor.shape.iter().map(|size| *size as usize).collect();
        (tensor.name.clone(), TensorView::new(Dtype::F32, shape, bytes).unwrap())
    });
    fs::write(folder.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
    config
}

/// Twenty images of either class: one is red on the whole, the other blue.
fn folder(root: &Path) -> DatasetConfig {
    for (class, strong) in [("red", 0), ("blue", 2)] {
        fs::create_dir(root.join(class)).unwrap();
        for number in 0..20u32 {
            let image = RgbImage::from_fn(40, 33, |x, y| {
                let mut pixel =
                    [0, 1, 2].map(|channel| 60 + ((x * 7 + y * 13 + number * 29 + channel * 5) % 60) as u8);
                pixel[strong] += 90;
                Rgb(pixel)
            });
            image.save(root.join(class).join(format!("{number}.png"))).unwrap();
        }
    }
    DatasetConfig {
        path: root.to_owned(),
        format: Format::ImageFolder,
        delimiter: b',',
        quotes: true,
        header: Header::FirstRow,
        skip_rows: 0,
        rename: [].into(),
        images: None,
        labels: None,
        classes: Vec::new(),
        memory_mib: 1,
        spill: root.to_owned(),
    }
}

/// A run on the images in `datasets`.
fn spec() -> RunSpec {
    let mut spec = text_spec(Trainable::Head, Pooling::Mean);
    spec.model.dropout = 0.0;
    spec.task.input = TaskInput::Image { column: "scan".into(), size: None };
    let labels = ["blue", "red"].map(str::to_owned).into();
    spec.task.target = Target::Label { column: "colour".into(), labels };
    spec.training =
        Training { learning_rate: 0.3, batch_size: 8, local: LocalWork::Epochs(20), ..Training::default() };
    spec.validation.held_out = HeldOut::Share(0.25);
    spec
}

#[test]
fn a_site_learns_from_a_folder_of_images() {
    let (model_dir, scans) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = model(model_dir.path());
    let mut spec = spec();
    let datasets = [(spec.task.dataset.clone(), folder(scans.path()))].into();
    let jitter = Augmentation {
        horizontal_flip: 0.5,
        rotation: 10.0,
        crop: Some([0.5, 1.0]),
        brightness: 0.2,
        erasing: 0.2,
        noise: 0.02,
        ..Augmentation::default()
    };
    for augmentation in [None, Some(jitter)] {
        spec.training.augmentation = augmentation;
        let job = job(spec.clone(), Some(&config));
        let policy = Policy::default();
        let mut trainer =
            open(&job, Some(model_dir.path()), &datasets, "site", DeviceChoice::Cpu, &policy).unwrap();
        assert_eq!(trainer.num_examples(), 30);
        let mut params = vec![0.0; job.params.numel() as usize];
        for number in 1..=3 {
            params = trainer.train(params, Round { number, of: 3 }, &Unwatched).unwrap().params;
        }
        let counts = trainer.evaluate(&params, &Unwatched).unwrap().unwrap();
        let report = counts.report(&Kind::of(&job.spec));
        assert_eq!(report.classification().unwrap().accuracy, 1.0, "{augmentation:?}");
    }
}

#[test]
fn images_that_memory_is_too_small_for_train_the_same_bits() {
    let (model_dir, scans) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = model(model_dir.path());
    let dataset = folder(scans.path());
    let names = || fs::read_dir(scans.path()).unwrap().count();
    let before = names();
    for trainable in [Trainable::Head, Trainable::All] {
        for augmentation in
            [None, Some(Augmentation { rotation: 10.0, noise: 0.02, ..Augmentation::default() })]
        {
            let mut spec = spec();
            spec.model.trainable = trainable.clone();
            spec.training.augmentation = augmentation;
            spec.training.local = LocalWork::Epochs(2);
            spec.validation.test_split = 0.1;
            let job = job(spec, Some(&config));
            let results = [1, 0].map(|memory_mib| {
                let dataset = DatasetConfig { memory_mib, ..dataset.clone() };
                let datasets = [(job.spec.task.dataset.clone(), dataset)].into();
                let mut trainer = open(
                    &job,
                    Some(model_dir.path()),
                    &datasets,
                    "site",
                    DeviceChoice::Cpu,
                    &Policy::default(),
                )
                .unwrap();
                assert_eq!(names(), before, "what is on the disk has no name");
                let params = vec![0.01; job.params.numel() as usize];
                let trained = trainer.train(params, Round { number: 1, of: 1 }, &Unwatched).unwrap();
                let counts = trainer.evaluate(&trained.params, &Unwatched).unwrap();
                (trained, counts, trainer.num_examples())
            });
            assert_eq!(results[0], results[1]);
        }
    }
}
