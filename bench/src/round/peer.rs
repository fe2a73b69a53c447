//! The others, each driven by a script in `bench/peers`, which says on its standard output, a line of JSON each, which
//! processes are its server and when a round has ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Since, Work};
use crate::case::Sample;
use crate::process::{Started, Watch, loopback_bytes};

/// One that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What people would pick instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    script: &'static str,
    /// What the script is told besides.
    more: &'static [&'static str],
}

pub(super) const FLOWER: Peer = Peer { name: "Flower", script: "flower.py", more: &[] };
pub(super) const NVFLARE: Peer = Peer { name: "NVFLARE", script: "nvflare_poc.py", more: &[] };
pub(super) const SECAGG_PLUS: Peer = Peer { name: "Flower, SecAgg+", script: "flower.py", more: &["secure"] };

/// What a script says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// These processes, with all that they start, are the server.
    Server(Vec<u32>),
    /// A client was asked to train for the first time.
    Asked(Asked),
    /// So many rounds have ended.
    Round(u32),
    /// The run is over, and the model is what it must be.
    Done,
}

/// Seconds until a client was asked.
#[derive(Debug, Deserialize)]
struct Asked {
    /// Since the first process was started.
    nothing: f64,
    /// Since the run was submitted; nothing where that is not a step of its own.
    submit: Option<f64>,
}

/// Seconds of each round.
pub(super) fn run(peer: &Peer, work: Work, python: &Path) -> Result<Sample> {
    drive(peer, work, python, None, |lines| follow(work, lines))
}

/// Seconds until a client is asked to train.
pub(super) fn start(peer: &Peer, work: Work, python: &Path, since: Since) -> Result<Sample> {
    let settled = matches!(since, Since::Submit).then_some("settled");
    drive(peer, work, python, settled, |lines| {
        loop {
            if let Some((_, Said::Asked(asked))) = next(lines)? {
                let seconds = match since {
                    Since::Nothing => Some(asked.nothing),
                    Since::Submit => asked.submit,
                };
                return Ok(Sample {
                    seconds: vec![seconds.context("it does not say")?],
                    ..Sample::default()
                });
            }
        }
    })
}

fn drive(
    peer: &Peer,
    work: Work,
    python: &Path,
    besides: Option<&str>,
    follow: impl FnOnce(&Receiver<(Instant, String)>) -> Result<Sample>,
) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer.script);
    let mut command = Command::new(python);
    command
        .arg("-B")
        .arg(script)
        .args([work.megabytes, work.clients, work.rounds].map(|number| number.to_string()))
        .arg(folder.path())
        .args(peer.more)
        .args(besides)
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?);
    let mut script = Started::new(&mut command)?;
    let lines = lines(script.output()?);
    follow(&lines).with_context(|| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").to_owned()
    })
}

/// What is said, when it is said.
fn lines(output: impl std::io::Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens any more when the run is over.
            let _ = sender.send((Instant::now(), line));
        }
    });
    receiver
}

/// What is said next; nothing when it is no JSON, which is chatter.
fn next(lines: &Receiver<(Instant, String)>) -> Result<Option<(Instant, Said)>> {
    match lines.recv_timeout(PATIENCE) {
        Ok((at, line)) => Ok(serde_json::from_str(&line).ok().map(|said| (at, said))),
        Err(RecvTimeoutError::Timeout) => bail!("nothing happened for {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("it ended"),
    }
}

fn follow(work: Work, lines: &Receiver<(Instant, String)>) -> Result<Sample> {
    let mut watch = None;
    let mut after_first = (0.0, 0);
    let mut ends = Vec::new();
    let mut sample = Sample::default();
    loop {
        let said = next(lines).with_context(|| format!("after {} rounds", ends.len()))?;
        let Some((at, said)) = said else { continue };
        let cpu = watch.as_ref().map_or(0.0, Watch::cpu_seconds);
        match said {
            Said::Asked(_) => {}
            Said::Server(processes) => watch = Some(Watch::over(processes)),
            Said::Round(number) => {
                ends.push(at);
                ensure!(number as usize == ends.len(), "round {number} ended out of turn");
                if number == 1 {
                    after_first = (cpu, loopback_bytes()?);
                } else {
                    sample.cpu_seconds = Some((cpu - after_first.0) / f64::from(number - 1));
                    sample.wire = Some((loopback_bytes()? - after_first.1) as f64 / work.payload(number - 1));
                }
            }
            Said::Done => break,
        }
    }
    ensure!(ends.len() == work.rounds as usize, "it ended after {} of {} rounds", ends.len(), work.rounds);
    sample.seconds = ends.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    sample.server_rss_mb = watch.map(|watch| watch.peak_mb());
    Ok(sample)
}
