//! Thousands of federations without network or clock, each with a trouble of its own; all of them end in the mean of
//! exactly the accepted updates, or honestly without one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use sheaf_common::status::RunState;
use sheaf_tests::simulated::op::{Op, ops, shrink};
use sheaf_tests::simulated::{End, Setting, play};

/// Seeds that are tried; `SHEAF_SEEDS=FROM..TO` tries others.
const SEEDS: std::ops::Range<u64> = 0..1000;

fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SHEAF_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?)).unwrap_or(SEEDS)
}

/// Plays and, besides what the world checks, holds a run that nothing cost an update against an undisturbed one.
fn check(setting: Setting, ops: &[Op], expected: &End) -> Result<End> {
    let played = std::panic::catch_unwind(|| play(setting, ops));
    let end = played.map_err(|_| anyhow!("it panicked"))??;
    ensure!(!end.undisturbed || end.model == expected.model, "the same updates gave another model");
    Ok(end)
}

fn simulate(secure: bool) -> Result<()> {
    let setting = Setting { secure, in_memory: true };
    let expected = play(setting, &[])?;
    ensure!(expected.undisturbed, "{expected:?}");
    let (seeds, next) = (seeds(), AtomicU64::new(seeds().start));
    let work = || -> Result<Vec<RunState>> {
        let mut ends = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(ends);
            }
            match check(setting, &ops(seed), &expected) {
                Ok(end) => ends.push(end.state),
                Err(error) => {
                    let short = shrink(ops(seed), |ops| check(setting, ops, &expected).is_err());
                    bail!("seed {seed}: {error:#}\nthe shortest trouble that does it: {short:?}");
                }
            }
        }
    };
    let ends = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let ends =
            workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?);
        ends.collect::<Result<Vec<_>>>()
    })?;
    let mut counts = BTreeMap::<String, u64>::new();
    for end in ends.into_iter().flatten() {
        *counts.entry(format!("{end:?}")).or_default() += 1;
    }
    println!("{seeds:?}: {counts:?}");
    Ok(())
}

#[test]
fn updates_in_the_open() -> Result<()> {
    simulate(false)
}

#[test]
fn updates_in_a_secure_sum() -> Result<()> {
    simulate(true)
}
