//! Each optimizer against PyTorch's formulas, value by value in f64.

use std::collections::BTreeMap;

use rand::RngExt;
use sheaf_common::params::{ParamSpec, ParamTensor};
use sheaf_common::run::{AdagradSpec, AdamSpec, Optimizer as Kind, RmsPropSpec, Training};
use sheaf_common::seed;
use tch::Tensor;

use super::fixture::{ADAM, table_spec};
use crate::trainer::torch::optimizer::Optimizer;
use crate::trainer::torch::values;

const STEPS: usize = 6;
/// A matrix, a bias, a matrix: only the bias does not decay.
const DECAYS: [bool; 12] = [true, true, true, true, true, true, false, false, false, true, true, true];

fn spec() -> ParamSpec {
    let tensor = |name: &str, shape: &[u64]| ParamTensor { name: name.into(), shape: shape.into() };
    ParamSpec { tensors: vec![tensor("a", &[2, 3]), tensor("b", &[3]), tensor("c", &[1, 3])] }
}

fn training(optimizer: Kind, weight_decay: f64, max_grad_norm: Option<f64>) -> Training {
    Training { optimizer, weight_decay, max_grad_norm, ..table_spec(Vec::new(), Vec::new()).training }
}

fn random(label: &str, step: usize) -> Vec<f32> {
    let mut random = seed::stream(1, &[label, &step.to_string()]);
    (0..DECAYS.len()).map(|_| random.random_range(-2.0..2.0)).collect()
}

fn rate(step: usize) -> f64 {
    0.05 / (step + 1) as f64
}

/// The parameters after some steps with the optimizer under test.
fn found(training: &Training) -> Vec<f32> {
    let mut params = Tensor::from_slice(&random("params", 0));
    let mut optimizer = Optimizer::new(training, &spec(), &[0; 3]);
    for step in 0..STEPS {
        optimizer.step(&mut params, Tensor::from_slice(&random("gradient", step)), rate(step)).unwrap();
    }
    values(&params).unwrap()
}

/// The same by the formulas: `update(index, step from 1, parameter, gradient, rate)` gives the new parameter.
fn expected(mut update: impl FnMut(usize, i32, f64, f64, f64) -> f64) -> Vec<f64> {
    let mut params: Vec<f64> = random("params", 0).into_iter().map(f64::from).collect();
    for step in 0..STEPS {
        for (index, gradient) in random("gradient", step).into_iter().enumerate() {
            params[index] = update(index, step as i32 + 1, params[index], f64::from(gradient), rate(step));
        }
    }
    params
}

fn assert_same(found: &[f32], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 2e-6, "{found} is not {expected}");
    }
    assert_eq!(found.len(), expected.len());
}

/// `torch.optim.SGD`, dampening 0.
#[test]
fn sgd() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        for decay in [0.0, 0.1] {
            let mut buffers = [0.0; DECAYS.len()];
            let expected = expected(|index, step, param, gradient, rate| {
                let gradient = if DECAYS[index] { gradient + decay * param } else { gradient };
                let buffer = &mut buffers[index];
                *buffer = if step == 1 { gradient } else { momentum * *buffer + gradient };
                let direction = match (momentum, nesterov) {
                    (0.0, _) => gradient,
                    (_, true) => gradient + momentum * *buffer,
                    (_, false) => *buffer,
                };
                param - rate * direction
            });
            assert_same(&found(&training(Kind::Sgd { momentum, nesterov }, decay, None)), &expected);
        }
    }
}

fn adam_step(
    moments: &mut (f64, f64),
    adam: AdamSpec,
    step: i32,
    param: f64,
    gradient: f64,
    rate: f64,
) -> f64 {
    moments.0 = adam.beta1 * moments.0 + (1.0 - adam.beta1) * gradient;
    moments.1 = adam.beta2 * moments.1 + (1.0 - adam.beta2) * gradient * gradient;
    let first = moments.0 / (1.0 - adam.beta1.powi(step));
    let second = moments.1 / (1.0 - adam.beta2.powi(step));
    param - rate * first / (second.sqrt() + adam.epsilon)
}

/// `torch.optim.Adam`: the decay is part of the gradient.
#[test]
fn adam() {
    for adam in [ADAM, AdamSpec { beta1: 0.5, beta2: 0.9, epsilon: 0.1 }] {
        let mut moments = [(0.0, 0.0); DECAYS.len()];
        let expected = expected(|index, step, param, gradient, rate| {
            let gradient = if DECAYS[index] { gradient + 0.1 * param } else { gradient };
            adam_step(&mut moments[index], adam, step, param, gradient, rate)
        });
        assert_same(&found(&training(Kind::Adam(adam), 0.1, None)), &expected);
    }
}

/// `torch.optim.AdamW`: the decay is apart from the gradient.
#[test]
fn adamw() {
    let mut moments = [(0.0, 0.0); DECAYS.len()];
    let expected = expected(|index, step, param, gradient, rate| {
        let param = if DECAYS[index] { param * (1.0 - rate * 0.1) } else { param };
        adam_step(&mut moments[index], ADAM, step, param, gradient, rate)
    });
    assert_same(&found(&training(Kind::AdamW(ADAM), 0.1, None)), &expected);
}

/// `torch.nn.utils.clip_grad_norm_`: a long gradient is cut to the limit, a short one left alone.
#[test]
fn clipping() {
    let plain = Kind::Sgd { momentum: 0.0, nesterov: false };
    for limit in [0.5, 2.0, 100.0] {
        let expected = {
            let norm = |step: usize| {
                random("gradient", step).iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
            };
            expected(|_, step, param, gradient, rate| {
                let factor = (limit / (norm(step as usize - 1) + 1e-6)).min(1.0);
                param - rate * factor * gradient
            })
        };
        assert_same(&found(&training(plain, 0.0, Some(limit))), &expected);
    }
}

/// Fifty steps against PyTorch's own, as `scripts/reference/training.py` wrote them down.
#[test]
fn trajectories_are_those_of_pytorch() {
    let reference: BTreeMap<String, Vec<f64>> =
        serde_json::from_str(include_str!("optimizers.json")).unwrap();
    let adam = AdamSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let rms = RmsPropSpec { alpha: 0.9, epsilon: 1e-8, momentum: 0.0, centered: false };
    let adagrad = AdagradSpec { lr_decay: 0.0, initial_accumulator_value: 0.0, epsilon: 1e-10 };
    let kinds = [
        ("sgd", Kind::Sgd { momentum: 0.0, nesterov: false }, 0.1),
        ("sgd momentum", Kind::Sgd { momentum: 0.9, nesterov: false }, 0.0),
        ("sgd nesterov", Kind::Sgd { momentum: 0.9, nesterov: true }, 0.1),
        ("adam", Kind::Adam(AdamSpec { beta1: 0.8, beta2: 0.99, epsilon: 1e-6 }), 0.1),
        ("adamw", Kind::AdamW(adam), 0.1),
        ("rmsprop", Kind::RmsProp(rms), 0.1),
        ("rmsprop momentum", Kind::RmsProp(RmsPropSpec { momentum: 0.5, ..rms }), 0.0),
        ("rmsprop centered", Kind::RmsProp(RmsPropSpec { momentum: 0.5, centered: true, ..rms }), 0.0),
        ("adagrad", Kind::Adagrad(adagrad), 0.1),
        (
            "adagrad decay",
            Kind::Adagrad(AdagradSpec { lr_decay: 0.1, initial_accumulator_value: 0.5, ..adagrad }),
            0.0,
        ),
    ];
    assert_eq!(kinds.len(), reference.len());
    let matrix = ParamSpec { tensors: vec![ParamTensor { name: "w".into(), shape: vec![3, 4] }] };
    for (name, kind, decay) in kinds {
        let start: Vec<f32> = (0..12).map(|at| f64::from(at).cos() as f32).collect();
        let mut params = Tensor::from_slice(&start);
        let mut optimizer = Optimizer::new(&training(kind, decay, None), &matrix, &[0]);
        for step in 0..50 {
            let gradient: Vec<f32> = (0..12)
                .map(|at| ((1.3 * f64::from(step) + 0.7 * f64::from(at)).sin() + 0.1 * f64::from(at)) as f32)
                .collect();
            let rate = 0.05 / (1.0 + f64::from(step) / 10.0);
            optimizer.step(&mut params, Tensor::from_slice(&gradient), rate).unwrap();
        }
        for (found, expected) in values(&params).unwrap().iter().zip(&reference[name]) {
            assert!((f64::from(*found) - expected).abs() < 2e-5, "{name}: {found} is not {expected}");
        }
    }
}
