//! Over real QUIC a federation comes to the same bits as on simulated time.

mod leaver;
mod tiny_bert;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sheaf_sim::config::Setting;
use sheaf_sim::output::Report;
use sheaf_sim::rounds::{Row, Score, Traffic};
use sheaf_sim::simulate::simulate;
use tempfile::TempDir;

use leaver::Leaver;

const ROUNDS: usize = 3;
/// So many that they are not over before somebody looks for the first time.
const MANY: usize = 30;

const MLP: &str = "architecture = \"mlp\"\nhidden = [4]";
/// What an update leaves out is added to the site's next one.
const SPARSE: &str = "architecture = \"mlp\"\nhidden = [4]\n[compression]\nencoding = \"top-k\"\nshare = 0.2";
const TINY: &str = "name = \"tiny\"\nlora = { rank = 2 }";

/// A folder with rows of two columns, or of words, and a run of a model.
fn folder(model: &str, secure: &str, rounds: usize) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let mut table = String::from("x,z,text,y\n");
    for row in 0..240 {
        let (x, z) = (f64::from(row * 37 % 101) / 50.0 - 1.0, f64::from(row * 53 % 97) / 48.0 - 1.0);
        let (word, y) = if x + z / 2.0 > 0.1 { ("rises", "yes") } else { ("falls", "no") };
        table += &format!("{x:.3},{z:.3},{} {word},{y}\n", ["oil", "wheat", "ship"][row as usize % 3]);
    }
    fs::write(dir.path().join("all.csv"), table)?;
    tiny_bert::write(&dir.path().join("tiny"))?;
    let task = if model == TINY {
        "type = \"text-classification\"\ntext = \"text\"\nmax_length = 8"
    } else {
        "type = \"tabular-classification\"\nfeatures = [{ column = \"x\", type = \"numeric\" }, { column = \"z\", type = \"numeric\" }]"
    };
    let run = format!(
        r#"
name = "toy"
rounds = {rounds}
seed = 7
secure_aggregation = "{secure}"
[model]
{model}
[task]
{task}
dataset = "data"
label = "y"
labels = ["no", "yes"]
[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 8
validation_split = 0.2
[cohort]
min_sites = 6
min_updates = 3
fraction = 0.7
max_examples = 100
round_timeout = "1m"
"#
    );
    fs::write(dir.path().join("run.toml"), run)?;
    Ok(dir)
}

fn play(dir: &Path, more: &str, out: &str, left: Option<usize>) -> Result<Option<Report>> {
    let simulation = format!(
        "run = \"run.toml\"\nclients = 6\nseed = 3\nworkers = 2\n{more}\n[data]\nsource = {{ path = \"all.csv\" }}\n\
         test_share = 0.2\npartition = \"dirichlet\"\nalpha = 0.5\n"
    );
    fs::write(dir.join("sim.toml"), simulation)?;
    let setting = Setting::load(&dir.join("sim.toml"))?;
    Ok(simulate(&setting, &dir.join(out), &mut Leaver { left })?)
}

/// Whether two simulations came to the same, but for times and bytes.
fn is_same(one: &Report, other: &Report) -> bool {
    one.model == other.model
        && one.state == other.state
        && is_close(&one.validation, &other.validation)
        && one.history.len() == other.history.len()
        && one.history.iter().zip(&other.history).all(|(one, other)| {
            let of = |row: &Row| (row.round, row.attempt, row.cohort, row.participants, row.global);
            of(one) == of(other) && one.test == other.test && is_close(&one.validation, &other.validation)
        })
}

/// What the server wrote down may have lost its last bit on the way.
fn is_close(one: &Score, other: &Score) -> bool {
    one.keys().eq(other.keys())
        && one.values().zip(other.values()).all(|(one, other)| (one - other).abs() < 1e-12)
}

#[test]
fn a_real_network_gives_the_bits_of_a_simulated_one() -> Result<()> {
    for (model, secure, key) in
        [(MLP, "off", ""), (SPARSE, "off", ""), (MLP, "required", ""), (TINY, "required", "model = \"tiny\"")]
    {
        let dir = folder(model, secure, ROUNDS)?;
        let simulated = play(dir.path(), key, "simulated", None)?.context("nobody left")?;
        let quic = format!("{key}\ntransport = \"quic\"\nbaselines = [\"pooled\"]");
        let real = play(dir.path(), &quic, "real", None)?.context("nobody left")?;
        ensure!(real.rounds as usize == ROUNDS && real.abandoned == 0, "{real:?}");
        ensure!(is_same(&real, &simulated), "{model} {secure}: {real:?}\n{simulated:?}");
        ensure!(real.baselines.pooled.is_some(), "{real:?}");
        let weights = |out: &str| fs::read(dir.path().join(out).join("model/model.safetensors"));
        ensure!(weights("real")? == weights("simulated")?, "another model was written");
        let Traffic { up, down } = real.traffic;
        // They are the same, without messages.
        ensure!(
            up > 0 && down > 0 && up < simulated.traffic.up && down < simulated.traffic.down,
            "{model} {secure}: {up} {down} of {:?}",
            simulated.traffic
        );
        ensure!(real.history.iter().all(|row| row.simulated > 0.0), "it took time: {real:?}");
        ensure!(!dir.path().join("real/state").exists(), "what is no longer needed is gone");
    }
    Ok(())
}

#[test]
fn whoever_leaves_comes_back_to_the_rounds_that_were_told() -> Result<()> {
    for secure in ["off", "required"] {
        let dir = folder(MLP, secure, MANY)?;
        let simulated = play(dir.path(), "", "simulated", None)?.context("nobody left")?;
        let quic = "transport = \"quic\"";
        ensure!(play(dir.path(), quic, "out", Some(1))?.is_none(), "it was over after a round");
        let said = play(dir.path(), "", "out", None).map(|_| ()).unwrap_err().to_string();
        ensure!(said.contains("holds a simulation of other files"), "in memory it is another: {said}");
        let before = fs::read_to_string(dir.path().join("out/rounds.csv"))?;
        let report = play(dir.path(), quic, "out", None)?.context("nobody left")?;
        ensure!(report.is_completed() && report.rounds as usize == MANY, "{report:?}");
        // A secure sum that was cut off may be tried again, which is another sum.
        ensure!(secure == "required" || is_same(&report, &simulated), "{report:?}\n{simulated:?}");
        let after = fs::read_to_string(dir.path().join("out/rounds.csv"))?;
        let rows = before.lines().count();
        ensure!(rows > 1 && before.lines().eq(after.lines().take(rows)), "{before}\n{after}");
    }
    Ok(())
}
