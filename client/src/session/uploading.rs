//! An update's blob is on its way to the server; the update itself follows it.

use sheaf_common::message::{SiteMessage, Update};

use super::{Context, Effect, State};

/// Waits for the blob to arrive.
#[derive(Debug)]
pub(super) struct Uploading {
    pub(super) update: Box<Update>,
}

impl Uploading {
    pub(super) fn start(update: Box<Update>, context: &mut Context) -> State {
        context.emit(Effect::Upload(update.clone()));
        State::Uploading(Self { update })
    }

    /// The update is said once its blob is there. It stays ready until the round is over.
    pub(super) fn done(self, context: &mut Context, arrived: bool) -> State {
        if arrived {
            context.emit(Effect::Say(SiteMessage::Update(self.update)));
        }
        State::Idle
    }
}
