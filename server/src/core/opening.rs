//! A secure sum is being opened, off the event loop.

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::metrics::Kind;
use sheaf_common::record::SignedRecord;
use sheaf_common::secagg::server::Unmasking;
use sheaf_common::status::{RoundOutcome, RoundRecord};
use sheaf_common::time::Timestamp;

use super::securing::Closed;
use super::{Context, Effect, Input, Open, State, Summed};

/// Waits for the sum and what was made of it to be durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Opening {
    pub(super) closed: Closed,
    pub(super) unmasking: Unmasking,
}

impl Opening {
    pub(super) fn start(context: &mut Context, closed: Closed, unmasking: Unmasking) -> Self {
        let state = Self { closed, unmasking };
        state.ask(context);
        state
    }

    pub(super) fn handle(self, context: &mut Context, input: Input, now: Timestamp) -> State {
        let task = self.closed.task(context);
        match input {
            Input::Aggregated { task: done, global, record, summed: Some(summed) } if done == task => {
                self.complete(context, (global, record), *summed, now)
            }
            Input::AggregationFailed { task: done, why } if done == task => {
                self.forget(context);
                self.closed.fail(context, format!("the sum could not be opened: {why}"), now)
            }
            Input::Restarted => {
                self.ask(context);
                State::Opening(self)
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
            | Input::Tick => State::Opening(self),
        }
    }

    fn ask(&self, context: &mut Context) {
        let (task, global) = (self.closed.task(context), context.global);
        let unmasking = self.unmasking.clone();
        context.emit(Effect::Open(Box::new(Open { task, global, unmasking })));
    }

    fn forget(&self, context: &mut Context) {
        context.emit(Effect::Forget(self.unmasking.masked().values().copied().collect()));
    }

    pub(super) fn dismiss(&self, context: &mut Context) {
        self.forget(context);
        self.closed.dismiss(context);
    }

    fn complete(
        self,
        context: &mut Context,
        (global, published): (BlobId, Option<Box<SignedRecord>>),
        summed: Summed,
        now: Timestamp,
    ) -> State {
        self.forget(context);
        match self.closed {
            Closed::Round(closed) => {
                let survivors = self.unmasking.masked().keys().cloned().collect();
                let outcome = RoundOutcome::Completed(global);
                let record = closed.secure_record(outcome, &summed, &survivors, context, now);
                context.observe(context.completed, record.global_metrics.as_ref());
                context.emit(Effect::Record(Box::new(RoundRecord { record: published.clone(), ..record })));
                context.take_ranges(closed.task().round, summed.ranges);
                context.publish(published);
                closed.complete(context, global, now)
            }
            Closed::Final(closed) => {
                let counts = summed.global_metrics.filter(|counts| counts.num_examples() > 0);
                let report = counts.map(|counts| counts.report(&Kind::of(&context.run.spec)));
                closed.complete(context, report, now)
            }
        }
    }
}
