//! `server.toml`: where the server listens, who it is, and where it keeps its state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_transport::tls::CredentialPaths;

use crate::retention::Retention;

/// The server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The UDP port; port 0 takes a free one, which is then written to `DATA_DIR/address`.
    pub listen: SocketAddr,
    /// The TCP port for sites whose network lets no UDP out, if there is to be one; port 0 takes UDP's number.
    pub listen_tcp: Option<SocketAddr>,
    /// Where everything durable lies; made when it is not there.
    pub data_dir: PathBuf,
    /// Certificate, key and CA.
    pub identity: CredentialPaths,
    /// How long blobs outlive their run.
    pub retention: Retention,
}

/// Where things lie in a data directory.
#[derive(Clone, Copy, Debug)]
pub struct DataDir<'a>(pub &'a Path);

impl DataDir<'_> {
    /// Runs, journal, rounds, models, sites.
    pub fn database(&self) -> PathBuf {
        self.0.join("sheaf.db")
    }

    /// Models and global parameters.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Sites' updates.
    pub fn updates(&self) -> PathBuf {
        self.0.join("updates")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: String,
    listen_tcp: Option<String>,
    data_dir: PathBuf,
    identity: WrittenIdentity,
    #[serde(default)]
    retention: WrittenRetention,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRetention {
    rounds: Option<String>,
    results: Option<String>,
}

impl TryFrom<WrittenRetention> for Retention {
    type Error = Invalid;

    fn try_from(written: WrittenRetention) -> Result<Self, Invalid> {
        let default = Self::default();
        Ok(Self {
            rounds: limit("retention.rounds", written.rounds, default.rounds)?,
            results: limit("retention.results", written.results, default.results)?,
        })
    }
}

fn limit(key: &str, written: Option<String>, default: Option<Duration>) -> Result<Option<Duration>, Invalid> {
    match written.as_deref() {
        None => Ok(default),
        Some("forever") => Ok(None),
        Some(text) => humantime::parse_duration(text).map(Some).map_err(|_| {
            Invalid::new(key, format!("`{text}` is no duration; write \"30d\", \"12h\" or \"forever\""))
        }),
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
            data_dir: written.data_dir,
            identity: CredentialPaths { certificate, key, ca },
            retention: written.retention.try_into()?,
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
