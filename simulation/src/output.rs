//! What a simulation leaves in its folder: `partition.csv`, `assignment.csv`, `rounds.csv` and `rounds.parquet`, `report.json`, and the trained model
//! as `model/`.
//! Every file is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::message::ExportPlan;
use sheaf_common::model::{CONFIG_FILE, ExportError, WEIGHTS_FILE, export_config, export_weights};
use sheaf_common::status::{RunState, RunStatus, RunSummary};
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::durable::{self, Outlive};

use crate::base::Base;
use crate::baselines::Baselines;
use crate::columns::{Cells, Columns};
use crate::config::Setting;
use crate::data::Examples;
use crate::federation::{End, Federation};
use crate::rounds::{Row, Score, Traffic, score};

const PARTITION: &str = "partition.csv";
const ASSIGNMENT: &str = "assignment.csv";
const ROUNDS: &str = "rounds.csv";
/// The file of the report.
pub const REPORT: &str = "report.json";

/// The folder of the trained model.
pub const MODEL: &str = "model";

/// What is replaced, beside the report.
pub(crate) const OUTPUTS: [&str; 4] = [PARTITION, ASSIGNMENT, ROUNDS, MODEL];

/// Something cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The disk said no.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The model cannot be put together.
    #[error(transparent)]
    Model(#[from] ExportError),
    /// A report from before cannot be read.
    #[error("{path} cannot be read ({why}): remove it, or choose another folder with --out", path = .path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The folder is another simulation's.
    #[error(
        "{0} holds a simulation of other files, or of other data: choose another folder with --out, or remove it"
    )]
    Another(PathBuf),
}

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it was of.
    pub id: String,
    /// The run's name.
    pub run: String,
    /// Virtual clients.
    pub clients: u32,
    /// The simulation's seed.
    pub seed: u64,
    /// How the run ended.
    pub state: String,
    /// In a sentence, why.
    pub detail: String,
    /// Rounds completed.
    pub rounds: u32,
    /// Attempts that came to nothing.
    pub abandoned: u32,
    /// The rounds after which the result is.
    pub result: u32,
    /// The name of its parameters: their BLAKE3 hash.
    pub model: String,
    /// The result on the common test set.
    pub test: Score,
    /// The final model on the clients' validation splits.
    pub validation: Score,
    /// The result on the clients' test splits.
    pub clients_test: Score,
    /// What else was trained.
    pub baselines: Baselines,
    /// Every attempt at a round.
    pub history: Vec<Row>,
    /// Bytes that all clients together sent and received.
    pub traffic: Traffic,
    /// Simulated seconds.
    pub simulated_seconds: f64,
    /// Real seconds, the baselines left out.
    pub real_seconds: f64,
    /// Most memory that the program held, in bytes.
    pub peak_memory: u64,
}

impl Report {
    /// The report on a run that is over.
    pub fn new(setting: &Setting, of: BlobId, rows: &[Row], end: &End, baselines: Baselines) -> Self {
        let mut traffic = end.traffic;
        rows.iter().for_each(|row| traffic += row.traffic);
        let result = rows.iter().find(|row| row.is_completed() && row.round == end.result);
        let completed = rows.iter().filter(|row| row.is_completed()).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            id: of.to_string(),
            run: setting.spec.name.to_string(),
            clients: setting.simulation.clients.get(),
            seed: setting.simulation.seed,
            state: state(&end.state).to_owned(),
            detail: end.detail.clone(),
            rounds: count(completed),
            abandoned: count(rows.len() - completed),
            result: end.result,
            model: end.model.to_string(),
            test: result.map(|row| row.test.clone()).unwrap_or_default(),
            validation: end.last.validation.as_ref().map(score).unwrap_or_default(),
            clients_test: end.last.test.as_ref().map(score).unwrap_or_default(),
            baselines,
            history: rows.to_vec(),
            traffic,
            simulated_seconds: end.simulated.as_secs_f64(),
            real_seconds: end.real.as_secs_f64(),
            peak_memory: peak_memory(),
        }
    }

    /// Whether all rounds were completed.
    pub fn is_completed(&self) -> bool {
        self.state == state(&RunState::Completed)
    }
}

fn state(state: &RunState) -> &'static str {
    match state {
        RunState::Completed => "completed",
        RunState::Failed => "failed",
        RunState::Stopped => "stopped",
        RunState::Queued | RunState::Waiting | RunState::Running | RunState::Evaluating => "under way",
    }
}

/// The report of a simulation that is over already, if it is this one's.
pub fn finished(out: &Path, of: BlobId) -> Result<Option<Report>, OutputError> {
    let path = out.join(REPORT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OutputError::Report { path, why: error.to_string() }),
    };
    let report: Report = serde_json::from_slice(&bytes)
        .map_err(|error| OutputError::Report { path: path.clone(), why: error.to_string() })?;
    if report.id == of.to_string() { Ok(Some(report)) } else { Err(OutputError::Another(out.to_owned())) }
}

/// Writes how many examples of each label every client has, or of all labels together where there are none; and who has which.
pub fn write_partition(out: &Path, setting: &Setting, examples: &Examples) -> Result<(), OutputError> {
    let labels = setting.spec.task.labels();
    let mut rows = vec![["client".to_owned(), "label".to_owned(), "count".to_owned()]];
    for number in 0..setting.simulation.clients.get() {
        let Ok(name) = setting.simulation.name(number) else { continue };
        let counts = examples.labels(number, labels.len());
        if counts.is_empty() {
            rows.push([name.to_string(), String::new(), examples.count(number).to_string()]);
        }
        for (label, count) in labels.iter().zip(counts).filter(|(_, count)| *count > 0) {
            rows.push([name.to_string(), label.clone(), count.to_string()]);
        }
    }
    write_csv(&out.join(PARTITION), &rows)?;
    write_assignment(out, setting, examples)
}

/// A line for each example of the source, which may be very many.
fn write_assignment(out: &Path, setting: &Setting, examples: &Examples) -> Result<(), OutputError> {
    let path = out.join(ASSIGNMENT);
    let names = (0..setting.simulation.clients.get())
        .map(|number| setting.simulation.name(number).map_or(String::new(), |name| name.to_string()));
    let names: Vec<String> = names.collect();
    let write = || -> io::Result<()> {
        let unfinished = out.join(format!("{ASSIGNMENT}{}", durable::UNFINISHED));
        let mut file = BufWriter::new(File::create(&unfinished)?);
        writeln!(file, "example,client")?;
        for (example, owner) in examples.owners().into_iter().enumerate() {
            let name = owner.and_then(|owner| names.get(owner as usize));
            writeln!(file, "{example},{}", name.map_or("", String::as_str))?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(|source| OutputError::Write { path: path.clone(), source })
}

/// Writes a row for each round that is over, with the metrics that any of them has.
pub fn write_rounds(out: &Path, rows: &[Row]) -> Result<(), OutputError> {
    type Of = fn(&Row) -> &Score;
    let names = |of: Of| -> Vec<String> {
        let all: std::collections::BTreeSet<&String> = rows.iter().flat_map(|row| of(row).keys()).collect();
        all.into_iter().cloned().collect()
    };
    let counts = |of: fn(&Row) -> u64| Cells::Counts(rows.iter().map(of).collect());
    let numbers = |of: fn(&Row) -> Option<f64>| Cells::Numbers(rows.iter().map(of).collect());
    let metric =
        |of: Of, name: &str| Cells::Numbers(rows.iter().map(|row| of(row).get(name).copied()).collect());
    let mut table = Columns::default()
        .with("round", counts(|row| row.round.into()))
        .with("attempt", counts(|row| row.attempt.into()))
        .with("cohort", counts(|row| row.cohort.into()))
        .with("participants", counts(|row| row.participants.into()))
        .with("bytes_up", counts(|row| row.traffic.up))
        .with("bytes_down", counts(|row| row.traffic.down))
        .with("simulated_seconds", numbers(|row| Some(row.simulated)))
        .with("real_seconds", numbers(|row| Some(row.real)))
        .with("train_loss", numbers(|row| row.train_loss));
    let sets: [(&str, Of); 2] = [("test", |row| &row.test), ("validation", |row| &row.validation)];
    for (set, of) in sets {
        for name in names(of) {
            table = table.with(format!("{set}_{name}"), metric(of, &name));
        }
    }
    let abandoned = Cells::Words(rows.iter().map(|row| row.abandoned.clone()).collect());
    table.with("abandoned", abandoned).write(&out.join(ROUNDS))
}

/// Writes the report.
pub fn write_report(out: &Path, report: &Report) -> Result<(), OutputError> {
    let path = out.join(REPORT);
    let text = serde_json::to_vec_pretty(report)
        .map_err(|error| OutputError::Report { path: path.clone(), why: error.to_string() })?;
    write(&path, &text)
}

/// Writes the run's result as a folder that `sheaf-client evaluate` takes.
pub fn write_model(
    out: &Path,
    plan: &ExportPlan,
    base: Option<&Base>,
    blobs: &BlobDir,
) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { path: out.join(MODEL), source };
    let mut parts = base.map(Base::parts).transpose().map_err(failed)?;
    let (written, model) = match &parts {
        Some((written, model, _)) => (Some(written.as_slice()), Some(*model)),
        None => (None, None),
    };
    let config = export_config(plan, written)?;
    let weights = export_weights(plan, model.map(|model| &model.config), model.map(|model| &model.weights))?;
    let (folder, unfinished) = (out.join(MODEL), out.join(format!("{MODEL}{}", durable::UNFINISHED)));
    let mut write = || -> io::Result<()> {
        for old in [&folder, &unfinished] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        fs::create_dir(&unfinished)?;
        base.map_or(Ok(()), |base| base.copy_others(&unfinished))?;
        fs::write(unfinished.join(CONFIG_FILE), &config)?;
        let mut file = BufWriter::new(File::create_new(unfinished.join(WEIGHTS_FILE))?);
        let mut values = blobs.reader(plan.job.global).map_err(io::Error::other)?;
        let values_of_base = parts.as_mut().map(|(_, _, values)| values as _);
        weights.write(&mut file, values_of_base, &mut values)?;
        file.flush()?;
        durable::publish(&unfinished, &folder)
    };
    write().map_err(failed)
}

/// What the model of a run on simulated time is put together from.
pub fn export_plan(federation: &Federation, end: &End) -> ExportPlan {
    let run = federation.coordinator();
    let (mut job, fixed) = (run.job(), run.run());
    job.global = end.model;
    job.params = fixed.phases.after(end.result).clone();
    let summary = RunSummary {
        run: fixed.id.clone(),
        state: end.state.clone(),
        detail: end.detail.clone(),
        completed_rounds: run.completed(),
        rounds: fixed.spec.rounds,
        submitted_by: fixed.submitted_by.clone(),
        submitted_at: fixed.submitted_at,
    };
    let status = RunStatus {
        summary,
        spec: fixed.spec.clone(),
        num_params: job.params.numel(),
        held: Vec::new(),
        current: None,
        earlier_records: 0,
        history: Vec::new(),
        final_metrics: end.last.validation.clone(),
        test_metrics: end.last.test.clone(),
        best: run.best(),
        result: end.result,
        global: end.model,
    };
    ExportPlan { status, round: end.result, job }
}

/// Writes a table of records, whole or not at all.
pub(crate) fn write_csv<R>(path: &Path, rows: &[R]) -> Result<(), OutputError>
where
    R: Clone + IntoIterator,
    R::Item: AsRef<[u8]>,
{
    let failed = |source: io::Error| OutputError::Write { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.clone()).map_err(|e| failed(io::Error::other(e)))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(io::Error::other(e.to_string())))?;
    write(path, &bytes)
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    Outlive::Power
        .write(path, bytes, 0o644)
        .map_err(|source| OutputError::Write { path: path.to_owned(), source })
}

/// Most memory that this process has held, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
