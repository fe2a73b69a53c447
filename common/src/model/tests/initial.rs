//! First values: from the weights where they mean the same, else from the seed.

use super::*;

fn starts(spec: &RunSpec, json: &str, file: &[u8]) -> Result<Vec<Initial>, InitialError> {
    let config = config(json);
    let params = plan(spec, Some(&config)).unwrap();
    initial(spec, Some(&config), Some(&weights(file)), &params)
}

pub(super) fn bert_with_labels(labels: [&str; 3]) -> String {
    let [a, b, c] = labels;
    TINY_BERT.replacen(
        '{',
        &format!("{{\"id2label\": {{\"0\": \"{a}\", \"1\": \"{b}\", \"2\": \"{c}\"}},"),
        1,
    )
}

const FRESH_HEAD: [Initial; 2] =
    [Initial::Fresh(Distribution::Normal { std: 0.02 }), Initial::Fresh(Distribution::Zeros)];

#[test]
fn an_encoder_comes_from_its_weights_and_its_head_from_the_seed() {
    let file = bert_file("", None);
    let values = starts(&text_spec(""), TINY_BERT, &file).unwrap();
    let (encoder, head) = values.split_at(values.len() - 2);
    assert_eq!(head, FRESH_HEAD);
    let word = weights(&file).tensor("embeddings.word_embeddings.weight").unwrap().clone();
    assert_eq!(encoder[0], Initial::FromWeights { offset: word.offset, bytes: word.bytes });
    assert!(encoder.iter().all(|value| matches!(value, Initial::FromWeights { .. })));
}

#[test]
fn a_head_is_kept_only_for_the_same_labels_in_the_same_order() {
    let head = |labels, num_labels| {
        let spec = text_spec("trainable = \"head\"");
        starts(&spec, &bert_with_labels(labels), &bert_file("bert.", Some(num_labels))).unwrap()
    };
    assert!(matches!(head(["earn", "acq", "ship"], 3)[..], [Initial::FromWeights { bytes: 48, .. }, _]));
    assert_eq!(head(["acq", "earn", "ship"], 3), FRESH_HEAD);
    assert_eq!(head(["earn", "acq", "ship"], 2), FRESH_HEAD);
}

#[test]
fn a_fresh_head_must_be_trained() {
    let spec = text_spec("trainable = [\"query\"]");
    let with = |labels| starts(&spec, &bert_with_labels(labels), &bert_file("bert.", Some(3)));
    assert!(with(["earn", "acq", "ship"]).is_ok(), "the imported head stays as it is");
    assert_eq!(
        with(["acq", "earn", "ship"]).unwrap_err().to_string(),
        "`classifier.weight` is new, since the imported model has other labels or none, and must be trained: have \
         model.trainable name it too"
    );
}

#[test]
fn a_missing_pooler_is_a_matter_only_of_runs_that_use_it() {
    let blocks = tensors::encoder(&bert_config(), Pooling::Mean, None);
    let file = safetensors(&blocks.all().map(|t| (t.name.clone(), t.shape.clone())).collect::<Vec<_>>());
    assert!(starts(&text_spec("pooling = \"mean\""), TINY_BERT, &file).is_ok());
    let error = starts(&text_spec("pooling = \"cls\"\ntrainable = \"head\""), TINY_BERT, &file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model.safetensors has no pooler: write pooling = \"mean\", or import a model with `pooler.dense.weight`"
    );
}

#[test]
fn a_fresh_perceptron_starts_as_in_pytorch() {
    let spec = table_spec("architecture = \"mlp\"\nhidden = [4]");
    let params = plan(&spec, None).unwrap();
    let uniform = |inputs: f64| Initial::Fresh(Distribution::Uniform { bound: 1.0 / inputs.sqrt() });
    assert_eq!(
        initial(&spec, None, None, &params).unwrap(),
        [uniform(5.0), uniform(5.0), uniform(4.0), uniform(4.0)]
    );
}

#[test]
fn models_without_layers_start_at_zero() {
    for spec in [
        table_spec("architecture = \"softmax\""),
        spec("architecture = \"constant\"\nparameters = 9", "type = \"none\""),
    ] {
        let params = plan(&spec, None).unwrap();
        let values = initial(&spec, None, None, &params).unwrap();
        assert!(values.iter().all(|value| *value == Initial::Fresh(Distribution::Zeros)));
        assert_eq!(values.len(), params.tensors.len());
    }
}

#[test]
fn a_perceptron_for_other_labels_gets_a_fresh_head() {
    let blocks = tensors::mlp(5, &[5, 3], 2);
    let file = safetensors(&blocks.all().map(|t| (t.name.clone(), t.shape.clone())).collect::<Vec<_>>());
    let spec = table_spec("name = \"tiny\"");
    let from_weights = |values: &[Initial]| {
        values.iter().map(|value| matches!(value, Initial::FromWeights { .. })).collect::<Vec<_>>()
    };
    assert_eq!(from_weights(&starts(&spec, TINY_MLP, &file).unwrap()), [true; 6]);
    let other = TINY_MLP.replace("\"ill\"", "\"sick\"");
    assert_eq!(from_weights(&starts(&spec, &other, &file).unwrap()), [true, true, true, true, false, false]);
}

#[test]
fn a_stream_depends_on_seed_and_name_alone() {
    let normal = Distribution::Normal { std: 1.0 };
    let take = |seed, name| normal.values(seed, name).take(5).map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(take(7, "a"), take(7, "a"));
    assert_ne!(take(7, "a"), take(8, "a"));
    assert_ne!(take(7, "a"), take(7, "b"));
}

#[test]
fn fresh_values_have_their_distribution() {
    let moments = |distribution: Distribution| {
        let values: Vec<f64> = distribution.values(1, "w").take(100_000).map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e5;
        let most = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        (mean, variance.sqrt(), most)
    };
    let (mean, std, most) = moments(Distribution::Normal { std: 0.02 });
    assert!(
        mean.abs() < 2e-4 && (std - 0.02).abs() < 2e-4 && (0.07..0.12).contains(&most),
        "{mean} {std} {most}"
    );
    let (mean, std, most) = moments(Distribution::Uniform { bound: 0.3 });
    assert!(mean.abs() < 2e-3 && (std - 0.3 / 3f64.sqrt()).abs() < 1e-3 && (0.299..=0.3).contains(&most));
    assert_eq!(moments(Distribution::Zeros), (0.0, 0.0, 0.0));
}
