//! `sheaf-client train`: a run on one site's data alone. The same rounds, steps, seeds, schedule and trainer as in
//! the federation, with a fresh optimizer in every round, but what a round gives is where the next one starts.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use sheaf_common::id::{ClientId, Name};
use sheaf_common::metrics::{Kind, Report};
use sheaf_common::status::{Phase, Progress};
use sheaf_transport::tls::Credentials;

use super::OfflineError;
use super::export::{self, ExportFailed};
use super::run::{LocalRun, RunError};
use super::units::seconds;
use crate::config::{SiteConfig, SiteConfigError};
use crate::pace::Pace;
use crate::trainer::open::{OpenError, open, open_test};
use crate::trainer::{Round, TrainError, Trainer, Watch};

/// Between two lines about training that goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What to train.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// The run
    #[arg(long, value_name = "FILE")]
    pub run: PathBuf,
    /// Folder of the pretrained model that the run starts from
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Folder to write the trained model to; must not be there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Data set to train on, instead of the run's
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Split and shuffle as this site does [default: the certificate's, or `local` when it cannot be read]
    #[arg(long, value_name = "NAME")]
    pub site: Option<ClientId>,
    /// Print one JSON object at the end instead of lines
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// The run's name.
    pub run: Name,
    /// The site whose random choices were made.
    pub site: String,
    /// The data set.
    pub dataset: String,
    /// Examples trained on.
    pub num_examples: u64,
    /// The model before the first round, on the validation split.
    pub initial_metrics: Option<Report>,
    /// Each round.
    pub rounds: Vec<RoundResult>,
    /// The trained model on the test split, when the run has one.
    pub test_metrics: Option<Report>,
    /// Wall time of it all.
    pub seconds: f64,
    /// Where the model is.
    pub out: PathBuf,
}

/// What came of a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundResult {
    /// The round, from 1.
    pub round: u32,
    /// Mean training loss over the last epoch, in nats.
    pub train_loss: f64,
    /// The trained model on the validation split.
    pub metrics: Option<Report>,
    /// Wall time.
    pub seconds: f64,
}

/// The site could not be trained for.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// `site.toml`.
    #[error(transparent)]
    Site(#[from] SiteConfigError),
    /// `run.toml` and its model.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run does not train there.
    #[error("the run leaves {0} out: give another --site, or a run.toml without validation.leave_out")]
    LeftOut(String),
    /// Data, device or model.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Writing the model.
    #[error(transparent)]
    Export(#[from] ExportFailed),
}

/// Trains as the site of `site_toml`, and calls `each_round` with what came of every round.
pub fn train(
    site_toml: &Path,
    args: &TrainArgs,
    watch: &dyn Watch,
    each_round: &mut dyn FnMut(&RoundResult),
) -> Result<Baseline, BaselineError> {
    let started = Instant::now();
    export::check_free(&args.out)?;
    let config = SiteConfig::load(site_toml)?;
    let mut run = LocalRun::read(&args.run, args.model.as_deref())?;
    if let Some(dataset) = &args.dataset {
        run.job.spec.task.dataset.clone_from(dataset);
    }
    let site = site_label(args.site.as_ref(), &config);
    if run.job.spec.validation.leaves_out(&site) {
        return Err(BaselineError::LeftOut(site));
    }
    let mut params = run.initial_params()?;
    let mut trainer =
        open(&run.job, run.model_dir(), &config.datasets, &site, config.device, &config.policy)?;
    let spec = run.job.spec.clone();
    let kind = Kind::of(&spec);
    let initial_metrics = metrics(&mut *trainer, &params, &kind, watch)?;
    let mut rounds = Vec::new();
    for number in 1..=spec.rounds {
        let started = Instant::now();
        let trained = trainer.train(params, Round { number, of: spec.rounds }, watch)?;
        params = trained.params;
        let metrics = metrics(&mut *trainer, &params, &kind, watch)?;
        let seconds = started.elapsed().as_secs_f64();
        let result = RoundResult { round: number, train_loss: trained.train_loss, metrics, seconds };
        each_round(&result);
        rounds.push(result);
        if run.go_on(number, &mut params)? {
            // The old one's memory goes before the new one's comes.
            drop(trainer);
            trainer =
                open(&run.job, run.model_dir(), &config.datasets, &site, config.device, &config.policy)?;
        }
    }
    export::export(&run, &params, &site, &args.out)?;
    let num_examples = trainer.num_examples();
    // Likewise.
    drop(trainer);
    let test_metrics = match spec.tests() {
        true => metrics(
            &mut *open_test(
                &run.job,
                run.model_dir(),
                &config.datasets,
                &site,
                config.device,
                &config.policy,
            )?,
            &params,
            &kind,
            watch,
        )?,
        false => None,
    };
    Ok(Baseline {
        run: spec.name,
        site,
        dataset: spec.task.dataset,
        num_examples,
        initial_metrics,
        rounds,
        test_metrics,
        seconds: started.elapsed().as_secs_f64(),
        out: args.out.clone(),
    })
}

fn metrics(
    trainer: &mut dyn Trainer,
    params: &[f32],
    kind: &Kind,
    watch: &dyn Watch,
) -> Result<Option<Report>, TrainError> {
    Ok(trainer.evaluate(params, watch)?.map(|counts| counts.report(kind)))
}

/// The site's name: it decides what is held out and in which order the rest is trained on.
pub(super) fn site_label(given: Option<&ClientId>, config: &SiteConfig) -> String {
    match given {
        Some(site) => site.to_string(),
        None => Credentials::load(&config.identity)
            .map_or_else(|_| "local".to_owned(), |own| own.identity.name.to_string()),
    }
}

/// Says on standard error how far training is.
struct Aloud(RefCell<Pace>);

impl Watch for Aloud {
    fn progress(&self, progress: Progress) {
        let told = self.0.borrow_mut().follow(progress, Instant::now());
        // What was over before it could be told of is told with its round.
        let Some(progress) = told.filter(|told| told.phase == Phase::Training && told.time_left.is_some())
        else {
            return;
        };
        let _ = writeln!(io::stderr(), "{}", line(&progress));
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

fn line(progress: &Progress) -> String {
    let Progress { done, total, time_left, .. } = progress;
    let epoch = progress.epoch().map(|(epoch, epochs)| format!(", epoch {epoch} of {epochs}"));
    let left = time_left.map(|left| format!(", about {} left", seconds(left.as_secs_f64())));
    format!("training step {done} of {total}{}{}", epoch.unwrap_or_default(), left.unwrap_or_default())
}

/// Trains and prints each round when it is over, or all of it as JSON at the end.
pub(super) fn train_and_print(
    site_toml: &Path,
    args: &TrainArgs,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let mut printed = Ok(());
    let aloud = Aloud(RefCell::new(Pace::new(PROGRESS_EVERY)));
    let baseline = train(site_toml, args, &aloud, &mut |round| {
        if !args.json && printed.is_ok() {
            printed = print_round(round, out);
        }
    })?;
    printed?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &baseline).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let Baseline { site, dataset, num_examples, .. } = &baseline;
        writeln!(
            out,
            "trained on {num_examples} examples of `{dataset}` as `{site}` in {}",
            seconds(baseline.seconds)
        )?;
        if let Some(report) = &baseline.test_metrics {
            writeln!(out, "test: {report}")?;
        }
        writeln!(out, "wrote the model to {}", baseline.out.display())?;
    }
    Ok(())
}

fn print_round(result: &RoundResult, out: &mut dyn Write) -> io::Result<()> {
    let RoundResult { round, train_loss, metrics, .. } = result;
    write!(out, "round {round:>3}  train loss {train_loss:.4}")?;
    if let Some(report) = metrics {
        write!(out, "  validation: {report}")?;
    }
    writeln!(out, "  {}", seconds(result.seconds))?;
    out.flush()
}
