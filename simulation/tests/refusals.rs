//! What is refused leaves nothing behind, what breaks off leaves what there was, and only the same simulation goes on from it.

mod leaver;
mod toy;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use sheaf_sim::compare;
use sheaf_sim::config::Setting;
use sheaf_sim::rounds::Row;
use sheaf_sim::simulate::{Audience, simulate};

use leaver::Leaver;
use toy::{OPEN, ROUNDS, clients, folder, play, sheaf_sim};

/// Replaces a part of a file, which must be there.
fn replace(path: &Path, old: &str, new: &str) -> Result<()> {
    let text = fs::read_to_string(path)?;
    ensure!(text.contains(old), "{old} is not in {text}");
    Ok(fs::write(path, text.replacen(old, new, 1))?)
}

#[test]
fn wherever_its_files_are_a_simulation_is_the_same() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let first = play(dir.path(), "out")?;
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    for file in ["sim.toml", "run.toml", "all.csv"] {
        fs::copy(dir.path().join(file), elsewhere.join(file))?;
    }
    let setting = Setting::load(&elsewhere.join("sim.toml"))?;
    let again = simulate(&setting, &dir.path().join("out"), &mut Leaver { left: None })?;
    ensure!(again.context("nobody left")?.id == first.id, "it is another");
    Ok(())
}

#[test]
fn with_other_numbers_to_learn_or_in_a_file_it_is_another() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let (run, sim, data) =
        (dir.path().join("run.toml"), dir.path().join("sim.toml"), dir.path().join("all.csv"));
    replace(&run, "tabular-classification", "tabular-regression")?;
    replace(&run, "label = \"y\"\nlabels = [\"no\", \"yes\"]", "label = \"ward\"")?;
    replace(&sim, "\"dirichlet\"\nalpha = 0.5", "\"iid\"")?;
    for (memory, more) in [("in memory", ""), ("in a file", ", memory_mib = 0")] {
        replace(&sim, "\"all.csv\"", &format!("\"all.csv\"{more}"))?;
        let first = play(dir.path(), memory)?;
        ensure!(play(dir.path(), memory)?.id == first.id, "{memory}");
        for (old, new) in [(",1,", ",4,"), ("-0.260,", "-0.261,")] {
            replace(&data, old, new)?;
            let said = play(dir.path(), memory).map(|_| ()).unwrap_err().to_string();
            ensure!(said.contains("holds a simulation of other files"), "{memory}: {said}");
            replace(&data, new, old)?;
        }
        ensure!(!dir.path().join(memory).join("state").exists(), "{memory}: a refusal left a state");
    }
    Ok(())
}

#[test]
fn a_test_share_of_no_example_is_refused_and_nothing_is_left() -> Result<()> {
    let dir = folder(OPEN, &clients("baselines = [\"pooled\"]"))?;
    replace(&dir.path().join("sim.toml"), "test_share = 0.2", "test_share = 0.001")?;
    let said = play(dir.path(), "out").map(|_| ()).unwrap_err().to_string();
    ensure!(said.contains("data.test_share = 0.001 of 600 examples comes to no example"), "{said}");
    ensure!(!dir.path().join("out").exists(), "it left something behind");
    Ok(())
}

/// Somebody who takes the simulation's files away after its first round.
struct Vandal<'a>(&'a Path);

impl Audience for Vandal<'_> {
    fn interrupts(&self) -> bool {
        false
    }

    fn round(&mut self, _row: &Row, _rounds: u32) {
        let _ = fs::remove_dir_all(self.0);
    }

    fn begins(&mut self, _what: &str) {}
}

#[test]
fn what_breaks_off_tells_its_rounds_and_which_variant_it_was() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let setting = Setting::load(&dir.path().join("sim.toml"))?;
    let out = dir.path().join("compared");
    let of_second = out.join("second/seed-3");
    let state = of_second.join("state");
    let settings = [("first".to_owned(), setting.clone()), ("second".to_owned(), setting)];
    let said = compare::run(&settings, 1, &out, &mut Vandal(&state)).map(|_| ()).unwrap_err().to_string();
    ensure!(said.starts_with("second, seed 3: ") && said.contains("No such file"), "{said}");
    ensure!(out.join("first/seed-3/report.json").exists(), "the first came to its end");
    let rows = fs::read_to_string(of_second.join("rounds.csv"))?;
    ensure!((2..=ROUNDS).contains(&rows.lines().count()), "{rows}");
    Ok(())
}

#[test]
fn baselines_learn_for_as_many_rounds_as_were_completed() -> Result<()> {
    let data = "clients = 20\nbaselines = [\"pooled\"]\n[data]\nsource = { path = \"all.csv\" }\ntest_share = 0.2\npartition = \"iid\"\n";
    let dir = folder(&format!("{OPEN}\n[validation]\npatience = 1\nmin_delta = 1000.0"), data)?;
    let stopped = play(dir.path(), "stopped")?;
    ensure!(stopped.is_completed() && (1..ROUNDS).contains(&(stopped.rounds as usize)), "{stopped:?}");
    let run = dir.path().join("run.toml");
    replace(&run, "\n[validation]\npatience = 1\nmin_delta = 1000.0", "")?;
    let whole = play(dir.path(), "whole")?;
    replace(&run, &format!("rounds = {ROUNDS}"), &format!("rounds = {}", stopped.rounds))?;
    let short = play(dir.path(), "short")?;
    ensure!(stopped.baselines == short.baselines, "{stopped:?}\n{short:?}");
    ensure!(stopped.baselines != whole.baselines, "{stopped:?}\n{whole:?}");
    Ok(())
}

#[test]
fn a_metric_that_no_run_has_is_refused_before_anything_begins() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let output = sheaf_sim(dir.path())
        .args(["compare", "sim.toml", "--metric", "acuracy"])
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("its run has no metric \"acuracy\"; --metric may be loss, accuracy, "), "{said}");
    ensure!(!dir.path().join("compare").exists(), "it left something behind");
    Ok(())
}

#[test]
fn a_model_that_diverged_is_no_obstacle_to_a_plot() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let setting = Setting::load(&dir.path().join("sim.toml"))?;
    let out = dir.path().join("compared");
    let settings = [("one".to_owned(), setting)];
    let mut variants =
        compare::run(&settings, 1, &out, &mut Leaver { left: None })?.context("nobody left")?;
    let last = variants[0].reports[0].history.last_mut().context("no round")?;
    last.test.insert("loss".to_owned(), f64::MAX);
    let plot = out.join("compare.svg");
    sheaf_sim::plot::draw(&variants, "loss", &plot)?;
    ensure!(fs::read_to_string(plot)?.contains("<polyline"), "nothing is drawn");
    Ok(())
}
