//! The workers that train, evaluate and mask: so many threads, each with at most one model in memory.
//!
//! A job is handed over when it begins on simulated time, and what came of it is waited for when it ends there. Which
//! worker did it, and when, changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sheaf_client::device;
use sheaf_client::trainer::Watch;
use sheaf_common::status::Progress;

/// Something to be done; it is told when it is called off.
pub type Job<T> = Box<dyn FnOnce(&CallOff) -> T + Send>;

/// The threads.
#[derive(Debug)]
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

/// What a job that was handed over is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Whether a job is called off.
#[derive(Clone, Debug, Default)]
pub struct CallOff(Arc<AtomicBool>);

impl Watch for CallOff {
    fn progress(&self, _progress: Progress) {}

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// There is a job, or no more will come.
    work: Condvar,
    /// A job is done.
    done: Condvar,
}

struct State<T> {
    waiting: VecDeque<(Ticket, Job<T>)>,
    /// Those that are waited for or being done.
    called_off: BTreeMap<Ticket, CallOff>,
    /// `None` is of a job that panicked.
    results: BTreeMap<Ticket, Option<T>>,
    is_over: bool,
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the threads.
    pub fn start(workers: NonZeroUsize) -> std::io::Result<Self> {
        let state = State {
            waiting: VecDeque::new(),
            called_off: BTreeMap::new(),
            results: BTreeMap::new(),
            is_over: false,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() });
        let start = |number| {
            let shared = shared.clone();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // A sum that is split over threads depends on how many they are, and there is a client for every core.
                device::use_one_core();
                while let Some((ticket, job, call_off)) = shared.take() {
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&call_off)));
                    shared.put(ticket, result.ok());
                }
            })
        };
        let threads = (0..workers.get()).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads, next: 0 })
    }

    /// Hands a job over.
    pub fn submit(&mut self, job: Job<T>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        let mut state = self.shared.lock();
        state.waiting.push_back((ticket, job));
        state.called_off.insert(ticket, CallOff::default());
        drop(state);
        self.shared.work.notify_one();
        ticket
    }

    /// Waits for what comes of a job; nothing if it panicked, or was never handed over.
    pub fn wait(&self, ticket: Ticket) -> Option<T> {
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = state.results.remove(&ticket) {
                return result;
            }
            if !state.called_off.contains_key(&ticket) {
                return None;
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a job for at most so long; whether [`Pool::wait`] would come back at once.
    pub fn is_done(&self, ticket: Ticket, within: Duration) -> bool {
        let state = self.shared.lock();
        let is_open = |state: &mut State<T>| state.called_off.contains_key(&ticket);
        let waited = self.shared.done.wait_timeout_while(state, within, is_open);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Calls a job off, and comes back when nobody works on it any more.
    pub fn call_off(&self, ticket: Ticket) {
        let mut state = self.shared.lock();
        let before = state.waiting.len();
        state.waiting.retain(|(waiting, _)| *waiting != ticket);
        if state.waiting.len() < before {
            state.called_off.remove(&ticket);
            return;
        }
        if let Some(call_off) = state.called_off.get(&ticket) {
            call_off.0.store(true, Ordering::Relaxed);
        }
        drop(state);
        self.wait(ticket);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that is done under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(Ticket, Job<T>, CallOff)> {
        let mut state = self.lock();
        loop {
            if let Some((ticket, job)) = state.waiting.pop_front() {
                let call_off = state.called_off.get(&ticket).cloned().unwrap_or_default();
                return Some((ticket, job, call_off));
            }
            if state.is_over {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, ticket: Ticket, result: Option<T>) {
        let mut state = self.lock();
        state.called_off.remove(&ticket);
        state.results.insert(ticket, result);
        drop(state);
        self.done.notify_all();
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.waiting.clear();
        state.called_off.values().for_each(|call_off| call_off.0.store(true, Ordering::Relaxed));
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A job's panic was caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(workers: usize) -> Pool<u64> {
        Pool::start(NonZeroUsize::new(workers).unwrap()).unwrap()
    }

    #[test]
    fn results_are_those_of_their_jobs_whatever_is_waited_for_first() {
        for workers in [1, 3] {
            let mut pool = pool(workers);
            let tickets: Vec<Ticket> =
                (0..50).map(|number| pool.submit(Box::new(move |_| number * number))).collect();
            for (number, ticket) in tickets.iter().enumerate().rev() {
                while !pool.is_done(*ticket, Duration::from_millis(1)) {}
                assert_eq!(pool.wait(*ticket), Some((number * number) as u64));
                assert_eq!(pool.wait(*ticket), None, "it is handed out once");
            }
        }
    }

    #[test]
    fn a_job_that_is_called_off_or_panics_leaves_the_others_alone() {
        let mut pool = pool(1);
        let endless = pool.submit(Box::new(|watch| {
            while !watch.is_cancelled() {
                thread::yield_now();
            }
            1
        }));
        let (never, broken) = (pool.submit(Box::new(|_| 2)), pool.submit(Box::new(|_| panic!("on purpose"))));
        let last = pool.submit(Box::new(|_| 4));
        pool.call_off(never);
        pool.call_off(endless);
        assert_eq!((pool.wait(never), pool.wait(broken), pool.wait(last)), (None, None, Some(4)));
    }
}
