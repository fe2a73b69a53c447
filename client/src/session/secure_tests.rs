//! The session in secure sums, with the protocol's real server and the real other sites: what leaves after an attempt
//! at the round was abandoned.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Name};
use sheaf_common::message::{Job, ServerMessage, SiteMessage, TaskId, TrainTask, Update};
use sheaf_common::params::{ParamSpec, ParamTensor};
use sheaf_common::run::{RunSpec, SecureAggregation};
use sheaf_common::secagg::client::{Client, Expectation, Party, Reaction};
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::message::{Answer, Ask, Signature};
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::server::{Evidence, Next, Server};
use sheaf_common::time::Timestamp;

use super::tests::feed;
use super::{Effect, Gate, Input, Memory, Outcome, Session, Then, Trust};
use crate::config::Policy;

const RUN: &str = r#"
name = "toy"
rounds = 1
model = { architecture = "constant", parameters = 4 }
task = { type = "none" }
[cohort]
min_updates = 3
max_attempts = 4
"#;

/// All sites; the session is the first.
const SITES: [&str; 4] = ["a", "b", "c", "d"];

/// A site whose certificate is its name.
struct Member(ClientId);

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&[name.as_bytes()[0]; 32])
}

fn name(of: &str) -> ClientId {
    of.parse().unwrap()
}

impl Party for Member {
    fn name(&self) -> &ClientId {
        &self.0
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.as_str().into()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        Ok(key(self.0.as_str()).sign(message).to_bytes().into())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        let of = String::from_utf8_lossy(certificate);
        Ok((name(&of), key(&of).verifying_key().to_bytes()))
    }

    fn verify_server(&self, _certificate: &[u8]) -> Result<[u8; 32], String> {
        Err("there is no record yet".into())
    }
}

struct Open;

impl Gate for Open {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        Ok("ada".parse().unwrap())
    }

    fn hold(&self, _run: &sheaf_common::id::RunId, _job: &Job, _author: &Name) -> Option<String> {
        None
    }
}

fn session(memory: Memory) -> Session {
    with_policy(memory, Policy::default())
}

fn with_policy(memory: Memory, policy: Policy) -> Session {
    let trust = Trust {
        party: Box::new(Member(name("a"))),
        federation: "test".parse().unwrap(),
        policy,
        gate: Box::new(Open),
        entropy: Box::new(|task| [task.attempt as u8; 32]),
    };
    let mut session = Session::new([], memory, trust);
    feed(&mut session, [Input::Connected]);
    session
}

fn job() -> Job {
    let tensors = vec![ParamTensor { name: "w".into(), shape: vec![4] }];
    Job {
        spec: RunSpec::parse("run.toml", RUN).unwrap(),
        model: None,
        params: ParamSpec { tensors },
        global: BlobId::of(b"global"),
        submitted_at: Timestamp(0),
        author: None,
    }
}

fn params(task: &TaskId) -> RoundParams {
    let job = job();
    let SecureAggregation::Required(spec) = job.spec.secure_aggregation else { panic!("it is the default") };
    RoundParams {
        federation: "test".parse().unwrap(),
        task: task.clone(),
        origin: job.origin(),
        model: job.global,
        previous: None,
        layout: Layout::of_round(&job),
        encoding: Encoding::new(spec.quantization_bits, 4).unwrap(),
        ranges: vec![1.0],
        weight_cap: job.spec.cohort.max_examples,
        min_updates: job.spec.cohort.min_updates,
        max_colluding: spec.max_colluding,
        graph: spec.graph,
        post_quantum: spec.post_quantum,
    }
}

fn train(task: &TaskId, job: Job) -> Input {
    let train = TrainTask { id: task.clone(), job, record: None, time_left_ms: 1000 };
    Input::Message(ServerMessage::Train(Box::new(train)))
}

/// An attempt at round 1, from the training on.
struct Attempt {
    task: TaskId,
    server: Server,
    others: BTreeMap<ClientId, Client>,
}

impl Attempt {
    /// The session trains, to these bytes.
    fn trained(session: &mut Session, attempt: u32, delta: &[u8]) -> Self {
        let task = TaskId { run: "toy".parse().unwrap(), round: 1, attempt };
        let update = Update {
            task: task.clone(),
            delta: BlobId::of(delta),
            num_examples: 4,
            train_loss: 0.1,
            global_metrics: None,
            local_metrics: None,
        };
        let said = feed(
            session,
            [
                train(&task, job()),
                Input::Fetched(task.clone(), Ok(())),
                Input::Worked(task.clone(), Ok(Outcome::Trained(Box::new(update)))),
            ],
        );
        assert_eq!(said.last(), Some(&Effect::Say(SiteMessage::Ready(task.clone()))));
        let server = Server::new(params(&task), SITES.iter().map(|site| name(site)).collect());
        Self { task, server, others: BTreeMap::new() }
    }

    /// What another site answers.
    fn answer(&mut self, site: &ClientId, ask: Ask) -> Answer {
        let party = Member(site.clone());
        if let Ask::Advertise(params) = ask {
            let expectation = Expectation {
                params: (*params).clone(),
                sites: None,
                min_updates: 3,
                released_with: Vec::new(),
            };
            let client = Client::join(*params, &expectation, &party, [site.as_str().as_bytes()[0]; 32]);
            return self.others.entry(site.clone()).or_insert(client.unwrap()).answer().unwrap();
        }
        let client = self.others.get_mut(site).unwrap();
        match client.handle(ask, &party).unwrap() {
            Reaction::Say(answer) => answer,
            Reaction::Mask | Reaction::Nothing => {
                client.masked(BlobId::of(site.as_str().as_bytes())).unwrap()
            }
        }
    }

    /// Goes through the stages until the session declines, which it gives back, or all are over. Whoever is `lost`
    /// sends no masked vector.
    fn run(&mut self, session: &mut Session, lost: &[&str]) -> Result<(), String> {
        loop {
            self.stage(session, lost)?;
            match self.server.clone().proceed().unwrap() {
                Next::Stage(server) => self.server = server,
                Next::Open(_) => return Ok(()),
            }
        }
    }

    fn stage(&mut self, session: &mut Session, lost: &[&str]) -> Result<(), String> {
        for site in self.server.awaited().clone() {
            let is_masking = matches!(self.server, Server::Masking(_));
            if is_masking && lost.contains(&site.as_str()) {
                continue;
            }
            let ask = self.server.ask(&site).unwrap();
            let answer =
                if site == name("a") { said(session, &self.task, ask)? } else { self.answer(&site, ask) };
            let evidence = match (&answer, self.server.masked_bytes()) {
                (Answer::Masked(_), Some(bytes)) => Evidence::Length(bytes),
                (Answer::Advertisement(_), _) => Evidence::Key(key(site.as_str()).verifying_key().to_bytes()),
                (Answer::Shares(_) | Answer::Masked(_) | Answer::Confirmed(_) | Answer::Unmasking(_), _) => {
                    Evidence::Nothing
                }
            };
            self.server.take(&site, answer, evidence).unwrap();
        }
        Ok(())
    }
}

/// What the session answers, or why it declines. Masked vectors are made at once.
fn said(session: &mut Session, task: &TaskId, ask: Ask) -> Result<Answer, String> {
    let mut todo: Vec<Input> = vec![Input::Message(ServerMessage::Secure { task: task.clone(), ask })];
    while let Some(input) = todo.pop() {
        for effect in feed(session, [input]) {
            match effect {
                Effect::Say(SiteMessage::Secure { answer, .. })
                | Effect::Remember { then: Some(Then::Say(SiteMessage::Secure { answer, .. })), .. } => {
                    return Ok(answer);
                }
                Effect::Remember { then: Some(Then::Say(SiteMessage::Declined { reason, .. })), .. } => {
                    return Err(reason);
                }
                Effect::Remember { memory, then: Some(Then::Upload { task, blob }) } => {
                    assert_eq!(memory.masked(), Some(blob), "what leaves is remembered");
                    todo.push(Input::Uploaded(task, Ok(())));
                }
                Effect::Mask { .. } => todo.push(Input::Masked(task.clone(), Ok(BlobId::of(b"a")))),
                Effect::Upload { .. } => panic!("a masked vector leaves, remembered or not"),
                Effect::Remember { .. } | Effect::Discard(_) => {}
                Effect::Fetch { .. }
                | Effect::Work(_)
                | Effect::Cancel
                | Effect::Rename { .. }
                | Effect::Release(_)
                | Effect::Say(_)
                | Effect::Forget(_) => panic!("no answer"),
            }
        }
    }
    Err("it says nothing".into())
}

#[test]
fn an_update_that_is_trained_again_after_a_sum_is_in_no_sum_with_others() {
    let mut session = session(Memory::default());
    Attempt::trained(&mut session, 1, b"delta").run(&mut session, &[]).unwrap();
    // On a GPU the same training gives other bits.
    let refused = Attempt::trained(&mut session, 2, b"delta, but for a bit").run(&mut session, &["d"]);
    assert!(refused.unwrap_err().contains("was already summed with other sites"));
    // Whoever runs the daemon again changes nothing about it.
    let mut session = self::session(session.context.memory.clone());
    let refused = Attempt::trained(&mut session, 3, b"delta, but for two").run(&mut session, &["c"]);
    assert!(refused.is_err());
    Attempt::trained(&mut session, 4, b"delta, but for three").run(&mut session, &[]).unwrap();
}

/// A question comes again when the answer did not arrive, or could not be remembered.
#[test]
fn a_masked_vector_that_is_asked_for_again_leaves_only_once_it_is_remembered() {
    let mut session = session(Memory::default());
    let mut attempt = Attempt::trained(&mut session, 1, b"delta");
    for _ in 0..2 {
        attempt.stage(&mut session, &[]).unwrap();
        let Next::Stage(server) = attempt.server.clone().proceed().unwrap() else { panic!("too early") };
        attempt.server = server;
    }
    let ask = attempt.server.ask(&name("a")).unwrap();
    let first = said(&mut session, &attempt.task, ask.clone()).unwrap();
    assert!(matches!(first, Answer::Masked(_)));
    assert_eq!(said(&mut session, &attempt.task, ask), Ok(first));
}

/// Whoever may submit runs may give one in the clear the name of another, and the server may ask for its same task.
#[test]
fn an_update_that_was_trained_for_a_sum_does_not_leave_in_the_clear_for_a_run_of_the_same_name() {
    let mut session =
        with_policy(Memory::default(), Policy { require_secure_aggregation: false, ..Policy::default() });
    let task = Attempt::trained(&mut session, 1, b"delta").task;
    let mut open = job();
    open.spec.secure_aggregation = SecureAggregation::Off;
    let effects = feed(&mut session, [train(&task, open)]);
    let [Effect::Forget(forgotten), Effect::Fetch { .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*forgotten, task);
}

/// The update was dropped from a damaged disk; what its attempt knows is of another run now.
#[test]
fn an_attempt_of_a_run_ends_with_the_first_task_of_another_of_its_name() {
    let mut session = session(Memory::default());
    let mut attempt = Attempt::trained(&mut session, 1, b"delta");
    attempt.stage(&mut session, &[]).unwrap();
    let mut session = self::session(session.context.memory.clone());
    assert!(!session.context.memory.is_idle());
    let mut other = job();
    other.spec.seed += 1;
    feed(&mut session, [train(&attempt.task, other)]);
    assert!(session.context.memory.is_idle());
}
