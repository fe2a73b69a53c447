//! A tunnel through an HTTP proxy (CONNECT, RFC 9110, 9.3.6).

use std::fmt;
use std::io;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer of a proxy, in bytes.
const ANSWER_MAX: usize = 8 << 10;

/// A proxy, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`.
    address: String,
    /// `user:password`.
    login: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Where it is; never the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// What is written names no proxy. It is not repeated, since it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no proxy; write \"http://host:port\", or \"http://user:password@host:port\", or \"none\"")]
pub struct BadProxy;

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(url: &str) -> Result<Self, BadProxy> {
        let rest = url.strip_prefix("http://").ok_or(BadProxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(unescape(login).ok_or(BadProxy)?), address),
            None => (None, rest),
        };
        let (host, port) = address.rsplit_once(':').ok_or(BadProxy)?;
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '?' | '#');
        if host.is_empty() || !host.chars().all(plain) || port.parse::<u16>().is_err() {
            return Err(BadProxy);
        }
        Ok(Self { address: address.to_owned(), login })
    }
}

/// Undoes the percent signs of a URL.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// The proxy that the environment names for `server`, as curl and others read it.
pub(crate) fn from_environment(
    server: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let find = |names: [&str; 2]| names.into_iter().find_map(&variable).filter(|value| !value.is_empty());
    let Some(url) = find(["https_proxy", "HTTPS_PROXY"]) else { return Ok(None) };
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let spared = |entry: &str| {
        let suffix = entry.trim().trim_start_matches("*.").trim_start_matches('.');
        let rest = host.strip_suffix(suffix);
        suffix == "*"
            || (!suffix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    if find(["no_proxy", "NO_PROXY"]).is_some_and(|list| list.split(',').any(spared)) {
        return Ok(None);
    }
    url.parse().map(Some).map_err(|e: BadProxy| format!("HTTPS_PROXY {e}"))
}

impl Proxy {
    /// A TCP connection to `server` (`host:port`) through the proxy.
    pub(crate) async fn connect(&self, server: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let login = self.login.as_ref().map_or_else(String::new, |login| {
            format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(login))
        });
        let request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{login}\r\n");
        stream.write_all(request.as_bytes()).await?;
        status(&answer(&mut stream).await?)?;
        Ok(stream)
    }
}

/// The head of the proxy's answer. What comes after it is the server's, so that it is read byte by byte.
async fn answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == ANSWER_MAX {
            return Err(io::Error::other("its answer does not end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> io::Result<()> {
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default());
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let code = words.next().unwrap_or_default();
    if !version.starts_with("HTTP/1.") {
        return Err(io::Error::other("it does not speak HTTP"));
    }
    match code {
        code if code.len() == 3 && code.starts_with('2') => Ok(()),
        "407" => Err(io::Error::other(
            "it wants a login (407): write it into network.proxy as \"http://user:password@host:port\"",
        )),
        _ => {
            let said = words.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(100);
            Err(io::Error::other(format!("it says {code} {}", said.collect::<String>())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_and_never_shown() {
        let proxy: Proxy = "http://ada:s%40cret%3A@proxy.example.org:3128/".parse().unwrap();
        assert_eq!(proxy.login.as_deref(), Some("ada:s@cret:"));
        assert_eq!(
            (proxy.to_string(), format!("{proxy:?}")),
            ("proxy.example.org:3128".to_owned(), "Proxy(proxy.example.org:3128)".to_owned())
        );
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        for url in [
            "proxy:3128",
            "https://p:1",
            "http://p",
            "http://:1",
            "http://p:x",
            "http://a%zz@p:1",
            "http://a b:1",
        ] {
            let error = url.parse::<Proxy>().unwrap_err().to_string();
            assert!(error.starts_with("is no proxy; write \"http://host:port\""), "{error}");
        }
    }

    #[test]
    fn the_environment_is_read_as_curl_does() {
        let with = |variables: &'static [(&str, &str)]| {
            move |name: &str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            }
        };
        let proxy = |server, variables| from_environment(server, with(variables));
        let some = "http://p:1".parse().ok();
        assert_eq!(proxy("hub.example.org:443", &[]), Ok(None));
        assert_eq!(proxy("hub.example.org:443", &[("HTTPS_PROXY", "http://p:1")]), Ok(some.clone()));
        assert_eq!(
            proxy("hub.example.org:443", &[("HTTPS_PROXY", "http://q:2"), ("https_proxy", "http://p:1")]),
            Ok(some.clone())
        );
        for spared in ["*", "other, hub.example.org", ".example.org", "*.example.org", "org"] {
            let variable = |name: &str| match name {
                "https_proxy" => Some("http://p:1".to_owned()),
                "NO_PROXY" => Some(spared.to_owned()),
                _ => None,
            };
            assert_eq!(from_environment("hub.example.org:443", variable), Ok(None), "{spared}");
        }
        assert_eq!(
            proxy("hub.example.org:443", &[("https_proxy", "http://p:1"), ("no_proxy", "ample.org,")]),
            Ok(some)
        );
        assert!(proxy("hub:1", &[("https_proxy", "socks5://p:1")]).is_err());
    }

    #[test]
    fn a_proxy_s_no_is_told() {
        assert!(status(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok());
        let why = |head: &[u8]| status(head).unwrap_err().to_string();
        assert_eq!(why(b"HTTP/1.0 403 Not\x1b[2J allowed\r\n\r\n"), "it says 403 Not[2J allowed");
        assert!(why(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").contains("it wants a login"));
        assert_eq!(why(b"SSH-2.0\r\n\r\n"), "it does not speak HTTP");
        assert_eq!(why(b"HTTP/1.1\r\n\r\n"), "it says  ");
    }
}
