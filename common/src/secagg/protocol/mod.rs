//! Whole attempts without a network: sites of a test federation, one server, and whatever a test does to them.
//!
//! Every message and, between any two of them, the state of both sides goes through its bytes, as if either
//! program were killed all the time.

mod exact;
mod lies;
mod mischief;
mod records;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::client::{Client, Expectation, Party, Reaction, Refusal};
use super::layout::Layout;
use super::mask::{Masker, Tally};
use super::message::{Answer, Ask, Signature};
use super::params::RoundParams;
use super::quantize::Encoding;
use super::server::{Evidence, Next, Opened, Rejected, Server, Unmasking};
use crate::blob::BlobId;
use crate::id::ClientId;
use crate::message::TaskId;
use crate::run::GraphKind;
use crate::wire;

/// The order of the stages in which a site can be lost.
const STAGES: usize = 5;

fn signing_key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(name).into())
}

/// A site whose certificate is its name and key, signed by the test's CA.
struct Site {
    name: ClientId,
    key: SigningKey,
    certificate: Vec<u8>,
}

fn certificate(name: &str, ca: &str) -> Vec<u8> {
    let body = (name, signing_key(name).verifying_key().to_bytes());
    let signature = signing_key(ca).sign(&wire::encode(&body).unwrap()).to_vec();
    wire::encode(&(body, signature)).unwrap()
}

impl Site {
    fn new(name: &str) -> Self {
        Self { name: name.parse().unwrap(), key: signing_key(name), certificate: certificate(name, "ca") }
    }
}

impl Party for Site {
    fn name(&self) -> &ClientId {
        &self.name
    }

    fn certificate(&self) -> Vec<u8> {
        self.certificate.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        Ok(self.key.sign(message).to_bytes().into())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        type Body = (String, [u8; 32]);
        let (body, signature): (Body, Vec<u8>) = wire::decode(certificate).map_err(|e| e.to_string())?;
        let bytes: [u8; 64] = signature.try_into().map_err(|_| "no signature")?;
        let message = wire::encode(&body).map_err(|e| e.to_string())?;
        if !Signature::from(bytes).is_valid(&signing_key("ca").verifying_key().to_bytes(), &message) {
            return Err("another CA signed it".into());
        }
        Ok((body.0.parse().map_err(|_| "no name")?, body.1))
    }

    fn verify_server(&self, certificate: &[u8]) -> Result<[u8; 32], String> {
        let (name, key) = self.verify(certificate)?;
        if name.as_str() == "hub" { Ok(key) } else { Err(format!("{name} is no server")) }
    }
}

/// What one site adds.
#[derive(Clone, Debug)]
struct Contribution {
    values: Vec<f32>,
    num_examples: u64,
    metrics: Vec<u64>,
}

fn params(tensors: &[u64], metrics: u32, bits: u8, sites: u32) -> RoundParams {
    RoundParams {
        federation: "test".parse().unwrap(),
        task: TaskId { run: "toy".parse().unwrap(), round: 3, attempt: 1 },
        origin: BlobId::of(b"run"),
        model: BlobId::of(b"model"),
        previous: None,
        layout: Layout { tensors: tensors.to_vec(), metrics },
        encoding: Encoding::new(bits, sites).unwrap(),
        ranges: tensors.iter().enumerate().map(|(at, _)| 0.5 + at as f32).collect(),
        weight_cap: 100,
        min_updates: 2,
        max_colluding: None,
        graph: GraphKind::Complete,
        post_quantum: false,
    }
}

fn expectation(params: &RoundParams) -> Expectation {
    Expectation { params: params.clone(), sites: None, min_updates: 2, released_with: Vec::new() }
}

/// A value after a trip through its bytes.
fn revived<T: Serialize + DeserializeOwned>(value: &T) -> T {
    wire::decode_record(&wire::encode_record(value).unwrap()).unwrap()
}

/// Sites that take part and a server.
struct Attempt {
    sites: BTreeMap<ClientId, (Site, Option<Client>)>,
    server: Server,
    /// Masked vectors by the names that were said.
    blobs: BTreeMap<BlobId, Vec<u8>>,
    contributions: BTreeMap<ClientId, Contribution>,
    refusals: BTreeMap<ClientId, Refusal>,
    rejections: Vec<(ClientId, Rejected)>,
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("site-{at:03}")).collect()
}

impl Attempt {
    fn new(params: &RoundParams, contributions: Vec<Contribution>) -> Self {
        let sites: BTreeMap<_, _> = names(contributions.len())
            .iter()
            .map(|name| (name.parse().unwrap(), (Site::new(name), None)))
            .collect();
        let members: BTreeSet<ClientId> = sites.keys().cloned().collect();
        let contributions = members.iter().cloned().zip(contributions).collect();
        Self {
            sites,
            server: Server::new(params.clone(), members),
            blobs: BTreeMap::new(),
            contributions,
            refusals: BTreeMap::new(),
            rejections: Vec::new(),
        }
    }

    /// What `site` answers to `ask`; `None` when it refuses.
    fn answer(&mut self, name: &ClientId, ask: Ask) -> Option<Answer> {
        let (site, client) = self.sites.get_mut(name).unwrap();
        let reaction = match (client.as_mut(), ask) {
            (None, Ask::Advertise(params)) => {
                let entropy = Sha256::digest(format!("entropy of {name}")).into();
                match Client::join((*params).clone(), &expectation(&params), site, entropy) {
                    Ok(joined) => Ok(Reaction::Say(client.insert(joined).answer().unwrap())),
                    Err(refusal) => Err(refusal),
                }
            }
            (None, _) => Err(Refusal::Over),
            (Some(client), ask) => client.handle(ask, site),
        };
        let reaction = match reaction {
            Ok(reaction) => reaction,
            Err(refusal) => {
                self.refusals.insert(name.clone(), refusal);
                return None;
            }
        };
        let client = client.as_mut().unwrap();
        *client = revived(client);
        match reaction {
            Reaction::Say(answer) => Some(answer),
            Reaction::Mask | Reaction::Nothing => {
                let vector = masked(client, &self.contributions[name]);
                let blob = BlobId::of(&vector);
                self.blobs.insert(blob, vector);
                client.masked(blob)
            }
        }
    }

    /// Hands an answer to the server.
    fn take(&mut self, name: &ClientId, answer: Answer) {
        let evidence = match &answer {
            Answer::Advertisement(entry) => match self.sites[name].0.verify(&entry.body.certificate) {
                Ok((named, key)) if named == *name => Evidence::Key(key),
                Ok(_) | Err(_) => Evidence::Nothing,
            },
            Answer::Masked(blob) => {
                self.blobs.get(blob).map_or(Evidence::Nothing, |b| Evidence::Length(b.len() as u64))
            }
            Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
        };
        if let Err(rejected) = self.server.take(name, revived(&answer), evidence) {
            self.rejections.push((name.clone(), rejected));
        }
        self.server = revived(&self.server);
    }

    /// One stage with everybody but `lost`.
    fn stage(&mut self, lost: &BTreeSet<ClientId>) {
        for name in self.server.awaited().clone() {
            if lost.contains(&name) {
                continue;
            }
            let Some(ask) = self.server.ask(&name) else { continue };
            if let Some(answer) = self.answer(&name, revived(&ask)) {
                self.take(&name, answer);
            }
        }
    }

    /// All stages; `losses` says from which stage on a site is gone.
    fn run(&mut self, losses: &BTreeMap<ClientId, usize>) -> Result<Unmasking, String> {
        for stage in 0..STAGES {
            let lost = losses.iter().filter(|(_, from)| **from <= stage).map(|(name, _)| name.clone());
            self.stage(&lost.collect());
            match self.server.clone().proceed().map_err(|e| e.to_string())? {
                Next::Stage(server) => self.server = server,
                Next::Open(unmasking) => return Ok(unmasking),
            }
        }
        unreachable!("the last stage opens the sum")
    }

    /// The sums and slots of an opened attempt; `None` when they contradict each other.
    fn open(&self, unmasking: &Unmasking) -> Option<(Vec<u32>, Opened, Vec<ClientId>)> {
        let unmasker = unmasking.open().unwrap();
        let params = unmasking.params();
        let (ring, values) = (params.encoding.ring_bytes(), params.layout.values());
        let after = values as usize * usize::from(ring);
        let vectors: Vec<&[u8]> = unmasking.masked().values().map(|b| self.blobs[b].as_slice()).collect();
        let mut sums = Vec::new();
        let mut tally = Tally::default();
        // Odd pieces, so that chunks and tensors do not line up.
        for start in (0..values).step_by(7) {
            let len = (values - start).min(7) as usize;
            let mut chunk = vec![0; len];
            let from = start as usize * usize::from(ring);
            for vector in &vectors {
                unmasker.add(&vector[from..from + len * usize::from(ring)], &mut chunk);
            }
            tally.add(&unmasker.finish_chunk(start, &mut chunk));
            sums.extend(chunk);
        }
        let opened = unmasker.slots(vectors.iter().map(|vector| &vector[after..])).unwrap();
        unmasker.agrees(tally, &opened.head).then_some((sums, opened, unmasker.culprits.clone()))
    }
}

/// The masked vector of a site that is asked for one.
fn masked(client: &Client, contribution: &Contribution) -> Vec<u8> {
    let (params, plan) = client.plan().unwrap();
    let masker = Masker::new(params, plan, contribution.num_examples);
    let mut vector = Vec::new();
    let mut tally = Tally::default();
    for (at, values) in contribution.values.chunks(5).enumerate() {
        tally.add(&masker.chunk(5 * at as u64, values, &mut vector).unwrap());
    }
    vector.extend(masker.slots(&tally, 0.5, &contribution.metrics));
    vector
}

/// `count` sites with small, different updates.
fn contributions(count: usize, values: usize, metrics: usize) -> Vec<Contribution> {
    (0..count)
        .map(|site| Contribution {
            values: (0..values).map(|at| ((site * 31 + at * 17) % 23) as f32 / 40.0 - 0.25).collect(),
            num_examples: 10 + 7 * site as u64,
            metrics: (0..metrics).map(|at| (site * at) as u64).collect(),
        })
        .collect()
}
