//! Text encoders other than BERT: their descriptions, what travels of them, and what they are exported as.

use std::io::Cursor;

use serde_json::{Value, json};

use super::*;

const TINY_DISTILBERT: &str = r#"{
    "architectures": ["DistilBertForMaskedLM"], "model_type": "distilbert", "vocab_size": 11, "dim": 4, "n_layers": 2,
    "n_heads": 2, "hidden_dim": 6, "max_position_embeddings": 16, "activation": "gelu", "sinusoidal_pos_embds": false
}"#;

const TINY_ROBERTA: &str = r#"{
    "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": 11, "hidden_size": 4,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 18,
    "type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1
}"#;

fn encoder_config(json: &str) -> EncoderConfig {
    let ModelConfig::Encoder(encoder) = config(json) else { panic!("this is no encoder") };
    encoder
}

/// The sentence for `base` with one key changed.
fn sentence(base: &str, key: &str, value: Value) -> String {
    let mut json: serde_json::Map<String, Value> = serde_json::from_str(base).unwrap();
    json.insert(key.into(), value);
    ModelConfig::parse(Value::Object(json).to_string().as_bytes()).unwrap_err().to_string()
}

/// The file of a pretrained encoder without a classifier, with its family's prefix.
fn file_of(json: &str) -> Vec<u8> {
    let encoder = encoder_config(json);
    let prefix = encoder.family.layout().prefix;
    let blocks = tensors::encoder(&encoder, Pooling::Mean, None);
    safetensors(&blocks.all().map(|t| (format!("{prefix}{}", t.name), t.shape.clone())).collect::<Vec<_>>())
}

fn planned(json: &str, model: &str) -> Result<ParamSpec, PlanError> {
    plan(&text_spec(model), Some(&config(json)))
}

#[test]
fn they_are_read_with_hugging_faces_defaults() {
    let distilbert = encoder_config(TINY_DISTILBERT);
    assert_eq!(
        (distilbert.family, distilbert.hidden_size, distilbert.num_hidden_layers),
        (Family::DistilBert, 4, 2)
    );
    assert_eq!((distilbert.num_attention_heads, distilbert.intermediate_size), (2, 6));
    assert_eq!(
        (distilbert.type_vocab_size, distilbert.layer_norm_eps, distilbert.pad_token_id),
        (0, 1e-12, 0)
    );
    assert_eq!((distilbert.first_position(), distilbert.max_length()), (0, 16));
    let roberta = encoder_config(TINY_ROBERTA);
    assert_eq!((roberta.family, roberta.first_position(), roberta.max_length()), (Family::Roberta, 2, 16));
    let xlm = TINY_ROBERTA.replace("\"roberta\"", "\"xlm-roberta\"").replace(", \"pad_token_id\": 1", "");
    let xlm = encoder_config(&xlm);
    assert_eq!((xlm.family, xlm.pad_token_id, xlm.max_length()), (Family::XlmRoberta, 1, 16));
}

#[test]
fn what_is_not_computed_is_refused_in_the_familys_words() {
    assert_eq!(
        sentence(TINY_DISTILBERT, "activation", json!("relu")),
        "config.json: `activation` is \"relu\"; Sheaf computes \"gelu\" only, so import another model"
    );
    assert_eq!(
        sentence(TINY_DISTILBERT, "n_heads", json!(3)),
        "config.json: `dim` 4 is not a multiple of `n_heads` 3"
    );
    assert_eq!(
        sentence(TINY_ROBERTA, "position_embedding_type", json!("relative_key_query")),
        "config.json: `position_embedding_type` is \"relative_key_query\"; Sheaf computes \"absolute\" only, so import \
         another model"
    );
    assert_eq!(
        sentence(TINY_ROBERTA, "is_decoder", json!(true)),
        "config.json: `is_decoder` is true; Sheaf trains such a model as an encoder only"
    );
    assert_eq!(
        sentence(TINY_ROBERTA, "max_position_embeddings", json!(4)),
        "config.json: `max_position_embeddings` 4 is not between 5 and 1048576"
    );
    assert_eq!(
        sentence(TINY_ROBERTA, "pad_token_id", json!(u64::MAX)),
        "config.json: `pad_token_id` 18446744073709551615 is not between 0 and 10"
    );
    let mut spec = text_spec("");
    spec.task.input = crate::run::TaskInput::Text { column: "body".into(), max_length: 17 };
    let error = plan(&spec, Some(&config(TINY_ROBERTA))).unwrap_err();
    assert_eq!(error.to_string(), "17 tokens are more than the model's 16; write at most 16");
}

#[test]
fn the_head_is_that_of_the_family() {
    let head = |json, pooling| {
        let params = planned(json, &format!("trainable = \"head\"\npooling = \"{pooling}\"")).unwrap();
        params.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect::<Vec<_>>()
    };
    let layer = |name: &str, outputs| {
        [(format!("{name}.weight"), vec![outputs, 4]), (format!("{name}.bias"), vec![outputs])]
    };
    assert_eq!(head(TINY_DISTILBERT, "cls"), [layer("pre_classifier", 4), layer("classifier", 3)].concat());
    assert_eq!(head(TINY_DISTILBERT, "mean"), layer("classifier", 3));
    assert_eq!(
        head(TINY_ROBERTA, "cls"),
        [layer("classifier.dense", 4), layer("classifier.out_proj", 3)].concat()
    );
    assert_eq!(head(TINY_ROBERTA, "mean"), layer("classifier.out_proj", 3));

    let spec = text_spec("trainable = \"head\"\npooling = \"cls\"");
    for json in [TINY_DISTILBERT, TINY_ROBERTA] {
        let params = plan(&spec, Some(&config(json))).unwrap();
        let first = initial(&spec, Some(&config(json)), Some(&weights(&file_of(json))), &params).unwrap();
        let layer = [Distribution::Normal { std: 0.02 }, Distribution::Zeros].map(Initial::Fresh);
        assert_eq!(first, [layer, layer].concat());
    }
}

#[test]
fn what_travels_of_the_layers() {
    let last = planned(TINY_DISTILBERT, "trainable = \"last:1\"\npooling = \"cls\"").unwrap();
    assert_eq!(
        names(&last)[..16].iter().step_by(2).copied().collect::<Vec<_>>(),
        [
            "transformer.layer.1.attention.q_lin.weight",
            "transformer.layer.1.attention.k_lin.weight",
            "transformer.layer.1.attention.v_lin.weight",
            "transformer.layer.1.attention.out_lin.weight",
            "transformer.layer.1.sa_layer_norm.weight",
            "transformer.layer.1.ffn.lin1.weight",
            "transformer.layer.1.ffn.lin2.weight",
            "transformer.layer.1.output_layer_norm.weight",
        ]
    );
    assert_eq!(last.tensors.len(), 16 + 4);
    let all = planned(TINY_DISTILBERT, "trainable = \"all\"").unwrap();
    // By hand: embeddings (11 + 16) * 4 + 2 * 4, layers as in a BERT, head 15.
    assert_eq!(all.numel(), 116 + 2 * 154 + 15);
    let all = planned(TINY_ROBERTA, "trainable = \"all\"\npooling = \"cls\"").unwrap();
    // Embeddings (11 + 18 + 1) * 4 + 2 * 4, head 20 + 15; no pooler.
    assert_eq!(all.numel(), 128 + 2 * 154 + 35);
}

#[test]
fn an_exported_encoder_is_one_of_transformers_and_goes_on_with_its_head() {
    let cases = [
        (TINY_DISTILBERT, "distilbert.", "DistilBertForSequenceClassification", "seq_classif_dropout"),
        (TINY_ROBERTA, "roberta.", "RobertaForSequenceClassification", "classifier_dropout"),
    ];
    for (json, prefix, architecture, dropout) in cases {
        let spec = text_spec("pooling = \"cls\"\ndropout = 0.2");
        let (model, base) = (config(json), file_of(json));
        let params = plan(&spec, Some(&model)).unwrap();
        let export = export_plan(&spec, params.clone());
        let bytes = export_config(&export, Some(json.as_bytes())).unwrap();
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&written["architectures"], &written[dropout]), (&json!([architecture]), &json!(0.2)));
        assert_eq!(written["id2label"], json!({"0": "earn", "1": "acq", "2": "ship"}));

        let weights_plan = export_weights(&export, Some(&model), Some(&weights(&base))).unwrap();
        let global = crate::params::to_bytes(&vec![1.5; params.numel() as usize]);
        let mut file = Vec::new();
        weights_plan.write(&mut file, Some(&mut Cursor::new(&base)), &mut Cursor::new(&global)).unwrap();
        let opened = safetensors::SafeTensors::deserialize(&file).unwrap();
        let heads: Vec<&str> = opened.names().into_iter().filter(|name| !name.starts_with(prefix)).collect();
        assert_eq!(heads.len(), 4);
        assert!(
            heads.iter().all(|name| ["classifier.", "pre_classifier."].iter().any(|p| name.starts_with(p)))
        );

        let again = ModelConfig::parse(&bytes).unwrap();
        let values = initial(&spec, Some(&again), Some(&weights(&file)), &params).unwrap();
        assert!(values.iter().all(|value| matches!(value, Initial::FromWeights { .. })));
    }
}

#[test]
fn adapters_are_where_peft_puts_them() {
    let cases = [
        (
            TINY_DISTILBERT,
            [
                "distilbert.transformer.layer.1.attention.q_lin",
                "distilbert.transformer.layer.1.attention.v_lin",
            ],
            json!(["classifier", "pre_classifier"]),
        ),
        (
            TINY_ROBERTA,
            ["roberta.encoder.layer.1.attention.self.query", "roberta.encoder.layer.1.attention.self.value"],
            json!(["classifier"]),
        ),
    ];
    for (json, modules, heads) in cases {
        let spec = text_spec("trainable = \"last:1\"\npooling = \"cls\"\nlora = { rank = 2 }");
        let params = plan(&spec, Some(&config(json))).unwrap();
        assert_eq!(params.tensors.len(), 2 * 2 + 4);
        let (adapter, weights) =
            export_adapter(&export_plan(&spec, params.clone()), Some(&config(json))).unwrap();
        let adapter: Value = serde_json::from_slice(&adapter).unwrap();
        assert_eq!((&adapter["target_modules"], &adapter["modules_to_save"]), (&json!(modules), &heads));
        let header: Value = serde_json::from_slice(&weights.header[8..]).unwrap();
        for module in modules {
            assert!(header.get(format!("base_model.model.{module}.lora_B.weight")).is_some(), "{header}");
        }
        assert!(
            header.as_object().unwrap().keys().any(|name| name.starts_with("base_model.model.classifier."))
        );
        let spec = text_spec("pooling = \"mean\"\nlora = {}");
        let params = plan(&spec, Some(&config(json))).unwrap();
        let error = export_adapter(&export_plan(&spec, params), Some(&config(json))).unwrap_err().to_string();
        assert!(error.starts_with("PEFT opens no adapters without the classifier's `"), "{error}");
    }
}
