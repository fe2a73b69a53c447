//! Datagrams in memory, on the runtime's clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Random;

/// What the network does to a datagram, the same in every direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Road {
    /// How long it takes.
    pub(super) delay: Duration,
    /// Up to so much longer, at random: datagrams overtake each other.
    pub(super) jitter: Duration,
    /// The share that is lost.
    pub(super) loss: f64,
    /// The share that comes twice.
    pub(super) twice: f64,
    /// Bytes per second from one machine to another.
    pub(super) rate: f64,
    /// How long one may wait for its turn before it is dropped.
    pub(super) queue: Duration,
    /// Longer ones vanish.
    pub(super) mtu: usize,
}

/// The network.
#[derive(Clone)]
pub(super) struct Net(Arc<Shared>);

struct Shared {
    world: Mutex<World>,
    /// Something is under way that was not before.
    news: Notify,
}

struct World {
    road: Road,
    random: Random,
    sockets: BTreeMap<SocketAddr, Inbox>,
    /// Machines that nobody reaches.
    cut: BTreeSet<IpAddr>,
    /// When the way from one machine to another has carried all that it was given.
    free: BTreeMap<(IpAddr, IpAddr), Instant>,
    /// What arrives when; the number keeps the order of what arrives at once.
    under_way: BTreeMap<(Instant, u64), Datagram>,
    number: u64,
    start: Instant,
    trace: blake3::Hasher,
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<Datagram>,
    reader: Option<Waker>,
}

#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Net {
    /// A network whose chances follow from `seed`. It works as long as the runtime does.
    pub(super) fn new(road: Road, seed: u64) -> Self {
        let world = World {
            road,
            random: Random(seed),
            sockets: BTreeMap::new(),
            cut: BTreeSet::new(),
            free: BTreeMap::new(),
            under_way: BTreeMap::new(),
            number: 0,
            start: Instant::now(),
            trace: blake3::Hasher::new(),
        };
        let net = Self(Arc::new(Shared { world: Mutex::new(world), news: Notify::new() }));
        tokio::spawn(net.clone().carry());
        net
    }

    /// A socket at `address`.
    pub(super) fn socket(&self, address: SocketAddr) -> Arc<Socket> {
        self.world().sockets.insert(address, Inbox::default());
        Arc::new(Socket { net: self.clone(), address })
    }

    /// Cuts a machine off, or lets it back.
    pub(super) fn cut(&self, machine: IpAddr, off: bool) {
        let mut world = self.world();
        if off {
            world.cut.insert(machine)
        } else {
            world.cut.remove(&machine)
        };
    }

    /// From now on longer datagrams vanish.
    pub(super) fn narrow(&self, mtu: usize) {
        self.world().road.mtu = mtu;
    }

    /// What was sent so far, from where to where, how long and when. The bytes are encrypted with fresh keys.
    pub(super) fn trace(&self) -> blake3::Hash {
        self.world().trace.finalize()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap()
    }

    /// Brings every datagram to its inbox when its time has come.
    async fn carry(self) {
        loop {
            let next = self.world().deliver(Instant::now());
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased; () = self.0.news.notified() => {}, () = due => {} }
        }
    }
}

impl World {
    fn send(&mut self, datagram: Datagram) {
        let now = Instant::now();
        let length = datagram.bytes.len();
        let at = now - self.start;
        self.trace.update(format!("{at:?} {} {} {length};", datagram.from, datagram.to).as_bytes());
        let way = (datagram.from.ip(), datagram.to.ip());
        let Road { delay, jitter, loss, twice, rate, queue, mtu } = self.road;
        let lost = self.random.chance(loss);
        if lost || length > mtu || self.cut.contains(&way.0) || self.cut.contains(&way.1) {
            return;
        }
        let start = self.free.get(&way).copied().unwrap_or(now).max(now);
        if start - now > queue {
            return;
        }
        let sent = start + Duration::from_secs_f64(length as f64 / rate);
        self.free.insert(way, sent);
        let copies = if self.random.chance(twice) { 2 } else { 1 };
        for _ in 0..copies {
            let late = jitter.mul_f64(self.random.below(1000) as f64 / 1000.0);
            self.number += 1;
            self.under_way.insert((sent + delay + late, self.number), datagram.clone());
        }
    }

    /// Hands over what is due, and says when the next is.
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let datagram = entry.remove();
            let Some(inbox) = self.sockets.get_mut(&datagram.to) else { continue };
            inbox.datagrams.push_back(datagram);
            if let Some(reader) = inbox.reader.take() {
                reader.wake();
            }
        }
        None
    }
}

/// One socket.
pub(super) struct Socket {
    net: Net,
    address: SocketAddr,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.address)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.world().sockets.remove(&self.address);
    }
}

/// The network takes whatever it is given.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (from, to) = (self.address, transmit.destination);
        self.net.world().send(Datagram { from, to, bytes: transmit.contents.to_vec() });
        self.net.0.news.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut world = self.net.world();
        let Some(inbox) = world.sockets.get_mut(&self.address) else {
            return Poll::Ready(Err(io::Error::other("the socket is closed")));
        };
        let mut read = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = inbox.datagrams.pop_front() else { break };
            let length = datagram.bytes.len();
            buffer[..length].copy_from_slice(&datagram.bytes);
            *meta = RecvMeta { addr: datagram.from, len: length, stride: length, ..RecvMeta::default() };
            read += 1;
        }
        if read > 0 {
            return Poll::Ready(Ok(read));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
