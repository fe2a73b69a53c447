//! A site that does what a test says, over the real protocol: to see what the server makes of mischief.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sheaf_client::party::SiteParty;
use sheaf_common::blob::BlobId;
use sheaf_common::id::Role;
use sheaf_common::message::{Hello, Open, ServerMessage, SiteMessage, TaskId, TrainTask, Update};
use sheaf_common::params::to_bytes;
use sheaf_common::secagg::client::{Client, Expectation, Reaction};
use sheaf_common::secagg::mask::Masker;
use sheaf_common::secagg::message::Ask;
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::connection::{RecvStream, SendStream};
use sheaf_transport::dial::{Dialer, Link};
use sheaf_transport::frames;
use sheaf_transport::network::Network;
use sheaf_transport::reload::{self, Current};
use sheaf_transport::tls::Credentials;
use sheaf_transport::transfer;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::operator::credential_paths;

/// How far a site goes in a secure sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its keys are shared, and its vector stays.
    Keys,
    /// Its vector is in the sum, and its shares of others' keys stay.
    Vector,
    /// To the end.
    Whole,
}

/// A connection with a site's certificate.
pub struct ScriptedSite {
    credentials: Current,
    /// Its connection.
    pub link: Link,
    send: Arc<Mutex<SendStream>>,
    heard: mpsc::UnboundedReceiver<ServerMessage>,
    /// Ends with the site, and the connection with both.
    _listening: JoinSet<()>,
    blobs: BlobDir,
}

impl ScriptedSite {
    /// Connects and says hello.
    pub async fn connect(address: SocketAddr, pki: &Path, name: &str, state: &Path) -> Result<Self> {
        let paths = credential_paths(pki, Role::Site, name);
        let credentials = Credentials::load(&paths)?;
        let link = Dialer::new(address.to_string(), Network::default()).connect(&credentials).await?;
        let credentials = reload::follow(paths, credentials);
        let (mut send, mut recv) = link.connection.open_bi().await?;
        let hello = Hello { protocol: PROTOCOL_VERSION, software: "scripted".into() };
        frames::write(&mut send, &Open::Site(hello)).await?;
        let message = frames::read(&mut recv).await?;
        let ServerMessage::Welcome { .. } = message else { bail!("{message:?}") };
        let send = Arc::new(Mutex::new(send));
        let (sender, heard) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        listening.spawn(listen(recv, send.clone(), sender));
        Ok(Self { credentials, link, send, heard, _listening: listening, blobs: BlobDir::open(state)? })
    }

    /// Waits for a round's task.
    pub async fn task(&mut self) -> Result<TrainTask> {
        loop {
            if let ServerMessage::Train(task) = self.hear().await? {
                return Ok(*task);
            }
        }
    }

    /// Waits for the evaluation of the final model.
    pub async fn evaluation(&mut self) -> Result<TaskId> {
        loop {
            if let ServerMessage::Evaluate(task) = self.hear().await? {
                return Ok(task.id);
            }
        }
    }

    /// Waits for the server's next word.
    pub async fn hear(&mut self) -> Result<ServerMessage> {
        let message = tokio::time::timeout(crate::PATIENCE, self.heard.recv()).await;
        message.context("the server stays silent")?.context("the connection ended")
    }

    /// Says anything.
    pub async fn say(&mut self, message: &SiteMessage) -> Result<()> {
        Ok(frames::write(&mut *self.send.lock().await, message).await?)
    }

    /// Sends bytes that are no frame.
    pub async fn babble(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.send.lock().await.write_chunk(bytes.to_vec().into()).await?)
    }

    /// Gives values to the server as a blob.
    pub async fn put(&self, values: &[f32]) -> Result<BlobId> {
        self.put_bytes(&to_bytes(values)).await
    }

    async fn put_bytes(&self, bytes: &[u8]) -> Result<BlobId> {
        let blob = self.blobs.insert(bytes)?;
        transfer::put(&self.link.connection, &self.blobs, blob, &mut |_, _| {}).await?;
        Ok(blob)
    }

    /// Asks for a blob.
    pub async fn fetch(&self, blob: BlobId) -> Result<()> {
        transfer::fetch(&self.link.connection, &self.blobs, blob, u64::MAX, &mut |_, _| {}).await?;
        Ok(())
    }

    /// Adds `values` to a round's secure sum as an honest site does, as far as it goes.
    pub async fn take_part(&mut self, task: &TaskId, values: &[f32], part: Part) -> Result<()> {
        let party = SiteParty::new(self.credentials.clone());
        self.say(&SiteMessage::Ready(task.clone())).await?;
        let mut client = None;
        loop {
            let ServerMessage::Secure { ask, .. } = self.hear().await? else { continue };
            let last = matches!(ask, Ask::Unmask(_));
            if last && part != Part::Whole {
                return Ok(());
            }
            if let Ask::Advertise(params) = &ask {
                let params = (**params).clone();
                let expectation = Expectation {
                    params: params.clone(),
                    sites: None,
                    min_updates: 2,
                    released_with: Vec::new(),
                };
                client = Some(Client::join(params, &expectation, &party, rand::random())?);
            }
            let client = client.as_mut().context("the first question is not for keys")?;
            let answer = match client.handle(ask, &party)? {
                Reaction::Say(answer) => answer,
                Reaction::Mask | Reaction::Nothing if part == Part::Keys => return Ok(()),
                Reaction::Mask | Reaction::Nothing => {
                    let (params, plan) = client.plan().context("nothing to mask")?;
                    let (masker, mut vector) = (Masker::new(params, plan, 1), Vec::new());
                    let tally = masker.chunk(0, values, &mut vector)?;
                    vector.extend(masker.slots(&tally, 0.0, &[]));
                    let blob = self.put_bytes(&vector).await?;
                    client.masked(blob).context("the attempt is over")?
                }
            };
            self.say(&SiteMessage::Secure { task: task.clone(), answer }).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Says an update and returns why it was refused.
    pub async fn refusal(&mut self, update: Update) -> Result<String> {
        self.say(&SiteMessage::Update(Box::new(update))).await?;
        loop {
            if let ServerMessage::Rejected { reason, .. } = self.hear().await? {
                return Ok(reason);
            }
        }
    }
}

/// Passes on what the server says. The site stands by for every run that is announced, also when nobody listens.
async fn listen(
    mut recv: RecvStream,
    send: Arc<Mutex<SendStream>>,
    heard: mpsc::UnboundedSender<ServerMessage>,
) {
    while let Ok(message) = frames::read(&mut recv).await {
        let done = if let ServerMessage::Announce { run, .. } = message {
            let standby = SiteMessage::Standby { run, held: None };
            frames::write(&mut *send.lock().await, &standby).await.is_err()
        } else {
            heard.send(message).is_err()
        };
        if done {
            return;
        }
    }
}

/// An update that would be accepted if `delta` is at the server and sound.
pub fn update(task: &TrainTask, delta: BlobId) -> Update {
    Update {
        task: task.id.clone(),
        delta,
        num_examples: 48,
        train_loss: 0.5,
        global_metrics: None,
        local_metrics: None,
    }
}
