//! The others, each driven by a script in `bench/peers`, which says on its standard output, a line of JSON each, which
//! processes are its server and when a round has ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Work;
use crate::case::Sample;
use crate::process::{Watch, loopback_bytes};

/// One that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What people would pick instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    script: &'static str,
}

pub(super) const ALL: [Peer; 2] =
    [Peer { name: "Flower", script: "flower.py" }, Peer { name: "NVFLARE", script: "nvflare_poc.py" }];

/// What a script says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// These processes, with all that they start, are the server.
    Server(Vec<u32>),
    /// So many rounds have ended.
    Round(u32),
    /// The run is over, and the model is what it must be.
    Done,
}

/// A script, which ends with the value, and all that it started.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        // The group; it may be gone already.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).output();
        let _ = self.0.wait();
    }
}

pub(super) fn run(peer: &Peer, work: Work, python: &Path) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer.script);
    let mut child = Command::new(python)
        .arg("-B")
        .arg(script)
        .args([work.megabytes, work.clients, work.rounds].map(|number| number.to_string()))
        .arg(folder.path())
        .env("OMP_NUM_THREADS", "1")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?)
        .spawn()
        .with_context(|| format!("cannot start {}", python.display()))?;
    let lines = lines(child.stdout.take().context("it has no output")?);
    let _script = Script(child);
    follow(work, &lines).with_context(|| {
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

fn follow(work: Work, lines: &Receiver<(Instant, String)>) -> Result<Sample> {
    let mut watch = None;
    let mut after_first = (0.0, 0);
    let mut ends = Vec::new();
    let mut sample = Sample::default();
    loop {
        let (at, line) = match lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("nothing happened for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended after {} rounds", ends.len()),
        };
        // What is no JSON is chatter.
        let Ok(said) = serde_json::from_str(&line) else { continue };
        let cpu = watch.as_ref().map_or(0.0, Watch::cpu_seconds);
        match said {
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
