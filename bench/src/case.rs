//! One contestant at one piece of work, and how contestants take turns.

use anyhow::Result;

use crate::result::{Row, median};

/// What takes turns: the same work by different contestants.
pub(crate) type Group = Vec<Case>;

/// One contestant at one piece of work.
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) contestant: &'static str,
    pub(crate) size_mb: f64,
    pub(crate) clients: u32,
    pub(crate) run: Box<dyn Fn() -> Result<Sample>>,
}

/// What one turn came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Of each round, or of each time that the work was done.
    pub(crate) seconds: Vec<f64>,
    /// Peak resident memory of all the server's processes, or of the one that trains, in megabytes.
    pub(crate) server_rss_mb: Option<f64>,
    /// Processor time of all the server's processes, or of the work where there is no server, each time.
    pub(crate) cpu_seconds: Option<f64>,
    /// Bytes that crossed the loopback interface, as a multiple of the payload.
    pub(crate) wire: Option<f64>,
}

/// A, B, A, B: what else the machine does meets all alike. A contestant that fails has no further turn.
pub(crate) fn in_turn(group: Group, repeats: u32) -> Vec<Row> {
    let mut samples: Vec<Result<Vec<Sample>>> = group.iter().map(|_| Ok(Vec::new())).collect();
    for turn in 1..=repeats {
        for (case, samples) in group.iter().zip(&mut samples) {
            let Ok(before) = samples else { continue };
            match (case.run)() {
                Ok(sample) => {
                    let seconds = median(&sample.seconds).unwrap_or_default();
                    eprintln!("{case}, turn {turn} of {repeats}: {seconds:.4} s");
                    before.push(sample);
                }
                Err(error) => {
                    eprintln!("{case}, turn {turn} of {repeats}: failed: {error:#}");
                    *samples = Err(error);
                }
            }
        }
    }
    group.iter().zip(samples).map(|(case, samples)| Row::of(case, samples)).collect()
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workload, contestant, size_mb, clients, .. } = self;
        write!(f, "{workload}, {size_mb} MB x {clients}: {contestant}")
    }
}
