//! The federation's certificates: its authority and its server once for the whole simulation, a client's when it is first
//! needed. They are real: what sites sign and check in a secure sum is signed and checked here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::Rng;
use sheaf_common::id::{BadName, ClientId, Federation, Name, Role};
use sheaf_common::seed;
use sheaf_server::pki::{self, Authority, IssueOptions, PkiError, Wanted};
use sheaf_transport::key::PrivateKey;
use sheaf_transport::tls::{CredentialError, CredentialPaths, Credentials};
use time::OffsetDateTime;

/// The federation's name.
const FEDERATION: &str = "simulation";

/// The server's.
pub(crate) const SERVER: &str = "server";

/// Who everybody is.
pub struct Identities {
    dir: PathBuf,
    authority: Authority,
    server: Arc<Credentials>,
    seed: u64,
    clients: BTreeMap<ClientId, Arc<Credentials>>,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority says no.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl Identities {
    /// The federation whose authority is in `dir`, made when it is not there. Clients' keys follow from the seed.
    pub fn open(dir: &Path, seed: u64) -> Result<Self, IdentityError> {
        let (federation, server): (Federation, _) = (FEDERATION.parse()?, SERVER.parse()?);
        if !dir.join(pki::CA_CERTIFICATE).exists() {
            pki::init(dir, &federation)?;
        }
        let server = Arc::new(Credentials::load(&files(dir, Role::Server, &server)?)?);
        Ok(Self {
            dir: dir.to_owned(),
            authority: Authority::open(dir)?,
            server,
            seed,
            clients: BTreeMap::new(),
        })
    }

    /// A party's files, made when they are not there, with any key.
    pub fn files(&self, role: Role, name: &Name) -> Result<CredentialPaths, IdentityError> {
        files(&self.dir, role, name)
    }

    /// The server's.
    pub fn server(&self) -> Arc<Credentials> {
        self.server.clone()
    }

    /// A client's.
    pub fn client(&mut self, name: &ClientId) -> Result<Arc<Credentials>, IdentityError> {
        if let Some(known) = self.clients.get(name) {
            return Ok(known.clone());
        }
        // From the seed, because the length of a certificate depends on its key, and the time of a message on its length.
        let mut secret = [0; 32];
        seed::stream(self.seed, &["key", name.as_str()]).fill_bytes(&mut secret);
        let key = PrivateKey::of_secret(&secret).map_err(PkiError::from)?;
        let chain = self.authority.issue(&key, &Wanted::site(&name.0, None), OffsetDateTime::now_utc())?;
        let credentials = Arc::new(self.server.issued(chain, key)?);
        self.clients.insert(name.clone(), credentials.clone());
        Ok(credentials)
    }
}

fn files(dir: &Path, role: Role, name: &Name) -> Result<CredentialPaths, IdentityError> {
    let paths = CredentialPaths {
        certificate: dir.join(format!("{role}-{name}.crt")),
        key: dir.join(format!("{role}-{name}.key")),
        ca: dir.join(pki::CA_CERTIFICATE),
    };
    if !paths.certificate.exists() {
        pki::issue(dir, role, name, &IssueOptions::default())?;
    }
    Ok(paths)
}
