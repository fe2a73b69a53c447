//! Strangers and a broken peer: whatever they do, the round goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sheaf_common::blob::BlobId;
use sheaf_common::id::Role;
use sheaf_common::message::{Open, SiteMessage};
use sheaf_common::status::{Phase, Progress, RunState};
use sheaf_tests::{Federation, Operator, credential_paths};
use sheaf_transport::dial::Dialer;
use sheaf_transport::frames;
use sheaf_transport::network::{Choice, Network, WrittenProxy};
use sheaf_transport::tls::Credentials;

const RUN: &str = r#"
name = "toy"
rounds = 3
seed = 7
secure_aggregation = "off"
model = { architecture = "constant", parameters = 2000 }

[task]
type = "none"
dataset = "data"

[cohort]
sites = ["a", "b"]
min_updates = 2
round_timeout = "100s"
"#;

async fn federation() -> Result<(Federation, Operator)> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for site in ["a", "b"] {
        federation.start_site(site, "x\n1\n")?;
    }
    let operator = federation.connect(Role::Operator, "op").await?;
    Ok((federation, operator))
}

async fn completes(operator: &mut Operator) -> Result<()> {
    let id = operator.submit(RUN).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    Ok(())
}

/// How many strangers come; `SHEAF_STRANGERS` for more.
fn strangers() -> usize {
    std::env::var("SHEAF_STRANGERS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// A TCP connection from an address of a stranger's own.
fn knock(server: SocketAddr, number: usize) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let own = SocketAddr::from(([127, 1, (number / 200) as u8, (number % 200 + 1) as u8], 0));
    socket.bind(&own.into())?;
    socket.connect_timeout(&server.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_connections_open_do_not_stop_a_round() -> Result<()> {
    let (federation, mut operator) = federation().await?;
    let server = federation.address()?;
    let start = Instant::now();
    // A byte of TLS at a time, or nothing at all: each holds a handshake for as long as the server lets it.
    let mut held = Vec::new();
    for number in 0..strangers() {
        let mut stream = knock(server, number)?;
        let _ = stream.write_all(&[0x16]);
        held.push(stream);
    }
    completes(&mut operator).await?;
    println!("{} strangers came; the run ended {:?} after the first", held.len(), start.elapsed());
    // Every one of them is sent away.
    for mut stream in held {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let end = stream.read(&mut [0; 64]);
        let gone = end.as_ref().is_ok_and(|read| *read == 0)
            || end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(gone, "{end:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_with_certificates_of_their_own_do_not_stop_a_round() -> Result<()> {
    let (federation, mut operator) = federation().await?;
    let (server, foreign) = (federation.address()?.to_string(), Federation::new()?);
    foreign.issue(Role::Site, "a")?;
    let mut paths = credential_paths(&foreign.path().join("pki"), Role::Site, "a");
    // It knows whom it dials; only its own certificate is no good.
    paths.ca = federation.path().join("pki/ca.crt");
    let mut attempts = tokio::task::JoinSet::new();
    for number in 0..strangers() / 3 {
        let transport = if number % 2 == 0 { Choice::Quic } else { Choice::Tcp };
        let (server, credentials) = (server.clone(), Credentials::load(&paths)?);
        attempts.spawn(async move {
            let network = Network { transport, proxy: WrittenProxy::None, ..Network::default() };
            let link = Dialer::new(server, network).connect(&credentials).await;
            // TLS 1.3 lets a client believe that it is in until the server has looked at its certificate.
            if let Ok(link) = link {
                link.connection.closed().await;
            }
        });
    }
    completes(&mut operator).await?;
    attempts.join_all().await;
    completes(&mut operator).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_floods_is_read_slowly_and_stops_nobody() -> Result<()> {
    let (federation, mut operator) = federation().await?;
    let mut rogue = federation.connect_site("c").await?;
    let task = "toy".parse()?;
    let noise = SiteMessage::Progress {
        task: sheaf_common::message::TaskId { run: task, round: 1, attempt: 1 },
        progress: Progress::new(Phase::Uploading, 1, 2),
    };
    let connection = rogue.link.connection.clone();
    let asks = Open::Get { blob: BlobId::of(b"nothing that is here"), offset: 0 };
    let streams = tokio::spawn(async move {
        while let Ok((mut send, mut recv)) = connection.open_bi().await {
            if frames::write(&mut send, &asks).await.is_err() || recv.read(&mut [0; 64]).await.is_err() {
                break;
            }
        }
    });
    let messages = tokio::spawn(async move { while rogue.say(&noise).await.is_ok() {} });
    completes(&mut operator).await?;
    assert!(!streams.is_finished() && !messages.is_finished(), "it is slowed and not cut off");
    streams.abort();
    messages.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_more_connections_than_the_limit() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.limit("connections_per_address = 4");
    let server = federation.start_server()?;
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(federation.connect(Role::Operator, "op").await?);
    }
    let paths = credential_paths(&federation.path().join("pki"), Role::Operator, "op");
    for transport in [Choice::Quic, Choice::Tcp] {
        let network = Network { transport, proxy: WrittenProxy::None, ..Network::default() };
        let dialer = Dialer::new(server.to_string(), network);
        assert!(dialer.connect(&Credentials::load(&paths)?).await.is_err(), "{transport:?}");
    }
    assert!(federation.log("server").contains("connections beyond [limits] are turned away"));
    // Whoever leaves makes room.
    let last = operators.pop().context("there are four")?;
    last.link.close().await;
    let mut place = None;
    for _ in 0..100 {
        place = federation.connect(Role::Operator, "op").await.ok();
        if place.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    place.map(drop).context("nobody gets the place of whoever left")
}
