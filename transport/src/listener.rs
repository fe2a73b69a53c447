//! The server's ports: QUIC over UDP, and TLS over TCP for sites whose network lets no UDP out.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::connection::tcp::{Closer, TcpConnection};
use crate::connection::{Connection, Ended};
use crate::dial::tune;
use crate::endpoint::{self, EndpointError};
use crate::gate::{Gate, Handshake, Limits, Verdict};
use crate::network::Congestion;
use crate::tls::Credentials;

/// Whoever knocks must have proved who it is within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often a number is looked for that is free for both ports.
const ATTEMPTS: u32 = 16;

/// A pause after the kernel could not hand over a connection, as when files run out.
const BREATH: Duration = Duration::from_millis(100);

/// The server's ports.
#[derive(Debug)]
pub struct Listener {
    quic: Endpoint,
    tcp: Option<Tcp>,
    gate: Arc<Gate>,
    congestion: Congestion,
}

#[derive(Debug)]
struct Tcp {
    listener: TcpListener,
    port: Port,
}

/// What a connection over TCP needs of the port that it came by.
#[derive(Clone)]
struct Port {
    tls: Arc<RwLock<TlsAcceptor>>,
    /// The work of every connection.
    tasks: TaskTracker,
    live: Arc<Mutex<Vec<Closer>>>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({} connections)", self.tasks.len())
    }
}

/// Somebody who has not proved anything yet.
#[derive(Debug)]
pub struct Incoming {
    knock: Knock,
    handshake: Handshake,
}

#[derive(Debug)]
enum Knock {
    Quic(Box<quinn::Incoming>),
    Tcp(TcpStream, SocketAddr, Port),
}

impl Listener {
    /// Opens the ports. `tcp` may be none; where its port is 0 it takes the same number as UDP's. `strangers` without a
    /// certificate may ask for one ([`crate::enrolment`]).
    pub async fn open(
        udp: SocketAddr,
        tcp: Option<SocketAddr>,
        limits: Limits,
        congestion: Congestion,
        credentials: &Credentials,
        strangers: bool,
    ) -> Result<Self, EndpointError> {
        let gate = Gate::new(limits);
        let Some(tcp) = tcp else {
            let quic = endpoint::listen(udp, credentials, strangers, congestion)?;
            return Ok(Self { quic, tcp: None, gate, congestion });
        };
        let mut attempts = 0;
        loop {
            let quic = endpoint::listen(udp, credentials, strangers, congestion)?;
            let mut address = tcp;
            if address.port() == 0 {
                address.set_port(quic.local_addr().map_or(0, |udp| udp.port()));
            }
            attempts += 1;
            match Tcp::open(address, credentials, strangers).await {
                // A number that is free for UDP may be taken for TCP.
                Err(_) if udp.port() == 0 && tcp.port() == 0 && attempts < ATTEMPTS => {}
                tcp => return Ok(Self { quic, tcp: Some(tcp?), gate, congestion }),
            }
        }
    }

    /// Whoever comes from now on meets other credentials; who is connected stays.
    pub fn exchange(&self, credentials: &Credentials, strangers: bool) -> Result<(), EndpointError> {
        let quic = endpoint::server_config(credentials, strangers, self.congestion)?;
        if let Some(Tcp { port, .. }) = &self.tcp {
            *port.tls.write().unwrap_or_else(PoisonError::into_inner) = acceptor(credentials, strangers)?;
        }
        self.quic.set_server_config(Some(quic));
        Ok(())
    }

    /// Where UDP is listened on.
    pub fn address(&self) -> SocketAddr {
        // A bound socket has an address; the unspecified one only keeps this total.
        self.quic.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where TCP is listened on.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.listener.local_addr().ok())
    }

    /// The next who may prove who it is; `None` when the ports are closed.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let knock = self.knock().await?;
            match self.gate.knock(knock.address().ip(), knock.is_proved()) {
                Verdict::Admitted(handshake) => {
                    return Some(Incoming { knock, handshake });
                }
                Verdict::ProveAddress => knock.prove_address(),
                Verdict::TurnedAway => knock.turn_away(),
            }
        }
    }

    async fn knock(&self) -> Option<Knock> {
        let tcp = async {
            match &self.tcp {
                Some(tcp) => tcp.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = self.quic.accept() => incoming.map(|incoming| Knock::Quic(Box::new(incoming))),
            knock = tcp => Some(knock),
        }
    }

    /// Ends every connection and takes no more.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
        if let Some(Tcp { port, .. }) = &self.tcp {
            port.tasks.close();
            for closer in port.live().iter() {
                closer.close(code, reason);
            }
        }
    }

    /// Waits until everybody has been told.
    pub async fn wait_idle(&self) {
        self.quic.wait_idle().await;
        if let Some(tcp) = &self.tcp {
            tcp.port.tasks.wait().await;
        }
    }
}

impl Tcp {
    async fn open(
        address: SocketAddr,
        credentials: &Credentials,
        strangers: bool,
    ) -> Result<Self, EndpointError> {
        let tls = Arc::new(RwLock::new(acceptor(credentials, strangers)?));
        let bind = |source| EndpointError::Bind { transport: "TCP", address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        Ok(Self { listener, port: Port { tls, tasks: TaskTracker::new(), live: Arc::default() } })
    }

    async fn accept(&self) -> Knock {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => return Knock::Tcp(stream, address, self.port.clone()),
                Err(error) => {
                    debug!(%error, "a TCP connection was lost before it was taken");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

impl Port {
    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Closer>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handshake(self, stream: TcpStream, address: SocketAddr) -> io::Result<Connection> {
        tune(&stream)?;
        let acceptor = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tls = acceptor.accept(stream).await?;
        let (connection, work) = TcpConnection::at_server(tls, address).await.map_err(io::Error::other)?;
        self.tasks.spawn(work);
        let mut live = self.live();
        live.retain(Closer::is_live);
        live.push(connection.closer());
        drop(live);
        Ok(connection.into())
    }
}

impl Knock {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming) => incoming.remote_address(),
            Self::Tcp(_, address, _) => *address,
        }
    }

    /// Whether somebody receives at the address.
    fn is_proved(&self) -> bool {
        match self {
            Self::Quic(incoming) => incoming.remote_address_validated() || !incoming.may_retry(),
            Self::Tcp(..) => true,
        }
    }

    fn prove_address(self) {
        if let Self::Quic(incoming) = self {
            // It may be retried: this is the first packet of somebody who has not shown a token.
            let _ = incoming.retry();
        }
    }

    fn turn_away(self) {
        match self {
            Self::Quic(incoming) => incoming.refuse(),
            Self::Tcp(stream, ..) => drop(stream),
        }
    }

    async fn handshake(self) -> Result<Connection, Ended> {
        match self {
            Self::Quic(incoming) => Ok((*incoming).await?.into()),
            Self::Tcp(stream, address, port) => {
                port.handshake(stream, address).await.map_err(|error| Ended::Broken(error.to_string()))
            }
        }
    }
}

fn acceptor(credentials: &Credentials, strangers: bool) -> Result<TlsAcceptor, EndpointError> {
    Ok(TlsAcceptor::from(Arc::new(credentials.server_config(strangers)?)))
}

impl Incoming {
    /// Where from.
    pub fn remote_address(&self) -> SocketAddr {
        self.knock.address()
    }

    /// Lets the peer prove who it is.
    pub async fn accept(self) -> Result<Connection, Ended> {
        let Self { knock, handshake } = self;
        let connection = timeout(HANDSHAKE, knock.handshake()).await.map_err(|_| Ended::Silent)??;
        Ok(connection.holding(handshake.done()))
    }
}
