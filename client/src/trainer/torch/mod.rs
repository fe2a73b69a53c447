//! The trainer that uses libtorch: a text encoder, a perceptron on tables, an image classifier or a TorchScript module, to
//! give labels or a number, or a decoder of language, on a CPU or a GPU.
//!
//! What is frozen is computed once: the output of the layers below the first trained one is kept for every example
//! (f32, without padding, in main memory) for the life of the trainer, and both training and evaluation begin
//! there. With `trainable = "head"` that is one vector per text, with `"last:k"` one vector per token, of
//! `4 * hidden_size` bytes each. Dropout acts on the trained layers only.
//!
//! Read in this order: `network` (a model as a row of stages), `encoder`, `mlp`, `llama` and `gpt2` with `decoder`
//! (the models), `script` (a model that is a program), `norm`, `precision` (their products), `source` and
//! `parameters` (where their tensors come from and how the trained ones lie in memory), `tokenize`,
//! `sequences`, `prepared`, `ragged` and `augment` (data), `loss`, `optimizer`, `fitting` and `training` (a round's steps).
//!
//! What goes wrong is told to the operator, too: no sentence from here holds a path or a value of the site's data.

mod augment;
mod decoder;
mod encoder;
mod fitting;
mod gpt2;
mod llama;
mod loss;
mod mlp;
mod network;
mod norm;
mod optimizer;
mod parameters;
mod precision;
mod prepared;
mod ragged;
mod script;
mod sequences;
mod source;
#[cfg(test)]
mod tests;
mod tokenize;
mod training;
mod vision;

use std::collections::BTreeSet;
use std::path::Path;

use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::metrics::{self, Counts};
use sheaf_common::model::vision::Image;
use sheaf_common::model::{
    CONFIG_FILE, EncoderConfig, Gpt2Config, LlamaConfig, ModelConfig, PlanError, ScriptConfig, blocks, local,
};
use sheaf_common::run::{Architecture, ModelSource, RunSpec, TaskInput};
use sheaf_common::status::{Phase, Progress};
use tch::{Device, Reduction, TchError, Tensor};

use self::augment::Augment;
use self::network::{Mode, Network, ROWS_PER_BATCH, Stage};
use self::parameters::Parameters;
pub use self::prepared::Prepared;
use self::source::Source;
use self::tokenize::Tokens;
use crate::data::{Dataset, Split, Targets};
use crate::trainer::{Local, Round, TrainError, Trained, Trainer, Watch};

/// Tokens whose logits are there at a time when a language model is evaluated.
const TOKENS_PER_HEAD: usize = 256;

/// Trains one run's model on one site's data with libtorch.
pub struct TorchTrainer {
    spec: RunSpec,
    /// Keeps the random choices of sites of one run apart.
    site: String,
    device: Device,
    parameters: Parameters,
    /// What stays at the site, as the imported model has it.
    imported: Local,
    /// How many layers lie above each trained tensor.
    depths: Vec<u32>,
    network: Network,
    /// `None` when the model takes rows of a table.
    tokens: Option<Tokens>,
    train: Prepared,
    validation: Prepared,
}

impl TorchTrainer {
    /// A trainer for `job` on the examples of `split`. `model_dir` is the imported model's folder, and `site_label`
    /// tells this site's random choices from those of the run's other sites.
    ///
    /// # Errors
    /// When model, run and data do not fit each other, or a file cannot be read; one sentence.
    pub fn open(
        job: &Job,
        model_dir: Option<&Path>,
        site_label: &str,
        split: Split,
        device: Device,
    ) -> Result<Self, TrainError> {
        Self::open_allowing(job, model_dir, site_label, split, device, &BTreeSet::new())
    }

    /// [`TorchTrainer::open`] at a site that runs the TorchScript modules whose files have these hashes.
    ///
    /// # Errors
    /// As there, and when the model is another module.
    pub fn open_allowing(
        job: &Job,
        model_dir: Option<&Path>,
        site_label: &str,
        split: Split,
        device: Device,
        allowed: &BTreeSet<BlobId>,
    ) -> Result<Self, TrainError> {
        let spec = job.spec.clone();
        let config = model_dir.map(read_config).transpose()?;
        let unfit = |reason: PlanError| TrainError::Failed(reason.to_string());
        let depths = blocks(&spec, config.as_ref()).map_err(unfit)?.depths(&job.params);
        let own = local(&spec, config.as_ref(), &job.params).map_err(unfit)?;
        let mut parameters = Parameters::zeros(job.params.clone(), own.clone(), device)?;
        let mut source =
            Source::open(&parameters, model_dir, spec.model.lora.as_ref(), spec.training.precision, device)?;
        let num_labels = spec.task.num_outputs();
        let mut leaves = None;
        let (stages, tokens) = match Kind::of(&spec, config, model_dir)? {
            Kind::Encoder { config, model_dir, max_length } => {
                let stages = encoder::stages(&mut source, &config, spec.model.pooling, num_labels)?;
                (stages, Some(Tokens::open(model_dir, max_length, config.vocab_size)?))
            }
            Kind::Gpt2 { config, model_dir } => {
                let tokens = Tokens::open_whole(model_dir, config.vocab_size, config.eos_token_id)?;
                (gpt2::stages(&mut source, &config)?, Some(tokens))
            }
            Kind::Llama { config, model_dir, max_length } => {
                let tokens = Tokens::open_whole(model_dir, config.vocab_size, config.eos_token_id)?;
                (llama::stages(&mut source, &config, max_length)?, Some(tokens))
            }
            Kind::Image(image) => (vision::stages(&mut source, &image, num_labels, device)?, None),
            Kind::Script { config, model_dir } => {
                let (script, trained) = script::open(&mut source, &config, model_dir, allowed)?;
                leaves = Some(trained);
                (vec![Box::new(script) as Box<dyn Stage>], None)
            }
            Kind::Mlp { hidden } => {
                (mlp::stages(&mut source, spec.task.num_inputs(), &hidden, num_labels)?, None)
            }
        };
        let network = Network::new(stages, device);
        let imported = source.imported(&own)?;
        if let Some(leaves) = leaves {
            parameters.adopt(leaves);
        }
        parameters.set_local([&imported, &imported])?;
        let mut train = Prepared::new(&spec, tokens.as_ref(), &split.train)?;
        train.augment = Augment::new(&spec, tokens.as_ref(), device)?;
        let validation = Prepared::new(&spec, tokens.as_ref(), &split.validation)?;
        let site = site_label.to_owned();
        Ok(Self { spec, site, device, parameters, imported, depths, network, tokens, train, validation })
    }

    /// Brings another data set, a test set for instance, into the form that [`TorchTrainer::evaluate_on`] takes.
    ///
    /// # Errors
    /// When the data are not what the run's contract promises.
    pub fn prepare(&self, data: &Dataset) -> Result<Prepared, TrainError> {
        Prepared::new(&self.spec, self.tokens.as_ref(), data)
    }

    /// The model with `params` on `data`, which this trainer has prepared.
    ///
    /// # Errors
    /// When the task was called off, `params` has the wrong length, or libtorch fails.
    pub fn evaluate_on(
        &mut self,
        params: &[f32],
        data: &mut Prepared,
        watch: &dyn Watch,
    ) -> Result<Counts, TrainError> {
        self.parameters.set(params)?;
        evaluate(&self.network, &self.spec, data, watch)
    }
}

impl Trainer for TorchTrainer {
    fn num_examples(&self) -> u64 {
        self.train.len() as u64
    }

    fn train(&mut self, params: Vec<f32>, round: Round, watch: &dyn Watch) -> Result<Trained, TrainError> {
        self.parameters.set(&params)?;
        drop(params);
        training::train(self, round, watch)
    }

    fn evaluate(&mut self, params: &[f32], watch: &dyn Watch) -> Result<Option<Counts>, TrainError> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        self.parameters.set(params)?;
        evaluate(&self.network, &self.spec, &mut self.validation, watch).map(Some)
    }

    fn local(&self) -> Result<Local, TrainError> {
        Ok(self.parameters.local()?)
    }

    fn set_local(&mut self, kept: &Local) -> Result<(), TrainError> {
        Ok(self.parameters.set_local([kept, &self.imported])?)
    }
}

/// Counts over the logits of all examples of `data`.
fn evaluate(
    network: &Network,
    spec: &RunSpec,
    data: &mut Prepared,
    watch: &dyn Watch,
) -> Result<Counts, TrainError> {
    network.freeze(data, watch)?;
    let _guard = tch::no_grad_guard();
    let mut counts = Counts::new(&metrics::Kind::of(spec));
    let mut done = 0;
    for examples in data.features.by_length(ROWS_PER_BATCH) {
        step(watch, Progress::new(Phase::Evaluating, done as u64, data.len() as u64))?;
        if let (Counts::Language(counts), Targets::Tokens(tokens)) = (&mut counts, &data.targets) {
            let rows = network.below_head(data, &examples)?;
            let lengths = examples.iter().map(|example| tokens.count(*example));
            observe_tokens(counts, network, &rows, &tokens.of(&examples)?, lengths)?;
            done += examples.len();
            continue;
        }
        let logits = values(&network.logits(data, &examples, Mode::Inference)?)?;
        let outputs = logits.len() / examples.len().max(1);
        for (example, logits) in examples.iter().zip(logits.chunks_exact(outputs.max(1))) {
            observe(&mut counts, &data.targets, *example, logits);
        }
        done += examples.len();
    }
    step(watch, Progress::new(Phase::Evaluating, done as u64, data.len() as u64))?;
    Ok(counts)
}

/// Counts how well the tokens of some examples are foretold from `rows`, `[tokens, hidden]`. Of the logits, which are as
/// many as the vocabulary for each token, only those of a few tokens are there at a time.
fn observe_tokens(
    counts: &mut metrics::Language,
    network: &Network,
    rows: &Tensor,
    all: &[i64],
    lengths: impl Iterator<Item = usize>,
) -> Result<(), TrainError> {
    let mut seen = Vec::with_capacity(all.len());
    for (at, chunk) in (0..).step_by(TOKENS_PER_HEAD).zip(all.chunks(TOKENS_PER_HEAD)) {
        let logits = network.head(&rows.f_narrow(0, at, chunk.len() as i64)?, Mode::Inference)?;
        let expected = Tensor::f_from_slice(chunk)?.f_to(rows.device())?;
        let loss = logits.f_cross_entropy_loss(&expected, None::<&Tensor>, Reduction::None, -100, 0.0)?;
        let right = logits.f_argmax(-1, false)?.f_eq_tensor(&expected)?.f_to_kind(tch::Kind::Float)?;
        seen.extend(values(&loss)?.into_iter().zip(values(&right)?));
    }
    let mut seen = seen.into_iter().map(|(loss, right)| (f64::from(loss), right > 0.5));
    lengths.for_each(|length| counts.observe(seen.by_ref().take(length)));
    Ok(())
}

/// Counts what the model gives for one example.
fn observe(counts: &mut Counts, targets: &Targets, example: usize, logits: &[f32]) {
    match (counts, targets) {
        (Counts::Classification(counts), Targets::Label(labels)) => {
            counts.observe(labels[example] as usize, logits);
        }
        (Counts::MultiLabel(counts), Targets::Labels { width, values }) => {
            counts.observe(&values[example * width..(example + 1) * width], logits);
        }
        (Counts::Regression(counts), Targets::Number(numbers)) => {
            counts.observe(f64::from(numbers[example]), f64::from(logits[0]));
        }
        // The data were checked against the run when they were prepared.
        _ => {}
    }
}

/// All values of a tensor of f32, row-major.
fn values(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

/// Reports progress, and stops where the task was called off.
fn step(watch: &dyn Watch, progress: Progress) -> Result<(), TrainError> {
    if watch.is_cancelled() {
        return Err(TrainError::Cancelled);
    }
    watch.progress(progress);
    Ok(())
}

/// What kind of model a run trains.
enum Kind<'a> {
    Encoder { config: EncoderConfig, model_dir: &'a Path, max_length: u32 },
    Gpt2 { config: Gpt2Config, model_dir: &'a Path },
    Llama { config: LlamaConfig, model_dir: &'a Path, max_length: u32 },
    Image(Image),
    Script { config: ScriptConfig, model_dir: &'a Path },
    Mlp { hidden: Vec<u64> },
}

impl<'a> Kind<'a> {
    fn of(
        spec: &RunSpec,
        config: Option<ModelConfig>,
        model_dir: Option<&'a Path>,
    ) -> Result<Self, TrainError> {
        match (config, model_dir, &spec.model.source, &spec.task.input) {
            (Some(ModelConfig::Encoder(config)), Some(model_dir), _, TaskInput::Text { max_length, .. }) => {
                Ok(Self::Encoder { config, model_dir, max_length: *max_length })
            }
            (Some(ModelConfig::Gpt2(config)), Some(model_dir), _, TaskInput::Text { .. }) => {
                Ok(Self::Gpt2 { config, model_dir })
            }
            (Some(ModelConfig::Llama(config)), Some(model_dir), _, TaskInput::Text { max_length, .. }) => {
                Ok(Self::Llama { config, model_dir, max_length: *max_length })
            }
            (Some(ModelConfig::Image(image)), ..) => Ok(Self::Image(image)),
            (Some(ModelConfig::Script(config)), Some(model_dir), ..) => Ok(Self::Script { config, model_dir }),
            (Some(ModelConfig::Mlp(config)), _, _, TaskInput::Table { .. }) => {
                Ok(Self::Mlp { hidden: config.hidden })
            }
            (None, _, ModelSource::Fresh(Architecture::Mlp(hidden)), TaskInput::Table { .. }) => {
                Ok(Self::Mlp { hidden: hidden.clone() })
            }
            _ => Err(TrainError::Failed(
                "libtorch trains encoders and decoders on texts and perceptrons on tables, and this run is neither"
                    .into(),
            )),
        }
    }
}

fn read_config(model_dir: &Path) -> Result<ModelConfig, TrainError> {
    let bytes = std::fs::read(model_dir.join(CONFIG_FILE)).map_err(|reason| {
        TrainError::Failed(format!("the model's {CONFIG_FILE} cannot be read: {reason}"))
    })?;
    ModelConfig::parse(&bytes).map_err(|reason| TrainError::Failed(reason.to_string()))
}

impl From<TchError> for TrainError {
    fn from(error: TchError) -> Self {
        // libtorch's messages go on with a C++ stack trace.
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let remedy = if fitting::is_out_of_memory(&error) {
            ": lower training.batch_size or task.max_length"
        } else {
            ""
        };
        Self::Failed(format!("libtorch failed: {first}{remedy}"))
    }
}
