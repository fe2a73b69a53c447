//! The gradient against finite differences, the optimizers against PyTorch's formulas written out, and training.

use proptest::prelude::*;
use sheaf_common::blob::BlobId;
use sheaf_common::metrics;
use sheaf_common::run::{AdamSpec, LocalWork, Optimizer as Kind, Per, RunSpec, Schedule, ScheduleKind};

use super::*;
use crate::trainer::Unwatched;

const ONE_ROUND: Round = Round { number: 1, of: 1 };

/// Three classes of points in the plane that a straight line can tell apart.
fn job(training: &str) -> Job {
    let text = format!(
        r#"
        name = "plane"
        rounds = 1
        seed = 5
        secure_aggregation = "off"
        [model]
        architecture = "softmax"
        [task]
        type = "tabular-classification"
        dataset = "plane"
        label = "class"
        labels = ["a", "b", "c"]
        [[task.features]]
        column = "x"
        type = "categorical"
        categories = ["left", "right"]
        [training]
        {training}
        "#
    );
    let spec = RunSpec::parse("run.toml", &text).unwrap();
    let params = Model { inputs: 2, labels: 3 }.param_spec();
    Job {
        spec,
        model: None,
        params,
        global: BlobId::of(b""),
        submitted_at: sheaf_common::time::Timestamp(0),
        author: None,
    }
}

fn plane(examples: usize) -> Dataset {
    let centres = [[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]];
    let wobble = |i: usize| (i as f32 * 0.7).sin() * 0.4;
    let rows = (0..examples).flat_map(|i| centres[i % 3].map(|centre| centre + wobble(i)));
    let labels = (0..examples).map(|i| (i % 3) as u32).collect();
    Dataset { inputs: Inputs::Table { width: 2, values: rows.collect() }, targets: Targets::Label(labels) }
}

fn trainer(training: &str) -> SoftmaxTrainer {
    let split = Split { train: plane(31), validation: plane(12) };
    SoftmaxTrainer::open(&job(training), "site", split).unwrap()
}

fn train(training: &str, round: Round) -> Trained {
    trainer(training).train(vec![0.0; 9], round, &Unwatched).unwrap()
}

proptest! {
    #[test]
    fn the_gradient_is_the_slope_of_the_loss(
        params in prop::collection::vec(-2.0f64..2.0, 9),
        rows in prop::collection::vec((-3.0f32..3.0, -3.0f32..3.0, 0usize..3), 1..6),
    ) {
        const STEP: f64 = 1e-5;
        let model = Model { inputs: 2, labels: 3 };
        let values: Vec<[f32; 2]> = rows.iter().map(|(x, y, _)| [*x, *y]).collect();
        let loss_at = |params: &[f64], gradient: &mut [f64]| {
            let examples = values.iter().zip(&rows).map(|(row, (_, _, label))| (row.as_slice(), *label));
            model.loss_and_gradient(params, examples, gradient)
        };
        let mut gradient = vec![0.0; 9];
        loss_at(&params, &mut gradient);
        for index in 0..9 {
            let moved = |by: f64| {
                let mut params = params.clone();
                params[index] += by;
                loss_at(&params, &mut [0.0; 9])
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            prop_assert!((slope - gradient[index]).abs() < 1e-8, "{index}: {slope} {}", gradient[index]);
        }
    }
}

/// One parameter that decays and one that does not, moved along these gradients.
fn moved(kind: Kind, weight_decay: f64, max_grad_norm: Option<f64>) -> Vec<[f64; 2]> {
    let training = Training {
        optimizer: kind,
        learning_rate: 0.1,
        weight_decay,
        batch_size: 1,
        local: LocalWork::Steps(3),
        schedule: Schedule { kind: ScheduleKind::Constant, per: Per::Step, warmup_steps: 0 },
        max_grad_norm,
        ..Training::default()
    };
    let mut optimizer = Optimizer::new(&training, 1);
    let mut params = [1.0, -1.0];
    GRADIENTS
        .iter()
        .map(|gradient| {
            optimizer.step(&mut params, &mut gradient.clone(), 0.1);
            params
        })
        .collect()
}

const GRADIENTS: [[f64; 2]; 3] = [[0.5, -2.0], [-0.25, 1.0], [1.0, 0.0]];

fn assert_close(found: &[[f64; 2]], expected: &[[f64; 2]]) {
    for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

#[test]
fn sgd_walks_down_the_gradient() {
    let plain = moved(Kind::Sgd { momentum: 0.0, nesterov: false }, 0.0, None);
    assert_close(&plain, &[[0.95, -0.8], [0.975, -0.9], [0.875, -0.9]]);
    let decayed = moved(Kind::Sgd { momentum: 0.0, nesterov: false }, 0.5, None);
    assert_close(&decayed[..1], &[[1.0 - 0.1 * (0.5 + 0.5), -0.8]]);
}

#[test]
fn momentum_accumulates() {
    let (m, lr) = (0.9, 0.1);
    let buffers = [0.5, m * 0.5 - 0.25, m * (m * 0.5 - 0.25) + 1.0];
    let heavy = moved(Kind::Sgd { momentum: m, nesterov: false }, 0.0, None);
    let nesterov = moved(Kind::Sgd { momentum: m, nesterov: true }, 0.0, None);
    let (mut x, mut y) = (1.0, 1.0);
    for (step, buffer) in buffers.into_iter().enumerate() {
        x -= lr * buffer;
        y -= lr * (GRADIENTS[step][0] + m * buffer);
        assert!((heavy[step][0] - x).abs() < 1e-12);
        assert!((nesterov[step][0] - y).abs() < 1e-12);
    }
}

#[test]
fn adam_is_the_papers() {
    let adam = AdamSpec { beta1: 0.8, beta2: 0.9, epsilon: 1e-8 };
    for (kind, coupled, decoupled) in [(Kind::Adam(adam), 0.5, 0.0), (Kind::AdamW(adam), 0.0, 0.5)] {
        let found = moved(kind, 0.5, None);
        let (mut x, mut m, mut v) = (1.0f64, 0.0, 0.0);
        for (step, gradient) in GRADIENTS.iter().enumerate() {
            let slope = gradient[0] + coupled * x;
            let t = step as i32 + 1;
            m = 0.8 * m + (1.0 - 0.8) * slope;
            v = 0.9 * v + (1.0 - 0.9) * slope * slope;
            let (m_hat, v_hat): (f64, f64) = (m / (1.0 - 0.8f64.powi(t)), v / (1.0 - 0.9f64.powi(t)));
            x = x - 0.1 * decoupled * x - 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
            assert!((found[step][0] - x).abs() < 1e-9, "{kind:?} step {step}: {} {x}", found[step][0]);
        }
    }
}

#[test]
fn a_long_gradient_is_cut() {
    let sgd = Kind::Sgd { momentum: 0.0, nesterov: false };
    let norm = (0.25f64 + 4.0).sqrt();
    let cut = moved(sgd, 0.0, Some(1.0));
    assert!((cut[0][0] - (1.0 - 0.1 * 0.5 / (norm + 1e-6))).abs() < 1e-12);
    assert_eq!(moved(sgd, 0.0, Some(10.0)), moved(sgd, 0.0, None));
}

#[test]
fn the_bias_decays_when_the_run_says_so() {
    let bias = |on: &str| {
        let lines = format!("weight_decay = 0.9\nweight_decay_on = \"{on}\"\nlearning_rate = 0.001");
        let mut params = vec![0.0; 9];
        params[6] = 1000.0;
        trainer(&lines).train(params, ONE_ROUND, &Unwatched).unwrap().params[6]
    };
    // Adam moves a parameter by at most about its rate, twice here; the decay takes 0.9 each time.
    assert!((bias("weights") - 1000.0).abs() < 0.01);
    assert!((bias("all") - 998.2).abs() < 0.01);
}

#[test]
fn it_learns_and_the_seed_fixes_every_bit() {
    for optimizer in
        ["optimizer = \"sgd\"\nlearning_rate = 0.5", "optimizer = \"adamw\"\nlearning_rate = 0.1"]
    {
        let training = format!("{optimizer}\nlocal_epochs = 20");
        let trained = train(&training, ONE_ROUND);
        assert_eq!(trained, train(&training, ONE_ROUND));
        assert!(trained.train_loss < 0.3, "{}", trained.train_loss);
        let counts = trainer(&training).evaluate(&trained.params, &Unwatched).unwrap().unwrap();
        assert_eq!(counts.num_examples(), 12);
        let kind = metrics::Kind::Classification { labels: ["a", "b", "c"].map(str::to_owned).to_vec() };
        assert_eq!(counts.report(&kind).classification().unwrap().accuracy, 1.0);
    }
}

#[test]
fn a_round_is_trained_in_its_own_order() {
    let training = "optimizer = \"sgd\"\nbatch_size = 4";
    let round = |number| train(training, Round { number, of: 2 }).params;
    assert_ne!(round(1), round(2));
}

#[test]
fn what_leaves_the_finite_numbers_is_said() {
    let mut trainer = trainer("optimizer = \"sgd\"\nlearning_rate = 1e300");
    let error = trainer.train(vec![0.0; 9], ONE_ROUND, &Unwatched).unwrap_err().to_string();
    assert!(error.contains("lower training.learning_rate"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let split = || Split { train: plane(3), validation: plane(3) };
    let mut other = job("");
    other.params.tensors.pop();
    assert!(SoftmaxTrainer::open(&other, "site", split()).is_err());

    let mut text = split();
    text.train.inputs = Inputs::Text(vec!["a".to_owned(); 3]);
    assert!(SoftmaxTrainer::open(&job(""), "site", text).is_err());

    let mut label = split();
    label.train.targets = Targets::Label(vec![3; label.train.len()]);
    assert!(SoftmaxTrainer::open(&job(""), "site", label).is_err());

    let mut trainer = SoftmaxTrainer::open(&job(""), "site", split()).unwrap();
    assert!(trainer.train(vec![0.0; 8], ONE_ROUND, &Unwatched).is_err());
    assert!(trainer.evaluate(&[0.0; 8], &Unwatched).is_err());
}

#[test]
fn without_a_validation_split_there_are_no_metrics() {
    let split = Split { validation: plane(0), train: plane(3) };
    let mut trainer = SoftmaxTrainer::open(&job(""), "site", split).unwrap();
    assert_eq!(trainer.evaluate(&[0.0; 9], &Unwatched).unwrap(), None);
}

#[test]
fn it_stops_when_it_is_called_off() {
    struct CalledOff;
    impl Watch for CalledOff {
        fn progress(&self, _progress: Progress) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let error = trainer("").train(vec![0.0; 9], ONE_ROUND, &CalledOff).unwrap_err();
    assert!(matches!(error, TrainError::Cancelled));
}
