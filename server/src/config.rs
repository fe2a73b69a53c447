//! `server.toml`: where the server listens, who it is, and where it keeps its state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_transport::gate::Limits;
use sheaf_transport::tls::CredentialPaths;

/// The server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The UDP port; port 0 takes a free one, which is then written to `DATA_DIR/address`.
    pub listen: SocketAddr,
    /// The TCP port for sites whose network lets no UDP out, if there is to be one; port 0 takes UDP's number.
    pub listen_tcp: Option<SocketAddr>,
    /// How many may be connected.
    pub limits: Limits,
    /// Where everything durable lies; made when it is not there.
    pub data_dir: PathBuf,
    /// Certificate, key and CA.
    pub identity: CredentialPaths,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: String,
    listen_tcp: Option<String>,
    data_dir: PathBuf,
    #[serde(default)]
    limits: WrittenLimits,
    identity: WrittenIdentity,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenLimits {
    connections: Option<usize>,
    connections_per_address: Option<usize>,
    handshakes: Option<usize>,
}

impl TryFrom<WrittenLimits> for Limits {
    type Error = Invalid;

    fn try_from(written: WrittenLimits) -> Result<Self, Invalid> {
        let WrittenLimits { connections, connections_per_address, handshakes } = written;
        let positive = |key: &str, written: Option<usize>, default: usize| match written {
            Some(0) => Err(Invalid::new(format!("limits.{key}"), "0 lets nobody in; write 1 or more")),
            written => Ok(written.unwrap_or(default)),
        };
        let default = Self::default();
        Ok(Self {
            connections: positive("connections", connections, default.connections)?,
            connections_per_address: positive(
                "connections_per_address",
                connections_per_address,
                default.connections_per_address,
            )?,
            handshakes: positive("handshakes", handshakes, default.handshakes)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIdentity {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl TryFrom<Written> for ServerConfig {
    type Error = Invalid;

    fn try_from(written: Written) -> Result<Self, Invalid> {
        let listen = address("listen", &written.listen, "")?;
        let listen_tcp = match written.listen_tcp.as_deref() {
            None => Some(listen),
            Some("off") => None,
            Some(other) => Some(address("listen_tcp", other, ", or \"off\"")?),
        };
        let WrittenIdentity { certificate, key, ca } = written.identity;
        Ok(Self {
            listen,
            listen_tcp,
            limits: written.limits.try_into()?,
            data_dir: written.data_dir,
            identity: CredentialPaths { certificate, key, ca },
        })
    }
}

fn address(key: &str, written: &str, or: &str) -> Result<SocketAddr, Invalid> {
    written.parse().map_err(|_| {
        Invalid::new(key, format!("`{written}` is no address; write \"0.0.0.0:4433\" or \"127.0.0.1:0\"{or}"))
    })
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ServerConfig {
    /// Reads `path`. Relative paths in the file start at the file's folder.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let mut config: Self = config::read::<Written, Self>(&path.display().to_string(), &text)?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let identity = &mut config.identity;
        for relative in [&mut config.data_dir, &mut identity.certificate, &mut identity.key, &mut identity.ca]
        {
            *relative = base.join(&*relative);
        }
        Ok(config)
    }
}
