//! `server.toml`: where the server listens, who it is, and where it keeps its state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_transport::gate::Limits;
use sheaf_transport::network::Congestion;
use sheaf_transport::tls::CredentialPaths;

use crate::retention::Retention;

/// The server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The UDP port; port 0 takes a free one, which is then written to `DATA_DIR/address`.
    pub listen: SocketAddr,
    /// The TCP port for sites whose network lets no UDP out, if there is to be one; port 0 takes UDP's number.
    pub listen_tcp: Option<SocketAddr>,
    /// How many may be connected.
    pub limits: Limits,
    /// How what it sends over QUIC is held back.
    pub congestion: Congestion,
    /// Where everything durable lies; made when it is not there.
    pub data_dir: PathBuf,
    /// Certificate, key and CA.
    pub identity: CredentialPaths,
    /// How long blobs outlive their run.
    pub retention: Retention,
    /// How sites without a certificate get one; nobody without a certificate is let in when it is not given.
    pub enrolment: Option<EnrolmentConfig>,
}

/// Where things lie in a data directory.
#[derive(Clone, Copy, Debug)]
pub struct DataDir<'a>(pub &'a Path);

impl DataDir<'_> {
    /// Runs, journal, rounds, models, sites.
    pub fn database(&self) -> PathBuf {
        self.0.join("sheaf.db")
    }

    /// What was done, for an auditor.
    pub fn audit_log(&self) -> PathBuf {
        self.0.join("audit.log")
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

/// The table `[enrolment]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentConfig {
    /// Folder of the authority that signs at once; without it requests wait for an operator.
    pub authority: Option<PathBuf>,
    /// How long the certificates are valid that it signs.
    pub lifetime: time::Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: String,
    listen_tcp: Option<String>,
    data_dir: PathBuf,
    #[serde(default)]
    congestion: Congestion,
    #[serde(default)]
    limits: WrittenLimits,
    identity: WrittenIdentity,
    #[serde(default)]
    retention: WrittenRetention,
    enrolment: Option<WrittenEnrolment>,
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
struct WrittenEnrolment {
    authority: Option<PathBuf>,
    certificate_lifetime: Option<String>,
}

/// How long a certificate is valid when nothing is said, and at most.
const LIFETIME: (&str, u64) = ("365d", 3652 * 24 * 3600);

impl TryFrom<WrittenEnrolment> for EnrolmentConfig {
    type Error = Invalid;

    fn try_from(written: WrittenEnrolment) -> Result<Self, Invalid> {
        let text = written.certificate_lifetime.as_deref().unwrap_or(LIFETIME.0);
        let lifetime = humantime::parse_duration(text).ok().map(|lifetime| lifetime.as_secs());
        let lifetime = lifetime.filter(|seconds| (1..=LIFETIME.1).contains(seconds)).ok_or_else(|| {
            Invalid::new(
                "enrolment.certificate_lifetime",
                format!("`{text}` is no lifetime of a certificate; write \"365d\", or what suits you up to ten years"),
            )
        })?;
        let lifetime = time::Duration::seconds(i64::try_from(lifetime).unwrap_or(i64::MAX));
        Ok(Self { authority: written.authority, lifetime })
    }
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
        let identity = CredentialPaths { certificate, key, ca };
        let (limits, retention) = (written.limits.try_into()?, written.retention.try_into()?);
        let enrolment = written.enrolment.map(TryInto::try_into).transpose()?;
        let (data_dir, congestion) = (written.data_dir, written.congestion);
        Ok(Self { listen, listen_tcp, limits, congestion, data_dir, identity, retention, enrolment })
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
        let mut config = Self::parse(&path.display().to_string(), &text)?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let identity = &mut config.identity;
        let authority = config.enrolment.iter_mut().flat_map(|enrolment| &mut enrolment.authority);
        let paths = [&mut config.data_dir, &mut identity.certificate, &mut identity.key, &mut identity.ca];
        for relative in paths.into_iter().chain(authority) {
            *relative = base.join(&*relative);
        }
        Ok(config)
    }

    /// The meaning of `server.toml`'s text, paths as they are written. `file` is its name for the message.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        config::read::<Written, Self>(file, text)
    }
}
