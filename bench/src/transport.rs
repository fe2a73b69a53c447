//! One blob from one end of the loopback to the other, both in this process: by ours, with everything that a transfer does
//! (read, hash, check, store durably), and by what it stands on, which only moves bytes from memory to nowhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sheaf_common::id::{Identity, Role};
use sheaf_common::message::Open;
use sheaf_tests::{Federation, credential_paths};
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::connection::{Connection, RecvStream, SendStream};
use sheaf_transport::dial::Dialer;
use sheaf_transport::frames;
use sheaf_transport::gate::Limits;
use sheaf_transport::issuer::Issuers;
use sheaf_transport::listener::Listener;
use sheaf_transport::network::{Choice, Congestion, Network};
use sheaf_transport::tls::Credentials;
use sheaf_transport::transfer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::case::{Case, Group, Sample};
use crate::process::own_cpu_seconds;
use crate::settings::Settings;

/// Blobs of a turn, over one connection, after a first one in which the line is explored.
const TIMES: usize = 3;
/// Bytes that are handed over at a time.
const PIECE: usize = 1 << 20;

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let megabytes = settings.megabytes;
    let bytes = u64::from(megabytes) * 1_000_000;
    let case = |contestant, run: fn(u64) -> Result<Sample>| Case {
        workload: "transport",
        contestant,
        size_mb: f64::from(megabytes),
        clients: 1,
        run: Box::new(move || run(bytes)),
    };
    vec![vec![
        case("Sheaf", |bytes| block_on(ours(bytes, Choice::Quic))),
        case("bare quinn", |bytes| block_on(bare(bytes))),
        case("Sheaf over TCP", |bytes| block_on(ours(bytes, Choice::Tcp))),
        case("TLS over TCP", |bytes| block_on(tls(bytes))),
    ]]
}

fn block_on(work: impl Future<Output = Result<Sample>>) -> Result<Sample> {
    Runtime::new()?.block_on(work)
}

/// Both ends' certificates, and a folder.
struct Ends {
    federation: Federation,
    server: Credentials,
    client: Credentials,
}

impl Ends {
    fn new() -> Result<Self> {
        let federation = Federation::new()?;
        let load =
            |role, name| Credentials::load(&credential_paths(&federation.path().join("pki"), role, name));
        let (server, client) = (load(Role::Server, "hub")?, load(Role::Operator, "op")?);
        Ok(Self { federation, server, client })
    }

    /// A connection with the settings that ours have, seen from both ends.
    async fn connect(&self, transport: Choice) -> Result<(Connection, Connection)> {
        let tcp = (transport == Choice::Tcp).then_some(HERE);
        let listener =
            Listener::open(HERE, tcp, Limits::default(), Congestion::default(), &self.server, false).await?;
        let network = Network { transport, ..Network::default() };
        let dialer = Dialer::new(listener.address().to_string(), network);
        let accept = async { anyhow::Ok(listener.accept().await.context("nobody came")?.accept().await?) };
        let dial = async { anyhow::Ok(dialer.connect(&self.client).await?) };
        let (theirs, link) = tokio::try_join!(accept, dial)?;
        let ours = link.connection.clone();
        // Both are at work until the process ends.
        std::mem::forget((listener, link));
        Ok((ours, theirs))
    }

    fn path(&self) -> &Path {
        self.federation.path()
    }
}

/// Measures the moving of other bytes each time.
#[derive(Default)]
struct Clock {
    sample: Sample,
    cpu: f64,
}

impl Clock {
    async fn time(&mut self, number: usize, work: impl Future<Output = Result<()>>) -> Result<()> {
        let (start, cpu) = (Instant::now(), own_cpu_seconds());
        work.await?;
        if number > 0 {
            self.sample.seconds.push(start.elapsed().as_secs_f64());
            self.cpu += own_cpu_seconds() - cpu;
            self.sample.cpu_seconds = Some(self.cpu / number as f64);
        }
        Ok(())
    }
}

fn content(number: usize, bytes: u64) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut next = || {
        // Marsaglia's xorshift: it need only be different each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| next()).collect()
}

async fn ours(bytes: u64, transport: Choice) -> Result<Sample> {
    let ends = Ends::new()?;
    let (client, server) = ends.connect(transport).await?;
    let (from, to) = (BlobDir::open(ends.path().join("from"))?, BlobDir::open(ends.path().join("to"))?);
    let store = to.clone();
    tokio::spawn(async move {
        let mut share = server.transfer();
        while let Ok((mut send, mut recv)) = server.accept_bi().await {
            let Ok(Open::Put { blob, length }) = frames::read(&mut recv).await else { break };
            // The other end hears of a failure and tells it.
            let _ =
                transfer::serve_put(&mut send, &mut recv, &store, "bench", blob, length, &mut share).await;
        }
    });
    let mut clock = Clock::default();
    for number in 0..=TIMES {
        let blob = from.insert(&content(number, bytes))?;
        clock
            .time(number, async {
                transfer::put(&client, &from, blob, &mut |_, _| {}).await?;
                Ok(())
            })
            .await?;
        ensure!(to.length(blob) == Some(bytes), "it did not arrive");
        to.remove(blob)?;
        from.remove(blob)?;
    }
    Ok(clock.sample)
}

async fn bare(bytes: u64) -> Result<Sample> {
    let ends = Ends::new()?;
    let (client, server) = ends.connect(Choice::Quic).await?;
    tokio::spawn(async move {
        let mut share = server.transfer();
        while let Ok((SendStream::Quic(mut send), RecvStream::Quic(mut recv))) = server.accept_bi().await {
            let mut buffer = vec![0; PIECE];
            let mut length = 0u64;
            while let Ok(Some(read)) = recv.read(&mut buffer[..share.piece(length).min(PIECE)]).await {
                length += read as u64;
            }
            // The other end hears of a failure and tells it.
            let _ = send.write_all(&length.to_le_bytes()).await;
            let _ = send.finish();
        }
    });
    let mut clock = Clock::default();
    for number in 0..=TIMES {
        let pieces: Vec<_> =
            content(number, bytes).chunks(PIECE).map(|piece| piece.to_vec().into()).collect();
        clock
            .time(number, async {
                let (SendStream::Quic(mut send), RecvStream::Quic(mut recv)) = client.open_bi().await? else {
                    bail!("it is not QUIC");
                };
                for piece in pieces {
                    send.write_chunk(piece).await?;
                }
                send.finish()?;
                arrived(&recv.read_to_end(8).await?, bytes)
            })
            .await?;
    }
    Ok(clock.sample)
}

async fn tls(bytes: u64) -> Result<Sample> {
    let ends = Ends::new()?;
    let listener = TcpListener::bind(HERE).await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(ends.server.server_config(false)?));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let mut buffer = vec![0; PIECE];
        loop {
            let mut length = 0u64;
            while length < bytes {
                match stream.read(&mut buffer).await? {
                    0 => return anyhow::Ok(()),
                    read => length += read as u64,
                }
            }
            stream.write_all(&length.to_le_bytes()).await?;
            stream.flush().await?;
        }
    });
    let config = ends.client.client_config(&Issuers::default())?;
    let name = Identity::server_dns_name(&ends.client.identity.federation);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name.try_into()?, stream).await?;
    let mut clock = Clock::default();
    for number in 0..=TIMES {
        let content = content(number, bytes);
        clock
            .time(number, async {
                for piece in content.chunks(PIECE) {
                    stream.write_all(piece).await?;
                }
                stream.flush().await?;
                let mut length = [0; 8];
                stream.read_exact(&mut length).await?;
                arrived(&length, bytes)
            })
            .await?;
    }
    Ok(clock.sample)
}

fn arrived(length: &[u8], bytes: u64) -> Result<()> {
    ensure!(*length == bytes.to_le_bytes(), "not everything arrived");
    Ok(())
}
