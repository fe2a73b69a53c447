//! Every place where a program can die: a run is cut there, goes on from what is on disk, and ends with the same model,
//! bit for bit, without a site having trained twice for a round.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sheaf_server::core::Coordinator;
use sheaf_server::store::Store;
use sheaf_tests::simulated::{SITES, Setting, World, scratch};

fn undisturbed(setting: Setting) -> Result<World> {
    let mut world = World::new(setting)?;
    world.run()?;
    Ok(world)
}

/// Kills the server once after each of its commits and effects, and each site after each of its effects.
fn every_point(secure: bool) -> Result<()> {
    let setting = Setting { secure, in_memory: false };
    let world = undisturbed(setting)?;
    let at_hub = world.hub.fuse.steps;
    let at_sites: Vec<u64> = world.sites.iter().map(|site| site.fuse.steps).collect();
    let expected = world.finish()?;
    assert!(expected.undisturbed, "{expected:?}");
    let crash = |victim: Option<usize>, point: u64| -> Result<()> {
        let mut world = World::lit(setting, victim, point)?;
        world.run()?;
        for site in &world.sites {
            let rounds: Vec<u32> = site.trained.keys().map(|task| task.round).collect();
            ensure!(rounds == [1, 2], "{} trained for rounds {rounds:?}", site.name);
        }
        let end = world.finish()?;
        ensure!(end == expected, "another end: {end:?}");
        Ok(())
    };
    for point in 0..at_hub {
        crash(None, point).with_context(|| format!("the server died at point {point}"))?;
    }
    for (site, points) in at_sites.iter().enumerate() {
        for point in 0..*points {
            crash(Some(site), point).with_context(|| format!("{} died at point {point}", SITES[site]))?;
        }
    }
    println!("secure: {secure}: {at_hub} points at the server, {at_sites:?} at the sites, no difference");
    Ok(())
}

#[test]
fn a_run_in_the_open_survives_a_crash_at_every_point() -> Result<()> {
    every_point(false)
}

#[test]
fn a_secure_run_survives_a_crash_at_every_point() -> Result<()> {
    every_point(true)
}

/// Cuts the write-ahead log at `offset`, as a torn write does, and opens what is left.
fn torn(database: &[u8], log: &[u8], offset: usize, folder: &Path) -> Result<Vec<Coordinator>> {
    let path = folder.join("sheaf.db");
    let _ = fs::remove_file(folder.join("sheaf.db-shm"));
    fs::write(&path, database)?;
    fs::write(folder.join("sheaf.db-wal"), &log[..offset])?;
    Ok(Store::open(&path)?.runs()?)
}

/// A write that was torn did not happen: the journal is, at every cut, that of the last whole commit. Cuts are `steps.0`
/// bytes apart, and `steps.1` in the last commit.
fn every_cut(secure: bool, steps: (usize, usize)) -> Result<()> {
    let mut world = World::new(Setting { secure, in_memory: false })?;
    let file = world.hub.file().context("no file")?.to_owned();
    let log = file.with_extension("db-wal");
    // Where each commit ends in the log, and the run as it is then.
    let mut commits: Vec<(usize, Option<Coordinator>)> = vec![(0, None)];
    let mut look = |world: &World| -> Result<()> {
        let end = usize::try_from(fs::metadata(&log)?.len())?;
        if commits.last().is_none_or(|(last, _)| *last < end) {
            commits.push((end, Some(world.hub.run.clone())));
        }
        Ok(())
    };
    look(&world)?;
    while world.step()? {
        look(&world)?;
    }
    let (database, bytes, folder) = (fs::read(&file)?, fs::read(&log)?, scratch()?);
    let (first, last) = (commits[1].0, commits[commits.len() - 2].0);
    ensure!(commits.last().is_some_and(|(end, _)| *end == bytes.len()), "the log was started anew");
    // The ends of all commits and samples between, closer in the last one.
    let ends = commits.iter().flat_map(|(end, _)| [end.saturating_sub(1), *end, end + 1]);
    let samples = (first..last).step_by(steps.0).chain((last..bytes.len()).step_by(steps.1));
    let mut cuts: Vec<usize> = ends.chain(samples).collect();
    cuts.retain(|cut| (first..=bytes.len()).contains(cut));
    cuts.sort_unstable();
    cuts.dedup();
    for cut in &cuts {
        let found = torn(&database, &bytes, *cut, folder.path()).with_context(|| format!("cut at {cut}"))?;
        let whole = commits.iter().rev().find(|(end, _)| end <= cut);
        let expected = whole.and_then(|(_, run)| run.clone());
        ensure!(found.into_iter().next() == expected, "the cut at {cut} gives another run");
    }
    println!("secure: {secure}: {} cuts through {} commits, no difference", cuts.len(), commits.len() - 1);
    Ok(())
}

#[test]
fn a_torn_write_did_not_happen() -> Result<()> {
    every_cut(false, (997, 1))
}

#[test]
fn a_torn_write_of_a_secure_run_did_not_happen() -> Result<()> {
    every_cut(true, (4001, 401))
}

/// A damaged page is found, or does not matter: what is opened is the run that was written.
#[test]
fn a_damaged_database_is_refused_and_never_misread() -> Result<()> {
    let world = undisturbed(Setting { secure: true, in_memory: false })?;
    let file = world.hub.file().context("no file")?.to_owned();
    let run = world.hub.run.clone();
    // Everything moves from the log into the one file.
    rusqlite::Connection::open(&file)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let (whole, folder) = (fs::read(&file)?, scratch()?);
    let path = folder.path().join("sheaf.db");
    let mut refused = 0;
    let offsets: Vec<usize> = (0..whole.len()).step_by(61).collect();
    for offset in &offsets {
        let mut bytes = whole.clone();
        bytes[*offset] ^= 0x55;
        fs::write(&path, &bytes)?;
        match Store::open(&path).and_then(|store| store.runs()) {
            Ok(runs) => ensure!(runs == [run.clone()], "a flipped byte at {offset} gives another run"),
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                ensure!(text.contains("restore DIR") || text.contains("use the program"), "{text}");
            }
        }
        for left in ["sheaf.db-wal", "sheaf.db-shm"] {
            let _ = fs::remove_file(folder.path().join(left));
        }
    }
    println!("{refused} of {} flipped bytes were refused, the others did not matter", offsets.len());
    ensure!(refused > 0, "nothing was found");
    Ok(())
}
