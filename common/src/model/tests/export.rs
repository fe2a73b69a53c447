//! A trained model, put together, is one that can be imported again.

use std::io::Cursor;

use serde_json::{Value, json};

use super::*;

/// Writes `model.safetensors` as a caller would.
fn written(plan: &WeightsPlan, base: &[u8], global: &[u8]) -> Vec<u8> {
    let (mut file, mut base, mut global) = (Vec::new(), Cursor::new(base), Cursor::new(global));
    let bytes = plan.write(&mut file, Some(&mut base), &mut global).unwrap();
    assert_eq!(bytes, file.len() as u64);
    file
}

/// The parameters of a run, each value its position.
fn counting(params: &ParamSpec) -> Vec<u8> {
    crate::params::to_bytes(&(0..params.numel()).map(|value| value as f32).collect::<Vec<_>>())
}

fn tensor_bytes<'a>(file: &'a [u8], name: &str) -> &'a [u8] {
    let tensor = weights(file).tensor(name).unwrap().clone();
    &file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize]
}

#[test]
fn trained_tensors_are_the_global_ones_and_the_rest_is_the_base() {
    let spec = text_spec("trainable = \"last:1\"");
    let config = config(TINY_BERT);
    let params = plan(&spec, Some(&config)).unwrap();
    let (base, global) = (bert_file("", None), counting(&params));
    let export =
        export_weights(&export_plan(&spec, params.clone()), Some(&config), Some(&weights(&base))).unwrap();
    let file = written(&export, &base, &global);

    let mut offset = 0;
    for tensor in &params.tensors {
        let bytes = tensor.numel() as usize * 4;
        assert_eq!(tensor_bytes(&file, &tensor.name), &global[offset..offset + bytes], "{}", tensor.name);
        offset += bytes;
    }
    for frozen in ["embeddings.LayerNorm.bias", "encoder.layer.0.output.dense.weight", "pooler.dense.weight"]
    {
        assert_eq!(tensor_bytes(&file, frozen), tensor_bytes(&base, frozen), "{frozen}");
    }
    let opened = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(opened.names().len(), params.tensors.len() + 5 + 16 + 2);
    assert!(opened.names().iter().all(|name| name.starts_with("bert.") || name.starts_with("classifier.")));
    assert_eq!(export.header.len() % 8, 0);
}

#[test]
fn what_is_no_part_of_the_model_is_left_behind() {
    let blocks = tensors::encoder(&bert_config(), Pooling::Mean, None);
    let mut tensors: Vec<_> = blocks.all().map(|t| (format!("bert.{}", t.name), t.shape.clone())).collect();
    tensors.push(("cls.predictions.bias".into(), vec![11]));
    let base = safetensors(&tensors);
    let spec = text_spec("trainable = \"head\"");
    let config = config(TINY_BERT);
    let params = plan(&spec, Some(&config)).unwrap();
    let export =
        export_weights(&export_plan(&spec, params.clone()), Some(&config), Some(&weights(&base))).unwrap();
    let file = written(&export, &base, &counting(&params));
    assert!(weights(&file).tensor("cls.predictions.bias").is_none());
    assert!(weights(&file).tensor("pooler.dense.weight").is_none());
    assert!(weights(&file).tensor("classifier.bias").is_some());
}

#[test]
fn the_config_of_a_text_model_is_hugging_faces() {
    let spec = text_spec("dropout = 0.2");
    let params = plan(&spec, Some(&config(TINY_BERT))).unwrap();
    let bytes = export_config(&export_plan(&spec, params), Some(TINY_BERT.as_bytes())).unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(json["id2label"], json!({"0": "earn", "1": "acq", "2": "ship"}));
    assert_eq!(json["label2id"], json!({"earn": 0, "acq": 1, "ship": 2}));
    assert_eq!(json["classifier_dropout"], json!(0.2));
    assert_eq!(json["vocab_size"], json!(11));
    assert_eq!(json.get("_name_or_path"), None);
    assert_eq!(
        json["sheaf"],
        json!({"run": "trial-2", "round": 3, "dataset": "news", "base_model": "tiny", "pooling": "mean", "max_length": 16})
    );
    let again = ModelConfig::parse(&bytes).unwrap();
    assert_eq!(
        again,
        ModelConfig::Encoder(EncoderConfig { labels: spec.task.labels().to_vec(), ..bert_config() })
    );
}

#[test]
fn an_exported_text_model_goes_on_with_its_head() {
    let spec = text_spec("");
    let model = config(TINY_BERT);
    let params = plan(&spec, Some(&model)).unwrap();
    let base = bert_file("", None);
    let export = export_plan(&spec, params.clone());
    let new_config =
        ModelConfig::parse(&export_config(&export, Some(TINY_BERT.as_bytes())).unwrap()).unwrap();
    let file = written(
        &export_weights(&export, Some(&model), Some(&weights(&base))).unwrap(),
        &base,
        &counting(&params),
    );
    let values = initial(&spec, Some(&new_config), Some(&weights(&file)), &params).unwrap();
    let read: Vec<u8> = values
        .iter()
        .flat_map(|value| match *value {
            Initial::FromWeights { offset, bytes } => &file[offset as usize..(offset + bytes) as usize],
            Initial::Fresh(_) => panic!("nothing is fresh"),
        })
        .copied()
        .collect();
    assert_eq!(read, counting(&params));
}

#[test]
fn a_perceptron_is_imported_again() {
    let spec = table_spec("architecture = \"mlp\"\nhidden = [5, 3]");
    let params = plan(&spec, None).unwrap();
    let export = export_plan(&spec, params.clone());
    let model = ModelConfig::parse(&export_config(&export, None).unwrap()).unwrap();
    assert_eq!(model, config(TINY_MLP));
    let global = counting(&params);
    let file = written(&export_weights(&export, None, None).unwrap(), &[], &global);
    assert_eq!(model.check_weights(&weights(&file)), Ok(()));
    assert_eq!(file[file.len() - global.len()..], global);
    let next = table_spec("name = \"trial\"");
    assert_eq!(plan(&next, Some(&model)).unwrap(), params);
}

#[test]
fn the_other_models_are_described() {
    let json = |spec: &RunSpec| -> Value {
        let params = plan(spec, None).unwrap();
        serde_json::from_slice(&export_config(&export_plan(spec, params), None).unwrap()).unwrap()
    };
    let softmax = json(&table_spec("architecture = \"softmax\""));
    assert_eq!((&softmax["model_type"], &softmax["inputs"]), (&json!("softmax"), &json!(5)));
    assert_eq!(softmax["features"][1]["categories"], json!(["f", "m", "x"]));
    let constant = json(&spec("architecture = \"constant\"\nparameters = 9", "type = \"none\""));
    assert_eq!((&constant["model_type"], &constant["parameters"]), (&json!("constant"), &json!(9)));
}

#[test]
fn an_export_without_its_base_is_refused() {
    let spec = text_spec("trainable = \"head\"");
    let model = config(TINY_BERT);
    let export = export_plan(&spec, plan(&spec, Some(&model)).unwrap());
    assert!(matches!(export_config(&export, None), Err(ExportError::Plan(PlanError::NoModel(_)))));
    assert_eq!(export_config(&export, Some(b"[]")), Err(ExportError::Config));
    assert!(matches!(
        export_weights(&export, Some(&model), None),
        Err(ExportError::Weights(BadWeights::Missing(_)))
    ));
}

#[test]
fn adapters_are_merged_into_the_weights_that_they_adapt_and_no_others() {
    let spec = text_spec("trainable = \"last:1\"\nlora = { rank = 2, alpha = 4.0 }");
    let config = config(TINY_BERT);
    let params = plan(&spec, Some(&config)).unwrap();
    let names: Vec<&str> = params.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let layer = "encoder.layer.1.attention.self";
    let adapters = ["query", "value"]
        .map(|target| ["A", "B"].map(|factor| format!("{layer}.{target}.lora_{factor}.weight")));
    let expected: Vec<&str> = adapters
        .iter()
        .flatten()
        .map(String::as_str)
        .chain(["classifier.weight", "classifier.bias"])
        .collect();
    assert_eq!(names, expected);

    let base = bert_file("", None);
    let initial = initial(&spec, Some(&config), Some(&weights(&base)), &params).unwrap();
    assert!(matches!(initial[0], Initial::Fresh(Distribution::Uniform { .. })));
    assert_eq!(initial[1], Initial::Fresh(Distribution::Zeros));

    let global = counting(&params);
    let export =
        export_weights(&export_plan(&spec, params.clone()), Some(&config), Some(&weights(&base))).unwrap();
    let file = written(&export, &base, &global);
    let values = |file: &[u8], name: &str| crate::params::from_bytes(tensor_bytes(file, name));
    let of = |name: &str| {
        let mut tensors = params.tensors.iter();
        let start = tensors.by_ref().take_while(|tensor| tensor.name != name).map(|t| t.numel()).sum::<u64>();
        let numel = params.tensors.iter().find(|tensor| tensor.name == name).unwrap().numel();
        (start..start + numel).map(|value| value as f64).collect::<Vec<f64>>()
    };
    for [a, b] in &adapters {
        let weight = a.replace("lora_A.", "");
        let (a, b) = (of(a), of(b));
        let inputs = a.len() / 2;
        let before = values(&base, &weight);
        for (at, found) in values(&file, &weight).into_iter().enumerate() {
            let (row, column) = (at / inputs, at % inputs);
            let product = b[2 * row] * a[column] + b[2 * row + 1] * a[inputs + column];
            assert_eq!(found, (f64::from(before[at]) + 2.0 * product) as f32);
        }
    }
    let key = "encoder.layer.1.attention.self.key.weight";
    assert_eq!(values(&file, key), values(&base, key));
    let other = "encoder.layer.0.attention.self.query.weight";
    assert_eq!(values(&file, other), values(&base, other));
}

#[test]
fn an_adapter_for_a_layer_that_is_not_there_is_refused_with_those_that_are() {
    let spec = text_spec("lora = { targets = [\"q_proj\"] }");
    let error = plan(&spec, Some(&config(TINY_BERT))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model's layers have no `q_proj`; adapters can be had for \"dense\", \"key\", \"query\", \"value\""
    );
}

#[test]
fn adapters_alone_are_written_with_pefts_names() {
    let spec = text_spec("trainable = \"last:1\"\nlora = { rank = 2, alpha = 4.0 }");
    let params = plan(&spec, Some(&config(TINY_BERT))).unwrap();
    let (json, weights) =
        export_adapter(&export_plan(&spec, params.clone()), Some(&config(TINY_BERT))).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let layer = "bert.encoder.layer.1.attention.self";
    assert_eq!(json["target_modules"], json!([format!("{layer}.query"), format!("{layer}.value")]));
    assert_eq!((&json["r"], &json["lora_alpha"]), (&json!(2), &json!(4.0)));
    let (mut file, mut global) = (Vec::new(), Cursor::new(counting(&params)));
    weights.write(&mut file, None, &mut global).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let name = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight";
    assert_eq!(header[name]["data_offsets"][0], 0);
    assert!(header.get("base_model.model.classifier.weight").is_some());
    assert_eq!(file[8 + length..], counting(&params));
    let whole = text_spec("trainable = \"all\"");
    let params = plan(&whole, Some(&config(TINY_BERT))).unwrap();
    assert_eq!(
        export_adapter(&export_plan(&whole, params), Some(&config(TINY_BERT))),
        Err(ExportError::NoAdapters)
    );
}

#[test]
fn biases_beside_adapters_are_those_that_peft_trains_under_the_names_that_it_looks_for() {
    let config = config(TINY_BERT);
    let planned = |bias: &str| {
        let spec = text_spec(&format!("trainable = \"last:1\"\nlora = {{ bias = \"{bias}\" }}"));
        let params = plan(&spec, Some(&config)).unwrap();
        let (json, weights) = export_adapter(&export_plan(&spec, params.clone()), Some(&config)).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["bias"], &json["modules_to_save"]), (&json!(bias), &json!(["classifier"])));
        let header: Value = serde_json::from_slice(&weights.header[8..]).unwrap();
        let biases: Vec<String> = params
            .tensors
            .into_iter()
            .map(|tensor| tensor.name)
            .filter(|name| name.ends_with("bias"))
            .collect();
        (biases, header)
    };
    assert_eq!(planned("none").0, ["classifier.bias"]);
    let (biases, header) = planned("lora_only");
    let layer = "encoder.layer.1.attention.self";
    let targeted = [format!("{layer}.query.bias"), format!("{layer}.value.bias"), "classifier.bias".into()];
    assert_eq!(biases, targeted);
    let wrapped = format!("base_model.model.bert.{layer}.query.base_layer.bias");
    assert!(header.get(wrapped).is_some(), "{header}");
    let (biases, header) = planned("all");
    assert_eq!(biases.len(), 9, "of six dense layers, two normalisations and the head: {biases:?}");
    let plain = format!("base_model.model.bert.{layer}.key.bias");
    assert!(header.get(plain).is_some(), "{header}");
}
