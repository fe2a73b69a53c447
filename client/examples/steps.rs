//! Times steps of training, for `make bench ONLY=training`: `steps MODEL TRAINABLE STEPS DEVICE`.
//!
//! MODEL is `efficientnet-lite0` (batches of 32 images of 224 x 224) or `minilm` (batches of 16 texts of 64 tokens), as
//! `make test` fetches them, or `mlp` (batches of 64 rows of 128 inputs, through 256 and 128); TRAINABLE is what `run.toml`
//! takes, or `lora`; DEVICE what `site.toml` takes. `bench/peers/steps.py` times the same steps with PyTorch. Both print one line of JSON: seconds of each
//! step but the first two, seconds of the processor a step, and the peak of memory.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sheaf_client::data::{Dataset, Inputs, Split, Targets};
use sheaf_client::device;
use sheaf_client::memory;
use sheaf_client::trainer::torch::TorchTrainer;
use sheaf_client::trainer::{Round, Trainer, Watch};
use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::model::foreign::kind::Kind;
use sheaf_common::model::foreign::torch;
use sheaf_common::model::{CONFIG_FILE, Initial, ModelConfig, WEIGHTS_FILE, Weights, initial, phases};
use sheaf_common::params::{ParamSpec, from_bytes};
use sheaf_common::run::RunSpec;
use sheaf_common::status::{Phase, Progress};
use sheaf_common::time::Timestamp;
use tch::Device;

fn main() -> Result<()> {
    memory::keep();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, trainable, steps, device] = &arguments[..] else {
        bail!("usage: steps MODEL TRAINABLE STEPS DEVICE")
    };
    let device = device::resolve(device.parse()?)?;
    let lora = trainable == "lora";
    let (trainable, adapters) = if lora { ("all", "[model.lora]\nrank = 8\n") } else { (&trainable[..], "") };
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.context("there is no home directory")?.join("sheaf/data").join(model);
    let made = tempfile::tempdir()?;
    let noise = |count: u32| (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8);
    let (folder, task, batch, inputs) = match &model[..] {
        "efficientnet-lite0" => {
            convert(&cache.join("efficientnet-lite0.pth"), made.path())?;
            let inputs = Inputs::Images { size: 224, values: noise(32 * 3 * 224 * 224).collect() };
            (Some(made.path()), "type = \"image-classification\"".to_owned(), 32u32, inputs)
        }
        // With the first and the last token that makes 64.
        "minilm" => {
            let task = "type = \"text-classification\"\ntext = \"text\"\nmax_length = 64";
            (Some(cache.as_path()), task.to_owned(), 16, Inputs::Text(vec!["the ".repeat(62); 16]))
        }
        "mlp" => {
            let columns: Vec<String> =
                (0..64).map(|at| format!("{{ column = \"c{at}\", type = \"numeric\" }}")).collect();
            let task = format!("type = \"tabular-classification\"\nfeatures = [{}]", columns.join(", "));
            // Beside each number, whether it is there.
            let values = noise(64 * 128).map(|value| f32::from(value) / 128.0 - 1.0).collect();
            (None, task, 64, Inputs::Table { width: 128, values })
        }
        other => bail!("there is no model {other} here: efficientnet-lite0, minilm or mlp"),
    };
    let model = match folder {
        Some(_) => format!("name = \"m\"\ntrainable = \"{trainable}\"\n{adapters}"),
        None => "architecture = \"mlp\"\nhidden = [256, 128]\n".to_owned(),
    };
    let text = format!(
        "name = \"steps\"\nrounds = 1\n[model]\ndropout = 0.0\n{model}\
         [task]\ndataset = \"d\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]\n{task}\n\
         [training]\nbatch_size = {batch}\nlocal_steps = {steps}\nlearning_rate = 1e-5\n"
    );
    let spec = RunSpec::parse("steps", &text)?;
    let config = folder.map(|folder| anyhow::Ok(ModelConfig::parse(&fs::read(folder.join(CONFIG_FILE))?)?));
    let config = config.transpose()?;
    let params = phases(&spec, config.as_ref())?.after(0).clone();
    let stored = folder.map(|folder| fs::read(folder.join(WEIGHTS_FILE))).transpose()?.unwrap_or_default();
    let start = start(&spec, config.as_ref(), &stored, &params)?;
    drop(stored);
    let job =
        Job { spec, model: None, params, global: BlobId::of(&[]), submitted_at: Timestamp(0), author: None };
    let labels = Targets::Label((0..batch).map(|at| at % 2).collect());
    let train = Dataset { inputs, targets: labels };
    let split = Split { validation: train.clone(), train };
    let mut trainer = TorchTrainer::open(&job, folder, "site", split, device)?;
    let times = Times { device, began: RefCell::default() };
    trainer.train(start, Round { number: 1, of: 1 }, &times)?;
    times.print()
}

/// The state dict as `sheaf model import` converts it.
fn convert(state_dict: &Path, folder: &Path) -> Result<()> {
    let mut file = File::open(state_dict).with_context(|| format!("{}", state_dict.display()))?;
    let bytes = file.metadata()?.len();
    let (image, conversion) = Kind::EfficientNetLite0.convert(&torch::index(&mut file, bytes)?)?;
    conversion.write(&mut file, &mut File::create_new(folder.join(WEIGHTS_FILE))?, &mut |_| ())?;
    Ok(fs::write(folder.join(CONFIG_FILE), serde_json::to_vec(&image)?)?)
}

/// The parameters before the first round, of which the imported weights are a file's bytes.
fn start(spec: &RunSpec, config: Option<&ModelConfig>, bytes: &[u8], params: &ParamSpec) -> Result<Vec<f32>> {
    let stored = config.map(|_| Weights::parse(bytes, bytes.len() as u64)).transpose()?;
    let mut values = Vec::new();
    for (tensor, source) in params.tensors.iter().zip(initial(spec, config, stored.as_ref(), params)?) {
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

/// When each step began, and the ticks of the processor before it.
struct Times {
    device: Device,
    began: RefCell<Vec<(Instant, u64)>>,
}

/// Ticks of a second in `/proc/self/stat`, which is the same on every Linux.
const TICKS: f64 = 100.0;

impl Times {
    fn print(&self) -> Result<()> {
        let times = self.began.borrow();
        let [_, _, counted @ ..] = &times[..] else { bail!("there were too few steps") };
        let seconds: Vec<f64> =
            counted.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
        let (Some(first), Some(last)) = (counted.first(), counted.last()) else {
            bail!("there were too few steps")
        };
        let cpu_seconds = (last.1 - first.1) as f64 / TICKS / seconds.len() as f64;
        let status = fs::read_to_string("/proc/self/status")?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak of memory")?;
        let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse()?;
        let peak_mb = kilobytes * 1024.0 / 1e6;
        println!(
            "{}",
            serde_json::json!({ "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb })
        );
        Ok(())
    }
}

impl Watch for Times {
    fn progress(&self, progress: Progress) {
        if progress.phase == Phase::Training {
            // A GPU is told what to do and does it later; PyTorch's step ends with its loss.
            if let Device::Cuda(index) = self.device {
                tch::Cuda::synchronize(index as i64);
            }
            self.began.borrow_mut().push((Instant::now(), ticks().unwrap_or_default()));
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// User and system time of all threads, as proc(5) has them.
fn ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
