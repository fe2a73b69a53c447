//! Whole simulations: the same bits whatever the number of workers and whatever was killed in between, and honest ends.

mod leaver;
mod same;
mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use sheaf_sim::compare::{self, Target};
use sheaf_sim::config::Setting;
use sheaf_sim::rounds::Row;
use sheaf_sim::simulate::{Audience, simulate};

use leaver::Leaver;
use same::same;
use toy::{OPEN, ROUNDS, clients, folder, play, sheaf_sim};

const SPARSE: &str = "secure_aggregation = \"off\"\nmodel = { architecture = \"mlp\", hidden = [4] }\n[compression]\nencoding = \"top-k\"\nshare = 0.2";
const SECURE: &str = "secure_aggregation = \"required\"\nmodel = { architecture = \"softmax\" }\n[secagg]\nclipping_range = 8.0";

#[test]
fn any_number_of_workers_gives_the_same_bits() -> Result<()> {
    for run in [OPEN, SECURE] {
        let reports = ["workers = 1", "workers = 3"].map(|workers| {
            let dir = folder(run, &clients(workers))?;
            play(dir.path(), "out").map(|report| same(&report))
        });
        let [one, three] = reports;
        let (one, three) = (one?, three?);
        ensure!(one.history.iter().any(Row::is_completed), "no round was completed: {one:?}");
        ensure!(one == three, "{one:?}\n{three:?}");
    }
    Ok(())
}

#[test]
fn whoever_leaves_after_any_round_comes_back_to_the_same_bits() -> Result<()> {
    for run in [OPEN, SPARSE, SECURE] {
        let dir = folder(run, &clients(""))?;
        let undisturbed = same(&play(dir.path(), "undisturbed")?);
        let setting = Setting::load(&dir.path().join("sim.toml"))?;
        let out = dir.path().join("out");
        let mut left = 0;
        let report = loop {
            // Each time something is begun that will have to be done again.
            let mut leaver = Leaver { left: (left < ROUNDS).then_some(1) };
            match simulate(&setting, &out, &mut leaver)? {
                Some(report) => break report,
                None => left += 1,
            }
        };
        ensure!(left >= 2, "nobody left");
        ensure!(same(&report) == undisturbed, "{:?}\n{undisturbed:?}", same(&report));
        ensure!(!out.join("state").exists(), "what is no longer needed is gone");
    }
    Ok(())
}

#[test]
fn what_is_not_of_a_simulation_is_not_replaced() -> Result<()> {
    for own in ["state", "model"] {
        let dir = folder(OPEN, &clients(""))?;
        let file = dir.path().join("out").join(own).join("mine");
        fs::create_dir_all(file.parent().context("no folder")?)?;
        fs::write(&file, "precious")?;
        let error = play(dir.path(), "out").unwrap_err().to_string();
        ensure!(error.contains("is not of a simulation, and would be replaced"), "{error}");
        ensure!(fs::read_to_string(&file)? == "precious", "{own} was touched");
    }
    Ok(())
}

#[test]
fn only_the_sites_that_the_run_names_take_part() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let path = dir.path().join("run.toml");
    let (all, named) = (
        "min_sites = 6\nmin_updates = 3\nfraction = 0.6",
        "sites = [\"client-01\", \"client-02\"]\nmin_sites = 2\nmin_updates = 1",
    );
    let text = fs::read_to_string(&path)?.replace(all, named);
    fs::write(&path, &text)?;
    let cohorts: Vec<u32> = play(dir.path(), "out")?.history.iter().map(|row| row.cohort).collect();
    ensure!(cohorts.iter().all(|sites| *sites == 2) && !cohorts.is_empty(), "{cohorts:?}");
    fs::write(&path, text.replace("min_sites = 2", "min_sites = 3"))?;
    let error = Setting::load(&dir.path().join("sim.toml")).unwrap_err().to_string();
    ensure!(error.contains("cohort.m") || error.contains("cohort.sites"), "{error}");
    Ok(())
}

/// Somebody who goes away as soon as the rounds are over.
#[derive(Default)]
struct Satisfied(bool);

impl Audience for Satisfied {
    fn interrupts(&self) -> bool {
        self.0
    }

    fn round(&mut self, _row: &Row, _rounds: u32) {}

    fn begins(&mut self, _what: &str) {
        self.0 = true;
    }
}

#[test]
fn whoever_leaves_the_baselines_comes_back_to_the_same_report() -> Result<()> {
    let dir = folder(OPEN, &clients("baselines = [\"local\", \"pooled\"]"))?;
    let undisturbed = same(&play(dir.path(), "undisturbed")?);
    ensure!(!undisturbed.validation.is_empty(), "the last model was not evaluated: {undisturbed:?}");
    let in_rows = undisturbed.history.iter().map(|row| row.traffic.down).sum::<u64>();
    ensure!(undisturbed.traffic.down > in_rows, "what the last evaluation sent is not counted");
    let setting = Setting::load(&dir.path().join("sim.toml"))?;
    let out = dir.path().join("out");
    ensure!(simulate(&setting, &out, &mut Satisfied::default())?.is_none(), "nobody left");
    ensure!(same(&play(dir.path(), "out")?) == undisturbed, "it came to another report");
    Ok(())
}

#[test]
fn a_client_that_cannot_train_alone_costs_no_report() -> Result<()> {
    let run = format!("{OPEN}\n[validation]\nleave_out = \"client-03\"");
    let dir = folder(&run, &clients("baselines = [\"local\", \"pooled\"]"))?;
    let text = fs::read_to_string(dir.path().join("run.toml"))?;
    fs::write(dir.path().join("run.toml"), text.replace("validation_split = 0.2\n", ""))?;
    let baselines = play(dir.path(), "out")?.baselines;
    ensure!(baselines.failed.keys().eq(["client-03"]), "{baselines:?}");
    ensure!(baselines.pooled.is_some() && baselines.local.is_some(), "{baselines:?}");
    Ok(())
}

#[test]
fn a_program_that_was_killed_goes_on_to_the_same_bits() -> Result<()> {
    let dir = folder(SECURE, &clients(""))?;
    let run = |out: &str| {
        let mut command = sheaf_sim(dir.path());
        command.args(["run", "sim.toml", "--out", out]);
        command
    };
    ensure!(run("undisturbed").status()?.success(), "it did not come to its end");
    let checkpoint = dir.path().join("out/state/checkpoint");
    let report = dir.path().join("out/report.json");
    let mut program = run("out").spawn()?;
    while !checkpoint.exists() && !report.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    program.kill()?;
    program.wait()?;
    ensure!(run("out").status()?.success(), "it did not go on");
    let model = |out: &str| fs::read(dir.path().join(out).join("model/model.safetensors"));
    ensure!(model("out")? == model("undisturbed")?, "it came to another model");
    Ok(())
}

#[test]
fn every_partition_learns_and_is_written_down() -> Result<()> {
    let ways = [
        ("clients = 10", "partition = \"iid\""),
        ("clients = 5", "partition = \"column\"\ncolumn = \"ward\""),
        ("clients = 10", "partition = \"shards\"\nshards_per_client = 2"),
        ("clients = 10", "partition = \"quantity\"\nsigma = 0.7"),
    ];
    for (clients, partition) in ways {
        let run = OPEN.to_owned();
        let dir = folder(
            &run,
            &format!(
                "{clients}\nbaselines = [\"local\", \"pooled\"]\n[data]\nsource = {{ path = \"all.csv\" }}\ntest_share = 0.2\n{partition}\n"
            ),
        )?;
        let text = fs::read_to_string(dir.path().join("run.toml"))?;
        fs::write(dir.path().join("run.toml"), text.replace("min_sites = 6", "min_sites = 3"))?;
        let report = play(dir.path(), "out")?;
        ensure!(report.is_completed() && report.rounds as usize == ROUNDS, "{report:?}");
        let accuracy = |score: &sheaf_sim::rounds::Score| score.get("accuracy").copied().unwrap_or(0.0);
        ensure!(accuracy(&report.test) > 0.7, "{partition}: {:?}", report.test);
        let pooled = report.baselines.pooled.as_ref().context("no pooled baseline")?;
        let local = report.baselines.local.as_ref().context("no local baselines")?;
        ensure!(accuracy(pooled) > 0.8 && accuracy(local) <= accuracy(pooled) + 0.05, "{partition}");
        let written = fs::read_to_string(dir.path().join("out/partition.csv"))?;
        let counts = written.lines().skip(1).filter_map(|line| line.rsplit(',').next()?.parse::<u64>().ok());
        ensure!(counts.sum::<u64>() == 480, "a fifth of 600 is tested on: {written}");
        let owners = fs::read_to_string(dir.path().join("out/assignment.csv"))?;
        let of = |client: &str| owners.lines().skip(1).filter(|row| row.ends_with(client)).count();
        ensure!(owners.lines().count() == 601 && of(",") == 120, "{owners}");
        let first = written.lines().nth(1).and_then(|line| line.split(',').next()).context("no client")?;
        let has = written.lines().filter(|line| line.starts_with(first));
        let has: usize = has.filter_map(|line| line.rsplit(',').next()?.parse::<usize>().ok()).sum();
        ensure!(of(&format!(",{first}")) == has && has > 0, "{first} has {has}: {owners}");
    }
    Ok(())
}

#[test]
fn another_simulation_does_not_go_on_from_this_ones_folder() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let first = play(dir.path(), "out")?;
    let again = play(dir.path(), "out")?;
    // Numbers may lose their last bit on the way through JSON; no two simulations take the same time to a nanosecond.
    let apart = (again.real_seconds - first.real_seconds).abs();
    ensure!(again.model == first.model && apart < 1e-9, "what is over is told again: {again:?}\n{first:?}");
    let text = fs::read_to_string(dir.path().join("sim.toml"))?;
    fs::write(dir.path().join("sim.toml"), text.replace("seed = 3", "seed = 4"))?;
    let said = play(dir.path(), "out").map(|_| ()).unwrap_err().to_string();
    ensure!(said.contains("holds a simulation of other files"), "{said}");

    // The same examples, one of them with another client.
    let by_ward = |rows: &str| -> Result<String> {
        fs::write(
            dir.path().join("sim.toml"),
            "run = \"run.toml\"\nclients = 5\n[data]\nsource = { path = \"all.csv\" }\npartition = \"column\"\ncolumn = \"ward\"\n",
        )?;
        fs::write(dir.path().join("all.csv"), rows)?;
        Ok(play(dir.path(), "wards").map(|report| report.model).unwrap_or_else(|error| error.to_string()))
    };
    let text = fs::read_to_string(dir.path().join("run.toml"))?.replace("min_sites = 6", "min_sites = 3");
    fs::write(dir.path().join("run.toml"), text)?;
    let rows = fs::read_to_string(dir.path().join("all.csv"))?;
    let first = by_ward(&rows)?;
    ensure!(first == by_ward(&rows)? && !first.contains("other"), "{first}");
    let said = by_ward(&rows.replacen(",1,", ",2,", 1))?;
    ensure!(said.contains("holds a simulation of other files"), "{said}");
    Ok(())
}

#[test]
fn a_wrong_file_is_refused_before_anything_is_written() -> Result<()> {
    let dir = folder(OPEN, "clients = 20\n")?;
    let output = sheaf_sim(dir.path()).args(["run", "sim.toml"]).stderr(Stdio::piped()).output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.starts_with("sheaf-sim: sim.toml") && said.contains("data: is missing"), "{said}");
    ensure!(!dir.path().join("sim").exists(), "it left something behind");
    Ok(())
}

/// Holds a CSV file against the Parquet file beside it, of which these columns hold counts.
fn same_as_parquet(path: &Path, counts: &[&str]) -> Result<()> {
    let mut csv = csv::Reader::from_path(path)?;
    let names: Vec<String> = csv.headers()?.iter().map(str::to_owned).collect();
    let file = SerializedFileReader::new(fs::File::open(path.with_extension("parquet"))?)?;
    let mut rows = file.get_row_iter(None)?;
    for record in csv.records() {
        let (record, row) = (record?, rows.next().context("Parquet has fewer rows")??);
        let columns: Vec<(&String, &Field)> = row.get_column_iter().collect();
        ensure!(columns.iter().map(|(name, _)| *name).eq(&names), "{columns:?} and {names:?}");
        for ((name, field), cell) in columns.into_iter().zip(&record) {
            let same = if counts.contains(&name.as_str()) {
                *field == Field::ULong(cell.parse()?)
            } else if let Ok(number) = cell.parse() {
                *field == Field::Double(number)
            } else {
                *field == if cell.is_empty() { Field::Null } else { Field::Str(cell.to_owned()) }
            };
            ensure!(same, "{name}: {field:?} and {cell:?}");
        }
    }
    ensure!(rows.next().is_none(), "Parquet has more rows");
    Ok(())
}

#[test]
fn variants_are_laid_side_by_side() -> Result<()> {
    let dir = folder(OPEN, &clients(""))?;
    let setting = |more: &str| -> Result<Setting> {
        fs::write(dir.path().join("sim.toml"), format!("run = \"run.toml\"\n{more}"))?;
        Ok(Setting::load(&dir.path().join("sim.toml"))?)
    };
    let data = |alpha| {
        format!(
            "clients = 12\n[data]\nsource = {{ path = \"all.csv\" }}\ntest_share = 0.2\npartition = \"dirichlet\"\nalpha = {alpha}\n"
        )
    };
    let settings =
        [("even".to_owned(), setting(&data(100.0))?), ("uneven".to_owned(), setting(&data(0.05))?)];
    let out: PathBuf = dir.path().join("compared");
    let variants = compare::run(&settings, 2, &out, &mut Leaver { left: None })?.context("nobody left")?;
    for variant in &variants {
        ensure!(
            variant.reports.len() == 2 && variant.reports[0].model != variant.reports[1].model,
            "{variant:?}"
        );
        ensure!(variant.rounds_to("accuracy", Target(0.5)).is_some(), "{variant:?}");
        ensure!(variant.rounds_to("accuracy", Target(1.1)).is_none(), "nobody is that good");
    }
    compare::write(&variants, "accuracy", &out.join("compare.csv"))?;
    let rows = fs::read_to_string(out.join("compare.csv"))?;
    ensure!(rows.lines().count() == 1 + 2 * 2 * ROUNDS, "{rows}");
    same_as_parquet(&out.join("compare.csv"), &["seed", "round", "bytes"])?;
    let counts = ["round", "attempt", "cohort", "participants", "bytes_up", "bytes_down"];
    same_as_parquet(&out.join("even/seed-0/rounds.csv"), &counts)?;
    sheaf_sim::plot::draw(&variants, "accuracy", &out.join("compare.svg"))?;
    let plot = fs::read_to_string(out.join("compare.svg"))?;
    // Without a test set they are compared by what clients say of the model before each round, and of the last one.
    let untested = [("untested".to_owned(), setting(&data(1.0).replace("test_share = 0.2\n", ""))?)];
    let variants = compare::run(&untested, 1, &out, &mut Leaver { left: None })?.context("nobody left")?;
    let report = &variants[0].reports[0];
    let points = compare::points(report, "accuracy");
    ensure!(points.iter().map(|point| point.round as usize).eq(0..=ROUNDS), "{points:?}");
    let value = |score: &sheaf_sim::rounds::Score| score.get("accuracy").copied();
    ensure!(points[1].bytes == report.history[0].traffic.up + report.history[0].traffic.down, "{points:?}");
    ensure!(Some(points[1].value) == value(&report.history[1].validation), "{points:?}");
    ensure!(Some(points[ROUNDS].value) == value(&report.validation), "{points:?}");
    ensure!(
        plot.contains("uneven") && plot.matches("<polyline").count() >= 6,
        "two lines in each of three charts"
    );
    Ok(())
}
