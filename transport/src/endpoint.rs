//! QUIC endpoints, with settings for bulk transfers and for trainings that take hours behind a firewall.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use sheaf_common::id::{Identity, Role};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::{CredentialError, Credentials, peer_identity};

/// How long a client waits for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that one stream may have in flight: 1 Gbit/s over 128 ms.
const STREAM_WINDOW: u32 = 16 << 20;

/// Bytes that one connection may have in flight, in either direction.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Kernel buffers of the UDP socket; the usual 208 KiB lose packets at speed.
const SOCKET_BUFFER: usize = 8 << 20;

/// An endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be had.
    #[error("cannot open UDP {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Our own certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The TLS settings do not suit QUIC.
    #[error("TLS cannot be used for QUIC: {0}")]
    Tls(String),
}

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
    #[error("no answer from {server} over UDP: is the server running, and does the firewall let UDP out?")]
    NoAnswer {
        /// `host:port`.
        server: String,
    },
    /// TLS or the server refused.
    #[error("{server} and we do not trust each other: {why}")]
    Refused {
        /// `host:port`.
        server: String,
        /// Why.
        why: String,
    },
    /// Our own endpoint failed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Opens the server's port.
pub fn listen(address: SocketAddr, credentials: &Credentials) -> Result<Endpoint, EndpointError> {
    let tls = credentials.server_config()?;
    let tls = QuicServerConfig::try_from(tls).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    endpoint(address, restartable(&credentials.reset_secret()), Some(config))
}

/// Lets a restarted server tell the peers of its former self at once that their connections are gone: it must
/// know its former connection ids and make the same reset tokens.
fn restartable(secret: &[u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(secret).as_bytes();
    let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// A client's endpoint; `server` addresses decide the family.
fn dial(server: SocketAddr, credentials: &Credentials) -> Result<Endpoint, EndpointError> {
    let tls = credentials.client_config()?;
    let tls = QuicClientConfig::try_from(tls).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let mut endpoint = endpoint(any, EndpointConfig::default(), None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// A connection to a server of our own federation, and the endpoint that carries it.
#[derive(Debug)]
pub struct Link {
    /// Carries the connection; dropping it ends it.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
}

impl Link {
    /// Says good-bye and waits until it is said.
    pub async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"bye");
        self.endpoint.wait_idle().await;
    }
}

/// Connects to `server` (`host:port`), which must prove to be a server of our federation.
pub async fn connect(server: &str, credentials: &Credentials) -> Result<Link, ConnectError> {
    let resolve = |why: String| ConnectError::Resolve { server: server.to_owned(), why };
    let address = tokio::net::lookup_host(server)
        .await
        .map_err(|e| resolve(e.to_string()))?
        .next()
        .ok_or_else(|| resolve("it has no address".into()))?;
    let endpoint = dial(address, credentials)?;
    let refused = |why: String| ConnectError::Refused { server: server.to_owned(), why };
    let name = Identity::server_dns_name(&credentials.identity.federation);
    let connecting = endpoint.connect(address, &name).map_err(|e| refused(e.to_string()))?;
    let connection = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => {
            return Err(ConnectError::NoAnswer { server: server.to_owned() });
        }
        Ok(Err(error)) => return Err(refused(reason(&error))),
    };
    let peer = peer_identity(&connection).map_err(|e| refused(e.to_string()))?;
    if peer.role != Role::Server || peer.federation != credentials.identity.federation {
        return Err(refused(format!("it is {peer}, not a server of {}", credentials.identity.federation)));
    }
    Ok(Link { endpoint, connection })
}

/// Why a connection ended, as a sentence.
pub fn reason(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        quinn::ConnectionError::TimedOut => "the peer fell silent".into(),
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted => error.to_string(),
    }
}

fn endpoint(
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, EndpointError> {
    let bind = |source| EndpointError::Bind { address, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(bind)?;
    // A refusal is no failure: the transfer is only slower, and quinn recovers what the kernel drops.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if let Ok(granted) = socket.recv_buffer_size()
        && granted < SOCKET_BUFFER / 4
        && server.is_some()
    {
        tracing::warn!(
            granted,
            "the kernel grants small UDP buffers: raise net.core.rmem_max and wmem_max to 8388608"
        );
    }
    socket.bind(&address.into()).map_err(bind)?;
    Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime)).map_err(bind)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(32))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // Firewalls forget a UDP flow after 30 to 60 seconds of silence, and training takes hours. It is also the
        // longest that a site takes to notice a server that was restarted.
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(Some(VarInt::from_u32(60_000).into()))
        .datagram_receive_buffer_size(None);
    config
}
