//! The blobs of a task are on their way.

use sheaf_common::message::SiteMessage;
use sheaf_common::secagg::client::Witness;

use super::{Context, Effect, State, Task, TransferFailure, Working};

/// Waits for the blobs that the task names.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) task: Task,
    /// Whether the sum of the round before is checked on the way.
    checks: bool,
}

impl Fetching {
    pub(super) fn start(task: Task, witness: Option<Box<Witness>>, context: &mut Context) -> State {
        let checks = witness.is_some();
        context.emit(Effect::Fetch { task: task.clone(), witness });
        State::Fetching(Self { task, checks })
    }

    pub(super) fn done(self, context: &mut Context, result: Result<(), TransferFailure>) -> State {
        match result {
            Ok(()) => {
                if self.checks {
                    context.checked(&self.task);
                }
                Working::start(self.task, context)
            }
            Err(TransferFailure::Lost) => State::Idle,
            Err(TransferFailure::Refused(reason)) => {
                let task = self.task.id().clone();
                context.emit(Effect::Say(SiteMessage::Declined { task, reason }));
                State::Idle
            }
        }
    }
}
