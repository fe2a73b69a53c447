//! Simulations of runs that start from an imported model: of a text encoder that is small enough to be written here.

mod leaver;
mod same;
mod tiny_bert;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use sheaf_sim::config::Setting;
use sheaf_sim::output::Report;
use sheaf_sim::simulate::simulate;
use tempfile::TempDir;

use leaver::Leaver;
use same::same;

const ROUNDS: usize = 3;

/// Bytes of a file of the model, more than of everything else that is sent: it takes longer than clients stay.
const LARGE: usize = 2_000_000;

/// A folder with texts of two topics, the encoder, a run of it, and a simulation of that.
fn folder(model: &str, secure: &str, simulation: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let mut table = String::from("text,topic\n");
    for row in 0..120 {
        let what = ["oil", "wheat", "ship", "bank"][row % 4];
        let (does, topic) = if row % 3 == 0 { ("rises profit", "up") } else { ("falls", "down") };
        table += &format!("{what} {does}{},{topic}\n", [" trade", "", " trade trade"][row / 4 % 3]);
    }
    fs::write(dir.path().join("all.csv"), table)?;
    tiny_bert::write(&dir.path().join("tiny"))?;
    fs::write(dir.path().join("tiny/vocab.txt"), vec![b'\n'; LARGE])?;
    let run = format!(
        r#"
name = "topics"
rounds = {ROUNDS}
seed = 7
secure_aggregation = "{secure}"
[model]
name = "tiny"
{model}
[task]
type = "text-classification"
dataset = "data"
text = "text"
label = "topic"
labels = ["down", "up"]
max_length = 8
[training]
optimizer = "adamw"
learning_rate = 0.01
batch_size = 4
validation_split = 0.2
[cohort]
min_sites = 4
min_updates = 3
fraction = 0.6
round_timeout = "5m"
"#
    );
    fs::write(dir.path().join("run.toml"), run)?;
    let simulation = format!(
        "run = \"run.toml\"\nmodel = \"tiny\"\nclients = 8\nseed = 3\n{simulation}\n[data]\nsource = {{ path = \"all.csv\" }}\n\
         test_share = 0.2\npartition = \"iid\"\n[devices]\nspeed = {{ median = 20, sigma = 0.5 }}\n\
         availability = {{ share = 0.8, online = \"10s\" }}\n[network]\ndown_mbit = 1\n"
    );
    fs::write(dir.path().join("sim.toml"), simulation)?;
    Ok(dir)
}

fn play(dir: &Path, out: &str, left: Option<usize>) -> Result<Option<Report>> {
    let setting = Setting::load(&dir.join("sim.toml"))?;
    Ok(simulate(&setting, &dir.join(out), &mut Leaver { left })?)
}

/// The names of the tensors that differ between the model that came of it and the one that was imported.
fn changed(dir: &Path, out: &str) -> Result<Vec<String>> {
    let files =
        [dir.join("tiny"), dir.join(out).join("model")].map(|folder| folder.join("model.safetensors"));
    let [before, after] = files.map(fs::read);
    let (before, after) = (before?, after?);
    let (before, after) = (SafeTensors::deserialize(&before)?, SafeTensors::deserialize(&after)?);
    let mut changed = Vec::new();
    for (name, tensor) in after.tensors() {
        // In a model for Hugging Face the encoder's names begin with the family's.
        let known = before.tensor(name.strip_prefix("bert.").unwrap_or(&name));
        if known.is_ok_and(|known| known.data() != tensor.data()) {
            changed.push(name);
        }
    }
    Ok(changed)
}

#[test]
fn any_number_of_workers_gives_the_same_bits_and_what_is_frozen_stays() -> Result<()> {
    let unfreezing =
        "unfreeze = [{ round = 1, trainable = \"head\" }, { round = 3, trainable = \"last:1\" }]";
    for (model, secure, trained) in [
        ("trainable = \"head\"", "off", None),
        ("trainable = \"last:1\"", "off", Some("encoder.layer.1.output.dense.weight")),
        (unfreezing, "required", Some("encoder.layer.1.output.dense.weight")),
        ("lora = { rank = 2 }", "required", Some("encoder.layer.0.attention.self.query.weight")),
    ] {
        let mut ends = Vec::new();
        for workers in ["workers = 1", "workers = 3"] {
            let dir = folder(model, secure, workers)?;
            let report = play(dir.path(), "out", None)?.context("nobody left")?;
            ensure!(report.is_completed() && report.rounds as usize == ROUNDS, "{model}: {report:?}");
            let changed = changed(dir.path(), "out")?;
            let expected = |name: &String| trained.is_some_and(|trained| name.ends_with(trained));
            ensure!(changed.iter().any(expected) == trained.is_some(), "{model}: {changed:?}");
            let first = |name: &String| name.contains("layer.0.output") || name.contains("embeddings");
            ensure!(!changed.iter().any(first), "{model}: {changed:?}");
            ensure!(dir.path().join("out/model/tokenizer.json").is_file(), "it opens in transformers");
            // Whoever was in a cohort fetched the model, and nobody did twice.
            let times = report.traffic.down / LARGE as u64;
            ensure!((5..=8).contains(&times), "{model}: {times} times the model");
            ends.push(same(&report));
        }
        ensure!(ends[0] == ends[1], "{model}: {ends:?}");
    }
    Ok(())
}

#[test]
fn whoever_leaves_comes_back_to_the_same_bits() -> Result<()> {
    for secure in ["off", "required"] {
        let dir = folder("trainable = \"last:1\"", secure, "")?;
        let undisturbed = play(dir.path(), "undisturbed", None)?.context("nobody left")?;
        ensure!(play(dir.path(), "out", Some(1))?.is_none(), "it was over after a round");
        let report = play(dir.path(), "out", None)?.context("nobody left")?;
        ensure!(same(&report) == same(&undisturbed), "{report:?}\n{undisturbed:?}");
    }
    Ok(())
}

#[test]
fn baselines_begin_with_the_imported_model_and_train_as_much_of_it() -> Result<()> {
    let unfreezing = "unfreeze = [{ round = 1, trainable = \"head\" }, { round = 2, trainable = \"all\" }]";
    let dir = folder(unfreezing, "off", "baselines = [\"local\", \"pooled\"]")?;
    let report = play(dir.path(), "out", None)?.context("nobody left")?;
    let (pooled, local) =
        (report.baselines.pooled.context("no pooled")?, report.baselines.local.context("no local")?);
    let loss = |score: &sheaf_sim::rounds::Score| score.get("loss").copied().context("no loss");
    // Three passes over a hundred texts that two words tell apart.
    ensure!(loss(&pooled)? < 0.3 && loss(&pooled)? < loss(&local)?, "{pooled:?} {local:?}");
    Ok(())
}

#[test]
fn another_model_is_another_simulation() -> Result<()> {
    let dir = folder("trainable = \"head\"", "off", "")?;
    ensure!(play(dir.path(), "out", Some(1))?.is_none(), "it was over after a round");
    let tokenizer = dir.path().join("tiny/tokenizer.json");
    fs::write(&tokenizer, fs::read_to_string(&tokenizer)?.replace("trade", "trades"))?;
    let said = play(dir.path(), "out", None).map(|_| ()).unwrap_err().to_string();
    ensure!(said.contains("holds a simulation of other files"), "{said}");
    Ok(())
}

#[test]
fn what_is_no_model_is_refused_in_a_sentence() -> Result<()> {
    let dir = folder("trainable = \"head\"", "off", "")?;
    fs::remove_file(dir.path().join("tiny/tokenizer.json"))?;
    let said = play(dir.path(), "out", None).map(|_| ()).unwrap_err().to_string();
    ensure!(
        said.starts_with("the model of sim.toml cannot be imported: tokenizer.json is missing from"),
        "{said}"
    );
    let dir = folder("trainable = \"last:9\"", "off", "")?;
    let said = play(dir.path(), "out", None).map(|_| ()).unwrap_err().to_string();
    ensure!(said.contains("run.toml:8: model.trainable"), "{said}");
    Ok(())
}
