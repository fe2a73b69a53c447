//! Waiting for enough sites to start a round, or a survey, which is of all that are connected then.

use serde::{Deserialize, Serialize};
use sheaf_common::time::Timestamp;

use super::{Collecting, Context, Evaluating, State, selector};

/// The next attempt, which starts as soon as `min_sites` are connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) round: u32,
    pub(super) attempt: u32,
}

impl Waiting {
    /// Starts the round if enough sites are there; whatever happened may have changed that.
    pub(super) fn proceed(self, context: &mut Context, now: Timestamp) -> State {
        let cohort = &context.run.spec.cohort;
        let trainers = context.trainers();
        if trainers.len() < cohort.min_sites as usize {
            return State::Waiting(self);
        }
        if context.run.spec.is_survey() {
            return Evaluating::start(context, now);
        }
        let task = context.task(self.round, self.attempt);
        let members = selector::select(cohort, context.run.spec.seed, &task, &trainers);
        State::Collecting(Collecting::start(context, task, members, now))
    }

    pub(super) fn detail(&self, context: &Context) -> String {
        let cohort = &context.run.spec.cohort;
        let what = match self.round {
            _ if context.run.spec.is_survey() => "the survey".to_owned(),
            round => format!("round {round}"),
        };
        format!("{what} needs {} sites; {} connected", cohort.min_sites, context.trainers().len())
    }
}
