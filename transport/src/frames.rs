//! Control messages on a stream: a length, checked before anything is allocated, and a body.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_common::wire::{self, DecodeError, EncodeError, FRAME_MAX};

use crate::connection::{Lost, RecvStream, SendStream};

/// A frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended where a frame would start.
    #[error("the peer closed the stream")]
    Closed,
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Lost(#[from] Lost),
    /// The peer announced more than a frame may hold.
    #[error("the peer announced a frame of {0} bytes; at most {FRAME_MAX} are allowed")]
    TooLong(u32),
    /// The body is no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Our own message does not fit.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Sends one message.
pub async fn write<T: Serialize>(stream: &mut SendStream, message: &T) -> Result<(), FrameError> {
    Ok(stream.write_chunk(wire::frame(message)?.into()).await?)
}

/// Receives one message.
pub async fn read<T: DeserializeOwned>(stream: &mut RecvStream) -> Result<T, FrameError> {
    let mut length = [0; 4];
    match stream.read_full(&mut length).await? {
        4 => {}
        0 => return Err(FrameError::Closed),
        _ => return Err(cut()),
    }
    let length = u32::from_le_bytes(length);
    let size = length as usize;
    if size > FRAME_MAX {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0; size];
    if stream.read_full(&mut body).await? < size {
        return Err(cut());
    }
    Ok(wire::decode(&body)?)
}

fn cut() -> FrameError {
    Lost("the stream ended within a message".into()).into()
}
