//! Ways for TCP alone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Worker, nonblocking};

/// A firewall before a server: TCP passes, UDP vanishes without a word.
pub struct Firewall {
    /// Where to dial in place of the server.
    pub address: SocketAddr,
    _worker: Worker,
}

impl Firewall {
    /// Stands before `server`.
    pub fn before(server: SocketAddr) -> Result<Self> {
        let (address, worker) = Worker::start(move || {
            let (udp, tcp) = same_number()?;
            let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
            let address = tcp.local_addr()?;
            let work = async move {
                let _silent = udp;
                while let Ok((mut inside, _)) = tcp.accept().await {
                    tokio::spawn(async move {
                        let mut outside = TcpStream::connect(server).await?;
                        copy_bidirectional(&mut inside, &mut outside).await
                    });
                }
            };
            Ok((address, work))
        })?;
        Ok(Self { address, _worker: worker })
    }
}

/// A number that is free for both.
fn same_number() -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let mut last = io::Error::other("no attempt");
    for _ in 0..16 {
        let udp =
            nonblocking(std::net::UdpSocket::bind("127.0.0.1:0")?, std::net::UdpSocket::set_nonblocking)?;
        match std::net::TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, nonblocking(tcp, std::net::TcpListener::set_nonblocking)?)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An HTTP proxy that wants a login and knows one server.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _worker: Worker,
}

impl Proxy {
    /// Leads whoever shows `login` (base64 of `user:password`) to `server`, whatever host they ask for.
    pub fn to(server: SocketAddr, login: &'static str) -> Result<Self> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let (address, worker) = Worker::start(move || {
            let listener = nonblocking(
                std::net::TcpListener::bind("127.0.0.1:0")?,
                std::net::TcpListener::set_nonblocking,
            )?;
            let listener = TcpListener::from_std(listener)?;
            let address = listener.local_addr()?;
            let work = async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(tunnel(client, server, login, heads.clone()));
                }
            };
            Ok((address, work))
        })?;
        Ok(Self { address, asked, _worker: worker })
    }

    /// The first lines of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }
}

async fn tunnel(
    mut client: TcpStream,
    server: SocketAddr,
    login: &str,
    asked: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let first = head.lines().next().unwrap_or_default().to_owned();
    if let Ok(mut asked) = asked.lock() {
        asked.push(first);
    }
    if !head.lines().any(|line| line == format!("Proxy-Authorization: Basic {login}")) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    }
    let mut upstream = TcpStream::connect(server).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}
