//! What a run's records must say: the account that a test keeps of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::params::from_bytes;
use sheaf_common::record::MadeOf;
use sheaf_common::status::{Answer, RoundOutcome, RoundRecord};
use sheaf_server::core::RoundView;

use super::hub::Hub;
use super::site::Site;
use super::{End, SITES};

/// Furthest that a mean of f32 values may be from the same in f64.
const ROUNDING: f64 = 1e-6;

/// The same for a mean of quantized values: a step of the widest range (16 bits over plus or minus 8), blown up by the
/// weights, which are encoded relative to a cap of 100 where the smallest site has 9.
const QUANTIZATION: f64 = 16.0 / 65536.0 * 100.0 / 9.0;

/// The run as its committed records tell it.
pub(super) struct Account {
    /// The global model.
    model: Vec<f32>,
    records: Vec<RoundRecord>,
    /// Sites whose updates may not count in this attempt any more.
    banned: BTreeSet<(TaskId, ClientId)>,
}

impl Account {
    pub(super) fn new(hub: &Hub) -> Result<Self> {
        let model = from_bytes(&hub.server.blobs.read(hub.run.global())?);
        Ok(Self { model, records: Vec::new(), banned: BTreeSet::new() })
    }

    /// A site was sent away while an attempt was under way. Once its masks are asked for it is in the sum in any case, and
    /// what is being averaged is not waited for.
    pub(super) fn sent_away(&mut self, site: &ClientId, keep_updates: bool, round: Option<&RoundView>) {
        if let Some(round) = round.filter(|round| !keep_updates && round.stage != "unmasking") {
            self.banned.insert((round.task.clone(), site.clone()));
        }
    }

    /// Enters a record that was committed.
    pub(super) fn enter(&mut self, record: &RoundRecord, hub: &Hub, sites: &[Site]) -> Result<()> {
        let completed = self.completed();
        ensure!(record.round == completed + 1, "round {} follows {completed}", record.round);
        if let RoundOutcome::Completed(global) = record.outcome {
            let made = from_bytes(&hub.server.blobs.read(global)?);
            let expected = self.mean(record, hub, sites)?;
            let tolerance = if record.secure.is_some() { QUANTIZATION } else { ROUNDING };
            let furthest = made
                .iter()
                .zip(&expected)
                .map(|(made, expected)| (f64::from(*made) - expected).abs())
                .fold(0.0, f64::max);
            ensure!(made.len() == expected.len(), "the model has another size");
            ensure!(furthest <= tolerance, "the model is {furthest} from the mean of the accepted updates");
            self.published(record, global, hub)?;
            self.model = made;
        }
        self.records.push(record.clone());
        Ok(())
    }

    fn completed(&self) -> u32 {
        let completed = |record: &&RoundRecord| matches!(record.outcome, RoundOutcome::Completed(_));
        self.records.iter().filter(completed).count() as u32
    }

    /// The plain mean of what the accepted sites trained, on top of the model before.
    fn mean(&self, record: &RoundRecord, hub: &Hub, sites: &[Site]) -> Result<Vec<f64>> {
        let spec = &hub.run.run().spec;
        let task = TaskId { run: hub.run.run().id.clone(), round: record.round, attempt: record.attempt };
        let before = self.global(hub)?;
        let (mut sum, mut weight) = (vec![0.0; self.model.len()], 0.0);
        let mut accepted = 0;
        for participant in record.participants.iter().filter(|one| one.answer == Answer::Accepted) {
            let site = sites.iter().find(|site| site.name == participant.site).context("an unknown site")?;
            ensure!(!self.banned.contains(&(task.clone(), site.name.clone())), "{} was sent away", site.name);
            let trained = site.deltas.get(&(record.round, before));
            let (delta, examples) = trained.with_context(|| format!("{} trained nothing", site.name))?;
            sum.iter_mut().zip(delta).for_each(|(sum, value)| *sum += f64::from(*value) * *examples as f64);
            weight += *examples as f64;
            accepted += 1;
        }
        ensure!(accepted >= spec.cohort.min_updates, "{accepted} updates are too few");
        let rate = spec.server.learning_rate;
        Ok(self.model.iter().zip(sum).map(|(value, sum)| f64::from(*value) + rate * sum / weight).collect())
    }

    /// What is published of a completed round: the records hang together, and name whose updates the model is made of.
    fn published(&self, record: &RoundRecord, global: BlobId, hub: &Hub) -> Result<()> {
        let body = &record.record.as_ref().context("nothing was published")?.body;
        let before = self.records.iter().rev().find_map(|record| record.record.as_ref());
        ensure!(body.previous == before.map(|before| before.body.digest()), "the chain is broken");
        ensure!((body.model_in, body.model_out) == (self.global(hub)?, global), "it is of another model");
        ensure!(body.origin == hub.run.job().origin(), "it is of another run");
        let sites: Vec<&ClientId> = match &body.made_of {
            MadeOf::Sum(sum) => sum.survivors.iter().collect(),
            MadeOf::Updates(updates) => updates.iter().map(|counted| &counted.site).collect(),
            MadeOf::Listed { .. } => bail!("it names no sites"),
        };
        let accepted = record.participants.iter().filter(|one| one.answer == Answer::Accepted);
        ensure!(sites == accepted.map(|one| &one.site).collect::<Vec<_>>(), "it names other sites");
        Ok(())
    }

    /// The name of the model before the round in hand.
    fn global(&self, hub: &Hub) -> Result<BlobId> {
        let last = self.records.iter().rev().find_map(|record| match record.outcome {
            RoundOutcome::Completed(global) => Some(global),
            RoundOutcome::Abandoned(_) => None,
        });
        Ok(last.unwrap_or(hub.run.run().initial))
    }

    /// The run is over: everything adds up.
    pub(super) fn close(&self, hub: &Hub, sites: &[Site]) -> Result<End> {
        let history = hub.store().history(&hub.run.run().id)?;
        // Metrics may lose their last bit on the way through JSON.
        let told = |record: &RoundRecord| {
            (record.round, record.attempt, record.outcome.clone(), record.participants.clone())
        };
        ensure!(history.iter().map(told).eq(self.records.iter().map(told)), "the history is another one");
        ensure!(hub.run.completed() == self.completed(), "rounds were counted that were not completed");
        ensure!(hub.run.global() == self.global(hub)?, "the last model is not that of the last round");
        for site in sites {
            let twice = site.trained.iter().find(|(_, times)| **times > 1);
            ensure!(twice.is_none(), "{} trained twice for {twice:?}", site.name);
        }
        let full = |record: &RoundRecord| {
            let accepted = record.participants.iter().filter(|one| one.answer == Answer::Accepted);
            accepted.count() == SITES.len()
        };
        let state = hub.run.state().0;
        let model = hub.server.blobs.read(hub.run.global())?;
        let undisturbed = self.completed() == super::ROUNDS
            && self
                .records
                .iter()
                .all(|record| matches!(record.outcome, RoundOutcome::Completed(_)) && full(record));
        Ok(End { state, model, undisturbed })
    }
}
