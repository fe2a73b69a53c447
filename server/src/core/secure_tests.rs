//! Secure sums in the coordinator, with simulated time: who is asked what, and what silence costs. The exchange
//! itself is proven in `sheaf_common::secagg`.

use std::time::Duration;

use sheaf_common::params::ParamTensor;
use sheaf_common::secagg::message::{Advertisement, SignedAdvertisement};
use sheaf_common::status::RoundOutcome;

use super::*;

const RUN: &str = r#"
name = "toy"
rounds = 1
model = { architecture = "softmax" }

[task]
type = "tabular-classification"
dataset = "d"
label = "y"
labels = ["no", "yes"]
features = [{ column = "x", type = "numeric" }]

[secagg]
stage_timeout = "20s"

[cohort]
sites = ["a", "b", "c", "d"]
min_updates = 3
round_timeout = "60s"
max_attempts = 2
"#;

struct Bench {
    coordinator: Coordinator,
    now: Timestamp,
    effects: Vec<Effect>,
}

fn site(name: &str) -> ClientId {
    name.parse().unwrap()
}

fn task(attempt: u32) -> TaskId {
    TaskId { run: "toy".parse().unwrap(), round: 1, attempt }
}

impl Bench {
    /// The first attempt, with all four sites at work.
    fn collecting() -> Self {
        Self::of(RUN, &["a", "b", "c", "d"])
    }

    fn of(run: &str, sites: &[&str]) -> Self {
        let run = Run {
            id: "toy".parse().unwrap(),
            federation: "test".parse().unwrap(),
            spec: RunSpec::parse("run.toml", run).unwrap(),
            submitted_by: "op".parse().unwrap(),
            author: None,
            submitted_at: Timestamp(0),
            model: None,
            phases: ParamSpec { tensors: vec![ParamTensor { name: "weight".into(), shape: vec![2, 2] }] }
                .into(),
            initial: BlobId::of(b"initial"),
        };
        let mut bench =
            Self { coordinator: Coordinator::new(run), now: Timestamp(1_000), effects: Vec::new() };
        bench.feed(Input::Start);
        for name in sites {
            bench.feed(Input::Connected(site(name)));
        }
        bench
    }

    /// The same, with everybody ready to be summed.
    fn advertising() -> Self {
        let mut bench = Self::collecting();
        for name in ["a", "b", "c", "d"] {
            bench.feed(Input::Ready { from: site(name), task: task(1) });
        }
        bench
    }

    /// Whether it was heeded.
    fn feed(&mut self, input: Input) -> bool {
        self.effects.clear();
        let heeded = self.coordinator.handle(input, self.now);
        while let Some(effect) = self.coordinator.poll_effect() {
            self.effects.push(effect);
        }
        heeded
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.feed(Input::Tick);
    }

    fn asked(&self) -> Vec<&str> {
        self.effects
            .iter()
            .filter_map(|effect| if let Effect::Ask { to, .. } = effect { Some(to.as_str()) } else { None })
            .collect()
    }

    fn stage(&self) -> &'static str {
        self.coordinator.round().unwrap().stage
    }
}

#[test]
fn keys_are_asked_for_once_everybody_is_ready() {
    let mut bench = Bench::collecting();
    for name in ["a", "b", "c"] {
        bench.feed(Input::Ready { from: site(name), task: task(1) });
        assert!(bench.asked().is_empty());
    }
    bench.feed(Input::Ready { from: site("d"), task: task(1) });
    assert_eq!(bench.asked(), ["a", "b", "c", "d"]);
    assert_eq!(bench.stage(), "exchanging keys");
    assert_eq!(bench.coordinator.poll_timeout(), Some(bench.now.after(Duration::from_secs(20))));
}

#[test]
fn at_the_rounds_deadline_those_that_are_ready_are_enough() {
    let mut bench = Bench::collecting();
    for name in ["a", "b", "d"] {
        bench.feed(Input::Ready { from: site(name), task: task(1) });
    }
    bench.wait(60);
    assert_eq!(bench.asked(), ["a", "b", "d"]);
}

#[test]
fn an_update_in_the_open_is_refused() {
    let mut bench = Bench::collecting();
    let update = Box::new(Update {
        task: task(1),
        delta: BlobId::of(b"delta"),
        num_examples: 10,
        train_loss: 0.5,
        global_metrics: None,
        local_metrics: None,
    });
    let inspection = Some(Inspection { numel: 4, form: None, finding: Finding::Sound });
    bench.feed(Input::Update { from: site("a"), update, inspection });
    let [Effect::Reject { reason, .. }] = &bench.effects[..] else { panic!("{:?}", bench.effects) };
    assert!(reason.contains("encrypts updates"), "{reason}");
}

#[test]
fn a_site_that_comes_back_is_given_its_task_and_asked_again() {
    let mut bench = Bench::advertising();
    bench.feed(Input::Connected(site("b")));
    assert!(matches!(&bench.effects[0], Effect::Train { to, .. } if *to == site("b")));
    assert_eq!(bench.asked(), ["b"]);
    bench.feed(Input::Restarted);
    bench.feed(Input::Connected(site("c")));
    assert_eq!(bench.asked(), ["c"]);
}

/// Its update is on its disk, but not what the task was about.
#[test]
fn a_site_that_was_ready_and_comes_back_is_given_its_task_again() {
    let mut bench = Bench::collecting();
    bench.feed(Input::Ready { from: site("a"), task: task(1) });
    bench.feed(Input::Disconnected(site("a")));
    bench.feed(Input::Connected(site("a")));
    let [Effect::Train { to, .. }] = &bench.effects[..] else { panic!("{:?}", bench.effects) };
    assert_eq!(*to, site("a"));
    assert!(!bench.feed(Input::Ready { from: site("a"), task: task(1) }));
    assert_eq!(bench.effects, []);
    assert_eq!(bench.coordinator.round().unwrap().members[0], (site("a"), Answer::Ready));
}

#[test]
fn silence_abandons_the_attempt_and_the_updates_stay_at_the_sites_for_the_next() {
    let mut bench = Bench::advertising();
    bench.wait(20);
    let record = bench
        .effects
        .iter()
        .find_map(|effect| if let Effect::Record(record) = effect { Some(record) } else { None });
    let RoundOutcome::Abandoned(why) = &record.unwrap().outcome else { panic!("{record:?}") };
    assert_eq!(why, "0 of 3 needed sites showed their keys");
    assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Over { .. })));
    let next = bench
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Train { task: t, .. } if *t == task(2)));
    assert_eq!(next.count(), 4);
    // The last attempt: now it is over for everybody.
    for name in ["a", "b", "c", "d"] {
        bench.feed(Input::Ready { from: site(name), task: task(2) });
    }
    bench.wait(20);
    assert_eq!(bench.effects.iter().filter(|effect| matches!(effect, Effect::Over { .. })).count(), 4);
    assert_eq!(bench.coordinator.state().0, RunState::Failed);
}

#[test]
fn a_refusal_is_told_by_its_reason() {
    let mut bench = Bench::advertising();
    let reason = "the server's global model is not that of the run that this site trained for".to_owned();
    bench.feed(Input::Declined { from: site("d"), task: task(1), reason: reason.clone() });
    let members = bench.coordinator.round().unwrap().members;
    assert_eq!(members[3], (site("d"), Answer::Declined(reason)));
    assert_eq!(bench.stage(), "exchanging keys");
}

/// Found by the simulation: an answer said twice made its site forget the update that it was still awaited with.
#[test]
fn an_answer_that_comes_twice_or_late_costs_its_site_nothing() {
    let mut bench = Bench::advertising();
    let answer = Box::new(SecureAnswer::Confirmed([0; 64].into()));
    let evidence = Evidence::Nothing;
    assert!(!bench.feed(Input::Secure { from: site("a"), task: task(1), answer, evidence }));
    assert_eq!(bench.effects, []);
    assert_eq!(bench.coordinator.round().unwrap().members[0], (site("a"), Answer::Ready));
}

/// What is heeded is written down: a site that sends wrong answers without end would fill the disk.
#[test]
fn a_wrong_answer_costs_its_sender_its_place_and_is_not_heeded_again() {
    let mut bench = Bench::advertising();
    let body = Advertisement {
        site: site("a"),
        certificate: Vec::new(),
        share_key: [1; 32],
        mask_key: [2; 32],
        commitment: [3; 32],
        post_quantum: None,
        nonce: [4; 32],
    };
    let forged = SignedAdvertisement { body, signature: [0; 64].into() };
    let input = Input::Secure {
        from: site("a"),
        task: task(1),
        answer: Box::new(SecureAnswer::Advertisement(Box::new(forged))),
        evidence: Evidence::Key([0; 32]),
    };
    assert!(bench.feed(input.clone()));
    let [Effect::Reject { reason, .. }] = &bench.effects[..] else { panic!("{:?}", bench.effects) };
    let answer = Answer::Declined(reason.clone());
    assert_eq!(bench.coordinator.round().unwrap().members[0], (site("a"), answer));
    assert!(!bench.feed(input));
    assert!(!bench.feed(Input::Declined { from: site("a"), task: task(1), reason: "no".into() }));
    assert_eq!(bench.effects, []);
}

#[test]
fn a_snapshot_in_the_middle_of_a_sum_goes_on_where_it_was() {
    let mut bench = Bench::advertising();
    let bytes = sheaf_common::wire::encode_record(&bench.coordinator).unwrap();
    bench.coordinator = sheaf_common::wire::decode_record(&bytes).unwrap();
    bench.feed(Input::Connected(site("a")));
    assert_eq!(bench.asked(), ["a"]);
}

#[test]
fn a_site_that_is_sent_away_is_no_longer_awaited() {
    let mut bench = Bench::advertising();
    let why = "it was revoked by operator op".to_owned();
    bench.feed(Input::Excluded { site: site("d"), keep_updates: false, why: why.clone() });
    assert_eq!(bench.coordinator.round().unwrap().members[3].1, Answer::Declined(why));
    assert_eq!(bench.stage(), "exchanging keys");
    bench.feed(Input::Connected(site("d")));
    assert!(bench.asked().is_empty());
}

/// Nobody could be sent the list of their keys, and every connection would break.
#[test]
fn more_sites_than_a_message_has_room_for_abandon_the_attempt_and_the_sentence_says_how_many() {
    let text = RUN.replace("sites = [\"a\", \"b\", \"c\", \"d\"]", "min_sites = 1498");
    let text = text.replace("[secagg]", "[secagg]\ngraph = \"regular\"");
    let names: Vec<String> = (0..1498).map(|at| format!("s{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::of(&text, &names);
    for name in &names {
        bench.feed(Input::Ready { from: site(name), task: task(1) });
    }
    let outcomes = bench.effects.iter().filter_map(|effect| {
        if let Effect::Record(record) = effect { Some(record.outcome.clone()) } else { None }
    });
    let why =
        "the keys of 1498 sites do not fit in a message, only those of 1497: bound the cohort with `count`";
    assert_eq!(outcomes.collect::<Vec<_>>(), [RoundOutcome::Abandoned(why.into())]);
}
