//! Long vectors in pieces: made on all cores, taken in order, a few in memory at a time.

use std::sync::mpsc::sync_channel;
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
    thread::scope(|scope| {
        let make = &make;
        let starts_of = |worker| (0..length).step_by(chunk).skip(worker).step_by(workers);
        // Each makes every so-manieth chunk, and is at most two ahead of what was taken of it.
        let made: Vec<_> = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(1);
                scope.spawn(move || {
                    for start in starts_of(worker) {
                        // At most `chunk`, so it fits.
                        let made = make(start, (length - start).min(chunk as u64) as usize);
                        // Nobody listens any more after an error.
                        if sender.send(made).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for (start, receiver) in (0..length).step_by(chunk).zip(made.iter().cycle()) {
            // A worker that panicked takes everybody along when the scope ends.
            let Ok(made) = receiver.recv() else { break };
            take(start, made?)?;
        }
        Ok(())
    })
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
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_no_end() {
        let make = |start, _| if start == 5 { panic!("at five") } else { Ok::<_, ()>(start) };
        let _ = in_order(10, 1, make, |_, _| Ok(()));
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
