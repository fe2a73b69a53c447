//! Image classifiers: their descriptions, what a run trains of them, and their way in and out.

use crate::model::local;
use crate::model::vision::is_statistic;
use crate::run::Trainable;

use super::*;

/// A residual network small enough to be written out.
pub(super) const TINY: &str = r#"{"model_type": "torchvision_resnet", "image_size": 32, "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2], "block": "basic", "depths": [1, 1], "widths": [2, 3], "batch_norm_eps": 1e-5}"#;
pub(super) const VIT: &str = r#"{"model_type": "timm_vit", "image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "patch_size": 8, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8,
    "num_tokens": 17, "layer_norm_eps": 1e-6}"#;

pub(super) fn image_spec(trainable: &str, rest: &str) -> RunSpec {
    spec(
        &format!("name = \"tiny\"\ntrainable = {trainable}"),
        &format!(
            "type = \"image-classification\"\ndataset = \"scans\"\nlabel = \"finding\"\nlabels = [\"none\", \"some\"]\n{rest}"
        ),
    )
}

pub(super) fn tensors(config: &ModelConfig, labels: Option<u64>) -> Blocks {
    let ModelConfig::Image(image) = config else { panic!("an image classifier") };
    image.architecture.tensors(labels)
}

fn planned(trainable: &str) -> Vec<String> {
    let params = plan(&image_spec(trainable, ""), Some(&config(TINY))).unwrap();
    names(&params).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_run_trains_the_head_the_last_blocks_or_all_but_never_what_was_counted() {
    assert_eq!(planned("\"head\""), ["fc.weight", "fc.bias"]);
    let last = planned("\"last:1\"");
    assert_eq!(last.len(), 11);
    assert!(last[..9].iter().all(|name| name.starts_with("layer2.0.")), "{last:?}");
    assert!(planned("\"all\"").iter().all(|name| !is_statistic(name)));
    assert_eq!(
        planned("[\"bn2\"]"),
        ["layer1.0.bn2.weight", "layer1.0.bn2.bias", "layer2.0.bn2.weight", "layer2.0.bn2.bias"]
    );
}

#[test]
fn an_exported_model_is_one_that_can_be_imported() {
    let spec = image_spec("\"last:1\"", "image_size = 64");
    let tiny = config(TINY);
    let params = plan(&spec, Some(&tiny)).unwrap();
    let export = export_plan(&spec, params);
    let json = export_config(&export, Some(TINY.as_bytes())).unwrap();
    let again = ModelConfig::parse(&json).unwrap();
    assert_eq!(again.labels(), ["none", "some"]);
    let stored: Vec<_> = tensors(&tiny, None).all().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let base = safetensors(&stored);
    let plan = export_weights(&export, Some(&tiny), Some(&weights(&base))).unwrap();
    let mut file = Vec::new();
    let mut global = std::io::Cursor::new(vec![0; export.job.params.bytes() as usize]);
    plan.write(&mut file, Some(&mut std::io::Cursor::new(base)), &mut global).unwrap();
    let found = weights(&file);
    again.check_weights(&found).unwrap();
    assert!(tensors(&again, Some(2)).all().all(|tensor| found.require(&tensor.name, &tensor.shape).is_ok()));
    assert_eq!(found.tensors().count(), tensors(&again, Some(2)).all().count());
}

#[test]
fn a_run_that_does_not_fit_the_model_has_a_sentence() {
    let refusal = |spec: &RunSpec, json| plan(spec, Some(&config(json))).unwrap_err().to_string();
    assert!(refusal(&text_spec(""), TINY).contains("use \"image-classification\""));
    let said = refusal(&image_spec("\"all\"", "image_size = 64"), VIT);
    assert!(said.contains("images of 32 pixels only, not 64"), "{said}");
    assert!(plan(&image_spec("\"all\"", "image_size = 32"), Some(&config(VIT))).is_ok());
    assert!(refusal(&image_spec("\"last:3\"", ""), TINY).contains("has 2 layers"));
}

#[test]
fn a_description_of_no_model_has_a_sentence() {
    for (json, from, to, said) in [
        (TINY, "[1, 1]", "[1]", "`depths` and `widths`"),
        (TINY, "[1, 1]", "[300, 1]", "`depths` 300"),
        (TINY, "\"basic\"", "\"wide\"", "unknown variant `wide`"),
        (TINY, "0.2, 0.2, 0.2", "0.2, 0, 0.2", "`std`"),
        (TINY, "1e-5", "1", "`batch_norm_eps` 1"),
        (VIT, "17", "16", "4 x 4 patches"),
        (VIT, "\"num_attention_heads\": 2", "\"num_attention_heads\": 4", "not a multiple"),
    ] {
        let error = ModelConfig::parse(json.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// A run that trains so and does this with batch normalisation.
fn counting(trainable: &str, batch_norm: &str) -> RunSpec {
    image_spec(&format!("{trainable}\nbatch_norm = \"{batch_norm}\""), "")
}

#[test]
fn averaged_statistics_travel_behind_what_is_trained_and_local_ones_stay() {
    let tiny = config(TINY);
    let averaged = counting("[\"^layer2\", \"bn1.bias\", \"fc\"]", "averaged");
    let params = plan(&averaged, Some(&tiny)).unwrap();
    let names = names(&params);
    let counted = names.iter().position(|name| is_statistic(name)).unwrap();
    // `bn1`, of which the bias alone is trained, stays frozen.
    let norms = ["bn1", "bn2", "downsample.1"]
        .map(|norm| ["running_mean", "running_var"].map(|part| format!("layer2.0.{norm}.{part}")));
    assert_eq!(names[counted..], norms.as_flattened().iter().collect::<Vec<_>>()[..]);
    assert!(names[..counted].contains(&"bn1.bias"));

    let kept = counting("[\"^layer2\", \"bn1.bias\", \"fc\"]", "local");
    let travels = plan(&kept, Some(&tiny)).unwrap();
    assert_eq!(travels.tensors[..], params.tensors[..counted]);
    assert_eq!(local(&kept, Some(&tiny), &travels).unwrap().tensors[..], params.tensors[counted..]);
    assert!(local(&averaged, Some(&tiny), &params).unwrap().tensors.is_empty());
}

#[test]
fn statistics_join_with_their_layers() {
    let tiny = config(TINY);
    let mut spec = counting("\"head\"", "averaged");
    spec.model.unfreeze = [(3, Trainable::Last(1))].into();
    let phases = phases(&spec, Some(&tiny)).unwrap();
    assert_eq!(names(phases.after(0)), ["fc.weight", "fc.bias"]);
    assert_eq!(phases.after(2).tensors.iter().filter(|tensor| is_statistic(&tensor.name)).count(), 6);
}

#[test]
fn a_run_without_batch_normalisation_cannot_say_what_becomes_of_it() {
    let said = |spec: &RunSpec, json| phases(spec, Some(&config(json))).unwrap_err().to_string();
    for (spec, json) in [(counting("\"head\"", "averaged"), TINY), (counting("\"all\"", "local"), VIT)] {
        assert!(said(&spec, json).starts_with("no batch normalisation is trained"));
    }
    assert!(phases(&counting("\"head\"", "frozen"), Some(&config(TINY))).is_ok());
}

#[test]
fn an_exported_model_has_the_averaged_statistics_and_no_negative_variance() {
    let (spec, tiny) = (counting("\"all\"", "averaged"), config(TINY));
    let export = export_plan(&spec, plan(&spec, Some(&tiny)).unwrap());
    let mut values: Vec<f32> = (0..export.job.params.numel()).map(|at| at as f32).collect();
    // The last value of the parameters is a variance.
    *values.last_mut().unwrap() = -1e-6;
    let plan = export_weights(&export, Some(&tiny), None).unwrap();
    let mut file = Vec::new();
    plan.write(&mut file, None, &mut std::io::Cursor::new(crate::params::to_bytes(&values))).unwrap();
    let found = weights(&file);
    let last = |name: &str| {
        let tensor = found.tensors().find(|(found, _)| *found == name).unwrap().1;
        let bytes = &file[(tensor.offset + tensor.bytes - 4) as usize..][..4];
        f32::from_le_bytes(bytes.try_into().unwrap())
    };
    assert_eq!(last("layer2.0.downsample.1.running_var"), 0.0);
    assert_eq!(last("layer2.0.downsample.1.running_mean"), values[values.len() - 4]);
}
