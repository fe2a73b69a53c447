//! The server and the clients, for as long as there is something to do.

use sheaf_client::client;
use sheaf_client::config::SiteConfig;
use sheaf_client::session::Entropy;
use sheaf_client::worker::Perform;
use sheaf_server::server::{Server, ServerError};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::QuicError;

/// Everybody, at work.
pub(super) struct Parties {
    /// Until its end was seen.
    server: Option<JoinHandle<Result<(), ServerError>>>,
    server_stops: watch::Sender<bool>,
    /// What comes of each is its name.
    clients: JoinSet<Result<String, QuicError>>,
    clients_stop: watch::Sender<bool>,
}

impl Parties {
    /// The server alone.
    pub(super) fn start(server: Server) -> Self {
        let (server_stops, stops) = watch::channel(false);
        let server = Some(tokio::spawn(server.run(until(stops))));
        Self { server, server_stops, clients: JoinSet::new(), clients_stop: watch::Sender::new(false) }
    }

    /// One more client.
    pub(super) fn join(&mut self, config: SiteConfig, perform: Perform, entropy: Entropy) {
        let stops = self.clients_stop.subscribe();
        self.clients.spawn(async move {
            let name =
                config.identity.certificate.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match client::run_by(config, Some(perform), entropy, until(stops)).await {
                Ok(()) => Ok(name),
                Err(error) => Err(QuicError::Client(name, error)),
            }
        });
    }

    /// Whether everybody is still at it; the first who is not is the reason.
    pub(super) async fn check(&mut self) -> Result<(), QuicError> {
        if let Some(server) = self.server.take_if(|server| server.is_finished()) {
            server.await.map_err(|error| QuicError::Stopped(error.to_string()))??;
            return Err(QuicError::Stopped("the server".into()));
        }
        match self.clients.try_join_next() {
            None => Ok(()),
            Some(Ok(ended)) => Err(ended.map_or_else(|error| error, QuicError::Stopped)),
            Some(Err(error)) => Err(QuicError::Stopped(error.to_string())),
        }
    }

    /// Stops the server, and only then the clients: a server that sees them leave goes on with the round without them.
    pub(super) async fn stop(mut self) {
        self.server_stops.send_replace(true);
        if let Some(server) = self.server.take() {
            // How it ends is of no interest any more, nor how the clients do.
            let _ = server.await;
        }
        self.clients_stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

/// Waits until it is said that all is over, or nobody is left to say it.
async fn until(mut stops: watch::Receiver<bool>) {
    let _ = stops.wait_for(|stops| *stops).await;
}
