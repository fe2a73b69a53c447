//! The end of a run. Nothing leaves this state.

use serde::{Deserialize, Serialize};
use sheaf_common::id::Name;
use sheaf_common::status::RunState;

use super::{Context, Effect, State};

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Finished {
    pub(super) outcome: RunState,
    pub(super) detail: String,
}

impl Finished {
    pub(super) fn completed(context: &mut Context) -> State {
        let detail = match context.best {
            Some(best) if context.completed < context.run.spec.rounds => format!(
                "stopped early: {} has been best after round {} ({:.4})",
                context.run.spec.validation.monitor, best.round, best.value
            ),
            Some(_) | None => String::new(),
        };
        Self::end(context, RunState::Completed, detail)
    }

    /// All rounds are done, and the final model's metrics could not be had.
    pub(super) fn completed_without_metrics(context: &mut Context, why: &str) -> State {
        Self::end(context, RunState::Completed, format!("without metrics of the final model: {why}"))
    }

    /// All rounds are done, and the result could not be tested.
    pub(super) fn completed_without_test(context: &mut Context, why: &str) -> State {
        Self::end(context, RunState::Completed, format!("without a test of the result: {why}"))
    }

    pub(super) fn failed(context: &mut Context, why: String) -> State {
        Self::end(context, RunState::Failed, why)
    }

    pub(super) fn stopped(context: &mut Context, by: &Name) -> State {
        Self::end(context, RunState::Stopped, format!("by operator {by}"))
    }

    fn end(context: &mut Context, outcome: RunState, detail: String) -> State {
        context.emit(Effect::Ended(outcome.clone()));
        State::Finished(Self { outcome, detail })
    }
}
