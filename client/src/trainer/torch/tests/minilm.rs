//! The real MiniLM against an implementation in numpy (`tests/data/minilm_reference.py`).

use std::env;
use std::path::PathBuf;

use serde::Deserialize;
use sheaf_common::model::ModelConfig;
use sheaf_common::run::{Pooling, TaskInput, Trainable};
use tch::Device;

use super::fixture::{both, job, text_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::Unwatched;
use crate::trainer::torch::{TorchTrainer, values};

#[derive(Deserialize)]
struct Reference {
    max_length: u32,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    tokens: Vec<i64>,
    mean: Vec<f32>,
    cls: Vec<f32>,
}

/// A folder of the cache that all checkouts share.
pub(super) fn cached(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache"))).unwrap_or_default();
    let folder = cache.join("sheaf/data").join(name);
    assert!(folder.is_dir(), "{} is not there: run `make test`, which fetches it", folder.display());
    folder
}

#[test]
fn embeddings_of_the_real_model_are_those_of_numpy() {
    let reference: Reference =
        serde_json::from_str(include_str!("../../../../tests/data/minilm_reference.json")).unwrap();
    let folder = cached("minilm");
    let config = ModelConfig::parse(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let texts: Vec<String> = reference.texts.iter().map(|text| text.text.clone()).collect();
    let data = Dataset { targets: Targets::Label(vec![0; texts.len()]), inputs: Inputs::Text(texts) };
    for pooling in [Pooling::Mean, Pooling::Cls] {
        let mut spec = text_spec(Trainable::Head, pooling);
        spec.task.input = TaskInput::Text { column: "text".into(), max_length: reference.max_length };
        let job = job(spec, Some(&config));
        let mut trainer =
            TorchTrainer::open(&job, Some(&folder), "site", both(data.clone()), Device::Cpu).unwrap();
        for (example, text) in reference.texts.iter().enumerate() {
            let batch = trainer.train.features.batch(&[example], Device::Cpu).unwrap();
            assert_eq!(Vec::<i64>::try_from(batch.values.flatten(0, -1)).unwrap(), text.tokens);
        }
        trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
        for (example, text) in reference.texts.iter().enumerate() {
            let found =
                values(&trainer.train.features.batch(&[example], Device::Cpu).unwrap().values).unwrap();
            let expected = if pooling == Pooling::Mean { &text.mean } else { &text.cls };
            let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(found.len(), expected.len());
            assert!(furthest < 1e-5, "{pooling:?} of {:?} is off by {furthest}", text.text);
        }
    }
}
