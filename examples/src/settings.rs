//! The configuration files of the parties, written as each party would write its own.

use std::fmt::{Display, Write};

use crate::example::{Choice, Example, Site};
use crate::table::Table;

/// A file of an example lacks a key that the demo sets.
#[derive(Debug, thiserror::Error)]
#[error("the example's run has no line `{0} = …` to be set")]
pub(crate) struct NoSuchKey(&'static str);

/// `server.toml`: any free port, this machine alone.
pub(crate) fn server() -> &'static str {
    "# The server: sheaf-server --config server.toml\n\
     # Port 0 takes a free one, which is then written to data/address; a real server has a fixed one: \"0.0.0.0:4433\".\n\
     listen = \"127.0.0.1:0\"\n\
     data_dir = \"data\"\n\
     \n\
     [identity]\n\
     certificate = \"server-main.crt\"\n\
     key = \"server-main.key\"\n\
     ca = \"ca.crt\"\n"
}

/// `operator.toml`: which server, and as whom.
pub(crate) fn operator(address: &str) -> String {
    format!(
        "# The operator's command line finds this file in the folder where it is run.\n\
         server = \"{address}\"\n\
         certificate = \"operator/operator-you.crt\"\n\
         key = \"operator/operator-you.key\"\n\
         ca = \"operator/ca.crt\"\n"
    )
}

/// `site.toml` of a site.
pub(crate) fn site(example: &Example, site: &Site, address: &str) -> String {
    let mut text = format!(
        "# {0}: sheaf-client --config site.toml\n\
         server = \"{address}\"\n\
         state_dir = \"state\"\n\
         # A GPU when there is one.\n\
         device = \"auto\"\n\
         \n\
         [identity]\n\
         certificate = \"site-{0}.crt\"\n\
         key = \"site-{0}.key\"\n\
         ca = \"ca.crt\"\n",
        site.name
    );
    dataset(&mut text, example.choice.example, "train", &site.train);
    text
}

/// `site.toml` of nobody: it holds all data at once and is there to be compared with.
pub(crate) fn scoring(example: &Example) -> String {
    let mut text = "# What no federation has: all data in one place. For the baseline and the scores alone, which need no\n\
                    # server and no certificate, though both must be named.\n\
                    server = \"nowhere:1\"\n\
                    state_dir = \"state\"\n\
                    device = \"auto\"\n\
                    \n\
                    [identity]\n\
                    certificate = \"none.crt\"\n\
                    key = \"none.key\"\n\
                    ca = \"none.crt\"\n"
        .to_owned();
    dataset(&mut text, example.choice.example, "pooled", &example.pooled());
    dataset(&mut text, "test", "test", &example.test);
    text
}

fn dataset(text: &mut String, name: &str, file: &str, table: &Table) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\n[datasets.{name}]\n{}", table.keys(file));
}

/// `run.toml` with what was chosen.
pub(crate) fn run(written: &str, reduced_rounds: u32, choice: Choice) -> Result<String, NoSuchKey> {
    let Choice { seed, sites, reduced, .. } = choice;
    let mut text = set(written, "seed", seed)?;
    if reduced {
        text = set(&text, "rounds", reduced_rounds)?;
    }
    set(&set(&text, "min_sites", sites)?, "min_updates", sites)
}

/// `pretrain.toml` with what was chosen.
pub(crate) fn pretrain(written: &str, choice: Choice) -> Result<String, NoSuchKey> {
    set(written, "seed", choice.seed)
}

/// The text with another value for a key, which has a line of its own.
fn set(text: &str, key: &'static str, value: impl Display) -> Result<String, NoSuchKey> {
    let is_key = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    if !text.lines().any(is_key) {
        return Err(NoSuchKey(key));
    }
    let lines = text
        .lines()
        .map(|line| if is_key(line) { format!("{key} = {value}\n") } else { format!("{line}\n") });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use sheaf_common::run::RunSpec;

    use super::*;

    #[test]
    fn the_examples_are_runs_and_take_what_was_chosen() {
        let choice = Choice { example: "any", seed: 42, sites: NonZeroUsize::new(6).unwrap(), reduced: true };
        for written in [
            include_str!("../newswire/run.toml"),
            include_str!("../heart/run.toml"),
            include_str!("../lending-club/run.toml"),
            include_str!("../fashion/run.toml"),
            include_str!("../smollm2-lora/run.toml"),
        ] {
            let spec = RunSpec::parse("run.toml", &run(written, 2, choice).unwrap()).unwrap();
            assert_eq!((spec.seed, spec.rounds), (42, 2));
            assert_eq!((spec.cohort.min_sites, spec.cohort.min_updates), (6, 6));
        }
        let written = pretrain(include_str!("../heart/pretrain.toml"), choice).unwrap();
        assert_eq!(RunSpec::parse("pretrain.toml", &written).unwrap().seed, 42);
    }

    #[test]
    fn a_key_that_is_not_there_is_missed() {
        assert!(set("rounds = 1\n", "seed", 1).is_err());
    }
}
