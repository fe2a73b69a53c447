//! The trainer is at work. It needs no connection, and goes on without one.

use sheaf_common::message::SiteMessage;

use super::secure::is_secure;
use super::{Context, Effect, Finished, Outcome, State, Task, Uploading, WorkFailure};

/// Waits for the trainer.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) task: Task,
}

impl Working {
    pub(super) fn start(task: Task, context: &mut Context) -> State {
        context.emit(Effect::Work(task.clone()));
        State::Working(Self { task })
    }

    pub(super) fn done(self, context: &mut Context, result: Result<Outcome, WorkFailure>) -> State {
        let task = self.task.id().clone();
        match result {
            Ok(Outcome::Trained(update)) => {
                let finished = Finished { origin: self.task.job().origin(), update: *update };
                context.ready.insert(task.clone(), finished.clone());
                if !context.connected {
                    return State::Idle;
                }
                if is_secure(&self.task.job().spec) {
                    context.emit(Effect::Say(SiteMessage::Ready(task)));
                    return State::Idle;
                }
                Uploading::update(finished.update, context)
            }
            Ok(Outcome::Evaluated(metrics)) => {
                context.emit(Effect::Say(SiteMessage::Evaluated { task: task.clone(), metrics }));
                State::Idle
            }
            Err(WorkFailure::Cancelled) => State::Idle,
            Err(WorkFailure::Declined(reason)) => {
                context.emit(Effect::Say(SiteMessage::Declined { task, reason }));
                State::Idle
            }
        }
    }
}
