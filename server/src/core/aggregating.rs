//! A closed round whose updates are being averaged, off the event loop.

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::record::SignedRecord;
use sheaf_common::status::{RoundOutcome, RoundRecord};
use sheaf_common::time::Timestamp;

use super::{Aggregate, Collecting, Context, Effect, Input, State};

/// Waits for the new global parameters to be durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Aggregating {
    pub(super) closed: Collecting,
}

impl Aggregating {
    /// Asks for the average.
    pub(super) fn start(context: &mut Context, closed: Collecting) -> Self {
        let state = Self { closed };
        state.ask(context);
        state
    }

    pub(super) fn handle(mut self, context: &mut Context, input: Input, now: Timestamp) -> State {
        match input {
            // What is being averaged without it would be another attempt.
            Input::Excluded { site, keep_updates: false, why } if self.closed.counts(&site) => {
                self.closed.exclude(context, &site, false, why.clone());
                let why = format!("an update that was being averaged no longer counts: of {site}, {why}");
                self.closed.abandon(context, why, now)
            }
            Input::Aggregated { task, global, record, .. } if task == *self.closed.task() => {
                self.complete(context, global, record, now)
            }
            Input::AggregationFailed { task, why } if task == *self.closed.task() => {
                self.closed.abandon(context, format!("the updates could not be averaged: {why}"), now)
            }
            Input::Restarted => {
                self.ask(context);
                State::Aggregating(self)
            }
            Input::Start
            | Input::Update { .. }
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Ready { .. }
            | Input::Secure { .. }
            | Input::Declined { .. }
            | Input::Evaluated { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Excluded { .. }
            | Input::Stop(_)
            | Input::Tick => State::Aggregating(self),
        }
    }

    fn ask(&self, context: &mut Context) {
        let (task, global) = (self.closed.task().clone(), context.global);
        let (updates, previous) = (self.closed.counted(), context.digest());
        context.emit(Effect::Aggregate(Aggregate { task, global, updates, previous }));
    }

    fn complete(
        self,
        context: &mut Context,
        global: BlobId,
        published: Option<Box<SignedRecord>>,
        now: Timestamp,
    ) -> State {
        let record = self.closed.record(RoundOutcome::Completed(global), context, now);
        context.observe(context.completed, record.global_metrics.as_ref());
        context.emit(Effect::Record(Box::new(RoundRecord { record: published.clone(), ..record })));
        context.publish(published);
        self.closed.complete(context, global, now)
    }
}
