//! The encoder against nested loops: logits whatever is frozen, and gradients.

use sheaf_common::run::{Lora, LoraBias, Pooling, RunSpec, Trainable};
use tch::{Reduction, Tensor};

use super::fixture::{TinyBert, both, news, text_spec};
use super::reference;
use crate::trainer::Unwatched;
use crate::trainer::torch::network::Mode;
use crate::trainer::torch::{TorchTrainer, values};

/// The token ids of [`news`]: `[CLS]`, words cut to the run's eight tokens, `[SEP]`.
fn ids() -> Vec<Vec<usize>> {
    vec![
        vec![2, 4, 5, 3],
        vec![2, 6, 7, 4, 7, 6, 5, 3],
        vec![2, 9, 3],
        vec![2, 8, 1, 9, 7, 11, 3],
        vec![2, 10, 4, 3],
    ]
}

fn logits(trainer: &mut TorchTrainer, params: &[f32]) -> Tensor {
    trainer.parameters.set(params).unwrap();
    trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
    trainer.network.logits(&trainer.train, &[0, 1, 2, 3, 4], Mode::Inference).unwrap()
}

fn all_specs() -> impl Iterator<Item = RunSpec> {
    let patterns = vec![r"layer\.0\..*query".to_owned(), "classifier".to_owned()];
    let trainables = [
        Trainable::Head,
        Trainable::Last(0),
        Trainable::Last(1),
        Trainable::Last(2),
        Trainable::All,
        Trainable::Matching(patterns),
    ];
    let poolings = [Pooling::Mean, Pooling::Cls];
    trainables.into_iter().flat_map(move |part| poolings.map(|pooling| text_spec(part.clone(), pooling)))
}

#[test]
fn logits_are_those_of_nested_loops_whatever_is_frozen() {
    for (spec, prefix) in all_specs().zip(["", "bert."].into_iter().cycle()) {
        let tiny = TinyBert::new(prefix);
        let job = tiny.job(spec);
        let params = tiny.start(&job);
        let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
        let found = values(&logits(&mut trainer, &params)).unwrap();
        let tensors = tiny.with(&job, &params);
        let expected: Vec<f64> =
            ids().iter().flat_map(|ids| reference::logits(&tensors, ids, job.spec.model.pooling)).collect();
        let model = &job.spec.model;
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-5, "{model:?}: {found} is not {expected}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// What is cached is a vector per text for a head, and a vector per token above that.
#[test]
fn the_frozen_part_is_kept_without_padding() {
    let tiny = TinyBert::new("");
    for (trainable, rows, width) in
        [(Trainable::Head, vec![1; 5], 32), (Trainable::Last(1), vec![4, 8, 3, 7, 4], 32)]
    {
        let job = tiny.job(text_spec(trainable, Pooling::Mean));
        let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
        trainer.parameters.set(&tiny.start(&job)).unwrap();
        trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
        let features = &trainer.train.features;
        assert_eq!((0..5).map(|example| features.length(example)).collect::<Vec<_>>(), rows);
        let batch = features.batch(&[0], tch::Device::Cpu).unwrap();
        assert_eq!(batch.values.size(), [1, rows[0] as i64, width]);
    }
}

/// Every parameter's gradient stands where its value stands: central differences in f64 find the same.
#[test]
fn gradients_are_those_of_central_differences() {
    let tiny = TinyBert::new("");
    for pooling in [Pooling::Mean, Pooling::Cls] {
        let job = tiny.job(text_spec(Trainable::All, pooling));
        let params = tiny.start(&job);
        let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
        let labels = Tensor::from_slice(&[0_i64, 1, 2, 2, 0]);
        let loss = logits(&mut trainer, &params).cross_entropy_loss::<Tensor>(
            &labels,
            None,
            Reduction::Mean,
            -100,
            0.0,
        );
        let gradient = values(&trainer.parameters.gradient(&loss).unwrap()).unwrap();

        let mut start = 0;
        for tensor in &job.params.tensors {
            let numel = tensor.numel() as usize;
            // The one with the steepest gradient, and one picked blindly.
            let part = &gradient[start..start + numel];
            let steepest = (0..numel).max_by(|a, b| part[*a].abs().total_cmp(&part[*b].abs())).unwrap();
            for at in [start + steepest, start + numel / 3] {
                let change = 2e-3_f32;
                let shifted = |by: f32| {
                    let mut params = params.clone();
                    params[at] += by;
                    let applied = f64::from(params[at]);
                    (
                        applied,
                        reference::loss(
                            &tiny.with(&job, &params),
                            &ids(),
                            &news().targets.classes(),
                            pooling,
                        ),
                    )
                };
                let ((above, loss_above), (below, loss_below)) = (shifted(change), shifted(-change));
                let expected = (loss_above - loss_below) / (above - below);
                let found = f64::from(gradient[at]);
                let name = &tensor.name;
                assert!(
                    (found - expected).abs() < 1e-5 + 1e-3 * expected.abs(),
                    "{name}: {found} is not {expected}"
                );
            }
            start += numel;
        }
    }
}

/// A run whose adapters are in the last `layers` layers.
fn adapted(layers: u32, pooling: Pooling) -> RunSpec {
    let mut spec = text_spec(Trainable::Last(layers), pooling);
    let targets = ["query", "value", "dense"].map(str::to_owned).into();
    spec.model.lora = Some(Lora { rank: 3, alpha: 6.0, targets, dropout: 0.0, bias: LoraBias::None });
    spec
}

#[test]
fn an_adapted_model_is_the_one_with_the_adapters_merged() {
    for (layers, pooling) in [(1, Pooling::Mean), (2, Pooling::Cls)] {
        let tiny = TinyBert::new("");
        let job = tiny.job(adapted(layers, pooling));
        let params = tiny.start(&job);
        let mut trainer = tiny.open(&job, "desk", both(news())).unwrap();
        let found = values(&logits(&mut trainer, &params)).unwrap();
        let mut tensors = tiny.with(&job, &params);
        let lora = job.spec.model.lora.clone().unwrap();
        let adapted: Vec<String> =
            tensors.keys().filter_map(|name| Some(name.strip_suffix(".lora_A.weight")?.to_owned())).collect();
        assert_eq!(adapted.len(), 5 * layers as usize);
        for layer in adapted {
            let [a, b] = ["A", "B"].map(|factor| {
                let (_, values) = tensors.remove(&format!("{layer}.lora_{factor}.weight")).unwrap();
                values
            });
            let (_, weight) = tensors.get_mut(&format!("{layer}.weight")).unwrap();
            lora.merge(weight, 0, &a, &b);
        }
        let expected = ids();
        let expected = expected.iter().flat_map(|ids| reference::logits(&tensors, ids, pooling));
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 5e-5, "{found} is not {expected}");
        }
    }
}
