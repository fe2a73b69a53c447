//! Mixup against its definition: one step of a linear model on mixed inputs and mixed targets, in nested loops.

use sheaf_common::run::*;
use sheaf_common::seed;

use super::fixture::{both, job, text_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::batches::Batches;
use crate::trainer::torch::TorchTrainer;
use crate::trainer::torch::augment::Augment;
use crate::trainer::{Round, Trainer, Unwatched};

const ROWS: usize = 6;
const WIDTH: usize = 4;
const RATE: f64 = 0.5;

fn row(example: usize) -> [f64; WIDTH] {
    std::array::from_fn(|at| ((example * 7 + at * 3) % 11) as f64 / 4.0 - 1.0)
}

fn spec(target: Target) -> RunSpec {
    let feature = |name: &str| Feature {
        column: name.into(),
        kind: FeatureKind::Numeric { mean: 0.0, std: 1.0 },
        missing: Vec::new(),
    };
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.model.source = ModelSource::Fresh(Architecture::Mlp(Vec::new()));
    spec.model.dropout = 0.0;
    spec.task.input = TaskInput::Table { features: vec![feature("a"), feature("b")] };
    spec.task.target = target;
    spec.training = Training {
        optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
        learning_rate: RATE,
        weight_decay: 0.0,
        batch_size: ROWS as u32,
        local: LocalWork::Steps(1),
        max_grad_norm: None,
        augmentation: Some(Augmentation { mixup: 1.0, ..Augmentation::default() }),
        ..Training::default()
    };
    spec
}

/// What a model with these logits foretells minus what it should, over the examples and outputs of a mean.
fn slope(targets: &Targets, logits: &[f64], target: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let each = logits.iter().zip(target).map(|(logit, target)| match targets {
        Targets::Label(_) => logit.exp() / total - target,
        Targets::Labels { width, .. } => (1.0 / (1.0 + (-logit).exp()) - target) / *width as f64,
        Targets::Number(_) | Targets::Answer(_) | Targets::Inputs(_) | Targets::Tokens(_) => {
            2.0 * (logit - target)
        }
    });
    each.collect()
}

fn check(target: Target, targets: Targets, plain: &[&[f64]]) {
    let spec = spec(target);
    let job = job(spec.clone(), None);
    let values = (0..ROWS).flat_map(row).map(|value| value as f32).collect();
    let data = Dataset { inputs: Inputs::Table { width: WIDTH, values }, targets: targets.clone() };
    let mut trainer = TorchTrainer::open(&job, None, "site", both(data), tch::Device::Cpu).unwrap();
    let outputs = plain[0].len();
    let names: Vec<&str> = job.params.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let bias_first = names[0].ends_with("bias");
    let params: Vec<f32> = (0..outputs * (WIDTH + 1)).map(|at| (at % 5) as f32 / 5.0 - 0.3).collect();
    let trained = trainer.train(params.clone(), Round { number: 1, of: 1 }, &Unwatched).unwrap();

    let order = Batches::new(&spec.training, ROWS)
        .of_round(spec.seed, "site", 1, Sampling::Shuffle, &targets.classes())
        .next()
        .unwrap();
    let augment = Augment::new(&spec, None, tch::Device::Cpu).unwrap().unwrap();
    let mix = augment.mix(ROWS, seed::integer(spec.seed, &["dropout", "site", "1", "0"])).unwrap();
    assert!(mix.share > 0.01 && mix.share < 0.99, "{mix:?}");
    let between = |own: f64, other: f64| mix.share * own + (1.0 - mix.share) * other;
    // Where a bias and a weight lie among the parameters.
    let bias = |output: usize| if bias_first { output } else { outputs * WIDTH + output };
    let weight = |output: usize, at: usize| if bias_first { outputs } else { 0 } + output * WIDTH + at;
    let mut expected: Vec<f64> = params.iter().map(|value| f64::from(*value)).collect();
    for (place, example) in order.iter().enumerate() {
        let partner = order[mix.partners[place]];
        let x: [f64; WIDTH] = std::array::from_fn(|at| between(row(*example)[at], row(partner)[at]));
        let y: Vec<f64> = plain[*example].iter().zip(plain[partner]).map(|(a, b)| between(*a, *b)).collect();
        let logits: Vec<f64> = (0..outputs)
            .map(|output| {
                let products = (0..WIDTH).map(|at| x[at] * f64::from(params[weight(output, at)]));
                f64::from(params[bias(output)]) + products.sum::<f64>()
            })
            .collect();
        for (output, slope) in slope(&targets, &logits, &y).into_iter().enumerate() {
            let step = RATE * slope / ROWS as f64;
            expected[bias(output)] -= step;
            (0..WIDTH).for_each(|at| expected[weight(output, at)] -= step * x[at]);
        }
    }
    for (found, expected) in trained.params.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert_ne!(trained.params, params);
}

#[test]
fn one_label_any_number_of_labels_and_a_number_are_mixed() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let label = Target::Label { column: "l".into(), labels: words(&["a", "b", "c"]) };
    let one_hot: [&[f64]; 3] = [&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]];
    let classes = [0, 2, 1, 1, 0, 2];
    check(label, Targets::Label(classes.to_vec()), &classes.map(|class| one_hot[class as usize]));

    let labels = Target::Labels { column: "l".into(), separator: ";".into(), labels: words(&["a", "b"]) };
    let rows: [&[f64]; ROWS] = [&[1.0, 1.0], &[0.0, 1.0], &[0.0, 0.0], &[1.0, 0.0], &[1.0, 1.0], &[0.0, 0.0]];
    let values = rows.concat().iter().map(|value| *value > 0.5).collect();
    check(labels, Targets::Labels { width: 2, values }, &rows);

    let number = Target::Number(NumberTarget { column: "l".into(), mean: 0.0, std: 1.0 });
    let rows: [&[f64]; ROWS] = [&[0.5], &[-1.0], &[2.0], &[0.25], &[1.5], &[-0.5]];
    let values = rows.concat().iter().map(|value| *value as f32).collect();
    check(number, Targets::Number(values), &rows);
}
