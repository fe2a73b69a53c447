//! Training on examples that are kept in a file, held against the same in memory, through everything that a site does.

use std::fs;
use std::path::Path;

use sheaf_common::message::Job;
use sheaf_common::run::*;

use super::fixture::{TinyBert, job, table_spec, text_spec};
use crate::config::{DatasetConfig, Policy};
use crate::device::DeviceChoice;
use crate::trainer::open::open;
use crate::trainer::{Round, Unwatched};

/// A table with everything that the runs here ask for.
fn dataset(folder: &Path, memory_mib: u64) -> DatasetConfig {
    let words = ["oil rises", "wheat falls oil falls wheat rises", "profit", "bank profit falls trade"];
    let [topics, sides] = [["crude", "grain", "other"], ["left", "right", "above"]];
    // For a tokenizer of which `t7` is 7.
    let tokens = ["t1 t2 t3", "t9", "t4 t5 t6 t7 t8 t9 t10 t11", "t3 t3 t1"];
    let row = |number: usize| {
        let (x, y) = ((number as f64).sin(), (number as f64 * 1.7).cos());
        let (topic, side) = (topics[number % 3], sides[number % 3]);
        format!("{topic},{side},{x},{y},{},{},t{}\n", words[number % 4], tokens[number % 4], number % 7)
    };
    let rows: String = (0..40).map(row).collect();
    let path = folder.join("all.csv");
    fs::write(&path, format!("topic,side,x,y,text,tokens,answer\n{rows}")).unwrap();
    let written = toml::from_str(&format!("path = {path:?}")).unwrap();
    DatasetConfig { memory_mib, ..DatasetConfig::of("all", written, folder).unwrap() }
}

/// Trains for two rounds and evaluates with so much memory; every bit of what comes out.
fn train(job: &Job, model: Option<&Path>, start: Vec<f32>, memory_mib: u64) -> (Vec<u32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let datasets = [(job.spec.task.dataset.clone(), dataset(folder.path(), memory_mib))].into();
    let mut trainer = open(job, model, &datasets, "site", DeviceChoice::Cpu, &Policy::default()).unwrap();
    let mut params = start;
    for number in 1..=2 {
        params = trainer.train(params, Round { number, of: 2 }, &Unwatched).unwrap().params;
    }
    let counts = trainer.evaluate(&params, &Unwatched).unwrap().unwrap();
    (params.iter().map(|param| param.to_bits()).collect(), format!("{counts:?}"))
}

/// Memory and a file teach the same.
pub(super) fn check(job: &Job, model: Option<&Path>, start: &[f32]) {
    let [memory, file] = [64, 0].map(|memory_mib| train(job, model, start.to_vec(), memory_mib));
    assert_eq!(memory, file);
    assert!(start.iter().zip(&memory.0).any(|(before, after)| before.to_bits() != *after), "it has learned");
}

fn points(architecture: Architecture) -> Job {
    let feature = |column: &str| Feature {
        column: column.into(),
        kind: FeatureKind::Numeric { mean: 0.0, std: 1.0 },
        missing: Vec::new(),
    };
    let mut spec = table_spec(vec![feature("x"), feature("y")], Vec::new());
    spec.model.source = ModelSource::Fresh(architecture);
    spec.validation.held_out = HeldOut::Share(0.25);
    job(spec, None)
}

#[test]
fn rows_in_a_file_teach_the_same() {
    for architecture in [Architecture::Mlp(vec![8]), Architecture::Softmax] {
        let job = points(architecture);
        let start: Vec<f32> = (0..job.params.numel()).map(|at| 0.5 * (at as f32 * 1.7).sin()).collect();
        check(&job, None, &start);
    }
}

#[test]
fn texts_in_a_file_teach_the_same() {
    let model = TinyBert::new("bert.");
    for trainable in [Trainable::Head, Trainable::All] {
        let mut spec = text_spec(trainable, Pooling::Mean);
        spec.validation.held_out = HeldOut::Share(0.25);
        let job = model.job(spec);
        check(&job, Some(model.folder.path()), &model.start(&job));
    }
}
