//! Surveys in the coordinator, with simulated time: no round, one count, and what becomes of it.

use std::time::Duration;

use sheaf_common::metrics::{Kind, Survey, Value};
use sheaf_common::params::ParamTensor;

use super::*;

const RUN: &str = r#"
name = "toy"
rounds = 9
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
sites = ["a", "b", "c", "d"]
min_updates = 3
round_timeout = "60s"
"#;

const OFF: &str = "rounds = 9\nsecure_aggregation = \"off\"";

fn site(name: &str) -> ClientId {
    name.parse().unwrap()
}

fn task() -> TaskId {
    TaskId { run: "toy".parse().unwrap(), round: 0, attempt: 0 }
}

struct Bench {
    coordinator: Coordinator,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Bench {
    /// A survey that was let go, and the sites that it waits for.
    fn new(text: &str) -> Self {
        let run = Run {
            id: "toy".parse().unwrap(),
            federation: "test".parse().unwrap(),
            spec: RunSpec::parse_survey("run.toml", text).unwrap(),
            submitted_by: "op".parse().unwrap(),
            author: None,
            submitted_at: Timestamp(0),
            model: None,
            phases: ParamSpec { tensors: vec![ParamTensor { name: "constant".into(), shape: vec![1] }] }
                .into(),
            initial: BlobId::of(b"initial"),
        };
        let mut bench =
            Self { coordinator: Coordinator::new(run), now: Timestamp(1_000), effects: Vec::new() };
        bench.feed([Input::Start]);
        bench
    }

    fn feed(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            self.coordinator.handle(input, self.now);
            while let Some(effect) = self.coordinator.poll_effect() {
                self.effects.push(effect);
            }
        }
    }

    fn connect(&mut self) {
        self.feed(["a", "b", "c", "d"].map(|name| Input::Connected(site(name))));
    }

    fn found(&self) -> Option<&Report> {
        self.effects
            .iter()
            .find_map(|effect| if let Effect::FinalMetrics(report) = effect { Some(&**report) } else { None })
    }

    /// A site counts one example for each number.
    fn counts(&self, numbers: &[f64]) -> Counts {
        let Kind::Survey { columns } = Kind::of(&self.coordinator.run().spec) else { panic!("no survey") };
        let mut survey = Survey::new(&columns);
        numbers.iter().for_each(|number| survey.observe([Value::Number(*number), Value::Word(1)]));
        survey.into()
    }
}

fn counted(name: &str, metrics: Option<Counts>) -> Input {
    Input::Evaluated { from: site(name), task: task(), metrics }
}

#[test]
fn a_survey_waits_for_its_sites_and_ends_without_a_round() {
    let mut bench = Bench::new(&RUN.replace("rounds = 9", OFF));
    assert_eq!(
        bench.coordinator.state(),
        (RunState::Waiting, "the survey needs 4 sites; 0 connected".into())
    );
    bench.connect();
    assert_eq!(bench.coordinator.state().0, RunState::Evaluating);
    assert!(
        bench.effects.iter().all(|effect| matches!(effect, Effect::Evaluate { task: t, .. } if *t == task()))
    );
    assert_eq!(bench.effects.len(), 4);
    assert_eq!(bench.coordinator.round().unwrap().stage, "counting");
    let inputs = [
        counted("a", Some(bench.counts(&[1.0, 2.0]))),
        counted("b", Some(bench.counts(&[6.0]))),
        counted("c", Some(bench.counts(&[3.0]))),
        // It has too few examples to say anything.
        counted("d", None),
    ];
    bench.feed(inputs);
    let report = bench.found().and_then(Report::survey).unwrap();
    assert_eq!((report.num_examples, report.columns[0].number.unwrap().mean), (4, Some(3.0)));
    assert_eq!(bench.coordinator.state(), (RunState::Completed, String::new()));
    let is_of_a_round = |effect: &Effect| {
        matches!(effect, Effect::Train { .. } | Effect::Aggregate(_) | Effect::Open(_) | Effect::Record(_))
    };
    assert!(!bench.effects.iter().any(is_of_a_round), "{:?}", bench.effects);
}

#[test]
fn too_few_sites_are_no_survey_and_their_reasons_are_told() {
    let mut bench = Bench::new(&RUN.replace("rounds = 9", OFF));
    bench.connect();
    let of_another_kind = Counts::new(&Kind::Language);
    let inputs = [
        counted("a", Some(bench.counts(&[1.0]))),
        counted("b", Some(of_another_kind)),
        Input::Declined { from: site("c"), task: task(), reason: "the site has no data set `d`".into() },
    ];
    bench.feed(inputs);
    bench.now = bench.now.after(Duration::from_secs(60));
    bench.feed([Input::Tick]);
    let (state, why) = bench.coordinator.state();
    assert_eq!(state, RunState::Failed);
    assert_eq!(
        why,
        "the survey came to nothing: 1 sites counted, 3 are needed; b: its metrics do not add up: the metrics are not \
         those of the run's kind of task; c: the site has no data set `d`"
    );
    assert_eq!(bench.found(), None);
}

#[test]
fn a_secure_survey_is_a_secure_sum_of_counts_alone() {
    let mut bench = Bench::new(RUN);
    bench.connect();
    bench.feed(["a", "b", "c", "d"].map(|name| Input::Ready { from: site(name), task: task() }));
    let asked = bench.effects.iter().filter(|effect| matches!(effect, Effect::Ask { .. }));
    assert_eq!(asked.count(), 4);
    assert_eq!(bench.coordinator.round().unwrap().stage, "exchanging keys");
    // Nobody answers.
    bench.now = bench.now.after(Duration::from_secs(60));
    bench.feed([Input::Tick]);
    let why = "the survey came to nothing: 0 of 3 needed sites showed their keys".to_owned();
    assert_eq!(bench.coordinator.state(), (RunState::Failed, why));
}

#[test]
fn counts_in_the_open_are_no_counts_of_a_secure_survey() {
    let mut bench = Bench::new(RUN);
    bench.connect();
    let counts = bench.counts(&[1.0]);
    bench.feed([counted("a", Some(counts))]);
    let members = bench.coordinator.round().unwrap().members;
    assert_eq!(members[0].1, Answer::Declined("it sent its metrics in the open".into()));
}
