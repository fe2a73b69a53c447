//! What the federation is measured against: each site alone and all data in one place, with the same run, and
//! the scores of all models on the common test set.

use std::time::Duration;

use serde::Deserialize;

use crate::example::{Example, SCORING};
use crate::federation::{Federated, StepError, cores, say};
use crate::line::Line;
use crate::metric::Score;
use crate::settings;
use crate::shell::{Job, Shell};
use crate::work::Work;

/// A model that was trained without the federation.
pub(crate) struct Baseline {
    /// The site, or what else it is.
    pub(crate) name: String,
    /// How good it is on the common test set.
    pub(crate) score: Score,
    /// How long its training took.
    pub(crate) time: Duration,
}

/// All scores.
pub(crate) struct Baselines {
    /// Each site alone.
    pub(crate) alone: Vec<Baseline>,
    /// All data in one place.
    pub(crate) pooled: Baseline,
    /// The federation's model.
    pub(crate) federated: Score,
}

/// What `sheaf-client evaluate --json` prints, as far as it is used here.
#[derive(Deserialize)]
struct Evaluation {
    models: Vec<Scored>,
}

#[derive(Deserialize)]
struct Scored {
    metrics: Score,
}

/// Where all data lies for comparison.
const CONFIG: &str = "scoring/site.toml";
/// The baseline that has all of it.
const POOLED: &str = "pooled";
const SCORES_FILE: &str = "scoring/scores.json";

/// Trains the baselines and scores all models.
pub(crate) fn run(
    example: &Example,
    federated: &Federated,
    work: &Work,
    shell: &mut Shell,
) -> Result<Baselines, StepError> {
    work.table(SCORING, POOLED, &example.pooled())?;
    work.write(CONFIG, &settings::scoring(example))?;

    say(
        "For comparison, the same run without the others: each site alone, and all data in one place (pooled)",
    );
    let trained = train_all(example, federated, shell)?;

    let examples = example.test.rows.len();
    say(&format!("All models on the common test set of {examples} examples"));
    let scores = score(&trained, federated, work, shell)?;
    put_together(trained, scores)
}

/// A baseline before it is scored.
struct Trained {
    name: String,
    folder: String,
    time: Duration,
}

/// Trains the baselines side by side. The pooled one takes as long as all others together, so it goes first.
fn train_all(example: &Example, federated: &Federated, shell: &mut Shell) -> Result<Vec<Trained>, StepError> {
    let sites = example.sites.iter().map(|site| (site.name.clone(), site.config()));
    let all: Vec<(String, String)> =
        [(POOLED.to_owned(), CONFIG.to_owned())].into_iter().chain(sites).collect();
    let at_a_time = cores().min(all.len());
    let widest = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let job = |(name, config): &(String, String)| Job {
        name: format!("{name:widest$}"),
        line: train(name, config, federated).variable("OMP_NUM_THREADS", cores() / at_a_time),
    };
    let times = shell.run_together(all.iter().map(job).collect(), at_a_time)?;
    let trained = all.into_iter().zip(times);
    Ok(trained.map(|((name, _), time)| Trained { folder: folder(&name), name, time }).collect())
}

fn train(name: &str, config: &str, federated: &Federated) -> Line {
    let folder = folder(name);
    let line = Line::new("sheaf-client", "train --config")
        .argument(config)
        .words("--run")
        .argument(&federated.run_file);
    let line = match federated.start {
        Some(start) => line.words("--model").argument(start),
        None => line,
    };
    line.words("--out").argument(&folder).output_to(format!("{folder}.txt")).log_to(format!("{folder}.log"))
}

/// Where a baseline's model goes.
fn folder(name: &str) -> String {
    format!("baselines/{name}")
}

/// The scores of the baselines, and of the federation's model after them.
fn score(
    trained: &[Trained],
    federated: &Federated,
    work: &Work,
    shell: &mut Shell,
) -> Result<Vec<Score>, StepError> {
    let folders = trained.iter().map(|model| &model.folder).chain([&federated.model]);
    let line = Line::new("sheaf-client", "evaluate --config")
        .argument(CONFIG)
        .words("--run")
        .argument(&federated.run_file)
        .words("--dataset test");
    let line = folders.fold(line, |line, folder| line.words("--model").argument(folder));
    shell.run(line.words("--json").output_to(SCORES_FILE).log_to("scoring/scores.log"))?;
    let evaluation: Evaluation = work.json(SCORES_FILE)?;
    Ok(evaluation.models.into_iter().map(|model| model.metrics).collect())
}

fn put_together(trained: Vec<Trained>, mut scores: Vec<Score>) -> Result<Baselines, StepError> {
    let few = || StepError::Unexpected(format!("{SCORES_FILE} does not hold a score for every model"));
    let federated = scores.pop().ok_or_else(few)?;
    if scores.len() != trained.len() {
        return Err(few());
    }
    let scored = trained.into_iter().zip(scores);
    let mut baselines = scored.map(|(model, score)| Baseline { name: model.name, score, time: model.time });
    Ok(Baselines { pooled: baselines.next().ok_or_else(few)?, alone: baselines.collect(), federated })
}
