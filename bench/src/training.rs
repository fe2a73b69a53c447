//! Steps of local training, beside the same model in PyTorch, with the same threads, each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use crate::case::{Case, Group, Sample};
use crate::settings::Settings;

/// What contestants are called on the two kinds of devices.
pub(crate) const ON_CPU: [&str; 2] = ["Sheaf", "PyTorch"];
pub(crate) const ON_GPU: [&str; 2] = ["Sheaf, on a GPU", "PyTorch, on a GPU"];

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// Rows of 128 inputs through 256 and 128, 64 at a time.
    Mlp,
    /// 16 texts of 64 tokens.
    Minilm,
    /// 32 images of 224 x 224.
    EfficientnetLite0,
}

impl Model {
    /// What of it may be trained, and what such a step is called.
    pub(crate) fn parts(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Mlp => &[("all", "step of an MLP")],
            Self::Minilm => &[
                ("all", "step of MiniLM, all"),
                ("last:2", "step of MiniLM, last:2"),
                ("head", "step of MiniLM, head"),
                ("lora", "step of MiniLM, LoRA"),
            ],
            Self::EfficientnetLite0 => {
                &[("all", "step of EfficientNet, all"), ("head", "step of EfficientNet, head")]
            }
        }
    }

    /// Steps for each that is asked for: they are so short here.
    fn times(self) -> u32 {
        if self == Self::Mlp { 100 } else { 1 }
    }
}

/// What a program that has trained says.
#[derive(Deserialize)]
struct Said {
    /// Of each step.
    seconds: Vec<f64>,
    /// Of the processor, a step.
    cpu_seconds: f64,
    peak_mb: f64,
}

pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let mut groups = Vec::new();
    for model in &settings.models {
        let value = model.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        for (part, workload) in model.parts() {
            for device in &settings.devices {
                let steps = settings.steps * model.times();
                let arguments = [value.clone(), (*part).into(), steps.to_string(), device.clone()];
                let case = |contestant, program: Vec<PathBuf>| Case {
                    workload,
                    contestant,
                    size_mb: 0.0,
                    clients: 1,
                    run: {
                        let arguments = arguments.clone();
                        Box::new(move || run(&program, &arguments))
                    },
                };
                let [sheaf, pytorch] = if device == "cpu" { ON_CPU } else { ON_GPU };
                let mut group = vec![case(sheaf, ours())];
                if let Some(python) = &settings.pytorch {
                    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/steps.py");
                    group.push(case(pytorch, vec![python.clone(), script]));
                }
                groups.push(group);
            }
        }
    }
    groups
}

/// An example of the client's, which cargo builds beside this program.
fn ours() -> Vec<PathBuf> {
    let beside = std::env::current_exe().unwrap_or_default();
    vec![beside.with_file_name("examples").join("steps")]
}

fn run(program: &[PathBuf], arguments: &[String]) -> Result<Sample> {
    let (first, rest) = program.split_first().context("there is no program")?;
    let output = Command::new(first).args(rest).args(arguments).output();
    let output = output.with_context(|| format!("cannot start {}", first.display()))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", why.trim().lines().last().unwrap_or("it said nothing"));
    let said: Said = serde_json::from_slice(&output.stdout)?;
    Ok(Sample {
        seconds: said.seconds,
        server_rss_mb: Some(said.peak_mb),
        cpu_seconds: Some(said.cpu_seconds),
        wire: None,
    })
}
