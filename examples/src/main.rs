//! `sheaf-demo EXAMPLE`: a whole federation on this machine, from its certificates to a table that says
//! what federating was worth. The programs are the real ones, each a process of its own, and every command is
//! printed as a user would type it.
//!
//! What is read here:
//!
//! * [`example`]: what an example is; [`newswire`], [`heart`], [`lending_club`], [`fashion`] and [`smollm2`] are all, whose data go to
//!   sites as [`skewed`] or [`natural`] partitions. [`table`](mod@table) holds their rows and [`idx`] images, [`cache`]
//!   finds the files that they are made of, [`metric`] says what they measure.
//! * [`shell`]: runs commands in the work folder. [`line`](mod@line) is one of them, [`running`] is one that was
//!   started, and none of them outlives this process ([`mortal`]).
//! * [`federation`], then [`baselines`]: the steps, in the order in which they happen; [`settings`] are the
//!   configuration files that they write.
//! * [`outcome`]: what was measured, as `result.json` and as a table; [`history`] and [`plot`]: metrics by round.

mod baselines;
mod cache;
mod example;
mod fashion;
mod federation;
mod heart;
mod history;
mod idx;
mod lending_club;
mod line;
mod metric;
mod mortal;
mod natural;
mod newswire;
mod outcome;
mod plot;
mod running;
mod settings;
mod shell;
mod skewed;
mod smollm2;
mod table;
mod work;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use example::{Choice, Example, ExampleError};
use outcome::Outcome;
use shell::Shell;
use work::Work;

/// Run a whole federation on this machine and measure what it is worth.
#[derive(Parser)]
#[command(name = "sheaf-demo", version)]
struct Arguments {
    /// Which example
    example: Name,
    /// Seed of the partition and of the run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of sites, 2 to 16
    #[arg(long, default_value = "4", value_parser = parse_sites)]
    sites: NonZeroUsize,
    /// Fewer examples and rounds: to see that it works, not what it is worth
    #[arg(long)]
    reduced: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Four desks learn the topics of newswire: a text encoder
    Newswire,
    /// Four hospitals learn to recognise heart disease: a multi-layer perceptron
    Heart,
    /// Four banks learn which loans will not be paid back: logistic regression on a rare class
    LendingClub,
    /// Four shops learn to tell clothes apart: a convolutional network
    Fashion,
    /// Four desks teach a language model to answer with a topic: low-rank adapters
    Smollm2Lora,
}

impl Name {
    /// As it is typed, and as the example's folder is called.
    fn text(self) -> &'static str {
        match self {
            Self::Newswire => "newswire",
            Self::Heart => "heart",
            Self::LendingClub => "lending-club",
            Self::Fashion => "fashion",
            Self::Smollm2Lora => "smollm2-lora",
        }
    }

    fn example(self, choice: Choice) -> Result<Example, ExampleError> {
        match self {
            Self::Newswire => newswire::example(choice),
            Self::Heart => heart::example(choice),
            Self::LendingClub => lending_club::example(choice),
            Self::Fashion => fashion::example(choice),
            Self::Smollm2Lora => smollm2::example(choice),
        }
    }
}

fn parse_sites(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse() {
        Ok(sites) if (2..=16).contains(&NonZeroUsize::get(sites)) => Ok(sites),
        Ok(_) | Err(_) => Err("give a number from 2 to 16".into()),
    }
}

fn main() -> ExitCode {
    match demo(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nsheaf-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let Arguments { example: name, seed, sites, reduced } = *arguments;
    let choice = Choice { example: name.text(), seed, sites, reduced };
    let example = name.example(choice)?;
    let folder = if reduced { format!("{}-reduced", name.text()) } else { name.text().to_owned() };
    let work = Work::make(&folder).context("no work folder")?;
    let mut shell = Shell::new(&work)?;
    example.introduce(&work)?;

    let federated = federation::run(&example, &work, &mut shell)?;
    let baselines = baselines::run(&example, &federated, &work, &mut shell)?;
    plot::draw(&federated.history, &example, &work)?;

    let outcome = Outcome::new(&example, &federated, baselines, started.elapsed());
    outcome.write(&work)?;
    outcome.print(&work);
    Ok(())
}
