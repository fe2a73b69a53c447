//! A federation on simulated time: one event after the other, each of which may give rise to others.
//!
//! * This file: who takes part, and the loop.
//! * [`server`](self): what the server does when something reaches it; `sites`: what a client does.
//! * `boundary`: between two rounds: what is under way is dropped, and everything that matters is written down.
//!
//! All that happens follows from the files and their seeds: the order of events is that of simulated time, whoever
//! trains first on real time.

mod boundary;
mod server;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_client::session::{Outcome, TransferFailure, WorkFailure};
use sheaf_client::state::{SiteState, StateError};
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::{Job, TaskId};
use sheaf_common::metrics::Report;
use sheaf_common::status::RunState;
use sheaf_common::time::Timestamp;
use sheaf_common::wire::{DecodeError, EncodeError};
use sheaf_server::core::{Coordinator, Input};
use sheaf_transport::blobs::BlobError;

use crate::agenda::Agenda;
use crate::client::Client;
use crate::config::Simulation;
use crate::data::Examples;
use crate::hub::{Hub, HubError};
use crate::identity::{Identities, IdentityError};
use crate::log::Log;
use crate::pool::{Pool, Ticket};
use crate::profile::{self, Profile};
use crate::rounds::{Row, Traffic};
use crate::scoring::{Scorer, ScoringError};

/// A run that stands still so long, in simulated time, is given up.
const PATIENCE: Duration = Duration::from_secs(400 * 86_400);

/// A federation with one run.
pub struct Federation {
    simulation: Simulation,
    hub: Hub,
    run: Coordinator,
    members: Vec<Member>,
    numbers: BTreeMap<ClientId, u32>,
    awake: BTreeMap<u32, Client>,
    identities: Identities,
    examples: Arc<Examples>,
    pool: Pool<Done>,
    scorer: Option<Scorer>,
    agenda: Agenda<Event>,
    now: Timestamp,
    /// The deadline for which a tick is on the agenda.
    awaited: Option<Timestamp>,
    /// When the run last got on by a round.
    moved: Timestamp,
    traffic: Traffic,
    rows: Vec<Row>,
    log: Log,
    last: Last,
    /// Rounds and attempts that are over: what is written down belongs to one of them.
    epoch: u64,
    /// Updates that arrived since the last boundary.
    arrived: BTreeSet<BlobId>,
    /// Global parameters that are still on the disk.
    globals: BTreeSet<BlobId>,
    /// Published sums that the next boundary has no use for.
    withdrawn: Vec<BlobId>,
    /// Where what must outlive the program is.
    dir: PathBuf,
    /// The clients that have been awake in this epoch.
    woken: BTreeSet<u32>,
    /// Directories that are as they were made, and how many were made.
    vacant: Vec<SiteState>,
    slots: u64,
    clock: Clock,
    /// The frame that was last sent: a cohort's are mostly the same, and held once.
    sent: Arc<Vec<u8>>,
}

/// What is measured when all rounds are over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// The final model on the clients' validation splits.
    pub validation: Option<Report>,
    /// The run's result on their test splits.
    pub test: Option<Report>,
}

/// Real time that was spent, also before an interruption.
#[derive(Debug)]
struct Clock {
    before: Duration,
    started: std::time::Instant,
}

/// A client as the federation knows it, asleep or awake.
#[derive(Debug)]
struct Member {
    name: ClientId,
    profile: Profile,
    is_online: bool,
    /// How often it came or went: its connections are told apart by it.
    changes: u64,
    /// When the imported model is, or was, all there; nothing before it was first needed.
    model: Option<Timestamp>,
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A frame reaches the server.
    ToServer { from: u32, frame: Vec<u8> },
    /// A frame reaches a client, over this connection.
    ToClient { to: u32, link: u64, frame: Arc<Vec<u8>> },
    /// Something that a client does beside its session comes to its end.
    Told { client: u32, link: u64, what: Told },
    /// A client comes or goes.
    Change(u32),
    /// The server's long work is done.
    Made(Box<Input>),
    /// A deadline.
    Tick,
}

/// What comes to its end.
#[derive(Clone, Debug)]
enum Told {
    /// A task's blobs are here, or why not.
    Fetched(TaskId, Result<(), TransferFailure>),
    /// They are, once the sum was checked.
    Checked(TaskId, Ticket),
    /// A task's work is done.
    Worked(TaskId, Ticket),
    /// A task's masked vector is made.
    Masked(TaskId, Ticket),
    /// A task's blob is at the server.
    Uploaded(TaskId, BlobId),
}

impl Told {
    fn job(&self) -> Option<(&TaskId, Ticket)> {
        match self {
            Self::Checked(task, ticket) | Self::Worked(task, ticket) | Self::Masked(task, ticket) => {
                Some((task, *ticket))
            }
            Self::Fetched(..) | Self::Uploaded(..) => None,
        }
    }

    /// Whether it needs the connection that it began with.
    fn is_transfer(&self) -> bool {
        matches!(self, Self::Fetched(..) | Self::Checked(..) | Self::Uploaded(..))
    }
}

/// What came of a worker's job.
#[derive(Debug)]
pub(crate) enum Done {
    /// Of training or evaluating.
    Worked(Result<Outcome, WorkFailure>),
    /// Of masking.
    Masked(Result<BlobId, String>),
    /// Of checking a sum.
    Checked(Result<(), TransferFailure>),
    /// Of training without the others: the job as it was in the last round, and the parameters, or why there are none.
    Alone(Result<Box<(Job, Vec<u8>)>, String>),
}

/// What else is trained with when the run is over.
pub(crate) struct Workshop<'a> {
    /// The clients' examples.
    pub(crate) examples: Arc<Examples>,
    /// What models are tested with, if they are.
    pub(crate) scorer: Option<&'a mut Scorer>,
    /// The workers.
    pub(crate) train: &'a mut Pool<Done>,
}

/// The federation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The server's side.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A client's state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The global model cannot be tested.
    #[error("the global model cannot be tested: {0}")]
    Scoring(#[from] ScoringError),
    /// A message is too long.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A message is not what was sent; never.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The disk said no.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was written down cannot be read.
    #[error("{path} is damaged ({why}): remove the folder {folder} and begin again", path = .path.display(), folder = .folder.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the simulation's own files are.
        folder: PathBuf,
        /// Why.
        why: String,
    },
    /// No round gets together.
    #[error(
        "round {round} has not come together in {days} simulated days: lower cohort.min_sites in run.toml, or raise devices.availability"
    )]
    Stuck {
        /// The round.
        round: u32,
        /// How long it was waited for.
        days: u64,
    },
}

/// How a run that is over ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Its state.
    pub state: RunState,
    /// In a sentence, why.
    pub detail: String,
    /// The rounds after which its result is.
    pub result: u32,
    /// The result's parameters.
    pub model: BlobId,
    /// Evaluations at its end.
    pub last: Last,
    /// What was sent since the last round.
    pub traffic: Traffic,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub real: Duration,
}

impl Federation {
    /// Lets the run go on to its end, or until `interrupted` says that it is time to go. Calls `each` with every round that
    /// is over from now on.
    pub fn run(
        &mut self,
        interrupted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Row),
    ) -> Result<Option<End>, FederationError> {
        let mut told = self.rows.len();
        loop {
            for row in &self.rows[told..] {
                each(row);
            }
            told = self.rows.len();
            if self.run.state().0.is_final() {
                return Ok(Some(self.end()));
            }
            if interrupted() {
                return Ok(None);
            }
            let Some(entry) = self.agenda.pop() else { return Err(self.stuck()) };
            self.now = entry.at;
            if self.now.since(self.moved) > PATIENCE {
                return Err(self.stuck());
            }
            self.happen(entry.event)?;
        }
    }

    /// The rounds that are over.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The run as it stands.
    pub fn coordinator(&self) -> &Coordinator {
        &self.run
    }

    /// The server's blobs.
    pub fn blobs(&self) -> &sheaf_transport::blobs::BlobDir {
        &self.hub.blobs
    }

    /// The parameters before round 1.
    pub fn initial(&self) -> Result<Vec<u8>, FederationError> {
        Ok(self.hub.blobs.read(self.run.run().initial)?)
    }

    pub(crate) fn workshop(&mut self) -> Workshop<'_> {
        let Self { examples, scorer, pool, .. } = self;
        Workshop { examples: examples.clone(), scorer: scorer.as_mut(), train: pool }
    }

    fn happen(&mut self, event: Event) -> Result<(), FederationError> {
        match event {
            Event::ToServer { from, frame } => self.reach_server(from, &frame),
            Event::ToClient { to, link, frame } => self.reach_client(to, link, &frame),
            Event::Told { client, link, what } => self.tell(client, link, what),
            Event::Change(client) => self.change(client),
            Event::Made(input) => self.feed(*input),
            Event::Tick => {
                self.awaited = None;
                let due = self.run.poll_timeout().is_some_and(|due| due <= self.now);
                if due { self.feed(Input::Tick) } else { self.await_deadline() }
            }
        }
    }

    /// A client comes or goes, and will again.
    fn change(&mut self, client: u32) -> Result<(), FederationError> {
        let Some(member) = self.members.get_mut(client as usize) else { return Ok(()) };
        member.is_online = !member.is_online;
        member.changes += 1;
        let (name, is_online) = (member.name.clone(), member.is_online);
        self.change_later(client);
        if !self.run.admits(&name) {
            return Ok(());
        }
        if is_online {
            self.traffic += self.greeting()?;
            if let Some(client) = self.awake.get_mut(&client) {
                client.handle(sheaf_client::session::Input::Connected);
            }
            self.feed(Input::Connected(name))
        } else {
            if let Some(awake) = self.awake.get_mut(&client) {
                awake.lose()?;
                self.input(client, sheaf_client::session::Input::Disconnected)?;
            }
            self.feed(Input::Disconnected(name))
        }
    }

    fn change_later(&mut self, client: u32) {
        let (Some(availability), Some(member)) =
            (self.simulation.devices.availability, self.members.get_mut(client as usize))
        else {
            return;
        };
        let Member { name, is_online, changes, model, .. } = member;
        let stays = profile::stays(availability, self.simulation.seed, name, *is_online, *changes);
        if let Some(arrives) = model.as_mut().filter(|arrives| !*is_online && **arrives > self.now) {
            // The transfer goes on where it was when the client comes back.
            *arrives = arrives.after(stays);
        }
        self.agenda.push(self.now.after(stays), Event::Change(client));
    }

    fn stuck(&self) -> FederationError {
        let days = self.now.since(self.moved).as_secs() / 86_400;
        FederationError::Stuck { round: self.run.completed() + 1, days }
    }

    fn end(&self) -> End {
        let (state, detail) = self.run.state();
        let result = self.run.result();
        let of_result = |row: &&Row| row.round == result && row.global.is_some();
        let model = self.rows.iter().find(of_result).and_then(|row| row.global);
        End {
            state,
            detail,
            result,
            model: model.unwrap_or(self.run.global()),
            last: self.last.clone(),
            traffic: self.traffic,
            simulated: self.now.since(Timestamp(0)),
            real: self.clock.spent(),
        }
    }
}

impl Clock {
    fn new(before: Duration) -> Self {
        Self { before, started: std::time::Instant::now() }
    }

    fn spent(&self) -> Duration {
        self.before + self.started.elapsed()
    }
}
