//! The operator: the command line's own connection, with the questions that a simulation asks.

use sheaf_common::id::RunId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::{RunStatus, SiteStatus};
use sheaf_server::cli::{Session, Settings, submit};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::network::{Choice, Network};
use sheaf_transport::tls::{CredentialPaths, Credentials};

use super::{Live, QuicError};
use crate::identity::IdentityError;
use crate::rounds::Traffic;

/// A connection to the server.
pub(super) struct Operator {
    settings: Settings,
    session: Session,
}

impl Operator {
    pub(super) async fn connect(server: &str, paths: &CredentialPaths) -> Result<Self, QuicError> {
        let settings = Settings {
            server: server.to_owned(),
            credentials: Credentials::load(paths).map_err(IdentityError::from)?,
            network: Network { transport: Choice::Quic, ..Network::default() },
        };
        let session = Session::open(&settings).await?;
        Ok(Self { settings, session })
    }

    /// Whether the run is at the server, from before an interruption.
    pub(super) async fn has_run(&mut self) -> Result<bool, QuicError> {
        let runs = |reply| if let Reply::Runs(runs) = reply { Some(runs) } else { None };
        Ok(!self.session.ask(&Request::Runs, runs).await?.is_empty())
    }

    pub(super) async fn sites(&mut self) -> Result<Vec<SiteStatus>, QuicError> {
        let sites = |reply| if let Reply::Sites(sites) = reply { Some(sites) } else { None };
        Ok(self.session.ask(&Request::Sites, sites).await?)
    }

    /// Bytes of blobs that went either way since the server started.
    pub(super) async fn sent(&mut self) -> Result<Traffic, QuicError> {
        let mut sent = Traffic::default();
        for site in self.sites().await? {
            sent += Traffic { up: site.bytes_up, down: site.bytes_down };
        }
        Ok(sent)
    }

    /// Has the server know the run's imported model, if it has one, and queues the run. The model's files are links to those that the
    /// simulation has: nothing is sent to a server on the same disk.
    pub(super) async fn submit(&mut self, live: &Live<'_>, blobs: &BlobDir) -> Result<(), QuicError> {
        if let Some(base) = live.examples.base() {
            for (blob, _) in base.files() {
                if !blobs.link(live.blobs, blob)? {
                    return Err(BlobError::Missing(blob).into());
                }
            }
            let info = base.info();
            let request = Request::ImportModel { name: info.name.clone(), manifest: info.manifest };
            let imported = |reply| if let Reply::Imported(info) = reply { Some(info) } else { None };
            self.session.ask(&request, imported).await?;
        }
        let setting = live.setting;
        let (file, text) = (setting.simulation.run.display().to_string(), setting.run_text.clone());
        submit(&self.settings, &setting.spec, |author| Request::Submit { file, text, author }).await?;
        Ok(())
    }

    pub(super) async fn status(&mut self, run: &RunId) -> Result<RunStatus, QuicError> {
        let status = |reply| if let Reply::Run(status) = reply { Some(*status) } else { None };
        Ok(self.session.ask(&Request::Run(run.clone()), status).await?)
    }
}
