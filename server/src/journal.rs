//! One step of a run: an input into its coordinator, what must be durable because of it, and what is then to be done.
//!
//! Whoever takes a step commits its writes before any of its effects leaves. A crash in between loses nothing: what was
//! not committed did not happen, and what was is asked for again by [`Input::Restarted`].

use sheaf_common::time::Timestamp;

use crate::core::{Coordinator, Effect, Input};
use crate::store::Write;

/// What an input gives rise to.
#[derive(Debug)]
pub struct Step {
    /// To be committed first, all or nothing.
    pub writes: Vec<Write>,
    /// To be done after that, in order.
    pub effects: Vec<Effect>,
}

/// Gives an input to a run. An answer that nothing waits for leaves no trace: whoever sends many fills no disk.
pub fn step(coordinator: &mut Coordinator, input: Input, at: Timestamp) -> Step {
    let run = coordinator.run().id.clone();
    let mut writes = Vec::new();
    let mut effects = Vec::new();
    if coordinator.handle(input.clone(), at) {
        writes.push(Write::Input { run: run.clone(), at, input: Box::new(input) });
    }
    while let Some(effect) = coordinator.poll_effect() {
        match effect {
            Effect::Record(record) => writes.push(Write::Round { run: run.clone(), record }),
            Effect::FinalMetrics(report) => writes.push(Write::FinalMetrics { run: run.clone(), report }),
            Effect::TestMetrics(report) => writes.push(Write::TestMetrics { run: run.clone(), report }),
            Effect::Ended(_) => {
                writes.push(Write::Ended { run: run.clone(), at });
                effects.push(effect);
            }
            Effect::Train { .. }
            | Effect::Evaluate { .. }
            | Effect::Ask { .. }
            | Effect::Open(_)
            | Effect::Reject { .. }
            | Effect::Over { .. }
            | Effect::Aggregate(_)
            | Effect::Withdraw(_)
            | Effect::Forget(_) => effects.push(effect),
        }
    }
    let over = |write: &Write| matches!(write, Write::Round { .. } | Write::Ended { .. });
    if coordinator.is_between_rounds() && writes.iter().any(over) {
        writes.push(Write::Snapshot(Box::new(coordinator.clone())));
    }
    Step { writes, effects }
}
