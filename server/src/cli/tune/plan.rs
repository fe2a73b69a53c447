//! A search as a whole: its trials as runs, and which run comes next. Decides everything, and does nothing.

use sheaf_common::config::{ConfigError, Invalid};
use sheaf_common::id::RunId;
use sheaf_common::run::{Monitor, RunSpec};
use toml::{Table, Value};

use super::file::{Method, Search};
use super::outcome::{Outcome, ranked};
use super::schedule::Schedule;
use super::trials::{self, Settings, TRIALS_MAX};
use crate::cli::document::{Document, set};
use crate::cli::units::plural;

/// A file's name for messages, and its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

/// A trial with the rounds of a rung, both counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) rung: usize,
    pub(super) trial: usize,
}

/// Everything that is known of a search before it starts.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) metric: Monitor,
    pub(super) budget_rounds: u64,
    /// What trials are called, up to their number.
    pub(super) name: String,
    pub(super) trials: Vec<Settings>,
    pub(super) schedule: Schedule,
    /// Of each rung, the run of each of `trials`.
    documents: Vec<Vec<Document>>,
}

impl Plan {
    /// Makes the trials of `search` (read from `source`) out of the run in `base`, and checks every one of them.
    pub(super) fn new(search: &Search, source: Source<'_>, base: Source<'_>) -> Result<Self, ConfigError> {
        let at = |invalid: &Invalid| ConfigError::locate(source.file, source.text, invalid);
        let spec = RunSpec::parse(base.file, base.text)?;
        if !spec.validates() {
            let problem = "a search compares trials by what is held out: set it above 0";
            let invalid = Invalid::new("training.validation_split", problem);
            return Err(ConfigError::locate(base.file, base.text, &invalid));
        }
        let mut trials = tried(search).map_err(|e| at(&e))?;
        let schedule = schedule(search, trials.len(), spec.rounds).map_err(|e| at(&e))?;
        trials.truncate(schedule.trials());
        let table =
            base.text.parse().map_err(|e: toml::de::Error| at(&Invalid::new("run", e.to_string())))?;
        let maker = Maker { search, base: table, spec: &spec };
        let of_rung = |(rung, rounds)| {
            let job = |trial| Job { rung, trial };
            (0..trials.len()).map(|trial| maker.document(job(trial), rounds, &trials[trial])).collect()
        };
        let rungs = schedule.rungs.iter().map(|rung| rung.rounds).enumerate();
        let documents: Result<Vec<Vec<Document>>, Invalid> = rungs.map(of_rung).collect();
        Ok(Self {
            method: search.method,
            metric: search.metric.unwrap_or(spec.validation.monitor),
            budget_rounds: search.budget_rounds,
            name: maker.name().to_owned(),
            documents: documents.map_err(|e| at(&e))?,
            trials,
            schedule,
        })
    }

    /// What is run next, after `done`; `None` at the end. Depends on nothing else, so that a search that was interrupted
    /// goes on as it would have.
    pub(super) fn next(&self, done: &[Outcome]) -> Option<Job> {
        let mut climbers: Vec<usize> = (0..self.trials.len()).collect();
        for (index, rung) in self.schedule.rungs.iter().enumerate() {
            climbers.truncate(rung.trials);
            // In the order of their numbers, whichever was best.
            climbers.sort_unstable();
            let here: Vec<&Outcome> = done.iter().filter(|outcome| outcome.job.rung == index).collect();
            let missing =
                climbers.iter().find(|trial| here.iter().all(|outcome| outcome.job.trial != **trial));
            if let Some(trial) = missing {
                return Some(Job { rung: index, trial: *trial });
            }
            let scored =
                ranked(here.into_iter(), self.metric).into_iter().filter(|outcome| outcome.score.is_some());
            climbers = scored.map(|outcome| outcome.job.trial).collect();
        }
        None
    }

    /// A job as a run.
    pub(super) fn document(&self, job: Job) -> Option<&Document> {
        self.documents.get(job.rung)?.get(job.trial)
    }

    /// The runs that may come of it, those of the first rung first.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter().flatten()
    }

    /// A trial's settings as the part of `run.toml` that they are.
    pub(super) fn snippet(&self, trial: usize) -> String {
        let mut table = Table::new();
        for (key, value) in self.trials.get(trial).into_iter().flatten() {
            // Into an empty table all of them fit, as they fitted the run.
            let _ = set(&mut table, key, value.clone());
        }
        toml::to_string(&table).unwrap_or_default()
    }
}

/// What will be done, and what it costs.
impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (most, budget) = (self.schedule.rounds(), self.budget_rounds);
        write!(
            f,
            "{}: {}: at most {}, of budget_rounds = {budget}",
            self.name,
            self.schedule,
            plural(most, "round")
        )?;
        match self.method.most() {
            Some(asked) if asked > self.trials.len() => {
                write!(f, "; trials = {asked} are more than the budget, or the searched keys, allow")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The trials that there are, before the budget is asked.
fn tried(search: &Search) -> Result<Vec<Settings>, Invalid> {
    match search.method {
        Method::Grid => trials::grid(&search.keys).ok_or_else(|| {
            let problem = format!(
                "makes more than {TRIALS_MAX} combinations: list fewer values, or write method = \"random\""
            );
            Invalid::new("search", problem)
        }),
        Method::Random { trials } | Method::Halving { trials, .. } => {
            // Each costs a round or more.
            let paid = usize::try_from(search.budget_rounds).unwrap_or(usize::MAX);
            let most = trials.unwrap_or(TRIALS_MAX).min(paid);
            Ok(trials::random(&search.keys, search.seed, most))
        }
    }
}

fn schedule(search: &Search, trials: usize, rounds: u32) -> Result<Schedule, Invalid> {
    let budget = search.budget_rounds;
    let schedule = match search.method {
        Method::Grid | Method::Random { .. } => Schedule::flat(trials, rounds, budget),
        Method::Halving { eta, min_rounds, .. } => {
            if min_rounds > rounds {
                let problem =
                    format!("{min_rounds} is more than the run's {}", plural(u64::from(rounds), "round"));
                return Err(Invalid::new("min_rounds", problem));
            }
            Schedule::halving(trials, rounds, min_rounds, eta, budget)
        }
    };
    let schedule = schedule.ok_or_else(|| {
        let problem = format!("{budget} do not pay for one trial of {}", plural(u64::from(rounds), "round"));
        Invalid::new("budget_rounds", problem)
    })?;
    if search.method == Method::Grid && schedule.trials() < trials {
        let needed = trials as u64 * u64::from(rounds);
        let problem = format!(
            "{budget} do not pay for the grid: {trials} combinations of {} are {needed}; list fewer values, or write method = \"random\"",
            plural(u64::from(rounds), "round")
        );
        return Err(Invalid::new("budget_rounds", problem));
    }
    Ok(schedule)
}

/// Makes runs of trials.
struct Maker<'a> {
    search: &'a Search,
    base: Table,
    spec: &'a RunSpec,
}

impl Maker<'_> {
    fn name(&self) -> &str {
        self.search.name.as_ref().unwrap_or(&self.spec.name).as_str()
    }

    /// A trial's run, checked whole; what is wrong with it names the key of `search.toml`.
    fn document(&self, job: Job, rounds: u32, settings: &Settings) -> Result<Document, Invalid> {
        let mut run = format!("{}-t{:03}", self.name(), job.trial + 1);
        if job.rung > 0 {
            run.push_str(&format!("-r{}", job.rung + 1));
        }
        let id: RunId =
            run.parse().map_err(|e: sheaf_common::id::BadName| Invalid::new("name", e.to_string()))?;
        let mut table = self.base.clone();
        set(&mut table, "name", run.into())?;
        set(&mut table, "rounds", i64::from(rounds).into())?;
        if let Some(metric) = self.search.metric {
            set(&mut table, "validation.monitor", metric.to_string().into())?;
        }
        for (key, value) in settings {
            set(&mut table, key, value.clone())
                .map_err(|e| Invalid::new(format!("search.{}", e.key), e.problem))?;
        }
        let text = toml::to_string(&table).map_err(|e| Invalid::new("run", e.to_string()))?;
        Document::parse(id, text.clone()).map_err(|error| blame(&error, &text, settings))
    }
}

/// The searched key that makes a trial wrong, or else the search: then it is how its keys come together.
fn blame(error: &ConfigError, text: &str, settings: &Settings) -> Invalid {
    // It is not searched: what is wrong with it is the search's own metric, in every trial.
    if let Some(problem) = error.problem().strip_prefix("validation.monitor: ") {
        return Invalid::new("metric", problem);
    }
    let names =
        |key: &str| error.problem().strip_prefix(key).is_some_and(|rest| rest.starts_with([':', '.']));
    let guilty = settings.iter().find(|(key, _)| names(key) || error.is_at(text, key));
    let (place, problem) = match guilty {
        Some((key, _)) => {
            let problem = error.problem().strip_prefix(key.as_str()).unwrap_or(error.problem());
            (format!("search.{key}"), problem.trim_start_matches(": "))
        }
        None => ("search".to_owned(), error.problem()),
    };
    Invalid::new(place, format!("{problem} (in the trial with {})", text_of(settings)))
}

/// `training.learning_rate = 0.01, model.dropout = 0.5`
pub(super) fn text_of(settings: &Settings) -> String {
    let texts: Vec<String> =
        settings.iter().map(|(key, value)| format!("{key} = {}", short(value))).collect();
    texts.join(", ")
}

/// A value as people read it: a number with four digits.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Float(number) => {
            let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(*number);
            format!("{rounded:?}")
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => value.to_string(),
    }
}
