//! Long vectors in pieces: made on all cores, taken in order, a few in memory at a time.

use std::thread;

/// Calls `make` with the start and the length of each chunk of `length` values, on all cores, and `take` with
/// what came of it, in order. Stops at the first error. Blocks.
pub fn in_order<T: Send, E: Send>(
    length: u64,
    chunk: usize,
    make: impl Fn(u64, usize) -> Result<T, E> + Sync,
    mut take: impl FnMut(u64, T) -> Result<(), E>,
) -> Result<(), E> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let starts: Vec<u64> = (0..length).step_by(chunk).collect();
    let mut before = Vec::new();
    for batch in starts.chunks(workers) {
        before = thread::scope(|scope| {
            let make = &make;
            let threads: Vec<_> = batch
                .iter()
                // At most `chunk`, so it fits.
                .map(|start| scope.spawn(move || make(*start, (length - start).min(chunk as u64) as usize)))
                .collect();
            // While the next ones are made.
            for (start, made) in before {
                take(start, made)?;
            }
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let made = threads.into_iter().map(join);
            batch.iter().zip(made).map(|(start, made)| Ok((*start, made?))).collect::<Result<Vec<_>, E>>()
        })?;
    }
    before.into_iter().try_for_each(|(start, made)| take(start, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_once_and_in_order() {
        for length in [0u64, 1, 7, 8, 9, 100] {
            let mut all = Vec::new();
            let make = |start: u64, len: usize| Ok::<_, ()>((start..start + len as u64).collect::<Vec<_>>());
            let take = |start: u64, made: Vec<u64>| {
                assert_eq!(made.first(), Some(&start));
                all.extend(made);
                Ok(())
            };
            in_order(length, 8, make, take).unwrap();
            assert_eq!(all, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut taken = 0;
        let make = |start, _| if start < 50 { Ok(start) } else { Err(start) };
        let result = in_order(1000, 1, make, |_, _| {
            taken += 1;
            Ok(())
        });
        assert_eq!(result, Err(50));
        assert!(taken <= 50);
    }
}
