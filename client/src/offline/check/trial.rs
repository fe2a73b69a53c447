//! A few steps of a run on this site's data and device, and from them what a round will cost.

use std::fs;
use std::path::Path;
use std::time::Instant;

use sheaf_common::message::Job;
use sheaf_common::model::{CONFIG_FILE, MODULE_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use sheaf_common::run::{LocalWork, TaskInput};

use super::{CheckReport, ClassCount, Cost};
use crate::config::SiteConfig;
use crate::data::Split;
use crate::offline::run::{LocalRun, RunError};
use crate::offline::train::site_label;
use crate::trainer::batches::Batches;
use crate::trainer::open::{OpenError, load_split, on_split};
use crate::trainer::{Round, TrainError, Unwatched};

/// So many steps are measured, after as many that warm everything up.
const STEPS: u32 = 4;

/// The step could not be done.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Train(#[from] TrainError),
}

pub(super) fn check(config: &SiteConfig, run: &Path, model: Option<&Path>, report: &mut CheckReport) {
    let run = match LocalRun::read(run, model) {
        Ok(run) => run,
        Err(error) => return report.add("run", Err(error.to_string())),
    };
    let spec = &run.job.spec;
    report.add("run", Ok(format!("{}, {} rounds", spec.name, spec.rounds)));
    let site = site_label(None, config);
    let split = match load_split(&run.job, run.model_dir(), &config.datasets, &site) {
        Ok(split) => split,
        Err(error) => return report.add("contract", Err(error.to_string())),
    };
    report.add("contract", Ok(format!("data set `{}` meets it", spec.task.dataset)));
    report.add("metrics", Ok(metrics(config, split.validation.len() as u64)));
    if spec.validation.leaves_out(&site) {
        let said = config.policy.keeps_own_metrics();
        let said = said.unwrap_or_else(|| "it is left out: all of its data evaluates the final model".into());
        return report.add("training step", Ok(format!("the run leaves this site out; {said}")));
    }
    let phase = if spec.model.unfreeze.is_empty() { "" } else { ", of the last phase" };
    match cost(run, split, &site, config) {
        Ok(cost) => {
            report.add("training step", Ok(format!("{STEPS} of them measured{phase}")));
            report.cost = Some(cost);
        }
        Err(error) => report.add("training step", Err(error.to_string())),
    }
}

/// Whether metrics are sent. That they are not is how the site wants it, and no failure.
fn metrics(config: &SiteConfig, held_out: u64) -> String {
    config.policy.withholds(held_out).map_or_else(
        || format!("are sent, of {held_out} validation examples"),
        |reason| format!("are not sent: {reason}"),
    )
}

/// Of the last phase, which costs most.
fn cost(mut run: LocalRun, split: Split, site: &str, config: &SiteConfig) -> Result<Cost, TrialError> {
    let mut params = run.initial_params()?;
    run.go_on(run.job.spec.rounds, &mut params)?;
    let (classes, validation_examples) = (classes(&run.job, &split), split.validation.len() as u64);
    let mut job = run.job.clone();
    job.spec.training.local = LocalWork::Steps(STEPS);

    let started = Instant::now();
    let mut trainer = on_split(&job, run.model_dir(), split, site, config.device, &config.policy)?;
    let params = trainer.train(params, Round { number: 1, of: 2 }, &Unwatched)?.params;
    trainer.evaluate(&params, &Unwatched)?;
    let seconds_to_prepare = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let params = trainer.train(params, Round { number: 2, of: 2 }, &Unwatched)?.params;
    // Without data a round is one step, whatever the run says.
    let has_data = job.spec.task.input != TaskInput::Nothing;
    let seconds_per_step = started.elapsed().as_secs_f64() / if has_data { f64::from(STEPS) } else { 1.0 };

    let started = Instant::now();
    trainer.evaluate(&params, &Unwatched)?;
    let seconds_to_evaluate = started.elapsed().as_secs_f64();

    let train_examples = trainer.num_examples();
    let batches = Batches::new(&run.job.spec.training, train_examples as usize);
    let steps_per_round = if has_data { batches.steps } else { 1 };
    let bytes = job.params.bytes();
    Ok(Cost {
        train_examples,
        validation_examples,
        classes,
        parameters: job.params.numel(),
        seconds_to_prepare,
        seconds_per_step,
        steps_per_round,
        seconds_per_round: steps_per_round as f64 * seconds_per_step + 2.0 * seconds_to_evaluate,
        peak_memory_bytes: peak_memory(),
        bytes_down_once: model_bytes(run.model_dir()),
        bytes_down_per_round: bytes,
        bytes_up_per_round: bytes,
    })
}

fn classes(job: &Job, split: &Split) -> Vec<ClassCount> {
    let labels = job.spec.task.labels();
    let train = split.train.targets.label_counts(labels.len());
    let validation = split.validation.targets.label_counts(labels.len());
    let counts = train.into_iter().zip(validation);
    let class =
        |(label, (train, validation)): (&String, _)| ClassCount { label: label.clone(), train, validation };
    labels.iter().zip(counts).map(class).collect()
}

/// Bytes of the files that a site fetches of a model.
fn model_bytes(folder: Option<&Path>) -> u64 {
    let names = [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, MODULE_FILE];
    let files = folder.into_iter().flat_map(|folder| names.map(|name| folder.join(name)));
    files.filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}

/// The most main memory that this process has had, as Linux counts it.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
