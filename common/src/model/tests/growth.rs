//! From one phase to the next nothing is lost and nothing is invented.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::params::{from_bytes, to_bytes};

/// The tensors of `params`, by name, out of a blob of them.
fn by_name<'a>(params: &'a ParamSpec, blob: &[u8]) -> BTreeMap<&'a str, Vec<f32>> {
    let mut values = from_bytes(blob).into_iter();
    params
        .tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), values.by_ref().take(tensor.numel() as usize).collect()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is trained in two phases: the grown parameters are the trained ones where these are, the imported
    /// model's elsewhere, and so is the exported model.
    #[test]
    fn grown_parameters_and_their_export_are_the_base_where_nothing_was_trained(
        first in prop::collection::vec(any::<bool>(), 39), more in prop::collection::vec(any::<bool>(), 39),
    ) {
        let file = bert_file("bert.", Some(3));
        let base = weights(&file);
        let config = config(&initial::bert_with_labels(["earn", "acq", "ship"]));
        let spec = text_spec("");
        let all = plan(&spec, Some(&config)).unwrap();
        prop_assert_eq!(all.tensors.len(), first.len());
        let some = |chosen: &dyn Fn(usize) -> bool| {
            let tensors = all.tensors.iter().enumerate().filter(|(at, _)| chosen(*at));
            ParamSpec { tensors: tensors.map(|(_, tensor)| tensor.clone()).collect() }
        };
        let before = some(&|at| first[at]);
        let after = some(&|at| first[at] || more[at]);
        let trained = to_bytes(&(0..before.numel()).map(|at| -1.0 - at as f32).collect::<Vec<_>>());

        let mut blob = Vec::new();
        let growth = grown(&before, &after, &base).unwrap();
        growth.write(&mut blob, Some(&mut Cursor::new(&file)), &mut Cursor::new(&trained)).unwrap();
        prop_assert_eq!(blob.len() as u64, after.bytes());
        let (trained, blob_values) = (by_name(&before, &trained), by_name(&after, &blob));
        let of_base = |name: &str| {
            let stored = base.tensor(name).unwrap();
            from_bytes(&file[stored.offset as usize..(stored.offset + stored.bytes) as usize])
        };
        for (name, values) in &blob_values {
            let expected = trained.get(name).cloned().unwrap_or_else(|| of_base(name));
            prop_assert_eq!(values, &expected, "{}", name);
        }

        let export = export_weights(&export_plan(&spec, after.clone()), Some(&config), Some(&base)).unwrap();
        let mut exported = Vec::new();
        export.write(&mut exported, Some(&mut Cursor::new(&file)), &mut Cursor::new(&blob)).unwrap();
        let header = weights(&exported);
        for tensor in &all.tensors {
            let stored = header.tensor(&tensor.name).unwrap();
            let values = from_bytes(&exported[stored.offset as usize..(stored.offset + stored.bytes) as usize]);
            let expected = trained.get(tensor.name.as_str()).cloned().unwrap_or_else(|| of_base(&tensor.name));
            prop_assert_eq!(values, expected, "{}", &tensor.name);
        }
    }
}

#[test]
fn what_the_imported_model_lacks_cannot_be_unfrozen() {
    let file = bert_file("", None);
    let spec = text_spec("trainable = \"head\"");
    let head = plan(&spec, Some(&config(TINY_BERT))).unwrap();
    let error = grown(&ParamSpec::default(), &head, &weights(&file)).unwrap_err();
    assert_eq!(error, BadWeights::Missing("classifier.weight".into()));
}
