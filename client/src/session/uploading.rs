//! A blob is on its way to the server; what is said about it follows it.

use sheaf_common::blob::BlobId;
use sheaf_common::message::{SiteMessage, TaskId, Update};

use super::{Context, Effect, State, Then, TransferFailure};

/// Waits for the blob to arrive.
#[derive(Debug)]
pub(super) struct Uploading {
    pub(super) task: TaskId,
    then: SiteMessage,
}

impl Uploading {
    /// An update in the open.
    pub(super) fn update(update: Update, context: &mut Context) -> State {
        let (task, blob) = (update.task.clone(), update.delta);
        context.emit(Effect::Upload { task: task.clone(), blob });
        State::Uploading(Self { task, then: SiteMessage::Update(Box::new(update)) })
    }

    /// A masked vector, which leaves once it is remembered.
    pub(super) fn masked(task: TaskId, blob: BlobId, then: SiteMessage, context: &mut Context) -> State {
        context.remember(Some(Then::Upload { task: task.clone(), blob }));
        State::Uploading(Self { task, then })
    }

    /// It is said once its blob is there. What was sent stays here until the round is over.
    pub(super) fn done(self, context: &mut Context, result: Result<(), TransferFailure>) -> State {
        match result {
            Ok(()) => context.emit(Effect::Say(self.then)),
            // The server asks again when it is back.
            Err(TransferFailure::Lost) => {}
            Err(TransferFailure::Refused(reason)) => {
                context.emit(Effect::Say(SiteMessage::Declined { task: self.task, reason }));
            }
        }
        State::Idle
    }
}
