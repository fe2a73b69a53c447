//! What the fuzz targets share: the round trip of a message, and a whole attempt at a secure sum in which any message
//! may be replaced on its way.

pub mod attempt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_common::wire;

/// Whatever decodes must be encoded again, to bytes that decode to the same bytes. Compared as bytes, because a NaN is
/// not equal to itself.
pub fn round_trip<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(message) = wire::decode::<T>(data) {
        let bytes = wire::encode(&message).expect("what came in a frame fits one");
        let again: T = wire::decode(&bytes).expect("what was encoded decodes");
        assert_eq!(wire::encode(&again).expect("the same message"), bytes);
    }
}
