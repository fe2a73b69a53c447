//! How a control message becomes bytes: the one file that names bincode.
//!
//! A frame is a `u32` little-endian length and that many bytes of body. The length is checked against
//! [`FRAME_MAX`] before anything is allocated, and the decoder is bounded by the same limit, so that no length
//! inside a body can make it allocate more. Golden bytes in the tests pin the format.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Longest body of a control message, in bytes.
pub const FRAME_MAX: usize = 1 << 20;

/// Version of the control protocol, said in the first message of either side.
pub const PROTOCOL_VERSION: u32 = 1;

const CONFIG: Configuration<LittleEndian, Varint, Limit<FRAME_MAX>> =
    config::standard().with_limit::<FRAME_MAX>();

/// The message cannot be sent: it is longer than [`FRAME_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("a control message does not fit a frame of {FRAME_MAX} bytes: {0}")]
pub struct EncodeError(String);

/// The bytes are not a message of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("the peer sent bytes that are no control message of protocol version {PROTOCOL_VERSION}: {0}")]
pub struct DecodeError(String);

/// The body of a frame for `message`.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    let body = bincode::serde::encode_to_vec(message, CONFIG).map_err(|e| EncodeError(e.to_string()))?;
    if body.len() > FRAME_MAX {
        return Err(EncodeError(format!("it has {}", body.len())));
    }
    Ok(body)
}

/// The message in the body of a frame. Bytes left over are an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let (message, used) =
        bincode::serde::decode_from_slice(body, CONFIG).map_err(|e| DecodeError(e.to_string()))?;
    if used != body.len() {
        return Err(DecodeError(format!("{} bytes are left over", body.len() - used)));
    }
    Ok(message)
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
