//! Batches that the device's memory cannot hold are cut in halves until it can.
//!
//! A step's gradient is a sum over its examples, so it does not matter in how many pieces it is computed; a run
//! written for a large GPU goes on at a site with a small one, only slower.

use tch::TchError;

/// How many examples were found to go through the model at a time.
pub(super) struct Fitting {
    most: usize,
}

impl Fitting {
    /// Begins with batches of `batch_size` examples.
    pub(super) fn new(batch_size: usize) -> Self {
        Self { most: batch_size.max(1) }
    }

    /// Does `work` on all `examples`, as many at a time as there is memory for. What fails for want of memory must
    /// leave nothing behind: it is done again on each half.
    ///
    /// # Errors
    /// When `work` fails for another reason, or for want of memory on a single example.
    pub(super) fn run(
        &mut self,
        examples: &[usize],
        mut work: impl FnMut(&[usize]) -> Result<(), TchError>,
    ) -> Result<(), TchError> {
        let mut rest = examples;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(self.most.min(rest.len()));
            match work(batch) {
                Ok(()) => rest = after,
                Err(error) if batch.len() > 1 && is_out_of_memory(&error) => {
                    self.most = batch.len().div_ceil(2);
                    tracing::warn!(
                        "{} examples do not fit into the device's memory: going on with {} at a time",
                        batch.len(),
                        self.most
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether libtorch failed for want of memory, on a GPU or in main memory.
pub(super) fn is_out_of_memory(error: &TchError) -> bool {
    let text = error.to_string();
    text.contains("out of memory") || text.contains("can't allocate memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn torch(sentence: &str) -> TchError {
        TchError::Torch(sentence.into())
    }

    proptest! {
        /// Every example once and in order, whatever the memory holds, and no batch larger than asked.
        #[test]
        fn all_examples_are_worked_on_once(examples in 0usize..60, batch in 1usize..20, memory in 1usize..20) {
            let examples: Vec<usize> = (0..examples).collect();
            let (mut seen, mut refused) = (Vec::new(), 0);
            let mut fitting = Fitting::new(batch);
            for _ in 0..2 {
                fitting.run(&examples, |part| {
                    assert!(part.len() <= batch);
                    if part.len() > memory {
                        refused += 1;
                        return Err(torch("CUDA out of memory. Tried to allocate 2.00 GiB"));
                    }
                    seen.extend_from_slice(part);
                    Ok(())
                }).unwrap();
            }
            prop_assert_eq!(seen, [examples.clone(), examples].concat());
            // What was learned holds: 20, 10, 5, 3, 2, 1.
            prop_assert!(refused <= 5, "{} refusals", refused);
        }
    }

    #[test]
    fn one_example_too_large_and_other_failures_end_it() {
        let mut calls = 0;
        let mut failing = |sentence: &str| {
            calls = 0;
            let result = Fitting::new(4).run(&[0, 1, 2, 3], |_| {
                calls += 1;
                Err(torch(sentence))
            });
            (result.unwrap_err().to_string().contains(sentence), calls)
        };
        assert_eq!(failing("CUDA out of memory"), (true, 3));
        assert_eq!(failing("the shapes do not match"), (true, 1));
    }
}
