//! What a federation is compared with: each client alone, and all data in one place. The same trainer, the same initial
//! parameters and as many epochs as there are in all rounds; tested on the same examples.

use serde::{Deserialize, Serialize};
use sheaf_client::trainer::open::OpenError;
use sheaf_client::trainer::{Round, TrainError, Watch};
use sheaf_common::message::Job;
use sheaf_common::params::{from_bytes, to_bytes};

use crate::base::BaseError;
use crate::config::{Baseline, Setting};
use crate::federation::{Done, Workshop};
use crate::pool::{CallOff, Ticket};
use crate::rounds::Score;
use crate::scoring::ScoringError;

/// Whose random choices are made where all data is in one place.
const POOLED: &str = "pooled";

/// The scores of the baselines on the common test set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The mean over the clients, each trained alone.
    pub local: Option<Score>,
    /// The best and the worst of them, by their losses.
    pub local_range: Option<[Score; 2]>,
    /// All data in one place.
    pub pooled: Option<Score>,
}

/// A baseline could not be trained.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The model that it starts from cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The trainer cannot be had.
    #[error("{0}: {1}")]
    Open(String, OpenError),
    /// It does not train.
    #[error("{0}: {1}")]
    Train(String, TrainError),
    /// The model cannot be tested.
    #[error(transparent)]
    Scoring(#[from] ScoringError),
    /// A worker broke down.
    #[error("{0}: the worker broke down")]
    Broken(String),
}

/// Trains and tests the baselines that a simulation asks for, on all workers.
pub(crate) fn run(
    setting: &Setting,
    job: &Job,
    initial: &[u8],
    workshop: Workshop<'_>,
) -> Result<Baselines, BaselineError> {
    let Workshop { examples, scorer, train } = workshop;
    let Some(scorer) = scorer else { return Ok(Baselines::default()) };
    let base = examples.base();
    let phases = base.map(|base| base.phases(&job.spec)).transpose()?;
    let wanted = &setting.simulation.baselines;
    let mut alone: Vec<(String, Option<u32>)> = Vec::new();
    if wanted.contains(&Baseline::Pooled) {
        alone.push((POOLED.to_owned(), None));
    }
    if wanted.contains(&Baseline::Local) {
        let clients = 0..setting.simulation.clients.get();
        alone.extend(clients.filter_map(|number| {
            setting.simulation.name(number).ok().map(|name| (name.to_string(), Some(number)))
        }));
    }
    let tickets: Vec<(String, Option<u32>, Ticket)> = alone
        .into_iter()
        .map(|(name, client)| {
            let (examples, job, device) = (examples.clone(), job.clone(), setting.simulation.device);
            let (own, start, growth) = (name.clone(), initial.to_vec(), base.cloned().zip(phases.clone()));
            let work = move |watch: &CallOff| {
                let mut job = job;
                let open = |job: &Job| {
                    let opened = examples.alone(client, job, &own, device);
                    opened.map_err(|error| BaselineError::Open(own.clone(), error))
                };
                let mut trainer = open(&job)?;
                let mut params = from_bytes(&start);
                for number in 1..=job.spec.rounds {
                    let round = Round { number, of: job.spec.rounds };
                    let trained = trainer.train(params, round, watch as &dyn Watch);
                    params = trained.map_err(|error| BaselineError::Train(own.clone(), error))?.params;
                    if let Some((base, phases)) = &growth
                        && *phases.after(number) != job.params
                    {
                        params = base.grow(&params, &job.params, phases.after(number))?;
                        job.params = phases.after(number).clone();
                        // The old one's memory goes before the new one's comes.
                        drop(trainer);
                        trainer = open(&job)?;
                    }
                }
                Ok((job, to_bytes(&params)))
            };
            (name, client, train.submit(Box::new(move |watch| Done::Alone(work(watch).map(Box::new)))))
        })
        .collect();
    let mut baselines = Baselines::default();
    let mut local = Vec::new();
    for (name, client, ticket) in tickets {
        let (job, params) = match train.wait(ticket) {
            Some(Done::Alone(trained)) => trained.map(|trained| *trained)?,
            Some(_) | None => return Err(BaselineError::Broken(name)),
        };
        let score = scorer.score(&job, &params)?.unwrap_or_default();
        match client {
            Some(_) => local.push(score),
            None => baselines.pooled = Some(score),
        }
    }
    baselines.local = mean(&local);
    local.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    if let (Some(best), Some(worst)) = (local.first(), local.last()) {
        baselines.local_range = Some([best.clone(), worst.clone()]);
    }
    Ok(baselines)
}

fn loss(score: &Score) -> f64 {
    score.get("loss").copied().unwrap_or(f64::INFINITY)
}

/// The mean of every metric that all have.
fn mean(scores: &[Score]) -> Option<Score> {
    let first = scores.first()?;
    let mean = |name: &String| {
        let values = scores.iter().map(|score| score.get(name).copied()).collect::<Option<Vec<f64>>>()?;
        Some((name.clone(), values.iter().sum::<f64>() / values.len() as f64))
    };
    Some(first.keys().filter_map(mean).collect())
}
