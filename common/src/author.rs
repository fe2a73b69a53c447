//! Who asked for a run, in a form that a site can check by itself: the operator's signature over what was asked for.
//!
//! Without it a server that lies could make up runs, or change them, and name whom it likes.

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;
use crate::run::RunSpec;
use crate::secagg::message::Signature;
use crate::time::Timestamp;
use crate::wire;

/// The operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The operator's certificate, DER.
    pub certificate: Vec<u8>,
    /// When it was given, by the operator's clock: the same run that is asked for again is another.
    pub signed_at: Timestamp,
    /// Its key's signature over [`statement`].
    pub signature: Signature,
}

/// What an operator signs: the run, whole, the manifest of the model that it starts from, and when it is asked for. A server
/// that could ask for it a second time would have sites train on the same examples again, for another sum of theirs.
pub fn statement(spec: &RunSpec, model: Option<BlobId>, signed_at: Timestamp) -> Vec<u8> {
    // A run came from a file or a message, so it is short enough to be encoded.
    let hash = BlobId::of(&wire::encode_record(&(spec, model, signed_at)).unwrap_or_default());
    [b"sheaf-run-v2/".as_slice(), hash.to_string().as_bytes()].concat()
}

impl Author {
    /// Whether `key`, which is the certificate's, signed this run and no other.
    pub fn signed(&self, key: &[u8; 32], spec: &RunSpec, model: Option<BlobId>) -> bool {
        self.signature.is_valid(key, &statement(spec, model, self.signed_at))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn spec(rounds: u32) -> RunSpec {
        let text = format!(
            "name = \"toy\"\nrounds = {rounds}\nmodel = {{ architecture = \"constant\", parameters = 4 }}\ntask = {{ type = \"none\" }}"
        );
        RunSpec::parse("run.toml", &text).unwrap()
    }

    #[test]
    fn a_word_is_for_one_run_and_one_model() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let model = Some(BlobId::of(b"model"));
        let signed_at = Timestamp(7);
        let signature = key.sign(&statement(&spec(1), model, signed_at)).to_bytes().into();
        let author = Author { certificate: Vec::new(), signed_at, signature };
        let public = key.verifying_key().to_bytes();
        assert!(author.signed(&public, &spec(1), model));
        assert!(!author.signed(&public, &spec(2), model), "another run");
        assert!(!author.signed(&public, &spec(1), None), "another model");
        assert!(!author.signed(&public, &spec(1), Some(BlobId::of(b"other"))), "another model");
        let later = Author { signed_at: Timestamp(8), ..author.clone() };
        assert!(!later.signed(&public, &spec(1), model), "another time");
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(!author.signed(&other, &spec(1), model), "another operator");
    }
}
