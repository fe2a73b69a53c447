//! Who is connected, how to reach them, and which blobs each may move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Identity, Role};
use sheaf_common::message::ServerMessage;
use sheaf_common::status::SiteConnection;
use sheaf_common::time::Timestamp;
use sheaf_transport::connection::Connection;
use tokio::sync::mpsc;

/// A connection, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// What a peer asks leave for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To fetch a blob.
    Get(BlobId),
    /// To send a blob of so many bytes.
    Put(BlobId, u64),
}

/// One connection.
#[derive(Debug)]
struct Peer {
    identity: Identity,
    may_get: BTreeSet<BlobId>,
    /// The length that a site's update must have while it has a task.
    may_put: Option<RangeInclusive<u64>>,
}

/// A site's connection.
#[derive(Debug)]
pub struct Site {
    /// Its connection.
    pub peer: PeerId,
    /// Where from.
    pub address: String,
    /// Version of its program.
    pub software: String,
    /// Since when.
    pub since: Timestamp,
    outbox: mpsc::Sender<ServerMessage>,
    connection: Connection,
    /// What [`Connection::heard`] last grew to, and when.
    heard: (u64, Timestamp),
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Registry {
    peers: BTreeMap<PeerId, Peer>,
    sites: BTreeMap<ClientId, Site>,
    traffic: BTreeMap<ClientId, Traffic>,
    /// The last blobs that each site began to send.
    begun: BTreeMap<ClientId, VecDeque<BlobId>>,
}

/// Blobs of a site that may be on disk without being named in an update: its quota is so many times what an update
/// has.
const BEGUN: usize = 4;

/// Bytes of blobs that a site moved since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Fetched by the site.
    pub down: u64,
    /// Sent by the site.
    pub up: u64,
}

impl Site {
    /// How it is connected.
    pub fn status(&self, now: Timestamp) -> SiteConnection {
        let silent = now.since(self.heard.1).as_secs();
        SiteConnection {
            transport: self.connection.transport(),
            silent_secs: u32::try_from(silent).unwrap_or(u32::MAX),
        }
    }
}

impl Registry {
    /// A connection whose peer proved `identity`.
    pub fn add(&mut self, peer: PeerId, identity: Identity) {
        self.peers.insert(peer, Peer { identity, may_get: BTreeSet::new(), may_put: None });
    }

    /// A site's control stream is up. An older connection of the same site is closed: its daemon was restarted,
    /// and the server had not noticed yet.
    pub fn join(
        &mut self,
        site: ClientId,
        peer: PeerId,
        hello: (String, String),
        since: Timestamp,
        outbox: mpsc::Sender<ServerMessage>,
        connection: Connection,
    ) {
        let (address, software) = hello;
        let heard = (connection.heard(), since);
        let new = Site { peer, address, software, since, outbox, connection, heard };
        if let Some(old) = self.sites.insert(site, new) {
            old.connection.close(1, "another connection with this site's certificate took its place");
        }
    }

    /// A connection is gone. Names the site that is no longer connected by it.
    pub fn remove(&mut self, peer: PeerId) -> Option<ClientId> {
        let site = ClientId(self.peers.remove(&peer)?.identity.name);
        // A name may be an operator's as well, and another connection may have taken this one's place.
        self.is_current(&site, peer).then(|| self.sites.remove(&site))?;
        Some(site)
    }

    /// Cuts a site's connection, with everything that moves over it. Whether it was connected.
    pub fn cut(&mut self, site: &ClientId, why: &str) -> bool {
        let Some(entry) = self.sites.remove(site) else { return false };
        self.peers.remove(&entry.peer);
        entry.connection.close(4, why);
        true
    }

    /// The connected sites.
    pub fn sites(&self) -> &BTreeMap<ClientId, Site> {
        &self.sites
    }

    /// Notices who was heard of since the last look.
    pub fn look(&mut self, now: Timestamp) {
        for site in self.sites.values_mut() {
            let count = site.connection.heard();
            if count != site.heard.0 {
                site.heard = (count, now);
            }
        }
    }

    /// Whether `site` speaks over `peer` now.
    pub fn is_current(&self, site: &ClientId, peer: PeerId) -> bool {
        self.sites.get(site).is_some_and(|entry| entry.peer == peer)
    }

    /// Gives a message to a site; one that is not connected gets it when it is back, from the coordinator.
    pub fn send(&self, site: &ClientId, message: ServerMessage) {
        let Some(entry) = self.sites.get(site) else { return };
        if entry.outbox.try_send(message).is_err() {
            entry.connection.close(1, "the site does not read its messages");
        }
    }

    /// Lets a site fetch what a task names and send an update of so many bytes.
    pub fn grant_site(&mut self, site: &ClientId, get: &[BlobId], put: Option<RangeInclusive<u64>>) {
        if let Some(peer) = self.sites.get(site).map(|entry| entry.peer) {
            self.grant(peer, get);
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.may_put = put;
            }
        }
    }

    /// Lets a peer fetch blobs.
    pub fn grant(&mut self, peer: PeerId, get: &[BlobId]) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.may_get.extend(get);
        }
    }

    /// Whether a peer may move a blob, or why not.
    pub fn permits(&self, peer: PeerId, access: Access) -> Result<(), String> {
        let peer = self.peers.get(&peer).ok_or("the connection has no control stream yet")?;
        match (access, peer.identity.role) {
            (Access::Get(blob), _) if peer.may_get.contains(&blob) => Ok(()),
            (Access::Get(_), _) => Err("nothing that you were sent names it".into()),
            (Access::Put(..), Role::Operator) => Ok(()),
            (Access::Put(_, length), Role::Site) => match &peer.may_put {
                Some(expected) if expected.contains(&length) => Ok(()),
                Some(expected) if expected.start() == expected.end() => {
                    Err(format!("an update of this run has {} bytes, not {length}", expected.end()))
                }
                Some(expected) => {
                    Err(format!("an update of this run has at most {} bytes, not {length}", expected.end()))
                }
                None => Err("no task of yours asks for an update".into()),
            },
            (Access::Put(..), Role::Viewer | Role::Server) => Err("your role may not send blobs".into()),
        }
    }

    /// A peer begins to send a blob that it may send. Returns the one that a site must give up for it: an honest site
    /// sends one at a time.
    pub fn begin(&mut self, peer: PeerId, blob: BlobId) -> Option<(ClientId, BlobId)> {
        let peer = self.peers.get(&peer).filter(|peer| peer.identity.role == Role::Site)?;
        let site = ClientId(peer.identity.name.clone());
        let begun = self.begun.entry(site.clone()).or_default();
        begun.retain(|earlier| *earlier != blob);
        begun.push_back(blob);
        let given_up = if begun.len() > BEGUN { begun.pop_front() } else { None };
        given_up.map(|blob| (site, blob))
    }

    /// These blobs are gone, and count no longer among what their sites began to send.
    pub fn forget(&mut self, gone: &BTreeSet<BlobId>) {
        for begun in self.begun.values_mut() {
            begun.retain(|blob| !gone.contains(blob));
        }
    }

    /// Counts blob bytes of a site.
    pub fn count(&mut self, peer: PeerId, down: u64, up: u64) {
        if let Some(peer) = self.peers.get(&peer)
            && peer.identity.role == Role::Site
        {
            let traffic = self.traffic.entry(ClientId(peer.identity.name.clone())).or_default();
            traffic.down += down;
            traffic.up += up;
        }
    }

    /// Blob bytes of a site since the server started.
    pub fn traffic(&self, site: &ClientId) -> Traffic {
        self.traffic.get(site).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_gives_up_what_it_began_and_nobody_named() {
        let mut registry = Registry::default();
        let identity: Identity = "sheaf://hearts/site/oslo".parse().unwrap();
        registry.add(PeerId(1), identity.clone());
        let blob = |number: u8| BlobId::of(&[number]);
        let begin = |registry: &mut Registry, number| registry.begin(PeerId(1), blob(number));
        assert!((0..4).all(|number| begin(&mut registry, number).is_none()));
        assert_eq!(begin(&mut registry, 4), Some((ClientId(identity.name), blob(0))));
        // Two were counted, and their round is over.
        registry.forget(&BTreeSet::from([blob(1), blob(3)]));
        assert!((5..7).all(|number| begin(&mut registry, number).is_none()));
        assert_eq!(begin(&mut registry, 7).map(|(_, blob)| blob), Some(blob(2)));
    }
}
