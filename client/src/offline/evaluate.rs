//! `sheaf-client evaluate`: models on one whole data set, a common test set for instance. What the models share,
//! their frozen layers, is computed once for all of them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sheaf_common::metrics::{Figure, Kind, Report};
use sheaf_common::model::plan::blocks;
use sheaf_common::model::{CONFIG_FILE, ModelConfig};
use sheaf_common::params::ParamTensor;
use sheaf_common::run::TaskInput;

use super::folder::{FolderError, WeightsFile};
use super::run::{LocalRun, RunError};
use super::units::metric;
use crate::config::{SiteConfig, SiteConfigError};
use crate::data::Split;
use crate::trainer::open::{OpenError, load, on_split};
use crate::trainer::{TrainError, Unwatched};

/// What to score.
#[derive(Clone, Debug, clap::Args)]
pub struct EvaluateArgs {
    /// The run that the models were trained in
    #[arg(long, value_name = "FILE")]
    pub run: PathBuf,
    /// Data set to score on, instead of the run's
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Folder of a trained model, as `sheaf model export` and `sheaf-client train` write it; may be repeated
    #[arg(long = "model", value_name = "DIR", required = true)]
    pub models: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The data set.
    pub dataset: String,
    /// Its examples.
    pub num_examples: u64,
    /// Each model, in the order given.
    pub models: Vec<Score>,
}

/// One model's metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Its folder.
    pub model: PathBuf,
    /// Its metrics.
    pub metrics: Report,
}

/// The models could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// `site.toml`.
    #[error(transparent)]
    Site(#[from] SiteConfigError),
    /// `run.toml` and the first model.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A model.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A model has learned other labels.
    #[error("{model} tells apart {found:?}, and the run {expected:?}: give the run that it was trained in", model = .model.display())]
    Labels {
        /// The model.
        model: PathBuf,
        /// Its labels.
        found: Vec<String>,
        /// The run's.
        expected: Vec<String>,
    },
    /// Two models differ in what the run does not train.
    #[error("{model} and {first} differ in `{tensor}`, which the run does not train: evaluate them one at a time", model = .model.display(), first = .first.display())]
    FrozenPart {
        /// A model.
        model: PathBuf,
        /// The first one.
        first: PathBuf,
        /// Where they differ.
        tensor: String,
    },
    /// Data, device or model.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Evaluating.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// There is nothing to measure.
    #[error("the run's task is \"none\": there is nothing to score")]
    NoTask,
    /// No model was given.
    #[error("give at least one trained model with --model")]
    NoModel,
}

/// Scores the models on a data set of the site of `site_toml`.
pub fn evaluate(site_toml: &Path, args: &EvaluateArgs) -> Result<Evaluation, EvaluateError> {
    let config = SiteConfig::load(site_toml)?;
    let first = args.models.first().ok_or(EvaluateError::NoModel)?;
    let mut run = LocalRun::read_trained(&args.run, first)?;
    if run.job.spec.task.input == TaskInput::Nothing {
        return Err(EvaluateError::NoTask);
    }
    if let Some(dataset) = &args.dataset {
        run.job.spec.task.dataset.clone_from(dataset);
    }
    // All models are looked at before the first of them is set to work.
    let models = models(args, &run)?;
    let dataset = load(&run.job, run.model_dir(), &config.datasets)?;
    let num_examples = dataset.len() as u64;
    let split = Split { train: dataset.empty_like(), validation: dataset };
    let mut trainer =
        on_split(&run.job, run.model_dir(), split, "evaluation", config.device, &config.policy)?;
    let mut scores = Vec::new();
    for weights in &models {
        let params = weights.params(&run.job.params)?;
        let counts = trainer.evaluate(&params, &Unwatched)?.ok_or(EvaluateError::NoTask)?;
        scores
            .push(Score { model: weights.folder.clone(), metrics: counts.report(&Kind::of(&run.job.spec)) });
    }
    Ok(Evaluation { dataset: run.job.spec.task.dataset, num_examples, models: scores })
}

fn models(args: &EvaluateArgs, run: &LocalRun) -> Result<Vec<WeightsFile>, EvaluateError> {
    let models = args.models.iter().map(|folder| WeightsFile::open(folder)).collect::<Result<Vec<_>, _>>()?;
    let frozen = frozen(run);
    if let [first, others @ ..] = models.as_slice() {
        for model in others {
            same_frozen_part(first, model, &frozen)?;
        }
    }
    for model in &models {
        for tensor in &run.job.params.tensors {
            let missing = |reason| FolderError::Weights { folder: model.folder.clone(), reason };
            model.tensors.require(&tensor.name, &tensor.shape).map_err(missing)?;
        }
        same_labels(model, run.job.spec.task.labels())?;
    }
    Ok(models)
}

/// The model's tensors that the run does not train.
fn frozen(run: &LocalRun) -> Vec<ParamTensor> {
    let config = run.model.as_ref().map(|model| &model.config);
    // The same run was planned with the same model already.
    let all = blocks(&run.job.spec, config).map(|blocks| blocks.all().cloned().collect()).unwrap_or_default();
    let is_frozen = |tensor: &ParamTensor| !run.job.params.tensors.contains(tensor);
    Vec::into_iter(all).filter(is_frozen).collect()
}

fn same_frozen_part(
    first: &WeightsFile,
    model: &WeightsFile,
    frozen: &[ParamTensor],
) -> Result<(), EvaluateError> {
    for ParamTensor { name, shape } in frozen {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        if bits(first.tensor(name, shape)?) != bits(model.tensor(name, shape)?) {
            let (model, first) = (model.folder.clone(), first.folder.clone());
            return Err(EvaluateError::FrozenPart { model, first, tensor: name.clone() });
        }
    }
    Ok(())
}

/// A model that names its labels must name the run's.
fn same_labels(model: &WeightsFile, expected: &[String]) -> Result<(), EvaluateError> {
    let config = std::fs::read(model.folder.join(CONFIG_FILE)).ok();
    let config = config.and_then(|json| ModelConfig::parse(&json).ok());
    let found = config.as_ref().map(ModelConfig::labels).unwrap_or_default();
    if found.is_empty() || found == expected {
        return Ok(());
    }
    Err(EvaluateError::Labels {
        model: model.folder.clone(),
        found: found.to_vec(),
        expected: expected.to_vec(),
    })
}

impl Evaluation {
    /// Prints a table, or JSON.
    pub(super) fn print(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        writeln!(out, "{} examples of `{}`\n", self.num_examples, self.dataset)?;
        let line = |figures: &[Figure], cell: fn(&Figure) -> String| {
            let cells =
                figures.iter().map(|figure| format!("{:>width$}  ", cell(figure), width = width(figure)));
            cells.collect::<String>()
        };
        if let Some(first) = self.models.first() {
            writeln!(out, "{}MODEL", line(&first.metrics.headline(), |figure| figure.name.to_uppercase()))?;
        }
        for Score { model, metrics } in &self.models {
            let figures = line(&metrics.headline(), |figure| metric(figure.value));
            writeln!(out, "{figures}{}", model.display())?;
        }
        Ok(())
    }
}

/// As wide as its name and as a metric is.
fn width(figure: &Figure) -> usize {
    figure.name.chars().count().max(8)
}
