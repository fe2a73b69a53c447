//! What the server says of a round that it made a model in: the record, signed.

use sheaf_common::blob::BlobId;
use sheaf_common::message::{Job, TaskId};
use sheaf_common::record::{MadeOf, Record, SignedRecord};
use sheaf_common::secagg::transcript::Digest;
use sheaf_transport::authority::NotOurs;
use sheaf_transport::tls::Credentials;

use crate::core::Summed;

/// What came of a round's long work.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The new global parameters, durable.
    pub global: BlobId,
    /// What is published of them; the evaluation of the final model makes none.
    pub record: Option<Box<SignedRecord>>,
    /// What else a secure sum gave.
    pub summed: Option<Box<Summed>>,
}

/// The server's own key does not sign.
#[derive(Debug, thiserror::Error)]
#[error("the record of the round cannot be signed: {0}")]
pub struct Unsigned(#[from] NotOurs);

/// The signed record of `task`, in which the second of two models was made of the first.
pub(crate) fn publish(
    job: &Job,
    task: &TaskId,
    made_of: MadeOf,
    (model_in, model_out): (BlobId, BlobId),
    previous: Option<Digest>,
    credentials: &Credentials,
) -> Result<Box<SignedRecord>, Unsigned> {
    let software = env!("CARGO_PKG_VERSION").to_owned();
    let (task, origin) = (task.clone(), job.origin());
    let body = Record { task, origin, software, made_of, model_in, model_out, previous };
    let signature = credentials.sign(&body.signable())?.into();
    Ok(Box::new(SignedRecord { body, certificate: credentials.certificate(), signature }))
}
