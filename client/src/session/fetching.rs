//! The blobs of a task are on their way.

use sheaf_common::message::SiteMessage;

use super::{Context, Effect, FetchFailure, State, Task, Working};

/// Waits for the blobs that the task names.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) task: Task,
}

impl Fetching {
    pub(super) fn start(task: Task, context: &mut Context) -> State {
        context.emit(Effect::Fetch(task.clone()));
        State::Fetching(Self { task })
    }

    pub(super) fn done(self, context: &mut Context, result: Result<(), FetchFailure>) -> State {
        match result {
            Ok(()) => Working::start(self.task, context),
            Err(FetchFailure::Lost) => State::Idle,
            Err(FetchFailure::Refused(reason)) => {
                let task = self.task.id().clone();
                context.emit(Effect::Say(SiteMessage::Declined { task, reason }));
                State::Idle
            }
        }
    }
}
