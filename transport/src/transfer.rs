//! Moving blobs over streams of their own: both ends of `Open::Get` and `Open::Put`.
//!
//! Either direction resumes at the offset that the receiver has; the receiver verifies the hash before the blob
//! gets its name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use sheaf_common::blob::BlobId;
use sheaf_common::message::{BlobReply, Open};
use tokio::time::timeout;

use crate::blobs::{BlobDir, BlobError, BlobWriter};
use crate::connection::{Connection, Lost, RecvStream, SendStream, Share};
use crate::frames;
use crate::pace::{Pace, Way};

/// A transfer of which nothing comes for so long is given up: it holds a file open.
const STALL: Duration = Duration::from_secs(60);

/// A transfer did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection is gone; try again when it is back.
    #[error("the transfer of blob {blob} broke off: {why}")]
    Lost {
        /// The blob.
        blob: BlobId,
        /// Why.
        why: String,
    },
    /// The peer refuses.
    #[error("the peer refuses blob {blob}: {why}")]
    Refused {
        /// The blob.
        blob: BlobId,
        /// Why.
        why: String,
    },
    /// Our disk, or a damaged transfer.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Told of bytes done and in all while a transfer goes on.
pub type OnProgress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Client: fetches `blob` of at most `max` bytes into `dir` unless it is there. Returns the bytes moved.
pub async fn fetch(
    connection: &Connection,
    dir: &BlobDir,
    blob: BlobId,
    max: u64,
    progress: OnProgress<'_>,
) -> Result<u64, TransferError> {
    if dir.length(blob).is_some() {
        return Ok(0);
    }
    connection.pace().open().await;
    let mut writer = resume(dir, blob, "fetch").await.map_err(|e| passing(e, blob))?;
    let offset = writer.length();
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| lost(blob, e))?;
    frames::write(&mut send, &Open::Get { blob, offset }).await.map_err(|e| lost(blob, e))?;
    let length = match frames::read(&mut recv).await.map_err(|e| lost(blob, e))? {
        BlobReply::Found { length } if length <= max => length,
        BlobReply::Found { length } => {
            return Err(refused(blob, format!("it has {length} bytes where at most {max} were expected")));
        }
        BlobReply::Refused(why) => return Err(refused(blob, why)),
        BlobReply::Send { .. } | BlobReply::Stored | BlobReply::Busy => {
            return Err(refused(blob, "it answered out of turn".into()));
        }
    };
    let share = &mut Share::default();
    receive(&mut recv, &mut writer, blob, length, share, connection.pace(), progress).await?;
    finish(dir, writer, blob).await.map_err(|e| passing(e, blob))?;
    Ok(length.saturating_sub(offset))
}

/// Client: gives the blob in `dir` to the server unless it has it. Returns the bytes moved.
pub async fn put(
    connection: &Connection,
    dir: &BlobDir,
    blob: BlobId,
    progress: OnProgress<'_>,
) -> Result<u64, TransferError> {
    let file = dir.reader(blob)?;
    put_file(connection, file, blob, progress).await
}

/// Client: gives the content of `file`, whose hash is `blob`, to the server unless it has it.
pub async fn put_file(
    connection: &Connection,
    file: File,
    blob: BlobId,
    progress: OnProgress<'_>,
) -> Result<u64, TransferError> {
    connection.pace().open().await;
    let length = file.metadata().map_err(|e| lost(blob, e))?.len();
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| lost(blob, e))?;
    frames::write(&mut send, &Open::Put { blob, length }).await.map_err(|e| lost(blob, e))?;
    let offset = match frames::read(&mut recv).await.map_err(|e| lost(blob, e))? {
        BlobReply::Stored => return Ok(0),
        BlobReply::Send { offset } => offset,
        BlobReply::Busy => return Err(passing(BlobError::Busy(blob), blob)),
        BlobReply::Refused(why) => return Err(refused(blob, why)),
        BlobReply::Found { .. } => return Err(refused(blob, "it answered out of turn".into())),
    };
    if offset > length {
        return Err(lost(blob, format!("it goes on from {offset}, but there are {length} bytes")));
    }
    let share = &mut Share::default();
    send_from(&mut send, file, blob, (offset, length), share, connection.pace(), progress).await?;
    match frames::read(&mut recv).await.map_err(|e| lost(blob, e))? {
        BlobReply::Stored => Ok(length.saturating_sub(offset)),
        BlobReply::Refused(why) => Err(refused(blob, why)),
        BlobReply::Busy => Err(passing(BlobError::Busy(blob), blob)),
        BlobReply::Found { .. } | BlobReply::Send { .. } => {
            Err(refused(blob, "it answered out of turn".into()))
        }
    }
}

/// Server: answers an allowed `Get`. Returns the bytes sent.
pub async fn serve_get(
    send: &mut SendStream,
    dir: &BlobDir,
    blob: BlobId,
    offset: u64,
    share: &mut Share,
) -> Result<u64, TransferError> {
    let Some(length) = dir.length(blob) else {
        return refuse(send, blob, "it is not here".into()).await;
    };
    if offset > length {
        return refuse(send, blob, format!("it ends at {length}, before {offset}")).await;
    }
    let file = dir.reader(blob)?;
    frames::write(send, &BlobReply::Found { length }).await.map_err(|e| lost(blob, e))?;
    send_from(send, file, blob, (offset, length), share, &Pace::default(), &mut |_, _| {}).await?;
    Ok(length - offset)
}

/// Server: takes in a blob by an allowed `Put` of `sender`. Returns the bytes received.
pub async fn serve_put(
    send: &mut SendStream,
    recv: &mut RecvStream,
    dir: &BlobDir,
    sender: &str,
    blob: BlobId,
    length: u64,
    share: &mut Share,
) -> Result<u64, TransferError> {
    if dir.length(blob).is_some() {
        dir.refresh(blob)?;
        frames::write(send, &BlobReply::Stored).await.map_err(|e| lost(blob, e))?;
        return Ok(0);
    }
    let mut writer = match resume(dir, blob, sender).await {
        Err(error @ BlobError::Busy(_)) => {
            frames::write(send, &BlobReply::Busy).await.map_err(|e| lost(blob, e))?;
            return Err(passing(error, blob));
        }
        writer => writer?,
    };
    let offset = writer.length();
    frames::write(send, &BlobReply::Send { offset }).await.map_err(|e| lost(blob, e))?;
    receive(recv, &mut writer, blob, length, share, &Pace::default(), &mut |_, _| {}).await?;
    match finish(dir, writer, blob).await {
        Ok(()) => {
            frames::write(send, &BlobReply::Stored).await.map_err(|e| lost(blob, e))?;
            Ok(length.saturating_sub(offset))
        }
        // Also when the disk is full: somebody will have an eye on it.
        Err(error @ (BlobError::Changed(_) | BlobError::Io { .. })) => {
            frames::write(send, &BlobReply::Busy).await.map_err(|e| lost(blob, e))?;
            Err(passing(error, blob))
        }
        Err(error) => refuse(send, blob, error.to_string()).await,
    }
}

/// Server: refuses a blob stream, to the peer and to the caller.
pub async fn refuse(send: &mut SendStream, blob: BlobId, why: String) -> Result<u64, TransferError> {
    frames::write(send, &BlobReply::Refused(why.clone())).await.map_err(|e| lost(blob, e))?;
    // The peer may have gone already, which changes nothing.
    let _ = send.finish().await;
    Err(refused(blob, why))
}

/// Reads the stream to its end into `writer`, which must then hold exactly `length` bytes.
async fn receive(
    recv: &mut RecvStream,
    writer: &mut BlobWriter,
    blob: BlobId,
    length: u64,
    share: &mut Share,
    pace: &Pace,
    progress: OnProgress<'_>,
) -> Result<(), TransferError> {
    // Small reads are gathered first: hashing and writing are fast only on large pieces.
    let (offset, mut buffer, mut filled) = (writer.length(), Vec::new(), 0);
    loop {
        if filled == 0 {
            // One byte more than is due, so that one too many is seen.
            let due = length.saturating_sub(writer.length()).saturating_add(1);
            let most = pace.piece(Way::Down, share.piece(writer.length() - offset));
            buffer.resize(usize::try_from(due).unwrap_or(most).min(most), 0);
        }
        let read = timeout(STALL, recv.read(&mut buffer[filled..])).await;
        let read = read.unwrap_or_else(|_| Err(Lost("nothing came for a minute".into())));
        filled += read.as_ref().ok().and_then(|read| *read).unwrap_or(0);
        let more = matches!(read, Ok(Some(_)));
        if filled == buffer.len() || !more {
            if writer.length() + filled as u64 > length {
                writer.discard();
                return Err(lost(blob, format!("more than the announced {length} bytes came")));
            }
            writer.write(&buffer[..filled])?;
            pace.take(Way::Down, filled).await;
            filled = 0;
            progress(writer.length(), length);
        }
        if let Err(error) = read {
            return Err(lost(blob, error));
        }
        if !more {
            break;
        }
    }
    if writer.length() < length {
        return Err(lost(blob, format!("{} of {length} bytes came", writer.length())));
    }
    Ok(())
}

/// Goes on with an arrival. What came before is read again, which may be much.
async fn resume(dir: &BlobDir, blob: BlobId, sender: &str) -> Result<BlobWriter, BlobError> {
    let (here, sender) = (dir.clone(), sender.to_owned());
    at_disk(dir, blob, move || here.resume(blob, &sender)).await
}

/// Makes what arrived durable.
async fn finish(dir: &BlobDir, writer: BlobWriter, blob: BlobId) -> Result<(), BlobError> {
    at_disk(dir, blob, move || writer.finish_as(blob)).await
}

/// The disk takes its time, which the threads that move bytes do not have.
async fn at_disk<T: Send + 'static>(
    dir: &BlobDir,
    blob: BlobId,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    if !dir.waits() {
        return work();
    }
    let stopping = |error| BlobError::Io {
        what: "store",
        path: blob.to_string().into(),
        source: std::io::Error::other(error),
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(stopping(error)))
}

/// Writes a file's bytes from `offset` on and finishes the stream.
async fn send_from(
    send: &mut SendStream,
    mut file: File,
    blob: BlobId,
    (offset, length): (u64, u64),
    share: &mut Share,
    pace: &Pace,
    progress: OnProgress<'_>,
) -> Result<(), TransferError> {
    file.seek(SeekFrom::Start(offset)).map_err(|e| lost(blob, e))?;
    let mut done = offset;
    loop {
        let most = pace.piece(Way::Up, share.piece(done - offset));
        let mut chunk = Vec::with_capacity(most.min(usize::try_from(length - done).unwrap_or(most)));
        let read = (&mut file).take(most as u64).read_to_end(&mut chunk).map_err(|e| lost(blob, e))?;
        if read == 0 {
            break;
        }
        pace.take(Way::Up, read).await;
        send.write_chunk(chunk.into()).await.map_err(|e| lost(blob, e))?;
        done = (done + read as u64).min(length);
        progress(done, length);
    }
    send.finish().await.map_err(|e| lost(blob, e))
}

/// An arrival that another is in the way of is tried again, like one that broke off.
fn passing(error: BlobError, blob: BlobId) -> TransferError {
    match error {
        BlobError::Busy(_) | BlobError::Changed(_) => lost(blob, error),
        BlobError::Io { .. } | BlobError::Mismatch { .. } | BlobError::Missing(_) => error.into(),
    }
}

fn lost(blob: BlobId, why: impl std::fmt::Display) -> TransferError {
    TransferError::Lost { blob, why: why.to_string() }
}

fn refused(blob: BlobId, why: String) -> TransferError {
    TransferError::Refused { blob, why }
}
