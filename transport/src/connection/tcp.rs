//! Streams over one TLS connection, for networks that let no UDP out.
//!
//! yamux parts the connection into streams, each with a window of its own, which take turns of 16 KiB: a control
//! message waits for at most one turn of each transfer, and for what the kernel holds already, which is kept small.
//! The first stream is the *lifeline*. It carries what QUIC has and yamux has not: a byte every few seconds, so that
//! silence is noticed although a proxy holds the TCP connection, and the reason for which a connection is closed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::{client, server};
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::Mode;

use super::{Ended, Lost};
use crate::endpoint::{IDLE_TIMEOUT, KEEP_ALIVE, STREAMS};

/// Bytes that wait on our side before they are sent, at most: once in TLS, and once in the kernel.
pub(crate) const UNSENT: u32 = 32 << 10;

/// How long a peer may take to hear our good-bye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Longest reason that is heard.
const REASON_MAX: u16 = 1024;

/// Bytes that all streams of a connection may have in flight towards us; yamux wants 256 KiB for each stream.
const WINDOW: usize = 32 << 20;

/// On the lifeline: the peer lives.
const ALIVE: u8 = 0;

/// On the lifeline: a code (u32), the reason's length (u16), both little-endian, and the reason follow.
const CLOSE: u8 = 1;

/// A connection over TCP.
#[derive(Clone, Debug)]
pub struct TcpConnection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    peer: Peer,
    address: SocketAddr,
    heard: Arc<AtomicU64>,
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    accepted: Mutex<mpsc::Receiver<yamux::Stream>>,
    state: Arc<watch::Sender<State>>,
}

/// Goes forward only.
#[derive(Clone, Debug)]
enum State {
    Open,
    /// We want to end it, with this code and reason.
    Closing(u32, String),
    Ended(Ended),
}

impl State {
    fn end(&self) -> Option<Ended> {
        match self {
            Self::Open => None,
            Self::Closing(..) => Some(Ended::ByUs),
            Self::Ended(ended) => Some(ended.clone()),
        }
    }
}

/// Moves on from [`State::Open`]; the first word counts.
fn leave(state: &watch::Sender<State>, to: State) {
    state.send_if_modified(|state| {
        let open = matches!(state, State::Open);
        if open {
            *state = to;
        }
        open
    });
}

async fn end(state: &mut watch::Receiver<State>) -> Ended {
    let end = state.wait_for(|state| state.end().is_some()).await.map(|state| state.end());
    // The sender outlives every stream but those of a connection that is gone.
    end.ok().flatten().unwrap_or(Ended::ByUs)
}

/// Closes a connection without keeping it.
#[derive(Debug)]
pub(crate) struct Closer(Weak<watch::Sender<State>>);

impl Closer {
    /// Whether there is still something to close.
    pub(crate) fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        if let Some(state) = self.0.upgrade() {
            leave(&state, State::Closing(code, reason.to_owned()));
        }
    }
}

impl TcpConnection {
    /// A connection that a client's TLS carries.
    pub(crate) async fn at_client<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        mut tls: client::TlsStream<T>,
        address: SocketAddr,
    ) -> Result<(Self, impl Future<Output = ()> + Send), Ended> {
        let peer = prepare(&mut **tls.get_mut().1);
        Self::establish(tls, Mode::Client, address, peer).await
    }

    /// A connection that a server's TLS carries.
    pub(crate) async fn at_server<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        mut tls: server::TlsStream<T>,
        address: SocketAddr,
    ) -> Result<(Self, impl Future<Output = ()> + Send), Ended> {
        let peer = prepare(&mut **tls.get_mut().1);
        Self::establish(tls, Mode::Server, address, peer).await
    }

    /// Parts `io`, over which `peer` has proved itself, into streams. The future returned with it does all the work
    /// and ends with the connection.
    pub(crate) async fn establish(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        mode: Mode,
        address: SocketAddr,
        peer: Peer,
    ) -> Result<(Self, impl Future<Output = ()> + Send), Ended> {
        let heard = Arc::new(AtomicU64::new(0));
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS as usize * 2).set_max_connection_receive_window(Some(WINDOW));
        let io = Counting { io, heard: heard.clone() }.compat();
        let mut mux = yamux::Connection::new(io, config, mode);
        let first = match mode {
            Mode::Client => poll_fn(|cx| mux.poll_new_outbound(cx)).await.map_err(|e| broken(&e))?,
            Mode::Server => match poll_fn(|cx| mux.poll_next_inbound(cx)).await {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(Ended::Broken("the peer left at once".into())),
            },
        };
        let state = Arc::new(watch::Sender::new(State::Open));
        let (opens, wanted) = mpsc::channel(1);
        let (accepted, streams) = mpsc::channel(STREAMS as usize);
        let work = drive(mux, wanted, accepted, lifeline(first, state.clone()), state.clone());
        let accepted = Mutex::new(streams);
        Ok((Self(Arc::new(Shared { peer, address, heard, opens, accepted, state })), work))
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.0.state))
    }

    pub(super) async fn open_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        let (sender, stream) = oneshot::channel();
        let open = async {
            self.0.opens.send(sender).await.ok()?;
            stream.await.ok()
        };
        match self.unless_ended(open).await? {
            Some(stream) => Ok(self.halves(stream)),
            None => Err(self.closed().await),
        }
    }

    pub(super) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        let accept = async { self.0.accepted.lock().await.recv().await };
        match self.unless_ended(accept).await? {
            Some(stream) => Ok(self.halves(stream)),
            None => Err(self.closed().await),
        }
    }

    pub(super) fn close(&self, code: u32, reason: &str) {
        leave(&self.0.state, State::Closing(code, reason.to_owned()));
    }

    pub(super) async fn closed(&self) -> Ended {
        end(&mut self.0.state.subscribe()).await
    }

    pub(super) fn close_reason(&self) -> Option<Ended> {
        self.0.state.borrow().end()
    }

    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.peer.certificates
    }

    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.0.peer.protocol.as_deref()
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        self.0.address
    }

    pub(super) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! { biased; ended = self.closed() => Err(ended), done = work => Ok(done) }
    }

    fn halves(&self, stream: yamux::Stream) -> (SendStream, RecvStream) {
        let (recv, send) = stream.split();
        let state = self.0.state.subscribe();
        (SendStream { half: send, state: state.clone() }, RecvStream { half: recv, state })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        leave(&self.state, State::Closing(0, String::new()));
    }
}

/// What TLS knows of the peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    protocol: Option<Vec<u8>>,
}

/// Lets little wait in TLS, where no message can overtake it, and takes what the peer showed.
fn prepare<T>(session: &mut rustls::ConnectionCommon<T>) -> Peer {
    session.set_buffer_limit(Some(UNSENT as usize));
    let shown = session.peer_certificates().unwrap_or_default();
    Peer {
        certificates: shown.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        protocol: session.alpn_protocol().map(<[u8]>::to_vec),
    }
}

/// Moves all bytes of all streams until the lifeline says that it is over.
async fn drive<T: futures::io::AsyncRead + futures::io::AsyncWrite + Unpin>(
    mut mux: yamux::Connection<T>,
    mut wanted: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    accepted: mpsc::Sender<yamux::Stream>,
    lifeline: impl Future<Output = ()>,
    state: Arc<watch::Sender<State>>,
) {
    let mut lifeline = pin!(lifeline);
    loop {
        tokio::select! {
            biased;
            inbound = poll_fn(|cx| mux.poll_next_inbound(cx)) => match inbound {
                // A stream beyond what the peer may have waiting is dropped, which resets it.
                Some(Ok(stream)) => drop(accepted.try_send(stream)),
                Some(Err(error)) => return leave(&state, State::Ended(broken(&error))),
                None => return leave(&state, State::Ended(unexplained())),
            },
            Some(reply) = wanted.recv() => match poll_fn(|cx| mux.poll_new_outbound(cx)).await {
                // Whoever wanted it may have changed its mind.
                Ok(stream) => drop(reply.send(stream)),
                Err(error) => return leave(&state, State::Ended(broken(&error))),
            },
            () = &mut lifeline => break,
        }
    }
    // What does not go out in time is lost: both sides have said what they had to say.
    let _ = timeout(GOODBYE, poll_fn(|cx| mux.poll_close(cx))).await;
}

/// Watches over the connection until it is to be closed.
async fn lifeline(stream: yamux::Stream, state: Arc<watch::Sender<State>>) {
    let (mut read, mut write) = stream.split();
    let mut ours = state.subscribe();
    let ended = tokio::select! {
        ended = listen(&mut read) => ended,
        ended = beat(&mut write) => ended,
        _ = end(&mut ours) => Ended::ByUs,
    };
    leave(&state, State::Ended(ended));
    let closing = state.borrow().clone();
    if let State::Closing(code, reason) = closing {
        let goodbye = async {
            write.write_all(&farewell(code, &reason)).await?;
            write.close().await?;
            // The peer hangs up when it has read it.
            while read.read(&mut [0; 64]).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

fn farewell(code: u32, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(usize::from(REASON_MAX))];
    let length = u16::try_from(reason.len()).unwrap_or(REASON_MAX);
    let mut bytes = vec![CLOSE];
    bytes.extend(code.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(reason);
    bytes
}

async fn listen(read: &mut ReadHalf<yamux::Stream>) -> Ended {
    let mut byte = [ALIVE];
    while byte == [ALIVE] {
        match timeout(IDLE_TIMEOUT, read.read_exact(&mut byte)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return unexplained(),
            Err(_) => return Ended::Silent,
        }
    }
    match timeout(GOODBYE, hear_farewell(byte, read)).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) | Err(_) => unexplained(),
    }
}

async fn hear_farewell(byte: [u8; 1], read: &mut ReadHalf<yamux::Stream>) -> io::Result<Ended> {
    let (mut code, mut length) = ([0; 4], [0; 2]);
    if byte != [CLOSE] {
        return Ok(Ended::Broken(format!("the peer's lifeline carries {byte:?}")));
    }
    read.read_exact(&mut code).await?;
    read.read_exact(&mut length).await?;
    let mut reason = vec![0; u16::from_le_bytes(length).min(REASON_MAX).into()];
    read.read_exact(&mut reason).await?;
    Ok(Ended::by_peer(u32::from_le_bytes(code), &reason))
}

/// The first beat is what opens the lifeline.
async fn beat(write: &mut WriteHalf<yamux::Stream>) -> Ended {
    loop {
        if write.write_all(&[ALIVE]).await.is_err() {
            return unexplained();
        }
        tokio::time::sleep(KEEP_ALIVE).await;
    }
}

fn unexplained() -> Ended {
    Ended::Broken("the connection broke off".into())
}

/// What went wrong below the streams; an alert is the peer's opinion of our certificate, which TLS 1.3 tells a client
/// only after the handshake.
fn broken(error: &yamux::ConnectionError) -> Ended {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(tls) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(rustls::Error::AlertReceived(alert)) = tls.downcast_ref()
        {
            return Ended::Alert(u8::from(*alert));
        }
        source = error.source();
    }
    Ended::Broken(error.to_string())
}

/// The half of a stream that is written.
#[derive(Debug)]
pub struct SendStream {
    half: WriteHalf<yamux::Stream>,
    state: watch::Receiver<State>,
}

impl SendStream {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        tokio::select! {
            biased;
            ended = end(&mut self.state) => Err(Lost::because(ended)),
            written = self.half.write_all(bytes) => written.map_err(|_| Lost("the peer stopped the stream".into())),
        }
    }

    pub(super) async fn finish(&mut self) -> Result<(), Lost> {
        tokio::select! {
            biased;
            ended = end(&mut self.state) => Err(Lost::because(ended)),
            closed = self.half.close() => closed.map_err(|_| Lost("the peer stopped the stream".into())),
        }
    }
}

/// The half of a stream that is read.
#[derive(Debug)]
pub struct RecvStream {
    half: ReadHalf<yamux::Stream>,
    state: watch::Receiver<State>,
}

impl RecvStream {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Lost> {
        tokio::select! {
            biased;
            ended = end(&mut self.state) => Err(Lost::because(ended)),
            read = self.half.read(buffer) => match read {
                Ok(0) => Ok(None),
                Ok(read) => Ok(Some(read)),
                Err(error) => Err(Lost::because(error)),
            },
        }
    }
}

/// Counts the reads that brought something.
struct Counting<T> {
    io: T,
    heard: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counting<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
