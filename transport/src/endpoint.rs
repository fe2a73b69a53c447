//! QUIC endpoints, with settings for bulk transfers and for trainings that take hours behind a firewall.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, Runtime, TokioRuntime, TransportConfig,
    VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::network::{Congestion, Network};
use crate::pace::Rate;
use crate::socket::Batches;
use crate::tls::{CredentialError, Credentials};

/// Bytes that one stream may have in flight: 1 Gbit/s over 128 ms.
const STREAM_WINDOW: u32 = 16 << 20;

/// The same at least, with a limit on fetching.
const STREAM_WINDOW_MIN: u32 = 64 << 10;

/// Bytes that a client may have in flight towards the server; it lets fewer come than that.
const SEND_WINDOW: u32 = 32 << 20;

/// Streams that a peer may have open: a control stream, and transfers.
pub(crate) const STREAMS: u32 = 32;

/// A client gives a sign of life so often, which the server answers. Firewalls forget a UDP flow after 30 to 60 seconds of
/// silence, and training takes hours. It is also the longest that a site takes to notice a server that was restarted.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A connection is given up after so much silence.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest UDP payload that is tried: jumbo frames, and more where a path carries it. Fewer packets are less work, and four of
/// these fill what the kernel takes at once ([`crate::socket`]).
pub(crate) const MTU_MAX: u16 = 16_370;

/// Bytes that all transfers of a server may have in flight together in either direction, or twice that when they are many. It is
/// memory, and far more than a server's line holds.
const IN_FLIGHT: u32 = 16 << 20;

/// No connection has less, but for those of near peers: 25 Mbit/s over 80 ms, for each of many.
const WINDOW_MIN: u32 = 256 << 10;

/// A peer is near that answers within this. Between near ones what is in flight lies in the buffer of a socket, and is lost
/// when that is full.
const NEAR: Duration = Duration::from_millis(16);

/// The same two for near peers: 1.5 Gbit/s over [`NEAR`], and 32 Mbit/s.
const IN_FLIGHT_NEAR: u32 = 3 << 20;
const WINDOW_MIN_NEAR: u32 = 64 << 10;

/// A window has at most so many times what came through it.
const WIDENING: u64 = 4;

/// Kernel buffers of the UDP socket; the usual 208 KiB lose packets at speed.
const SOCKET_BUFFER: usize = 8 << 20;

/// An endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be had.
    #[error("cannot open {transport} {address}: {source}")]
    Bind {
        /// `"UDP"` or `"TCP"`.
        transport: &'static str,
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

/// Opens the server's UDP port; `strangers` without a certificate may ask for one ([`crate::enrolment`]).
pub(crate) fn listen(
    address: SocketAddr,
    credentials: &Credentials,
    strangers: bool,
    congestion: Congestion,
) -> Result<Endpoint, EndpointError> {
    let config = server_config(credentials, strangers, congestion)?;
    endpoint(address, restartable(&credentials.reset_secret()), Some(config))
}

/// What the server makes of a connection.
pub(crate) fn server_config(
    credentials: &Credentials,
    strangers: bool,
    congestion: Congestion,
) -> Result<quinn::ServerConfig, EndpointError> {
    let tls = QuicServerConfig::try_from(credentials.server_config(strangers)?);
    let tls = tls.map_err(|e| EndpointError::Tls(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    // Enough for control messages; a transfer that is allowed gets more.
    config.transport_config(Arc::new(transport(congestion, STREAM_WINDOW, WINDOW_MIN)));
    Ok(config)
}

/// The window of a transfer that may have this part of what all may have, with a peer at this distance, when so many bytes were
/// moved. Many begin at once, and the first do not know of the others yet: so each begins with little, and its window widens
/// with what came through, faster than congestion control fills a line that it tries out.
pub(crate) fn window(part: usize, rtt: Duration, moved: u64) -> u32 {
    let (all, least) = if rtt < NEAR { (IN_FLIGHT_NEAR, WINDOW_MIN_NEAR) } else { (IN_FLIGHT, WINDOW_MIN) };
    let share = all / u32::try_from(part.max(1)).unwrap_or(u32::MAX);
    let widened = u32::try_from(moved.saturating_mul(WIDENING)).unwrap_or(u32::MAX);
    share.max(least).min(widened.max(WINDOW_MIN_NEAR))
}

/// The window of a connection between two transfers. All that have one may begin at once, before anything is known of each other.
pub(crate) fn resting(rtt: Duration) -> u32 {
    if rtt < NEAR { WINDOW_MIN_NEAR } else { WINDOW_MIN }
}

/// Lets a restarted server tell the peers of its former self at once that their connections are gone: it must
/// know its former connection ids and make the same reset tokens.
pub(crate) fn restartable(secret: &[u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(secret).as_bytes();
    let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// A client's endpoint; the `server`'s address decides the family.
pub(crate) fn dial(
    server: SocketAddr,
    tls: rustls::ClientConfig,
    network: &Network,
) -> Result<Endpoint, EndpointError> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let mut endpoint = endpoint(any, EndpointConfig::default(), None)?;
    endpoint.set_default_client_config(client_config(tls, network)?);
    Ok(endpoint)
}

/// What a client makes of a connection.
pub(crate) fn client_config(
    tls: rustls::ClientConfig,
    network: &Network,
) -> Result<quinn::ClientConfig, EndpointError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|e| EndpointError::Tls(e.to_string()))?;
    // What is in flight is not held back by a limit on fetching: no more than a second's worth may be.
    let limit = network.limits.download.map_or(u64::MAX, Rate::bytes_per_second);
    let window = STREAM_WINDOW.min(u32::try_from(limit).unwrap_or(u32::MAX)).max(STREAM_WINDOW_MIN);
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    // Without a limit of its own a connection could make us hold a window for each of its streams.
    let mut transport = transport(network.congestion, window, window.saturating_mul(2));
    transport.keep_alive_interval(Some(KEEP_ALIVE)).ack_frequency_config(Some(acks()));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn endpoint(
    address: SocketAddr,
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, EndpointError> {
    config.max_udp_payload_size(MTU_MAX).expect("QUIC allows 1200 to 65527");
    let bind = |source| EndpointError::Bind { transport: "UDP", address, source };
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
    let socket = TokioRuntime.wrap_udp_socket(socket.into()).map_err(bind)?;
    Endpoint::new_with_abstract_socket(config, server, Arc::new(Batches(socket)), Arc::new(TokioRuntime))
        .map_err(bind)
}

/// The settings that both sides share. `stream` bounds what a stream may have in flight towards us, and `all` what a
/// connection may.
fn transport(congestion: Congestion, stream: u32, all: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(all))
        .send_window(u64::from(SEND_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        // Nothing here travels in datagrams of its own.
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu()));
    match congestion {
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    config
}

/// A client wants its packets acknowledged at once. Of bulk several come at a time and have one answer all the same; a sign of
/// life is alone, and a server that answers it later wakes up twice, for each of its sites.
fn acks() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(0));
    config
}

/// Larger datagrams cost less work: the longest that the path carries, up to [`MTU_MAX`], is found by trying. A path
/// that stops carrying them (a black hole) is noticed, and tried again later.
fn mtu() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(MTU_MAX);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_many_transfers_have_smaller_windows() {
        let (far, near) = (Duration::from_millis(50), Duration::from_millis(1));
        let whole = |rtt| move |part| window(part, rtt, 1 << 30);
        assert_eq!([1, 2, 8, 1000].map(whole(far)), [16 << 20, 8 << 20, 2 << 20, 256 << 10]);
        assert_eq!([1, 2, 12, 1000].map(whole(near)), [3 << 20, 3 << 19, 256 << 10, 64 << 10]);
        // The first part of a transfer that begins is what was let come before it.
        assert_eq!([far, near].map(resting), [256 << 10, 64 << 10]);
    }

    #[test]
    fn a_window_widens_with_what_came_through_it() {
        let alone = |moved| window(1, Duration::from_millis(50), moved);
        let moved = [0, 100 << 10, 1 << 20, 3 << 20, 4 << 20, u64::MAX];
        assert_eq!(moved.map(alone), [64 << 10, 400 << 10, 4 << 20, 12 << 20, 16 << 20, 16 << 20]);
    }
}
