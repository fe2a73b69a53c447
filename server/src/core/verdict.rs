//! Whether an update counts. A bad one costs its sender, never the round.

use sheaf_common::aggregate::Finding;
use sheaf_common::blob::BlobId;
use sheaf_common::message::Update;
use sheaf_common::metrics::{Counts, Kind};

use super::{Context, Inspection};
use serde::{Deserialize, Serialize};

/// A mean training loss beyond this is no loss of a model that is any use.
const LOSS_MAX: f64 = 1e6;

/// An update that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) delta: BlobId,
    pub(super) num_examples: u64,
    pub(super) train_loss: f64,
    pub(super) global_metrics: Option<Counts>,
    pub(super) local_metrics: Option<Counts>,
}

/// Why an update does not count: one sentence, for the site and the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected(pub(super) String);

/// Judges an update that answers the right task for the first time.
pub(super) fn judge(
    context: &Context,
    update: Update,
    inspection: Option<Inspection>,
) -> Result<Accepted, Rejected> {
    let reject = |why: String| Err(Rejected(why));
    let Some(inspection) = inspection else {
        return reject("its blob never arrived".into());
    };
    if inspection.form != context.run.spec.compression.form() {
        return reject("its values do not travel as the run's `[compression]` says".into());
    }
    let expected = context.params().numel();
    if inspection.numel != expected {
        return reject(format!("it has {} values where the model has {expected}", inspection.numel));
    }
    match inspection.finding {
        Finding::Sound => {}
        Finding::NotFinite => return reject("it holds a NaN or an infinity".into()),
        Finding::Damaged => return reject("its bytes are no values".into()),
        Finding::TooLarge => return reject("it holds a value far beyond any weight".into()),
    }
    let most = context.run.spec.cohort.max_examples;
    if !(1..=most).contains(&update.num_examples) {
        return reject(format!("it claims {} examples; 1 to {most} are believed", update.num_examples));
    }
    if !(0.0..=LOSS_MAX).contains(&update.train_loss) {
        return reject(format!("its training loss is {}; 0 to {LOSS_MAX} are believed", update.train_loss));
    }
    let kind = Kind::of(&context.run.spec);
    for counts in [&update.global_metrics, &update.local_metrics].into_iter().flatten() {
        if let Err(why) = counts.is_sound(&kind, 1) {
            return reject(format!("its metrics do not add up: {why}"));
        }
    }
    Ok(Accepted {
        delta: update.delta,
        num_examples: update.num_examples,
        train_loss: update.train_loss,
        global_metrics: update.global_metrics,
        local_metrics: update.local_metrics,
    })
}
