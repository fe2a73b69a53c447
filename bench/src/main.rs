//! `make bench`: what a federation costs with Sheaf and with what people would pick instead, on the same machine, in turn.
//!
//! It prints a table of medians, draws a plot, writes `result.json`, and says which of the project's targets hold.
//! `docs/performance.md` explains the figures.

mod case;
mod kernel;
mod plot;
mod process;
mod result;
mod round;
mod settings;
mod simulation;
mod sites;
mod table;
mod targets;
mod training;
mod transport;

use std::fs;

use anyhow::{Context, Result};
use clap::Parser;

use crate::settings::Settings;

fn main() -> Result<()> {
    let settings = Settings::parse();
    process::end_at_ctrl_c()?;
    let out = &settings.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut rows = Vec::new();
    for group in settings.groups() {
        rows.extend(case::in_turn(group, settings.repeats));
        // What was measured so far stays, should the rest be interrupted.
        result::write(&rows, &out.join("result.json"))?;
    }
    println!("{}\n{}", table::of(&rows), table::failures(&rows));
    println!("Loopback carried packets of {} bytes.", process::loopback_mtu()?);
    let plot = out.join("round.svg");
    if plot::draw(&rows, &plot)? {
        println!("{} shows how rounds grow.", plot.display());
    }
    println!("{} has every figure.\n", out.join("result.json").display());
    for target in targets::all(&rows) {
        println!("{target}");
    }
    Ok(())
}
