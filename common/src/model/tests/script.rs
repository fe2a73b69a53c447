//! TorchScript modules: their descriptions, what a run trains of them, and their way in and out.

use super::*;

/// Four values to two; its names are those that Sheaf takes the family's prefix from.
const TABLE: &str = r#"{"model_type": "torchscript", "inputs": 4, "outputs": 2, "has_statistics": false,
    "parameters": [{"name": "bert.weight", "shape": [2, 4]}, {"name": "LayerNorm.beta", "shape": [2]}]}"#;
const IMAGE: &str = r#"{"model_type": "torchscript", "image_size": 28, "mean": [0.5], "std": [0.5], "outputs": 2,
    "has_statistics": true, "parameters": [{"name": "weight", "shape": [2, 784]}]}"#;

fn table(model: &str) -> RunSpec {
    spec(
        &format!("name = \"own\"\n{model}"),
        "type = \"tabular-classification\"\ndataset = \"hearts\"\nlabel = \"ill\"\nlabels = [\"no\", \"yes\"]\n\
         features = [{ column = \"age\", type = \"numeric\" }, { column = \"sex\", type = \"categorical\", \
         categories = [\"f\", \"m\"] }]",
    )
}

fn image(rest: &str) -> RunSpec {
    spec(
        "name = \"own\"",
        &format!(
            "type = \"image-classification\"\ndataset = \"scans\"\nlabel = \"finding\"\nlabels = [\"none\", \"some\"]\n{rest}"
        ),
    )
}

#[test]
fn a_run_trains_all_parameters_or_those_that_it_names() {
    let config = config(TABLE);
    assert_eq!(names(&plan(&table(""), Some(&config)).unwrap()), ["bert.weight", "LayerNorm.beta"]);
    let some = plan(&table("trainable = [\"beta$\"]"), Some(&config)).unwrap();
    assert_eq!(names(&some), ["LayerNorm.beta"]);
    let grows = "unfreeze = [{ round = 1, trainable = [\"beta\"] }, { round = 2, trainable = \"all\" }]";
    assert_eq!(phases(&table(grows), Some(&config)).unwrap().after(1).tensors.len(), 2);
}

#[test]
fn what_a_module_does_not_have_or_take_has_a_sentence() {
    let refusal = |spec: &RunSpec, json: &str| {
        let error = plan(spec, Some(&config(json))).unwrap_err();
        format!("{}: {error}", error.invalid().key)
    };
    for (model, said) in [
        (
            "trainable = \"head\"",
            "model.trainable: the TorchScript module is not parted into layers and head",
        ),
        ("trainable = \"last:2\"", "model.trainable: the TorchScript module is not parted"),
        (
            "unfreeze = [{ round = 1, trainable = [\"beta\"] }, { round = 2, trainable = \"head\" }]",
            "model.unfreeze: the TorchScript module is not parted",
        ),
        ("dropout = 0.1", "model.dropout: the TorchScript module has its own dropout"),
    ] {
        let found = refusal(&table(model), TABLE);
        assert!(found.starts_with(said), "{found}");
    }
    let mut counting = image("");
    counting.model.batch_norm = crate::run::BatchNorm::Averaged;
    assert!(
        refusal(&counting, IMAGE)
            .starts_with("model.batch_norm: the TorchScript module keeps what it has counted")
    );
    let mut decaying = table("");
    decaying.training.layer_decay = 0.5;
    assert!(refusal(&decaying, TABLE).starts_with("training.layer_decay: "));
    let found = refusal(&table(""), &TABLE.replace("\"inputs\": 4", "\"inputs\": 3"));
    assert!(
        found.starts_with(
            "task.features: the TorchScript module takes 3 values, and the run's features make 4"
        ),
        "{found}"
    );
    let found = refusal(&table(""), &TABLE.replace("\"outputs\": 2", "\"outputs\": 1"));
    assert!(
        found.starts_with("task.label: the TorchScript module gives 1 values, and the run learns 2"),
        "{found}"
    );
    assert!(refusal(&table(""), IMAGE).contains("use \"image-classification\""));
    assert!(refusal(&image(""), TABLE).contains("use \"tabular-classification\""));
    assert!(refusal(&text_spec(""), TABLE).contains("use \"tabular-classification\""));
    assert!(refusal(&image("image_size = 32"), IMAGE).contains("images of 28 pixels only, not 32"));
    assert!(plan(&image("image_size = 28"), Some(&config(IMAGE))).is_ok());
}

#[test]
fn a_run_starts_from_the_module_s_values_and_an_export_is_one_that_can_be_imported() {
    let (spec, own) = (table("trainable = [\"beta\"]"), config(TABLE));
    let params = plan(&spec, Some(&own)).unwrap();
    let stored = [("bert.weight".to_owned(), vec![2, 4]), ("LayerNorm.beta".to_owned(), vec![2])];
    let base = safetensors(&stored);
    let found = weights(&base);
    own.check_weights(&found).unwrap();
    let offset = found.tensor("LayerNorm.beta").unwrap().offset;
    let starts = initial(&spec, Some(&own), Some(&found), &params).unwrap();
    assert_eq!(starts, [Initial::FromWeights { offset, bytes: 8 }]);

    let export = export_plan(&spec, params);
    let json = export_config(&export, Some(TABLE.as_bytes())).unwrap();
    let again = ModelConfig::parse(&json).unwrap();
    assert_eq!(again.labels(), ["no", "yes"]);
    again.check_weights(&found).unwrap();
    assert!(phases(&spec, Some(&again)).is_ok());
    let mut turned = spec.clone();
    let labels = ["yes", "no"].map(str::to_owned).into();
    turned.task.target = crate::run::Target::Label { column: "ill".into(), labels };
    let said = phases(&turned, Some(&again)).unwrap_err().to_string();
    assert!(said.contains("was trained on labels = [\"no\", \"yes\"]; write the same"), "{said}");
    let plan = export_weights(&export, Some(&own), Some(&found)).unwrap();
    let (mut file, mut global) = (Vec::new(), std::io::Cursor::new(crate::params::to_bytes(&[7.0, 8.0])));
    plan.write(&mut file, Some(&mut std::io::Cursor::new(&base)), &mut global).unwrap();
    let exported = safetensors::SafeTensors::deserialize(&file).unwrap();
    let original = safetensors::SafeTensors::deserialize(&base).unwrap();
    assert_eq!(crate::params::from_bytes(exported.tensor("LayerNorm.beta").unwrap().data()), [7.0, 8.0]);
    assert_eq!(
        exported.tensor("bert.weight").unwrap().data(),
        original.tensor("bert.weight").unwrap().data()
    );

    let text = card(&export, Some(&own));
    for line in [
        "torch.jit.load(\"model.pt\"",
        "load_state_dict(load_file(\"model.safetensors\"), strict=False)",
        "def inputs(row):",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let image = export_plan(&image(""), ParamSpec::default());
    assert!(card(&image, Some(&config(IMAGE))).contains("Image.open(\"image.png\")"));
}

#[test]
fn a_description_is_written_and_read_back_and_a_wrong_one_has_a_sentence() {
    for json in [TABLE, IMAGE] {
        let ModelConfig::Script(script) = config(json) else { panic!("a TorchScript module") };
        assert_eq!(ModelConfig::parse(&script.to_json()).unwrap(), ModelConfig::Script(script));
    }
    for (json, from, to, said) in [
        (TABLE, "\"inputs\": 4", "\"inputs\": 0", "`inputs` 0 is not between 1 and 65536"),
        (TABLE, "\"inputs\": 4,", "", "give either `inputs`, for a table, or `image_size`"),
        (TABLE, "\"outputs\": 2", "\"outputs\": 65", "`outputs` 65 is not between 1 and 64"),
        (TABLE, "LayerNorm.beta", "bert.weight", "lists `bert.weight` twice"),
        (TABLE, "[2, 4]", "[4294967296, 4294967296]", "`bert.weight` twice, or with an impossible shape"),
        (IMAGE, "[0.5], \"std\"", "[0.5, 0.5], \"std\"", "another number of channels than 1 or 3"),
        (IMAGE, "\"std\": [0.5]", "\"std\": [0]", "not those of pixels between 0 and 1"),
        (IMAGE, "28", "4", "`image_size` 4"),
    ] {
        let error = ModelConfig::parse(json.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
