//! The coordinator with simulated time: what a round does with every kind of answer, and that the journal alone
//! brings a run back.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sheaf_common::compression::Form;
use sheaf_common::metrics::Classification;
use sheaf_common::params::ParamTensor;
use sheaf_common::status::RoundOutcome;

use super::*;

const RUN: &str = r#"
name = "toy"
rounds = 2
seed = 7
secure_aggregation = "off"
model = { architecture = "softmax" }

[task]
type = "tabular-classification"
dataset = "d"
label = "y"
labels = ["no", "yes"]
features = [{ column = "x", type = "numeric" }]

[training]
validation_split = 0.0

[cohort]
sites = ["a", "b", "c"]
min_updates = 2
round_timeout = "60s"
max_attempts = 2
max_examples = 1000
"#;

/// Tensors of four values each.
fn params(names: &[&str]) -> ParamSpec {
    let tensor = |name: &&str| ParamTensor { name: (*name).into(), shape: vec![2, 2] };
    ParamSpec { tensors: names.iter().map(tensor).collect() }
}

fn run() -> Run {
    Run {
        id: "toy".parse().unwrap(),
        federation: "test".parse().unwrap(),
        spec: RunSpec::parse("run.toml", RUN).unwrap(),
        submitted_by: "op".parse().unwrap(),
        author: None,
        submitted_at: Timestamp(0),
        model: None,
        phases: params(&["weight"]).into(),
        initial: BlobId::of(b"initial"),
    }
}

fn site(name: &str) -> ClientId {
    name.parse().unwrap()
}

fn task(round: u32, attempt: u32) -> TaskId {
    TaskId { run: "toy".parse().unwrap(), round, attempt }
}

fn update(from: &str, task: TaskId) -> Input {
    let delta = BlobId::of(format!("{from} {task}").as_bytes());
    let update =
        Update { task, delta, num_examples: 10, train_loss: 0.5, global_metrics: None, local_metrics: None };
    let inspection = Some(Inspection { numel: 4, form: None, finding: Finding::Sound });
    Input::Update { from: site(from), update: Box::new(update), inspection }
}

fn altered(from: &str, task: TaskId, alter: impl FnOnce(&mut Update, &mut Option<Inspection>)) -> Input {
    let Input::Update { from, mut update, mut inspection } = update(from, task) else { unreachable!() };
    alter(&mut update, &mut inspection);
    Input::Update { from, update, inspection }
}

/// A coordinator, its clock, and everything that it did.
struct Bench {
    coordinator: Coordinator,
    now: Timestamp,
    effects: Vec<Effect>,
    /// What was heeded, and when.
    journal: Vec<(Input, Timestamp)>,
}

impl Bench {
    fn new() -> Self {
        Self { coordinator: Coordinator::new(run()), now: Timestamp(1_000), effects: vec![], journal: vec![] }
    }

    /// Round 1 in progress with all three sites.
    fn collecting() -> Self {
        Self::of(run())
    }

    /// The same of another run.
    fn of(run: Run) -> Self {
        let mut bench = Self { coordinator: Coordinator::new(run), ..Self::new() };
        bench.feed([
            Input::Start,
            Input::Connected(site("a")),
            Input::Connected(site("b")),
            Input::Connected(site("c")),
        ]);
        bench
    }

    fn feed(&mut self, inputs: impl IntoIterator<Item = Input>) -> &mut Self {
        for input in inputs {
            let mut before = self.coordinator.clone();
            before.context.effects.clear();
            let heeded = self.coordinator.handle(input.clone(), self.now);
            if heeded {
                self.journal.push((input, self.now));
            }
            while let Some(effect) = self.coordinator.poll_effect() {
                self.effects.push(effect);
            }
            assert!(heeded || self.coordinator == before);
        }
        self
    }

    fn wait(&mut self, duration: Duration) -> &mut Self {
        self.now = self.now.after(duration);
        self.feed([Input::Tick])
    }

    /// What `pick` finds among the effects.
    fn effects<'a, T>(&'a self, pick: impl Fn(&'a Effect) -> Option<T>) -> Vec<T> {
        self.effects.iter().filter_map(pick).collect()
    }

    fn rejections(&self) -> Vec<(&str, &str)> {
        self.effects(|effect| {
            let Effect::Reject { to, reason, .. } = effect else { return None };
            Some((to.as_str(), reason.as_str()))
        })
    }

    fn aggregations(&self) -> Vec<&Aggregate> {
        self.effects(|effect| if let Effect::Aggregate(round) = effect { Some(round) } else { None })
    }

    fn records(&self) -> Vec<&RoundRecord> {
        self.effects(|effect| if let Effect::Record(record) = effect { Some(&**record) } else { None })
    }

    fn state(&self) -> RunState {
        self.coordinator.state().0
    }
}

#[test]
fn a_round_closes_when_everybody_has_answered() {
    let mut bench = Bench::collecting();
    assert_eq!(bench.state(), RunState::Running);
    bench.feed(["c", "a", "b"].map(|name| update(name, task(1, 1))));
    let rounds = bench.aggregations();
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds[0].updates.len(), 3);
    assert_eq!(rounds[0].global, BlobId::of(b"initial"));

    let global = BlobId::of(b"one");
    bench.feed([Input::Aggregated { task: task(1, 1), global, record: None, summed: None }]);
    assert_eq!(bench.coordinator.completed(), 1);
    assert_eq!(bench.coordinator.global(), global);
    let asked = bench.effects.iter().filter(|e| matches!(e, Effect::Train { task, .. } if task.round == 2));
    assert_eq!(asked.count(), 3);
}

#[test]
fn a_run_waits_for_its_sites_and_its_turn() {
    let mut bench = Bench::new();
    bench.feed([Input::Connected(site("a")), Input::Connected(site("b")), Input::Connected(site("c"))]);
    assert_eq!(bench.state(), RunState::Queued);
    bench.feed([Input::Disconnected(site("c")), Input::Start]);
    assert_eq!(bench.state(), RunState::Waiting);
    assert_eq!(bench.coordinator.state().1, "round 1 needs 3 sites; 2 connected");
    bench.feed([Input::Connected(site("c"))]);
    assert_eq!(bench.state(), RunState::Running);
}

#[test]
fn the_deadline_closes_with_enough_updates() {
    let mut bench = Bench::collecting();
    bench.feed(["a", "b"].map(|name| update(name, task(1, 1))));
    bench.wait(Duration::from_secs(59));
    assert!(bench.aggregations().is_empty());
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.aggregations()[0].updates.len(), 2);
    bench.feed([update("c", task(1, 1))]);
    assert_eq!(bench.rejections(), [("c", "no update of toy round 1 is awaited now")]);
}

#[test]
fn below_min_updates_a_round_is_tried_again_a_bounded_number_of_times() {
    let mut bench = Bench::collecting();
    bench.feed([update("a", task(1, 1))]).wait(Duration::from_secs(60));
    let why = "the deadline passed with 1 of 2 needed updates";
    assert_eq!(bench.records()[0].outcome, RoundOutcome::Abandoned(why.into()));
    assert_eq!(bench.coordinator.round().unwrap().task, task(1, 2));
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.state(), RunState::Failed);
    assert!(bench.coordinator.state().1.starts_with("round 1 was abandoned 2 times"));
    assert!(bench.aggregations().is_empty());
}

#[test]
fn a_round_that_cannot_succeed_is_not_waited_for() {
    let mut bench = Bench::collecting();
    let decline = |name| Input::Declined { from: site(name), task: task(1, 1), reason: "no data".into() };
    bench.feed([decline("a"), decline("b")]);
    let why = "too many sites fell out with 0 of 2 needed updates";
    assert_eq!(bench.records()[0].outcome, RoundOutcome::Abandoned(why.into()));
    assert_eq!(bench.records()[0].participants[0].answer, Answer::Declined("no data".into()));
}

#[test]
fn every_bad_update_costs_its_sender_and_not_the_round() {
    let other_length = Some(Inspection { numel: 3, form: None, finding: Finding::Sound });
    let nan = Some(Inspection { numel: 4, form: None, finding: Finding::NotFinite });
    let huge = Some(Inspection { numel: 4, form: None, finding: Finding::TooLarge });
    let packed = Some(Inspection { numel: 4, form: Some(Form::Int8), finding: Finding::Sound });
    let damaged = Some(Inspection { numel: 4, form: None, finding: Finding::Damaged });
    let foreign_counts = Counts::from(Classification::new(3));
    let cases: [(Input, &str); 11] = [
        (altered("c", task(1, 1), |_, i| *i = other_length), "it has 3 values where the model has 4"),
        (altered("c", task(1, 1), |_, i| *i = packed), "its values do not travel as the run's"),
        (altered("c", task(1, 1), |_, i| *i = damaged), "its bytes are no values"),
        (altered("c", task(1, 1), |_, i| *i = nan), "it holds a NaN or an infinity"),
        (altered("c", task(1, 1), |_, i| *i = huge), "it holds a value far beyond any weight"),
        (altered("c", task(1, 1), |_, i| *i = None), "its blob never arrived"),
        (
            altered("c", task(1, 1), |u, _| u.num_examples = u64::MAX),
            "it claims 18446744073709551615 examples; 1 to 1000 are believed",
        ),
        (altered("c", task(1, 1), |u, _| u.num_examples = 0), "it claims 0 examples; 1 to 1000 are believed"),
        (
            altered("c", task(1, 1), |u, _| u.train_loss = f64::NAN),
            "its training loss is NaN; 0 to 1000000 are believed",
        ),
        (update("c", task(2, 1)), "it answers toy round 2, but toy round 1 is in progress"),
        (
            altered("c", task(1, 1), move |u, _| u.local_metrics = Some(foreign_counts)),
            "its metrics do not add up",
        ),
    ];
    for (bad, reason) in cases {
        let mut bench = Bench::collecting();
        bench.feed([bad]);
        let rejections = bench.rejections();
        assert_eq!(rejections.len(), 1, "{reason}");
        assert_eq!(rejections[0].0, "c");
        assert!(rejections[0].1.starts_with(reason), "{} / {reason}", rejections[0].1);
        bench.feed(["a", "b"].map(|name| update(name, task(1, 1)))).wait(Duration::from_secs(60));
        assert_eq!(bench.aggregations()[0].updates.len(), 2, "{reason}");
    }
}

#[test]
fn who_answers_twice_or_was_not_asked_is_refused() {
    let mut bench = Bench::collecting();
    bench.feed([update("a", task(1, 1)), update("a", task(1, 1)), update("z", task(1, 1))]);
    assert_eq!(
        bench.rejections(),
        [("a", "a has already answered toy round 1"), ("z", "z is not in the cohort of toy round 1")]
    );
}

#[test]
fn a_site_that_comes_back_gets_its_task_again() {
    let mut bench = Bench::collecting();
    bench.feed([update("a", task(1, 1))]);
    bench.effects.clear();
    bench.feed([
        Input::Disconnected(site("a")),
        Input::Disconnected(site("b")),
        Input::Connected(site("a")),
        Input::Connected(site("b")),
    ]);
    let deadline = Timestamp(1_000).after(Duration::from_secs(60));
    assert_eq!(bench.effects, [Effect::Train { to: site("b"), task: task(1, 1), deadline }]);
}

#[test]
fn who_was_not_there_does_not_leave_and_what_comes_late_serves_no_longer() {
    let mut bench = Bench::collecting();
    let heeded = bench.journal.len();
    bench.feed([Input::Disconnected(site("z"))]);
    assert_eq!(bench.journal.len(), heeded);
    bench.feed(["a", "b", "c"].map(|name| update(name, task(1, 1))));
    bench.feed([Input::Aggregated {
        task: task(1, 1),
        global: BlobId::of(b"one"),
        record: None,
        summed: None,
    }]);
    bench.effects.clear();
    bench.feed([Input::Ready { from: site("a"), task: task(1, 1) }, update("b", task(1, 1))]);
    let over = Effect::Over { to: site("a"), task: task(1, 1) };
    let reason = "it came late: round 1 is over".to_owned();
    assert_eq!(bench.effects, [over, Effect::Reject { to: site("b"), task: task(1, 1), reason }]);
}

#[test]
fn a_restart_asks_again_for_what_was_under_way() {
    let mut bench = Bench::collecting();
    bench.feed(["a", "b", "c"].map(|name| update(name, task(1, 1))));
    let asked = bench.aggregations()[0].clone();
    bench.effects.clear();
    bench.feed([Input::Restarted]);
    assert_eq!(bench.effects, [Effect::Aggregate(asked)]);
}

#[test]
fn a_stopped_run_lets_its_sites_go() {
    let mut bench = Bench::collecting();
    bench.feed([update("a", task(1, 1)), Input::Stop("op".parse().unwrap())]);
    assert_eq!(bench.coordinator.state(), (RunState::Stopped, "by operator op".into()));
    let over = bench.effects.iter().filter(|effect| matches!(effect, Effect::Over { .. })).count();
    assert_eq!(over, 3);
    bench.feed([update("b", task(1, 1))]);
    assert_eq!(bench.rejections().len(), 1);
}

#[test]
fn a_fraction_is_chosen_by_the_seed_and_never_below_min_updates() {
    let mut spec = run().spec.cohort;
    let connected: BTreeSet<ClientId> = (0..20).map(|i| site(&format!("s{i}"))).collect();
    spec.selection = sheaf_common::run::Selection::Fraction(0.25);
    let choose = |seed, round| selector::select(&spec, seed, &task(round, 1), &connected);
    assert_eq!(choose(7, 1).len(), 5);
    assert_eq!(choose(7, 1), choose(7, 1));
    assert_ne!(choose(7, 1), choose(7, 2));
    assert_ne!(choose(7, 1), choose(8, 1));
    spec.selection = sheaf_common::run::Selection::Count(1);
    assert_eq!(selector::select(&spec, 7, &task(1, 1), &connected).len(), 2);
}

/// Anything that may happen to a run, in any order.
#[derive(Clone, Debug)]
enum Op {
    Connect(usize),
    Disconnect(usize),
    Answer(usize, u32, u32),
    Decline(usize),
    Aggregate,
    FailToAggregate,
    Pass(u64),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0usize..4).prop_map(Op::Connect),
        1 => (0usize..4).prop_map(Op::Disconnect),
        6 => (0usize..4, 1u32..4, 1u32..3).prop_map(|(s, r, a)| Op::Answer(s, r, a)),
        1 => (0usize..4).prop_map(Op::Decline),
        3 => Just(Op::Aggregate),
        1 => Just(Op::FailToAggregate),
        2 => (0u64..90_000).prop_map(Op::Pass),
        1 => Just(Op::Crash),
    ]
}

const NAMES: [&str; 4] = ["a", "b", "c", "z"];

impl Op {
    fn input(&self, current: &TaskId) -> Input {
        match self {
            Self::Connect(at) => Input::Connected(site(NAMES[at % 3])),
            Self::Disconnect(at) => Input::Disconnected(site(NAMES[at % 3])),
            Self::Answer(at, round, attempt) => update(NAMES[*at], task(*round, *attempt)),
            Self::Decline(at) => {
                Input::Declined { from: site(NAMES[*at]), task: current.clone(), reason: "no".into() }
            }
            Self::Aggregate => Input::Aggregated {
                task: current.clone(),
                global: BlobId::of(current.to_string().as_bytes()),
                record: None,
                summed: None,
            },
            Self::FailToAggregate => Input::AggregationFailed { task: current.clone(), why: "disk".into() },
            Self::Pass(_) => Input::Tick,
            Self::Crash => Input::Restarted,
        }
    }
}

proptest! {
    /// Whatever happens: every aggregation holds at least `min_updates` updates of distinct cohort members for
    /// that very attempt, a round completes at most once, an answer of a site is heeded once, and replaying what was
    /// heeded gives the same state.
    #[test]
    fn no_order_of_events_breaks_a_run(ops in prop::collection::vec(op(), 0..60)) {
        let mut bench = Bench::new();
        bench.feed([Input::Start]);
        for op in ops {
            if let Op::Pass(millis) = op {
                bench.now = bench.now.after(Duration::from_millis(millis));
            }
            let current = bench.coordinator.round().map_or(task(1, 1), |round| round.task);
            bench.feed([op.input(&current)]);
        }
        for round in bench.aggregations() {
            prop_assert!((2..=3).contains(&round.updates.len()));
            for counted in &round.updates {
                let sent = BlobId::of(format!("{} {}", counted.site, round.task).as_bytes());
                prop_assert_eq!((counted.update, counted.num_examples), (sent, 10));
            }
            prop_assert!(round.updates.is_sorted_by(|a, b| a.site < b.site));
        }
        let mut completed: BTreeMap<u32, u32> = BTreeMap::new();
        for record in bench.records() {
            if matches!(record.outcome, RoundOutcome::Completed(_)) {
                *completed.entry(record.round).or_default() += 1;
            }
        }
        prop_assert!(completed.values().all(|times| *times == 1));
        prop_assert_eq!(completed.len(), bench.coordinator.completed() as usize);

        let heeded: Vec<_> = bench.journal.iter().filter_map(|(input, _)| input.answer()).collect();
        prop_assert_eq!(heeded.iter().collect::<BTreeSet<_>>().len(), heeded.len());
        let mut replayed = Coordinator::new(run());
        for (input, at) in bench.journal {
            replayed.handle(input, at);
            while replayed.poll_effect().is_some() {}
        }
        prop_assert_eq!(&replayed, &bench.coordinator);
        let bytes = sheaf_common::wire::encode_record(&replayed).unwrap();
        prop_assert_eq!(&sheaf_common::wire::decode_record::<Coordinator>(&bytes).unwrap(), &replayed);
    }
}

/// A run of many rounds in which the sites find the global model after each round this accurate.
fn watched(validation: &str, accuracies: &[usize]) -> Bench {
    let text =
        RUN.replace("rounds = 2", "rounds = 50").replace("validation_split = 0.0", "validation_split = 0.5");
    let spec = RunSpec::parse("run.toml", &(text + validation)).unwrap();
    let run = Run { spec, ..run() };
    let mut bench =
        Bench { coordinator: Coordinator::new(run), now: Timestamp(1_000), effects: vec![], journal: vec![] };
    bench.feed([Input::Start]);
    bench.feed(["a", "b", "c"].map(|name| Input::Connected(site(name))));
    for (round, right) in (1..).zip(accuracies) {
        if bench.coordinator.round().is_none_or(|view| view.task != task(round, 1)) {
            break;
        }
        // Ten examples of one label, so many of them right.
        let mut counts = Classification::new(2);
        (0..10)
            .for_each(|example| counts.observe(0, if example < *right { &[1.0, 0.0] } else { &[0.0, 1.0] }));
        for name in ["a", "b", "c"] {
            bench.feed([altered(name, task(round, 1), |update, _| {
                update.global_metrics = Some(counts.clone().into())
            })]);
        }
        let global = BlobId::of(&round.to_le_bytes());
        bench.feed([Input::Aggregated { task: task(round, 1), global, record: None, summed: None }]);
    }
    bench
}

const PATIENT: &str = "[validation]\nmonitor = \"accuracy\"\npatience = 2\n";

#[test]
fn a_run_stops_when_its_patience_ends_and_its_result_is_the_best_model() {
    let mut bench = watched(PATIENT, &[3, 5, 8, 7, 8, 9, 9]);
    // The model after round 2 was the best; those after 3 and 4 were not better, which round 5 told.
    assert_eq!(bench.state(), RunState::Evaluating);
    assert_eq!((bench.coordinator.completed(), bench.coordinator.result()), (5, 2));
    bench.feed(["a", "b", "c"].map(|name| Input::Evaluated {
        from: site(name),
        task: task(5, 0),
        metrics: None,
    }));
    assert_eq!(
        bench.coordinator.state(),
        (RunState::Completed, "stopped early: accuracy has been best after round 2 (0.8000)".into())
    );
}

#[test]
fn a_run_that_goes_on_improving_goes_on() {
    let bench = watched(PATIENT, &[1, 2, 2, 3, 3, 4]);
    assert_eq!((bench.coordinator.completed(), bench.state()), (6, RunState::Running));
    assert_eq!(bench.coordinator.best().unwrap().round, 5);
}

#[test]
fn the_result_is_the_last_model_unless_the_run_says_otherwise() {
    let bench = watched("[validation]\nmonitor = \"accuracy\"\n", &[9, 1, 1, 1]);
    assert_eq!((bench.coordinator.best().unwrap().round, bench.coordinator.result()), (0, 4));
    let bench = watched("[validation]\nmonitor = \"accuracy\"\nrestore_best = true\n", &[9, 1, 1, 1]);
    assert_eq!(bench.coordinator.result(), 0);
}

#[test]
fn what_travels_grows_between_rounds_and_with_it_what_an_update_must_be() {
    let phases = Phases::from(params(&["head"])).then(2, params(&["body", "head"])).unwrap();
    let mut bench = Bench::of(Run { phases, ..run() });
    assert_eq!(bench.coordinator.job().params, params(&["head"]));
    let origin = bench.coordinator.job().origin();
    let long = |name, round| altered(name, task(round, 1), |_, i| i.as_mut().unwrap().numel = 8);
    bench.feed([long("a", 1)]);
    assert_eq!(bench.rejections(), [("a", "it has 8 values where the model has 4")]);
    bench.feed(["b", "c"].map(|name| update(name, task(1, 1))));
    bench.feed([Input::Aggregated {
        task: task(1, 1),
        global: BlobId::of(b"grown"),
        record: None,
        summed: None,
    }]);

    // A restart in the round of the change finds the grown parameters.
    let bytes = sheaf_common::wire::encode_record(&bench.coordinator).unwrap();
    bench.coordinator = sheaf_common::wire::decode_record(&bytes).unwrap();
    bench.feed([Input::Restarted]);
    bench.feed(["a", "b", "c"].map(|name| Input::Connected(site(name))));
    let job = bench.coordinator.job();
    assert_eq!((job.params.clone(), job.global), (params(&["body", "head"]), BlobId::of(b"grown")));
    assert_eq!(job.origin(), origin, "it is still the same run");
    bench.feed([update("a", task(2, 1)), long("b", 2), long("c", 2)]);
    assert_eq!(bench.rejections()[1..], [("a", "it has 4 values where the model has 8")]);
    assert_eq!(bench.aggregations()[1].updates.len(), 2);
    bench.feed([Input::Aggregated {
        task: task(2, 1),
        global: BlobId::of(b"last"),
        record: None,
        summed: None,
    }]);
    assert_eq!(bench.coordinator.params(), &params(&["body", "head"]));
}

#[test]
fn new_tensors_begin_with_the_first_clipping_range() {
    let phases = Phases::from(params(&["b", "d"])).then(3, params(&["a", "b", "c", "d"])).unwrap();
    let spec = RunSpec::parse(
        "run.toml",
        &RUN.replace("secure_aggregation = \"off\"", "").replace("rounds = 2", "rounds = 3"),
    );
    let mut context = Coordinator::new(Run { phases, spec: spec.unwrap(), ..run() }).context;
    assert_eq!(context.ranges, [1.0; 2]);
    context.take_ranges(1, vec![0.5, 0.25]);
    assert_eq!(context.ranges, [0.5, 0.25]);
    context.completed = 1;
    context.take_ranges(2, vec![0.5, 0.25]);
    assert_eq!(context.ranges, [1.0, 0.5, 1.0, 0.25]);
}

fn excluded(name: &str, keep_updates: bool) -> Input {
    Input::Excluded { site: site(name), keep_updates, why: "it was revoked by operator op".into() }
}

#[test]
fn a_site_that_is_sent_away_is_counted_out_and_what_it_gave_is_dropped_or_kept() {
    for (keep, left) in [(true, 3), (false, 2)] {
        let mut bench = Bench::collecting();
        bench.feed([update("a", task(1, 1)), excluded("a", keep)]);
        bench.feed(["b", "c"].map(|name| update(name, task(1, 1))));
        assert_eq!(bench.aggregations()[0].updates.len(), left);
    }
    let mut bench = Bench::collecting();
    bench.feed([excluded("c", true)]);
    bench.feed(["a", "b"].map(|name| update(name, task(1, 1))));
    // Nobody waits for it any more.
    assert_eq!(bench.aggregations()[0].updates.len(), 2);
    bench.feed([Input::Aggregated {
        task: task(1, 1),
        global: BlobId::of(b"one"),
        record: None,
        summed: None,
    }]);
    let declined = Answer::Declined("it was revoked by operator op".into());
    assert_eq!(bench.records()[0].participants[2].answer, declined);
}

#[test]
fn an_update_that_is_being_averaged_can_still_be_dropped_by_trying_again() {
    let mut bench = Bench::collecting();
    bench.feed(["a", "b", "c"].map(|name| update(name, task(1, 1))));
    bench.feed([excluded("c", false)]);
    let RoundOutcome::Abandoned(why) = &bench.records()[0].outcome else { panic!("{:?}", bench.records()) };
    assert_eq!(
        why,
        "an update that was being averaged no longer counts: of c, it was revoked by operator op"
    );
    // The average with it comes too late to count.
    bench.feed([Input::Aggregated {
        task: task(1, 1),
        global: BlobId::of(b"one"),
        record: None,
        summed: None,
    }]);
    assert_eq!((bench.coordinator.completed(), bench.coordinator.global()), (0, BlobId::of(b"initial")));
}

/// A round that leaves out `c`.
fn leaving_out_c(secure: &str) -> Bench {
    let text = RUN.replace("rounds = 2", "rounds = 1").replace("secure_aggregation = \"off\"", secure);
    let text = text.replace("[training]\nvalidation_split = 0.0", "[validation]\nleave_out = \"c\"");
    let bench = Bench::of(Run { spec: RunSpec::parse("run.toml", &text).unwrap(), ..run() });
    let asked =
        bench.effects(|effect| if let Effect::Train { to, .. } = effect { Some(to.as_str()) } else { None });
    assert_eq!(asked, ["a", "b"], "c is not of the cohort");
    bench
}

/// The same, over.
fn evaluating_c() -> Bench {
    let mut bench = leaving_out_c("secure_aggregation = \"off\"");
    bench.feed(["a", "b"].map(|name| update(name, task(1, 1))));
    assert_eq!(bench.aggregations()[0].updates.len(), 2);
    bench.feed([Input::Aggregated {
        task: task(1, 1),
        global: BlobId::of(b"one"),
        record: None,
        summed: None,
    }]);
    bench
}

fn asked_to_evaluate(bench: &Bench) -> Vec<&str> {
    bench.effects(|effect| if let Effect::Evaluate { to, .. } = effect { Some(to.as_str()) } else { None })
}

#[test]
fn a_run_waits_for_those_that_train() {
    let text = RUN.replace("[training]\nvalidation_split = 0.0", "[validation]\nleave_out = \"c\"");
    let run = Run { spec: RunSpec::parse("run.toml", &text).unwrap(), ..run() };
    let mut bench = Bench { coordinator: Coordinator::new(run), ..Bench::new() };
    bench.feed([Input::Start, Input::Connected(site("a")), Input::Connected(site("c"))]);
    assert_eq!(bench.coordinator.state(), (RunState::Waiting, "round 1 needs 2 sites; 1 connected".into()));
    bench.feed([Input::Connected(site("b"))]);
    assert_eq!(bench.state(), RunState::Running);
}

#[test]
fn the_site_that_is_left_out_alone_evaluates_the_final_model() {
    let mut bench = evaluating_c();
    assert_eq!(asked_to_evaluate(&bench), ["c"]);
    let mut counts = Classification::new(2);
    (0..10).for_each(|example| counts.observe(0, if example < 7 { &[1.0, 0.0] } else { &[0.0, 1.0] }));
    let evaluated = |from, metrics| Input::Evaluated { from: site(from), task: task(1, 0), metrics };
    bench.feed([evaluated("a", Some(Classification::new(2).into()))]);
    assert_eq!(bench.state(), RunState::Evaluating, "nobody else is heard");
    bench.feed([evaluated("c", Some(counts.into()))]);
    assert_eq!(bench.coordinator.state(), (RunState::Completed, String::new()));
    let reports = bench.effects(|effect| {
        if let Effect::FinalMetrics(report) = effect { Some(report.as_ref().clone()) } else { None }
    });
    assert_eq!(reports[0].classification().unwrap().accuracy, 0.7);
    assert_eq!(bench.coordinator.best(), None, "it is no evaluation on those that trained");
}

#[test]
fn a_run_without_the_metrics_it_was_for_says_why() {
    let mut bench = evaluating_c();
    bench.feed([Input::Declined { from: site("c"), task: task(1, 0), reason: "no".into() }]);
    let expected = "without metrics of the final model: c, which was left out: no";
    assert_eq!(bench.coordinator.state(), (RunState::Completed, expected.into()));

    let mut bench = evaluating_c();
    bench.feed([Input::Disconnected(site("c"))]);
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.state(), RunState::Evaluating);
    bench.wait(Duration::from_secs(1));
    let expected = "without metrics of the final model: c, which was left out, did not answer in time";
    assert_eq!(bench.coordinator.state(), (RunState::Completed, expected.into()));
}

#[test]
fn what_one_site_counts_alone_is_in_no_sum() {
    let mut bench = leaving_out_c("");
    // The rounds are summed; that they were is the protocol's tale.
    bench.feed(["a", "b"].map(|name| Input::Ready { from: site(name), task: task(1, 1) }));
    assert_eq!(bench.coordinator.round().unwrap().stage, "exchanging keys");
    let context = &mut bench.coordinator.context;
    context.completed = 1;
    bench.coordinator.state = Evaluating::start(context, bench.now);
    bench.feed([Input::Ready { from: site("c"), task: task(1, 0) }]);
    assert_eq!(bench.state(), RunState::Evaluating);
    bench.feed([Input::Evaluated { from: site("c"), task: task(1, 0), metrics: None }]);
    assert_eq!(bench.state(), RunState::Completed);
    assert!(bench.coordinator.state().1.ends_with("sent none: it has too few examples, as its log says"));
}

/// All rounds are over and the sites were asked what the last model is worth.
fn to_be_tested(accuracies: &[usize], last: usize) -> Bench {
    let mut bench = watched(&format!("{PATIENT}test_split = 0.2\n"), accuracies);
    let completed = bench.coordinator.completed();
    bench.feed(["a", "b", "c"].map(|name| evaluated(name, task(completed, 0), last)));
    bench
}

/// Ten examples of one label, so many of them right.
fn evaluated(name: &str, task: TaskId, right: usize) -> Input {
    let mut counts = Classification::new(2);
    (0..10).for_each(|example| counts.observe(0, if example < right { &[1.0, 0.0] } else { &[0.0, 1.0] }));
    Input::Evaluated { from: site(name), task, metrics: Some(counts.into()) }
}

#[test]
fn the_model_that_validation_chose_is_tested_once() {
    let mut bench = to_be_tested(&[3, 5, 8, 7, 8], 8);
    let test = task(2, TaskId::TEST);
    let view = bench.coordinator.round().unwrap();
    assert_eq!((view.task, view.stage, bench.state()), (test.clone(), "testing", RunState::Evaluating));
    assert_eq!(bench.coordinator.job().global, BlobId::of(&2u32.to_le_bytes()), "the model after round 2");
    assert_eq!(asked_to_evaluate(&bench), ["a", "b", "c", "a", "b", "c"]);
    // What is said of the validation splits is said.
    bench.feed([evaluated("a", task(5, 0), 1)]);
    bench.feed([evaluated("a", test.clone(), 6), evaluated("b", test.clone(), 6)]);
    assert_eq!(bench.state(), RunState::Evaluating);
    bench.feed([evaluated("c", test, 9)]);
    assert_eq!(bench.state(), RunState::Completed);
    let tests =
        bench.effects(
            |effect| {
                if let Effect::TestMetrics(report) = effect { report.classification() } else { None }
            },
        );
    assert_eq!((tests.len(), tests[0].accuracy), (1, 0.7));
    assert_eq!(bench.coordinator.result(), 2, "a test chooses nothing");
}

#[test]
fn the_last_model_is_tested_when_it_is_the_best() {
    let bench = to_be_tested(&[3, 5, 8, 7, 8], 9);
    assert_eq!(bench.coordinator.round().unwrap().task, task(5, TaskId::TEST));
    assert_eq!(bench.coordinator.job().global, BlobId::of(&5u32.to_le_bytes()));
}

#[test]
fn a_test_that_nobody_answers_is_said() {
    let mut bench = to_be_tested(&[3, 5, 8, 7, 8], 8);
    let decline =
        |name| Input::Declined { from: site(name), task: task(2, TaskId::TEST), reason: "no".into() };
    bench.feed(["a", "b", "c"].map(decline));
    let why = "without a test of the result: no site has enough examples to send their counts";
    assert_eq!(bench.coordinator.state(), (RunState::Completed, why.into()));
}
