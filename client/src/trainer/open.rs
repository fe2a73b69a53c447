//! From a job to the trainer that does it: data checked against the contract, split, and a model to match.

use std::collections::BTreeMap;
use std::path::Path;

use sheaf_common::message::Job;
use sheaf_common::metrics::{Counts, Kind};
use sheaf_common::model::{CONFIG_FILE, ModelConfig};
use sheaf_common::run::{Architecture, ModelSource, Task, TaskInput};

use super::constant::ConstantTrainer;
use super::softmax::SoftmaxTrainer;
use super::torch::TorchTrainer;
use super::{TrainError, Trainer};
use crate::config::{DatasetConfig, Policy};
use crate::data::{self, ContractError, Dataset, Inputs, Parts, Split, Targets};
use crate::device::{self, DeviceChoice, DeviceError};

/// A site cannot do a job. `Display` is for the site's own log and may hold a value of its data.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The site has no data set of that name.
    #[error(
        "the run asks for data set `{name}`, and site.toml has {known}: add [datasets.{name}] to take part"
    )]
    NoSuchDataset {
        /// The run's name for it.
        name: String,
        /// Those that the site has.
        known: String,
    },
    /// The data set is not what the run asks for.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// There is nothing to train on.
    #[error("data set `{0}` leaves no example to train on")]
    NoExamples(String),
    /// The site's device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model cannot be made ready.
    #[error(transparent)]
    Trainer(#[from] TrainError),
}

impl OpenError {
    /// One sentence for the operator, without any value of the site's data, path or name of another data set.
    pub fn for_operator(&self) -> String {
        match self {
            Self::NoSuchDataset { name, .. } => format!("the site has no data set `{name}`"),
            Self::Contract(error) => error.for_operator(),
            Self::Device(_) => "the device that the site is configured for cannot be used".to_owned(),
            Self::NoExamples(_) => self.to_string(),
            Self::Trainer(error) => error.for_operator(),
        }
    }
}

/// The trainer for `job` on the site's own data.
///
/// `model_dir` holds the imported model's files, if the job has one. libtorch and the device are touched only for
/// a model that needs them.
pub fn open(
    job: &Job,
    model_dir: Option<&Path>,
    datasets: &BTreeMap<String, DatasetConfig>,
    site_label: &str,
    device: DeviceChoice,
    policy: &Policy,
) -> Result<Box<dyn Trainer>, OpenError> {
    on_split(job, model_dir, load_split(job, model_dir, datasets, site_label)?, site_label, device, policy)
}

/// The same, to evaluate on the site's test split and to train on nothing.
pub fn open_test(
    job: &Job,
    model_dir: Option<&Path>,
    datasets: &BTreeMap<String, DatasetConfig>,
    site_label: &str,
    device: DeviceChoice,
    policy: &Policy,
) -> Result<Box<dyn Trainer>, OpenError> {
    let (dataset, groups) = load_grouped(job, model_dir, datasets)?;
    on_split(job, model_dir, divide_test(job, dataset, groups, site_label), site_label, device, policy)
}

/// The site's data for `job`, divided as it is in every round. A site that the run leaves out trains on none of it.
pub fn load_split(
    job: &Job,
    model_dir: Option<&Path>,
    datasets: &BTreeMap<String, DatasetConfig>,
    site_label: &str,
) -> Result<Split, OpenError> {
    let (dataset, groups) = load_grouped(job, model_dir, datasets)?;
    divide(job, dataset, groups, site_label)
}

/// A site's examples, and the group of each if the run has groups, divided as they are in every round of `job`.
pub fn divide(
    job: &Job,
    dataset: Dataset,
    groups: Option<Vec<u32>>,
    site_label: &str,
) -> Result<Split, OpenError> {
    let spec = &job.spec;
    let Parts { rest, groups, .. } =
        data::hold_out_test(dataset, groups, spec.validation.test_split, spec.seed, site_label);
    if spec.validation.leaves_out(site_label) {
        return Ok(Split { train: rest.empty_like(), validation: rest });
    }
    let held_out = spec.validation.held_out;
    let mut split = data::split(rest, groups.as_deref(), held_out, spec.seed, site_label);
    if let Some(most) = spec.training.max_examples_per_class {
        split.train = data::few(split.train, most as usize, spec.seed, site_label);
    }
    if split.train.is_empty() && spec.task.input != TaskInput::Nothing {
        return Err(OpenError::NoExamples(spec.task.dataset.clone()));
    }
    Ok(split)
}

/// The part of a site's examples that the result of `job` is tested on.
pub fn divide_test(job: &Job, dataset: Dataset, groups: Option<Vec<u32>>, site_label: &str) -> Split {
    let spec = &job.spec;
    let Parts { rest, test, .. } =
        data::hold_out_test(dataset, groups, spec.validation.test_split, spec.seed, site_label);
    Split { train: rest.empty_like(), validation: test }
}

/// The site's data for `job`, whole, and the group of each example if the run has groups.
pub fn load_grouped(
    job: &Job,
    model_dir: Option<&Path>,
    datasets: &BTreeMap<String, DatasetConfig>,
) -> Result<(Dataset, Option<Vec<u32>>), OpenError> {
    let task = &job.spec.task;
    Ok(match datasets.get(&task.dataset) {
        Some(config) if task.input != TaskInput::Nothing => {
            data::load_grouped(config, &task.dataset, &sized(task, model_dir))?
        }
        Some(_) | None => (load(job, model_dir, datasets)?, None),
    })
}

/// The site's data for `job`, whole. A job without data needs no data set.
pub fn load(
    job: &Job,
    model_dir: Option<&Path>,
    datasets: &BTreeMap<String, DatasetConfig>,
) -> Result<Dataset, OpenError> {
    let task = &job.spec.task;
    if task.input == TaskInput::Nothing {
        let inputs = Inputs::Table { width: 0, values: Vec::new() };
        return Ok(Dataset { inputs, targets: Targets::Inputs(0) });
    }
    Ok(data::load(dataset(job, datasets)?, &task.dataset, &sized(task, model_dir))?)
}

/// What the site's data for `job` count to in a survey: all of them.
pub fn survey(job: &Job, datasets: &BTreeMap<String, DatasetConfig>) -> Result<Option<Counts>, OpenError> {
    let Kind::Survey { columns } = Kind::of(&job.spec) else { return Ok(None) };
    let task = &job.spec.task;
    Ok(Some(data::count(dataset(job, datasets)?, &task.dataset, task, &columns)?.into()))
}

fn dataset<'a>(
    job: &Job,
    datasets: &'a BTreeMap<String, DatasetConfig>,
) -> Result<&'a DatasetConfig, OpenError> {
    let name = &job.spec.task.dataset;
    let missing = || OpenError::NoSuchDataset { name: name.clone(), known: names(datasets) };
    datasets.get(name).ok_or_else(missing)
}

/// The task, with images of the size that the model was made for when the run does not say another.
fn sized(task: &Task, model_dir: Option<&Path>) -> Task {
    let mut task = task.clone();
    if let (TaskInput::Image { size: size @ None, .. }, Some(folder)) = (&mut task.input, model_dir) {
        let json = std::fs::read(folder.join(CONFIG_FILE)).ok();
        let config = json.and_then(|json| ModelConfig::parse(&json).ok());
        *size = config.and_then(|config| config.image_size()).and_then(|size| u32::try_from(size).ok());
    }
    task
}

fn names(datasets: &BTreeMap<String, DatasetConfig>) -> String {
    let names: Vec<String> = datasets.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The trainer for `job` on data already divided.
pub fn on_split(
    job: &Job,
    model_dir: Option<&Path>,
    split: Split,
    site_label: &str,
    device: DeviceChoice,
    policy: &Policy,
) -> Result<Box<dyn Trainer>, OpenError> {
    Ok(match &job.spec.model.source {
        ModelSource::Fresh(Architecture::Constant(_)) => Box::new(ConstantTrainer::new(site_label)),
        ModelSource::Fresh(Architecture::Softmax) => Box::new(SoftmaxTrainer::open(job, site_label, split)?),
        ModelSource::Fresh(Architecture::Mlp(_)) | ModelSource::Imported(_) => {
            let device = device::resolve(device::for_run(device, &job.spec.training))?;
            let allowed = &policy.torchscript;
            Box::new(TorchTrainer::open_allowing(job, model_dir, site_label, split, device, allowed)?)
        }
    })
}
