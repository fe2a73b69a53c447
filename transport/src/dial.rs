//! Reaching the server: QUIC first, and TCP where no answer comes over UDP.
//!
//! QUIC has a head start. When nothing has come back after it, TCP is tried beside it, and whichever stands first wins.
//! That UDP is blocked is remembered for a while, so that a site which must dial again does not wait each time; after
//! that QUIC has its chance again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::Endpoint;
use rustls::pki_types::ServerName;
use sheaf_common::id::{Federation, Identity, Role};
use sheaf_common::status::Transport;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{debug, info};

use crate::connection::tcp::{TcpConnection, UNSENT};
use crate::connection::{Connection, Ended};
use crate::endpoint::{self, EndpointError, IDLE_TIMEOUT};
use crate::issuer::Issuers;
use crate::network::{Choice, Network};
use crate::pace::Pace;
use crate::tls::{CredentialError, Credentials, peer_identity};

/// How long a client waits for a handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How far QUIC is ahead of TCP.
const HEAD_START: Duration = Duration::from_secs(2);

/// For how long it is remembered that UDP is blocked.
const MEMORY: Duration = Duration::from_secs(600);

/// A server could not be reached or is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name does not resolve.
    #[error("cannot find {server}: {why}")]
    Resolve {
        /// `host:port`.
        server: String,
        /// Why.
        why: String,
    },
    /// Nothing answers.
    #[error(
        "no answer from {server} over {over}: is the server running, and does the firewall let {firewall} out?"
    )]
    NoAnswer {
        /// `host:port`.
        server: String,
        /// What was tried, and what came of it.
        over: String,
        /// `"UDP"`, or what else was tried.
        firewall: &'static str,
    },
    /// The proxy does not help.
    #[error("the proxy {proxy} does not let us through to {server}: {why}")]
    Proxy {
        /// `host:port` of the proxy.
        proxy: String,
        /// `host:port`.
        server: String,
        /// Why.
        why: String,
    },
    /// TLS or the server refused.
    #[error("{server} and we do not trust each other: {why}")]
    Refused {
        /// `host:port`.
        server: String,
        /// Why.
        why: String,
    },
    /// Somebody else's certificate came in place of the server's.
    #[error(
        "the certificate that came from {server} was made by \"{issuer}\", not by the CA of your federation. If a device of your network looks into TLS, have it leave {server} alone; if not, compare ca.crt with the server's"
    )]
    Stranger {
        /// `host:port`.
        server: String,
        /// Who made the certificate.
        issuer: String,
    },
    /// Our own certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// Our own endpoint failed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl ConnectError {
    /// Whether the other way may lead further; a proxy may know a name that we do not.
    fn is_no_answer(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Resolve { .. })
    }
}

/// A connection to a server of our own federation, and what carries it.
#[derive(Debug)]
pub struct Link {
    carrier: Carrier,
    /// The connection.
    pub connection: Connection,
}

/// What goes on after the last word, until it has arrived.
#[derive(Debug)]
enum Carrier {
    Quic(Endpoint),
    Tcp(JoinHandle<()>),
}

impl Link {
    /// Says good-bye and waits until it is said.
    pub async fn close(self) {
        self.connection.close(0, "bye");
        match self.carrier {
            Carrier::Quic(endpoint) => endpoint.wait_idle().await,
            // A panic there has been printed already.
            Carrier::Tcp(work) => drop(work.await),
        }
    }
}

/// How to reach one server, and what was learned on the way.
#[derive(Debug)]
pub struct Dialer {
    /// `host:port`.
    server: String,
    network: Network,
    /// Of all transfers, over whichever connection.
    pace: Arc<Pace>,
    /// Until when UDP is taken to be blocked.
    blocked: Mutex<Option<Instant>>,
}

impl Dialer {
    /// Reaches `server` (`host:port`) out of `network`.
    pub fn new(server: String, network: Network) -> Self {
        Self { server, pace: Arc::new(Pace::new(network.limits)), network, blocked: Mutex::new(None) }
    }

    /// Connects to the server, which must prove to be a server of our federation.
    pub async fn connect(&self, credentials: &Credentials) -> Result<Link, ConnectError> {
        let strangers = Issuers::default();
        let (tls, federation) = (credentials.client_config(&strangers)?, &credentials.identity.federation);
        let attempt = Attempt { dialer: self, tls, federation, strangers };
        let link = self.attempt(&attempt).await?;
        attempt.check(&link)?;
        Ok(Link { connection: link.connection.at(self.pace.clone()), ..link })
    }

    /// Connects to what passes for a server of `federation`, as `tls` alone judges it.
    pub(crate) async fn connect_by(
        &self,
        tls: rustls::ClientConfig,
        federation: &Federation,
    ) -> Result<Link, ConnectError> {
        self.attempt(&Attempt { dialer: self, tls, federation, strangers: Issuers::default() }).await
    }

    async fn attempt(&self, attempt: &Attempt<'_>) -> Result<Link, ConnectError> {
        match self.network.transport {
            Choice::Quic => attempt.quic().await,
            Choice::Tcp => attempt.tcp().await,
            Choice::Auto => self.either(attempt).await,
        }
    }

    async fn either(&self, attempt: &Attempt<'_>) -> Result<Link, ConnectError> {
        if self.is_blocked() {
            match attempt.tcp().await {
                Err(error) => debug!(%error, "TCP does not work any more either"),
                done => return done,
            }
        }
        let link = race(attempt.quic(), attempt.tcp()).await?;
        let over_tcp = link.connection.transport() == Transport::Tcp;
        if over_tcp {
            info!(server = self.server, "no answer over UDP: connected over TCP");
        }
        let until = over_tcp.then(|| Instant::now() + MEMORY);
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = until;
        Ok(link)
    }

    fn is_blocked(&self) -> bool {
        let until = *self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// QUIC with its head start against TCP. The first to stand wins; a server that answers and refuses is an answer, too.
async fn race<T>(
    quic: impl Future<Output = Result<T, ConnectError>>,
    tcp: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::pin!(quic, tcp);
    let failed = tokio::select! {
        done = &mut quic => match done {
            Err(error) if error.is_no_answer() => Some(error),
            done => return done,
        },
        () = sleep(HEAD_START) => None,
    };
    let over_udp = match failed {
        Some(error) => error,
        None => tokio::select! {
            done = &mut quic => match done {
                Err(error) if error.is_no_answer() => error,
                done => return done,
            },
            done = &mut tcp => match done {
                Err(over_tcp) => return quic.await.map_err(|over_udp| neither(over_udp, over_tcp)),
                done => return done,
            },
        },
    };
    tcp.await.map_err(|over_tcp| neither(over_udp, over_tcp))
}

/// The first address that answers. A name may have one of IPv6 where only IPv4 leads out, or that of a machine that is
/// down. `None` when there are none.
async fn first<T, F: Future<Output = Result<T, ConnectError>>>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, ConnectError>> {
    let mut failed = None;
    for address in addresses {
        match dial(address).await {
            Err(error) if error.is_no_answer() => failed = Some(error),
            // There may be no socket for its family, of which silence elsewhere has more to say.
            Err(error @ ConnectError::Endpoint(_)) => failed = failed.or(Some(error)),
            done => return Some(done),
        }
    }
    failed.map(Err)
}

/// Both ways are closed.
fn neither(over_udp: ConnectError, over_tcp: ConnectError) -> ConnectError {
    match (over_udp, over_tcp) {
        (ConnectError::NoAnswer { server, .. }, ConnectError::NoAnswer { over, .. }) => {
            ConnectError::NoAnswer { server, over: format!("UDP, nor over {over}"), firewall: "either" }
        }
        (unknown @ ConnectError::Resolve { .. }, ConnectError::NoAnswer { .. }) => unknown,
        (_, over_tcp) => over_tcp,
    }
}

/// One attempt to connect.
struct Attempt<'a> {
    dialer: &'a Dialer,
    tls: rustls::ClientConfig,
    federation: &'a Federation,
    strangers: Issuers,
}

impl Attempt<'_> {
    async fn quic(&self) -> Result<Link, ConnectError> {
        let server = &self.dialer.server;
        let resolve = |why: String| ConnectError::Resolve { server: server.clone(), why };
        let addresses = tokio::net::lookup_host(server).await.map_err(|e| resolve(e.to_string()))?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        let each = CONNECT_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let done = first(addresses, |address| self.quic_to(address, each)).await;
        done.unwrap_or_else(|| Err(resolve("it has no address".into())))
    }

    async fn quic_to(&self, address: SocketAddr, patience: Duration) -> Result<Link, ConnectError> {
        let endpoint = endpoint::dial(address, self.tls.clone(), &self.dialer.network)?;
        let connecting = endpoint.connect(address, &self.name()).map_err(|e| self.refused(e.to_string()))?;
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => {
                Ok(Link { carrier: Carrier::Quic(endpoint), connection: connection.into() })
            }
            Ok(Err(error)) => Err(self.failed(error.into(), |_| self.no_quic())),
            Err(_) => Err(self.no_quic()),
        }
    }

    async fn tcp(&self) -> Result<Link, ConnectError> {
        match timeout(CONNECT_TIMEOUT, self.over_tcp()).await {
            Ok(done) => done,
            Err(_) => Err(self.no_tcp("it stays silent")),
        }
    }

    async fn over_tcp(&self) -> Result<Link, ConnectError> {
        let stream = self.reach().await?;
        let setup = |error: io::Error| self.no_tcp(error);
        tune(&stream).map_err(setup)?;
        let address = stream.peer_addr().map_err(setup)?;
        let name = ServerName::try_from(self.name()).map_err(|e| self.refused(e.to_string()))?;
        let connector = TlsConnector::from(Arc::new(self.tls.clone()));
        let tls = connector
            .connect(name, stream)
            .await
            .map_err(|error| self.failed(tls_failure(error), |why| self.no_tcp(why)))?;
        let (connection, work) = TcpConnection::at_client(tls, address)
            .await
            .map_err(|ended| self.failed(ended, |why| self.no_tcp(why)))?;
        let carrier = Carrier::Tcp(tokio::spawn(work));
        Ok(Link { carrier, connection: connection.into() })
    }

    /// The bare TCP connection, straight or through a proxy.
    async fn reach(&self) -> Result<TcpStream, ConnectError> {
        let server = self.tcp_server();
        let refused =
            |proxy: String, why: String| ConnectError::Proxy { proxy, server: server.to_owned(), why };
        match self.dialer.network.proxy_to(server) {
            Ok(None) => TcpStream::connect(server).await.map_err(|error| self.no_tcp(error)),
            Ok(Some(proxy)) => {
                proxy.connect(server).await.map_err(|error| refused(proxy.to_string(), error.to_string()))
            }
            Err(why) => Err(refused("of the environment".into(), why)),
        }
    }

    fn tcp_server(&self) -> &str {
        self.dialer.network.tcp_server.as_ref().unwrap_or(&self.dialer.server)
    }

    /// The name that the server's certificate must hold.
    fn name(&self) -> String {
        Identity::server_dns_name(self.federation)
    }

    /// Whether the peer is a server of our federation.
    fn check(&self, link: &Link) -> Result<(), ConnectError> {
        let peer = peer_identity(&link.connection).map_err(|e| self.refused(e.to_string()))?;
        let federation = self.federation;
        if peer.role != Role::Server || peer.federation != *federation {
            return Err(self.refused(format!("it is {peer}, not a server of {federation}")));
        }
        Ok(())
    }

    /// A handshake that did not come off.
    fn failed(&self, ended: Ended, no_answer: impl FnOnce(Ended) -> ConnectError) -> ConnectError {
        let server = self.dialer.server.clone();
        match (ended, self.strangers.stranger()) {
            (Ended::Distrust(_), Some(issuer)) => ConnectError::Stranger { server, issuer },
            (ended @ (Ended::Distrust(_) | Ended::Alert(_) | Ended::ByPeer { .. }), _) => {
                self.refused(ended.to_string())
            }
            (ended @ (Ended::Silent | Ended::ByUs | Ended::Broken(_)), _) => no_answer(ended),
        }
    }

    fn no_quic(&self) -> ConnectError {
        let server = self.dialer.server.clone();
        ConnectError::NoAnswer { server, over: "UDP".into(), firewall: "UDP" }
    }

    fn no_tcp(&self, why: impl std::fmt::Display) -> ConnectError {
        let server = self.tcp_server().to_owned();
        ConnectError::NoAnswer { server, over: format!("TCP ({why})"), firewall: "TCP" }
    }

    fn refused(&self, why: String) -> ConnectError {
        ConnectError::Refused { server: self.dialer.server.clone(), why }
    }
}

fn tls_failure(error: io::Error) -> Ended {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Ended::Alert(u8::from(*alert)),
        Some(error) => Ended::Distrust(error.to_string()),
        None => Ended::Broken(error.to_string()),
    }
}

/// What a TCP connection should know about the streams in it.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    // Control messages are small, and answers wait for them.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // The lifeline notices a peer that has gone; these notice a path that has, also while we only send.
    socket.set_tcp_user_timeout(Some(IDLE_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE_TIMEOUT / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: u16 = 1;
    const UNUSABLE: u16 = 2;
    const REFUSING: u16 = 3;

    async fn dial(address: SocketAddr) -> Result<u16, ConnectError> {
        let server = || address.to_string();
        match address.port() {
            DOWN => Err(ConnectError::NoAnswer { server: server(), over: "UDP".into(), firewall: "UDP" }),
            UNUSABLE => Err(EndpointError::Bind {
                transport: "UDP",
                address,
                source: io::ErrorKind::AddrNotAvailable.into(),
            }
            .into()),
            REFUSING => Err(ConnectError::Refused { server: server(), why: "it is revoked".into() }),
            port => Ok(port),
        }
    }

    async fn at(ports: &[u16]) -> Option<Result<u16, ConnectError>> {
        let addresses = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port)));
        first(addresses.collect(), dial).await
    }

    #[tokio::test]
    async fn every_address_of_a_name_has_its_turn() {
        assert!(matches!(at(&[DOWN, UNUSABLE, 4433, 4434]).await, Some(Ok(4433))));
        assert!(matches!(at(&[DOWN, UNUSABLE]).await, Some(Err(ConnectError::NoAnswer { .. }))));
        assert!(matches!(at(&[UNUSABLE, DOWN]).await, Some(Err(ConnectError::NoAnswer { .. }))));
        assert!(matches!(at(&[UNUSABLE]).await, Some(Err(ConnectError::Endpoint(_)))));
        assert!(matches!(at(&[REFUSING, 4433]).await, Some(Err(ConnectError::Refused { .. }))));
        assert!(at(&[]).await.is_none());
    }
}
