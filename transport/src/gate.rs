//! Who may knock: so many connections in all and from one address, and so many that have not proved anything yet.
//!
//! A stranger costs the server a handshake and nothing else. When many are under way at once, whoever comes over QUIC
//! must first show that it receives at the address that it claims (a retry, RFC 9000, 8.1), so that a forged address
//! costs nothing at all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// It is logged at most so often that somebody was turned away.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How many may be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, handshakes included.
    pub connections: usize,
    /// The same from one address, or one network of IPv6.
    pub connections_per_address: usize,
    /// Handshakes under way at once.
    pub handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, connections_per_address: 256, handshakes: 256 }
    }
}

/// Counts who is there.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    addresses: BTreeMap<IpAddr, usize>,
    handshakes: usize,
    transfers: usize,
    warned: Option<Instant>,
}

/// What becomes of a knock.
#[derive(Debug)]
pub(crate) enum Verdict {
    Admitted(Handshake),
    /// The address must be proved first.
    ProveAddress,
    TurnedAway,
}

/// A place among the connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    address: IpAddr,
    /// Bytes that its connection may have in flight; none before its first transfer.
    window: AtomicU32,
}

/// A transfer that is under way over a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Transfer {
    pass: Arc<Pass>,
    /// How many there were when it began, with it.
    rank: usize,
}

impl Transfer {
    /// One more.
    pub(crate) fn begin(pass: Arc<Pass>) -> Self {
        let mut counts = pass.gate.counts();
        counts.transfers += 1;
        let rank = counts.transfers;
        drop(counts);
        Self { pass, rank }
    }

    /// Which part it may have of what all may have together: the first more than the last, so that they end one after
    /// the other and the disk is busy all along, and as many as there are now at most twice the whole.
    pub(crate) fn part(&self) -> usize {
        let all = self.pass.gate.counts().transfers;
        self.rank.clamp(all.div_ceil(2), all)
    }

    /// Notes how much its connection may have in flight from now on, and says whether that is news.
    pub(crate) fn grant(&self, window: u32) -> bool {
        self.pass.window.swap(window, Ordering::Relaxed) != window
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.pass.gate.counts().transfers -= 1;
    }
}

/// A place among the handshakes, and the pass for whoever passes.
#[derive(Debug)]
pub(crate) struct Handshake {
    pass: Option<Pass>,
    gate: Arc<Gate>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Judges a knock from an address that is `proved` if nobody can have forged it.
    pub(crate) fn knock(self: &Arc<Self>, address: IpAddr, proved: bool) -> Verdict {
        let address = network(address);
        let mut counts = self.counts();
        if !proved && counts.handshakes >= self.limits.handshakes / 2 {
            return Verdict::ProveAddress;
        }
        let from_here = counts.addresses.get(&address).copied().unwrap_or(0);
        let full = counts.connections >= self.limits.connections
            || counts.handshakes >= self.limits.handshakes
            || from_here >= self.limits.connections_per_address;
        if full {
            if counts.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                counts.warned = Some(Instant::now());
                let (connections, handshakes) = (counts.connections, counts.handshakes);
                warn!(%address, connections, from_here, handshakes, "connections beyond [limits] are turned away");
            }
            return Verdict::TurnedAway;
        }
        counts.connections += 1;
        counts.handshakes += 1;
        *counts.addresses.entry(address).or_default() += 1;
        drop(counts);
        let pass = Pass { gate: self.clone(), address, window: AtomicU32::new(0) };
        Verdict::Admitted(Handshake { pass: Some(pass), gate: self.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one party has without effort: an address, or a network of IPv6 as providers give them out.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

impl Handshake {
    /// It came off: the place among the handshakes is free again.
    pub(crate) fn done(mut self) -> Option<Pass> {
        self.pass.take()
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.gate.counts().handshakes -= 1;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.connections -= 1;
        if let Some(here) = counts.addresses.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn admitted(verdict: Verdict) -> Handshake {
        let Verdict::Admitted(handshake) = verdict else { panic!("{verdict:?}") };
        handshake
    }

    #[tokio::test]
    async fn every_limit_holds_and_every_place_is_given_back() {
        let gate = Gate::new(Limits { connections: 5, connections_per_address: 2, handshakes: 4 });
        let first = admitted(gate.knock(address(1), false));
        let second = admitted(gate.knock(address(1), false)).done();
        assert!(matches!(gate.knock(address(1), true), Verdict::TurnedAway), "two from one address");
        let third = admitted(gate.knock(address(2), false));
        assert!(matches!(gate.knock(address(3), false), Verdict::ProveAddress), "half of the handshakes");
        let more = [admitted(gate.knock(address(3), true)), admitted(gate.knock(address(4), true))];
        assert!(matches!(gate.knock(address(5), true), Verdict::TurnedAway), "five in all, four handshakes");
        assert_eq!(gate.counts().connections, 5);
        drop((first, second, third, more));
        let counts = gate.counts();
        assert_eq!((counts.connections, counts.handshakes, counts.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn the_first_of_many_transfers_has_twice_the_part_of_the_last() {
        let gate = Gate::new(Limits::default());
        let pass = || Arc::new(admitted(gate.knock(address(1), true)).done().unwrap());
        let transfers = || [(); 8].map(|()| Transfer::begin(pass()));
        let parts = |of: &[Transfer; 8]| of.each_ref().map(Transfer::part);
        let first = transfers();
        assert_eq!(parts(&first), [4, 4, 4, 4, 5, 6, 7, 8]);
        let second = transfers();
        assert_eq!((parts(&first), parts(&second)), ([8; 8], [9, 10, 11, 12, 13, 14, 15, 16]));
        drop(first);
        assert_eq!(parts(&second), [8; 8], "the last of few");
    }

    #[test]
    fn a_window_is_granted_once() {
        let gate = Gate::new(Limits::default());
        let pass = admitted(gate.knock(address(1), true)).done().unwrap();
        let transfer = Transfer::begin(Arc::new(pass));
        assert_eq!(transfer.part(), 1);
        assert_eq!([3, 3, 4].map(|window| transfer.grant(window)), [true, false, true]);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
