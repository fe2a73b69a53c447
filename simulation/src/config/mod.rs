//! `sim.toml`: which run, how many clients, what each of them holds, and how fast and how reliable they are.
//!
//! `file` holds the written form. The typed form is complete: whatever is not written has its default here, and paths
//! start at the file's own folder.

mod file;
mod measure;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sheaf_client::config::DatasetConfig;
use sheaf_client::device::{self, DeviceChoice};
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_common::id::ClientId;
use sheaf_common::model::foreign::kind::Kind;
use sheaf_common::run::{Architecture, BatchNorm, ModelSource, RunSpec, TaskInput};

pub use measure::Measure;

/// Most clients of a simulation.
pub const CLIENTS_MAX: u32 = 1_000_000;

/// Most clients over QUIC: each has a thread, a socket and files that are open, of which a program may have 1024 by default.
pub const QUIC_CLIENTS_MAX: u32 = 250;

/// A federation to be simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// The run's file, as an operator submits it.
    pub run: PathBuf,
    /// The imported model that the run starts from, if it starts from one.
    pub model: Option<Model>,
    /// How clients and server reach each other.
    pub transport: Transport,
    /// Virtual clients.
    pub clients: NonZeroU32,
    /// Seed of the partition and of everything that differs from client to client; the run has its own.
    pub seed: u64,
    /// Clients that train at a time, on one GPU if that is the device; as many as there are cores when not given.
    pub workers: Option<NonZeroUsize>,
    /// Where they train.
    pub device: DeviceChoice,
    /// What the federation is compared with.
    pub baselines: BTreeSet<Baseline>,
    /// What the clients hold; nothing where the run needs no data.
    pub data: Option<Data>,
    /// How fast and how reliable clients are.
    pub devices: Devices,
    /// How they are connected.
    pub network: Network,
}

/// How clients and server reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Not at all: what they say is handed over on simulated time.
    #[default]
    Memory,
    /// By QUIC on loopback, on real time.
    Quic,
}

/// A model as `sheaf model import` takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its folder or file.
    pub path: PathBuf,
    /// What it is, if that is a file of weights alone.
    pub kind: Option<Kind>,
}

/// What a federation is compared with: the same trainer and the same epochs in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Each client alone, with its own data.
    Local,
    /// One client that has all data.
    Pooled,
}

/// The examples of all clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Where they are.
    pub source: DatasetConfig,
    /// What the global model is tested on after every round.
    pub test: Test,
    /// Who gets which.
    pub partition: Partition,
}

/// What the global model is tested on: examples that no client has.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Nothing.
    Nothing,
    /// Files of their own.
    Source(Box<DatasetConfig>),
    /// This share of the source, of every label, in (0, 1).
    Share(f64),
}

/// Which examples a client gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Partition {
    /// Those that have a value of this column: a client for each value, so the values must be as many as the clients.
    Column(String),
    /// A random part, as large as everybody else's.
    Iid,
    /// Of each label the clients' shares, drawn from a Dirichlet distribution with this concentration (Yurochkin et al. 2019).
    Dirichlet {
        /// The smaller, the fewer labels a client has.
        alpha: f64,
    },
    /// So many of the pieces into which the examples, sorted by label, are cut (McMahan et al. 2017).
    Shards {
        /// Pieces of each client.
        per_client: NonZeroU32,
    },
    /// A random part, of a size drawn from a log-normal distribution.
    Quantity {
        /// Standard deviation of the size's logarithm.
        sigma: f64,
    },
}

/// How fast and how reliable clients are.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices {
    /// Examples that a client trains on in a second of simulated time.
    pub speed: Measure,
    /// In each round this share of the cohort, drawn anew, is slower.
    pub stragglers: Stragglers,
    /// Probability that a client that is asked to train falls silent in that round, in [0, 1).
    pub dropout: f64,
    /// When clients are connected; always when not given.
    pub availability: Option<Availability>,
}

/// Who is slower than usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stragglers {
    /// In [0, 1].
    pub share: f64,
    /// How many times slower, at least 1.
    pub slowdown: f64,
}

/// How clients come and go: for times drawn from exponential distributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Availability {
    /// Share of the time for which a client is connected, in (0, 1).
    pub share: f64,
    /// Mean time for which it stays.
    pub online: Duration,
}

/// How clients are connected; each has its line for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Milliseconds from one end to the other.
    pub latency_ms: Measure,
    /// Megabits per second to the client.
    pub down_mbit: Measure,
    /// Megabits per second from the client.
    pub up_mbit: Measure,
}

/// `sim.toml` or what it names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// A file is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
}

/// A simulation with the run that it is of.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The simulation.
    pub simulation: Simulation,
    /// The run's file.
    pub run_text: String,
    /// What it means.
    pub spec: RunSpec,
}

impl Setting {
    /// Reads `sim.toml` and the run that it names, and checks them against each other. Nothing is begun before both are
    /// understood.
    pub fn load(path: &Path) -> Result<Self, SettingError> {
        let text = read(path)?;
        let file = path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new(""));
        let simulation = Simulation::parse(&file, &text)?.relative_to(folder);
        let located = |invalid: Invalid| ConfigError::locate(&file, &text, &invalid);
        simulation.find_data().map_err(located)?;
        simulation.model.as_ref().map_or(Ok(()), Model::find).map_err(located)?;
        let run_text = read(&simulation.run)?;
        let spec = RunSpec::parse(&simulation.run.display().to_string(), &run_text)?;
        simulation.check(&spec).map_err(located)?;
        simulation.find_device(&spec).map_err(located)?;
        Ok(Self { simulation, run_text, spec })
    }

    /// The same with the seeds that come so many later, of the simulation and of its run.
    #[must_use]
    pub fn reseeded(mut self, later: u64) -> Self {
        if later == 0 {
            return self;
        }
        self.simulation.seed = self.simulation.seed.wrapping_add(later);
        // What is larger than TOML's integers is written as the largest.
        let seed = i64::try_from(self.spec.seed.saturating_add(later)).unwrap_or(i64::MAX);
        self.spec.seed = seed.unsigned_abs();
        // It was understood before.
        if let Ok(mut text) = self.run_text.parse::<toml_edit::DocumentMut>() {
            text["seed"] = toml_edit::value(seed);
            self.run_text = text.to_string();
        }
        self
    }
}

impl Simulation {
    /// The meaning of `sim.toml`'s text, paths as they are written. `file` is its name for the message.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        config::read::<file::SimulationFile, Self>(file, text)
    }

    /// Clients that train at a time.
    pub fn num_workers(&self) -> NonZeroUsize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// The name of a client, from 0: as wide for all, so that they sort by number.
    pub fn name(&self, client: u32) -> Result<ClientId, sheaf_common::id::BadName> {
        let width = self.clients.get().to_string().len();
        format!("client-{:0width$}", client + 1).parse()
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        self.run = folder.join(&self.run);
        self.model = self.model.map(|model| Model { path: folder.join(&model.path), ..model });
        self.data = self.data.map(|data| {
            let test = match data.test {
                Test::Source(source) => Test::Source(Box::new(source.relative_to(folder))),
                test @ (Test::Nothing | Test::Share(_)) => test,
            };
            Data { source: data.source.relative_to(folder), test, ..data }
        });
        self
    }

    fn find_data(&self) -> Result<(), Invalid> {
        let Some(data) = &self.data else { return Ok(()) };
        data.source.find("data.source")?;
        if let Test::Source(test) = &data.test {
            test.find("data.test")?;
        }
        Ok(())
    }

    /// Sees to it that the device is there, if the run trains on one: else every client would decline, and each attempt at a round
    /// come to nothing.
    fn find_device(&self, spec: &RunSpec) -> Result<(), Invalid> {
        match &spec.model.source {
            ModelSource::Fresh(Architecture::Constant(_) | Architecture::Softmax) => return Ok(()),
            ModelSource::Fresh(Architecture::Mlp(_)) | ModelSource::Imported(_) => {}
        }
        let found = device::resolve(device::for_run(self.device, &spec.training));
        found.map(|_| ()).map_err(|error| Invalid::new("device", error.to_string()))
    }

    /// Whether the run can be simulated so.
    fn check(&self, spec: &RunSpec) -> Result<(), Invalid> {
        let invalid = |key: &str, problem: String| Err(Invalid::new(key, problem));
        match (&spec.model.source, &self.model) {
            (ModelSource::Imported(name), None) => {
                return invalid(
                    "model",
                    format!(
                        "is missing: the run starts from the imported model `{name}`, so give the folder or file that it is imported from"
                    ),
                );
            }
            (ModelSource::Fresh(_), Some(_)) => {
                return invalid(
                    "model",
                    "is of no use: the run's model starts from its seed; leave it out, or have `model.name` in the run"
                        .into(),
                );
            }
            (ModelSource::Imported(_), Some(_)) | (ModelSource::Fresh(_), None) => {}
        }
        let needs_data = spec.task.input != TaskInput::Nothing;
        if needs_data && self.data.is_none() {
            return invalid(
                "data",
                "is missing: the run trains on examples, so say which and who gets them".into(),
            );
        }
        if !needs_data && self.data.is_some() {
            return invalid("data", "is of no use: the run's task has type \"none\"".into());
        }
        if !needs_data && !self.baselines.is_empty() {
            return invalid("baselines", "are of no use without data".into());
        }
        if !self.baselines.is_empty() && self.data.as_ref().is_some_and(|data| data.test == Test::Nothing) {
            return invalid(
                "baselines",
                "are compared on a common test set: give data.test_share, or files as data.test".into(),
            );
        }
        if !self.baselines.is_empty() && spec.model.batch_norm == BatchNorm::Local {
            return invalid(
                "baselines",
                "have one model for all, and the run's `model.batch_norm` is \"local\": leave them out"
                    .into(),
            );
        }
        let trains = |name: &ClientId| {
            let is_asked = spec.cohort.sites.as_ref().is_none_or(|sites| sites.contains(name));
            is_asked && !spec.validation.leaves_out(name.as_str())
        };
        let names = (0..self.clients.get()).filter_map(|number| self.name(number).ok());
        let (trainers, awaited) = (names.filter(trains).count(), spec.cohort.min_sites as usize);
        if trainers < awaited {
            return invalid(
                "clients",
                format!(
                    "the run waits for {awaited} clients (cohort.min_sites): have at least so many that may train in it"
                ),
            );
        }
        if self.transport == Transport::Quic && awaited < trainers {
            return invalid(
                "transport",
                format!(
                    "over QUIC a round begins as soon as {awaited} clients are there (cohort.min_sites), whichever these are: have min_sites = {trainers} there, all that may train"
                ),
            );
        }
        Ok(())
    }
}

impl Model {
    /// Sees to it that it is there and says what it is.
    fn find(&self) -> Result<(), Invalid> {
        let Self { path, kind } = self;
        let is_gguf = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        let (key, problem) = match kind {
            _ if !path.exists() => ("model", "does not exist; a relative path starts at this file's folder"),
            Some(_) if path.is_dir() || is_gguf => {
                ("model.kind", "says itself what it is: leave the kind out")
            }
            None if path.is_file() && !is_gguf => (
                "model",
                "is a file of weights alone: write { path = …, kind = … }, with \"resnet18\" for instance",
            ),
            Some(_) | None => return Ok(()),
        };
        Err(Invalid::new(key, format!("{} {problem}", path.display())))
    }
}

fn read(path: &Path) -> Result<String, SettingError> {
    fs::read_to_string(path).map_err(|reason| SettingError::Unreadable { path: path.to_owned(), reason })
}
