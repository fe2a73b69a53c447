//! How often somebody without a certificate may knock: strangers reach this code, and guessing must not pay.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sheaf_common::time::Timestamp;

/// Attempts from one network in one window.
pub(crate) const ATTEMPTS: u32 = 10;

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Networks that are remembered; while so many knock within one window, further ones wait.
const NETWORKS: usize = 4096;

/// Counts attempts.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    windows: BTreeMap<IpAddr, (Timestamp, u32)>,
}

impl Limiter {
    /// Counts an attempt from `address`. Whether it may go on.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Timestamp) -> bool {
        let network = network(address);
        if !self.windows.contains_key(&network) && self.windows.len() >= NETWORKS {
            self.windows.retain(|_, (start, _)| now.since(*start) < WINDOW);
            if self.windows.len() >= NETWORKS {
                return false;
            }
        }
        let (start, attempts) = self.windows.entry(network).or_insert((now, 0));
        if now.since(*start) >= WINDOW {
            (*start, *attempts) = (now, 0);
        }
        *attempts = attempts.saturating_add(1);
        *attempts <= ATTEMPTS
    }
}

/// An IPv6 host has a whole /64 of addresses to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_attempts_and_then_waits_for_the_next_window() {
        let mut limiter = Limiter::default();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..ATTEMPTS {
            assert!(limiter.admit(one, START));
        }
        assert!(!limiter.admit(one, START.after(WINDOW - Duration::from_millis(1))));
        assert!(limiter.admit(other, START));
        assert!(limiter.admit(one, START.after(WINDOW)));
    }

    #[test]
    fn the_addresses_of_one_host_count_together() {
        let mut limiter = Limiter::default();
        for host in 0..ATTEMPTS {
            assert!(limiter.admit(address(&format!("2001:db8::{host:x}")), START));
        }
        assert!(!limiter.admit(address("2001:db8::ffff"), START));
        assert!(limiter.admit(address("2001:db8:0:1::1"), START));
        for _ in 0..ATTEMPTS {
            assert!(limiter.admit(address("::ffff:192.0.2.1"), START));
        }
        assert!(!limiter.admit(address("192.0.2.1"), START));
    }

    #[test]
    fn a_crowd_takes_no_more_memory_than_its_place() {
        let mut limiter = Limiter::default();
        let stranger = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        for number in 0..NETWORKS as u32 {
            assert!(limiter.admit(stranger(number), START));
        }
        assert!(!limiter.admit(stranger(u32::MAX), START));
        assert!(limiter.admit(stranger(0), START), "who is known goes on");
        assert!(limiter.admit(stranger(u32::MAX), START.after(WINDOW)));
        assert_eq!(limiter.windows.len(), 1);
    }
}
