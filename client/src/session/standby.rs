//! Whether the site stands by for a run: said when the server announces it, and again whenever that changes.
//!
//! A site that does not is asked nothing, and the run waits for it. That is for what passes: a person who has not
//! looked at the run yet, the hour of the day. What the site's policy refuses is declined task by task.

use sheaf_common::id::{Name, RunId};
use sheaf_common::message::{Job, SiteMessage, TaskId};

use super::{Context, Effect};

/// Runs that are remembered as announced; the names that come first in the alphabet go first.
const ANNOUNCED_MAX: usize = 1000;

/// What only the site's people, its clock and its trust in certificates can say of a run.
pub trait Gate {
    /// The operator who asked for it, if that is proved.
    fn author(&self, job: &Job) -> Result<Name, String>;

    /// Why the site does nothing for it now, if so.
    fn hold(&self, run: &RunId, job: &Job, author: &Name) -> Option<String>;
}

/// A run that the server announced, and what was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Announced {
    job: Job,
    held: Option<String>,
}

impl Context {
    pub(super) fn announced(&mut self, run: RunId, job: Job) {
        let held = self.hold(&run, &job, None);
        self.emit(Effect::Say(SiteMessage::Standby { run: run.clone(), held: held.clone() }));
        self.announced.insert(run, Announced { job, held });
        if self.announced.len() > ANNOUNCED_MAX {
            self.announced.pop_first();
        }
    }

    /// Looks at every announced run again.
    pub(super) fn reconsider(&mut self) {
        for (run, mut announced) in std::mem::take(&mut self.announced) {
            let held = self.hold(&run, &announced.job, None);
            if held != announced.held {
                self.emit(Effect::Say(SiteMessage::Standby { run: run.clone(), held: held.clone() }));
                announced.held = held;
            }
            self.announced.insert(run, announced);
        }
    }

    /// Why nothing new is begun for a run now. One that the policy refuses is not held: it is declined. The round in hand is
    /// brought to its end, and no other; that is of this very run, since the server may give its name to any other.
    pub(super) fn hold(&self, run: &RunId, job: &Job, round: Option<u32>) -> Option<String> {
        let origin = job.origin();
        let in_hand = |(task, in_hand): &(TaskId, Job)| {
            task.run == *run && in_hand.origin() == origin && round.is_none_or(|round| round == task.round)
        };
        if self.job.as_ref().is_some_and(in_hand) {
            return None;
        }
        let author = self.trust.gate.author(job).ok()?;
        if self.trust.policy.objection(job, &author).is_some() {
            return None;
        }
        self.trust.gate.hold(run, job, &author)
    }
}
