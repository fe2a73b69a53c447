//! `config.json`: what is trained, and the sentence for what is not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::features::FeatureJson;
use crate::run::{Feature, FeatureKind};

/// The sentence for `base` with one key changed, or removed by null.
fn sentence(base: &str, key: &str, value: Value) -> String {
    let mut json: serde_json::Map<String, Value> = serde_json::from_str(base).unwrap();
    if value.is_null() {
        json.remove(key);
    } else {
        json.insert(key.into(), value);
    }
    ModelConfig::parse(Value::Object(json).to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_bert_is_read() {
    let bert = bert_config();
    assert_eq!((bert.vocab_size, bert.hidden_size, bert.num_hidden_layers), (11, 4, 2));
    assert_eq!((bert.num_attention_heads, bert.intermediate_size, bert.max_position_embeddings), (2, 6, 16));
    assert_eq!((bert.type_vocab_size, bert.layer_norm_eps, bert.pad_token_id), (2, 1e-12, 0));
    assert_eq!(config(TINY_BERT).model_type(), "bert");
}

#[test]
fn labels_are_read_in_the_order_of_their_numbers() {
    let with = |labels: Value| {
        let mut json: serde_json::Map<String, Value> = serde_json::from_str(TINY_BERT).unwrap();
        json.insert("id2label".into(), labels);
        config(&Value::Object(json).to_string()).labels().to_vec()
    };
    let many: serde_json::Map<_, _> = (0..12).map(|id| (id.to_string(), json!(format!("l{id}")))).collect();
    assert_eq!(with(Value::Object(many)), (0..12).map(|id| format!("l{id}")).collect::<Vec<_>>());
    assert_eq!(with(json!({"1": "b"})), Vec::<String>::new());
}

#[test]
fn an_mlp_is_read() {
    let ModelConfig::Mlp(mlp) = config(TINY_MLP) else { panic!("TINY_MLP is an MLP") };
    assert_eq!((mlp.num_inputs(), mlp.hidden, mlp.labels.len()), (5, vec![5, 3], 2));
    assert_eq!(mlp.features[0].kind, FeatureKind::Numeric { mean: 54.5, std: 9.0 });
    assert_eq!(mlp.features[0].missing, ["?"]);
}

#[test]
fn each_wrong_bert_has_its_sentence() {
    let cases = [
        ("vocab_size", json!(0), "config.json: `vocab_size` 0 is not between 1 and 16777216"),
        ("num_hidden_layers", json!(1000), "config.json: `num_hidden_layers` 1000 is not between 1 and 256"),
        (
            "num_attention_heads",
            json!(3),
            "config.json: `hidden_size` 4 is not a multiple of `num_attention_heads` 3",
        ),
        ("layer_norm_eps", json!(0.0), "config.json: `layer_norm_eps` 0 is not between 0 and 1"),
        (
            "hidden_act",
            json!("gelu_new"),
            "config.json: `hidden_act` is \"gelu_new\"; Sheaf computes \"gelu\" only, so import another model",
        ),
        (
            "position_embedding_type",
            json!("relative_key"),
            "config.json: `position_embedding_type` is \"relative_key\"; Sheaf computes \"absolute\" only, so import \
             another model",
        ),
        (
            "is_decoder",
            json!(true),
            "config.json: `is_decoder` is true; Sheaf trains such a model as an encoder only",
        ),
        ("pad_token_id", json!(11), "config.json: `pad_token_id` 11 is not between 0 and 10"),
        (
            "model_type",
            json!("t5"),
            "config.json: `model_type` is `t5`; Sheaf trains \"bert\", \"distilbert\", \"roberta\", \"xlm-roberta\", \"gpt2\", \
             \"llama\", \"vit\", its own \"mlp\", and image classifiers and TorchScript modules imported with --kind",
        ),
        (
            "model_type",
            Value::Null,
            "config.json: has no `model_type`; take the config.json of a model of Hugging Face's or of one that Sheaf \
             exported",
        ),
    ];
    for (key, value, expected) in cases {
        assert_eq!(sentence(TINY_BERT, key, value), expected);
    }
    assert!(
        sentence(TINY_BERT, "hidden_size", Value::Null)
            .starts_with("config.json: missing field `hidden_size`")
    );
    assert!(sentence(TINY_BERT, "hidden_size", json!(-4)).contains("invalid value: integer `-4`"));
}

#[test]
fn each_wrong_mlp_has_its_sentence() {
    let cases = [
        ("inputs", json!(6), "config.json: `inputs` is 6, but `features` make 5"),
        ("hidden", json!([0]), "config.json: `hidden` 0 is not between 1 and 65536"),
        ("labels", json!([]), "config.json: `labels` 0 is not between 1 and 64"),
        (
            "features",
            json!([]),
            "config.json: `features` is empty; list the columns that the model was trained on",
        ),
        (
            "features",
            json!([{"column": "age", "type": "numeric", "mean": 1.0, "std": 0.0}]),
            "config.json: the numeric column `age` needs a finite `mean` and a `std` above 0, and no more",
        ),
        (
            "features",
            json!([{"column": "sex", "type": "categorical", "mean": 1.0}]),
            "config.json: the categorical column `sex` needs `categories` or `buckets`, and no more",
        ),
    ];
    for (key, value, expected) in cases {
        assert_eq!(sentence(TINY_MLP, key, value), expected);
    }
}

#[test]
fn every_kind_of_column_is_written_and_read_again() {
    let categories = vec!["f".to_owned(), "m".to_owned()];
    for kind in [
        FeatureKind::Numeric { mean: 0.5, std: 2.0 },
        FeatureKind::Categorical { categories: categories.clone(), other: false },
        FeatureKind::Categorical { categories, other: true },
        FeatureKind::Hashed { buckets: 8 },
    ] {
        let feature = Feature { column: "x".into(), kind, missing: vec!["?".into()] };
        let json = serde_json::to_string(&FeatureJson::from(&feature)).unwrap();
        let read: FeatureJson = serde_json::from_str(&json).unwrap();
        assert_eq!(Feature::try_from(read).unwrap(), feature, "{json}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = ModelConfig::parse(&bytes);
    }

    #[test]
    fn no_numbers_panic(
        kind in prop_oneof![Just("bert"), Just("roberta"), Just("mlp")],
        numbers in prop::collection::vec(prop_oneof![Just(0u64), Just(1), Just(u64::MAX), any::<u64>()], 8),
        eps in any::<f64>(),
    ) {
        let json = json!({
            "model_type": kind, "vocab_size": numbers[0], "hidden_size": numbers[1], "num_hidden_layers": numbers[2],
            "num_attention_heads": numbers[3], "intermediate_size": numbers[4], "max_position_embeddings": numbers[5],
            "layer_norm_eps": eps, "hidden": [numbers[6]], "inputs": numbers[7], "labels": ["a", "b"],
            "features": [{"column": "x", "type": "numeric", "mean": eps, "std": eps}],
        });
        let _ = ModelConfig::parse(json.to_string().as_bytes());
    }
}
