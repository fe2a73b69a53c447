//! A simulated federation of clients that add a constant, all of them in each of a few rounds, beginning and end included.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sheaf_tests::binary;

use crate::case::{Case, Group, Sample};
use crate::process::{Started, children_cpu_seconds};
use crate::settings::Settings;

pub(crate) const ROUNDS: u32 = 5;

/// One that is not done after so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A federation that is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated {
    clients: u32,
    values: u32,
}

impl FromStr for Simulated {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('x')
            .and_then(|(clients, values)| Some((clients.parse().ok()?, values.parse().ok()?)));
        let (clients, values) =
            parts.ok_or(format!("`{text}` is no federation; write 100x1000: clients x values"))?;
        Ok(Self { clients, values })
    }
}

pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let group = |federation: &Simulated| {
        let Simulated { clients, values } = *federation;
        let case = |contestant, run: Box<dyn Fn() -> Result<Sample>>| Case {
            workload: "simulation",
            contestant,
            size_mb: f64::from(values) * 4.0 / 1e6,
            clients,
            run,
        };
        let mut group = vec![case("Sheaf", Box::new(move || ours(clients, values)))];
        if let Some(python) = settings.peers.clone() {
            for (name, script) in [("Flower", "flower_simulation.py"), ("NVFLARE", "nvflare_simulation.py")] {
                let python = python.clone();
                group.push(case(name, Box::new(move || peer(&python, script, clients, values))));
            }
        }
        group
    };
    settings.federations.iter().map(group).collect()
}

fn ours(clients: u32, values: u32) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let run = format!(
        "name = \"round\"\nrounds = {ROUNDS}\nsecure_aggregation = \"off\"\nmodel = {{ architecture = \"constant\", \
         parameters = {values} }}\ntask = {{ type = \"none\" }}\ncohort = {{ min_sites = {clients} }}\n"
    );
    fs::write(folder.path().join("run.toml"), run)?;
    let file = folder.path().join("sim.toml");
    fs::write(&file, format!("run = \"run.toml\"\nclients = {clients}\n"))?;
    let mut command = Command::new(binary("sheaf-sim")?);
    timed(command.arg("run").arg(file).arg("--out").arg(folder.path().join("out")), folder.path())
}

fn peer(python: &PathBuf, script: &str, clients: u32, values: u32) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let mut command = Command::new(python);
    command.arg("-B").arg(script).args([values, clients, ROUNDS].map(|number| number.to_string()));
    timed(command.env("HOME", folder.path()).current_dir(folder.path()), folder.path())
}

/// A program from its start to its end.
fn timed(command: &mut Command, folder: &Path) -> Result<Sample> {
    let log = folder.join("log");
    command.stdout(Stdio::null()).stderr(File::create(&log)?);
    let (began, cpu) = (Instant::now(), children_cpu_seconds());
    let status = Started::new(command)?.end(PATIENCE)?;
    let why = fs::read_to_string(&log).unwrap_or_default();
    ensure!(status.success(), "{}", why.trim().lines().last().unwrap_or("it said nothing"));
    let seconds = vec![began.elapsed().as_secs_f64()];
    Ok(Sample { seconds, cpu_seconds: Some(children_cpu_seconds() - cpu), ..Sample::default() })
}
