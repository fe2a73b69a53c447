//! The session without a network: a task's life, and what a lost connection or a restart changes about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ed25519_dalek::{Signer, SigningKey};
use sheaf_common::author::Author;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Name};
use sheaf_common::params::ParamSpec;
use sheaf_common::record::{MadeOf, Record, SignedRecord};
use sheaf_common::run::RunSpec;
use sheaf_common::secagg::client::Party;
use sheaf_common::secagg::message::Signature;
use sheaf_common::time::Timestamp;

use super::*;
use crate::config::Policy;

/// A site that believes nobody but the server.
struct Loner(ClientId);

impl Party for Loner {
    fn name(&self) -> &ClientId {
        &self.0
    }

    fn certificate(&self) -> Vec<u8> {
        b"certificate".to_vec()
    }

    fn sign(&self, _message: &[u8]) -> Result<Signature, String> {
        Ok([0; 64].into())
    }

    fn verify(&self, _certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        Err("nobody is believed here".into())
    }

    fn verify_server(&self, certificate: &[u8]) -> Result<[u8; 32], String> {
        if certificate == HUB {
            Ok(hub().verifying_key().to_bytes())
        } else {
            Err("this is not the hub".into())
        }
    }
}

/// The server's certificate.
const HUB: &[u8] = b"hub";

/// The key that signs its records.
fn hub() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// What the server says of the last of so many rounds of [`job`].
fn record(completed: u32) -> Option<Box<SignedRecord>> {
    let body = Record {
        task: id(completed, 1),
        origin: job().origin(),
        software: "0.1.0".into(),
        made_of: MadeOf::Updates(Vec::new()),
        model_in: BlobId::of(b"before"),
        model_out: job().global,
        previous: None,
    };
    let signature = hub().sign(&body.signable()).to_bytes().into();
    (completed > 0).then(|| Box::new(SignedRecord { body, certificate: HUB.to_vec(), signature }))
}

/// A site where everybody believes everybody, at all hours.
struct Open;

impl Gate for Open {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        Ok("ada".parse().unwrap())
    }

    fn hold(&self, _run: &RunId, _job: &Job, _author: &Name) -> Option<String> {
        None
    }
}

/// A site that agrees to runs without encryption.
fn session<const N: usize>(ready: [Update; N]) -> Session {
    with_policy(ready, Policy { require_secure_aggregation: false, ..Policy::default() })
}

fn with_policy<const N: usize>(ready: [Update; N], policy: Policy) -> Session {
    with_gate(ready, policy, Box::new(Open))
}

fn with_gate<const N: usize>(ready: [Update; N], policy: Policy, gate: Box<dyn Gate + Send>) -> Session {
    let trust = Trust {
        party: Box::new(Loner("a".parse().unwrap())),
        federation: "test".parse().unwrap(),
        gate,
        policy,
        entropy: Box::new(|_| [7; 32]),
    };
    let ready = ready.map(|update| Finished { origin: job().origin(), update });
    Session::new(ready, Memory::default(), trust)
}

fn upload(round: u32, attempt: u32) -> Effect {
    Effect::Upload { task: id(round, attempt), blob: BlobId::of(b"delta") }
}

#[test]
fn a_run_without_encryption_is_declined_unless_the_site_allows_it() {
    let mut session = with_policy([], Policy::default());
    let effects = feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    let [Effect::Say(SiteMessage::Declined { task, reason })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*task, id(1, 1));
    assert!(reason.contains("policy.secure_aggregation"), "{reason}");
}

const RUN: &str = r#"
name = "toy"
rounds = 2
secure_aggregation = "off"
model = { architecture = "constant", parameters = 4 }
task = { type = "none" }
"#;

fn id(round: u32, attempt: u32) -> TaskId {
    TaskId { run: "toy".parse().unwrap(), round, attempt }
}

fn job() -> Job {
    let spec = RunSpec::parse("run.toml", RUN).unwrap();
    Job {
        spec,
        model: None,
        params: ParamSpec::default(),
        global: BlobId::of(b"global"),
        submitted_at: Timestamp(0),
        author: None,
    }
}

fn train(round: u32, attempt: u32) -> ServerMessage {
    ServerMessage::Train(Box::new(TrainTask {
        id: id(round, attempt),
        job: job(),
        record: record(round - 1),
        time_left_ms: 1000,
    }))
}

fn task(round: u32, attempt: u32) -> Task {
    let record = record(round - 1);
    Task::Train(Box::new(TrainTask { id: id(round, attempt), job: job(), record, time_left_ms: 1000 }))
}

fn fetch(task: Task) -> Effect {
    Effect::Fetch { task, witness: None }
}

fn evaluate(round: u32) -> EvaluateTask {
    EvaluateTask { id: id(round, 0), job: job(), record: record(round) }
}

fn update(round: u32, attempt: u32) -> Update {
    Update {
        task: id(round, attempt),
        delta: BlobId::of(b"delta"),
        num_examples: 4,
        train_loss: 0.1,
        global_metrics: None,
        local_metrics: None,
    }
}

fn trained(round: u32, attempt: u32) -> Input {
    Input::Worked(id(round, attempt), Ok(Outcome::Trained(Box::new(update(round, attempt)))))
}

/// Feeds inputs and gives back what the session wants done.
pub(super) fn feed(session: &mut Session, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for input in inputs {
        session.handle(input);
        while let Some(effect) = session.poll_effect() {
            effects.push(effect);
        }
    }
    effects
}

fn said(update: Update) -> Effect {
    Effect::Say(SiteMessage::Update(Box::new(update)))
}

#[test]
fn a_task_is_fetched_done_sent_and_said_in_this_order() {
    let mut session = session([]);
    let effects = feed(
        &mut session,
        [
            Input::Connected,
            Input::Message(train(1, 1)),
            Input::Fetched(id(1, 1), Ok(())),
            trained(1, 1),
            Input::Uploaded(id(1, 1), Ok(())),
            Input::Message(ServerMessage::Over(id(1, 1))),
        ],
    );
    assert_eq!(
        effects,
        [
            fetch(task(1, 1)),
            Effect::Work(task(1, 1)),
            upload(1, 1),
            said(update(1, 1)),
            Effect::Forget(id(1, 1)),
        ]
    );
}

#[test]
fn work_goes_on_without_a_connection_and_is_not_done_twice() {
    let mut session = session([]);
    feed(
        &mut session,
        [
            Input::Connected,
            Input::Message(train(1, 1)),
            Input::Fetched(id(1, 1), Ok(())),
            Input::Disconnected,
        ],
    );
    assert_eq!(feed(&mut session, [trained(1, 1)]), []);
    let back = feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    assert_eq!(back, [upload(1, 1)]);
}

#[test]
fn the_same_task_again_changes_nothing_while_it_is_worked_on() {
    let mut session = session([]);
    feed(
        &mut session,
        [
            Input::Connected,
            Input::Message(train(1, 1)),
            Input::Fetched(id(1, 1), Ok(())),
            Input::Disconnected,
            Input::Connected,
        ],
    );
    assert_eq!(feed(&mut session, [Input::Message(train(1, 1))]), []);
}

#[test]
fn an_update_from_before_a_restart_is_sent_and_not_trained_again() {
    let mut session = session([update(1, 1)]);
    let effects = feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    assert_eq!(effects, [upload(1, 1)]);
}

#[test]
fn a_transfer_that_broke_off_starts_again_when_the_server_asks_again() {
    let mut session = session([update(1, 1)]);
    feed(
        &mut session,
        [
            Input::Connected,
            Input::Message(train(1, 1)),
            Input::Uploaded(id(1, 1), Err(TransferFailure::Lost)),
        ],
    );
    let effects = feed(&mut session, [Input::Disconnected, Input::Connected, Input::Message(train(1, 1))]);
    assert_eq!(effects, [upload(1, 1)]);
}

#[test]
fn an_update_that_cannot_be_sent_is_answered() {
    let mut session = session([update(1, 1)]);
    let failed = Err(TransferFailure::Refused("no disk".into()));
    let effects = feed(
        &mut session,
        [Input::Connected, Input::Message(train(1, 1)), Input::Uploaded(id(1, 1), failed)],
    );
    let declined = SiteMessage::Declined { task: id(1, 1), reason: "no disk".into() };
    assert_eq!(effects, [upload(1, 1), Effect::Say(declined)]);
}

#[test]
fn a_transfer_for_a_round_that_is_over_is_called_off() {
    let mut session = session([update(1, 1)]);
    feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    let over = feed(&mut session, [Input::Message(ServerMessage::Over(id(1, 1)))]);
    assert_eq!(over, [Effect::Forget(id(1, 1)), Effect::Cancel]);
}

#[test]
fn a_newer_attempt_replaces_the_work_and_the_old_update() {
    let mut session = session([update(1, 1)]);
    let effects = feed(&mut session, [Input::Connected, Input::Message(train(1, 2))]);
    assert_eq!(effects, [Effect::Forget(id(1, 1)), fetch(task(1, 2))]);
    feed(&mut session, [Input::Fetched(id(1, 2), Ok(()))]);
    let effects = feed(&mut session, [Input::Message(train(2, 1))]);
    assert_eq!(effects, [Effect::Cancel, fetch(task(2, 1))]);
    // What the old work says now is of no interest.
    let late = Input::Worked(id(1, 2), Err(WorkFailure::Cancelled));
    assert_eq!(feed(&mut session, [late]), []);
}

#[test]
fn an_update_that_was_called_off_too_late_is_let_go() {
    let mut session = session([]);
    feed(&mut session, [Input::Connected, Input::Message(train(1, 1)), Input::Fetched(id(1, 1), Ok(()))]);
    feed(&mut session, [Input::Message(ServerMessage::Over(id(1, 1)))]);
    assert_eq!(feed(&mut session, [trained(1, 1)]), [Effect::Forget(id(1, 1))]);
}

#[test]
fn what_is_left_of_a_run_that_ended_meanwhile_goes_with_the_first_task_of_another() {
    let other: RunId = "other".parse().unwrap();
    let old = TaskId { run: other.clone(), ..id(7, 1) };
    let mut session = session([Update { task: old.clone(), ..update(7, 1) }, update(1, 1)]);
    let effects = feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    assert_eq!(effects, [Effect::Forget(old), upload(1, 1)]);
}

#[test]
fn an_update_for_a_run_is_not_one_for_another_of_its_name() {
    let mut session = session([update(1, 1)]);
    let mut again = job();
    again.spec.seed += 1;
    let task = TrainTask { id: id(1, 1), job: again, record: None, time_left_ms: 1000 };
    let message = Input::Message(ServerMessage::Train(Box::new(task.clone())));
    let effects = feed(&mut session, [Input::Connected, message]);
    assert_eq!(effects, [Effect::Forget(id(1, 1)), fetch(Task::Train(Box::new(task)))]);
}

#[test]
fn a_model_of_which_nothing_is_published_is_not_trained() {
    let mut session = session([]);
    let mut asked = TrainTask { id: id(2, 1), job: job(), record: None, time_left_ms: 1000 };
    let mut declined = |asked: &TrainTask| {
        let message = ServerMessage::Train(Box::new(asked.clone()));
        match &feed(&mut session, [Input::Connected, Input::Message(message)])[..] {
            [Effect::Say(SiteMessage::Declined { reason, .. })] => reason.clone(),
            effects => panic!("{effects:?}"),
        }
    };
    assert!(declined(&asked).contains("does not show the record"));
    asked.record = record(1);
    asked.job.global = BlobId::of(b"crafted");
    assert!(declined(&asked).contains("not the one that the record"));
}

#[test]
fn a_round_that_is_over_ends_the_work_for_it() {
    let mut session = session([]);
    feed(&mut session, [Input::Connected, Input::Message(train(1, 1)), Input::Fetched(id(1, 1), Ok(()))]);
    let effects = feed(&mut session, [Input::Message(ServerMessage::Over(id(1, 1)))]);
    assert_eq!(effects, [Effect::Forget(id(1, 1)), Effect::Cancel]);
}

#[test]
fn what_cannot_be_done_is_declined_with_its_reason() {
    let mut session = session([]);
    feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]);
    let refused = Input::Fetched(id(1, 1), Err(TransferFailure::Refused("no disk".into())));
    let declined =
        |reason: &str| [Effect::Say(SiteMessage::Declined { task: id(1, 1), reason: reason.into() })];
    assert_eq!(feed(&mut session, [refused]), declined("no disk"));

    feed(&mut session, [Input::Message(train(1, 1)), Input::Fetched(id(1, 1), Ok(()))]);
    let failed = Input::Worked(id(1, 1), Err(WorkFailure::Declined("no column".into())));
    assert_eq!(feed(&mut session, [failed]), declined("no column"));
}

#[test]
fn a_rejected_update_is_let_go() {
    let mut session = session([update(1, 1)]);
    feed(&mut session, [Input::Connected]);
    let rejected = ServerMessage::Rejected { task: id(1, 1), reason: "late".into() };
    assert_eq!(feed(&mut session, [Input::Message(rejected)]), [Effect::Forget(id(1, 1))]);
    assert_eq!(feed(&mut session, [Input::Message(train(1, 1))]), [fetch(task(1, 1))]);
}

#[test]
fn the_final_model_is_evaluated() {
    let mut session = session([]);
    let message = ServerMessage::Evaluate(Box::new(evaluate(2)));
    let effects = feed(
        &mut session,
        [
            Input::Connected,
            Input::Message(message),
            Input::Fetched(id(2, 0), Ok(())),
            Input::Worked(id(2, 0), Ok(Outcome::Evaluated(None))),
        ],
    );
    let task = Task::Evaluate(Box::new(evaluate(2)));
    let answer = SiteMessage::Evaluated { task: id(2, 0), metrics: None };
    assert_eq!(effects, [fetch(task.clone()), Effect::Work(task), Effect::Say(answer)]);
}

/// A run that leaves out site `a`, which is this one, or `b`.
fn job_leaving_out(site: &str, secure: &str) -> Job {
    let text = format!(
        r#"
name = "toy"
rounds = 2
secure_aggregation = "{secure}"
model = {{ architecture = "softmax" }}
[task]
type = "tabular-classification"
dataset = "d"
label = "y"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}]
[validation]
leave_out = "{site}"
"#
    );
    Job { spec: RunSpec::parse("run.toml", &text).unwrap(), ..job() }
}

#[test]
fn a_site_that_is_left_out_does_not_train_and_is_evaluated_alone_only_if_it_says_so() {
    let declined = |policy: &Policy, message: ServerMessage| {
        let effects = feed(&mut with_policy([], policy.clone()), [Input::Connected, Input::Message(message)]);
        effects.into_iter().find_map(|effect| {
            if let Effect::Say(SiteMessage::Declined { reason, .. }) = effect { Some(reason) } else { None }
        })
    };
    for secure in ["off", "required"] {
        let train = |site| {
            let job = job_leaving_out(site, secure);
            ServerMessage::Train(Box::new(TrainTask { id: id(1, 1), job, record: None, time_left_ms: 1000 }))
        };
        let evaluate = |site| {
            let job = job_leaving_out(site, secure);
            ServerMessage::Evaluate(Box::new(EvaluateTask { id: id(0, 0), job, record: None }))
        };
        let closed = Policy { require_secure_aggregation: false, ..Policy::default() };
        let open = Policy { own_metrics: true, ..closed.clone() };
        let said = declined(&open, train("a")).unwrap();
        assert_eq!(said, "the run leaves this site out, and so it does not train");
        assert_eq!(declined(&open, train("b")), None);
        let said = declined(&closed, evaluate("a")).unwrap();
        assert!(said.contains("it must set policy.own_metrics = true in its site.toml"), "{said}");
        assert_eq!(declined(&open, evaluate("a")), None);
        let picky = Policy { authors: Some(["bob".parse().unwrap()].into()), ..open };
        assert!(declined(&picky, evaluate("a")).unwrap().contains("no run of operator ada"));
    }
}

#[test]
fn a_site_that_is_left_out_evaluates_one_model_by_itself() {
    let policy = Policy { own_metrics: true, ..Policy::default() };
    let mut session = with_policy([], policy);
    feed(&mut session, [Input::Connected]);
    let mut said = |site, global: &[u8]| {
        let job = Job { global: BlobId::of(global), ..job_leaving_out(site, "required") };
        let task = EvaluateTask { id: id(0, 0), job, record: None };
        let effects = feed(&mut session, [Input::Message(ServerMessage::Evaluate(Box::new(task)))]);
        feed(&mut session, [Input::Message(ServerMessage::Over(id(0, 0)))]);
        effects.into_iter().find_map(|effect| {
            if let Effect::Say(SiteMessage::Declined { reason, .. }) = effect { Some(reason) } else { None }
        })
    };
    assert_eq!(said("a", b"model"), None);
    assert_eq!(said("a", b"model"), None, "it answers again when the server comes back");
    let reason = said("a", b"another").unwrap();
    assert_eq!(reason, "this site has evaluated another model of this run by itself already");
    assert_eq!((said("b", b"model"), said("b", b"another")), (None, None), "its metrics leave in sums");
}

/// What the site agrees to is the run's rounds, and how often each is tried.
#[test]
fn a_run_has_no_more_tasks_than_rounds() {
    let said = |message| {
        let effects = feed(&mut session([]), [Input::Connected, Input::Message(message)]);
        match effects.last() {
            Some(Effect::Say(SiteMessage::Declined { reason, .. })) => Some(reason.clone()),
            _ => None,
        }
    };
    let evaluate = |round, attempt| {
        let task = EvaluateTask { id: id(round, attempt), job: job(), record: record(round) };
        ServerMessage::Evaluate(Box::new(task))
    };
    let of_no_round = |mut message: ServerMessage| {
        if let ServerMessage::Train(task) = &mut message {
            task.id.round = 0;
        }
        message
    };
    for good in [train(1, 1), train(2, 3), evaluate(2, 0), evaluate(1, 0), evaluate(2, TaskId::TEST)] {
        assert_eq!(said(good.clone()), None, "{good:?}");
    }
    for bad in [
        of_no_round(train(1, 1)),
        train(1, 0),
        train(1, 4),
        train(1, TaskId::TEST),
        train(3, 1),
        train(u32::MAX, 1),
        evaluate(3, 0),
        evaluate(1, 1),
    ] {
        assert_eq!(said(bad.clone()).as_deref(), Some("the run has no such task"), "{bad:?}");
    }
    let survey = RunSpec { rounds: 0, ..job().spec };
    let mut task = train(1, 1);
    if let ServerMessage::Train(task) = &mut task {
        task.job.spec = survey;
    }
    assert_eq!(said(task).as_deref(), Some("the run has no such task"));
}

/// A site whose people say no for as long as they are told to.
struct Closed(Arc<AtomicBool>);

impl Gate for Closed {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        Ok("ada".parse().unwrap())
    }

    fn hold(&self, _run: &RunId, _job: &Job, _author: &Name) -> Option<String> {
        self.0.load(Ordering::Relaxed).then(|| "not now".to_owned())
    }
}

fn standby(held: Option<&str>) -> Effect {
    Effect::Say(SiteMessage::Standby { run: "toy".parse().unwrap(), held: held.map(str::to_owned) })
}

fn announce() -> Input {
    Input::Message(ServerMessage::Announce { run: "toy".parse().unwrap(), job: Box::new(job()) })
}

#[test]
fn a_site_says_when_it_stands_by_and_only_when_that_changes() {
    let closed = Arc::new(AtomicBool::new(true));
    let policy = Policy { require_secure_aggregation: false, ..Policy::default() };
    let mut session = with_gate([], policy, Box::new(Closed(closed.clone())));
    assert_eq!(feed(&mut session, [Input::Connected, announce()]), [standby(Some("not now"))]);
    assert_eq!(feed(&mut session, [Input::Reconsider]), []);
    let declined = SiteMessage::Declined { task: id(1, 1), reason: "not now".into() };
    assert_eq!(
        feed(&mut session, [Input::Message(train(1, 1))]),
        [Effect::Say(declined)],
        "whoever asks all the same"
    );
    closed.store(false, Ordering::Relaxed);
    assert_eq!(feed(&mut session, [Input::Reconsider]), [standby(None)]);
    assert_eq!(feed(&mut session, [Input::Message(train(1, 1))]), [fetch(task(1, 1))]);
    closed.store(true, Ordering::Relaxed);
    assert_eq!(feed(&mut session, [Input::Reconsider]), [], "what is begun is brought to its end");
    let done = [Input::Fetched(id(1, 1), Ok(())), trained(1, 1), Input::Uploaded(id(1, 1), Ok(()))];
    feed(&mut session, done);
    let declined = |round, attempt| {
        Effect::Say(SiteMessage::Declined { task: id(round, attempt), reason: "not now".into() })
    };
    assert_eq!(
        feed(&mut session, [Input::Message(train(2, 1))]),
        [declined(2, 1)],
        "which the next round is not"
    );
    let over = Input::Message(ServerMessage::Over(id(1, 1)));
    assert_eq!(feed(&mut session, [over, Input::Reconsider]).last(), Some(&standby(Some("not now"))));
    assert_eq!(feed(&mut session, [Input::Disconnected, Input::Reconsider]), [], "nobody listens");
}

/// A site whose people approved of [`job`] and of nothing else.
struct Approved;

impl Gate for Approved {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        Ok("ada".parse().unwrap())
    }

    fn hold(&self, _run: &RunId, asked: &Job, _author: &Name) -> Option<String> {
        (asked.origin() != job().origin()).then(|| "not now".to_owned())
    }
}

#[test]
fn another_run_under_the_name_of_one_in_hand_is_held() {
    let author = Author { certificate: Vec::new(), signed_at: Timestamp(1), signature: [0; 64].into() };
    let other = Job { author: Some(author), ..job() };
    let asked = |round, attempt| {
        let record = record(round - 1);
        let task = TrainTask { id: id(round, attempt), job: other.clone(), record, time_left_ms: 1000 };
        Input::Message(ServerMessage::Train(Box::new(task)))
    };
    let declined = |round, attempt| {
        [Effect::Say(SiteMessage::Declined { task: id(round, attempt), reason: "not now".into() })]
    };
    let policy = Policy { require_secure_aggregation: false, ..Policy::default() };
    let mut session = with_gate([], policy.clone(), Box::new(Approved));
    let begun =
        [Input::Connected, Input::Message(train(1, 1)), Input::Fetched(id(1, 1), Ok(())), trained(1, 1)];
    feed(&mut session, begun);
    feed(&mut session, [Input::Uploaded(id(1, 1), Ok(()))]);
    assert_eq!(feed(&mut session, [asked(1, 1)]), declined(1, 1), "what was trained is not its update");
    assert_eq!(feed(&mut session, [asked(1, 2)]), declined(1, 2));
    let announced = ServerMessage::Announce { run: "toy".parse().unwrap(), job: Box::new(other.clone()) };
    assert_eq!(feed(&mut session, [Input::Message(announced)]), [standby(Some("not now"))]);

    let mut restarted = with_gate([update(1, 1)], policy, Box::new(Approved));
    assert_eq!(feed(&mut restarted, [Input::Connected, asked(1, 1)]), declined(1, 1));
}

#[test]
fn what_the_policy_refuses_is_declined_and_not_held() {
    let mut session = with_gate([], Policy::default(), Box::new(Closed(Arc::new(AtomicBool::new(true)))));
    assert_eq!(feed(&mut session, [Input::Connected, announce()]), [standby(None)]);
}

/// A site that believes no operator.
struct Doubtful;

impl Gate for Doubtful {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        Err("forged".into())
    }

    fn hold(&self, _run: &RunId, _job: &Job, _author: &Name) -> Option<String> {
        None
    }
}

#[test]
fn a_run_that_no_operator_asked_for_is_declined() {
    let policy = Policy { require_secure_aggregation: false, ..Policy::default() };
    let mut session = with_gate([], policy, Box::new(Doubtful));
    let reason = "no operator of the federation asked for this run: forged".to_owned();
    let declined = Effect::Say(SiteMessage::Declined { task: id(1, 1), reason });
    assert_eq!(feed(&mut session, [Input::Connected, Input::Message(train(1, 1))]), [declined]);
}
