//! A durable record with a checksum over what it is and where it belongs: bytes that changed on a disk, or that lie in
//! another record's place, are found, and never read as something else.

use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{self, DecodeError, EncodeError};

/// Bytes of the checksum, the last of a record.
pub const CHECKSUM: usize = 32;

/// The record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// Not what was written, or not here.
    #[error("the record of {0} is not what was written")]
    Changed(String),
    /// Written by a program that knows it in another form.
    #[error(transparent)]
    Form(#[from] DecodeError),
}

/// The record of `value`, which belongs in `place`.
pub fn encode<T: Serialize>(place: &str, value: &T) -> Result<Vec<u8>, EncodeError> {
    Ok(seal(place, wire::encode_record(value)?))
}

/// The bytes of a record with the checksum that says that they belong in `place`.
pub fn seal(place: &str, mut record: Vec<u8>) -> Vec<u8> {
    record.extend(checksum(place, &record));
    record
}

/// The value of the record in `place`.
pub fn decode<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, BadRecord> {
    let record = open(place, bytes).ok_or_else(|| BadRecord::Changed(place.to_owned()))?;
    Ok(wire::decode_record(record)?)
}

/// The bytes of the record in `place`, as they were [`seal`]ed; nothing when they are others.
pub fn open<'a>(place: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (record, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    (*sum == checksum(place, record)).then_some(record)
}

fn checksum(place: &str, record: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    // Its length keeps the place apart from the record.
    hasher.update(&(place.len() as u64).to_le_bytes()).update(place.as_bytes()).update(record);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_bytes_and_no_other_place_are_believed() {
        let bytes = encode("here", &(7u32, "seven".to_owned())).unwrap();
        assert_eq!(decode::<(u32, String)>("here", &bytes).unwrap(), (7, "seven".into()));
        assert!(matches!(decode::<(u32, String)>("there", &bytes), Err(BadRecord::Changed(_))));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(decode::<(u32, String)>("here", &changed).is_err(), "byte {at}");
            assert!(decode::<(u32, String)>("here", &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
