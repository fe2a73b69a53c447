//! One connection: who it is, its control stream, and its blob streams. Turns streams into [`Event`]s for
//! the server's loop and messages back into frames; decides nothing.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sheaf_common::enrolment::EnrollReply;
use sheaf_common::id::{ClientId, Federation, Identity, Name, Role};
use sheaf_common::message::{Hello, Open, Reply, Request, ServerMessage, SiteMessage, Update};
use sheaf_common::secagg::message::Answer;
use sheaf_common::secagg::server::Evidence;
use sheaf_common::time::Timestamp;
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_transport::authority::NotOurs;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::connection::{Connection, RecvStream, SendStream};
use sheaf_transport::frames::{self, FrameError};
use sheaf_transport::listener::Incoming;
use sheaf_transport::reload::Current;
use sheaf_transport::tls::{self, Credentials, is_enrolment, peer_identity};
use sheaf_transport::transfer::{self, TransferError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{Instrument, debug, error, info, warn};

use crate::aggregation::inspect;
use crate::core::Inspection;
use crate::enrolment::desk::{self, Shown};
use crate::enrolment::limit::Limiter;
use crate::registry::{Access, PeerId};
use crate::server::now;
use crate::throttle::Throttle;

/// Version of the programs, said in every welcome.
pub const SOFTWARE: &str = concat!("sheaf ", env!("CARGO_PKG_VERSION"));

/// A stranger must say what it wants within this time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Blobs that a peer may be sending at once; each takes a file and a buffer.
const UPLOADS: usize = 4;

/// Characters of a peer's own words that are kept.
const WORDS: usize = 500;

/// How long the clock is trusted to run at its pace.
const EXPIRY_PIECE: Duration = Duration::from_secs(3600);

/// Messages that may wait for a slow site before it is cut off.
const OUTBOX: usize = 64;

/// Something that a connection tells the server's loop.
#[derive(Debug)]
pub enum Event {
    /// A peer proved who it is.
    Opened(PeerId, Identity),
    /// A site asks in; says why it may not come.
    Knock(ClientId, oneshot::Sender<Result<(), String>>),
    /// A site's control stream is up.
    Joined(Joined),
    /// A site offers an update: is it worth a look?
    Offered(ClientId, Box<Update>, oneshot::Sender<bool>),
    /// A site said something; with what a look at what it names found.
    Message(PeerId, ClientId, SiteMessage, Finding),
    /// An operator or viewer asks.
    Request(PeerId, Identity, Request, oneshot::Sender<Reply>),
    /// A peer wants to move a blob.
    Access(PeerId, Access, oneshot::Sender<Result<(), String>>),
    /// Somebody without a certificate shows a token.
    Enroll(Shown, oneshot::Sender<EnrollReply>),
    /// Blob bytes that a peer fetched and sent.
    Moved(PeerId, u64, u64),
    /// The connection is gone.
    Closed(PeerId),
}

/// What a look at what a message names found.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Of an update's blob; `None` when it is not here.
    pub inspection: Option<Inspection>,
    /// Of an answer in a secure sum.
    pub evidence: Evidence,
}

/// A site that is ready for tasks.
#[derive(Debug)]
pub struct Joined {
    /// Its connection.
    pub peer: PeerId,
    /// The site.
    pub site: ClientId,
    /// Version of its program.
    pub software: String,
    /// What is put here reaches the site.
    pub outbox: mpsc::Sender<ServerMessage>,
    /// The connection, to close it.
    pub connection: Connection,
    /// When its certificate ends.
    pub expires: Timestamp,
}

/// What every connection needs.
#[derive(Debug)]
pub struct Context {
    /// Our federation.
    pub federation: Federation,
    /// Who we are, and whom we trust.
    pub credentials: Current,
    /// Models and global parameters.
    pub blobs: BlobDir,
    /// Sites' updates, apart from everything else: nobody can fetch one, and letting one go touches nothing else.
    pub updates: BlobDir,
    /// The server's loop.
    pub events: mpsc::Sender<Event>,
    /// How often strangers may knock.
    pub(crate) limiter: Mutex<Limiter>,
}

impl Context {
    /// Who we are, and whom we trust.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.borrow().clone()
    }

    /// Counts an attempt of a stranger. Whether it may go on.
    pub(crate) fn admits(&self, address: IpAddr, at: Timestamp) -> bool {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(address, at)
    }
}

/// The server's loop is gone: the program is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the server is stopping")]
struct Stopping;

/// Serves one connection to its end.
pub async fn serve(context: Arc<Context>, incoming: Incoming, peer: PeerId) {
    let address = incoming.remote_address();
    let connection = match incoming.accept().await {
        Ok(connection) => connection,
        Err(error) => return debug!(%address, %error, "handshake failed"),
    };
    if is_enrolment(&connection) {
        return desk::serve(&context, connection).await;
    }
    let identity = match peer_identity(&connection) {
        Ok(identity) if identity.federation == context.federation => identity,
        Ok(identity) => {
            warn!(%address, %identity, "a party of another federation was refused");
            return connection.close(2, "your certificate is of another federation");
        }
        Err(error) => {
            warn!(%address, %error, "a peer without an identity was refused");
            return connection.close(2, "your certificate names no party of a federation");
        }
    };
    let span = tracing::info_span!("peer", %identity, transport = %connection.transport());
    let uploads = Arc::new(Semaphore::new(UPLOADS));
    let peer = Connected { context, connection, peer, identity, uploads };
    let (events, id) = (peer.context.events.clone(), peer.peer);
    peer.run().instrument(span).await;
    // The loop may be gone already, which is fine.
    let _ = events.send(Event::Closed(id)).await;
}

#[derive(Clone)]
struct Connected {
    context: Arc<Context>,
    connection: Connection,
    peer: PeerId,
    identity: Identity,
    /// A place for each blob that it may be sending.
    uploads: Arc<Semaphore>,
}

impl Connected {
    async fn run(self) {
        if self.tell(Event::Opened(self.peer, self.identity.clone())).await.is_err() {
            return;
        }
        let mut credentials = self.context.credentials.clone();
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let end = chain.first().and_then(|leaf| tls::ends(leaf)).unwrap_or_default();
        let mut throttle = Throttle::new();
        loop {
            let next = async {
                throttle.next().await;
                self.connection.accept_bi().await
            };
            tokio::select! {
                accepted = next => match accepted {
                    Ok((send, recv)) => {
                        let this = self.clone();
                        tokio::spawn(this.stream(send, recv).in_current_span());
                    }
                    Err(why) => return debug!(%why, "connection ended"),
                },
                // What TLS would no longer let in does not stay in either.
                () = expiry(end) => return self.distrust("your certificate has expired"),
                Ok(()) = credentials.changed() => {
                    let chain: Vec<u8> = chain.iter().flat_map(|der| der.iter().copied()).collect();
                    let judged = credentials.borrow().authority().verify(&chain, SystemTime::now());
                    if let Err(NotOurs::Untrusted(_)) = judged {
                        return self.distrust("your certificate is of an authority that the server no longer trusts");
                    }
                }
            }
        }
    }

    fn distrust(&self, why: &str) {
        warn!(%why, "a connection is cut");
        self.connection.close(6, why);
    }

    async fn tell(&self, event: Event) -> Result<(), Stopping> {
        self.context.events.send(event).await.map_err(|_| Stopping)
    }

    async fn stream(self, mut send: SendStream, mut recv: RecvStream) {
        let open = match tokio::time::timeout(OPEN_TIMEOUT, frames::read::<Open>(&mut recv)).await {
            Ok(Ok(open)) => open,
            Ok(Err(error)) => return warn!(%error, "a stream was not understood"),
            Err(_) => return debug!("a stream stayed silent"),
        };
        let outcome = match open {
            Open::Site(hello) => self.site(hello, send, recv).await.map_err(|e| e.to_string()),
            Open::Operator(hello) => self.operator(hello, send, recv).await.map_err(|e| e.to_string()),
            Open::Get { blob, offset } => self.get(&mut send, blob, offset).await.map_err(|e| e.to_string()),
            Open::Put { blob, length } => {
                self.put(&mut send, &mut recv, blob, length).await.map_err(|e| e.to_string())
            }
        };
        if let Err(error) = outcome {
            debug!(%error, "stream ended");
        }
    }

    /// Why a hello is refused, if it is.
    fn objection(&self, hello: &Hello, roles: &[Role]) -> Option<String> {
        if hello.protocol != PROTOCOL_VERSION {
            return Some(format!(
                "{} speaks protocol {}, the server ({SOFTWARE}) speaks {PROTOCOL_VERSION}: install the same version",
                hello.software, hello.protocol
            ));
        }
        let role = self.identity.role;
        (!roles.contains(&role)).then(|| format!("a certificate of role {role} may not do that"))
    }

    async fn site(self, hello: Hello, mut send: SendStream, mut recv: RecvStream) -> Result<(), FrameError> {
        if let Some(why) = self.objection(&hello, &[Role::Site]) {
            warn!(%why, "refused");
            return frames::write(&mut send, &ServerMessage::Refused(why)).await;
        }
        let site = ClientId(self.identity.name.clone());
        let (sender, receiver) = oneshot::channel();
        if self.tell(Event::Knock(site.clone(), sender)).await.is_err() {
            return Ok(());
        }
        if let Ok(Err(why)) = receiver.await {
            warn!(%why, "refused");
            return frames::write(&mut send, &ServerMessage::Refused(why)).await;
        }
        // Control messages go before bulk.
        send.set_priority(10);
        let federation = self.context.federation.clone();
        let welcome = ServerMessage::Welcome { federation, software: SOFTWARE.into() };
        frames::write(&mut send, &welcome).await?;
        let (outbox, mut messages) = mpsc::channel(OUTBOX);
        let joined = Joined {
            peer: self.peer,
            site: site.clone(),
            software: plain_text(&hello.software),
            outbox,
            connection: self.connection.clone(),
            expires: self
                .connection
                .peer_certificates()
                .and_then(|chain| tls::ends(chain.first()?))
                .map_or(Timestamp(0), |end| Timestamp(u64::try_from(end).unwrap_or(0).saturating_mul(1000))),
        };
        if self.tell(Event::Joined(joined)).await.is_err() {
            return Ok(());
        }
        let writer = async {
            while let Some(message) = messages.recv().await {
                frames::write(&mut send, &message).await?;
            }
            Ok(())
        };
        let reader = async {
            let mut throttle = Throttle::new();
            loop {
                throttle.next().await;
                let message = plain(frames::read::<SiteMessage>(&mut recv).await?);
                let finding =
                    Finding { inspection: self.inspect(&message).await, evidence: self.evidence(&message) };
                if self.tell(Event::Message(self.peer, site.clone(), message, finding)).await.is_err() {
                    return Ok(());
                }
            }
        };
        let result = tokio::select! { result = writer => result, result = reader => result };
        // Without its control stream a site's connection is of no use.
        self.connection.close(0, "the control stream ended");
        result
    }

    /// Looks at the blob of an update that is awaited.
    async fn inspect(&self, message: &SiteMessage) -> Option<Inspection> {
        let SiteMessage::Update(update) = message else {
            return None;
        };
        // It is read whole, which nobody may ask for again and again.
        let (sender, receiver) = oneshot::channel();
        let site = ClientId(self.identity.name.clone());
        self.tell(Event::Offered(site, update.clone(), sender)).await.ok()?;
        if !receiver.await.unwrap_or(false) {
            return None;
        }
        let (updates, delta) = (self.context.updates.clone(), update.delta);
        match tokio::task::spawn_blocking(move || inspect(&updates, delta)).await {
            Ok(Ok(inspection)) => inspection,
            Ok(Err(error)) => {
                warn!(%error, "an update could not be read");
                None
            }
            Err(_) => None,
        }
    }

    /// Looks at what an answer in a secure sum names: a certificate, which must be good and the sender's, or a
    /// blob.
    fn evidence(&self, message: &SiteMessage) -> Evidence {
        let SiteMessage::Secure { answer, .. } = message else {
            return Evidence::Nothing;
        };
        match answer {
            Answer::Advertisement(entry) => {
                match self
                    .context
                    .credentials()
                    .authority()
                    .verify(&entry.body.certificate, SystemTime::now())
                {
                    Ok((identity, key)) if identity == self.identity => Evidence::Key(key),
                    Ok(_) | Err(_) => Evidence::Nothing,
                }
            }
            Answer::Masked(blob) => {
                self.context.updates.length(*blob).map_or(Evidence::Nothing, Evidence::Length)
            }
            Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
        }
    }

    async fn operator(
        self,
        hello: Hello,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<(), FrameError> {
        if let Some(why) = self.objection(&hello, &[Role::Operator, Role::Viewer]) {
            warn!(%why, "refused");
            return frames::write(&mut send, &Reply::Refused(why)).await;
        }
        let federation = self.context.federation.clone();
        frames::write(&mut send, &Reply::Welcome { federation, software: SOFTWARE.into() }).await?;
        let mut throttle = Throttle::new();
        loop {
            throttle.next().await;
            let request = match frames::read::<Request>(&mut recv).await {
                Err(FrameError::Closed) => return Ok(()),
                other => other?,
            };
            let reply = if self.identity.role == Role::Viewer && !is_reading(&request) {
                Reply::Refused("a viewer may look but not touch: use an operator's certificate".into())
            } else {
                let (sender, receiver) = oneshot::channel();
                let event = Event::Request(self.peer, self.identity.clone(), request, sender);
                if self.tell(event).await.is_err() {
                    return Ok(());
                }
                match receiver.await {
                    Ok(reply) => reply,
                    Err(_) => return Ok(()),
                }
            };
            if let Err(error) = frames::write(&mut send, &reply).await {
                let FrameError::Encode(error) = error else {
                    return Err(error);
                };
                frames::write(&mut send, &Reply::Refused(error.to_string())).await?;
            }
        }
    }

    async fn permission(&self, access: Access) -> Result<(), String> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.tell(Event::Access(self.peer, access, sender)).await;
        match asked {
            Ok(()) => receiver.await.unwrap_or_else(|_| Err(Stopping.to_string())),
            Err(stopping) => Err(stopping.to_string()),
        }
    }

    async fn get(
        &self,
        send: &mut SendStream,
        blob: sheaf_common::blob::BlobId,
        offset: u64,
    ) -> Result<(), TransferError> {
        if let Err(why) = self.permission(Access::Get(blob)).await {
            return transfer::refuse(send, blob, why).await.map(drop);
        }
        let mut share = self.connection.transfer();
        let moved = transfer::serve_get(send, &self.context.blobs, blob, offset, &mut share).await?;
        // Sent is not received: the stream is done when the peer says so.
        send.stopped().await;
        let _ = self.tell(Event::Moved(self.peer, moved, 0)).await;
        Ok(())
    }

    async fn put(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
        blob: sheaf_common::blob::BlobId,
        length: u64,
    ) -> Result<(), TransferError> {
        if let Err(why) = self.permission(Access::Put(blob, length)).await {
            info!(%why, "a blob was refused");
            return transfer::refuse(send, blob, why).await.map(drop);
        }
        let Ok(_place) = self.uploads.try_acquire() else {
            let why = format!("{UPLOADS} of your blobs are under way already");
            return transfer::refuse(send, blob, why).await.map(drop);
        };
        let mut share = self.connection.transfer();
        let Identity { role, name, .. } = &self.identity;
        let dir = if *role == Role::Site { &self.context.updates } else { &self.context.blobs };
        let sender = sender(*role, name);
        let moved = transfer::serve_put(send, recv, dir, &sender, blob, length, &mut share)
            .await
            .inspect_err(|error| {
                if let TransferError::Blob(error) = error {
                    error!(%error, "a blob cannot be stored; whoever sends it tries again");
                }
            })?;
        let _ = self.tell(Event::Moved(self.peer, 0, moved)).await;
        Ok(())
    }
}

/// Waits until a certificate has ended (seconds since the Unix epoch).
async fn expiry(end: i64) {
    let end = Timestamp(u64::try_from(end).unwrap_or(0).saturating_add(1).saturating_mul(1000));
    while now() < end {
        // In pieces, so that a clock that is set is noticed.
        tokio::time::sleep(end.since(now()).min(EXPIRY_PIECE)).await;
    }
}

/// Under which name the unfinished blobs of a party lie.
pub(crate) fn sender(role: Role, name: &Name) -> String {
    format!("{role}.{name}")
}

/// A site's message as it may be shown: its own words end up on operators' terminals.
fn plain(message: SiteMessage) -> SiteMessage {
    match message {
        SiteMessage::Declined { task, reason } => SiteMessage::Declined { task, reason: plain_text(&reason) },
        SiteMessage::Standby { run, held } => {
            SiteMessage::Standby { run, held: held.as_deref().map(plain_text) }
        }
        SiteMessage::Progress { .. }
        | SiteMessage::Update(_)
        | SiteMessage::Ready(_)
        | SiteMessage::Secure { .. }
        | SiteMessage::Renew(_)
        | SiteMessage::Evaluated { .. } => message,
    }
}

/// A peer's words without control characters, and not too many of them.
fn plain_text(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(WORDS).collect()
}

/// Whether a request changes nothing.
fn is_reading(request: &Request) -> bool {
    match request {
        Request::Runs
        | Request::Run(_)
        | Request::Sites
        | Request::Models
        | Request::Waiting
        | Request::Export { .. } => true,
        Request::Submit { .. }
        | Request::Survey { .. }
        | Request::Stop(_)
        | Request::Stand { .. }
        | Request::Invite { .. }
        | Request::Approve { .. }
        | Request::ImportModel { .. } => false,
    }
}
