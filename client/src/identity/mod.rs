//! The site's own key and certificate: made here, and its key never leaves.
//!
//! * `enroll`: a certificate for a token that the operator gave.
//! * `csr`: a request for authorities that no server speaks for.
//! * `renewal`: the next certificate, before this one ends: its files. `keeper`: when it is asked for, while the daemon
//!   runs.

pub mod csr;
pub mod enroll;
pub(crate) mod keeper;
pub mod renewal;

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use sheaf_common::enrolment::BadToken;
use sheaf_common::id::{ClientId, Role};
use sheaf_transport::enrolment::EnrollError;
use sheaf_transport::files::{self, WriteError};
use sheaf_transport::key::PrivateKey;
use sheaf_transport::tls::CredentialError;

/// No certificate was had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The token is none.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The server was not reached, or will not.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The same, and the key that was made stays: the token may be bound to it.
    #[error("{0}. The key {1} is kept, as the server may know it already: the same command goes on with it")]
    Interrupted(EnrollError, PathBuf),
    /// Files could not be written, or are there.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A key that is there cannot be used.
    #[error(transparent)]
    Key(#[from] CredentialError),
    /// The cryptographic library failed.
    #[error("cannot make a key: {0}")]
    Crypto(#[from] rcgen::Error),
    /// The certificate is not what was asked for.
    #[error("the server gave a certificate that is of no use: {0}. Ask the operator for a new token")]
    Useless(String),
    /// A file is there.
    #[error("{0} is there already: {1} has a certificate. Take another folder with --out, or move it away")]
    HasOne(PathBuf, ClientId),
    /// The program cannot run, or nobody reads what it prints.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
}

/// Where a site's files lie in a folder, called as `sheaf pki issue` calls them.
#[derive(Clone, Debug)]
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    request: PathBuf,
    ca: PathBuf,
    config: PathBuf,
}

impl Files {
    fn of(site: &ClientId, folder: &Path) -> Self {
        let file = |extension: &str| folder.join(format!("{}-{site}.{extension}", Role::Site));
        Self {
            key: file("key"),
            certificate: file("crt"),
            request: file("csr"),
            ca: folder.join("ca.crt"),
            config: folder.join("site.toml"),
        }
    }
}

/// A key that this folder may have had already.
struct Key {
    key: PrivateKey,
    fresh: bool,
}

/// The key of an earlier try, or a new one, which is on disk before anybody hears of it.
fn own_key(files: &Files) -> Result<Key, IdentityError> {
    if files.key.exists() {
        return Ok(Key { key: PrivateKey::read(&files.key)?, fresh: false });
    }
    let key = PrivateKey::generate()?;
    files::make_private_dir(files.key.parent().unwrap_or(Path::new("")))?;
    files::write_key(&files.key, &key.pem())?;
    Ok(Key { key, fresh: true })
}

/// Takes back a key that nobody has heard of.
fn discard(key: &Key, files: &Files) {
    if key.fresh {
        // One that stays is used by the next try.
        let _ = fs::remove_file(&files.key);
    }
}

/// SHA-256 of the public key, as the operator sees it.
fn fingerprint(key: &PrivateKey) -> String {
    hex::encode(digest::digest(&digest::SHA256, &key.public_key()))
}
