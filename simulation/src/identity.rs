//! The federation's certificates: its authority and its server once for the whole simulation, a client's when it is first
//! needed. They are real: what sites sign and check in a secure sum is signed and checked here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::Rng;
use sheaf_common::id::{BadName, ClientId, Federation, Name, Role};
use sheaf_common::seed;
use sheaf_server::pki::{self, Authority, IssueOptions, PkiError, Wanted};
use sheaf_transport::durable;
use sheaf_transport::files::{self, WriteError};
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
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The disk said no.
    #[error("cannot make or replace {path}: {source}", path = .0.display(), source = .1)]
    Io(PathBuf, io::Error),
}

impl Identities {
    /// The federation whose authority is in `dir`, made when it is not there. The server's key and clients' follow from the seed.
    pub fn open(dir: &Path, seed: u64) -> Result<Self, IdentityError> {
        let server = SERVER.parse()?;
        if !dir.exists() {
            found(dir, seed, &server)?;
        }
        let authority = Authority::open(dir)?;
        let server = Arc::new(Credentials::load(&paths(dir, Role::Server, &server))?);
        Ok(Self { dir: dir.to_owned(), authority, server, seed, clients: BTreeMap::new() })
    }

    /// A party's files, made when they are not there, with any key.
    pub fn files(&self, role: Role, name: &Name) -> Result<CredentialPaths, IdentityError> {
        let paths = paths(&self.dir, role, name);
        let whole = self.dir.join(format!("{role}-{name}.whole"));
        if !whole.exists() {
            // One of them is there when the program was killed in between.
            for half in [&paths.key, &paths.certificate] {
                remove(half)?;
            }
            pki::issue(&self.dir, role, name, &IssueOptions::default())?;
            fs::write(&whole, "").map_err(|e| IdentityError::Io(whole, e))?;
        }
        Ok(paths)
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
        let key = key(self.seed, name.as_str())?;
        let chain = self.authority.issue(&key, &Wanted::site(&name.0, None), OffsetDateTime::now_utc())?;
        let credentials = Arc::new(self.server.issued(chain, key)?);
        self.clients.insert(name.clone(), credentials.clone());
        Ok(credentials)
    }
}

/// Makes the federation and its server, all of it or nothing.
fn found(dir: &Path, seed: u64, server: &Name) -> Result<(), IdentityError> {
    let unfinished = dir.with_added_extension("unfinished");
    remove(&unfinished)?;
    let federation: Federation = FEDERATION.parse()?;
    pki::init(&unfinished, &federation)?;
    let paths = paths(&unfinished, Role::Server, server);
    let key = key(seed, SERVER)?;
    let wanted = Wanted { role: Role::Server, name: server, hosts: &[], lifetime: None };
    let chain = Authority::open(&unfinished)?.issue(&key, &wanted, OffsetDateTime::now_utc())?;
    files::write_pair((&paths.key, &key.pem()), (&paths.certificate, &files::pem(&chain)))?;
    fs::rename(&unfinished, dir).map_err(|e| IdentityError::Io(dir.to_owned(), e))
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    durable::remove(path).map_err(|e| IdentityError::Io(path.to_owned(), e))
}

/// A party's key, from the seed: the length of a certificate depends on it (its serial number does, of which zeros in front are not
/// written), and the time of a message on its length.
fn key(seed: u64, party: &str) -> Result<PrivateKey, PkiError> {
    let mut secret = [0; 32];
    seed::stream(seed, &["key", party]).fill_bytes(&mut secret);
    Ok(PrivateKey::of_secret(&secret)?)
}

fn paths(dir: &Path, role: Role, name: &Name) -> CredentialPaths {
    CredentialPaths {
        certificate: dir.join(format!("{role}-{name}.crt")),
        key: dir.join(format!("{role}-{name}.key")),
        ca: dir.join(pki::CA_CERTIFICATE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_the_seed_and_stay_when_the_folder_is_opened_again() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let open = |folder: usize, seed| Identities::open(&folders[folder].path().join("pki"), seed).unwrap();
        let name: ClientId = "client-1".parse().unwrap();
        // What a key signs tells it from all others.
        let signed = |identities: &mut Identities| {
            let client = identities.client(&name).unwrap();
            [identities.server(), client].map(|party| party.sign(b"message").unwrap())
        };
        let [server, client] = signed(&mut open(0, 7));
        assert_ne!(server, client);
        assert_eq!(signed(&mut open(0, 7)), [server, client]);
        let mut elsewhere = open(1, 7);
        assert_eq!(signed(&mut elsewhere), [server, client]);
        let lengths = [open(0, 7), elsewhere].map(|identities| identities.server().certificate().len());
        assert_eq!(lengths[0], lengths[1]);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(signed(&mut Identities::open(&other.path().join("pki"), 8).unwrap()), [server, client]);
    }

    #[test]
    fn what_a_kill_left_half_done_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("pki");
        let unfinished = folder.path().join("pki.unfinished");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(pki::CA_KEY), "half a key").unwrap();
        let identities = Identities::open(&dir, 7).unwrap();
        assert!(!unfinished.exists());
        let name: Name = "client-1".parse().unwrap();
        let whole = identities.files(Role::Site, &name).unwrap();
        let before = fs::read(&whole.key).unwrap();
        assert_eq!(identities.files(Role::Site, &name).unwrap().key, whole.key);
        assert_eq!(fs::read(&whole.key).unwrap(), before, "whole ones stay");
        for half in [&whole.certificate, &whole.key] {
            fs::remove_file(dir.join("site-client-1.whole")).unwrap();
            fs::write(half, "-----BEGIN").unwrap();
            let again = identities.files(Role::Site, &name).unwrap();
            assert!(Credentials::load(&again).is_ok());
        }
    }
}
