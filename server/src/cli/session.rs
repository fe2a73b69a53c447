//! A connection on which questions are asked and answered.

use std::time::Duration;

use serde::Serialize;
use sheaf_common::id::Federation;
use sheaf_common::message::{Hello, Open, Reply};
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::authority::NotOurs;
use sheaf_transport::connection::{Connection, Ended, RecvStream, SendStream};
use sheaf_transport::dial::{ConnectError, Dialer, Link};
use sheaf_transport::frames::{self, FrameError};
use sheaf_transport::transfer::TransferError;
use tokio::time::timeout;

use super::settings::Settings;

/// The server has so long for an answer, none of which needs more than a look into its database.
const PATIENCE: Duration = Duration::from_secs(30);

/// A question could not be asked, or the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection.
    #[error(transparent)]
    Connect(ConnectError),
    /// The server does not show a certificate of our federation.
    #[error(
        "{0}; compare your certificate, the server's and ca.crt with `sheaf pki show`: all must be of one federation, and valid"
    )]
    Distrust(ConnectError),
    /// The server does not accept our certificate.
    #[error("the server does not accept your certificate: {0}")]
    Certificate(&'static str),
    /// Our key cannot sign.
    #[error("the run cannot be signed with your certificate's key: {0}")]
    Key(NotOurs),
    /// The server does not want to talk.
    #[error("the server refused the connection: {0}")]
    Unwelcome(String),
    /// The answer is no.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the connection to the server was lost: {0}")]
    Lost(String),
    /// No answer came.
    #[error("the server did not answer within {} seconds: is it overloaded?", .0.as_secs())]
    Silent(Duration),
    /// The server speaks another language.
    #[error(
        "the server answered something else than was asked: do `sheaf` and `sheaf-server` have the same version?"
    )]
    OutOfTurn,
    /// Files did not move.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

impl SessionError {
    /// Whether it may be gone when one tries again, as when a server restarts.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => {
                matches!(error, ConnectError::NoAnswer { .. } | ConnectError::Resolve { .. })
            }
            Self::Lost(_) | Self::Silent(_) => true,
            Self::Transfer(error) => matches!(error, TransferError::Lost { .. }),
            Self::Distrust(_)
            | Self::Certificate(_)
            | Self::Key(_)
            | Self::Unwelcome(_)
            | Self::Refused(_)
            | Self::OutOfTurn => false,
        }
    }
}

/// An operator's connection.
pub struct Session {
    link: Link,
    send: SendStream,
    recv: RecvStream,
    federation: Federation,
    patience: Duration,
}

impl Session {
    /// Connects, and says hello.
    pub async fn open(settings: &Settings) -> Result<Self, SessionError> {
        let dialer = Dialer::new(settings.server.clone(), settings.network.clone());
        let link = dialer.connect(&settings.credentials).await.map_err(refused)?;
        let (send, recv) = link.connection.open_bi().await.map_err(ended)?;
        let federation = settings.credentials.identity.federation.clone();
        let mut session = Self { link, send, recv, federation, patience: PATIENCE };
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            software: concat!("sheaf ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let expect = |reply| {
            if let Reply::Welcome { federation, .. } = reply { Some(federation) } else { None }
        };
        match session.ask(&Open::Operator(hello), expect).await {
            Ok(federation) if federation == session.federation => Ok(session),
            Ok(other) => Err(SessionError::Unwelcome(format!("it serves federation {other}, not yours"))),
            Err(SessionError::Refused(why)) => Err(SessionError::Unwelcome(why)),
            Err(error) => Err(error),
        }
    }

    /// The same with another limit to the wait for an answer.
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks (a [`Request`](sheaf_common::message::Request)), and picks the expected answer out of the reply.
    pub async fn ask<T>(
        &mut self,
        request: &impl Serialize,
        expect: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, SessionError> {
        let reply = self.exchange(request).await?;
        if let Reply::Refused(why) = reply {
            return Err(SessionError::Refused(why));
        }
        expect(reply).ok_or(SessionError::OutOfTurn)
    }

    /// The connection, for files.
    pub(super) fn connection(&self) -> &Connection {
        &self.link.connection
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.link.close().await;
    }

    async fn exchange(&mut self, message: &impl Serialize) -> Result<Reply, SessionError> {
        let exchange = async {
            frames::write(&mut self.send, message).await?;
            frames::read(&mut self.recv).await
        };
        match timeout(self.patience, exchange).await {
            Err(_) => Err(SessionError::Silent(self.patience)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error @ (FrameError::Closed | FrameError::Lost(_)))) => {
                Err(self.link.connection.close_reason().map_or_else(|| lost(&error), ended))
            }
            Ok(Err(FrameError::TooLong(_) | FrameError::Decode(_) | FrameError::Encode(_))) => {
                Err(SessionError::OutOfTurn)
            }
        }
    }
}

fn refused(error: ConnectError) -> SessionError {
    if matches!(error, ConnectError::Refused { .. }) {
        SessionError::Distrust(error)
    } else {
        SessionError::Connect(error)
    }
}

fn lost(why: impl std::fmt::Display) -> SessionError {
    SessionError::Lost(why.to_string())
}

/// Why the server ended the connection.
fn ended(why: Ended) -> SessionError {
    why.about_our_certificate().map_or_else(|| lost(&why), SessionError::Certificate)
}
