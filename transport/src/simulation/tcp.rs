//! Streams over a TCP that is slow, falls silent, or carries what it should not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{Identity, Role};
use sheaf_common::message::{BlobReply, Open};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use yamux::Mode;

use super::party::Authority;
use super::pipe::pipe;
use super::work::{Blobs, Load, serve, work};
use super::{Random, simulate};
use crate::connection::tcp::{Peer, TcpConnection};
use crate::connection::{Connection, Ended};
use crate::endpoint::IDLE_TIMEOUT;
use crate::frames;
use crate::issuer::Issuers;
use crate::tls::Credentials;
use crate::transfer::{self, TransferError};

const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

async fn at_server(io: DuplexStream, credentials: &Credentials) -> io::Result<Connection> {
    let acceptor = TlsAcceptor::from(Arc::new(credentials.server_config(false).unwrap()));
    let tls = acceptor.accept(io).await?;
    let established = TcpConnection::at_server(tls, SOMEWHERE).await;
    let (connection, work) = established.map_err(io::Error::other)?;
    tokio::spawn(work);
    Ok(connection.into())
}

async fn at_site(io: DuplexStream, credentials: &Credentials) -> io::Result<Connection> {
    let connector = TlsConnector::from(Arc::new(credentials.client_config(&Issuers::default()).unwrap()));
    let name = Identity::server_dns_name(&"hearts".parse().unwrap());
    let tls = connector.connect(ServerName::try_from(name).unwrap(), io).await?;
    let established = TcpConnection::at_client(tls, SOMEWHERE).await;
    let (connection, work) = established.map_err(io::Error::other)?;
    tokio::spawn(work);
    Ok(connection.into())
}

/// A site and its server, `rate` bytes per second apart.
async fn pair(rate: f64, works: &watch::Sender<bool>) -> (Connection, Connection) {
    let authority = Authority::new();
    let (hub, site) = (authority.party(Role::Server, "hub"), authority.party(Role::Site, "a"));
    let (ours, theirs) = pipe(rate, works);
    let (server, site) = tokio::join!(at_server(theirs, &hub), at_site(ours, &site));
    (server.unwrap(), site.unwrap())
}

#[test]
fn blobs_arrive_and_a_word_does_not_wait_for_them() {
    simulate(async {
        let works = watch::Sender::new(true);
        let (server, site) = pair(125e3, &works).await;
        let (there, here) = (Blobs::new(), Blobs::new());
        let random = &mut Random(1);
        let load = Load {
            fetch: there.dir.insert(&random.bytes(2_000_000)).unwrap(),
            put: here.dir.insert(&random.bytes(2_000_000)).unwrap(),
        };
        tokio::spawn(serve(server, there.dir.clone()));
        let start = Instant::now();
        let longest = work(&site, &here.dir, &load).await.unwrap();
        assert!(start.elapsed() > Duration::from_secs(16), "the line was full");
        // Each way 64 KiB may be ahead, which kernel and TLS hold, and a turn of the transfer: 0.7 seconds.
        assert!(longest < Duration::from_millis(2000), "{longest:?}");
        assert_eq!(BlobId::of(&here.dir.read(load.fetch).unwrap()), load.fetch);
        assert_eq!(BlobId::of(&there.dir.read(load.put).unwrap()), load.put);
    });
}

#[test]
fn a_blob_that_still_arrives_in_another_transfer_is_sent_again() {
    simulate(async {
        let (server, site) = pair(125e3, &watch::Sender::new(true)).await;
        let (there, here) = (Blobs::new(), Blobs::new());
        let blob = here.dir.insert(b"weights").unwrap();
        tokio::spawn(serve(server, there.dir.clone()));
        let other = there.dir.resume(blob, "site.a").unwrap();
        let error = transfer::put(&site, &here.dir, blob, &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(error, TransferError::Lost { .. }), "{error}");
        drop(other);
        assert_eq!(transfer::put(&site, &here.dir, blob, &mut |_, _| {}).await.unwrap(), 7);
    });
}

#[test]
fn what_is_at_the_other_end_is_not_sent_again() {
    simulate(async {
        let (server, site) = pair(125e3, &watch::Sender::new(true)).await;
        let (there, here) = (Blobs::new(), Blobs::new());
        let [ours, theirs] =
            [(&here, b"update"), (&there, b"global")].map(|(at, bytes)| at.dir.insert(bytes).unwrap());
        tokio::spawn(serve(server, there.dir.clone()));
        for bytes in [6, 0, 0] {
            let moved = transfer::put(&site, &here.dir, ours, &mut |_, _| {}).await.unwrap();
            let fetched = transfer::fetch(&site, &here.dir, theirs, 6, &mut |_, _| {}).await.unwrap();
            assert_eq!((moved, fetched), (bytes, bytes));
        }
    });
}

#[test]
fn a_server_that_has_more_than_there_is_gets_nothing() {
    simulate(async {
        let (server, site) = pair(125e3, &watch::Sender::new(true)).await;
        let here = Blobs::new();
        let blob = here.dir.insert(b"weights").unwrap();
        let wrong = async {
            let (mut send, mut recv) = server.accept_bi().await.unwrap();
            let Open::Put { length, .. } = frames::read(&mut recv).await.unwrap() else { unreachable!() };
            frames::write(&mut send, &BlobReply::Send { offset: length + 1 }).await.unwrap();
            frames::write(&mut send, &BlobReply::Stored).await.unwrap();
        };
        let (mut silent, mut end) = (|_, _| {}, None);
        let put = async { end = Some(transfer::put(&site, &here.dir, blob, &mut silent).await) };
        tokio::join!(wrong, put);
        assert!(matches!(end, Some(Err(TransferError::Lost { .. }))), "{end:?}");
    });
}

#[test]
fn whoever_closes_says_why() {
    simulate(async {
        let works = watch::Sender::new(true);
        let (server, site) = pair(1e6, &works).await;
        let (mut send, mut recv) = site.open_bi().await.unwrap();
        send.write_chunk(b"hello"[..].into()).await.unwrap();
        let (_theirs, mut theirs) = server.accept_bi().await.unwrap();
        assert_eq!(theirs.read_full(&mut [0; 5]).await.unwrap(), 5);
        server.close(4, "the site is suspended");
        assert_eq!(server.close_reason(), Some(Ended::ByUs));
        let said = Ended::ByPeer { code: 4, reason: "the site is suspended".into() };
        assert_eq!(site.closed().await, said);
        assert_eq!(site.open_bi().await.err(), Some(said.clone()));
        assert_eq!(recv.read(&mut [0; 1]).await.unwrap_err().to_string(), said.to_string());
        assert!(theirs.read(&mut [0; 1]).await.is_err(), "nothing more is taken from whom we closed");
    });
}

#[test]
fn who_lets_go_of_a_connection_closes_it() {
    simulate(async {
        let works = watch::Sender::new(true);
        let (server, site) = pair(1e6, &works).await;
        drop(site);
        let ended = server.closed().await;
        assert_eq!(ended, Ended::ByPeer { code: 0, reason: "the peer closed the connection".into() });
    });
}

#[test]
fn signs_of_life_are_counted_and_silence_is_noticed() {
    simulate(async {
        let works = watch::Sender::new(true);
        let (server, site) = pair(1e6, &works).await;
        let before = server.heard();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(server.heard() > before + 50, "a site that only trains is heard of");
        assert_eq!((server.close_reason(), site.close_reason()), (None, None));
        works.send_replace(false);
        let start = Instant::now();
        assert_eq!((server.closed().await, site.closed().await), (Ended::Silent, Ended::Silent));
        let waited = start.elapsed();
        assert!(waited > IDLE_TIMEOUT / 2 && waited <= IDLE_TIMEOUT, "{waited:?}");
    });
}

#[test]
fn a_foreign_certificate_is_told_apart_from_a_broken_line() {
    simulate(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let (hub, site) = (authority.party(Role::Server, "hub"), authority.party_of(&other, Role::Site, "a"));
        let (ours, theirs) = pipe(1e6, &watch::Sender::new(true));
        let (server, site) = tokio::join!(at_server(theirs, &hub), at_site(ours, &site));
        assert!(server.is_err());
        // TLS 1.3 lets the site believe that all is well until the server has looked at its certificate.
        let ended = site.unwrap().closed().await;
        assert_eq!(ended, Ended::Alert(51), "decrypt_error: an authority of the same name with another key");
    });
}

#[test]
fn a_peer_that_does_not_keep_to_the_rules_loses_its_connection() {
    simulate(async {
        // What is no frame of the multiplexer; a lifeline that carries something else; streams without end.
        for garbage in [&[0xff; 24][..], &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7]] {
            let (server, mut peer) = bare().await;
            peer.write_all(garbage).await.unwrap();
            let ended = timeout(Duration::from_secs(30), async {
                match server.await {
                    Ok(connection) => connection.closed().await,
                    Err(ended) => ended,
                }
            });
            assert!(matches!(ended.await.unwrap(), Ended::Broken(_)), "{garbage:?}");
        }
        let (server, mut peer) = bare().await;
        for stream in 0..200u32 {
            let mut frame = vec![0, 1, 0, 1];
            frame.extend((2 * stream + 1).to_be_bytes());
            frame.extend([0; 4]);
            peer.write_all(&frame).await.unwrap();
        }
        let connection = server.await.unwrap();
        // What may not wait is reset, and the peer, which does not keep its lifeline, is given up in the end.
        let mut said = Vec::new();
        let told = async {
            let mut bytes = [0; 256];
            while !said.windows(4).any(|frame| frame == [0, 0, 0, 8]) {
                let read = peer.read(&mut bytes).await.unwrap();
                assert!(read > 0, "the connection stands");
                said.extend_from_slice(&bytes[..read]);
            }
        };
        timeout(Duration::from_secs(5), told).await.expect("a stream is reset");
        assert_eq!(connection.closed().await, Ended::Silent);
    });
}

/// A server without TLS, and a peer that sends what it likes.
async fn bare() -> (impl Future<Output = Result<Connection, Ended>>, DuplexStream) {
    let (ours, theirs) = pipe(1e6, Box::leak(Box::new(watch::Sender::new(true))));
    let server = async {
        let (connection, work) =
            TcpConnection::establish(theirs, Mode::Server, SOMEWHERE, Peer::default()).await?;
        tokio::spawn(work);
        Ok(connection.into())
    };
    (server, ours)
}
