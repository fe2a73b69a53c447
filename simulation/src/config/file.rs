//! `sim.toml` as it is written, and how it becomes a [`Simulation`] or one sentence.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sheaf_client::config::{DatasetConfig, DatasetFile};
use sheaf_client::device::DeviceChoice;
use sheaf_common::config::Invalid;
use sheaf_common::model::foreign::kind::Kind;

use super::measure::Written;
use super::{
    Availability, Baseline, CLIENTS_MAX, Data, Devices, Measure, Model, Network, Partition, QUIC_CLIENTS_MAX,
    Simulation, Stragglers, Test, Transport,
};

/// Clients are so fast, and so far away, where nothing is said: a small model on a laptop behind a home's line.
const SPEED: f64 = 1000.0;
const LATENCY_MS: f64 = 25.0;
const DOWN_MBIT: f64 = 50.0;
const UP_MBIT: f64 = 10.0;

/// Least speed or bandwidth: with less nothing would ever come to its end.
const LEAST: f64 = 1e-3;

/// Images that memory is too small for go to this folder, beside the file.
const SPILL: &str = ".";

/// Most workers.
const WORKERS_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SimulationFile {
    run: PathBuf,
    model: Option<ModelFile>,
    #[serde(default)]
    transport: Transport,
    clients: u32,
    #[serde(default)]
    seed: u64,
    workers: Option<usize>,
    #[serde(default = "cpu")]
    device: DeviceChoice,
    #[serde(default)]
    baselines: Vec<Baseline>,
    data: Option<DataFile>,
    devices: Option<DevicesFile>,
    network: Option<NetworkFile>,
}

fn cpu() -> DeviceChoice {
    DeviceChoice::Cpu
}

/// The path alone, where what is there says itself what it is.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write the path of a folder or of a .gguf file, or { path = …, kind = … }")]
enum ModelFile {
    Path(PathBuf),
    OfKind(OfKindFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfKindFile {
    path: PathBuf,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DataFile {
    source: DatasetFile,
    test: Option<DatasetFile>,
    test_share: Option<f64>,
    partition: PartitionName,
    column: Option<String>,
    alpha: Option<f64>,
    shards_per_client: Option<u32>,
    sigma: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartitionName {
    Column,
    Iid,
    Dirichlet,
    Shards,
    Quantity,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DevicesFile {
    speed: Option<Written>,
    stragglers: Option<StragglersFile>,
    #[serde(default)]
    dropout: f64,
    availability: Option<AvailabilityFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StragglersFile {
    share: f64,
    slowdown: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AvailabilityFile {
    share: f64,
    online: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    latency_ms: Option<Written>,
    down_mbit: Option<Written>,
    up_mbit: Option<Written>,
}

impl TryFrom<SimulationFile> for Simulation {
    type Error = Invalid;

    fn try_from(file: SimulationFile) -> Result<Self, Invalid> {
        if file.run.as_os_str().is_empty() {
            return Err(Invalid::new("run", "is empty; name the run's file"));
        }
        let clients = NonZeroU32::new(file.clients).filter(|clients| clients.get() <= CLIENTS_MAX);
        let clients =
            clients.ok_or_else(|| Invalid::new("clients", format!("must be from 1 to {CLIENTS_MAX}")))?;
        if file.transport == Transport::Quic {
            of_simulated_time(&file)?;
            if clients.get() > QUIC_CLIENTS_MAX {
                let problem = format!(
                    "must be at most {QUIC_CLIENTS_MAX} with transport = \"quic\", where each has a socket: leave `transport` out for more"
                );
                return Err(Invalid::new("clients", problem));
            }
        }
        let workers = file.workers.map(|workers| {
            let workers = NonZeroUsize::new(workers).filter(|workers| workers.get() <= WORKERS_MAX);
            workers.ok_or_else(|| Invalid::new("workers", format!("must be from 1 to {WORKERS_MAX}")))
        });
        let mut baselines = BTreeSet::new();
        for (number, baseline) in file.baselines.into_iter().enumerate() {
            if !baselines.insert(baseline) {
                return Err(Invalid::new(format!("baselines.{number}"), "is listed twice"));
            }
        }
        Ok(Self {
            run: file.run,
            model: file.model.map(Model::try_from).transpose()?,
            transport: file.transport,
            clients,
            seed: file.seed,
            workers: workers.transpose()?,
            device: file.device,
            baselines,
            data: file.data.map(Data::try_from).transpose()?,
            devices: file.devices.unwrap_or_default().try_into()?,
            network: file.network.unwrap_or_default().try_into()?,
        })
    }
}

/// Refuses what only simulated time can do.
fn of_simulated_time(file: &SimulationFile) -> Result<(), Invalid> {
    let tables = [("devices", file.devices.is_some()), ("network", file.network.is_some())];
    match tables.iter().find(|(_, given)| *given) {
        Some((table, _)) => Err(Invalid::new(
            *table,
            "is of no use with transport = \"quic\": clients are as fast, as near and as reliable as this machine; leave one of the two out",
        )),
        None => Ok(()),
    }
}

impl TryFrom<ModelFile> for Model {
    type Error = Invalid;

    fn try_from(file: ModelFile) -> Result<Self, Invalid> {
        let (path, kind) = match file {
            ModelFile::Path(path) => (path, None),
            ModelFile::OfKind(OfKindFile { path, kind }) => (path, kind),
        };
        if path.as_os_str().is_empty() {
            return Err(Invalid::new("model", "is empty; name the model's folder"));
        }
        let of = |kind: String| {
            kind.parse().map_err(|_| {
                Invalid::new(
                    "model.kind",
                    format!("`{kind}` is none that is simulated: use {}", Kind::names()),
                )
            })
        };
        Ok(Self { path, kind: kind.map(of).transpose()? })
    }
}

impl TryFrom<DataFile> for Data {
    type Error = Invalid;

    fn try_from(file: DataFile) -> Result<Self, Invalid> {
        let partition = partition(&file)?;
        let test = match (file.test, file.test_share) {
            (None, None) => Test::Nothing,
            (Some(_), Some(_)) => {
                return Err(Invalid::new(
                    "data.test_share",
                    "and data.test exclude each other: leave one out",
                ));
            }
            (Some(test), None) => {
                Test::Source(Box::new(DatasetConfig::of("data.test", test, Path::new(SPILL))?))
            }
            (None, Some(share)) if share > 0.0 && share < 1.0 => Test::Share(share),
            (None, Some(_)) => return Err(Invalid::new("data.test_share", "must be above 0 and below 1")),
        };
        Ok(Self { source: DatasetConfig::of("data.source", file.source, Path::new(SPILL))?, test, partition })
    }
}

fn partition(file: &DataFile) -> Result<Partition, Invalid> {
    use PartitionName as Name;
    let keys = [
        ("column", file.column.is_some(), Name::Column),
        ("alpha", file.alpha.is_some(), Name::Dirichlet),
        ("shards_per_client", file.shards_per_client.is_some(), Name::Shards),
        ("sigma", file.sigma.is_some(), Name::Quantity),
    ];
    if let Some((key, ..)) = keys.iter().find(|(_, given, of)| *given && *of != file.partition) {
        return Err(Invalid::new(format!("data.{key}"), "is of no use with this partition: leave it out"));
    }
    let missing = |key: &str, what: &str| Invalid::new(format!("data.{key}"), format!("is missing: {what}"));
    Ok(match file.partition {
        Name::Iid => Partition::Iid,
        Name::Column => {
            let column = file.column.clone().filter(|column| !column.is_empty());
            Partition::Column(
                column.ok_or_else(|| missing("column", "name the column whose values are clients"))?,
            )
        }
        Name::Dirichlet => {
            let alpha = file.alpha.ok_or_else(|| missing("alpha", "0.1 is very uneven, 100 nearly even"))?;
            if !(1e-3..=1e6).contains(&alpha) {
                return Err(Invalid::new("data.alpha", "must be from 0.001 to 1000000"));
            }
            Partition::Dirichlet { alpha }
        }
        Name::Shards => {
            let shards = file.shards_per_client;
            let shards =
                shards.ok_or_else(|| missing("shards_per_client", "2 gives a client about 2 labels"))?;
            let per_client = NonZeroU32::new(shards).filter(|shards| shards.get() <= 1000);
            Partition::Shards {
                per_client: per_client
                    .ok_or_else(|| Invalid::new("data.shards_per_client", "must be from 1 to 1000"))?,
            }
        }
        Name::Quantity => {
            let sigma = file.sigma.ok_or_else(|| {
                missing("sigma", "1 makes the largest client some 10 times as large as most")
            })?;
            if !(0.0..=5.0).contains(&sigma) {
                return Err(Invalid::new("data.sigma", "must be from 0 to 5"));
            }
            Partition::Quantity { sigma }
        }
    })
}

fn measure(written: Option<Written>, default: f64, key: &str, least: f64) -> Result<Measure, Invalid> {
    written.map_or(Ok(Measure::Fixed(default)), |written| written.meaning(key, least))
}

impl TryFrom<DevicesFile> for Devices {
    type Error = Invalid;

    fn try_from(file: DevicesFile) -> Result<Self, Invalid> {
        let stragglers = match file.stragglers {
            None => Stragglers { share: 0.0, slowdown: 1.0 },
            Some(StragglersFile { share, slowdown }) => {
                if !(0.0..=1.0).contains(&share) {
                    return Err(Invalid::new("devices.stragglers.share", "must be from 0 to 1"));
                }
                if !(1.0..=1e6).contains(&slowdown) {
                    return Err(Invalid::new("devices.stragglers.slowdown", "must be from 1 to 1000000"));
                }
                Stragglers { share, slowdown }
            }
        };
        if !(0.0..1.0).contains(&file.dropout) {
            return Err(Invalid::new("devices.dropout", "must be from 0 to below 1"));
        }
        Ok(Self {
            speed: measure(file.speed, SPEED, "devices.speed", LEAST)?,
            stragglers,
            dropout: file.dropout,
            availability: file.availability.map(Availability::try_from).transpose()?,
        })
    }
}

impl TryFrom<AvailabilityFile> for Availability {
    type Error = Invalid;

    fn try_from(file: AvailabilityFile) -> Result<Self, Invalid> {
        if !(file.share > 0.0 && file.share < 1.0) {
            return Err(Invalid::new("devices.availability.share", "must be above 0 and below 1"));
        }
        let key = "devices.availability.online";
        let online = humantime::parse_duration(&file.online).map_err(|e| {
            Invalid::new(key, format!("`{}` is no time ({e}); write \"2h\" for instance", file.online))
        })?;
        if !(Duration::from_secs(1)..=Duration::from_secs(365 * 86_400)).contains(&online) {
            return Err(Invalid::new(key, "must be from 1s to 365d"));
        }
        Ok(Self { share: file.share, online })
    }
}

impl TryFrom<NetworkFile> for Network {
    type Error = Invalid;

    fn try_from(file: NetworkFile) -> Result<Self, Invalid> {
        Ok(Self {
            latency_ms: measure(file.latency_ms, LATENCY_MS, "network.latency_ms", 0.0)?,
            down_mbit: measure(file.down_mbit, DOWN_MBIT, "network.down_mbit", LEAST)?,
            up_mbit: measure(file.up_mbit, UP_MBIT, "network.up_mbit", LEAST)?,
        })
    }
}
