//! Whole rounds: they learn, can be replayed bit for bit, report and stop.

use sheaf_common::metrics::{Kind, Report};
use sheaf_common::run::*;
use sheaf_common::status::Phase;

use super::fixture::*;
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::torch::TorchTrainer;
use crate::trainer::{Round, TrainError, Trained, Trainer, Unwatched};

const FIRST: Round = Round { number: 1, of: 4 };

fn round(tiny: &TinyBert, spec: RunSpec, site: &str, round: Round) -> Trained {
    let job = tiny.job(spec);
    tiny.open(&job, site, both(news())).unwrap().train(tiny.start(&job), round, &Unwatched).unwrap()
}

fn bits(trained: &Trained) -> Vec<u32> {
    trained.params.iter().map(|value| value.to_bits()).collect()
}

/// Also when other trainers of the same process draw from libtorch's one generator at the same time.
#[test]
fn a_round_replayed_gives_the_same_bits() {
    let tiny = TinyBert::new("");
    for trainable in [Trainable::Head, Trainable::Last(1), Trainable::All] {
        let spec = text_spec(trainable, Pooling::Mean);
        let first = round(&tiny, spec.clone(), "desk", FIRST);
        let again = std::thread::scope(|scope| {
            let runs = [(); 4].map(|()| scope.spawn(|| round(&tiny, spec.clone(), "desk", FIRST)));
            runs.map(|run| run.join().unwrap())
        });
        for again in again {
            assert_eq!((bits(&again), again.train_loss), (bits(&first), first.train_loss));
        }
    }
}

#[test]
fn augmented_examples_go_through_the_frozen_layers_each_time() {
    let tiny = TinyBert::new("");
    let spec = |token_masking: f64| {
        let mut spec = text_spec(Trainable::Head, Pooling::Mean);
        spec.training.augmentation = Some(Augmentation { token_masking, ..Augmentation::default() });
        spec
    };
    let refused = tiny.open(&tiny.job(spec(0.5)), "desk", both(news())).err().unwrap().to_string();
    assert!(
        refused.contains("has no mask token: leave out training.augmentation.token_masking"),
        "{refused}"
    );
    let tokenizer = tiny.folder.path().join("tokenizer.json");
    let written = std::fs::read_to_string(&tokenizer).unwrap();
    std::fs::write(tokenizer, written.replace("\"ship\"", "\"[MASK]\"")).unwrap();

    let plain = round(&tiny, text_spec(Trainable::Head, Pooling::Mean), "desk", FIRST);
    let never = round(&tiny, spec(1e-300), "desk", FIRST);
    let furthest = plain.params.iter().zip(&never.params).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-5, "{furthest}");
    let often = round(&tiny, spec(0.5), "desk", FIRST);
    assert_eq!(bits(&often), bits(&round(&tiny, spec(0.5), "desk", FIRST)));
    assert!(often.params.iter().zip(&plain.params).any(|(a, b)| (a - b).abs() > 1e-4));

    let evaluated = |spec: RunSpec| {
        let job = tiny.job(spec);
        let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
        trainer.evaluate(&plain.params, &Unwatched).unwrap()
    };
    assert_eq!(evaluated(spec(0.5)), evaluated(text_spec(Trainable::Head, Pooling::Mean)));
}

#[test]
fn site_round_and_seed_change_what_is_drawn() {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::Last(1), Pooling::Mean);
    spec.training.schedule.kind = ScheduleKind::Constant;
    spec.training.schedule.warmup_steps = 0;
    let first = bits(&round(&tiny, spec.clone(), "desk", FIRST));
    assert_ne!(bits(&round(&tiny, spec.clone(), "other", FIRST)), first);
    assert_ne!(bits(&round(&tiny, spec.clone(), "desk", Round { number: 2, of: 4 })), first);
    spec.seed += 1;
    assert_ne!(bits(&round(&tiny, spec, "desk", FIRST)), first);
}

/// A trainer that has been at work before, elsewhere in the run, trains as a fresh one does.
#[test]
fn a_round_does_not_depend_on_the_one_before() {
    let tiny = TinyBert::new("");
    let job = tiny.job(text_spec(Trainable::Last(1), Pooling::Cls));
    let second = Round { number: 2, of: 4 };
    let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
    trainer.train(tiny.start(&job), FIRST, &Unwatched).unwrap();
    trainer.evaluate(&tiny.start(&job), &Unwatched).unwrap();
    let later = trainer.train(tiny.start(&job), second, &Unwatched).unwrap();
    assert_eq!(bits(&later), bits(&round(&tiny, job.spec, "desk", second)));
}

#[test]
fn every_part_of_an_encoder_learns() {
    let tiny = TinyBert::new("");
    for (trainable, rate) in [(Trainable::Head, 0.1), (Trainable::Last(1), 0.01), (Trainable::All, 0.005)] {
        for optimizer in
            [Optimizer::AdamW(ADAM), Optimizer::Adam(ADAM), Optimizer::Sgd { momentum: 0.9, nesterov: true }]
        {
            let mut spec = text_spec(trainable.clone(), Pooling::Mean);
            spec.training.optimizer = optimizer;
            spec.training.learning_rate = rate;
            spec.training.local = LocalWork::Epochs(5);
            let job = tiny.job(spec);
            let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
            let before = tiny.start(&job);
            let mut params = before.clone();
            for number in 1..=4 {
                params = trainer.train(params, Round { number, of: 4 }, &Unwatched).unwrap().params;
            }
            let mut loss = |params: &[f32]| {
                let counts = trainer.evaluate(params, &Unwatched).unwrap().unwrap();
                counts.report(&Kind::of(&job.spec)).classification().unwrap().loss
            };
            let (after, before) = (loss(&params), loss(&before));
            assert!(after < 0.6 * before, "{trainable:?} {optimizer:?}: {before} to {after}");
        }
    }
}

/// Points around three corners.
fn points() -> Dataset {
    let corners = [(-1.0, -1.0), (1.0, -1.0), (0.0, 1.0)];
    let examples = (0..60).map(|example| {
        let (x, y): (f32, f32) = corners[example % 3];
        let angle = example as f32;
        [x + 0.4 * angle.cos(), 0.0, y + 0.4 * angle.sin(), 0.0]
    });
    let values = examples.flatten().collect();
    Dataset {
        inputs: Inputs::Table { width: 4, values },
        targets: Targets::Label((0..60).map(|example| example % 3).collect()),
    }
}

fn points_spec() -> RunSpec {
    let feature = |column: &str| Feature {
        column: column.into(),
        kind: FeatureKind::Numeric { mean: 0.0, std: 1.0 },
        missing: Vec::new(),
    };
    let mut spec = table_spec(vec![feature("x"), feature("y")], vec![16, 8]);
    spec.training.local = LocalWork::Epochs(5);
    spec
}

/// Small and fixed, as a server would send it.
fn fresh(numel: u64) -> Vec<f32> {
    (0..numel).map(|index| 0.5 * (index as f32 * 1.7).sin()).collect()
}

#[test]
fn a_perceptron_learns_what_can_be_separated() {
    let job = job(points_spec(), None);
    let mut trainer = TorchTrainer::open(&job, None, "site", both(points()), tch::Device::Cpu).unwrap();
    assert_eq!(trainer.num_examples(), 60);
    let mut params = fresh(job.params.numel());
    for number in 1..=4 {
        params = trainer.train(params, Round { number, of: 4 }, &Unwatched).unwrap().params;
    }
    let mut prepared = trainer.prepare(&points()).unwrap();
    let counts = trainer.evaluate_on(&params, &mut prepared, &Unwatched).unwrap();
    assert_eq!(counts.report(&Kind::of(&job.spec)).classification().unwrap().accuracy, 1.0);
    assert_eq!(trainer.evaluate(&params, &Unwatched).unwrap(), Some(counts));
}

/// A number that no linear model can give, and two labels of which a point may have both or none.
#[test]
fn a_perceptron_learns_a_number_and_any_number_of_labels() {
    let Dataset { inputs: Inputs::Table { values, .. }, .. } = points() else { panic!("a table") };
    let rows = || values.chunks_exact(4).map(|row| (row[0], row[2]));
    let numbers = Targets::Number(rows().map(|(x, y)| x + y * y - 0.5).collect());
    let labels = Targets::Labels { width: 2, values: rows().flat_map(|(x, y)| [x > 0.0, y > 0.0]).collect() };
    let learn = |target: Target, targets: Targets| {
        let mut spec = points_spec();
        spec.task.target = target;
        spec.training.local = LocalWork::Epochs(20);
        let job = job(spec, None);
        let data = Dataset { targets, ..points() };
        let mut trainer = TorchTrainer::open(&job, None, "site", both(data), tch::Device::Cpu).unwrap();
        let mut params = fresh(job.params.numel());
        for number in 1..=4 {
            params = trainer.train(params, Round { number, of: 4 }, &Unwatched).unwrap().params;
        }
        trainer.evaluate(&params, &Unwatched).unwrap().unwrap().report(&Kind::of(&job.spec))
    };
    let column = || "z".to_owned();
    let number = Target::Number(NumberTarget { column: column(), mean: 20.0, std: 10.0 });
    let Report::Regression(report) = learn(number, numbers) else { panic!("a number") };
    // In the number's own unit, of which the model gives tenths.
    assert!(report.rmse < 3.0 && report.r2.unwrap() > 0.85, "{report:?}");
    let names = ["right", "above"].map(str::to_owned).into();
    let any = Target::Labels { column: column(), separator: ";".into(), labels: names };
    let Report::MultiLabel(report) = learn(any, labels) else { panic!("labels") };
    assert!(report.accuracy > 0.95, "{}", report.accuracy);
}

#[test]
fn without_held_out_examples_there_is_nothing_to_evaluate() {
    let job = job(points_spec(), None);
    let mut split = both(points());
    split.validation = Dataset {
        inputs: Inputs::Table { width: 4, values: Vec::new() },
        targets: Targets::Label(Vec::new()),
    };
    let mut trainer = TorchTrainer::open(&job, None, "site", split, tch::Device::Cpu).unwrap();
    assert_eq!(trainer.evaluate(&fresh(job.params.numel()), &Unwatched).unwrap(), None);
}

#[test]
fn progress_is_told_step_by_step() {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::Last(1), Pooling::Mean);
    spec.training.local = LocalWork::Steps(4);
    let job = tiny.job(spec);
    let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
    let watch = Recorder::new(usize::MAX);
    trainer.train(tiny.start(&job), FIRST, &watch).unwrap();
    trainer.evaluate(&tiny.start(&job), &watch).unwrap();
    assert_eq!(watch.of(Phase::Training), [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
    assert_eq!(watch.of(Phase::Evaluating).last(), Some(&(5, 5)));
    assert!(!watch.of(Phase::Preparing).is_empty());
}

#[test]
fn a_task_called_off_stops_at_the_next_step() {
    let tiny = TinyBert::new("");
    let job = tiny.job(text_spec(Trainable::All, Pooling::Mean));
    let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
    let watch = Recorder::new(3);
    let error = trainer.train(tiny.start(&job), FIRST, &watch).unwrap_err();
    assert!(matches!(error, TrainError::Cancelled), "{error}");
    assert_eq!(watch.of(Phase::Training), [(0, 6), (1, 6), (2, 6)]);
    let error = trainer.evaluate(&tiny.start(&job), &Recorder::new(0)).unwrap_err();
    assert!(matches!(error, TrainError::Cancelled), "{error}");
}

#[test]
fn a_loss_that_leaves_the_numbers_is_said() {
    let mut spec = points_spec();
    spec.training.optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false };
    spec.training.learning_rate = 1e30;
    spec.training.max_grad_norm = None;
    let job = job(spec, None);
    let mut trainer = TorchTrainer::open(&job, None, "site", both(points()), tch::Device::Cpu).unwrap();
    let error = trainer.train(fresh(job.params.numel()), FIRST, &Unwatched).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { round: 1, .. }), "{error}");
}

/// The largest difference of two rounds' parameters.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.model.dropout = 0.0;
    // Adam makes as much of a gradient that is all rounding as of any other.
    spec.training.optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false };
    spec.training.learning_rate = 0.1;
    // Batches of unequal size and examples of unequal weight: 5 = 3 + 2.
    spec.training.loss.class_weights = ClassWeights::Given(vec![0.5, 2.0, 1.5]);
    spec.training.batch_size = 6;
    let large = round(&tiny, spec.clone(), "desk", FIRST);
    spec.training.batch_size = 3;
    spec.training.accumulation_steps = 2;
    let accumulated = round(&tiny, spec.clone(), "desk", FIRST);
    assert!(distance(&large.params, &accumulated.params) < 1e-5);
    spec.training.accumulation_steps = 1;
    let small = round(&tiny, spec, "desk", FIRST);
    assert!(distance(&large.params, &small.params) > 1e-3, "the batch size makes a difference");
}

#[test]
fn a_proximal_term_keeps_the_parameters_near_the_global_ones() {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.training.optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false };
    spec.training.weight_decay = 0.0;
    spec.training.local = LocalWork::Steps(40);
    let start = tiny.start(&tiny.job(spec.clone()));
    let away = |mu: f64| {
        let mut spec = spec.clone();
        spec.training.proximal_mu = mu;
        let trained = round(&tiny, spec, "desk", FIRST).params;
        trained.iter().zip(&start).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let [free, near, nearer] = [away(0.0), away(1.0), away(10.0)];
    assert!(nearer < near && near < free, "{free}, {near}, {nearer}");
}

#[test]
fn a_lower_layer_moves_less_when_its_rate_decays() {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.training.optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false };
    spec.training.weight_decay = 0.0;
    spec.training.local = LocalWork::Steps(1);
    let plan = tiny.job(spec.clone()).params;
    let start = tiny.start(&tiny.job(spec.clone()));
    let moved = |decay: f64| {
        let mut spec = spec.clone();
        spec.training.layer_decay = decay;
        let trained = round(&tiny, spec, "desk", FIRST).params;
        let mut at = 0;
        let by_tensor = plan.tensors.iter().map(|tensor| {
            let range = at..at + tensor.numel() as usize;
            at = range.end;
            (tensor.name.clone(), distance(&trained[range.clone()], &start[range]))
        });
        by_tensor.collect::<Vec<_>>()
    };
    for ((name, full), (_, decayed)) in moved(1.0).into_iter().zip(moved(0.5)) {
        let share = decayed / full;
        let expected = match name.as_str() {
            name if name.starts_with("classifier") => 1.0,
            name if name.contains("layer.1.") => 0.5,
            name if name.contains("layer.0.") => 0.25,
            _ => 0.125,
        };
        assert!(full == 0.0 || (share - expected).abs() < 1e-3, "{name}: {share} is not {expected}");
    }
}
