//! Which server to speak to, and with which certificate: `operator.toml` and the flags that go before it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sheaf_common::config::{self, ConfigError, Invalid};
use sheaf_common::id::Role;
use sheaf_transport::network::{Network, NetworkFile};
use sheaf_transport::tls::{CredentialError, CredentialPaths, Credentials};

use super::args::ConnectionArgs;
use super::units;

const FILE: &str = "operator.toml";

/// A server and who we are to it.
#[derive(Debug)]
pub struct Settings {
    /// `host:port`.
    pub server: String,
    /// Our certificate, its key and the federation's CA.
    pub credentials: Credentials,
    /// How to get there.
    pub network: Network,
}

/// There is nothing to speak to the server with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The file is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
    /// A setting is nowhere.
    #[error(
        "no {0} is known: give --{0}, or write `{1} = …` into ./{FILE} or ~/.config/sheaf/{FILE} (it holds server, certificate, key and ca)"
    )]
    Missing(&'static str, &'static str),
    /// The server has no port.
    #[error("`{0}` is not a server: write host:port")]
    Server(String),
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The certificate is somebody else's.
    #[error(
        "{0} is a {1}'s certificate: the command line needs an operator's or a viewer's (`sheaf pki issue operator NAME`)"
    )]
    Role(PathBuf, Role),
    /// The certificate is too old.
    #[error("your certificate {0} expired {1} ago: ask for a new one (`sheaf pki issue {2} NAME`)")]
    Expired(PathBuf, String, Role),
}

/// `operator.toml`. Paths are relative to its folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    network: NetworkFile,
}

impl Settings {
    /// Puts together what flags and file say, and reads the certificate.
    pub(super) fn find(args: &ConnectionArgs) -> Result<Self, SettingsError> {
        let (server, paths, network) = choose(args)?;
        let credentials = Credentials::load(&paths)?;
        let identity = &credentials.identity;
        match identity.role {
            Role::Operator | Role::Viewer => {}
            Role::Server | Role::Site => return Err(SettingsError::Role(paths.certificate, identity.role)),
        }
        let expired_ms = u64::try_from(credentials.not_after).unwrap_or(0).saturating_mul(1000);
        let now = units::now();
        if now.0 > expired_ms {
            let ago = units::age(sheaf_common::time::Timestamp(expired_ms), now);
            return Err(SettingsError::Expired(paths.certificate, ago, identity.role));
        }
        Ok(Self { server, credentials, network })
    }
}

fn choose(args: &ConnectionArgs) -> Result<(String, CredentialPaths, Network), SettingsError> {
    let (dir, Checked { file, network }) = read(args)?;
    let path = |flag: &Option<PathBuf>, written: Option<PathBuf>| {
        flag.clone().or_else(|| written.map(|path| dir.join(path)))
    };
    let missing = |flag, key| move || SettingsError::Missing(flag, key);
    let server = args.server.clone().or(file.server).ok_or_else(missing("server", "server"))?;
    if !server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(SettingsError::Server(server));
    }
    let paths = CredentialPaths {
        certificate: path(&args.cert, file.certificate).ok_or_else(missing("cert", "certificate"))?,
        key: path(&args.key, file.key).ok_or_else(missing("key", "key"))?,
        ca: path(&args.ca, file.ca).ok_or_else(missing("ca", "ca"))?,
    };
    Ok((server, paths, network))
}

/// The folder and the content of the first file that is there; a file that was asked for must be there.
fn read(args: &ConnectionArgs) -> Result<(PathBuf, Checked), SettingsError> {
    if let Some(path) = &args.config {
        return parse(path, &fs::read_to_string(path).map_err(|e| SettingsError::Read(path.clone(), e))?);
    }
    for path in [Some(PathBuf::from(FILE)), user_file()].into_iter().flatten() {
        match fs::read_to_string(&path) {
            Ok(text) => return parse(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SettingsError::Read(path, error)),
        }
    }
    Ok((PathBuf::new(), Checked::default()))
}

fn parse(path: &Path, text: &str) -> Result<(PathBuf, Checked), SettingsError> {
    let file: Checked = config::read::<File, _>(&path.display().to_string(), text)?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), file))
}

/// A file in which nothing is wrong by itself: what is missing may come from flags.
#[derive(Default)]
struct Checked {
    file: File,
    network: Network,
}

impl TryFrom<File> for Checked {
    type Error = Invalid;

    fn try_from(mut file: File) -> Result<Self, Invalid> {
        let network = std::mem::take(&mut file.network).try_into()?;
        Ok(Self { file, network })
    }
}

fn user_file() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(base.join("sheaf").join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, text: &str) -> ConnectionArgs {
        let config = dir.join(FILE);
        fs::write(&config, text).unwrap();
        ConnectionArgs { config: Some(config), ..ConnectionArgs::default() }
    }

    const FULL: &str = "server = \"a:1\"\ncertificate = \"o.crt\"\nkey = \"/k/o.key\"\nca = \"ca.crt\"\n";

    #[test]
    fn paths_are_relative_to_the_file_and_flags_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut args = args(dir.path(), FULL);
        args.server = Some("b:2".into());
        args.ca = Some("here.crt".into());
        let (server, paths, network) = choose(&args).unwrap();
        assert_eq!(network, Network::default());
        assert_eq!(server, "b:2");
        assert_eq!(paths.certificate, dir.path().join("o.crt"));
        assert_eq!((paths.key, paths.ca), ("/k/o.key".into(), "here.crt".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let message = |text: &str| choose(&args(dir.path(), text)).unwrap_err().to_string();
        assert!(
            message("server = \"a:1\"\n").starts_with("no cert is known: give --cert, or write `certificate")
        );
        assert!(message(&FULL.replace("a:1", "a")).starts_with("`a` is not a server"));
        assert!(message("sever = \"a:1\"\n").contains("operator.toml:1: unknown field `sever`"));
        let absent = ConnectionArgs { config: Some("/no/such.toml".into()), ..ConnectionArgs::default() };
        assert!(choose(&absent).unwrap_err().to_string().starts_with("cannot read /no/such.toml"));
    }
}
