//! The server without its network: a run's coordinator, its blobs and its long jobs, and what a message is to the run.
//!
//! Every decision and every sum is the server's own code. Only the tokio shell is missing, in whose place a
//! simulation, or a test that breaks things, moves messages and blobs.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use sheaf_common::author::{self, Author};
use sheaf_common::id::{BadName, ClientId, Name, Role};
use sheaf_common::message::{EvaluateTask, Job, ServerMessage, SiteMessage, TrainTask};
use sheaf_common::model::ModelInfo;
use sheaf_common::run::RunSpec;
use sheaf_common::secagg::message::Answer;
use sheaf_common::secagg::server::Evidence;
use sheaf_common::time::Timestamp;
use sheaf_server::aggregation::{AggregationError, aggregate, inspect};
use sheaf_server::core::{Aggregate, Coordinator, Effect, Input, Open, Run};
use sheaf_server::opening;
use sheaf_server::publication::Made;
use sheaf_server::submit::{self, Submission, SubmitError};
use sheaf_transport::authority::NotOurs;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable::Outlive;
use sheaf_transport::tls::Credentials;

/// The operator who asked for the run.
pub const OPERATOR: &str = "operator";

/// The server of a run.
#[derive(Debug)]
pub struct Hub {
    /// Models and global parameters.
    pub blobs: BlobDir,
    /// Sites' updates.
    pub updates: BlobDir,
    credentials: Arc<Credentials>,
}

/// The server cannot do what it must.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The run or its model cannot be used.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A blob cannot be stored or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An update cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] AggregationError),
    /// The server's own key does not sign.
    #[error(transparent)]
    Key(#[from] NotOurs),
    /// The run's name is no name.
    #[error(transparent)]
    Name(#[from] BadName),
}

/// What a server does beside everything else.
#[derive(Clone, Debug)]
pub enum Work {
    /// The mean of updates.
    Aggregate(Aggregate),
    /// The mean that a secure sum comes to.
    Open(Box<Open>),
}

impl Hub {
    /// A server whose blobs are in `dir` and outlive this.
    pub fn new(outlive: Outlive, dir: &Path, credentials: Arc<Credentials>) -> Result<Self, HubError> {
        let blobs = BlobDir::open_to(outlive, dir.join("blobs"))?;
        let updates = BlobDir::open_to(outlive, dir.join("updates"))?;
        Ok(Self { blobs, updates, credentials })
    }

    /// The run of a file's text, as it is when an operator has just submitted it. `model` is the imported one that it starts
    /// from, if it does. The server signs for the operator.
    pub fn submit(&self, file: &str, text: &str, model: Option<&ModelInfo>) -> Result<Coordinator, HubError> {
        let spec = RunSpec::parse(file, text).map_err(SubmitError::from)?;
        let statement = author::statement(&spec, model.map(|model| model.manifest), Timestamp(0));
        let (certificate, signature) =
            (self.credentials.certificate(), self.credentials.sign(&statement)?.into());
        let (_, key) = self.credentials.authority().verify_server(&certificate, SystemTime::now())?;
        let submission = Submission {
            parse: RunSpec::parse,
            file: file.into(),
            text: text.into(),
            author: Author { certificate, signed_at: Timestamp(0), signature },
            key,
        };
        let prepared = submit::prepare(&self.blobs, model.map_or(&[], std::slice::from_ref), submission)?;
        Ok(Coordinator::new(Run {
            id: prepared.spec.name.to_string().parse()?,
            federation: self.credentials.identity.federation.clone(),
            spec: prepared.spec,
            submitted_by: OPERATOR.parse::<Name>()?,
            author: Some(prepared.author),
            submitted_at: Timestamp(0),
            model: prepared.model,
            phases: prepared.phases,
            initial: prepared.initial,
        }))
    }

    /// Does a piece of long work, and says what came of it.
    pub fn work(&self, job: &Job, work: &Work) -> Input {
        let (task, result) = match work {
            Work::Aggregate(round) => {
                let made = aggregate(&self.blobs, &self.updates, job, round, &self.credentials);
                (&round.task, made.map_err(|e| e.to_string()))
            }
            Work::Open(sum) => {
                let made = opening::open(&self.blobs, &self.updates, job, sum, &self.credentials);
                (&sum.task, made.map_err(|e| e.to_string()))
            }
        };
        let task = task.clone();
        match result {
            Ok(Made { global, record, summed }) => Input::Aggregated { task, global, record, summed },
            Err(why) => Input::AggregationFailed { task, why },
        }
    }

    /// What a site's message is to the run.
    pub fn understand(&self, site: &ClientId, message: SiteMessage) -> Result<Option<Input>, HubError> {
        let from = site.clone();
        Ok(Some(match message {
            SiteMessage::Progress { .. } | SiteMessage::Standby { .. } | SiteMessage::Renew(_) => {
                return Ok(None);
            }
            SiteMessage::Update(update) => {
                let inspection = inspect(&self.updates, update.delta)?;
                Input::Update { from, update, inspection }
            }
            SiteMessage::Ready(task) => Input::Ready { from, task },
            SiteMessage::Secure { task, answer } => {
                let evidence = self.evidence(site, &answer);
                Input::Secure { from, task, answer: Box::new(answer), evidence }
            }
            SiteMessage::Evaluated { task, metrics } => Input::Evaluated { from, task, metrics },
            SiteMessage::Declined { task, reason } => Input::Declined { from, task, reason },
        }))
    }

    fn evidence(&self, site: &ClientId, answer: &Answer) -> Evidence {
        match answer {
            Answer::Advertisement(entry) => {
                let authority = self.credentials.authority();
                match authority.verify(&entry.body.certificate, SystemTime::now()) {
                    Ok((identity, key)) if identity.role == Role::Site && identity.name == site.0 => {
                        Evidence::Key(key)
                    }
                    Ok(_) | Err(_) => Evidence::Nothing,
                }
            }
            Answer::Masked(blob) => self.updates.length(*blob).map_or(Evidence::Nothing, Evidence::Length),
            Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
        }
    }

    /// Does what an effect asks of the server's disk; whether it asked that.
    pub fn clear(&self, run: &Coordinator, effect: &Effect) -> Result<bool, HubError> {
        match effect {
            Effect::Forget(blobs) => {
                for blob in blobs.iter().filter(|blob| !run.holds(**blob)) {
                    self.updates.remove(*blob)?;
                }
            }
            Effect::Withdraw(sum) => {
                let newest = run.record().and_then(|record| record.body.sum());
                if newest.is_none_or(|newest| newest.blob != *sum) {
                    self.blobs.remove(*sum)?;
                }
            }
            Effect::Train { .. }
            | Effect::Evaluate { .. }
            | Effect::Ask { .. }
            | Effect::Reject { .. }
            | Effect::Over { .. }
            | Effect::Aggregate(_)
            | Effect::Open(_)
            | Effect::Record(_)
            | Effect::FinalMetrics(_)
            | Effect::TestMetrics(_)
            | Effect::Ended(_) => return Ok(false),
        }
        Ok(true)
    }
}

/// The message that an effect is, and whom it is for; nothing if it is none.
pub fn message(run: &Coordinator, effect: &Effect, now: Timestamp) -> Option<(ClientId, ServerMessage)> {
    let record = || run.record().cloned().map(Box::new);
    let (to, message) = match effect {
        Effect::Train { to, task, deadline } => {
            let time_left_ms = deadline.0.saturating_sub(now.0);
            let task = TrainTask { id: task.clone(), job: run.job(), record: record(), time_left_ms };
            (to, ServerMessage::Train(Box::new(task)))
        }
        Effect::Evaluate { to, task } => {
            let task = EvaluateTask { id: task.clone(), job: run.job(), record: record() };
            (to, ServerMessage::Evaluate(Box::new(task)))
        }
        Effect::Ask { to, task, ask, .. } => {
            (to, ServerMessage::Secure { task: task.clone(), ask: (**ask).clone() })
        }
        Effect::Reject { to, task, reason } => {
            (to, ServerMessage::Rejected { task: task.clone(), reason: reason.clone() })
        }
        Effect::Over { to, task } => (to, ServerMessage::Over(task.clone())),
        Effect::Aggregate(_)
        | Effect::Open(_)
        | Effect::Forget(_)
        | Effect::Withdraw(_)
        | Effect::Record(_)
        | Effect::FinalMetrics(_)
        | Effect::TestMetrics(_)
        | Effect::Ended(_) => return None,
    };
    Some((to.clone(), message))
}
