//! What server, sites and operators say to each other: one enum per direction.
//!
//! The speaker's identity is never in a message: it comes from the certificate of the connection.

use serde::{Deserialize, Serialize};

use crate::author::Author;
use crate::blob::BlobId;
use crate::enrolment::{Chain, EnrollReply, Pin, Waiting};
use crate::id::{ClientId, Federation, RunId};
use crate::metrics::Counts;
use crate::model::ModelInfo;
use crate::params::ParamSpec;
use crate::record::SignedRecord;
use crate::run::RunSpec;
use crate::secagg::message::{Answer, Ask};
use crate::secagg::secret::Secret;
use crate::status::{Progress, RunStatus, RunSummary, SiteStatus, Standing};
use crate::time::Timestamp;
use crate::wire;

/// The first frame on every stream that a client opens: what the stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// The control stream of a site; frames of [`SiteMessage`] and [`ServerMessage`] follow.
    Site(Hello),
    /// The control stream of an operator or viewer; [`Request`] and [`Reply`] alternate.
    Operator(Hello),
    /// Send me this blob from `offset` on. Answered by [`BlobReply`], then the bytes to the end of the stream.
    Get {
        /// The blob.
        blob: BlobId,
        /// Bytes that the client already has.
        offset: u64,
    },
    /// I have this blob for you. Answered by [`BlobReply`]; on `Send { offset }` the bytes from there on follow
    /// to the end of the stream, and a second [`BlobReply`] says whether they were what the name promised.
    Put {
        /// The blob.
        blob: BlobId,
        /// Its length in bytes.
        length: u64,
    },
}

/// Said first by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::wire::PROTOCOL_VERSION`] of the speaker.
    pub protocol: u32,
    /// Version of the program.
    pub software: String,
}

/// The server's word on a blob stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobReply {
    /// To `Get`: the blob has this length; its bytes from the asked offset follow.
    Found {
        /// Length of the whole blob in bytes.
        length: u64,
    },
    /// To `Put`: send from this offset on.
    Send {
        /// Bytes that the server already has.
        offset: u64,
    },
    /// To `Put`: the blob is here, whole and verified.
    Stored,
    /// The server will not, and why.
    Refused(String),
    /// To `Put`: another transfer of the blob is in the way; try again.
    Busy,
}

/// One try at one round of one run: what an update answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// The run.
    pub run: RunId,
    /// The round, from 1.
    pub round: u32,
    /// The attempt at the round, from 1; 0 for the evaluation of the model after it, [`TaskId::TEST`] for its test.
    pub attempt: u32,
}

impl TaskId {
    /// In the place of an attempt: the run's result is tested.
    pub const TEST: u32 = u32::MAX;

    /// Whether the task evaluates and trains nothing.
    pub fn is_evaluation(&self) -> bool {
        self.attempt == 0 || self.is_test()
    }

    /// Whether it is the test of the run's result.
    pub fn is_test(&self) -> bool {
        self.attempt == Self::TEST
    }

    /// Rounds after which the model is the one that the task is about.
    pub fn completed(&self) -> u32 {
        if self.is_evaluation() { self.round } else { self.round.saturating_sub(1) }
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} round {}", self.run, self.round)?;
        if self.is_test() {
            return f.write_str(" (test)");
        }
        if self.attempt > 1 { write!(f, " (attempt {})", self.attempt) } else { Ok(()) }
    }
}

/// Train the global model of a round on your data and answer with an [`Update`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainTask {
    /// What is answered.
    pub id: TaskId,
    /// What is to be done.
    pub job: Job,
    /// How the global parameters came about; none before the first round is over.
    pub record: Option<Box<SignedRecord>>,
    /// Milliseconds until the round's deadline.
    pub time_left_ms: u64,
}

/// Evaluate the final global model on your validation split, or the run's result on your test split (in a survey: count all
/// your data), and answer with [`SiteMessage::Evaluated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateTask {
    /// What is answered; `round` is the one after which the model is, 0 in a survey.
    pub id: TaskId,
    /// What is to be done.
    pub job: Job,
    /// How the global parameters came about; none before the first round is over, and not in a test.
    pub record: Option<Box<SignedRecord>>,
}

/// The run, its model and the global parameters: the common part of all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Everything about the run.
    pub spec: RunSpec,
    /// Manifest of the imported model, if there is one.
    pub model: Option<BlobId>,
    /// The parameters that travel, as [`Phases`](crate::params::Phases) has them for the round at hand.
    pub params: ParamSpec,
    /// Their global values.
    pub global: BlobId,
    /// When the run was submitted: tells two runs of one name apart.
    pub submitted_at: Timestamp,
    /// Who asked for it; nobody, where a site trains without a server.
    pub author: Option<Author>,
}

impl Job {
    /// Hash of all that is fixed for the run's whole life. Sites that were told different runs have different
    /// ones, and so no masks in common. What travels in which round follows from the run and its model.
    pub fn origin(&self) -> BlobId {
        // When it was submitted is the server's word, and nothing that a site could hold it to.
        let fixed = (&self.spec, self.model, &self.author);
        // It came in a message, so it is short enough to be encoded.
        BlobId::of(&wire::encode_record(&fixed).unwrap_or_default())
    }
}

/// A site's answer to a [`TrainTask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The task that it answers.
    pub task: TaskId,
    /// The delta, local minus global, already stored at the server as a blob.
    pub delta: BlobId,
    /// Training examples behind it: its weight in the mean.
    pub num_examples: u64,
    /// Mean training loss over the last local epoch, in nats.
    pub train_loss: f64,
    /// The incoming global model on the site's validation split.
    pub global_metrics: Option<Counts>,
    /// The trained model on the same.
    pub local_metrics: Option<Counts>,
}

/// From a site to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SiteMessage {
    /// How far the site is. Shown to the operator; decides nothing.
    Progress {
        /// The task.
        task: TaskId,
        /// What the site is doing.
        progress: Progress,
    },
    /// A round's answer.
    Update(Box<Update>),
    /// The answer to an [`EvaluateTask`].
    Evaluated {
        /// The task.
        task: TaskId,
        /// The model on the site's validation or test split.
        metrics: Option<Counts>,
    },
    /// The site will not or cannot do the task, and why.
    Declined {
        /// The task.
        task: TaskId,
        /// One sentence for the operator.
        reason: String,
    },
    /// With secure aggregation: the work is done and stays here until everybody's is summed.
    Ready(TaskId),
    /// A stage's answer in a secure sum.
    Secure {
        /// The task whose results are summed.
        task: TaskId,
        /// The answer.
        answer: Answer,
    },
    /// The answer to [`ServerMessage::Announce`], and again whenever it changes: whether the run's tasks may be sent.
    Standby {
        /// The run.
        run: RunId,
        /// Why the site does none of them now: a person there is to approve of it first, or it is not the hour.
        held: Option<String>,
    },
    /// The site's certificate ends: another, please, for the key of this certificate signing request (DER).
    Renew(Vec<u8>),
}

/// From the server to a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// You are in.
    Welcome {
        /// The federation, which must be the site's own.
        federation: Federation,
        /// Version of the server program.
        software: String,
    },
    /// The handshake failed, and why; the connection closes.
    Refused(String),
    /// A round's work.
    Train(Box<TrainTask>),
    /// The final model's evaluation.
    Evaluate(Box<EvaluateTask>),
    /// The update was not counted, and why.
    Rejected {
        /// The task.
        task: TaskId,
        /// One sentence.
        reason: String,
    },
    /// The round is over: the update for this task is no longer needed.
    Over(TaskId),
    /// A stage of a secure sum.
    Secure {
        /// The task whose results are summed.
        task: TaskId,
        /// What is asked.
        ask: Ask,
    },
    /// A run that the site may take part in. Nothing is asked of it before it has said that it may be.
    Announce {
        /// The run.
        run: RunId,
        /// What will be asked.
        job: Box<Job>,
    },
    /// To [`SiteMessage::Renew`], at once or when an operator has approved it.
    Certificate(EnrollReply),
}

/// From an operator to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Queue a run. The text of `run.toml` and the file's name for messages.
    Submit {
        /// File name.
        file: String,
        /// Content.
        text: String,
        /// The operator's word for it.
        author: Author,
    },
    /// All runs.
    Runs,
    /// One run.
    Run(RunId),
    /// Stop a run.
    Stop(RunId),
    /// All sites ever seen.
    Sites,
    /// Make a model known under a name; its manifest and files are stored as blobs already.
    ImportModel {
        /// Name for `run.toml`.
        name: String,
        /// The manifest's blob.
        manifest: BlobId,
    },
    /// All imported models.
    Models,
    /// What is needed to export a run's model after a round (the last completed one when not given).
    Export {
        /// The run.
        run: RunId,
        /// The round.
        round: Option<u32>,
    },
    /// Change whether a site may take part.
    Stand {
        /// The site.
        site: ClientId,
        /// Whether it may.
        standing: Standing,
        /// Whether what it gave to a round in progress counts, if it did.
        keep_updates: bool,
    },
    /// Queue a run as a [survey](RunSpec::parse_survey): nothing is trained.
    Survey {
        /// File name.
        file: String,
        /// Content.
        text: String,
        /// The operator's word for it.
        author: Author,
    },
    /// Make a token with which a site gets a certificate.
    Invite {
        /// The site.
        site: ClientId,
        /// Milliseconds that the token is good for.
        valid_ms: u64,
        /// The authorities that the operator trusts, which must be the server's.
        pin: Pin,
    },
    /// Everybody who waits for a certificate.
    Waiting,
    /// Give a site the certificate that it waits for.
    Approve {
        /// The site.
        site: ClientId,
        /// Its certificate.
        chain: Chain,
    },
}

/// From the server to an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// You are in.
    Welcome {
        /// The federation.
        federation: Federation,
        /// Version of the server program.
        software: String,
    },
    /// It was not done, and why: one sentence.
    Refused(String),
    /// The run was queued.
    Submitted {
        /// Under this name.
        run: RunId,
        /// What whoever submitted it should know of its privacy.
        warnings: Vec<String>,
    },
    /// To [`Request::Runs`].
    Runs(Vec<RunSummary>),
    /// To [`Request::Run`].
    Run(Box<RunStatus>),
    /// To [`Request::Stop`].
    Stopping(RunId),
    /// To [`Request::Sites`].
    Sites(Vec<SiteStatus>),
    /// To [`Request::ImportModel`].
    Imported(ModelInfo),
    /// To [`Request::Models`].
    Models(Vec<ModelInfo>),
    /// To [`Request::Export`].
    Export(Box<ExportPlan>),
    /// To [`Request::Stand`].
    Stands {
        /// The site.
        site: ClientId,
        /// Whether it may take part now.
        standing: Standing,
        /// Runs in whose round in progress its update counts although it should not: it is in a masked sum that
        /// cannot be formed again.
        counted: Vec<RunId>,
    },
    /// To [`Request::Invite`].
    Invited {
        /// The site.
        site: ClientId,
        /// The token's secret, which the server forgets.
        secret: Secret,
        /// When the token ends.
        expires: Timestamp,
        /// Whether the server signs by itself; without it an operator must approve the site's request.
        at_once: bool,
    },
    /// To [`Request::Waiting`].
    Waiting(Vec<Waiting>),
    /// To [`Request::Approve`].
    Approved(ClientId),
}

/// What an operator needs to put a trained model together from blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportPlan {
    /// The run's status, for the model's card.
    pub status: RunStatus,
    /// The round after which the parameters hold.
    pub round: u32,
    /// The run, its base model and the parameters to put into it.
    pub job: Job,
}
