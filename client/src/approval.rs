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
use sheaf_common::model::phases;
use sheaf_common::run::{ModelSource, SecureAggregation};

use crate::config::{Policy, SiteConfig, SiteConfigError};
use crate::offline::units::bytes;
use crate::state::{StateError, io_error, write_private};

/// Files that are kept at most, so that no server fills the disk.
const MAX: usize = 1000;

/// Digits of a run's hash that are shown.
const ID_DIGITS: usize = 12;

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
    /// Trained values in the last round, of which a difference leaves the site in each.
    pub values: u64,
    /// Whether they were counted here; those of an imported model, which is not here yet, are as the server says.
    #[serde(default)]
    pub counted: bool,
    /// Whether the run leaves this site out: it trains nothing, and is evaluated by itself.
    #[serde(default)]
    pub left_out: bool,
    /// Whether that is encrypted so that the server learns only sums.
    pub secure_aggregation: bool,
    /// A sum is over at least so many sites.
    pub min_updates: u32,
    /// The sites that may take part; all of the federation when not given.
    pub sites: Option<Vec<ClientId>>,
    /// Whether metrics of the validation split leave the site.
    pub metrics: bool,
    /// Whether metrics of the test split do.
    #[serde(default)]
    pub tests: bool,
    /// Who said yes, if anybody did: the name of the user account.
    pub approved_by: Option<String>,
}

impl Question {
    /// About a job of an operator, at a site.
    pub fn new(run: &RunId, job: &Job, author: &Name, site: &Name, policy: &Policy) -> Self {
        let spec = &job.spec;
        let planned = phases(spec, None).ok().filter(|_| job.model.is_none());
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
            values: planned.as_ref().map_or(&job.params, |planned| planned.after(spec.rounds)).numel(),
            counted: planned.is_some(),
            left_out: spec.validation.leaves_out(site.as_str()),
            secure_aggregation: spec.secure_aggregation != SecureAggregation::Off,
            min_updates: spec.cohort.min_updates,
            sites: spec.cohort.sites.clone(),
            metrics: policy.metrics && spec.validates(),
            tests: policy.metrics && spec.tests(),
            approved_by: None,
        }
    }

    /// Says what would leave, and to whom.
    fn print(&self, id: &str, out: &mut dyn Write) -> io::Result<()> {
        let sites = self.sites.as_ref().map_or_else(
            || "any of the federation".to_owned(),
            |sites| sites.iter().map(ClientId::as_str).collect::<Vec<_>>().join(", "),
        );
        let to = if self.secure_aggregation && !self.left_out {
            format!("encrypted: the server learns sums over at least {} sites", self.min_updates)
        } else {
            "NOT ENCRYPTED: the server sees this site's own".to_owned()
        };
        let leaves = if self.rounds == 0 {
            "counts of what the data set holds".to_owned()
        } else if self.left_out {
            "no update, as the run leaves this site out: counts over all of its examples".to_owned()
        } else {
            let counted = if self.counted { "" } else { " by the server's count" };
            let metrics = if self.metrics { ", counts over the validation split" } else { "" };
            let tests = if self.tests { ", and at the end counts over the test split" } else { "" };
            format!(
                "in each of {} rounds a difference of {} values{counted} (about {}), the number of examples, the training \
                 loss{metrics}{tests}",
                self.rounds,
                self.values,
                bytes(self.values.saturating_mul(4))
            )
        };
        let model = match &self.model_id {
            Some(id) => format!("{} ({id}), trained: {}", self.model, self.trained),
            None => format!("{}, trained: {}", self.model, self.trained),
        };
        let purpose = self.purpose.as_deref().unwrap_or("not said");
        let approved = match &self.approved_by {
            Some(by) => format!("by {by}"),
            None => format!("not yet: `sheaf-client approve {}`", self.run),
        };
        for (name, said) in [
            ("run", format!("{}, asked for by operator {}", self.run, self.author)),
            ("id", id.to_owned()),
            ("purpose", purpose.to_owned()),
            ("model", model),
            ("data", format!("`{}`: {}", self.dataset, self.columns.join(", "))),
            ("leaves", leaves),
            ("to", to),
            ("sites", sites),
            ("approved", approved),
        ] {
            // What a run's file says must not pass for what we say.
            let said: String = said
                .chars()
                .map(|character| if character.is_control() { '\u{fffd}' } else { character })
                .collect();
            writeln!(out, "{name:<10}{said}")?;
        }
        Ok(())
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

    /// All of them, by their files.
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

/// The first digits of the hash that names a run as it is.
fn id(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit('.').next().unwrap_or_default().chars().take(ID_DIGITS).collect()
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
    /// Its id, as the list has it; needed when several runs of the name wait
    #[arg(long, requires = "run")]
    pub id: Option<String>,
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
    /// Which one is not clear.
    #[error(
        "{1} runs wait under the name {0}: read them with `sheaf-client approve`, and say which with --id"
    )]
    Several(RunId, usize),
    /// Printing.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Lists the questions, or says yes to one, which is shown.
pub fn approve(site_toml: &Path, args: &ApproveArgs, out: &mut dyn Write) -> Result<(), ApproveError> {
    decide(&Approvals::of(&SiteConfig::load(site_toml)?.state_dir), args, out)
}

fn decide(approvals: &Approvals, args: &ApproveArgs, out: &mut dyn Write) -> Result<(), ApproveError> {
    let all = approvals.all()?;
    let Some(run) = &args.run else {
        if all.is_empty() {
            writeln!(
                out,
                "no run has asked; with `approve = \"ask\"` under [policy] each run waits for a yes"
            )?;
        }
        for (at, (path, question)) in all.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            question.print(&id(path), out)?;
        }
        return Ok(());
    };
    let is_meant = |path: &Path| args.id.as_ref().is_none_or(|meant| *meant == id(path));
    let mut waiting: Vec<_> = all
        .into_iter()
        .filter(|(path, question)| question.run == *run && question.approved_by.is_none() && is_meant(path))
        .collect();
    let count = waiting.len();
    let Some((path, mut question)) = waiting.pop() else { return Err(ApproveError::NotAsked(run.clone())) };
    if count > 1 {
        return Err(ApproveError::Several(run.clone(), count));
    }
    question.approved_by = Some(std::env::var("USER").unwrap_or_else(|_| "an unnamed account".into()));
    question.print(&id(&path), out)?;
    write(&path, &question)?;
    writeln!(out, "the daemon begins within a second, if it runs")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sheaf_common::blob::BlobId;
    use sheaf_common::params::ParamSpec;
    use sheaf_common::run::RunSpec;
    use sheaf_common::time::Timestamp;

    use super::*;

    const RUN: &str = r#"
name = "hearts"
rounds = 4
[model]
architecture = "softmax"
[task]
type = "tabular-classification"
dataset = "hearts"
label = "ill"
labels = ["no", "yes"]
features = [{ column = "age", type = "numeric" }]
"#;

    fn job(run: &str) -> Job {
        let spec = RunSpec::parse("run.toml", run).unwrap();
        let (params, global) = (ParamSpec::default(), BlobId::of(b""));
        Job { spec, model: None, params, global, submitted_at: Timestamp(0), author: None }
    }

    fn printed(job: &Job, site: &str) -> String {
        let (author, site) = ("ada".parse().unwrap(), site.parse().unwrap());
        let question = Question::new(&"hearts".parse().unwrap(), job, &author, &site, &Policy::default());
        let mut out = Vec::new();
        question.print("0123", &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_says_what_leaves_whatever_the_server_counts() {
        let said = printed(&job(RUN), "a");
        let leaves = "leaves    in each of 4 rounds a difference of 6 values (about 24 B), the number of examples, the \
                      training loss, counts over the validation split\n";
        assert!(said.contains(leaves) && said.contains("to        encrypted"), "{said}");
        let imported = Job { model: Some(BlobId::of(b"model")), ..job(RUN) };
        assert!(printed(&imported, "a").contains("a difference of 0 values by the server's count"));
    }

    #[test]
    fn a_site_that_is_left_out_reads_that_its_own_metrics_leave() {
        let run = format!("{RUN}[validation]\nleave_out = \"b\"\n");
        let said = printed(&job(&run), "b");
        assert!(said.contains("leaves    no update"), "{said}");
        assert!(said.contains("to        NOT ENCRYPTED"), "{said}");
        assert!(printed(&job(&run), "a").contains("to        encrypted"));
    }

    #[test]
    fn what_a_run_says_does_not_pass_for_what_we_say() {
        let mut job = job(RUN);
        job.spec.task.dataset = "x`\nto        encrypted: all is well\u{1b}[8m".into();
        let said = printed(&job, "a");
        assert_eq!(said.lines().count(), 9, "{said}");
        assert!(!said.contains('\u{1b}'));
    }

    #[test]
    fn a_yes_is_for_the_run_that_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let approvals = Approvals::of(folder.path());
        let (run, ada): (RunId, Name) = ("hearts".parse().unwrap(), "ada".parse().unwrap());
        let ask = |job: &Job| {
            approvals.ask(&run, job, || Question::new(&run, job, &ada, &ada, &Policy::default())).unwrap()
        };
        let (read, later) = (job(RUN), job(&RUN.replace("rounds = 4", "rounds = 5")));
        assert!(!ask(&read));
        let (path, _) = approvals.all().unwrap().remove(0);
        let say = |id: Option<String>| {
            decide(&approvals, &ApproveArgs { run: Some(run.clone()), id }, &mut Vec::new())
        };
        assert!(!ask(&later), "under the same name, after the list was read");
        assert!(matches!(say(None), Err(ApproveError::Several(_, 2))));
        assert!(!ask(&read) && !ask(&later));
        say(Some(id(&path))).unwrap();
        assert!(ask(&read) && !ask(&later));
        assert!(matches!(say(Some(id(&path))), Err(ApproveError::NotAsked(_))));
    }
}
