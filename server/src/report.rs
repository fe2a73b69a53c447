//! What the server tells: status for operators, and the log's lines about rounds.

use sheaf_common::id::{ClientId, RunId};
use sheaf_common::message::{ExportPlan, Reply, Request};
use sheaf_common::status::{
    Answer, MemberStatus, RoundOutcome, RoundRecord, RoundStatus, RunState, RunStatus, RunSummary, SiteStatus,
};
use sheaf_common::time::Timestamp;
use sheaf_common::wire::{self, FRAME_MAX};
use tracing::{info, warn};

use crate::core::{Coordinator, Input};
use crate::registry::PeerId;
use crate::state::State;
use crate::store::{Store, StoreError};

impl State {
    /// Answers a question that changes nothing.
    pub(crate) fn answer(&mut self, peer: PeerId, request: Request, now: Timestamp) -> Reply {
        let answer = match request {
            Request::Runs => Ok(Reply::Runs(self.runs.iter().map(|run| self.summary(run)).collect())),
            Request::Run(run) => self.status_of(&run, now).map(|status| Reply::Run(Box::new(status))),
            Request::Sites => self.site_list(now).map(Reply::Sites).map_err(|e| e.to_string()),
            Request::Waiting => Ok(Reply::Waiting(self.waiting())),
            Request::Models => Ok(Reply::Models(self.models.clone())),
            Request::Export { run, round } => self.export(peer, &run, round, now),
            Request::Submit { .. }
            | Request::Survey { .. }
            | Request::Stop(_)
            | Request::Stand { .. }
            | Request::Invite { .. }
            | Request::Approve { .. }
            | Request::ImportModel { .. } => Err("that request is not a question".into()),
        };
        answer.unwrap_or_else(Reply::Refused)
    }

    fn coordinator(&self, run: &RunId) -> Result<&Coordinator, String> {
        let found = self.runs.iter().find(|coordinator| coordinator.run().id == *run);
        found.ok_or_else(|| format!("there is no run {run} (see `sheaf run list`)"))
    }

    fn status_of(&self, run: &RunId, now: Timestamp) -> Result<RunStatus, String> {
        let coordinator = self.coordinator(run)?;
        let database = |error: StoreError| error.to_string();
        let [final_metrics, test_metrics] = self.store.last_metrics(run).map_err(database)?;
        let (earlier_records, history) = newest(&self.store, run).map_err(database)?;
        Ok(RunStatus {
            summary: self.summary(coordinator),
            spec: coordinator.run().spec.clone(),
            num_params: coordinator.params().numel(),
            held: self.held(run).map(|(site, why)| (site.clone(), why.to_owned())).collect(),
            current: self.round_status(coordinator, now),
            earlier_records,
            history,
            final_metrics,
            test_metrics,
            best: coordinator.best(),
            result: coordinator.result(),
            global: coordinator.global(),
        })
    }

    /// Connected sites that do not stand by for a run, and why.
    fn held<'a>(&'a self, run: &'a RunId) -> impl Iterator<Item = (&'a ClientId, &'a str)> {
        self.standby.iter().filter_map(|(site, said)| Some((site, said.get(run)?.as_deref()?)))
    }

    fn summary(&self, coordinator: &Coordinator) -> RunSummary {
        let (state, mut detail) = coordinator.state();
        let run = coordinator.run();
        if state == RunState::Waiting {
            detail.extend(self.held(&run.id).map(|(site, why)| format!("; {site}: {why}")));
        }
        RunSummary {
            run: run.id.clone(),
            state,
            completed_rounds: coordinator.completed(),
            rounds: run.spec.rounds,
            submitted_by: run.submitted_by.clone(),
            submitted_at: run.submitted_at,
            detail,
        }
    }

    fn round_status(&self, coordinator: &Coordinator, now: Timestamp) -> Option<RoundStatus> {
        let view = coordinator.round()?;
        let run = &coordinator.run().id;
        let members = view.members.into_iter().map(|(site, answer)| MemberStatus {
            connected: self.registry.sites().contains_key(&site),
            progress: self.progress.get(&(run.clone(), site.clone())).copied(),
            site,
            answer,
        });
        Some(RoundStatus {
            round: view.task.round,
            attempt: view.task.attempt,
            started: view.started,
            stage: view.stage.to_owned(),
            time_left: view.deadline.since(now),
            members: members.collect(),
        })
    }

    fn site_list(&mut self, now: Timestamp) -> Result<Vec<SiteStatus>, StoreError> {
        self.registry.look(now);
        let status = |seen: crate::store::SeenSite| {
            let connected = self.registry.sites().get(&seen.site);
            let traffic = self.registry.traffic(&seen.site);
            SiteStatus {
                connection: connected.map(|site| site.status(now)),
                standing: self.standings.get(&seen.site).copied().unwrap_or_default(),
                address: seen.address,
                software: seen.software,
                since: connected.map_or(seen.seen, |site| site.since),
                run: self.works_for(&seen.site),
                bytes_down: traffic.down,
                bytes_up: traffic.up,
                expires: seen.expires,
                site: seen.site,
            }
        };
        Ok(self.store.sites()?.into_iter().map(status).collect())
    }

    fn works_for(&self, site: &ClientId) -> Option<RunId> {
        let member = |run: &&Coordinator| {
            run.round().is_some_and(|round| round.members.iter().any(|(name, _)| name == site))
        };
        self.runs.iter().find(member).map(|run| run.run().id.clone())
    }

    fn export(
        &mut self,
        peer: PeerId,
        run: &RunId,
        round: Option<u32>,
        now: Timestamp,
    ) -> Result<Reply, String> {
        let status = self.status_of(run, now)?;
        let coordinator = self.coordinator(run)?;
        let round = round.unwrap_or(coordinator.result());
        let global = match round {
            0 => Some(coordinator.run().initial),
            _ => self.store.global_after(run, round).map_err(|e| e.to_string())?,
        };
        let global = global.ok_or_else(|| {
            format!("run {run} has no round {round}: {} are completed", coordinator.completed())
        })?;
        if self.blobs.length(global).is_none() {
            return Err(format!(
                "the model of {run} after round {round} is kept no longer: see [retention] in server.toml"
            ));
        }
        let mut job = coordinator.job();
        job.global = global;
        job.params = coordinator.run().phases.after(round).clone();
        let get = self.blobs_of(job.model, global);
        self.registry.grant(peer, &get);
        Ok(Reply::Export(Box::new(ExportPlan { status, round, job })))
    }
}

/// The newest records that fit one reply, and how many older ones there are. All are in the database.
fn newest(store: &Store, run: &RunId) -> Result<(u64, Vec<RoundRecord>), StoreError> {
    let mut room = FRAME_MAX / 2;
    let fits = |record: &RoundRecord| {
        let length = wire::encode(record).map_or(usize::MAX, |bytes| bytes.len());
        let left = room.checked_sub(length);
        room = left.unwrap_or(room);
        left.is_some()
    };
    let history = store.newest(run, fits)?;
    Ok((store.attempts(run)?.saturating_sub(history.len() as u64), history))
}

/// One line for an attempt that is over.
pub(crate) fn round(run: &RunId, record: &RoundRecord) {
    let seconds = record.ended.since(record.started).as_secs_f64();
    let round = record.round;
    match &record.outcome {
        RoundOutcome::Completed(global) => {
            let updates = record.participants.iter().filter(|site| site.answer == Answer::Accepted).count();
            let metrics = record.global_metrics.as_ref().map(ToString::to_string);
            info!(%run, round, seconds, updates, loss = record.train_loss, metrics, model = global.short(), "round completed");
        }
        RoundOutcome::Abandoned(why) => {
            warn!(%run, round, attempt = record.attempt, seconds, why, "round abandoned")
        }
    }
}

/// A line for what people want to know at once.
pub(crate) fn heeded(input: &Input) {
    if let Input::Declined { from, task, reason } = input {
        warn!(site = %from, %task, %reason, "site declined");
    }
}

/// One line for a run that is over.
pub(crate) fn ended(run: &RunId, state: &RunState, detail: &str) {
    match state {
        RunState::Failed => warn!(%run, why = detail, "run failed"),
        RunState::Queued
        | RunState::Waiting
        | RunState::Running
        | RunState::Evaluating
        | RunState::Completed
        | RunState::Stopped => info!(%run, %state, detail, "run ended"),
    }
}
