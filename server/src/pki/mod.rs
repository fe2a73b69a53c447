//! A federation's own certificates: its authority, and one certificate per party.
//!
//! Trust in Sheaf has one root: the federation's certificate authority, which lives in a folder on the machine of
//! whoever runs the federation and needs no service. A certificate says who its holder is in a SAN URI
//! (`sheaf://<federation>/<role>/<name>`), and the role decides what it can be used for: a server's proves only
//! a server (`serverAuth`), everybody else's only a client (`clientAuth`), so that no site can pose as the server.
//! Keys are Ed25519: small, quick, and with signatures that are the same for the same message.
//!
//! * `authority`: the authority: `init` and how it is opened; `issuing`: one below it, for sites alone.
//! * `leaf`: `issue`: a party's key and certificate; `sign`: a certificate for a key that was made elsewhere.
//! * `request`: [`SigningRequest`]: such a key, and the proof that whoever asks has its secret half.
//! * `card`: [`Card`]: what a certificate says.

mod authority;
mod card;
mod leaf;
mod request;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use sheaf_common::id::{Federation, Role};
use sheaf_transport::tls::CredentialError;
use time::{Duration, OffsetDateTime};

pub use authority::{Authority, init, issuing};
pub use card::{Card, Holder, ReadError};
pub use leaf::{BadHost, Host, IssueOptions, Issued, Wanted, issue, sign};
pub use request::{BadRequest, SigningRequest};
pub use sheaf_transport::files::WriteError;

/// File of the authority's certificate, which every party needs.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// File of the authority's key, which nobody else may have.
pub const CA_KEY: &str = "ca.key";
/// File of an issuing authority's certificate. The `ca.crt` beside it is that of the authority above.
pub const ISSUING_CERTIFICATE: &str = "issuing.crt";
/// File of an issuing authority's key.
pub const ISSUING_KEY: &str = "issuing.key";

/// When a certificate that is made `now` begins: an hour before, for parties whose clocks are late, or a tenth of a
/// short life, so that its middle is still to come.
fn backdated(now: OffsetDateTime, lifetime: Duration) -> OffsetDateTime {
    now - Duration::hours(1).min(lifetime / 10)
}

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
    /// The authority was made without room for one below it.
    #[error(
        "the authority in {0} may make no other authority: it is from before Sheaf had any. Start a new one with `sheaf pki init`, and change over as docs/operations.md says"
    )]
    NoRoom(PathBuf),
    /// It makes certificates of one role.
    #[error(
        "this is an issuing authority, which makes certificates of a {0} alone: use the federation's own"
    )]
    Limited(Role),
    /// The request cannot be signed.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// The lifetime asked for does not fit.
    #[error("a lifetime of {asked} days does not fit: take 1 to {most} (the authority itself ends then)")]
    Lifetime {
        /// Days asked for.
        asked: i64,
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
