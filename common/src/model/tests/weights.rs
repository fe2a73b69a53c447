//! The header of a safetensors file, honest and not.

use proptest::prelude::*;

use super::*;
use crate::model::weights::HEADER_MAX;

fn file_with_header(json: &str, data: usize) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

fn parsed(json: &str, data: usize) -> Result<Weights, BadWeights> {
    let file = file_with_header(json, data);
    Weights::parse(&file, file.len() as u64)
}

#[test]
fn a_tensor_is_found_where_it_lies() {
    let file = bert_file("", Some(3));
    let start = usize::try_from(Weights::header_bytes(&file[..8]).unwrap()).unwrap();
    let weights = Weights::parse(&file[..start], file.len() as u64).unwrap();
    let blocks = tensors::encoder(&bert_config(), Pooling::Cls, Some(3));
    assert_eq!(weights.num_params(), blocks.all().map(|tensor| tensor.numel()).sum::<u64>());
    for (index, tensor) in blocks.all().enumerate() {
        let stored = weights.require(&tensor.name, &tensor.shape).unwrap();
        let from = stored.offset as usize;
        let values = crate::params::from_bytes(&file[from..from + stored.bytes as usize]);
        assert_eq!(values.len() as u64, tensor.numel());
        assert_eq!(values[0], index as f32, "{}", tensor.name);
    }
}

#[test]
fn the_prefix_and_the_oldest_names_are_understood() {
    let plain = weights(&bert_file("", Some(3)));
    let prefixed = weights(&bert_file("bert.", Some(3)));
    let names = |weights: &Weights| weights.tensors().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&prefixed));
    let old = [
        ("bert.embeddings.LayerNorm.gamma".to_owned(), vec![4]),
        ("bert.embeddings.LayerNorm.beta".to_owned(), vec![4]),
    ];
    assert_eq!(
        names(&weights(&safetensors(&old))),
        ["embeddings.LayerNorm.bias", "embeddings.LayerNorm.weight"]
    );
    let twice = [("bert.a".to_owned(), vec![1]), ("a".to_owned(), vec![1])];
    let file = safetensors(&twice);
    assert_eq!(Weights::parse(&file, file.len() as u64), Err(BadWeights::Duplicate("a".into())));
}

#[test]
fn weights_are_checked_against_the_config() {
    assert_eq!(config(TINY_BERT).check_weights(&weights(&bert_file("bert.", None))), Ok(()));
    let one = [("layers.0.weight".to_owned(), vec![5, 4])];
    let error = config(TINY_MLP).check_weights(&weights(&safetensors(&one))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`layers.0.weight` in model.safetensors has the shape [5, 4] where config.json makes it [5, 5]"
    );
    let error = config(TINY_BERT).check_weights(&weights(&safetensors(&one))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model.safetensors has no tensor `embeddings.word_embeddings.weight`: the file and its config.json do not \
         belong together"
    );
}

#[test]
fn another_type_is_refused_where_it_is_needed() {
    let half = parsed(r#"{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#, 4).unwrap();
    assert_eq!(half.num_params(), 0);
    assert_eq!(
        half.require("w", &[2]).unwrap_err().to_string(),
        "`w` in model.safetensors is BF16, not F32: convert the model to float32 first (in Python: \
         model.float().save_pretrained(DIR))"
    );
}

#[test]
fn what_is_no_whole_file_is_refused() {
    let good = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(parsed(good, 4).is_ok());
    for (json, data) in [
        (good, 3),
        (good, 5),
        ("", 0),
        ("[]", 0),
        (r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        (r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
        (r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
        (r#"{"w":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}"#, 4),
        (r#"{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4),
    ] {
        assert!(matches!(parsed(json, data), Err(BadWeights::Format(_))), "{json} and {data} bytes");
    }
    assert!(matches!(Weights::parse(&[0; 7], 7), Err(BadWeights::Format(_))));
    let long = (HEADER_MAX + 1).to_le_bytes();
    assert_eq!(Weights::header_bytes(&long), Err(BadWeights::HeaderTooLong(HEADER_MAX + 1)));
    let cut = 100u64.to_le_bytes();
    assert!(matches!(Weights::parse(&cut, 1000), Err(BadWeights::Format(_))));
}

proptest! {
    #[test]
    fn no_header_panics(
        json in prop_oneof![
            ".{0,60}",
            r#"\{"[a-c]":\{"dtype":"(F32|I64|F4)","shape":\[[0-9]{0,20}(,[0-9]{1,20})?\],"data_offsets":\[[0-9]{1,20},[0-9]{1,20}\]\}\}"#,
        ],
        length in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        file_bytes in any::<u64>(),
    ) {
        let mut file = file_with_header(&json, 0);
        if let Some(length) = length {
            file[..8].copy_from_slice(&length.to_le_bytes());
        }
        let _ = Weights::parse(&file, file_bytes);
        if let Ok(weights) = Weights::parse(&file, file.len() as u64) {
            weights.num_params();
        }
    }
}
