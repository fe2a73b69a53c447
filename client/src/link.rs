//! The connection to the server: dials out, says hello, and dials again with growing, jittered pauses.

use std::time::Duration;

use sheaf_common::message::{Hello, Open, ServerMessage, SiteMessage};
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::connection::{Connection, Ended as EndedBy};
use sheaf_transport::dial::{ConnectError, Dialer, Link};
use sheaf_transport::frames::{self, FrameError};
use sheaf_transport::reload::Current;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// Shortest and longest pause between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// How long the reason for an end may be behind the end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the connection tells the daemon.
#[derive(Debug)]
pub enum Event {
    /// The server welcomed us; blobs move over this connection.
    Up(Connection),
    /// The server said something.
    Message(ServerMessage),
    /// The connection is gone.
    Down,
}

/// What ended a connection.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the server refused us: {0}")]
    Refused(String),
    #[error("the server said something out of turn")]
    OutOfTurn,
    #[error("certificate, key or authorities are new")]
    Renewed,
    #[error("{0}")]
    Closed(#[from] EndedBy),
}

/// Keeps a connection to what `dialer` reaches up until `outbox` is closed. What waits in the outbox while there is none is dropped: the
/// server asks again.
pub async fn keep(
    dialer: Dialer,
    mut credentials: Current,
    events: mpsc::Sender<Event>,
    mut outbox: mpsc::Receiver<SiteMessage>,
) {
    let mut pause = BACKOFF.0;
    loop {
        let ours = credentials.borrow_and_update().clone();
        let ended = match dialer.connect(&ours).await {
            Ok(link) => {
                let ended = tokio::select! {
                    ended = talk(&link, &events, &mut outbox, &mut pause) => ended,
                    Ok(()) = credentials.changed() => Err(Ended::Renewed),
                };
                let ended = match ended {
                    Err(Ended::Frame(error)) => Err(explained(error, &link).await),
                    ended => ended,
                };
                link.close().await;
                if events.send(Event::Down).await.is_err() {
                    return;
                }
                ended
            }
            Err(error) => Err(error.into()),
        };
        let Err(why) = ended else { return };
        let wait = jittered(pause);
        warn!(%why, "not connected; trying again in {}", humantime::format_duration(wait));
        tokio::select! {
            closed = sleep_unless_closed(wait, &mut outbox) => if closed { return },
            // What was refused may not be with another certificate.
            Ok(()) = credentials.changed() => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// The connection's own word on why it ended says more than the stream's, and may be a moment behind it.
async fn explained(error: FrameError, link: &Link) -> Ended {
    match tokio::time::timeout(LAST_WORD, link.connection.closed()).await {
        Ok(why) => Ended::Closed(why),
        Err(_) => Ended::Frame(error),
    }
}

/// Speaks over one connection. `Ok` means that we are done with it.
async fn talk(
    link: &Link,
    events: &mpsc::Sender<Event>,
    outbox: &mut mpsc::Receiver<SiteMessage>,
    pause: &mut Duration,
) -> Result<(), Ended> {
    let (mut send, mut recv) = link.connection.open_bi().await?;
    // Control messages go before bulk.
    send.set_priority(10);
    let software = concat!("sheaf-client ", env!("CARGO_PKG_VERSION")).to_owned();
    frames::write(&mut send, &Open::Site(Hello { protocol: PROTOCOL_VERSION, software })).await?;
    match frames::read(&mut recv).await? {
        ServerMessage::Welcome { federation, software } => {
            let transport = link.connection.transport();
            info!(%federation, %software, %transport, "connected");
        }
        ServerMessage::Refused(why) => return Err(Ended::Refused(why)),
        ServerMessage::Train(_)
        | ServerMessage::Evaluate(_)
        | ServerMessage::Secure { .. }
        | ServerMessage::Rejected { .. }
        | ServerMessage::Announce { .. }
        | ServerMessage::Certificate(_)
        | ServerMessage::Over(_) => return Err(Ended::OutOfTurn),
    }
    *pause = BACKOFF.0;
    while outbox.try_recv().is_ok() {}
    if events.send(Event::Up(link.connection.clone())).await.is_err() {
        return Ok(());
    }
    let reader = async {
        loop {
            let message = frames::read(&mut recv).await?;
            if events.send(Event::Message(message)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writer = async {
        while let Some(message) = outbox.recv().await {
            frames::write(&mut send, &message).await?;
        }
        debug!("saying good-bye");
        Ok(())
    };
    tokio::select! { result = reader => result, result = writer => result }
}

/// Waits; `true` when there is nothing left to wait for.
async fn sleep_unless_closed(wait: Duration, outbox: &mut mpsc::Receiver<SiteMessage>) -> bool {
    let closed = async { while outbox.recv().await.is_some() {} };
    tokio::select! { () = tokio::time::sleep(wait) => false, () = closed => true }
}

/// Between half and all of `pause`, so that the sites of a federation do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let wait = pause.mul_f64(rand::random_range(0.5..=1.0));
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
