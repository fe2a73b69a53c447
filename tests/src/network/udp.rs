//! A bad line for UDP: delay, loss, a rate with a queue before it, an interruption, and a change of address as when
//! a router forgets a flow.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Worker, nonblocking};

/// Longest datagram.
const DATAGRAM: usize = 65_536;

/// What Ethernet carries in a packet of IPv4: a longer datagram, with which a sender looks for more, is lost.
const CARRIED: usize = 1472;

/// What one direction of a line does to a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// How long it takes to the other end.
    pub delay: Duration,
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// Bytes per second; none is as many as one likes.
    pub rate: Option<f64>,
    /// How long a datagram may wait for its turn before it is dropped.
    pub queue: Duration,
}

/// A line between clients and a server.
pub struct Relay {
    /// Where to dial in place of the server.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _worker: Worker,
}

struct State {
    up: Line,
    down: Line,
    random: StdRng,
    cut: bool,
    /// Counts changes of address.
    generation: u64,
}

impl Relay {
    /// A line to `server` that does the same in every run but for the machine's own timing.
    pub fn to(server: SocketAddr, up: Line, down: Line, seed: u64) -> Result<Self> {
        let random = StdRng::seed_from_u64(seed);
        let state = Arc::new(Mutex::new(State { up, down, random, cut: false, generation: 0 }));
        let shared = state.clone();
        let (address, worker) = Worker::start(move || {
            let socket = bind()?;
            let address = socket.local_addr()?;
            Ok((address, forward(Arc::new(socket), server, shared)))
        })?;
        Ok(Self { address, state, _worker: worker })
    }

    /// Interrupts the line, or mends it.
    pub fn cut(&self, cut: bool) {
        lock(&self.state).cut = cut;
    }

    /// The server sees every client at a new address from now on.
    pub fn change_address(&self) {
        lock(&self.state).generation += 1;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind() -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    UdpSocket::from_std(nonblocking(socket, std::net::UdpSocket::set_nonblocking)?)
}

/// One client's way through.
struct Flow {
    generation: u64,
    up: Pipe,
}

async fn forward(socket: Arc<UdpSocket>, server: SocketAddr, state: Arc<Mutex<State>>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error here is an ICMP message about a datagram that was sent, which real lines lose, too.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let generation = lock(&state).generation;
        let stale = flows.get(&client).is_none_or(|flow| flow.generation != generation);
        if stale {
            let Ok(up) = open(&socket, client, server, &state) else { continue };
            flows.insert(client, Flow { generation, up });
        }
        let Some(flow) = flows.get_mut(&client) else { continue };
        flow.up.push(&buffer[..length], &state, |state| state.up);
    }
}

/// A new socket towards the server, for one client. It is closed when the client's next one takes its place.
fn open(
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    server: SocketAddr,
    state: &Arc<Mutex<State>>,
) -> io::Result<Pipe> {
    let upstream = Arc::new(bind()?);
    let mut down = Pipe::new(socket.clone(), client);
    let (receiver, state) = (upstream.clone(), state.clone());
    let pipe = Pipe::new(upstream, server);
    let gone = pipe.queue.downgrade();
    tokio::spawn(async move {
        let mut buffer = vec![0; DATAGRAM];
        let back = async {
            loop {
                if let Ok((length, _)) = receiver.recv_from(&mut buffer).await {
                    down.push(&buffer[..length], &state, |state| state.down);
                }
            }
        };
        tokio::select! { () = back => {}, () = closed(gone) => {} }
    });
    Ok(pipe)
}

/// Until the client's way up is gone.
async fn closed(up: mpsc::WeakUnboundedSender<(Instant, Vec<u8>)>) {
    while up.upgrade().is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One direction: a queue that is served at the line's rate.
struct Pipe {
    /// When each datagram arrives.
    queue: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    /// When the line has sent all that it was given.
    free: Instant,
}

impl Pipe {
    fn new(socket: Arc<UdpSocket>, to: SocketAddr) -> Self {
        let (queue, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        tokio::spawn(async move {
            while let Some((due, datagram)) = waiting.recv().await {
                sleep_until(due).await;
                // What cannot be sent is lost, as on any line.
                let _ = socket.send_to(&datagram, to).await;
            }
        });
        Self { queue, free: Instant::now() }
    }

    fn push(&mut self, datagram: &[u8], state: &Mutex<State>, side: impl Fn(&State) -> Line) {
        let mut state = lock(state);
        let line = side(&state);
        if state.cut || datagram.len() > CARRIED || state.random.random_bool(line.loss) {
            return;
        }
        drop(state);
        let now = Instant::now();
        let start = self.free.max(now);
        if let Some(rate) = line.rate {
            if start - now > line.queue {
                return;
            }
            self.free = start + Duration::from_secs_f64(datagram.len() as f64 / rate);
        }
        let _ = self.queue.send((self.free.max(now) + line.delay, datagram.to_vec()));
    }
}
