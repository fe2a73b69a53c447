//! A federation's own certificates: its authority, and one certificate per party.
//!
//! Trust in Sheaf has one root: the federation's certificate authority, which lives in a folder on the machine of
//! whoever runs the federation and needs no service. A certificate says who its holder is in a SAN URI
//! (`sheaf://<federation>/<role>/<name>`), and the role decides what it can be used for: a server's proves only
//! a server (`serverAuth`), everybody else's only a client (`clientAuth`), so that no site can pose as the server.
//! Keys are Ed25519: small, quick, and with signatures that are the same for the same message.
//!
//! * `authority`: the authority: `init` and how it is opened.
//! * `leaf`: `issue`: a party's key and certificate.
//! * `card`: [`Card`]: what a certificate says.
//! * `files`: pairs of files that are written whole, once, and never over anything.

mod authority;
mod card;
mod files;
mod leaf;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use sheaf_common::id::{Federation, Role};
use sheaf_transport::tls::CredentialError;
use time::Duration;

pub use authority::{Authority, init};
pub use card::{Card, Holder, ReadError};
pub use files::WriteError;
pub use leaf::{BadHost, Host, IssueOptions, Issued, issue};

/// File of the authority's certificate, which every party needs.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// File of the authority's key, which nobody else may have.
pub const CA_KEY: &str = "ca.key";

/// How long before its making a certificate is valid already, for parties whose clocks are late.
const BACKDATED: Duration = Duration::hours(1);

/// No certificate was made, and why.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The files could not be written, or are there already.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The authority's certificate could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder's certificate is a party's.
    #[error(
        "{0} belongs to {1}, not to a certificate authority: give --pki the folder that `sheaf pki init` made"
    )]
    NoAuthority(PathBuf, String),
    /// The authority's key could not be read, or can be read by others.
    #[error(transparent)]
    Key(#[from] CredentialError),
    /// Key and certificate of the authority do not belong together.
    #[error("{0} is not the key of the certificate beside it: one of the two was replaced")]
    ForeignKey(PathBuf),
    /// The authority is too old.
    #[error(
        "the authority of federation {0} has expired: make a new one with `sheaf pki init` in another folder"
    )]
    Expired(Federation),
    /// The lifetime asked for does not fit.
    #[error(
        "a lifetime of {asked} days does not fit: use --days 1 to {most} (the authority itself ends then)"
    )]
    Lifetime {
        /// Days asked for.
        asked: u32,
        /// Days that the authority has left.
        most: i64,
    },
    /// Hosts were given to a party that nobody dials.
    #[error("--host is for servers: nobody dials a {0}")]
    Hosts(Role),
    /// The cryptographic library failed.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}
