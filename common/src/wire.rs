//! How a control message becomes bytes: the one file that names bincode.
//!
//! A frame is a `u32` little-endian length and that many bytes of body. The length is checked against
//! [`FRAME_MAX`] before anything is allocated, and the decoder is bounded by the same limit, so that no length
//! inside a body can make it allocate more. Golden bytes in the tests pin the format.

use bincode::config::{self, Config, Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Longest body of a control message, in bytes.
pub const FRAME_MAX: usize = 1 << 20;

/// Version of the control protocol, said in the first message of either side.
pub const PROTOCOL_VERSION: u32 = 8;

/// Longest durable record: a message with what its receiver adds to it, with room to spare.
const RECORD_MAX: usize = 16 * FRAME_MAX;

const FRAME: Configuration<LittleEndian, Varint, Limit<FRAME_MAX>> =
    config::standard().with_limit::<FRAME_MAX>();

const RECORD: Configuration<LittleEndian, Varint, Limit<RECORD_MAX>> =
    config::standard().with_limit::<RECORD_MAX>();

/// The message cannot be sent: it is longer than [`FRAME_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("a message is too long: {0}")]
pub struct EncodeError(String);

/// The bytes are not a message of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("these bytes are no message of protocol version {PROTOCOL_VERSION}: {0}")]
pub struct DecodeError(String);

/// The body of a frame for `message`.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    to_bytes(message, FRAME, FRAME_MAX)
}

/// The message in the body of a frame. Bytes left over are an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    from_bytes(body, FRAME)
}

/// A durable record of `value`, which may hold a message of any length that a frame allows.
pub fn encode_record<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    to_bytes(value, RECORD, RECORD_MAX)
}

/// The value of a durable record. Bytes left over are an error.
pub fn decode_record<T: DeserializeOwned>(record: &[u8]) -> Result<T, DecodeError> {
    from_bytes(record, RECORD)
}

fn to_bytes<T: Serialize>(value: &T, config: impl Config, most: usize) -> Result<Vec<u8>, EncodeError> {
    let bytes = bincode::serde::encode_to_vec(value, config).map_err(|e| EncodeError(e.to_string()))?;
    if bytes.len() > most {
        return Err(EncodeError(format!("it has {} bytes; {most} are allowed", bytes.len())));
    }
    Ok(bytes)
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8], config: impl Config) -> Result<T, DecodeError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|e| DecodeError(e.to_string()))?;
    if used != bytes.len() {
        return Err(DecodeError(format!("{} bytes are left over", bytes.len() - used)));
    }
    Ok(value)
}

/// A whole frame, length and body.
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    let body = encode(message)?;
    let length = u32::try_from(body.len()).map_err(|e| EncodeError(e.to_string()))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

#[cfg(test)]
mod tests;
