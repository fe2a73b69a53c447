//! The table `[network]` of `site.toml` and `operator.toml`: how a party gets out of the network that it is in.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;
use sheaf_common::config::Invalid;

use crate::pace::Limits;
use crate::proxy::{self, Proxy};

/// Which way to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// QUIC, and TCP when no answer comes.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

/// How QUIC finds out how fast it may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// As most of the Internet does: what is lost is taken for a sign of congestion.
    #[default]
    Cubic,
    /// By measuring rate and delay: for long lines that lose datagrams for other reasons. It is unfair to others.
    Bbr,
}

/// How to get out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Which way to the server.
    pub transport: Choice,
    /// Where the server listens on TCP, `host:port`, if that is not where it listens on UDP.
    pub tcp_server: Option<String>,
    /// What TCP has to go through; what the environment says when it is not written.
    pub proxy: WrittenProxy,
    /// How what we send over QUIC is held back.
    pub congestion: Congestion,
    /// How much bulk may move, and when.
    pub limits: Limits,
}

/// What is said of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WrittenProxy {
    /// Nothing: `HTTPS_PROXY` and `NO_PROXY` count.
    #[default]
    Environment,
    /// There is none, whatever the environment says.
    None,
    /// This one.
    Proxy(Proxy),
}

impl Network {
    /// The proxy on the way to `server` (`host:port`).
    pub(crate) fn proxy_to(&self, server: &str) -> Result<Option<Proxy>, String> {
        match &self.proxy {
            WrittenProxy::Environment => proxy::from_environment(server, |name| std::env::var(name).ok()),
            WrittenProxy::None => Ok(None),
            WrittenProxy::Proxy(proxy) => Ok(Some(proxy.clone())),
        }
    }
}

/// `[network]` as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkFile {
    transport: Choice,
    tcp_server: Option<String>,
    proxy: Option<String>,
    congestion: Congestion,
    upload_limit: Option<String>,
    download_limit: Option<String>,
    bulk_hours: Option<String>,
}

impl TryFrom<NetworkFile> for Network {
    type Error = Invalid;

    fn try_from(file: NetworkFile) -> Result<Self, Invalid> {
        let proxy = match file.proxy.as_deref() {
            None => WrittenProxy::Environment,
            Some("none") => WrittenProxy::None,
            Some(url) => WrittenProxy::Proxy(
                url.parse().map_err(|e: proxy::BadProxy| Invalid::new("network.proxy", e.to_string()))?,
            ),
        };
        let tcp_server = file.tcp_server.map(|server| address("network.tcp_server", server)).transpose()?;
        let limits = Limits {
            upload: read("network.upload_limit", file.upload_limit)?,
            download: read("network.download_limit", file.download_limit)?,
            hours: read("network.bulk_hours", file.bulk_hours)?,
        };
        Ok(Self { transport: file.transport, tcp_server, proxy, congestion: file.congestion, limits })
    }
}

fn read<T: FromStr<Err: Display>>(key: &str, written: Option<String>) -> Result<Option<T>, Invalid> {
    written.map(|text| text.parse().map_err(|e: T::Err| Invalid::new(key, e.to_string()))).transpose()
}

/// `host:port`, or a sentence about `key`.
pub fn address(key: &str, written: String) -> Result<String, Invalid> {
    let port =
        written.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(written),
        _ => Err(Invalid::new(
            key,
            format!("`{written}` is no address; write \"host:port\", such as \"fl.example.org:4433\""),
        )),
    }
}
