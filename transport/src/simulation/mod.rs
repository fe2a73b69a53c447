//! The real QUIC, the real TLS and the real transfers over networks in memory, on a clock that jumps to whatever
//! happens next: minutes of a bad line pass in milliseconds, and the same seed does the same again.
//!
//! * `party`: certificates. `udp`: datagrams that are late, lost, doubled or too long. `pipe`: a slow TCP.
//! * `work`: what a site does over a connection: moves blobs, and speaks to the server meanwhile.
//! * `quic`, `tcp`: the tests. `transport/src/connection` says what both must do alike.

mod party;
mod pipe;
mod quic;
mod tcp;
mod udp;
mod work;

/// A small generator (SplitMix64) whose numbers are nobody's secret.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..below`.
    fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// Whether something of probability `share` happens.
    fn chance(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64) < share * (1u64 << 53) as f64
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Runs on a paused clock, on one thread.
fn simulate<T>(world: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(world)
}
