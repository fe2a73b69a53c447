//! `search.toml`: what is searched, how, and for how many rounds.

use std::path::PathBuf;

use serde::Deserialize;
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_common::id::Name;
use sheaf_common::run::Monitor;

use super::domain::Domain;
use super::keys;
use super::trials::TRIALS_MAX;

/// What `search.toml` says, checked as far as it can be without the run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Search {
    /// The run that every trial is but for the searched keys, beside `search.toml`.
    pub(super) run: PathBuf,
    /// What trials are called; the run's name when not given.
    pub(super) name: Option<Name>,
    /// Seed of what is drawn.
    pub(super) seed: u64,
    /// Which trials there are, and which go on.
    pub(super) method: Method,
    /// Rounds over all trials, which is never exceeded.
    pub(super) budget_rounds: u64,
    /// What trials are compared by; what the run monitors when not given.
    pub(super) metric: Option<Monitor>,
    /// The searched keys, in the order of the file. At least one.
    pub(super) keys: Vec<(String, Domain)>,
}

/// Which trials there are, and which go on. `trials` is the most, in 1 to [`TRIALS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Every combination, with all rounds of the run.
    Grid,
    /// Drawn ones, with all rounds of the run.
    Random { trials: Option<usize> },
    /// Drawn ones with few rounds; of those one in `eta` goes on with `eta` times as many, from at least `min_rounds` up to
    /// those of the run.
    Halving { trials: Option<usize>, eta: u32, min_rounds: u32 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchFile {
    run: PathBuf,
    name: Option<String>,
    #[serde(default)]
    seed: u64,
    method: MethodFile,
    budget_rounds: u64,
    trials: Option<usize>,
    metric: Option<Monitor>,
    eta: Option<u32>,
    min_rounds: Option<u32>,
    search: toml::Table,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum MethodFile {
    Grid,
    Random,
    Halving,
}

impl Search {
    /// Reads `search.toml`; `file` is its name for the message.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        config::read::<SearchFile, Self>(file, text)
    }
}

impl Method {
    /// Its name in `search.toml`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random { .. } => "random",
            Self::Halving { .. } => "halving",
        }
    }

    /// The most trials that are asked for.
    pub(super) fn most(self) -> Option<usize> {
        match self {
            Self::Grid => None,
            Self::Random { trials } | Self::Halving { trials, .. } => trials,
        }
    }
}

impl TryFrom<SearchFile> for Search {
    type Error = Invalid;

    fn try_from(file: SearchFile) -> Result<Self, Invalid> {
        let method = method(&file)?;
        if file.budget_rounds == 0 {
            return Err(Invalid::new("budget_rounds", "0 rounds pay for no trial"));
        }
        let name = file.name.map(|name| name.parse().map_err(|e: sheaf_common::id::BadName| e.to_string()));
        let name = name.transpose().map_err(|problem| Invalid::new("name", problem))?;
        let keys = domains(&file.search)?;
        if method == Method::Grid
            && let Some((key, _)) = keys.iter().find(|(_, domain)| domain.choices().is_none())
        {
            return Err(Invalid::new(
                format!("search.{key}"),
                "a grid is made of lists: list the values, or write method = \"random\"",
            ));
        }
        Ok(Self {
            run: file.run,
            name,
            seed: file.seed,
            method,
            budget_rounds: file.budget_rounds,
            metric: file.metric,
            keys,
        })
    }
}

fn method(file: &SearchFile) -> Result<Method, Invalid> {
    let only = |key: &str, given: bool, fits: bool, which: &str| {
        if given && !fits { Err(Invalid::new(key, format!("is for method = {which}"))) } else { Ok(()) }
    };
    let halves = file.method == MethodFile::Halving;
    only("trials", file.trials.is_some(), file.method != MethodFile::Grid, "\"random\" or \"halving\"")?;
    only("eta", file.eta.is_some(), halves, "\"halving\"")?;
    only("min_rounds", file.min_rounds.is_some(), halves, "\"halving\"")?;
    if let Some(trials) = file.trials
        && !(1..=TRIALS_MAX).contains(&trials)
    {
        return Err(Invalid::new("trials", format!("{trials} is not between 1 and {TRIALS_MAX}")));
    }
    let (eta, min_rounds) = (file.eta.unwrap_or(3), file.min_rounds.unwrap_or(1));
    if !(2..=100).contains(&eta) {
        return Err(Invalid::new("eta", format!("{eta} is not between 2 and 100")));
    }
    if min_rounds == 0 {
        return Err(Invalid::new("min_rounds", "a trial has at least 1 round"));
    }
    Ok(match file.method {
        MethodFile::Grid => Method::Grid,
        MethodFile::Random => Method::Random { trials: file.trials },
        MethodFile::Halving => Method::Halving { trials: file.trials, eta, min_rounds },
    })
}

fn domains(search: &toml::Table) -> Result<Vec<(String, Domain)>, Invalid> {
    let mut domains: Vec<(String, Domain)> = Vec::new();
    for (key, written) in search {
        let place = format!("search.{key}");
        // Whatever stands there, what is no domain is told first: a table is a key with dots that lacks its quotes.
        let domain = Domain::read(&place, written)?;
        keys::check(key)?;
        if let Some((other, _)) = domains.iter().find(|(other, _)| keys::overlap(other, key)) {
            return Err(Invalid::new(
                place,
                format!("lies in the same place as `{other}`, which is searched too"),
            ));
        }
        domains.push((key.clone(), domain));
    }
    if domains.is_empty() { Err(Invalid::new("search", "names no key of the run")) } else { Ok(domains) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "run = \"run.toml\"\nseed = 5\nmethod = \"halving\"\nbudget_rounds = 100\ntrials = 9\n[search]\n";

    #[test]
    fn a_search_is_read() {
        let text = format!(
            "{HEAD}\"training.learning_rate\" = {{ log_uniform = [1e-4, 1e-1] }}\n\"model.dropout\" = [0, 0.5]\n"
        );
        let search = Search::parse("search.toml", &text).unwrap();
        assert_eq!(search.method, Method::Halving { trials: Some(9), eta: 3, min_rounds: 1 });
        assert_eq!((search.seed, search.budget_rounds, search.metric), (5, 100, None));
        let keys: Vec<&str> = search.keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["training.learning_rate", "model.dropout"], "in the file's order");
    }

    #[test]
    fn what_is_wrong_is_one_sentence_with_its_line() {
        let rate = "\"training.learning_rate\" = [0.1]\n";
        let grid = HEAD.replace("halving", "grid");
        for (text, problem) in [
            (
                format!("{HEAD}training.learning_rate = [0.1]\n"),
                "search.toml:7: search.training: write a list of values",
            ),
            (
                format!("{HEAD}\"training.learning_rate\" = 0.1\n"),
                "search.toml:7: search.training.learning_rate: write a list",
            ),
            (
                format!("{HEAD}{rate}\"cohort.min_updates\" = [2]\n"),
                "search.toml:8: search.cohort.min_updates: cannot be searched: who",
            ),
            (
                format!("{HEAD}\"model.lora\" = [{{ rank = 2 }}]\n\"model.lora.rank\" = [1]\n"),
                "search.toml:8: search.model.lora.rank: lies in",
            ),
            (HEAD.to_owned(), "search.toml:6: search: names no key"),
            (format!("{grid}{rate}"), "search.toml:5: trials: is for method = \"random\" or \"halving\""),
            (
                format!(
                    "{}\"training.learning_rate\" = {{ uniform = [0.1, 1] }}\n",
                    grid.replace("trials = 9\n", "")
                ),
                "search.toml:6: search.training.learning_rate: a grid is made of lists",
            ),
            (format!("eta = 1\n{HEAD}{rate}"), "search.toml:1: eta: 1 is not between 2 and 100"),
            (
                format!("eta = 3\n{}{rate}", HEAD.replace("halving", "random")),
                "search.toml:1: eta: is for method",
            ),
            (
                HEAD.replace("trials = 9", "trials = 1000") + rate,
                "search.toml:5: trials: 1000 is not between 1 and 999",
            ),
            (HEAD.replace("100", "0") + rate, "search.toml:4: budget_rounds: 0 rounds"),
            (format!("name = \"A\"\n{HEAD}{rate}"), "search.toml:1: name: `A` is not a name"),
            (format!("metric = \"luck\"\n{HEAD}{rate}"), "search.toml:1: unknown variant `luck`"),
            (format!("budget = 1\n{HEAD}{rate}"), "search.toml:1: unknown field `budget`"),
            (HEAD.replace("halving", "bayes") + rate, "search.toml:3: unknown variant `bayes`"),
        ] {
            let error = Search::parse("search.toml", &text).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
