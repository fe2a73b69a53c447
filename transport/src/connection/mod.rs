//! One connection between two parties, over QUIC or over TCP: streams, who the peer is, and why it ended.
//!
//! Whatever is above is the same code for both. QUIC brings its own streams; `tcp` lays them over TLS.

pub(crate) mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use sheaf_common::status::Transport;

use crate::blobs::CHUNK;
use crate::endpoint;
use crate::gate::{Pass, Transfer};
use crate::pace::Pace;
use tcp::TcpConnection;

/// A connection. Clones are the same connection, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Connection {
    carrier: Carrier,
    pace: Arc<Pace>,
    /// At a server: its place among the connections.
    pass: Option<Arc<Pass>>,
}

#[derive(Clone, Debug)]
enum Carrier {
    Quic(quinn::Connection),
    Tcp(TcpConnection),
}

impl From<quinn::Connection> for Connection {
    fn from(quic: quinn::Connection) -> Self {
        Self { carrier: Carrier::Quic(quic), pace: Arc::default(), pass: None }
    }
}

impl From<TcpConnection> for Connection {
    fn from(tcp: TcpConnection) -> Self {
        Self { carrier: Carrier::Tcp(tcp), pace: Arc::default(), pass: None }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer closed it.
    #[error("{reason}")]
    ByPeer {
        /// What for, as a number.
        code: u32,
        /// What for, in words.
        reason: String,
    },
    /// The peer's TLS did not like ours; the alert's number (RFC 8446, 6).
    #[error("{}", refused_handshake(*.0))]
    Alert(u8),
    /// Our TLS did not like the peer's.
    #[error("{0}")]
    Distrust(String),
    /// Nothing was heard for too long.
    #[error("the peer fell silent")]
    Silent,
    /// We closed it.
    #[error("we closed the connection")]
    ByUs,
    /// Anything else.
    #[error("{0}")]
    Broken(String),
}

/// A stream can no longer be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub(crate) String);

impl Lost {
    fn because(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// What a transfer has of what all transfers of a server may have in flight, and so in memory. By default, it is alone.
#[derive(Debug, Default)]
pub struct Share(Option<Among>);

/// It is one of a server's, over QUIC: over TCP a peer has what it has.
#[derive(Debug)]
struct Among {
    transfer: Transfer,
    quic: quinn::Connection,
    rtt: Duration,
}

impl Connection {
    /// Moves what `transfer` moves over it at this pace, together with all others that have the same.
    pub fn at(self, pace: Arc<Pace>) -> Self {
        Self { pace, ..self }
    }

    /// Holds its place until its last clone is dropped.
    pub(crate) fn holding(self, pass: Option<Pass>) -> Self {
        Self { pass: pass.map(Arc::new), ..self }
    }

    /// At a server: counts one more transfer, until the value is dropped.
    pub fn transfer(&self) -> Share {
        let (Carrier::Quic(quic), Some(pass)) = (&self.carrier, &self.pass) else { return Share::default() };
        let transfer = Transfer::begin(pass.clone());
        Share(Some(Among { transfer, quic: quic.clone(), rtt: Duration::MAX }))
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Opens a stream; the peer hears of it with the first bytes.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        match &self.carrier {
            Carrier::Quic(quic) => {
                let (send, recv) = quic.open_bi().await?;
                Ok((SendStream::Quic(send), RecvStream::Quic(recv)))
            }
            Carrier::Tcp(tcp) => {
                let (send, recv) = tcp.open_bi().await?;
                Ok((SendStream::Tcp(send), RecvStream::Tcp(recv)))
            }
        }
    }

    /// Waits for a stream that the peer opens.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        match &self.carrier {
            Carrier::Quic(quic) => {
                let (send, recv) = quic.accept_bi().await?;
                Ok((SendStream::Quic(send), RecvStream::Quic(recv)))
            }
            Carrier::Tcp(tcp) => {
                let (send, recv) = tcp.accept_bi().await?;
                Ok((SendStream::Tcp(send), RecvStream::Tcp(recv)))
            }
        }
    }

    /// Ends the connection and tells the peer why. Bytes that are under way may be lost.
    pub fn close(&self, code: u32, reason: &str) {
        match &self.carrier {
            Carrier::Quic(quic) => quic.close(VarInt::from_u32(code), reason.as_bytes()),
            Carrier::Tcp(tcp) => tcp.close(code, reason),
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) -> Ended {
        match &self.carrier {
            Carrier::Quic(quic) => quic.closed().await.into(),
            Carrier::Tcp(tcp) => tcp.closed().await,
        }
    }

    /// Why it ended, if it has.
    pub fn close_reason(&self) -> Option<Ended> {
        match &self.carrier {
            Carrier::Quic(quic) => quic.close_reason().map(Ended::from),
            Carrier::Tcp(tcp) => tcp.close_reason(),
        }
    }

    /// What the peer proved to be, its own certificate first.
    pub fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        match &self.carrier {
            Carrier::Quic(quic) => quic.peer_identity()?.downcast().ok().map(|chain| *chain),
            Carrier::Tcp(tcp) => Some(tcp.peer_certificates().to_vec()),
        }
    }

    /// The protocol that both sides agreed to speak.
    pub fn protocol(&self) -> Option<Vec<u8>> {
        match &self.carrier {
            Carrier::Quic(quic) => quic.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol,
            Carrier::Tcp(tcp) => tcp.protocol().map(<[u8]>::to_vec),
        }
    }

    /// Where the peer is now; over QUIC it may move.
    pub fn remote_address(&self) -> SocketAddr {
        match &self.carrier {
            Carrier::Quic(quic) => quic.remote_address(),
            Carrier::Tcp(tcp) => tcp.remote_address(),
        }
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        match &self.carrier {
            Carrier::Quic(_) => Transport::Quic,
            Carrier::Tcp(_) => Transport::Tcp,
        }
    }

    /// A count that grows whenever anything comes from the peer, if only a sign of life.
    pub fn heard(&self) -> u64 {
        match &self.carrier {
            Carrier::Quic(quic) => quic.stats().udp_rx.datagrams,
            Carrier::Tcp(tcp) => tcp.heard(),
        }
    }
}

impl From<quinn::ConnectionError> for Ended {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
                Self::by_peer(code, &close.reason)
            }
            quinn::ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
                Some(alert) => Self::Alert(alert),
                None => Self::Broken(close.to_string()),
            },
            quinn::ConnectionError::TransportError(error) if alert(u64::from(error.code)).is_some() => {
                Self::Distrust(error.reason)
            }
            quinn::ConnectionError::TimedOut => Self::Silent,
            quinn::ConnectionError::LocallyClosed => Self::ByUs,
            quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::TransportError(_)
            | quinn::ConnectionError::Reset
            | quinn::ConnectionError::CidsExhausted => Self::Broken(error.to_string()),
        }
    }
}

impl Ended {
    /// What the peer has against our certificate, if that is why it ended the connection. It looks at it only after our
    /// side of the handshake is done, so that its refusal arrives as the end of a connection that seemed to stand.
    pub fn about_our_certificate(&self) -> Option<&'static str> {
        if let Self::Alert(alert) = self { about_certificate(*alert) } else { None }
    }

    fn by_peer(code: u32, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(reason);
        let reason = if reason.is_empty() { "the peer closed the connection".into() } else { reason.into() };
        Self::ByPeer { code, reason }
    }
}

fn refused_handshake(alert: u8) -> String {
    match about_certificate(alert) {
        Some(why) => format!("the peer does not accept our certificate: {why}"),
        None => format!("the peer refused the TLS handshake (alert {alert})"),
    }
}

/// The TLS alerts about a certificate (RFC 8446, 6.2).
fn about_certificate(alert: u8) -> Option<&'static str> {
    match alert {
        42 | 43 | 46 => Some("it is damaged or was made for something else"),
        44 => Some("it was revoked; ask the federation's authority for a new one"),
        45 => Some("it has expired, or the clock of one of the two machines is wrong; ask for a new one"),
        48 | 51 => {
            Some("another authority than the server's made it; ask whoever runs the federation for one")
        }
        116 => Some("it was not shown"),
        _ => None,
    }
}

impl Share {
    /// Bytes that a transfer reads or writes at a time, now that so many were moved; the connection may have what belongs to
    /// it in flight from now on.
    pub fn piece(&mut self, moved: u64) -> usize {
        let Some(among) = &mut self.0 else { return CHUNK };
        among.rtt = among.quic.rtt().min(among.rtt);
        let window = endpoint::window(among.transfer.part(), among.rtt, moved);
        among.grant(window);
        CHUNK.min(window as usize)
    }
}

impl Among {
    /// Lets the connection have so many bytes in flight in either direction.
    fn grant(&self, window: u32) {
        if self.transfer.grant(window) {
            self.quic.set_send_window(window.into());
            self.quic.set_receive_window(window.into());
        }
    }
}

impl Drop for Among {
    fn drop(&mut self) {
        self.grant(endpoint::resting(self.quic.rtt().min(self.rtt)));
    }
}

/// The TLS alert that a QUIC error stands for (RFC 9001, 4.8).
fn alert(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

/// The half of a stream that is written. Bulk that nobody finished ends when it is dropped, and the peer sees that.
#[derive(Debug)]
pub enum SendStream {
    /// Over UDP.
    Quic(quinn::SendStream),
    /// Where UDP is blocked.
    Tcp(tcp::SendStream),
}

impl SendStream {
    /// Writes all of `bytes`.
    pub async fn write_chunk(&mut self, bytes: Bytes) -> Result<(), Lost> {
        match self {
            Self::Quic(quic) => quic.write_chunk(bytes).await.map_err(Lost::because),
            Self::Tcp(tcp) => tcp.write_all(&bytes).await,
        }
    }

    /// Tells the peer that nothing more comes.
    pub async fn finish(&mut self) -> Result<(), Lost> {
        match self {
            Self::Quic(quic) => quic.finish().map_err(Lost::because),
            Self::Tcp(tcp) => tcp.finish().await,
        }
    }

    /// Waits until a finished stream has arrived or its reader has gone. TCP delivers by itself.
    pub async fn stopped(&mut self) {
        if let Self::Quic(quic) = self {
            // An error is an end, too.
            let _ = quic.stopped().await;
        }
    }

    /// Streams of a higher priority go first. Over TCP streams take turns, a few kilobytes each.
    pub fn set_priority(&self, priority: i32) {
        if let Self::Quic(quic) = self {
            // A stream that is closed already needs none.
            let _ = quic.set_priority(priority);
        }
    }
}

/// The half of a stream that is read.
#[derive(Debug)]
pub enum RecvStream {
    /// Over UDP.
    Quic(quinn::RecvStream),
    /// Where UDP is blocked.
    Tcp(tcp::RecvStream),
}

impl RecvStream {
    /// Reads what is there into `buffer`; `None` at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Lost> {
        match self {
            Self::Quic(quic) => quic.read(buffer).await.map_err(Lost::because),
            Self::Tcp(tcp) => tcp.read(buffer).await,
        }
    }

    /// Fills `buffer`. Returns fewer bytes than that only where the stream ends.
    pub async fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Lost> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                Some(read) => filled += read,
                None => break,
            }
        }
        Ok(filled)
    }
}
