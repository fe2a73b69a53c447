//! The federation, step by step: certificates, a server, sites, a model, a run.

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::example::{Base, Example};
use crate::history::History;
use crate::line::Line;
use crate::settings::{self, NoSuchKey};
use crate::shell::{Shell, ShellError};
use crate::work::{Work, WriteError};

/// What the federation came to.
pub(crate) struct Federated {
    /// The run's file, with what a survey filled in.
    pub(crate) run_file: String,
    /// Folder of the model that the first round started from, unless the run makes it of its seed.
    pub(crate) start: Option<&'static str>,
    /// Folder of the trained model.
    pub(crate) model: String,
    /// Metrics by round.
    pub(crate) history: History,
    /// Bytes that the sites sent.
    pub(crate) bytes_up: u64,
    /// Bytes that the sites fetched.
    pub(crate) bytes_down: u64,
    /// From submitting the run to its end.
    pub(crate) time: Duration,
}

/// A step did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// A program.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// A file.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file of the example.
    #[error(transparent)]
    Key(#[from] NoSuchKey),
    /// Something else than was asked for.
    #[error("{0}")]
    Unexpected(String),
}

/// An entry of `sheaf site list --json`, as far as it is used here.
#[derive(Deserialize)]
struct ListedSite {
    connected: bool,
    bytes_up: u64,
    bytes_down: u64,
}

#[derive(Deserialize)]
struct Submitted {
    run: String,
}

/// The run as it is planned, and as a survey filled it in.
const PLANNED_FILE: &str = "run.toml";
const SURVEYED_FILE: &str = "surveyed.toml";
const SITES_FILE: &str = "sites.json";
const RUN_FILE: &str = "run.json";
const SUBMITTED_FILE: &str = "submitted.json";
const START: &str = "start";
/// The trained model's folder.
const MODEL: &str = "federated";

/// Makes a federation, has it train, and stops it again.
pub(crate) fn run(example: &Example, work: &Work, shell: &mut Shell) -> Result<Federated, StepError> {
    say("Certificates: one authority for the federation, one certificate for each party");
    certificates(example, shell)?;

    say("The server, in the background");
    let address = server(work, shell)?;
    work.write("operator.toml", &settings::operator(&address))?;

    say("The sites, in the background: each dials the server and listens nowhere");
    sites(example, &address, work, shell)?;
    shell.run(Line::new("sheaf", "site list"))?;

    import(example, work, shell)?;
    work.write(PLANNED_FILE, &settings::run(example.run, example.reduced_rounds, example.choice)?)?;
    let run_file = if example.survey { survey(shell)? } else { PLANNED_FILE };

    say("The run");
    let started = Instant::now();
    let run = submit(run_file, work, shell)?;
    shell.run(Line::new("sheaf", "run watch").argument(&run))?;
    let time = started.elapsed();

    say("What came of it");
    let export = || Line::new("sheaf", "model export").argument(&run);
    let start = (!matches!(example.base, Base::New)).then_some(START);
    if let Some(start) = start {
        shell.run(export().words("--round 0 --out").argument(start))?;
    }
    shell.run(export().words("--out").argument(MODEL))?;
    shell.run(Line::new("sheaf", "run show").argument(&run).words("--json").output_to(RUN_FILE))?;
    shell.run(Line::new("sheaf", "site list --json").output_to(SITES_FILE))?;
    shell.run(Line::new("sheaf", "site list"))?;
    let history = History::new(&work.json(RUN_FILE)?);
    let listed: Vec<ListedSite> = work.json(SITES_FILE)?;

    say("Stopping the sites and the server");
    shell.stop_all()?;
    Ok(Federated {
        run_file: run_file.to_owned(),
        start,
        model: MODEL.to_owned(),
        history,
        bytes_up: listed.iter().map(|site| site.bytes_up).sum(),
        bytes_down: listed.iter().map(|site| site.bytes_down).sum(),
        time,
    })
}

/// Says what is being done.
pub(crate) fn say(what: &str) {
    println!("\n== {what}");
}

fn certificates(example: &Example, shell: &mut Shell) -> Result<(), StepError> {
    shell.run(
        Line::new("sheaf", "pki init --federation").argument(example.choice.example).words("--out pki"),
    )?;
    let mut issue = |role: &str, name: &str, folder: &str| {
        let line = Line::new("sheaf", "pki issue").argument(role).argument(name);
        shell.run(line.words("--pki pki --out").argument(folder))
    };
    issue("server", "main", "server")?;
    issue("operator", "you", "operator")?;
    for site in &example.sites {
        issue("site", &site.name, &site.folder())?;
    }
    Ok(())
}

/// Starts the server and returns its address.
fn server(work: &Work, shell: &mut Shell) -> Result<String, StepError> {
    work.write("server/server.toml", settings::server())?;
    let line = Line::new("sheaf-server", "--config server/server.toml").log_to("server/server.log");
    shell.start_in_background(line)?;
    let file = work.path("server/data/address");
    // It is whole when its line is.
    let address = |_: &mut Shell| Ok(fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')));
    let address: String =
        shell.wait_for::<_, StepError>("the server's start", Duration::from_secs(30), address)?;
    println!("the server listens on {}", address.trim());
    Ok(address.trim().to_owned())
}

/// Starts all sites and waits until the server knows them.
fn sites(example: &Example, address: &str, work: &Work, shell: &mut Shell) -> Result<(), StepError> {
    for site in &example.sites {
        work.write(&site.config(), &settings::site(example, site, address))?;
        let line = Line::new("sheaf-client", "--config").argument(site.config());
        let line = line.variable("OMP_NUM_THREADS", (cores() / example.sites.len()).max(1));
        shell.start_in_background(line.log_to(format!("{}/client.log", site.folder())))?;
    }
    shell.wait_for("the connection of all sites", Duration::from_secs(60), |shell| {
        let connected = listed(work, shell)?.iter().filter(|site| site.connected).count();
        Ok::<_, StepError>((connected == example.sites.len()).then_some(()))
    })
}

fn listed(work: &Work, shell: &mut Shell) -> Result<Vec<ListedSite>, StepError> {
    shell.run_quietly(Line::new("sheaf", "site list --json").output_to(SITES_FILE))?;
    Ok(work.json(SITES_FILE)?)
}

/// Cores of this machine. With more threads than that, programs would only wait for one another.
pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Gives the server the model that the run starts from, if it starts from one.
fn import(example: &Example, work: &Work, shell: &mut Shell) -> Result<(), StepError> {
    let (path, kind, name) = match &example.base {
        Base::Pretrained { name, path, kind } => (path.display().to_string(), *kind, *name),
        Base::FirstSite { name, run } => (pretrain(example, run, work, shell)?, None, *name),
        Base::New => return Ok(()),
    };
    say("The model that the run starts from");
    let line = Line::new("sheaf", "model import").argument(&path);
    let line = if let Some(kind) = kind { line.words("--kind").argument(kind) } else { line };
    Ok(shell.run(line.words("--name").argument(name))?)
}

/// Has the first site train a model on its own data.
fn pretrain(example: &Example, run: &str, work: &Work, shell: &mut Shell) -> Result<String, StepError> {
    let Some(site) = example.sites.first() else {
        return Err(StepError::Unexpected("the example has no sites".into()));
    };
    work.write("pretrain.toml", &settings::pretrain(run, example.choice)?)?;
    let line = Line::new("sheaf-client", "train --config").argument(site.config());
    shell.run(line.words("--run pretrain.toml --out pretrained").log_to("pretrain.log"))?;
    Ok("pretrained".to_owned())
}

/// Has the sites count what they hold, and fills the run in with it. Returns the file of the run that came of it.
fn survey(shell: &mut Shell) -> Result<&'static str, StepError> {
    say("What the sites hold, counted together: the run's constants and class weights");
    let line = Line::new("sheaf", "survey").argument(PLANNED_FILE).words("--class-weights --write");
    shell.run(line.argument(SURVEYED_FILE))?;
    Ok(SURVEYED_FILE)
}

/// Queues the run. Returns the name that the server gave it.
fn submit(run_file: &str, work: &Work, shell: &mut Shell) -> Result<String, StepError> {
    let line = Line::new("sheaf", "run submit").argument(run_file);
    shell.run(line.words("--json").output_to(SUBMITTED_FILE))?;
    let submitted: Submitted = work.json(SUBMITTED_FILE)?;
    println!("the server calls it {}", submitted.run);
    Ok(submitted.run)
}
