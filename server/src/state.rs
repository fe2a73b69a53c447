//! What the server's loop owns, and what each event does to it: inputs to coordinators, durable writes, effects.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Federation, Name, Role, RunId};
use sheaf_common::message::{EvaluateTask, Job, Reply, ServerMessage, SiteMessage, TaskId, TrainTask};
use sheaf_common::model::{Manifest, ModelInfo};
use sheaf_common::record::SignedRecord;
use sheaf_common::run::SecureAggregation;
use sheaf_common::secagg::message::Answer;
use sheaf_common::secagg::server::Evidence;
use sheaf_common::status::{Progress, RunState, Standing};
use sheaf_common::time::Timestamp;
use sheaf_transport::blobs::{Aside, BlobDir, BlobError};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::connection::{Event, Finding, Joined, sender};
use crate::core::queue::{Waiting, startable};
use crate::core::{Coordinator, Effect, Input, Run};
use crate::enrolment::state::Registrar;
use crate::journal::{Step, step};
use crate::publication::Made;
use crate::registry::{Access, PeerId, Registry};
use crate::server::now;
use crate::store::{SeenSite, Store, StoreError, Write};
use crate::submit::{Prepared, SubmitError};

/// Runs that a site is told of as soon as it comes; fewer than messages may wait for it.
const ANNOUNCED: usize = 32;

/// Inputs of a run that are journalled before its state is written down in their place: however often sites come and go,
/// the journal stays short.
const JOURNAL_MAX: u32 = 50_000;

/// What a background job came to.
#[derive(Debug)]
pub(crate) enum Done {
    Aggregated(TaskId, Result<Made, String>),
    Prepared(Name, oneshot::Sender<Reply>, Result<Box<Prepared>, SubmitError>),
    Described(oneshot::Sender<Reply>, Result<ModelInfo, SubmitError>),
    Failed(DiskFailed),
}

/// A round's result cannot be written, which is not the round's fault: the server stops, and the round waits.
#[derive(Debug, thiserror::Error)]
#[error("{0}; then start the server again: every run goes on where it was")]
pub struct DiskFailed(pub(crate) String);

/// Everything that the loop owns.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) federation: Federation,
    pub(crate) store: Store,
    /// Models and global parameters.
    pub(crate) blobs: BlobDir,
    /// Sites' updates.
    pub(crate) updates: BlobDir,
    pub(crate) registry: Registry,
    /// All runs, in the order of submission.
    pub(crate) runs: Vec<Coordinator>,
    /// How many inputs of each were journalled since its state was written down, or the program started.
    journalled: BTreeMap<RunId, u32>,
    pub(crate) models: Vec<ModelInfo>,
    /// The files of imported models that were asked for: every task of every site names them.
    files: BTreeMap<BlobId, Vec<BlobId>>,
    /// The sites of which an operator has said whether they may take part.
    pub(crate) standings: BTreeMap<ClientId, Standing>,
    /// What members of rounds in progress are doing.
    pub(crate) progress: BTreeMap<(RunId, ClientId), Progress>,
    /// What connected sites have said of a run that was announced: why they do not stand by for it, if they do not.
    pub(crate) standby: BTreeMap<ClientId, BTreeMap<RunId, Option<String>>>,
    /// Durable writes of the batch in hand.
    pub(crate) writes: Vec<Write>,
    /// Effects of the batch in hand, with the run that each belongs to.
    pub(crate) effects: VecDeque<(usize, Effect)>,
    /// Replies to operators that must wait until the batch is durable.
    pub(crate) replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    /// Who gets a certificate.
    pub(crate) registrar: Registrar,
}

impl State {
    /// Every run as the store tells it; nobody is connected yet.
    pub(crate) fn open(
        federation: Federation,
        store: Store,
        blobs: BlobDir,
        updates: BlobDir,
        registrar: Registrar,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            registrar: Registrar { invitations: store.invitations()?, ..registrar },
            federation,
            runs: store.runs()?,
            journalled: BTreeMap::new(),
            models: store.models()?,
            files: BTreeMap::new(),
            standings: store.standings()?,
            store,
            blobs,
            updates,
            registry: Registry::default(),
            progress: BTreeMap::new(),
            standby: BTreeMap::new(),
            writes: Vec::new(),
            effects: VecDeque::new(),
            replies: Vec::new(),
        })
    }

    /// Gives an input to a run; what it gives rise to waits for the batch to be durable.
    pub(crate) fn feed(&mut self, index: usize, input: Input, at: Timestamp) {
        let coordinator = &mut self.runs[index];
        let Step { mut writes, effects } = step(coordinator, input, at);
        let heeded = !writes.is_empty();
        let journalled = self.journalled.entry(coordinator.run().id.clone()).or_default();
        *journalled += u32::from(heeded);
        if *journalled >= JOURNAL_MAX {
            writes.push(Write::Snapshot(Box::new(coordinator.clone())));
        }
        if writes.iter().any(|write| matches!(write, Write::Snapshot(_))) {
            *journalled = 0;
        }
        for write in &writes {
            if let Write::Round { run, record } = write {
                crate::report::round(run, record);
            } else if let Write::Input { input, .. } = write {
                crate::report::heeded(input);
            }
        }
        for effect in &effects {
            if let Effect::Ended(state) = effect {
                let run = &coordinator.run().id;
                self.progress.retain(|(of, _), _| of != run);
                self.standby.values_mut().for_each(|said| _ = said.remove(run));
                crate::report::ended(run, state, &coordinator.state().1);
            } else if let Effect::Reject { to, task, reason } = effect
                && heeded
            {
                warn!(site = %to, %task, %reason, "update refused");
            }
        }
        self.writes.extend(writes);
        self.effects.extend(effects.into_iter().map(|effect| (index, effect)));
    }

    /// What a run goes on from is what was written, or is not there: an attempt without it is tried again, or fails.
    pub(crate) fn check_blobs(&self, index: usize) -> Result<(), BlobError> {
        let run = &self.runs[index];
        let held = run.held().into_iter().map(|blob| (&self.updates, blob));
        for (dir, blob) in held.chain([(&self.blobs, run.global())]) {
            if !dir.is_sound(blob)? {
                error!(run = %run.run().id, %blob, "a blob is missing or damaged: the run is better brought back from a backup");
                dir.remove(blob)?;
            }
        }
        Ok(())
    }

    /// Gives the same input to every unfinished run that admits `site`.
    fn feed_admitting(&mut self, site: &ClientId, input: &Input) {
        let at = now();
        for index in 0..self.runs.len() {
            let run = &self.runs[index];
            if run.admits(site) && !run.state().0.is_final() {
                self.feed(index, input.clone(), at);
            }
        }
    }

    fn find(&self, run: &RunId) -> Option<usize> {
        self.runs.iter().position(|coordinator| coordinator.run().id == *run)
    }

    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened(peer, identity) => self.registry.add(peer, identity),
            Event::Knock(site, reply) => _ = reply.send(self.welcomes(&site)),
            Event::Joined(joined) => self.on_joined(joined),
            Event::Offered(from, update, reply) => {
                let run = self.find(&update.task.run).map(|index| &self.runs[index]);
                let input = Input::Update { from, update, inspection: None };
                let _ = reply.send(run.is_some_and(|run| run.awaits(&input)));
            }
            Event::Message(peer, site, message, finding) if self.registry.is_current(&site, peer) => {
                self.on_message(&site, message, finding);
            }
            Event::Access(peer, access, reply) => _ = reply.send(self.permit(peer, access)),
            Event::Moved(peer, down, up) => self.registry.count(peer, down, up),
            Event::Closed(peer) => {
                if let Some(site) = self.registry.remove(peer) {
                    info!(%site, "site disconnected");
                    self.forget_connection(&site);
                }
            }
            Event::Enroll(shown, reply) => self.on_enroll(shown, reply),
            Event::Message(..) | Event::Request(..) => {}
        }
    }

    fn permit(&mut self, peer: PeerId, access: Access) -> Result<(), String> {
        self.registry.permits(peer, access)?;
        if let Access::Put(blob, _) = access
            && let Some((site, old)) = self.registry.begin(peer, blob)
            && !self.runs.iter().any(|run| run.holds(old))
        {
            let from = sender(Role::Site, &site.0);
            let removed = self.updates.remove(old).and_then(|()| self.updates.remove_partial(old, &from));
            if let Err(error) = removed {
                warn!(%site, %error, "a blob that nothing names stays on disk");
            }
        }
        Ok(())
    }

    fn on_joined(&mut self, joined: Joined) {
        let Joined { peer, site, software, outbox, connection, expires } = joined;
        // It may have been sent away since it knocked.
        if let Err(why) = self.welcomes(&site) {
            return connection.close(4, &why);
        }
        let (address, at) = (connection.remote_address().to_string(), now());
        info!(%site, %address, %software, "site connected");
        self.writes.push(Write::Site(SeenSite {
            site: site.clone(),
            address: address.clone(),
            software: software.clone(),
            seen: at,
            expires,
        }));
        // It may be back before it was missed.
        self.forget_connection(&site);
        self.registry.join(site.clone(), peer, (address, software), at, outbox, connection);
        // The others are announced when they start.
        let unfinished = (0..self.runs.len()).filter(|index| !self.runs[*index].state().0.is_final());
        unfinished.take(ANNOUNCED).for_each(|index| self.announce_to(&site, index));
    }

    /// What a site said on its connection counts no longer: on the next one it is announced its runs anew.
    fn forget_connection(&mut self, site: &ClientId) {
        self.standby.remove(site);
        self.registrar.renewals.remove(site);
        self.feed_admitting(site, &Input::Disconnected(site.clone()));
    }

    pub(crate) fn standing(&self, site: &ClientId) -> Standing {
        self.standings.get(site).copied().unwrap_or_default()
    }

    pub(crate) fn welcomes(&self, site: &ClientId) -> Result<(), String> {
        match self.standing(site) {
            Standing::Admitted => Ok(()),
            Standing::Suspended => Err(format!("site {site} is suspended: ask the operator to resume it")),
            Standing::Revoked => Err(format!(
                "site {site} is revoked for good: ask the operator for a certificate with a new name"
            )),
        }
    }

    /// Lets a site in or sends it away: its connection is cut, and every run counts it out.
    pub(crate) fn stand(
        &mut self,
        site: ClientId,
        standing: Standing,
        keep_updates: bool,
        by: &Name,
    ) -> Reply {
        if self.standing(&site) == Standing::Revoked && standing != Standing::Revoked {
            return Reply::Refused(format!(
                "site {site} is revoked for good: issue a certificate with a new name"
            ));
        }
        let at = now();
        info!(%site, %standing, %by, "the operator changed who may take part");
        self.writes.push(Write::Standing { site: site.clone(), standing, by: by.clone(), at });
        self.standings.insert(site.clone(), standing);
        let mut counted = Vec::new();
        if standing != Standing::Admitted {
            if !keep_updates {
                let bound = self.runs.iter().filter(|run| run.sums_with(&site));
                counted.extend(bound.map(|run| run.run().id.clone()));
            }
            let why = format!("it was {standing} by operator {by}");
            let excluded = Input::Excluded { site: site.clone(), keep_updates, why: why.clone() };
            self.feed_admitting(&site, &excluded);
            self.registry.cut(&site, &why);
        }
        Reply::Stands { site, standing, counted }
    }

    fn on_message(&mut self, site: &ClientId, message: SiteMessage, finding: Finding) {
        let from = site.clone();
        let (task, input) = match message {
            SiteMessage::Progress { task, progress } => {
                if self.find(&task.run).is_some() {
                    self.progress.insert((task.run, from), progress);
                }
                return;
            }
            SiteMessage::Standby { run, held } => return self.on_standby(site, run, held),
            SiteMessage::Update(update) => {
                let inspection = finding.inspection.filter(|_| self.is_here(update.delta));
                (update.task.clone(), Input::Update { from, update, inspection })
            }
            SiteMessage::Ready(task) => (task.clone(), Input::Ready { from, task }),
            SiteMessage::Secure { task, answer } => {
                let gone = matches!(&answer, Answer::Masked(blob) if !self.is_here(*blob));
                let evidence = if gone { Evidence::Nothing } else { finding.evidence };
                (task.clone(), Input::Secure { from, task, answer: Box::new(answer), evidence })
            }
            SiteMessage::Evaluated { task, metrics } => {
                (task.clone(), Input::Evaluated { from, task, metrics })
            }
            SiteMessage::Renew(request) => return self.renew(site, request),
            SiteMessage::Declined { task, reason } => (task.clone(), Input::Declined { from, task, reason }),
        };
        match self.find(&task.run) {
            Some(index) => self.feed(index, input, now()),
            None => {
                let reason = format!("there is no run {}", task.run);
                self.registry.send(site, ServerMessage::Rejected { task, reason });
            }
        }
    }

    /// Whether an update is here still: its site may have given it up for others while it was looked at. From here on
    /// the run holds it.
    fn is_here(&self, blob: BlobId) -> bool {
        self.updates.length(blob).is_some()
    }

    pub(crate) fn on_done(&mut self, done: Done) -> Result<(), DiskFailed> {
        match done {
            Done::Aggregated(task, result) => {
                let Some(index) = self.find(&task.run) else { return Ok(()) };
                let input = match result {
                    Ok(Made { global, record, summed }) => Input::Aggregated { task, global, record, summed },
                    Err(why) => Input::AggregationFailed { task, why },
                };
                self.feed(index, input, now());
            }
            Done::Prepared(by, reply, result) => {
                let answer = match result {
                    Ok(prepared) => {
                        let warnings = prepared.spec.warnings();
                        Reply::Submitted { run: self.queue(*prepared, by), warnings }
                    }
                    Err(error) => Reply::Refused(error.to_string()),
                };
                self.replies.push((reply, answer));
            }
            Done::Failed(failed) => return Err(failed),
            Done::Described(reply, result) => {
                let answer = match result {
                    Ok(info) => {
                        info!(name = info.name, manifest = %info.manifest.short(), "model imported");
                        self.models.retain(|model| model.name != info.name);
                        self.models.push(info.clone());
                        self.models.sort_by(|a, b| a.name.cmp(&b.name));
                        self.writes.push(Write::Model(info.clone()));
                        Reply::Imported(info)
                    }
                    Err(error) => Reply::Refused(error.to_string()),
                };
                self.replies.push((reply, answer));
            }
        }
        Ok(())
    }

    /// Queues a run under a name that is free.
    fn queue(&mut self, prepared: Prepared, by: Name) -> RunId {
        let Prepared { spec, author, model, phases, initial } = prepared;
        let id = self.free_name(&spec.name);
        info!(run = %id, %by, "run submitted");
        let run = Run {
            id: id.clone(),
            federation: self.federation.clone(),
            spec,
            submitted_by: by,
            author: Some(author),
            submitted_at: now(),
            model,
            phases,
            initial,
        };
        let coordinator = Coordinator::new(run);
        self.writes.push(Write::Run(Box::new(coordinator.clone())));
        self.runs.push(coordinator);
        let index = self.runs.len() - 1;
        self.announce(index);
        id
    }

    /// Tells the connected sites that have not yet said whether they stand by for a run that there is one. The run
    /// knows of a site once it does.
    fn announce(&self, index: usize) {
        for site in self.registry.sites().keys() {
            self.announce_to(site, index);
        }
    }

    fn announce_to(&self, site: &ClientId, index: usize) {
        let run = &self.runs[index];
        let id = &run.run().id;
        let has_said = self.standby.get(site).is_some_and(|said| said.contains_key(id));
        if run.admits(site) && !run.state().0.is_final() && !has_said {
            let (run, job) = (id.clone(), Box::new(run.job()));
            self.registry.send(site, ServerMessage::Announce { run, job });
        }
    }

    /// A site says whether it may be sent a run's tasks now.
    fn on_standby(&mut self, site: &ClientId, run: RunId, held: Option<String>) {
        let Some(index) = self.find(&run).filter(|index| self.runs[*index].admits(site)) else { return };
        if self.runs[index].state().0.is_final() {
            return;
        }
        let input = match &held {
            None => Input::Connected(site.clone()),
            Some(_) => Input::Disconnected(site.clone()),
        };
        let said = self.standby.entry(site.clone()).or_default().insert(run.clone(), held.clone());
        // Said again, in whatever words, it changes nothing.
        if said.is_some_and(|said| said.is_some() == held.is_some()) {
            return;
        }
        if let Some(why) = held {
            info!(%site, %run, %why, "site does not stand by");
        }
        self.feed(index, input, now());
    }

    /// `name`, or `name-2`, `name-3` … when it is taken.
    fn free_name(&self, name: &Name) -> RunId {
        let taken: BTreeSet<&str> = self.runs.iter().map(|run| run.run().id.as_str()).collect();
        if !taken.contains(name.as_str()) {
            return RunId(name.clone());
        }
        let numbered = |number: u64| {
            let suffix = format!("-{number}");
            let stem = &name.as_str()[..name.as_str().len().min(sheaf_common::id::NAME_MAX - suffix.len())];
            format!("{}{suffix}", stem.trim_end_matches('-'))
        };
        (2..)
            .map(numbered)
            .filter(|candidate| !taken.contains(candidate.as_str()))
            .find_map(|candidate| candidate.parse().ok())
            .unwrap_or_else(|| RunId(name.clone()))
    }

    pub(crate) fn stop(&mut self, run: &RunId, by: &Name) -> Reply {
        match self.find(run) {
            None => Reply::Refused(format!("there is no run {run}")),
            Some(index) if self.runs[index].state().0.is_final() => {
                Reply::Refused(format!("run {run} is over already: {}", self.runs[index].state().0))
            }
            Some(index) => {
                self.feed(index, Input::Stop(by.clone()), now());
                Reply::Stopping(run.clone())
            }
        }
    }

    /// Lets queued runs go whose sites are free.
    pub(crate) fn start_runs(&mut self) {
        // Asked after every batch of events, when there is hardly ever one.
        if !self.runs.iter().any(Coordinator::is_queued) {
            return;
        }
        let (indices, waiting): (Vec<usize>, Vec<Waiting<'_>>) = self
            .runs
            .iter()
            .enumerate()
            .filter(|(_, run)| !run.state().0.is_final())
            .map(|(index, run)| {
                let sites = run.run().spec.cohort.sites.as_deref();
                (index, Waiting { sites, started: run.state().0 != RunState::Queued })
            })
            .unzip();
        for index in startable(&waiting).into_iter().map(|at| indices[at]).collect::<Vec<_>>() {
            info!(run = %self.runs[index].run().id, "run starts");
            self.feed(index, Input::Start, now());
            self.announce(index);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.runs.iter().filter_map(Coordinator::poll_timeout).min()
    }

    pub(crate) fn on_timeout(&mut self) {
        let at = now();
        for index in 0..self.runs.len() {
            if self.runs[index].poll_timeout().is_some_and(|due| due <= at) {
                self.feed(index, Input::Tick, at);
            }
        }
    }

    /// Does what a coordinator wants done outside.
    pub(crate) fn perform(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Train { to, task, deadline } => {
                let job = self.runs[index].job();
                let record = self.runs[index].record().cloned().map(Box::new);
                let get = self.blobs_of_task(&job, record.as_deref());
                self.progress.remove(&(task.run.clone(), to.clone()));
                let secure = job.spec.secure_aggregation != SecureAggregation::Off;
                self.registry.grant_site(
                    &to,
                    &get,
                    (!secure).then(|| job.spec.compression.lengths(job.params.numel())),
                );
                let time_left_ms = deadline.0.saturating_sub(now().0);
                let task = TrainTask { id: task, job, record, time_left_ms };
                self.registry.send(&to, ServerMessage::Train(Box::new(task)));
            }
            Effect::Evaluate { to, task } => {
                let job = self.runs[index].job();
                let record = self.runs[index].record().filter(|_| !task.is_test()).cloned().map(Box::new);
                let get = self.blobs_of_task(&job, record.as_deref());
                self.progress.remove(&(task.run.clone(), to.clone()));
                self.registry.grant_site(&to, &get, None);
                let task = EvaluateTask { id: task, job, record };
                self.registry.send(&to, ServerMessage::Evaluate(Box::new(task)));
            }
            Effect::Ask { to, task, ask, put } => {
                self.registry.grant_site(&to, &[], put.map(|bytes| bytes..=bytes));
                self.registry.send(&to, ServerMessage::Secure { task, ask: *ask });
            }
            Effect::Reject { to, task, reason } => {
                self.registry.send(&to, ServerMessage::Rejected { task, reason });
            }
            Effect::Over { to, task } => self.registry.send(&to, ServerMessage::Over(task)),
            Effect::Forget(blobs) => self.forget(blobs),
            Effect::Withdraw(sum) => {
                let published = |run: &Coordinator| {
                    run.record().and_then(|record| record.body.sum()).is_some_and(|other| other.blob == sum)
                };
                if !self.runs.iter().any(published)
                    && let Err(error) = self.blobs.remove(sum)
                {
                    warn!(%error, "a sum that is no longer needed stays on disk");
                }
            }
            // These were dealt with when they were made: they are writes, or jobs.
            Effect::Aggregate(_)
            | Effect::Open(_)
            | Effect::Record(_)
            | Effect::FinalMetrics(_)
            | Effect::TestMetrics(_)
            | Effect::Ended(_) => {}
        }
    }

    /// Lets go of updates. None of them is here any more on return, so that one that comes again stays; what the disk takes
    /// its time for is not done on the loop.
    fn forget(&mut self, updates: Vec<BlobId>) {
        let held: BTreeSet<BlobId> = self.runs.iter().flat_map(Coordinator::held).collect();
        let gone: BTreeSet<BlobId> = updates.into_iter().filter(|blob| !held.contains(blob)).collect();
        self.registry.forget(&gone);
        let set_aside = |blob: &BlobId| {
            self.updates.set_aside(*blob).unwrap_or_else(|error| {
                warn!(%error, "an update that is no longer needed stays on disk");
                None
            })
        };
        let aside: Vec<Aside> = gone.iter().filter_map(set_aside).collect();
        tokio::task::spawn_blocking(move || drop(aside));
    }

    /// Every blob that a task names: its sites check a published sum against the parameters before it.
    fn blobs_of_task(&mut self, job: &Job, record: Option<&SignedRecord>) -> Vec<BlobId> {
        let published = record.and_then(|record| Some([record.body.sum()?.blob, record.body.model_in]));
        self.blobs_of(job.model, job.global).into_iter().chain(published.into_iter().flatten()).collect()
    }

    /// Every blob of a model with these parameters.
    pub(crate) fn blobs_of(&mut self, model: Option<BlobId>, global: BlobId) -> Vec<BlobId> {
        let files = model.map(|model| self.files_of(model)).unwrap_or_default();
        files.iter().copied().chain(model).chain([global]).collect()
    }

    /// The files of an imported model; none when it cannot be read.
    fn files_of(&mut self, model: BlobId) -> &[BlobId] {
        match self.files.entry(model) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let json = self.blobs.read(model).ok();
                let Some(manifest) = json.and_then(|json| Manifest::parse(&json).ok()) else { return &[] };
                new.insert(manifest.files.iter().map(|file| file.blob).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
