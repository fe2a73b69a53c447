//! Runs that a person at the site decides on (`policy.approve = "ask"`): a file each in the state folder, which the
//! daemon writes and `sheaf-client approve` marks.
//!
//! A decision is for one run as it is, named by the hash of all that is fixed in it. A run that is changed, or
//! submitted anew, is another.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sheaf_common::id::{ClientId, Name, RunId};
use sheaf_common::message::Job;
use sheaf_common::run::{ModelSource, SecureAggregation};

use crate::config::{Policy, SiteConfig, SiteConfigError};
use crate::offline::units::bytes;
use crate::state::{StateError, io_error, write_private};

/// Files that are kept at most, so that no server fills the disk.
const MAX: usize = 1000;

/// What a person needs to know to decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The run.
    pub run: RunId,
    /// The operator who asked for it.
    pub author: Name,
    /// What it is for.
    pub purpose: Option<String>,
    /// The model, by its name at the server or by its kind.
    pub model: String,
    /// The imported model's id.
    pub model_id: Option<String>,
    /// Which part of it is trained.
    pub trained: String,
    /// The data set.
    pub dataset: String,
    /// The columns that are read.
    pub columns: Vec<String>,
    /// Rounds; none is a survey.
    pub rounds: u32,
    /// Trained values, of which a difference leaves the site in each round.
    pub values: u64,
    /// Whether that is encrypted so that the server learns only sums.
    pub secure_aggregation: bool,
    /// A sum is over at least so many sites.
    pub min_updates: u32,
    /// The sites that may take part; all of the federation when not given.
    pub sites: Option<Vec<ClientId>>,
    /// Whether metrics leave the site.
    pub metrics: bool,
    /// Who said yes, if anybody did: the name of the user account.
    pub approved_by: Option<String>,
}

impl Question {
    /// About a job of an operator.
    pub fn new(run: &RunId, job: &Job, author: &Name, policy: &Policy) -> Self {
        let spec = &job.spec;
        let model = match &spec.model.source {
            ModelSource::Imported(name) => name.clone(),
            ModelSource::Fresh(_) => "one that starts from the run's seed".into(),
        };
        Self {
            run: run.clone(),
            author: author.clone(),
            purpose: spec.purpose.clone(),
            model,
            model_id: job.model.map(|id| id.to_string()),
            trained: spec.model.trained(),
            dataset: spec.task.dataset.clone(),
            columns: spec.task.input_columns().into_iter().map(str::to_owned).collect(),
            rounds: spec.rounds,
            values: job.params.numel(),
            secure_aggregation: spec.secure_aggregation != SecureAggregation::Off,
            min_updates: spec.cohort.min_updates,
            sites: spec.cohort.sites.clone(),
            metrics: policy.metrics && spec.validates(),
            approved_by: None,
        }
    }

    /// Says what would leave, and to whom.
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let sites = self.sites.as_ref().map_or_else(
            || "any of the federation".to_owned(),
            |sites| sites.iter().map(ClientId::as_str).collect::<Vec<_>>().join(", "),
        );
        let to = if self.secure_aggregation {
            format!("encrypted: the server learns sums over at least {} sites", self.min_updates)
        } else {
            "NOT ENCRYPTED: the server sees this site's own".to_owned()
        };
        let leaves = if self.rounds == 0 {
            "counts of what the data set holds".to_owned()
        } else {
            let metrics = if self.metrics { ", and counts over the validation split" } else { "" };
            format!(
                "in each of {} rounds a difference of {} values (about {}) and the number of examples{metrics}",
                self.rounds,
                self.values,
                bytes(self.values.saturating_mul(4))
            )
        };
        let model = match &self.model_id {
            Some(id) => format!("{} ({id}), trained: {}", self.model, self.trained),
            None => format!("{}, trained: {}", self.model, self.trained),
        };
        writeln!(out, "run       {}, asked for by operator {}", self.run, self.author)?;
        writeln!(out, "purpose   {}", self.purpose.as_deref().unwrap_or("not said"))?;
        writeln!(out, "model     {model}")?;
        writeln!(out, "data      `{}`: {}", self.dataset, self.columns.join(", "))?;
        writeln!(out, "leaves    {leaves}")?;
        writeln!(out, "to        {to}")?;
        writeln!(out, "sites     {sites}")?;
        match &self.approved_by {
            Some(by) => writeln!(out, "approved  by {by}"),
            None => writeln!(out, "approved  not yet: `sheaf-client approve {}`", self.run),
        }
    }
}

/// The questions of a site.
#[derive(Clone, Debug)]
pub struct Approvals {
    folder: PathBuf,
}

impl Approvals {
    /// Those in a state folder.
    pub fn of(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("approvals") }
    }

    /// Whether a person has approved of a job; the question is put if it was not before.
    pub fn ask(
        &self,
        run: &RunId,
        job: &Job,
        question: impl FnOnce() -> Question,
    ) -> Result<bool, StateError> {
        // Another run of the same text has another time, and so another origin.
        let path = self.folder.join(format!("{run}.{}.json", job.origin()));
        match read(&path) {
            Ok(question) => Ok(question.approved_by.is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder).map_err(|e| io_error("make", &self.folder, e))?;
                let there =
                    fs::read_dir(&self.folder).map_err(|e| io_error("list", &self.folder, e))?.count();
                if there >= MAX {
                    let full =
                        io::Error::other(format!("{MAX} runs were asked for already: remove what is old"));
                    return Err(io_error("ask in", &self.folder, full));
                }
                write(&path, &question())?;
                Ok(false)
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    fn all(&self) -> Result<Vec<(PathBuf, Question)>, StateError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &self.folder, error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| io_error("list", &self.folder, e))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let question = read(&path).map_err(|e| io_error("read", &path, e))?;
                all.push((path, question));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }
}

fn read(path: &Path) -> io::Result<Question> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write(path: &Path, question: &Question) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(question).map_err(|e| io_error("write", path, e.into()))?;
    write_private(path, &text)
}

/// What to decide on.
#[derive(Clone, Debug, clap::Args)]
pub struct ApproveArgs {
    /// The run; without it, lists those that were asked for
    pub run: Option<RunId>,
}

/// Nothing was approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// `site.toml` is wrong.
    #[error(transparent)]
    Config(#[from] SiteConfigError),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nobody asked.
    #[error("run {0} does not wait for approval here: `sheaf-client approve` lists those that do")]
    NotAsked(RunId),
    /// Printing.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Lists the questions, or says yes to one: to all runs of that name that wait, each of which is shown.
pub fn approve(site_toml: &Path, args: &ApproveArgs, out: &mut dyn Write) -> Result<(), ApproveError> {
    let approvals = Approvals::of(&SiteConfig::load(site_toml)?.state_dir);
    let all = approvals.all()?;
    let Some(run) = &args.run else {
        if all.is_empty() {
            writeln!(
                out,
                "no run has asked; with `approve = \"ask\"` under [policy] each run waits for a yes"
            )?;
        }
        for (at, (_, question)) in all.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            question.print(out)?;
        }
        return Ok(());
    };
    let waiting: Vec<_> = all
        .into_iter()
        .filter(|(_, question)| question.run == *run && question.approved_by.is_none())
        .collect();
    if waiting.is_empty() {
        return Err(ApproveError::NotAsked(run.clone()));
    }
    for (path, mut question) in waiting {
        question.approved_by = Some(std::env::var("USER").unwrap_or_else(|_| "an unnamed account".into()));
        question.print(out)?;
        write(&path, &question)?;
    }
    writeln!(out, "the daemon begins within a second, if it runs")?;
    Ok(())
}
