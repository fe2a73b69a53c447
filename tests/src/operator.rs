//! An operator's connection, as bare as the protocol: requests, replies, blobs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sheaf_common::author::{self, Author};
use sheaf_common::blob::BlobId;
use sheaf_common::id::{Role, RunId};
use sheaf_common::message::{Hello, Open, Reply, Request};
use sheaf_common::run::{ModelSource, RunSpec};
use sheaf_common::status::RunStatus;
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::connection::{RecvStream, SendStream};
use sheaf_transport::dial::{Dialer, Link};
use sheaf_transport::frames;
use sheaf_transport::network::Network;
use sheaf_transport::tls::{CredentialPaths, Credentials};
use sheaf_transport::transfer;

use crate::PATIENCE;

/// A connection with its control stream.
pub struct Operator {
    /// The connection, for blobs and for mischief.
    pub link: Link,
    credentials: Credentials,
    send: SendStream,
    recv: RecvStream,
}

impl Operator {
    /// Connects and says hello; an error is the server's refusal.
    pub async fn connect(address: SocketAddr, pki: &Path, role: Role, name: &str) -> Result<Self> {
        let credentials = Credentials::load(&credential_paths(pki, role, name))?;
        let link = Dialer::new(address.to_string(), Network::default()).connect(&credentials).await?;
        let (mut send, mut recv) = link.connection.open_bi().await?;
        let hello = Hello { protocol: PROTOCOL_VERSION, software: "test".into() };
        frames::write(&mut send, &Open::Operator(hello)).await?;
        let reply = frames::read(&mut recv).await?;
        let Reply::Welcome { .. } = reply else { bail!("{reply:?}") };
        Ok(Self { link, credentials, send, recv })
    }

    /// Asks and waits for the reply.
    pub async fn ask(&mut self, request: &Request) -> Result<Reply> {
        frames::write(&mut self.send, request).await?;
        Ok(frames::read(&mut self.recv).await?)
    }

    /// Submits a run.
    pub async fn submit(&mut self, text: &str) -> Result<RunId> {
        let reply = self.try_submit(text).await?;
        let Reply::Submitted { run, .. } = reply else { bail!("{reply:?}") };
        Ok(run)
    }

    /// Submits a run, signed as far as it can be understood, and waits for the reply.
    pub async fn try_submit(&mut self, text: &str) -> Result<Reply> {
        let (file, text) = ("run.toml".to_owned(), text.to_owned());
        let signed_at = sheaf_server::server::now();
        let statement = match RunSpec::parse(&file, &text) {
            Ok(spec) => author::statement(&spec, self.model_of(&spec).await?, signed_at),
            Err(_) => Vec::new(),
        };
        let author = Author {
            certificate: self.credentials.certificate(),
            signed_at,
            signature: self.credentials.sign(&statement)?.into(),
        };
        self.ask(&Request::Submit { file, text, author }).await
    }

    async fn model_of(&mut self, spec: &RunSpec) -> Result<Option<BlobId>> {
        let ModelSource::Imported(name) = &spec.model.source else { return Ok(None) };
        let Reply::Models(models) = self.ask(&Request::Models).await? else { bail!("no list of models") };
        Ok(models.into_iter().find(|model| model.name == *name).map(|model| model.manifest))
    }

    /// A run's status.
    pub async fn status(&mut self, run: &RunId) -> Result<RunStatus> {
        let reply = self.ask(&Request::Run(run.clone())).await?;
        let Reply::Run(status) = reply else { bail!("{reply:?}") };
        Ok(*status)
    }

    /// Looks at a run until it is as wanted.
    pub async fn wait_until(
        &mut self,
        run: &RunId,
        wanted: impl Fn(&RunStatus) -> bool,
    ) -> Result<RunStatus> {
        let start = Instant::now();
        loop {
            let status = self.status(run).await?;
            if wanted(&status) {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain; the run is {status:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the end of a run.
    pub async fn wait_for_end(&mut self, run: &RunId) -> Result<RunStatus> {
        self.wait_until(run, |status| status.summary.state.is_final()).await
    }

    /// The global parameters of a run's last completed round, through the front door.
    pub async fn export(&mut self, run: &RunId, into: &Path) -> Result<Vec<u8>> {
        let Reply::Export(plan) = self.ask(&Request::Export { run: run.clone(), round: None }).await? else {
            bail!("the export was refused");
        };
        self.fetch(plan.job.global, into).await
    }

    /// A blob that the server lets us have.
    pub async fn fetch(&self, blob: BlobId, into: &Path) -> Result<Vec<u8>> {
        let dir = BlobDir::open(into)?;
        transfer::fetch(&self.link.connection, &dir, blob, u64::MAX, &mut |_, _| {})
            .await
            .context("the blob was not given")?;
        Ok(dir.read(blob)?)
    }
}

/// Where `sheaf_server::pki` puts a party's files.
pub fn credential_paths(pki: &Path, role: Role, name: &str) -> CredentialPaths {
    CredentialPaths {
        certificate: pki.join(format!("{role}-{name}.crt")),
        key: pki.join(format!("{role}-{name}.key")),
        ca: pki.join("ca.crt"),
    }
}
