//! What a site and a server do over a connection, without rounds: blobs, and a word now and then.

use std::time::Duration;

use sheaf_common::blob::BlobId;
use sheaf_common::message::{Hello, Open};
use sheaf_common::wire::PROTOCOL_VERSION;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::blobs::BlobDir;
use crate::connection::{Connection, RecvStream, SendStream, Share};
use crate::durable::Outlive;
use crate::frames::{self, FrameError};
use crate::transfer::{self, TransferError};

/// Time between two words.
const PAUSE: Duration = Duration::from_millis(100);

/// Blobs that go when the value goes.
pub(super) struct Blobs {
    pub(super) dir: BlobDir,
    _folder: TempDir,
}

impl Blobs {
    pub(super) fn new() -> Self {
        // What is tried here is the network: a thread that waits for a disk would do so outside of the clock.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = BlobDir::open_to(Outlive::Program, folder.path().join("blobs")).unwrap();
        Self { dir, _folder: folder }
    }
}

/// The server's side of one connection, to its end.
pub(super) async fn serve(connection: Connection, blobs: BlobDir) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            // What a cut connection breaks off is asked for again.
            let _ = answer(send, recv, &blobs).await;
        });
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream, blobs: &BlobDir) -> Result<(), TransferError> {
    match frames::read(&mut recv).await {
        Ok(Open::Get { blob, offset }) => {
            transfer::serve_get(&mut send, blobs, blob, offset, &mut Share::default()).await?;
            send.stopped().await;
        }
        Ok(Open::Put { blob, length }) => {
            transfer::serve_put(&mut send, &mut recv, blobs, "site.a", blob, length, &mut Share::default())
                .await?;
        }
        Ok(Open::Site(_)) => {
            send.set_priority(10);
            while let Ok(word) = frames::read::<u64>(&mut recv).await {
                if frames::write(&mut send, &word).await.is_err() {
                    break;
                }
            }
        }
        Ok(Open::Operator(_)) | Err(_) => {}
    }
    Ok(())
}

/// What a site has to get and to give.
pub(super) struct Load {
    pub(super) fetch: BlobId,
    pub(super) put: BlobId,
}

/// Moves both blobs at once. Speaks meanwhile, and returns the longest wait for an answer.
pub(super) async fn work(
    connection: &Connection,
    blobs: &BlobDir,
    load: &Load,
) -> Result<Duration, TransferError> {
    let mut longest = Duration::ZERO;
    let bulk = async {
        let (mut down, mut up) = (|_, _| {}, |_, _| {});
        let fetched = transfer::fetch(connection, blobs, load.fetch, u64::MAX, &mut down);
        let put = transfer::put(connection, blobs, load.put, &mut up);
        tokio::try_join!(fetched, put)
    };
    let moved = tokio::select! {
        moved = bulk => moved,
        error = speak(connection, &mut longest) => Err(TransferError::Lost { blob: load.put, why: error.to_string() }),
    };
    moved.map(|_| longest)
}

/// Says a word and waits for it to come back, again and again.
async fn speak(connection: &Connection, longest: &mut Duration) -> FrameError {
    let talk = async {
        let (mut send, mut recv) =
            connection.open_bi().await.map_err(|ended| crate::connection::Lost(ended.to_string()))?;
        send.set_priority(10);
        let hello = Hello { protocol: PROTOCOL_VERSION, software: "simulated".into() };
        frames::write(&mut send, &Open::Site(hello)).await?;
        for word in 0u64.. {
            let said = Instant::now();
            frames::write(&mut send, &word).await?;
            assert_eq!(frames::read::<u64>(&mut recv).await?, word);
            *longest = (*longest).max(said.elapsed());
            sleep(PAUSE).await;
        }
        Ok(())
    };
    match talk.await {
        Err(error) => error,
        Ok(()) => FrameError::Closed,
    }
}
