//! The connection of one who knocks without a certificate: one stream, few words, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use sheaf_common::enrolment::{Enroll, EnrollReply};
use sheaf_common::id::ClientId;
use sheaf_common::secagg::secret::Secret;
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::connection::{Connection, RecvStream, SendStream};
use sheaf_transport::frames::{self, FrameError};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::connection::{Context, Event, SOFTWARE};
use crate::server::now;

/// A stranger must say what it wants within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one whose request waits for an operator may stay silent, and how seldom it is answered.
const WAITING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));

/// Longest certificate signing request.
const REQUEST_MAX: usize = 16 << 10;

/// A token that is shown.
#[derive(Debug)]
pub struct Shown {
    /// Where from.
    pub(crate) address: SocketAddr,
    /// For which site.
    pub(crate) site: ClientId,
    /// The token's secret.
    pub(crate) secret: Secret,
    /// Certificate signing request, DER.
    pub(crate) request: Vec<u8>,
}

/// Serves a connection under the protocol of enrolment to its end.
pub(crate) async fn serve(context: &Context, connection: Connection) {
    let address = connection.remote_address();
    if !context.admits(address.ip(), now()) {
        warn!(%address, "enrolment: too many attempts");
        return connection.close(5, "too many attempts: wait a minute");
    }
    let talk = async {
        let (send, recv) = timeout(PATIENCE, connection.accept_bi()).await.ok()?.ok()?;
        talk(context, address, send, recv)
            .await
            .inspect_err(|error| debug!(%address, %error, "enrolment"))
            .ok()
    };
    if talk.await.is_some() {
        // What was said last must arrive before the connection goes; it goes in any case.
        let _ = timeout(PATIENCE, connection.closed()).await;
    }
    connection.close(0, "that is all");
}

async fn talk(
    context: &Context,
    address: SocketAddr,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), FrameError> {
    let refuse = |why: String| {
        warn!(%address, %why, "enrolment refused");
        EnrollReply::Refused(why)
    };
    let first = listen(&mut recv, PATIENCE).await?;
    let reply = match first {
        Enroll::Hello(hello) if hello.protocol == PROTOCOL_VERSION => {
            EnrollReply::Welcome(context.credentials().authorities())
        }
        Enroll::Hello(hello) => refuse(format!(
            "this program speaks protocol {}, the server ({SOFTWARE}) speaks {PROTOCOL_VERSION}: install the same version",
            hello.protocol
        )),
        Enroll::Present { .. } => refuse("say hello first".into()),
    };
    frames::write(&mut send, &reply).await?;
    if matches!(reply, EnrollReply::Refused(_)) {
        return Ok(());
    }
    let mut patience = PATIENCE;
    loop {
        let reply = match listen(&mut recv, patience).await? {
            Enroll::Present { request, .. } if request.len() > REQUEST_MAX => {
                refuse(format!("the certificate signing request is longer than {REQUEST_MAX} bytes"))
            }
            Enroll::Present { site, secret, request } => {
                let (sender, receiver) = oneshot::channel();
                let shown = Shown { address, site, secret, request };
                if context.events.send(Event::Enroll(shown, sender)).await.is_err() {
                    return Ok(());
                }
                let Ok(reply) = receiver.await else { return Ok(()) };
                reply
            }
            Enroll::Hello(_) => refuse("hello was said already".into()),
        };
        if reply == EnrollReply::Pending {
            patience = WAITING.0;
            tokio::time::sleep(WAITING.1).await;
        }
        frames::write(&mut send, &reply).await?;
        if reply != EnrollReply::Pending {
            return Ok(());
        }
    }
}

async fn listen(recv: &mut RecvStream, patience: Duration) -> Result<Enroll, FrameError> {
    // Who stays silent is done with.
    timeout(patience, frames::read(recv)).await.unwrap_or(Err(FrameError::Closed))
}
