//! The federation's certificates: its authority and its server once for the whole simulation, a client's when it is first
//! needed. They are real: what sites sign and check in a secure sum is signed and checked here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use sheaf_common::id::{BadName, ClientId, Federation, Role};
use sheaf_common::seed;
use sheaf_server::pki::{self, Authority, IssueOptions, PkiError, Wanted};
use sheaf_transport::key::PrivateKey;
use sheaf_transport::tls::{CredentialError, CredentialPaths, Credentials};
use time::OffsetDateTime;

/// The federation's name.
const FEDERATION: &str = "simulation";

/// The server's.
const SERVER: &str = "server";

/// Who everybody is.
pub struct Identities {
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
        let paths = CredentialPaths {
            certificate: dir.join(format!("{}-{SERVER}.crt", Role::Server)),
            key: dir.join(format!("{}-{SERVER}.key", Role::Server)),
            ca: dir.join(pki::CA_CERTIFICATE),
        };
        if !paths.certificate.exists() {
            pki::issue(dir, Role::Server, &server, &IssueOptions::default())?;
        }
        let server = Arc::new(Credentials::load(&paths)?);
        Ok(Self { authority: Authority::open(dir)?, server, seed, clients: BTreeMap::new() })
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
