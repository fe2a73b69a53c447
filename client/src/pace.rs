//! How long what is under way still takes, from how fast it went so far, and how often anybody is told.

use std::time::{Duration, Instant};

use sheaf_common::status::{Phase, Progress};

/// Steps and time that an estimate needs: one late step among few would count for too much.
const LEAST_STEPS: u64 = 5;
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Follows a site through the phases of its tasks.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    stretch: Option<Stretch>,
}

/// A phase while it goes on.
#[derive(Debug)]
struct Stretch {
    phase: Phase,
    done: u64,
    /// After the first step, which takes longer than the others: memory is allocated, kernels are chosen.
    first: Option<(u64, Instant)>,
    told: Instant,
}

impl Pace {
    /// Somebody is told at most this often within a phase, and of its end.
    pub fn new(every: Duration) -> Self {
        Self { every, stretch: None }
    }

    /// What there is to tell at `now`, if anything, with the time left.
    pub fn follow(&mut self, progress: Progress, now: Instant) -> Option<Progress> {
        let Progress { phase, done, total, .. } = progress;
        let goes_on = |stretch: &Stretch| stretch.phase == phase && stretch.done <= done;
        let known = self.stretch.take().filter(goes_on);
        let first = known.as_ref().and_then(|known| known.first).or((done > 0).then_some((done, now)));
        let is_early = |known: &Stretch| now.duration_since(known.told) < self.every && done < total;
        let told = known.as_ref().filter(|known| is_early(known)).map(|known| known.told);
        self.stretch = Some(Stretch { phase, done, first, told: told.unwrap_or(now) });
        let time_left = first.and_then(|(at, since)| {
            let (steps, time) = (done - at, now.duration_since(since));
            let is_known = steps >= LEAST_STEPS && time >= LEAST_TIME;
            let rest = total.saturating_sub(done) as f64 / steps as f64;
            is_known.then(|| Duration::try_from_secs_f64(time.as_secs_f64() * rest).ok()).flatten()
        });
        told.is_none().then_some(Progress { time_left, ..progress })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(done: u64) -> Progress {
        Progress::new(Phase::Training, done, 100)
    }

    #[test]
    fn the_time_left_is_told_after_some_steps_and_without_the_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::ZERO);
        let mut left = |done, seconds| pace.follow(training(done), at(seconds)).unwrap().time_left;
        assert_eq!([left(0, 0), left(1, 60), left(5, 68)], [None; 3]);
        // Five steps in ten seconds, and 94 to go.
        assert_eq!(left(6, 70), Some(Duration::from_secs(188)));
        assert_eq!(left(100, 300), Some(Duration::ZERO));
        // The next task starts over.
        assert_eq!([left(0, 301), left(1, 302)], [None; 2]);
    }

    #[test]
    fn a_phase_is_told_of_when_it_begins_and_ends_and_now_and_then() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(300));
        let mut is_told =
            |progress, millis| pace.follow(progress, start + Duration::from_millis(millis)).is_some();
        let evaluating = Progress::new(Phase::Evaluating, 0, 1);
        let told = [(training(0), 0), (training(1), 299), (training(2), 300), (training(3), 500)]
            .map(|(progress, at)| is_told(progress, at));
        assert_eq!(told, [true, false, true, false]);
        assert!(is_told(training(100), 501) && is_told(evaluating, 502));
    }
}
