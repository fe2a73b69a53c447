//! What cannot be trained is refused in one sentence.

use std::fs;

use sheaf_common::run::{Pooling, TaskInput, Trainable};

use super::fixture::{TinyBert, both, news, text_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::{Round, Trainer, Unwatched};

fn refusal(change: impl FnOnce(&TinyBert), max_length: u32, data: Dataset) -> String {
    let tiny = TinyBert::new("");
    let mut spec = text_spec(Trainable::Last(1), Pooling::Mean);
    spec.task.input = TaskInput::Text { column: "text".into(), max_length };
    let job = tiny.job(spec);
    change(&tiny);
    tiny.open(&job, "desk", both(data)).map(drop).unwrap_err().to_string()
}

fn edit(tiny: &TinyBert, file: &str, from: &str, to: &str) {
    let path = tiny.folder.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

fn assert_said(sentence: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
    assert!(!sentence.contains('\n'), "{sentence}");
}

#[test]
fn a_broken_model_folder() {
    let remove =
        |file: &'static str| move |tiny: &TinyBert| fs::remove_file(tiny.folder.path().join(file)).unwrap();
    assert_said(&refusal(remove("config.json"), 8, news()), &["config.json", "cannot be read"]);
    assert_said(&refusal(remove("tokenizer.json"), 8, news()), &["tokenizer.json", "cannot be used"]);
    assert_said(&refusal(remove("model.safetensors"), 8, news()), &["model.safetensors", "cannot be read"]);
    let cut = |tiny: &TinyBert| {
        let path = tiny.folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    assert_said(&refusal(cut, 8, news()), &["model.safetensors"]);
    let garble = |tiny: &TinyBert| edit(tiny, "tokenizer.json", "WordLevel", "NoSuchModel");
    assert_said(&refusal(garble, 8, news()), &["tokenizer.json", "cannot be used"]);
}

#[test]
fn a_tokenizer_of_another_vocabulary() {
    let grow = |tiny: &TinyBert| edit(tiny, "tokenizer.json", "\"oil\":4", "\"oil\":12");
    assert_said(&refusal(grow, 8, news()), &["token id 12", "vocab_size 12"]);
    assert_said(&refusal(|_| {}, 2, news()), &["task.max_length is 2", "2 special tokens"]);
}

#[test]
fn a_config_that_does_not_fit_its_weights() {
    let shrink = |tiny: &TinyBert| edit(tiny, "config.json", "\"vocab_size\":12", "\"vocab_size\":11");
    assert_said(&refusal(shrink, 8, news()), &["embeddings.word_embeddings.weight"]);
    let deepen =
        |tiny: &TinyBert| edit(tiny, "config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":3");
    assert_said(&refusal(deepen, 8, news()), &["encoder.layer.2.attention.self.query.weight"]);
}

#[test]
fn data_of_another_kind() {
    let table =
        Dataset { inputs: Inputs::Table { width: 1, values: vec![0.0] }, targets: Targets::Label(vec![0]) };
    assert_said(&refusal(|_| {}, 8, table), &["learns from texts"]);
    let mut data = news();
    data.targets = Targets::Label(vec![0, 1, 3, 2, 0]);
    assert_said(&refusal(|_| {}, 8, data), &["no label 3"]);
    let mut data = news();
    data.targets = Targets::Label(vec![0, 1, 2, 2]);
    assert_said(&refusal(|_| {}, 8, data), &["5 examples and 4 labels"]);
}

#[test]
fn parameters_of_another_length_and_no_examples() {
    let tiny = TinyBert::new("");
    let job = tiny.job(text_spec(Trainable::Head, Pooling::Mean));
    let nothing = Dataset { inputs: Inputs::Text(Vec::new()), targets: Targets::Label(Vec::new()) };
    let mut trainer = tiny.open(&job, "desk", both(nothing)).unwrap();
    let mut train =
        |params| trainer.train(params, Round { number: 1, of: 1 }, &Unwatched).unwrap_err().to_string();
    assert_said(&train(vec![0.0; 3]), &["3 values", "parameters are 99"]);
    assert_said(&train(tiny.start(&job)), &["no example to train on"]);
}
