//! Times steps of training: `cargo run --release -p sheaf-client --example steps -- MODEL TRAINABLE STEPS`.
//!
//! MODEL is `efficientnet-lite0` (batches of 8 images of 224 x 224) or `minilm` (batches of 16 texts of 64 tokens), as
//! `make test` fetches them; TRAINABLE what `run.toml` takes, or `lora`. `scripts/reference/steps.py` times the same steps
//! with PyTorch. It prints milliseconds of the processor, which other programs on the machine change least, and of the
//! clock, without the first two steps; `OMP_NUM_THREADS=1` holds both to one thread.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sheaf_client::data::{Dataset, Inputs, Split, Targets};
use sheaf_client::memory;
use sheaf_client::trainer::torch::TorchTrainer;
use sheaf_client::trainer::{Round, Trainer, Watch};
use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::model::foreign::kind::Kind;
use sheaf_common::model::foreign::torch;
use sheaf_common::model::{CONFIG_FILE, Initial, ModelConfig, WEIGHTS_FILE, Weights, initial, phases};
use sheaf_common::params::from_bytes;
use sheaf_common::run::RunSpec;
use sheaf_common::status::{Phase, Progress};
use sheaf_common::time::Timestamp;

fn main() -> Result<()> {
    memory::keep();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, trainable, steps] = &arguments[..] else { bail!("usage: steps MODEL TRAINABLE STEPS") };
    let lora = trainable == "lora";
    let (trainable, adapters) = if lora { ("all", "[model.lora]\nrank = 8\n") } else { (&trainable[..], "") };
    let cache =
        std::env::var("HOME").map(|home| PathBuf::from(home).join(".cache/sheaf/data").join(model))?;
    let (folder, made, task, batch, inputs) = match &model[..] {
        "efficientnet-lite0" => {
            let made = tempfile::tempdir()?;
            convert(&cache.join("efficientnet-lite0.pth"), made.path())?;
            let values = (0..8 * 3 * 224 * 224u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8);
            let inputs = Inputs::Images { size: 224, values: values.collect() };
            (made.path().to_owned(), Some(made), "type = \"image-classification\"", 8u32, inputs)
        }
        // With the first and the last token that makes 64.
        "minilm" => {
            let task = "type = \"text-classification\"\ntext = \"text\"\nmax_length = 64";
            (cache, None, task, 16, Inputs::Text(vec!["the ".repeat(62); 16]))
        }
        other => bail!("there is no model {other} here: efficientnet-lite0 or minilm"),
    };
    let text = format!(
        "name = \"steps\"\nrounds = 1\n[model]\nname = \"m\"\ntrainable = \"{trainable}\"\ndropout = 0.0\n{adapters}\
         [task]\ndataset = \"d\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]\n{task}\n\
         [training]\nbatch_size = {batch}\nlocal_steps = {steps}\nlearning_rate = 1e-5\n"
    );
    let spec = RunSpec::parse("steps", &text)?;
    let config = ModelConfig::parse(&fs::read(folder.join(CONFIG_FILE))?)?;
    let params = phases(&spec, Some(&config))?.after(0).clone();
    let start = start(&spec, &config, &folder.join(WEIGHTS_FILE), &params)?;
    let job =
        Job { spec, model: None, params, global: BlobId::of(&[]), submitted_at: Timestamp(0), author: None };
    let labels = Targets::Label((0..batch).map(|at| at % 2).collect());
    let train = Dataset { inputs, targets: labels };
    let split = Split { validation: train.clone(), train };
    let mut trainer = TorchTrainer::open(&job, Some(&folder), "site", split, tch::Device::Cpu)?;
    let times = Times::default();
    trainer.train(start, Round { number: 1, of: 1 }, &times)?;
    times.print(&arguments.join(" "))?;
    drop(made);
    Ok(())
}

/// The state dict as `sheaf model import` converts it.
fn convert(state_dict: &Path, folder: &Path) -> Result<()> {
    let mut file = File::open(state_dict).with_context(|| format!("{}", state_dict.display()))?;
    let bytes = file.metadata()?.len();
    let (image, conversion) = Kind::EfficientNetLite0.convert(&torch::index(&mut file, bytes)?)?;
    conversion.write(&mut file, &mut File::create_new(folder.join(WEIGHTS_FILE))?, &mut |_| ())?;
    Ok(fs::write(folder.join(CONFIG_FILE), serde_json::to_vec(&image)?)?)
}

/// The parameters before the first round.
fn start(
    spec: &RunSpec,
    config: &ModelConfig,
    weights: &Path,
    params: &sheaf_common::params::ParamSpec,
) -> Result<Vec<f32>> {
    let bytes = fs::read(weights)?;
    let stored = Weights::parse(&bytes, bytes.len() as u64)?;
    let mut values = Vec::new();
    for (tensor, source) in params.tensors.iter().zip(initial(spec, Some(config), Some(&stored), params)?) {
        match source {
            Initial::FromWeights { offset, bytes: length } => {
                values.extend(from_bytes(&bytes[offset as usize..][..length as usize]));
            }
            Initial::Fresh(distribution) => {
                values.extend(distribution.values(spec.seed, &tensor.name).take(tensor.numel() as usize));
            }
        }
    }
    Ok(values)
}

/// When each step began, by the processor and by the clock.
#[derive(Default)]
struct Times(RefCell<Vec<(u64, Instant)>>);

impl Times {
    fn print(&self, what: &str) -> Result<()> {
        let times = self.0.borrow();
        let (mut processor, mut clock): (Vec<f64>, Vec<f64>) = times
            .windows(2)
            .skip(2)
            .map(|pair| ((pair[1].0 - pair[0].0) as f64 / 1e6, (pair[1].1 - pair[0].1).as_secs_f64() * 1e3))
            .unzip();
        processor.sort_by(f64::total_cmp);
        clock.sort_by(f64::total_cmp);
        let middle = processor.len() / 2;
        let median = |times: &[f64]| times.get(middle).copied().context("there were too few steps");
        println!("{what}: processor {:.1} ms, clock {:.1} ms a step", median(&processor)?, median(&clock)?);
        Ok(())
    }
}

impl Watch for Times {
    fn progress(&self, progress: Progress) {
        if progress.phase != Phase::Training {
            return;
        }
        // Nanoseconds that this thread has run.
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let run = stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
        self.0.borrow_mut().push((run, Instant::now()));
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}
