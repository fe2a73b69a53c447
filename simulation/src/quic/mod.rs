//! The same federation over real QUIC on loopback and on real time: the server's own shell and the sites' own daemons, all in this
//! process. Of the simulation there are only the examples and who has them, and how many clients train at a time.
//!
//! * This file: from nothing to the end of the run. `parties`: who is at it for that long.
//! * `sites`: what the daemons are told, and their place among the workers.
//! * `operator`: who submits the run and looks at it.
//!
//! An interruption is what it is to real programs: server and sites stop, and go on from their own directories.

mod operator;
mod parties;
mod sites;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheaf_client::client::ClientError;
use sheaf_common::id::{BadName, Role};
use sheaf_common::message::{ExportPlan, Job};
use sheaf_common::status::{RoundOutcome, RoundRecord, RunStatus};
use sheaf_common::time::Timestamp;
use sheaf_server::cli::SessionError;
use sheaf_server::config::{DataDir, ServerConfig};
use sheaf_server::core::Coordinator;
use sheaf_server::retention::Retention;
use sheaf_server::server::{Server, ServerError};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::gate::Limits;
use sheaf_transport::network::Congestion;
use tokio::runtime::Runtime;

use crate::client;
use crate::config::Setting;
use crate::data::Examples;
use crate::federation::{End, Last};
use crate::hub::OPERATOR;
use crate::identity::{Identities, IdentityError, SERVER};
use crate::log::Log;
use crate::rounds::{Row, Score, Traffic};
use crate::scoring::{Scorer, ScoringError};
use operator::Operator;
use parties::Parties;
use sites::Workers;

/// How often is looked whether a round is over.
const LOOK: Duration = Duration::from_millis(100);

/// All clients have so long to connect.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connections beside the clients': the operator's, and such as are being closed.
const MORE: usize = 64;

/// The rounds that were told, for when the program is started again.
const ROWS: &str = "rows";

/// A run that is over.
pub struct Over {
    /// Its rounds.
    pub rows: Vec<Row>,
    /// How it ended.
    pub end: End,
    /// What its model is put together from.
    pub plan: ExportPlan,
    /// The server's blobs.
    pub blobs: BlobDir,
}

/// The federation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A client.
    #[error("{0}: {1}")]
    Client(String, ClientError),
    /// Something that runs for as long as the federation came to its end.
    #[error("{0} stopped by itself")]
    Stopped(String),
    /// What is asked of the server.
    #[error("the server on loopback: {0}")]
    Session(#[from] SessionError),
    /// A certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The global model cannot be tested.
    #[error("the global model cannot be tested: {0}")]
    Scoring(#[from] ScoringError),
    /// Not everybody came.
    #[error(
        "{connected} of {clients} clients connected in {seconds} seconds: simulate fewer, or allow the program more open files (`ulimit -n`)"
    )]
    Missing {
        /// Those that did.
        connected: usize,
        /// All.
        clients: u32,
        /// How long it was waited.
        seconds: u64,
    },
    /// Rounds are over faster than they can be looked at.
    #[error(
        "of {0} rounds that are over some were never looked at, because testing the model takes longer than they do: give a smaller data.test or data.test_share"
    )]
    Behind(usize),
    /// The disk or the system said no.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a federation is and who is in it.
pub struct Live<'a> {
    /// What is simulated.
    pub setting: &'a Setting,
    /// The folder of everything.
    pub dir: &'a Path,
    /// The blobs that the imported model is among.
    pub blobs: &'a BlobDir,
    /// The run as it is before it begins.
    pub run: &'a Coordinator,
    /// Everybody's certificates.
    pub identities: &'a Identities,
    /// Everybody's examples.
    pub examples: &'a Arc<Examples>,
}

impl Live<'_> {
    /// Lets the run go on to its end, or until `interrupted` says that it is time to go. Calls `each` with every round that is over
    /// from now on.
    pub fn play(
        &self,
        scorer: Option<&mut Scorer>,
        interrupted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Row),
    ) -> Result<Option<Over>, QuicError> {
        let runtime = Runtime::new().map_err(|e| io_error("start threads for", self.dir, e))?;
        let over = runtime.block_on(self.all(scorer, interrupted, each));
        // A client that trains stops at its next step, and nobody waits for it here.
        runtime.shutdown_background();
        over
    }

    async fn all(
        &self,
        scorer: Option<&mut Scorer>,
        interrupted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Row),
    ) -> Result<Option<Over>, QuicError> {
        let server = Server::start(&self.server_config()?).await?;
        let blobs = BlobDir::open(DataDir(&self.server_dir()).blobs())?;
        let address = server.address().to_string();
        let mut parties = Parties::start(server);
        let over = match self.gather(&address, &mut parties) {
            Ok(()) => self.watch(&address, &blobs, scorer, interrupted, each, &mut parties).await,
            Err(error) => Err(error),
        };
        parties.stop().await;
        let Some((rows, end, status)) = over? else { return Ok(None) };
        let round = end.result;
        let plan = ExportPlan { status, round, job: Job { global: end.model, ..self.job_after(round) } };
        Ok(Some(Over { rows, end, plan, blobs }))
    }

    /// Has all clients come.
    fn gather(&self, server: &str, parties: &mut Parties) -> Result<(), QuicError> {
        let simulation = &self.setting.simulation;
        let workers = Workers::new(simulation.num_workers(), self.examples.clone());
        for number in 0..simulation.clients.get() {
            let name = simulation.name(number)?;
            let entropy = client::entropy(simulation.seed, name.to_string());
            parties.join(sites::config(self, &name, server)?, workers.perform(number), entropy);
        }
        Ok(())
    }

    /// Submits the run when all are there, unless it was before, and looks at it until it is over.
    async fn watch(
        &self,
        address: &str,
        blobs: &BlobDir,
        mut scorer: Option<&mut Scorer>,
        interrupted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&Row),
        parties: &mut Parties,
    ) -> Result<Option<(Vec<Row>, End, RunStatus)>, QuicError> {
        let paths = self.identities.files(Role::Operator, &OPERATOR.parse()?)?;
        let mut operator = Operator::connect(address, &paths).await?;
        let mut log = self.log()?;
        let mut rows = log.retain(u64::MAX).map_err(|e| self.no_log(e))?;
        let mut sent_before = Traffic::default();
        let began = Instant::now();
        let before = rows.last().map_or(0.0, |row| row.real);
        while !operator.has_run().await? {
            let connected = operator.sites().await?.iter().filter(|site| site.connection.is_some()).count();
            let clients = self.setting.simulation.clients.get();
            if connected == clients as usize {
                operator.submit(self, blobs).await?;
                break;
            }
            if interrupted() {
                return Ok(None);
            }
            if began.elapsed() > PATIENCE {
                return Err(QuicError::Missing { connected, clients, seconds: PATIENCE.as_secs() });
            }
            parties.check().await?;
            tokio::time::sleep(LOOK).await;
        }
        loop {
            parties.check().await?;
            let status = operator.status(&self.run.run().id).await?;
            // A message holds the newest records, and so all that are new unless looking takes far longer than rounds do.
            let earlier = usize::try_from(status.earlier_records).unwrap_or(usize::MAX);
            let known = rows.len().checked_sub(earlier).ok_or(QuicError::Behind(earlier))?;
            for record in status.history.get(known..).unwrap_or_default() {
                let test = self.score(record, blobs, scorer.as_deref_mut())?;
                let sent = operator.sent().await?;
                let traffic = sent.since(sent_before);
                sent_before = sent;
                let real = Duration::from_secs_f64(before) + began.elapsed();
                // There is no other time than the real one.
                let now = Timestamp(0).after(real);
                let row = Row::of(record, test, traffic, now, real);
                each(&row);
                log.append(&row).map_err(|e| self.no_log(e))?;
                rows.push(row);
            }
            if status.summary.state.is_final() {
                let real = Duration::from_secs_f64(before) + began.elapsed();
                let end = end_of(&status, &rows, operator.sent().await?.since(sent_before), real);
                return Ok(Some((rows, end, status)));
            }
            if interrupted() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The global model after a round on the common test set.
    fn score(
        &self,
        record: &RoundRecord,
        blobs: &BlobDir,
        scorer: Option<&mut Scorer>,
    ) -> Result<Option<Score>, QuicError> {
        let (RoundOutcome::Completed(global), Some(scorer)) = (&record.outcome, scorer) else {
            return Ok(None);
        };
        Ok(scorer.score(&self.job_after(record.round), &blobs.read(*global)?)?)
    }

    /// The job as it is when so many rounds are over.
    fn job_after(&self, round: u32) -> Job {
        Job { params: self.run.run().phases.after(round).clone(), ..self.run.job() }
    }

    fn server_dir(&self) -> PathBuf {
        self.dir.join("server")
    }

    fn server_config(&self) -> Result<ServerConfig, QuicError> {
        let places = self.setting.simulation.clients.get() as usize + MORE;
        Ok(ServerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            listen_tcp: None,
            congestion: Congestion::default(),
            limits: Limits { connections: places, connections_per_address: places, handshakes: places },
            data_dir: self.server_dir(),
            identity: self.identities.files(Role::Server, &SERVER.parse()?)?,
            retention: Retention { rounds: None, results: None },
            enrolment: None,
        })
    }

    /// The rounds that were told, also before an interruption. Such as cannot be read are told again.
    pub fn rows(&self) -> Result<Vec<Row>, QuicError> {
        self.log()?.retain(u64::MAX).map_err(|e| self.no_log(e))
    }

    fn log(&self) -> Result<Log, QuicError> {
        Log::open(&self.dir.join(ROWS)).map_err(|e| self.no_log(e))
    }

    fn no_log(&self, why: io::Error) -> QuicError {
        io_error("read or write", &self.dir.join(ROWS), why)
    }
}

fn end_of(status: &RunStatus, rows: &[Row], traffic: Traffic, real: Duration) -> End {
    let of_result = |row: &&Row| row.round == status.result && row.global.is_some();
    let model = rows.iter().find(of_result).and_then(|row| row.global);
    End {
        state: status.summary.state.clone(),
        detail: status.summary.detail.clone(),
        result: status.result,
        model: model.unwrap_or(status.global),
        last: Last { validation: status.final_metrics.clone(), test: status.test_metrics.clone() },
        traffic,
        simulated: real,
        real,
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> QuicError {
    QuicError::Io { what, path: path.to_owned(), source }
}
