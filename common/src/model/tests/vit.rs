//! Vision transformers in Hugging Face's layout: their two descriptions, their names, and adapters of images' models.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::image::{TINY, VIT, image_spec, tensors};
use super::*;
use crate::model::config::with_pixels;

const CONFIG: &str = r#"{"_name_or_path": "somewhere/vit", "model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 6,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 32, "patch_size": 8,
    "num_channels": 3, "qkv_bias": true, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}"#;
const PROCESSOR: &str = r#"{"do_normalize": true, "do_rescale": true, "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2], "size": {"height": 32, "width": 32}}"#;

fn described() -> String {
    String::from_utf8(with_pixels(CONFIG.as_bytes(), PROCESSOR.as_bytes()).unwrap()).unwrap()
}

/// A model's weights without a head, under the names that `transformers` gives them in files.
fn file() -> Vec<u8> {
    let stored = tensors(&config(&described()), None);
    safetensors(&stored.all().map(|t| (format!("vit.{}", t.name), t.shape.clone())).collect::<Vec<_>>())
}

#[test]
fn the_description_is_that_of_the_model_and_of_its_image_processor() {
    let ModelConfig::Image(image) = config(&described()) else { panic!("an image classifier") };
    assert_eq!((image.image_size, image.mean, image.std), (32, [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]));
    assert_eq!(image.labels, ["cat", "dog"]);
    assert_eq!(image.architecture.model_type(), "vit");
    assert!(image.architecture.has_fixed_size());
    config(&described()).check_weights(&weights(&file())).unwrap();
    // As older versions write it, and a model that reads pixels as they are.
    for (processor, mean) in [
        (r#"{"size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}"#, 0.5),
        (r#"{"size": {"shortest_edge": 32}, "do_normalize": false}"#, 0.0),
    ] {
        let json = with_pixels(CONFIG.as_bytes(), processor.as_bytes()).unwrap();
        let ModelConfig::Image(image) = ModelConfig::parse(&json).unwrap() else { panic!("a classifier") };
        assert_eq!((image.mean, image.std), ([mean; 3], [1.0; 3]));
    }
}

#[test]
fn a_description_that_does_not_hold_has_a_sentence() {
    let without = ModelConfig::parse(CONFIG.as_bytes()).unwrap_err().to_string();
    assert!(without.contains("together with the model's preprocessor_config.json"), "{without}");
    for (from, to, said) in [
        ("\"qkv_bias\": true", "\"qkv_bias\": false", "`qkv_bias` is false"),
        ("\"gelu\"", "\"gelu_new\"", "`hidden_act` is \"gelu_new\""),
        ("\"num_channels\": 3", "\"num_channels\": 1", "`num_channels` 1"),
        ("\"patch_size\": 8", "\"patch_size\": 0", "`patch_size` 0"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 4", "not a multiple"),
    ] {
        let json = CONFIG.replace(from, to);
        let json = with_pixels(json.as_bytes(), PROCESSOR.as_bytes()).unwrap();
        let error = ModelConfig::parse(&json).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    for (from, to, said) in [
        ("\"height\": 32", "\"height\": 64", "images of 64 x 32 pixels, and `image_size` is 32"),
        ("0.00392156862745098", "1.0", "divide pixels by 255"),
        ("\"image_std\"", "\"std\"", "no `image_mean` and `image_std`"),
        ("[0.5, 0.4, 0.3]", "[0.5]", "preprocessor_config.json: invalid length 1"),
    ] {
        let processor = PROCESSOR.replace(from, to);
        let error = with_pixels(CONFIG.as_bytes(), processor.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("config.json: does not go with preprocessor_config.json"), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn an_exported_model_is_one_that_transformers_open_and_that_can_be_imported() {
    let (spec, vit) = (image_spec("\"last:1\"", ""), config(&described()));
    let params = plan(&spec, Some(&vit)).unwrap();
    assert_eq!(params.tensors.len(), 16 + 2 + 2);
    assert!(names(&params).contains(&"encoder.layer.1.attention.attention.key.bias"));
    let export = export_plan(&spec, params);
    let bytes = export_config(&export, Some(described().as_bytes())).unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["architectures"], json!(["ViTForImageClassification"]));
    assert_eq!(json["problem_type"], json!("single_label_classification"));
    assert_eq!(json["id2label"], json!({"0": "none", "1": "some"}));
    assert_eq!((json.get("_name_or_path"), json.get("labels")), (None, None));
    let card = card(&export, Some(&vit));
    assert!(card.contains("model.config.id2label[logits.argmax(-1)[0].item()]") && !card.contains("timm"));
    let again = ModelConfig::parse(&bytes).unwrap();
    assert_eq!(again.labels(), ["none", "some"]);

    let base = file();
    let plan = export_weights(&export, Some(&vit), Some(&weights(&base))).unwrap();
    let mut out = Vec::new();
    let mut global = std::io::Cursor::new(vec![0; export.job.params.bytes() as usize]);
    plan.write(&mut out, Some(&mut std::io::Cursor::new(&base)), &mut global).unwrap();
    let held = |file: &[u8]| -> BTreeSet<String> {
        let opened = safetensors::SafeTensors::deserialize(file).unwrap();
        opened.names().into_iter().map(str::to_owned).collect()
    };
    let mut expected = held(&base);
    expected.extend(["classifier.weight", "classifier.bias"].map(str::to_owned));
    assert_eq!(held(&out), expected);
    again.check_weights(&weights(&out)).unwrap();
}

#[test]
fn adapters_are_put_on_queries_and_values_and_the_head_travels_with_them() {
    let planned = |json: &str, trainable: &str| {
        let params = plan(&image_spec(trainable, ""), Some(&config(json))).unwrap();
        params.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect::<Vec<_>>()
    };
    let factors = |layer: &str, outputs| {
        [(format!("{layer}.lora_A.weight"), vec![2, 6]), (format!("{layer}.lora_B.weight"), vec![outputs, 2])]
    };
    let head = |name: &str| [(format!("{name}.weight"), vec![2, 6]), (format!("{name}.bias"), vec![2])];
    let lora = "\"last:1\"\nlora = { rank = 2 }";
    let layer = "encoder.layer.1.attention.attention";
    let expected = [factors(&format!("{layer}.query"), 6), factors(&format!("{layer}.value"), 6)].concat();
    assert_eq!(planned(&described(), lora), [expected, head("classifier").into()].concat());
    assert_eq!(planned(VIT, lora), [factors("blocks.1.attn.qkv", 18), head("head")].concat());

    let targets = "\"all\"\nlora = { rank = 2, targets = [\"fc1\"] }";
    assert_eq!(planned(VIT, targets)[0], factors("blocks.0.mlp.fc1", 8)[0]);
    assert_eq!(planned(VIT, targets).len(), 2 * 2 + 2);
    let error = plan(&image_spec(targets, ""), Some(&config(&described()))).unwrap_err().to_string();
    assert_eq!(
        error,
        "the model's layers have no `fc1`; adapters can be had for \"dense\", \"key\", \"query\", \"value\""
    );
}

#[test]
fn adapters_that_cannot_be_had_or_written_are_refused() {
    for lora in ["{}", "{ targets = [\"conv1\"] }"] {
        let spec = image_spec(&format!("\"all\"\nlora = {lora}"), "");
        let refused = plan(&spec, Some(&config(TINY))).unwrap_err();
        assert_eq!(refused, PlanError::NoDense);
        assert_eq!(refused.invalid().key, "model.lora");
        assert!(refused.to_string().contains("adapters are for dense layers"), "{refused}");
    }
    let (spec, vit) = (image_spec("\"all\"\nlora = {}", ""), config(VIT));
    let export = export_plan(&spec, plan(&spec, Some(&vit)).unwrap());
    assert_eq!(export_adapter(&export, Some(&vit)), Err(ExportError::ImageAdapters));
}
