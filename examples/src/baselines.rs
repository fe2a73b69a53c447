//! What the federation is measured against: each site alone and all data in one place, with the same run, and
//! the scores of all models on the common test set.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::example::Example;
use crate::federation::{Federated, StepError, say};
use crate::line::Line;
use crate::settings;
use crate::shell::Shell;
use crate::work::Work;

/// How good a model is on the common test set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Score {
    /// Share of right predictions.
    pub(crate) accuracy: f64,
    /// Mean F1 over the labels.
    pub(crate) macro_f1: f64,
    /// Area under the ROC curve; with more than two labels, the mean of each against the rest.
    pub(crate) roc_auc: Option<f64>,
}

/// A model that was trained without the federation.
pub(crate) struct Baseline {
    /// The site, or what else it is.
    pub(crate) name: String,
    /// How good it is.
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
const SCORES_FILE: &str = "scoring/scores.json";

/// Trains the baselines and scores all models.
pub(crate) fn run(
    example: &Example,
    federated: &Federated,
    work: &Work,
    shell: &mut Shell,
) -> Result<Baselines, StepError> {
    let mut trained = Vec::new();
    for site in &example.sites {
        say(&format!("For comparison: {} alone, with the same run", site.name));
        trained.push(train(&site.config(), &site.name, federated, shell)?);
    }

    say("For comparison: all data in one place, with the same run");
    let pooled_file = format!("pooled.{}", example.test.format.extension());
    work.table(&format!("scoring/{pooled_file}"), &example.pooled())?;
    let test_file = format!("test.{}", example.test.format.extension());
    work.write(CONFIG, &settings::scoring(example, &pooled_file, &test_file))?;
    trained.push(train(CONFIG, "pooled", federated, shell)?);

    say(&format!(
        "All models on the common test set of {} examples",
        example.test.rows.len()
    ));
    let scores = score(&trained, federated, work, shell)?;
    put_together(trained, scores)
}

/// A baseline before it is scored.
struct Trained {
    name: String,
    folder: String,
    time: Duration,
}

fn train(config: &str, name: &str, federated: &Federated, shell: &mut Shell) -> Result<Trained, StepError> {
    let folder = format!("baselines/{name}");
    let line = Line::new("sheaf-client", "train --config")
        .argument(config)
        .words("--run run.toml --model");
    let line = line.argument(&federated.base).words("--out").argument(&folder);
    let started = Instant::now();
    shell.run(line.log_to(format!("baselines/{name}.log")))?;
    Ok(Trained {
        name: name.to_owned(),
        folder,
        time: started.elapsed(),
    })
}

/// The scores of the baselines, and of the federation's model after them.
fn score(
    trained: &[Trained],
    federated: &Federated,
    work: &Work,
    shell: &mut Shell,
) -> Result<Vec<Score>, StepError> {
    let folders = trained
        .iter()
        .map(|model| &model.folder)
        .chain([&federated.model]);
    let line = Line::new("sheaf-client", "evaluate --config")
        .argument(CONFIG)
        .words("--run run.toml --dataset test");
    let line = folders.fold(line, |line, folder| line.words("--model").argument(folder));
    shell.run(
        line.words("--json")
            .output_to(SCORES_FILE)
            .log_to("scoring/scores.log"),
    )?;
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
    let mut alone: Vec<Baseline> = scored
        .map(|(model, score)| Baseline {
            name: model.name,
            score,
            time: model.time,
        })
        .collect();
    let pooled = alone.pop().ok_or_else(few)?;
    Ok(Baselines {
        alone,
        pooled,
        federated,
    })
}
