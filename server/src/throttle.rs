//! How fast a peer may speak and open streams. Whoever is faster is read more slowly, which its own side notices; nobody
//! else does.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Messages, or streams, that may come at once after a silence.
const BURST: u32 = 256;

/// Time between two of them in the long run: 50 a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// The pace of one peer.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// When all messages so far will have had their time.
    paid: Instant,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self { paid: Instant::now() }
    }

    /// Waits until the next message may be taken.
    pub(crate) async fn next(&mut self) {
        let now = Instant::now();
        self.paid = self.paid.max(now) + INTERVAL;
        if let Some(due) = self.paid.checked_sub(INTERVAL * BURST)
            && due > now
        {
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_flood_is_slowed() {
        let start = Instant::now();
        let mut throttle = Throttle::new();
        for _ in 0..BURST {
            throttle.next().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..500 {
            throttle.next().await;
        }
        let slowed = start.elapsed();
        assert!((slowed.as_secs_f64() - 10.0).abs() < 0.1, "500 more at 50 a second: {slowed:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        throttle.next().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
