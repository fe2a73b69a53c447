//! Which examples a site trains on at each step of a round, and at what learning rate.
//!
//! Every epoch is a fresh shuffle, drawn from the run's seed, the site and the round, so that a round that is
//! tried again draws the same batches.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use rand::RngExt;
use rand::seq::SliceRandom;
use sheaf_common::run::{LocalWork, Per, Sampling, Training};
use sheaf_common::seed;
use sheaf_common::status::{Phase, Progress};

use super::Round;

/// The steps of one round at a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batches {
    examples: usize,
    /// Examples that go through the model at a time.
    pub(crate) batch_size: usize,
    /// Examples of a step: those of all batches whose gradients it averages.
    step_size: usize,
    /// Steps of the round.
    pub(crate) steps: u64,
    /// Steps of one pass over the data.
    pub(crate) steps_per_epoch: u64,
}

impl Batches {
    /// The steps that `training` asks of a site with so many `examples`, of which there must be one at least.
    pub(crate) fn new(training: &Training, examples: usize) -> Self {
        let batch_size = training.batch_size.max(1) as usize;
        let step_size = batch_size * training.accumulation_steps.max(1) as usize;
        let steps_per_epoch = examples.div_ceil(step_size) as u64;
        let steps = match training.local {
            LocalWork::Epochs(epochs) => u64::from(epochs) * steps_per_epoch,
            LocalWork::Steps(_) if examples == 0 => 0,
            LocalWork::Steps(steps) => u64::from(steps),
        };
        Self { examples, batch_size, step_size, steps, steps_per_epoch }
    }

    /// The examples of every step of the round, in order; `labels` are all examples'. The last step of an epoch may
    /// have fewer.
    pub(crate) fn of_round(
        self,
        seed: u64,
        site_label: &str,
        round: u32,
        sampling: Sampling,
        labels: &[u32],
    ) -> impl Iterator<Item = Vec<usize>> {
        let epochs = self.steps.div_ceil(self.steps_per_epoch.max(1));
        let mut random = seed::stream(seed, &["order", site_label, &round.to_string()]);
        let mut order: Vec<usize> = (0..self.examples).collect();
        let classes = match sampling {
            Sampling::Shuffle => Vec::new(),
            Sampling::Balanced => classes(labels),
        };
        let epoch = move |_| {
            if classes.is_empty() {
                order.shuffle(&mut random);
            } else {
                // A class at random, then one of its examples: every class is as likely.
                for drawn in &mut order {
                    let class = &classes[random.random_range(0..classes.len())];
                    *drawn = class[random.random_range(0..class.len())];
                }
            }
            order.chunks(self.step_size).map(<[usize]>::to_vec).collect::<Vec<_>>()
        };
        (0..epochs).flat_map(epoch).take(self.steps as usize)
    }

    /// The learning rate at `step` (from 0) of `round`.
    pub(crate) fn learning_rate(self, training: &Training, round: Round, step: u64) -> f64 {
        let before = u64::from(round.number.saturating_sub(1));
        let factor = match training.schedule.per {
            Per::Step => {
                training.schedule.factor(before * self.steps + step, u64::from(round.of) * self.steps)
            }
            Per::Round => training.schedule.factor(before, u64::from(round.of)),
        };
        training.learning_rate * factor
    }

    /// So many steps of the round are done.
    pub(crate) fn progress(self, done: u64) -> Progress {
        let steps_per_epoch = NonZeroU64::new(self.steps_per_epoch);
        Progress { steps_per_epoch, ..Progress::new(Phase::Training, done, self.steps) }
    }

    /// Whether `step` (from 0) counts for the round's training loss: the last epoch's do.
    pub(crate) fn is_last_epoch(self, step: u64) -> bool {
        step + self.steps_per_epoch >= self.steps
    }
}

/// The examples of each class that has any.
fn classes(labels: &[u32]) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (example, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(example);
    }
    classes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sheaf_common::run::{Optimizer, Schedule, ScheduleKind};

    use super::*;

    fn training(local: LocalWork) -> Training {
        Training {
            optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
            learning_rate: 0.5,
            batch_size: 4,
            local,
            schedule: Schedule { kind: ScheduleKind::Linear, per: Per::Step, warmup_steps: 0 },
            ..Training::default()
        }
    }

    #[test]
    fn an_epoch_shows_every_example_once() {
        let batches = Batches::new(&training(LocalWork::Epochs(3)), 10);
        let all: Vec<Vec<usize>> = batches.of_round(7, "a", 1, Sampling::Shuffle, &[]).collect();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2, 4, 4, 2]);
        for epoch in all.chunks(3) {
            assert_eq!(epoch.concat().into_iter().collect::<BTreeSet<_>>().len(), 10);
        }
        assert_ne!(all[..3], all[3..6], "every epoch is shuffled anew");
    }

    #[test]
    fn the_order_is_fixed_by_seed_site_and_round() {
        let batches = Batches::new(&training(LocalWork::Epochs(1)), 50);
        let order = |seed, site, round| {
            batches.of_round(seed, site, round, Sampling::Shuffle, &[]).collect::<Vec<_>>()
        };
        assert_eq!(order(7, "a", 1), order(7, "a", 1));
        assert_ne!(order(7, "a", 1), order(8, "a", 1));
        assert_ne!(order(7, "a", 1), order(7, "b", 1));
        assert_ne!(order(7, "a", 1), order(7, "a", 2));
    }

    #[test]
    fn so_many_steps_whatever_the_data() {
        for (examples, steps) in [(10, 2), (10, 7), (1, 5), (4, 1)] {
            let batches = Batches::new(&training(LocalWork::Steps(steps)), examples);
            assert_eq!(batches.of_round(1, "a", 1, Sampling::Shuffle, &[]).count(), steps as usize);
        }
        assert_eq!(
            Batches::new(&training(LocalWork::Steps(5)), 0)
                .of_round(1, "a", 1, Sampling::Shuffle, &[])
                .count(),
            0
        );
    }

    #[test]
    fn the_schedule_runs_over_all_rounds() {
        let training = training(LocalWork::Steps(5));
        let batches = Batches::new(&training, 10);
        let rate = |number, step| batches.learning_rate(&training, Round { number, of: 2 }, step);
        assert_eq!([rate(1, 0), rate(1, 4), rate(2, 0)], [0.5, 0.5 * 0.6, 0.25]);
    }

    #[test]
    fn the_loss_is_the_last_epochs() {
        let counted = |local| {
            let batches = Batches::new(&training(local), 10);
            (0..batches.steps).filter(|step| batches.is_last_epoch(*step)).collect::<Vec<_>>()
        };
        assert_eq!(counted(LocalWork::Epochs(2)), [3, 4, 5]);
        assert_eq!(counted(LocalWork::Steps(2)), [0, 1]);
    }

    #[test]
    fn progress_says_which_pass_is_in_hand() {
        let epochs = |local, steps: &[u64]| {
            let batches = Batches::new(&training(local), 10);
            steps.iter().map(|done| batches.progress(*done).epoch()).collect::<Vec<_>>()
        };
        let of_three = |epoch| Some((epoch, 3));
        assert_eq!(epochs(LocalWork::Epochs(3), &[0, 2, 3, 8, 9]), [1, 1, 2, 3, 3].map(of_three));
        assert_eq!(epochs(LocalWork::Steps(7), &[0, 3, 7]), [1, 2, 3].map(of_three));
        assert_eq!(epochs(LocalWork::Epochs(1), &[0, 3]), [None, None]);
    }

    #[test]
    fn a_step_takes_all_the_batches_whose_gradients_it_averages() {
        let training = Training { accumulation_steps: 2, ..training(LocalWork::Epochs(1)) };
        let batches = Batches::new(&training, 10);
        let sizes = batches.of_round(7, "a", 1, Sampling::Shuffle, &[]).map(|step| step.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [8, 2]);
        assert_eq!((batches.steps, batches.batch_size), (2, 4));
    }

    #[test]
    fn balanced_sampling_draws_a_rare_class_as_often_as_the_others() {
        let labels: Vec<u32> = (0..1000).map(|example| u32::from(example % 20 == 0)).collect();
        let batches = Batches::new(&training(LocalWork::Epochs(4)), labels.len());
        let drawn: Vec<usize> = batches.of_round(7, "a", 1, Sampling::Balanced, &labels).flatten().collect();
        assert_eq!(drawn.len(), 4000);
        let rare = drawn.iter().filter(|example| labels[**example] == 1).count();
        // A standard deviation is 32.
        assert!((1800..2200).contains(&rare), "{rare} of 4000");
    }

    #[test]
    fn a_schedule_over_rounds_stays_within_one() {
        let mut training = training(LocalWork::Steps(5));
        training.schedule.per = Per::Round;
        let batches = Batches::new(&training, 10);
        let rate = |number, step| batches.learning_rate(&training, Round { number, of: 4 }, step);
        assert_eq!([rate(1, 0), rate(1, 4), rate(3, 2)], [0.5, 0.5, 0.25]);
    }
}
