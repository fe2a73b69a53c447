//! What a federation is compared with: each client alone, and all data in one place. The same trainer, the same initial
//! parameters and as many epochs as there were in the rounds that were completed; tested on the same examples.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_client::device::DeviceChoice;
use sheaf_client::trainer::{Round, Watch};
use sheaf_common::message::Job;
use sheaf_common::params::{Phases, from_bytes, to_bytes};

use crate::base::{Base, BaseError};
use crate::config::{Baseline, Setting};
use crate::data::Examples;
use crate::federation::{Done, Workshop};
use crate::pool::{CallOff, Pool, Ticket};
use crate::rounds::{Row, Score};
use crate::scoring::Scorer;
use crate::simulate::Audience;

/// Whose random choices are made where all data is in one place.
const POOLED: &str = "pooled";

/// How often is looked whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The scores of the baselines on the common test set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The mean over the clients, each trained alone.
    pub local: Option<Score>,
    /// The best and the worst of them, by their losses.
    pub local_range: Option<[Score; 2]>,
    /// All data in one place.
    pub pooled: Option<Score>,
    /// Who could not be trained or tested, and why.
    pub failed: BTreeMap<String, String>,
}

/// Trains and tests the baselines that a simulation asks for when its rounds are over, on all workers; nothing when the audience wants
/// to stop.
pub(crate) fn run(
    setting: &Setting,
    job: &Job,
    initial: Vec<u8>,
    rows: &[Row],
    workshop: Workshop<'_>,
    audience: &mut dyn Audience,
) -> Result<Option<Baselines>, BaseError> {
    let Workshop { examples, scorer, train } = workshop;
    let mut baselines = Baselines::default();
    let Some(scorer) = scorer else { return Ok(Some(baselines)) };
    let simulation = &setting.simulation;
    let growth = examples.base().map(|base| Ok::<_, BaseError>((base.clone(), base.phases(&job.spec)?)));
    let growth = growth.transpose()?;
    let completed = rows.iter().filter(|row| row.is_completed()).map(|row| row.round).max();
    let lesson = Lesson {
        job: job.clone(),
        rounds: completed.unwrap_or(0),
        initial,
        examples,
        growth,
        device: simulation.device,
    };
    let mut class = Class { lesson: Arc::new(lesson), train, scorer, audience };
    let wants = |baseline| simulation.baselines.contains(&baseline);

    // It takes longest, and so it begins first and is waited for last.
    let pooled = wants(Baseline::Pooled).then(|| class.submit(POOLED.into(), None));
    let mut clients = if wants(Baseline::Local) { 0..simulation.clients.get() } else { 0..0 };
    let mut local = Vec::new();
    // No more parameters are in memory than these hold.
    let mut under_way = VecDeque::new();
    loop {
        while under_way.len() < 2 * simulation.num_workers().get()
            && let Some(number) = clients.next()
        {
            let Ok(name) = simulation.name(number) else { continue };
            under_way.push_back((name.to_string(), class.submit(name.to_string(), Some(number))));
        }
        let Some((name, ticket)) = under_way.pop_front() else { break };
        class.audience.begins(&format!("{name} alone"));
        match class.score(ticket) {
            None => return Ok(None),
            Some(Ok(score)) => local.push(score),
            Some(Err(why)) => _ = baselines.failed.insert(name, why),
        }
    }
    if let Some(ticket) = pooled {
        class.audience.begins("all data in one place");
        match class.score(ticket) {
            None => return Ok(None),
            Some(Ok(score)) => baselines.pooled = Some(score),
            Some(Err(why)) => _ = baselines.failed.insert(POOLED.into(), why),
        }
    }
    baselines.local = mean(&local);
    local.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    if let (Some(best), Some(worst)) = (local.first(), local.last()) {
        baselines.local_range = Some([best.clone(), worst.clone()]);
    }
    Ok(Some(baselines))
}

/// Those who train and test baselines.
struct Class<'a> {
    lesson: Arc<Lesson>,
    train: &'a mut Pool<Done>,
    scorer: &'a mut Scorer,
    audience: &'a mut dyn Audience,
}

impl Class<'_> {
    /// Hands the training of one to the workers.
    fn submit(&mut self, name: String, client: Option<u32>) -> Ticket {
        let lesson = self.lesson.clone();
        self.train
            .submit(Box::new(move |watch| Done::Alone(lesson.learn(&name, client, watch).map(Box::new))))
    }

    /// What it came to, or why to nothing; `None` when the audience wants to stop.
    fn score(&mut self, ticket: Ticket) -> Option<Result<Score, String>> {
        loop {
            if self.audience.interrupts() {
                return None;
            }
            if self.train.is_done(ticket, LOOK) {
                break;
            }
        }
        let Some(Done::Alone(learnt)) = self.train.wait(ticket) else {
            return Some(Err("the worker broke down".into()));
        };
        Some(learnt.and_then(|learnt| {
            let (job, params) = *learnt;
            let score = self.scorer.score(&job, &params).map_err(|error| error.to_string())?;
            Ok(score.unwrap_or_default())
        }))
    }
}

/// What each is taught.
struct Lesson {
    job: Job,
    /// For how many rounds.
    rounds: u32,
    initial: Vec<u8>,
    examples: Arc<Examples>,
    /// What an imported model trains from round to round.
    growth: Option<(Arc<Base>, Phases)>,
    device: DeviceChoice,
}

impl Lesson {
    /// Trains on a client's examples, or on everybody's: the job as it is in the end, and the parameters.
    fn learn(&self, name: &str, client: Option<u32>, watch: &CallOff) -> Result<(Job, Vec<u8>), String> {
        let mut job = self.job.clone();
        let open = |job: &Job| {
            self.examples.alone(client, job, name, self.device).map_err(|error| error.to_string())
        };
        let mut trainer = open(&job)?;
        let mut params = from_bytes(&self.initial);
        for number in 1..=self.rounds {
            let round = Round { number, of: job.spec.rounds };
            let trained = trainer.train(params, round, watch as &dyn Watch);
            params = trained.map_err(|error| error.to_string())?.params;
            if let Some((base, phases)) = &self.growth
                && *phases.after(number) != job.params
            {
                let grown = base.grow(&params, &job.params, phases.after(number));
                params = grown.map_err(|error| error.to_string())?;
                job.params = phases.after(number).clone();
                // The old one's memory goes before the new one's comes.
                drop(trainer);
                trainer = open(&job)?;
            }
        }
        Ok((job, to_bytes(&params)))
    }
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
    let means = first.keys().filter_map(mean);
    Some(means.filter(|(_, mean)| mean.is_finite()).collect())
}
