//! The program `sheaf-sim`: what can be asked of it, and what it prints.

mod screen;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sheaf_transport::open_files;
use tracing_subscriber::EnvFilter;

use crate::compare::{self, Target};
use crate::config::Setting;
use crate::output::Report;
use crate::plot;
use crate::simulate::simulate;
use screen::Screen;

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Simulates a whole federation in one process.
#[derive(Parser)]
#[command(name = "sheaf-sim", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates what a file describes, or goes on with it after an interruption
    Run {
        /// The simulation
        file: PathBuf,
        /// Folder for the results [default: the file's name without its ending]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Simulates variants, each over several seeds, and lays them side by side: a table, the rounds as CSV and Parquet, and a plot
    Compare {
        /// The simulations, one for each variant
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Simulations of each variant, with its seed and those that follow
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
        /// The metric that is compared
        #[arg(long, value_name = "NAME", default_value = "accuracy")]
        metric: String,
        /// Say also after how many rounds the metric is at least this
        #[arg(long, value_name = "VALUE")]
        target: Option<f64>,
        /// Folder for the results
        #[arg(long, value_name = "DIR", default_value = "compare")]
        out: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    open_files::raise();
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("SHEAF_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let done = match arguments.command {
        Command::Run { file, out } => run(&file, out),
        Command::Compare { files, seeds, metric, target, out } => {
            compare(&files, seeds, &metric, target.map(Target), &out)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("sheaf-sim: {error}");
        ExitCode::FAILURE
    })
}

fn run(file: &Path, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let setting = Setting::load(file)?;
    let out = out.unwrap_or_else(|| file.file_stem().map_or_else(|| "sim.out".into(), PathBuf::from));
    let mut screen = Screen::new()?;
    let report = simulate(&setting, &out, &mut screen)?;
    screen.close();
    let Some(report) = report else { return Ok(stopped()) };
    print!("{}", summary::of(&report, &out));
    Ok(if report.is_completed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare(
    files: &[PathBuf],
    seeds: u64,
    metric: &str,
    target: Option<Target>,
    out: &Path,
) -> anyhow::Result<ExitCode> {
    // All are understood before the first begins.
    let mut settings: Vec<(String, Setting)> = Vec::new();
    for file in files {
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        anyhow::ensure!(
            settings.iter().all(|(other, _)| *other != name),
            "two files are called {name}: a variant is called by its file's name, so rename one"
        );
        let setting = Setting::load(file)?;
        let known = compare::metrics(&setting);
        anyhow::ensure!(!known.is_empty(), "{}: its run has no metrics to compare", file.display());
        anyhow::ensure!(
            known.contains(&metric),
            "{}: its run has no metric {metric:?}; --metric may be {}",
            file.display(),
            known.join(", ")
        );
        settings.push((name, setting));
    }
    let mut screen = Screen::new()?;
    let variants = compare::run(&settings, seeds, out, &mut screen)?;
    screen.close();
    let Some(variants) = variants else { return Ok(stopped()) };
    compare::write(&variants, metric, &out.join("compare.csv"))?;
    let table = table::of(&variants, metric, target);
    table.write(&out.join("table.csv"))?;
    plot::draw(&variants, metric, &out.join("compare.svg"))?;
    println!("{table}");
    let all_completed = variants.iter().flat_map(|variant| &variant.reports).all(Report::is_completed);
    Ok(if all_completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stopped() -> ExitCode {
    eprintln!("sheaf-sim: stopped; the same command goes on after the last round that was completed");
    ExitCode::from(INTERRUPTED)
}
