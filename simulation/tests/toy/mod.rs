//! A table of two numbers and whether their sum is large, and simulations that learn it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sheaf_sim::config::Setting;
use sheaf_sim::output::Report;
use sheaf_sim::simulate::simulate;
use tempfile::TempDir;

use super::leaver::Leaver;

/// Rounds of every run here.
pub(crate) const ROUNDS: usize = 4;

/// Trouble of every kind.
const TROUBLE: &str = r#"
[devices]
speed = { median = 20, sigma = 1.0 }
stragglers = { share = 0.2, slowdown = 20 }
dropout = 0.1
availability = { share = 0.9, online = "2m" }
[network]
latency_ms = { min = 5, max = 200 }
"#;

/// A folder with a table of three columns, a run and a simulation of it.
pub(crate) fn folder(run: &str, simulation: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let mut table = String::from("x,z,ward,y\n");
    for row in 0..600 {
        let (x, z) = (f64::from(row * 37 % 101) / 50.0 - 1.0, f64::from(row * 53 % 97) / 48.0 - 1.0);
        let y = if x + z / 2.0 > 0.1 { "yes" } else { "no" };
        table += &format!("{x:.3},{z:.3},{},{y}\n", row % 5);
    }
    fs::write(dir.path().join("all.csv"), table)?;
    let run = format!(
        r#"
name = "toy"
rounds = {ROUNDS}
seed = 7
{run}
[task]
type = "tabular-classification"
dataset = "data"
label = "y"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]
[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 8
validation_split = 0.2
[cohort]
min_sites = 6
min_updates = 3
fraction = 0.6
max_examples = 200
round_timeout = "5m"
"#
    );
    fs::write(dir.path().join("run.toml"), run)?;
    fs::write(dir.path().join("sim.toml"), format!("run = \"run.toml\"\n{simulation}"))?;
    Ok(dir)
}

pub(crate) const OPEN: &str =
    "secure_aggregation = \"off\"\nmodel = { architecture = \"mlp\", hidden = [4] }";

pub(crate) fn clients(more: &str) -> String {
    format!(
        "clients = 20\nseed = 3\n{more}\n[data]\nsource = {{ path = \"all.csv\" }}\ntest_share = 0.2\npartition = \"dirichlet\"\nalpha = 0.5\n{TROUBLE}"
    )
}

pub(crate) fn play(dir: &Path, out: &str) -> Result<Report> {
    let setting = Setting::load(&dir.join("sim.toml"))?;
    simulate(&setting, &dir.join(out), &mut Leaver { left: None })?.context("nobody left")
}

/// The program, which says nothing.
pub(crate) fn sheaf_sim(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf-sim"));
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
