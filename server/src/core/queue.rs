//! Which queued runs may go: a run goes when none of its sites is held by a run before it in the queue.
//!
//! A site works for one run at a time, so that its memory and its owner's patience hold.

use std::collections::BTreeSet;

use sheaf_common::id::ClientId;

/// A run that is not over, as the queue sees it.
#[derive(Clone, Debug)]
pub struct Waiting<'a> {
    /// The sites that it may use; `None` is every site.
    pub sites: Option<&'a [ClientId]>,
    /// Whether it has been let go already.
    pub started: bool,
}

/// The indices of the runs to let go now. `runs` are all that are not over, in the order of their submission.
pub fn startable(runs: &[Waiting<'_>]) -> Vec<usize> {
    let mut held = Held::default();
    for run in runs.iter().filter(|run| run.started) {
        held.take(run.sites);
    }
    let mut startable = Vec::new();
    for (index, run) in runs.iter().enumerate().filter(|(_, run)| !run.started) {
        if !held.overlaps(run.sites) {
            startable.push(index);
        }
        // One that must wait keeps its place: nobody behind it may take its sites.
        held.take(run.sites);
    }
    startable
}

#[derive(Default)]
struct Held<'a> {
    all: bool,
    sites: BTreeSet<&'a ClientId>,
}

impl<'a> Held<'a> {
    fn take(&mut self, sites: Option<&'a [ClientId]>) {
        match sites {
            None => self.all = true,
            Some(sites) => self.sites.extend(sites),
        }
    }

    fn overlaps(&self, sites: Option<&[ClientId]>) -> bool {
        match sites {
            None => self.all || !self.sites.is_empty(),
            Some(sites) => self.all || sites.iter().any(|site| self.sites.contains(site)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(names: &str) -> Vec<ClientId> {
        names.split(' ').map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn disjoint_cohorts_go_side_by_side_and_nobody_jumps_the_queue() {
        let (ab, c, bc, d) = (sites("a b"), sites("c"), sites("b c"), sites("d"));
        let run = |sites, started| Waiting { sites: Some(sites), started };
        assert_eq!(startable(&[run(&ab, true), run(&c, false)]), [1]);
        assert_eq!(startable(&[run(&ab, true), run(&bc, false), run(&c, false), run(&d, false)]), [3]);
        let everybody = Waiting { sites: None, started: false };
        assert_eq!(startable(&[everybody.clone(), run(&d, false)]), [0]);
        assert_eq!(startable(&[run(&d, true), everybody]), [] as [usize; 0]);
    }
}
