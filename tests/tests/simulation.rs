//! Thousands of federations without network or clock, each with a trouble of its own; all of them end in the mean of
//! exactly the accepted updates, or honestly without one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use sheaf_tests::simulated::op::{Op, ops, shrink};
use sheaf_tests::simulated::{End, Setting, play};

/// Seeds that are tried; `SHEAF_SEEDS=FROM..TO` tries others.
const SEEDS: std::ops::Range<u64> = 0..500;

fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SHEAF_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?)).unwrap_or(SEEDS)
}

/// Plays and, besides what the world checks, holds a run that nothing cost an update against an undisturbed one.
fn check(setting: Setting, ops: &[Op], expected: &End) -> Result<End> {
    let played = std::panic::catch_unwind(|| play(setting, ops));
    let end = played.map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(!end.undisturbed || end.model == expected.model, "the same updates gave another model");
    Ok(end)
}

fn simulate(secure: bool) {
    let setting = Setting { secure, in_memory: true };
    let expected = play(setting, &[]).unwrap();
    assert!(expected.undisturbed, "{expected:?}");
    let (seeds, next) = (seeds(), AtomicU64::new(seeds().start));
    let ends = Mutex::new(BTreeMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match check(setting, &ops(seed), &expected) {
                        Ok(end) => {
                            *ends.lock().unwrap().entry(format!("{:?}", end.state)).or_default() += 1;
                        }
                        Err(error) => {
                            let fails = |ops: &[Op]| check(setting, ops, &expected).is_err();
                            let short = shrink(ops(seed), fails);
                            let why = check(setting, &short, &expected).unwrap_err();
                            panic!("seed {seed}: {error:#}\nshortest: {why:#}\n{short:?}");
                        }
                    }
                }
            });
        }
    });
    println!("{seeds:?}: {:?}", ends.lock().unwrap());
}

#[test]
fn updates_in_the_open() {
    simulate(false);
}

#[test]
fn updates_in_a_secure_sum() {
    simulate(true);
}
