//! `sheaf-client check`: everything that the daemon will need, looked at without a server. It does not stop at
//! the first thing that is wrong: each has its line.
//!
//! `site` looks at the site's own configuration, `trial` does one training step of a run, and [`Cost`] says
//! what a round of it will cost.

mod site;
mod trial;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::units::{bytes, seconds};
use crate::config::SiteConfig;

/// What to verify.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// A run whose contract the data must meet, and of which one step is trained
    #[arg(long, value_name = "FILE")]
    pub run: Option<PathBuf>,
    /// Folder of the pretrained model that the run starts from
    #[arg(long, value_name = "DIR", requires = "run")]
    pub model: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// Whether all is well.
    pub passed: bool,
    /// Everything that was looked at, in order.
    pub findings: Vec<Finding>,
    /// What the run would cost, if one was given and its step could be done.
    pub cost: Option<Cost>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `certificate`, `data set heart` …
    pub what: String,
    /// Whether it is well.
    pub passed: bool,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
}

/// What a round of a run will cost this site, from one measured step; with gradual unfreezing, a round of the last phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Examples trained on: the site's weight in the mean.
    pub train_examples: u64,
    /// Examples held out.
    pub validation_examples: u64,
    /// Examples of each class.
    pub classes: Vec<ClassCount>,
    /// Values that are trained and travel.
    pub parameters: u64,
    /// Time of what is done once per run: tokens and frozen layers.
    pub seconds_to_prepare: f64,
    /// Time of one optimizer step.
    pub seconds_per_step: f64,
    /// Optimizer steps per round.
    pub steps_per_round: u64,
    /// Time of a round: its steps, and the validation split twice.
    pub seconds_per_round: f64,
    /// Most main memory that this process has used, the step included; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes fetched once: the pretrained model.
    pub bytes_down_once: u64,
    /// Bytes fetched in every round.
    pub bytes_down_per_round: u64,
    /// Bytes sent in every round.
    pub bytes_up_per_round: u64,
}

/// Examples of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The label.
    pub label: String,
    /// To train on.
    pub train: u64,
    /// Held out.
    pub validation: u64,
}

/// Looks at everything that the site of `site_toml` needs.
pub fn check(site_toml: &Path, args: &CheckArgs) -> CheckReport {
    let mut report = CheckReport { passed: true, findings: Vec::new(), cost: None };
    match SiteConfig::load(site_toml) {
        Err(error) => report.add("configuration", Err(error.to_string())),
        Ok(config) => {
            report.add("configuration", Ok(site_toml.display().to_string()));
            site::check(&config, &mut report);
            if let Some(run) = &args.run {
                trial::check(&config, run, args.model.as_deref(), &mut report);
            }
        }
    }
    report
}

impl CheckReport {
    fn add(&mut self, what: impl Into<String>, found: Result<String, String>) {
        let passed = found.is_ok();
        let detail = found.unwrap_or_else(|problem| problem);
        self.passed &= passed;
        self.findings.push(Finding { what: what.into(), passed, detail });
    }

    /// Prints lines, or JSON.
    pub(super) fn print(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        let width = self.findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
        for Finding { what, passed, detail } in &self.findings {
            writeln!(out, "{}  {what:width$}  {detail}", if *passed { "ok  " } else { "FAIL" })?;
        }
        if let Some(cost) = &self.cost {
            writeln!(out)?;
            cost.print(out)?;
        }
        let failed = self.findings.iter().filter(|finding| !finding.passed).count();
        writeln!(out)?;
        match failed {
            0 => writeln!(out, "all is well"),
            1 => writeln!(out, "1 thing needs attention"),
            _ => writeln!(out, "{failed} things need attention"),
        }
    }
}

impl Cost {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "examples    {} to train on, {} held out",
            self.train_examples, self.validation_examples
        )?;
        let width = self.classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0);
        for ClassCount { label, train, validation } in &self.classes {
            writeln!(out, "              {label:width$}  {train:>7} {validation:>7}")?;
        }
        writeln!(
            out,
            "once        {} to prepare, {} to fetch",
            seconds(self.seconds_to_prepare),
            bytes(self.bytes_down_once)
        )?;
        writeln!(
            out,
            "per round   about {} ({} steps of {}), {} down, {} up",
            seconds(self.seconds_per_round),
            self.steps_per_round,
            seconds(self.seconds_per_step),
            bytes(self.bytes_down_per_round),
            bytes(self.bytes_up_per_round)
        )?;
        let memory = self.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
        writeln!(out, "memory      {memory} at most so far, {} trained parameters", self.parameters)
    }
}
