//! No model: a vector of any length, to each value of which a site adds a constant. It measures everything in a
//! round but training.

use sheaf_common::metrics::Counts;
use sheaf_common::seed;
use sheaf_common::status::{Phase, Progress};

use super::{Round, TrainError, Trained, Trainer, Watch};

/// Least of what is added to each value in a round.
const STEP: f32 = 0.001;

/// Values between two looks at whoever waits.
const CHUNK: usize = 1 << 20;

/// Adds a constant to every parameter, in place, and needs no data.
#[derive(Clone, Copy, Debug)]
pub struct ConstantTrainer {
    step: f32,
}

impl ConstantTrainer {
    /// The trainer of a site, whose name makes its constant: were all updates the same blob, only the first would
    /// travel, and nothing would be measured.
    pub fn new(site_label: &str) -> Self {
        let share = seed::integer(0, &["constant", site_label]) % 4096;
        Self { step: STEP * (1.0 + share as f32 / 4096.0) }
    }
}

impl Trainer for ConstantTrainer {
    fn num_examples(&self) -> u64 {
        1
    }

    fn train(
        &mut self,
        mut params: Vec<f32>,
        _round: Round,
        watch: &dyn Watch,
    ) -> Result<Trained, TrainError> {
        let total = params.len() as u64;
        let mut done = 0;
        for chunk in params.chunks_mut(CHUNK) {
            if watch.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            chunk.iter_mut().for_each(|value| *value += self.step);
            done += chunk.len() as u64;
            watch.progress(Progress::new(Phase::Training, done, total));
        }
        Ok(Trained { params, train_loss: 0.0 })
    }

    fn evaluate(&mut self, _params: &[f32], _watch: &dyn Watch) -> Result<Option<Counts>, TrainError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::Unwatched;

    #[test]
    fn every_value_is_moved_where_it_lies() {
        let params = vec![1.0; CHUNK + 3];
        let place = params.as_ptr();
        let mut trainer = ConstantTrainer::new("a");
        let trained = trainer.train(params, Round { number: 1, of: 1 }, &Unwatched).unwrap();
        assert_eq!(trained.params, vec![1.0 + trainer.step; CHUNK + 3]);
        assert!((STEP..2.0 * STEP).contains(&trainer.step));
        assert_ne!(trainer.step, ConstantTrainer::new("b").step);
        assert_eq!(trained.params.as_ptr(), place, "nothing was copied");
        assert_eq!(trainer.evaluate(&trained.params, &Unwatched).unwrap(), None);
    }
}
