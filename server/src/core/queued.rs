//! A run behind another one that holds sites of its cohort.

use serde::{Deserialize, Serialize};
use sheaf_common::time::Timestamp;

use super::{Context, Input, State, Waiting};

/// Waits for [`Input::Start`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Queued;

impl Queued {
    pub(super) fn handle(self, context: &mut Context, input: &Input, now: Timestamp) -> State {
        if *input == Input::Start {
            Waiting { round: 1, attempt: 1 }.proceed(context, now)
        } else {
            State::Queued(self)
        }
    }
}
