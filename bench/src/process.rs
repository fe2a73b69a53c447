//! What processes use, with all that they start, as the kernel counts it (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Builder;

/// A process that ends with the value, and all that it started, so that none of it runs into the next contestant's turn.
pub(crate) struct Started {
    child: Child,
    /// What it and its descendants have in their environment, also those in a session of their own.
    mark: String,
}

impl Started {
    pub(crate) fn new(command: &mut Command) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let child = command.env(MARK, &mark).process_group(0).stdin(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, mark: format!("{MARK}={mark}\0") })
    }

    pub(crate) fn output(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("it has no output")
    }

    /// Waits for its end, which must come in time.
    pub(crate) fn end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(began.elapsed() < patience, "it was not done after {patience:?}");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_all(&self.mark);
    }
}

/// Has Ctrl-C end what was started too: it is in groups of its own, and would go on.
pub(crate) fn end_at_ctrl_c() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            end_all(&format!("{MARK}={}.", std::process::id()));
            // What a shell says of a program that Ctrl-C ended.
            std::process::exit(130);
        }
    });
    Ok(())
}

fn end_all(mark: &str) {
    // One that is killed may have started another just before.
    loop {
        let left: Vec<String> =
            processes().filter(|id| is_marked(*id, mark)).map(|id| id.to_string()).collect();
        if left.is_empty() {
            return;
        }
        let _ = Command::new("kill").arg("-KILL").args(left).output();
        std::thread::sleep(LOOK);
    }
}

/// The variable by which what was started is found again.
const MARK: &str = "SHEAF_BENCH_STARTED";

/// Whether a process that still runs has it in its environment; one that has ended and was not waited for has none.
fn is_marked(id: u32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    environment.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// How often it is looked. What a process uses after the last look before its end is not seen.
const EVERY: Duration = Duration::from_millis(50);

/// Ticks of a second in `/proc/PID/stat`, which is the same on every Linux.
const TICKS: f64 = 100.0;

/// Follows processes and their descendants until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<BTreeMap<u32, Use>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What one process has used so far.
#[derive(Clone, Copy, Debug)]
struct Use {
    peak_kb: u64,
    ticks: u64,
}

impl Watch {
    pub(crate) fn over(roots: Vec<u32>) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, until) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                look(&roots, &mut into.lock().unwrap_or_else(PoisonError::into_inner));
                std::thread::sleep(EVERY);
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// Processor time of all of them so far, also of those that have ended, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().map(|seen| seen.ticks).sum::<u64>() as f64 / TICKS
    }

    /// Sum of the peak resident memory of each, in megabytes.
    pub(crate) fn peak_mb(&self) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().map(|seen| seen.peak_kb).sum::<u64>() as f64 * 1024.0 / 1e6
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has seen what it has seen.
            let _ = thread.join();
        }
    }
}

fn look(roots: &[u32], seen: &mut BTreeMap<u32, Use>) {
    let mut children: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    let mut ticks_of = BTreeMap::new();
    for id in processes() {
        // One that has just ended has no file any more.
        if let Some((parent, ticks)) = stat(id) {
            children.entry(parent).or_default().push((id, ticks));
            ticks_of.insert(id, ticks);
        }
    }
    let mut left: Vec<u32> = roots.to_vec();
    while let Some(id) = left.pop() {
        left.extend(children.get(&id).into_iter().flatten().map(|(child, _)| child));
        if let (Some(peak_kb), Some(ticks)) = (peak(id), ticks_of.get(&id)) {
            seen.insert(id, Use { peak_kb, ticks: *ticks });
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processor time of all children that have ended, in seconds.
pub(crate) fn children_cpu_seconds() -> f64 {
    let ticks = fields(std::process::id()).and_then(|fields| Some(fields.get(13)? + fields.get(14)?));
    ticks.unwrap_or_default() as f64 / TICKS
}

/// Its parent, and the ticks of user and system time that it has run.
fn stat(id: u32) -> Option<(u32, u64)> {
    let fields = fields(id)?;
    Some((u32::try_from(*fields.get(1)?).ok()?, fields.get(11)? + fields.get(12)?))
}

/// What follows its name; what is no number there is 0.
fn fields(id: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Its name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some(fields.map(|field| field.parse().unwrap_or_default()).collect())
}

fn peak(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Bytes of the longest packet that the loopback interface carries.
pub(crate) fn loopback_mtu() -> Result<u32> {
    let path = "/sys/class/net/lo/mtu";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().parse()?)
}

/// Bytes that have come out of the loopback interface.
pub(crate) fn loopback_bytes() -> Result<u64> {
    let table = fs::read_to_string("/proc/net/dev")?;
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("there is no loopback")?;
    Ok(line.split_whitespace().next().context("/proc/net/dev is not as proc(5) says")?.parse()?)
}

/// Processor time of this process so far, in seconds.
pub(crate) fn own_cpu_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |(_, ticks)| ticks as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_left_the_group_ends_too() {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 600 & echo; wait"]).stdout(Stdio::piped());
        let mut started = Started::new(&mut command).unwrap();
        started.output().unwrap().read_exact(&mut [0]).unwrap();
        let mark = started.mark.clone();
        let alive = || processes().filter(|id| is_marked(*id, &mark)).count();
        assert!(alive() > 0);
        drop(started);
        assert_eq!(alive(), 0);
    }

    #[test]
    fn what_a_child_of_a_child_uses_is_counted() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; sleep 0.3"])
            .spawn()
            .unwrap();
        let watch = Watch::over(vec![shell.id()]);
        shell.wait().unwrap();
        assert!(watch.cpu_seconds() > 0.0, "the inner shell has counted");
        assert!(watch.peak_mb() > 0.5, "two shells are in memory");
    }
}
