//! Between two rounds, and where a simulation begins and goes on after an interruption.
//!
//! When a round is over, whoever still works for it stops: the server would refuse what comes late. Only what was just said
//! and who comes and goes next is left to happen, and so a file with these and the coordinator, and the rows so far, are
//! all that a simulation goes on from. What a client remembers is in a folder of the epoch in which it last woke, a copy of
//! the one before, so that whatever an interrupted epoch changed can be done again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_client::state::SiteState;
use sheaf_common::blob::BlobId;
use sheaf_common::checked;
use sheaf_common::compression::Encoding;
use sheaf_common::id::ClientId;
use sheaf_common::run::{BatchNorm, SecureAggregation};
use sheaf_common::status::RoundRecord;
use sheaf_common::time::Timestamp;
use sheaf_server::core::{Coordinator, Effect, Input};
use sheaf_transport::durable::{self, Outlive};

use super::{Clock, Event, Federation, FederationError, Last, Member};
use crate::agenda::{Agenda, Entry};
use crate::client::Client;
use crate::config::Setting;
use crate::data::Examples;
use crate::hub::Hub;
use crate::identity::Identities;
use crate::log::Log;
use crate::pool::Pool;
use crate::profile::{self, Profile};
use crate::rounds::{Row, Score, Traffic};
use crate::scoring::Scorer;

/// The file that a simulation goes on from.
const CHECKPOINT: &str = "checkpoint";

/// The file of the rounds so far.
const ROWS: &str = "rows";

/// The folder of the clients' state directories.
const SITES: &str = "sites";

/// Everything that matters between two rounds.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    epoch: u64,
    now: Timestamp,
    moved: Timestamp,
    run: Coordinator,
    agenda: (Vec<Entry<Kept>>, u64),
    /// What is being said, each once.
    frames: Vec<Vec<u8>>,
    members: Vec<(bool, u64, Option<Timestamp>)>,
    /// Bytes of the rows' file that hold those so far.
    rows: u64,
    last: Last,
    /// What was sent since the last row.
    traffic: Traffic,
    globals: Vec<BlobId>,
    spent: Duration,
}

/// What is left to happen between two rounds.
#[derive(Clone, Serialize, Deserialize)]
enum Kept {
    ToClient { to: u32, link: u64, frame: usize },
    Change(u32),
}

impl Federation {
    /// Begins a simulation whose own files are in `dir`, or goes on with it. `hub` and `run` are what was
    /// just submitted.
    pub fn open(
        setting: &Setting,
        dir: PathBuf,
        (hub, run): (Hub, Coordinator),
        (identities, examples): (Identities, Examples),
    ) -> Result<Self, FederationError> {
        let simulation = setting.simulation.clone();
        let mut members = Vec::new();
        for number in 0..simulation.clients.get() {
            let name = simulation.name(number).map_err(crate::hub::HubError::from)?;
            let profile = Profile::of(&simulation, &name);
            let is_online = profile::begins_online(&simulation, &name);
            members.push(Member { name, profile, is_online, changes: 0, model: None });
        }
        let pool =
            Pool::start(simulation.num_workers()).map_err(|e| io_error("start a thread for", &dir, e))?;
        let numbers = members.iter().zip(0..).map(|(member, number)| (member.name.clone(), number)).collect();
        let examples = Arc::new(examples);
        let path = dir.join(ROWS);
        let log = Log::open(&path).map_err(|e| io_error("open", &path, e))?;
        let mut federation = Self {
            simulation,
            globals: [run.global()].into(),
            withdrawn: Vec::new(),
            hub,
            run,
            members,
            numbers,
            awake: Default::default(),
            identities,
            scorer: Scorer::new(examples.clone(), setting.simulation.device),
            examples,
            pool,
            agenda: Agenda::default(),
            now: Timestamp(0),
            awaited: None,
            moved: Timestamp(0),
            traffic: Traffic::default(),
            rows: Vec::new(),
            log,
            last: Last::default(),
            epoch: 0,
            arrived: Default::default(),
            dir,
            woken: Default::default(),
            vacant: Vec::new(),
            slots: 0,
            clock: Clock::new(Duration::ZERO),
            sent: Arc::default(),
        };
        if !federation.go_on()? {
            federation.begin()?;
        }
        Ok(federation)
    }

    /// Everybody who is there connects, and then the run starts.
    fn begin(&mut self) -> Result<(), FederationError> {
        self.log.retain(0).map_err(|e| io_error("write", &self.dir.join(ROWS), e))?;
        let greeting = self.greeting()?;
        for number in 0..self.simulation.clients.get() {
            self.change_later(number);
            if let Some(member) = self.members.get(number as usize)
                && member.is_online
                && self.run.admits(&member.name)
            {
                self.traffic += greeting;
                let connected = Input::Connected(member.name.clone());
                self.run.handle(connected, self.now);
            }
        }
        self.feed(Input::Start)
    }

    /// Takes up what was written down, if there is something.
    fn go_on(&mut self) -> Result<bool, FederationError> {
        let path = self.dir.join(CHECKPOINT);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let damaged =
            |why: String| FederationError::Damaged { path: path.clone(), folder: self.dir.clone(), why };
        let found: Checkpoint = checked::decode(CHECKPOINT, &bytes).map_err(|e| damaged(e.to_string()))?;
        if found.members.len() != self.members.len() {
            return Err(damaged("it is of other clients".into()));
        }
        for (member, (is_online, changes, model)) in self.members.iter_mut().zip(found.members) {
            (member.is_online, member.changes, member.model) = (is_online, changes, model);
        }
        let (entries, next) = found.agenda;
        let frames: Vec<Arc<Vec<u8>>> = found.frames.into_iter().map(Arc::new).collect();
        let entries =
            entries.into_iter().filter_map(|entry| entry.filter_map(|kept| kept.event(&frames))).collect();
        self.agenda = Agenda::of((entries, next));
        (self.epoch, self.now, self.moved, self.run) = (found.epoch, found.now, found.moved, found.run);
        let path = self.dir.join(ROWS);
        self.rows = self.log.retain(found.rows).map_err(|e| io_error("read", &path, e))?;
        if self.log.length() != found.rows {
            return Err(damaged("rounds are missing".into()));
        }
        (self.last, self.traffic) = (found.last, found.traffic);
        self.clock = Clock::new(found.spent);
        self.globals = found.globals.into_iter().collect();
        self.await_deadline()?;
        Ok(true)
    }

    /// Whoever still works stops, and nothing of what was under way happens any more.
    pub(super) fn drop_work(&mut self) -> Result<(), FederationError> {
        let mut dropped = Vec::new();
        self.agenda.retain(|event| match event {
            Event::Change(_) => true,
            Event::Told { client, what, .. } => {
                dropped.push((*client, what.clone()));
                false
            }
            Event::ToServer { .. } | Event::ToClient { .. } | Event::Made(_) | Event::Tick => false,
        });
        self.awaited = None;
        for (client, what) in dropped {
            self.call_off(client, &what)?;
        }
        // Also those that do nothing any more: whoever goes on from here finds nobody awake.
        while let Some(client) = self.awake.first_key_value().map(|(client, _)| *client) {
            self.sleep(client)?;
        }
        let held = self.run.held();
        for blob in std::mem::take(&mut self.arrived) {
            if !held.contains(&blob) {
                self.hub.updates.remove(blob)?;
            }
        }
        Ok(())
    }

    /// A round is over.
    pub(super) fn keep(&mut self, row: Row) -> Result<(), FederationError> {
        self.log.append(&row).map_err(|e| io_error("write", &self.dir.join(ROWS), e))?;
        self.rows.push(row);
        Ok(())
    }

    /// Writes down what matters, and lets go of what mattered before.
    pub(super) fn write_down(&mut self) -> Result<(), FederationError> {
        self.epoch += 1;
        self.woken.clear();
        let kept: Vec<BlobId> = self.needed();
        let (entries, next) = self.agenda.entries();
        let mut frames = Vec::new();
        let entries = entries
            .into_iter()
            .filter_map(|entry| entry.filter_map(|event| Kept::of(event, &mut frames)))
            .collect();
        let checkpoint = Checkpoint {
            epoch: self.epoch,
            now: self.now,
            moved: self.moved,
            run: self.run.clone(),
            agenda: (entries, next),
            frames: frames.iter().map(|frame| frame.to_vec()).collect(),
            members: self
                .members
                .iter()
                .map(|member| (member.is_online, member.changes, member.model))
                .collect(),
            rows: self.log.length(),
            last: self.last.clone(),
            traffic: self.traffic,
            globals: kept.clone(),
            spent: self.clock.spent(),
        };
        let bytes = checked::encode(CHECKPOINT, &checkpoint)?;
        let path = self.dir.join(CHECKPOINT);
        Outlive::Program.write(&path, &bytes, 0o600).map_err(|e| io_error("write", &path, e))?;
        for blob in std::mem::take(&mut self.globals) {
            if !kept.contains(&blob) {
                self.hub.blobs.remove(blob)?;
            }
        }
        // Whoever went on from the boundary before would have needed them.
        for sum in std::mem::take(&mut self.withdrawn) {
            self.hub.clear(&self.run, &Effect::Withdraw(sum))?;
        }
        self.globals = kept.into_iter().collect();
        Ok(())
    }

    /// The global parameters that are still needed: the newest, those that the round before began with, by which clients
    /// check its sum, and the best.
    fn needed(&self) -> Vec<BlobId> {
        let best = self.run.result();
        let before = self.run.record().map(|record| record.body.model_in);
        let of_best = self.rows.iter().filter(|row| row.round == best).filter_map(|row| row.global);
        [self.run.global(), self.run.run().initial].into_iter().chain(before).chain(of_best).collect()
    }

    /// The new global model on the common test set.
    pub(super) fn score(&mut self, record: &RoundRecord) -> Result<Option<Score>, FederationError> {
        let sheaf_common::status::RoundOutcome::Completed(global) = &record.outcome else { return Ok(None) };
        let Some(scorer) = &mut self.scorer else { return Ok(None) };
        let values = self.hub.blobs.read(*global)?;
        Ok(scorer.score(&self.run.job(), &values)?)
    }

    /// Whether what clients remember of one round matters in another.
    fn remembers(&self) -> bool {
        let spec = &self.run.run().spec;
        self.is_secure()
            || spec.model.batch_norm == BatchNorm::Local
            || matches!(spec.compression.encoding, Encoding::TopK(_))
    }

    pub(super) fn is_secure(&self) -> bool {
        self.run.run().spec.secure_aggregation != SecureAggregation::Off
    }

    /// Wakes a client, unless it is awake: from its state directory, as it is in this epoch.
    pub(super) fn wake(&mut self, number: u32) -> Result<(), FederationError> {
        let Some(member) = self.members.get(number as usize) else { return Ok(()) };
        let name = member.name.clone();
        if !self.remembers() {
            return if self.awake.contains_key(&number) { Ok(()) } else { self.wake_anew(number, &name) };
        }
        let folder = self.dir.join(SITES).join(name.as_str());
        let is_first = self.woken.insert(number);
        let dir = if is_first {
            take_over(&folder, self.epoch).map_err(|e| io_error("copy", &folder, e))?
        } else {
            folder.join(self.epoch.to_string())
        };
        if let Some(client) = self.awake.get_mut(&number) {
            return if is_first { Ok(client.move_to(&dir)?) } else { Ok(()) };
        }
        let state = SiteState::open_to(Outlive::Program, &dir)?;
        state.tidy(&state.updates()?, &state.memory()?)?;
        let credentials = self.identities.client(&name)?;
        self.awake.insert(number, Client::wake(state, credentials, self.simulation.seed)?);
        Ok(())
    }

    /// Wakes a client that remembers nothing: in a directory that another has done with, if there is one.
    fn wake_anew(&mut self, number: u32, name: &ClientId) -> Result<(), FederationError> {
        let state = match self.vacant.pop() {
            Some(state) => state,
            None => {
                let dir = self.dir.join(SITES).join(self.slots.to_string());
                self.slots += 1;
                // What an interruption left there.
                durable::remove(&dir).map_err(|e| io_error("remove", &dir, e))?;
                SiteState::open_to(Outlive::Program, &dir)?
            }
        };
        let credentials = self.identities.client(name)?;
        self.awake.insert(number, Client::wake(state, credentials, self.simulation.seed)?);
        Ok(())
    }

    /// A client goes to sleep; where nothing that it remembers matters, another may have its directory.
    pub(super) fn sleep(&mut self, number: u32) -> Result<(), FederationError> {
        let Some(Client { state, .. }) = self.awake.remove(&number) else { return Ok(()) };
        if !self.remembers() {
            state.clear()?;
            self.vacant.push(state);
        } else if let Some(base) = self.examples.base() {
            base.take_back(&state)?;
        }
        Ok(())
    }
}

/// The folder of a client for an epoch: what it remembered before, as links to files that are never changed in their place.
/// Folders of later epochs were left by an interruption, and those before the last are of no use any more.
fn take_over(folder: &Path, epoch: u64) -> io::Result<PathBuf> {
    let own = folder.join(epoch.to_string());
    let mut before = None;
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let of =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match of {
                Some(of) if of < epoch && before.as_ref().is_none_or(|(newest, _)| of > *newest) => {
                    if let Some((_, older)) = before.replace((of, path)) {
                        durable::remove(&older)?;
                    }
                }
                Some(_) | None => durable::remove(&path)?,
            }
        }
    }
    if let Some((_, before)) = before {
        link_all(&before, &own)?;
    }
    Ok(own)
}

fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { link_all(&path, &target)? } else { fs::hard_link(&path, &target)? }
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> FederationError {
    FederationError::Io { what, path: path.to_owned(), source }
}

impl Kept {
    /// An event that is left between two rounds; its frame goes to `frames`, unless it is there.
    fn of(event: Event, frames: &mut Vec<Arc<Vec<u8>>>) -> Option<Self> {
        match event {
            Event::ToClient { to, link, frame } => {
                let known = frames.iter().rposition(|known| *known == frame);
                let place = known.unwrap_or_else(|| {
                    frames.push(frame);
                    frames.len() - 1
                });
                Some(Self::ToClient { to, link, frame: place })
            }
            Event::Change(client) => Some(Self::Change(client)),
            Event::ToServer { .. } | Event::Told { .. } | Event::Made(_) | Event::Tick => None,
        }
    }

    fn event(self, frames: &[Arc<Vec<u8>>]) -> Option<Event> {
        Some(match self {
            Self::ToClient { to, link, frame } => {
                Event::ToClient { to, link, frame: frames.get(frame)?.clone() }
            }
            Self::Change(client) => Event::Change(client),
        })
    }
}
