//! Four sites and a server, with one message of each stage replaced by what the fuzzer makes of it.
//!
//! Neither side may panic, the sum that comes out is the true one or none, and no site ever gives both secrets of a
//! peer: it gives its shares at most once.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::run::GraphKind;
use sheaf_common::secagg::client::{Client, Expectation, Party, Reaction};
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::mask::Masker;
use sheaf_common::secagg::message::{Answer, Ask, Signature};
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::server::{Evidence, Next, Server, Unmasking};
use sheaf_common::wire;

const SITES: usize = 4;
const VALUES: usize = 5;

/// A site whose certificate is its own key: who is whom is not what is tried here.
struct Site {
    name: ClientId,
    key: SigningKey,
}

impl Site {
    fn new(number: usize) -> Self {
        let name = format!("site-{number}").parse().expect("a name");
        Self { name, key: SigningKey::from_bytes(&[number as u8 + 1; 32]) }
    }
}

impl Party for Site {
    fn name(&self) -> &ClientId {
        &self.name
    }

    fn certificate(&self) -> Vec<u8> {
        self.name.as_str().as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        Ok(self.key.sign(message).to_bytes().into())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        let site = (0..SITES).map(Site::new).find(|site| site.certificate() == certificate);
        site.map(|site| (site.name, site.key.verifying_key().to_bytes())).ok_or_else(|| "a stranger".into())
    }

    fn verify_server(&self, _certificate: &[u8]) -> Result<[u8; 32], String> {
        Err("there is no server's certificate here".into())
    }
}

/// What to do to the messages, read off the fuzzer's bytes.
struct Mutations<'a>(&'a [u8]);

impl Mutations<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The message as it is most of the time; else with bytes overwritten, cut off or repeated.
    fn apply<T: Serialize + DeserializeOwned>(&mut self, message: T) -> Option<T> {
        let kind = self.next();
        if kind < 128 {
            return Some(message);
        }
        let mut bytes = wire::encode(&message).expect("an honest message fits");
        for _ in 0..1 + kind % 4 {
            if bytes.is_empty() {
                break;
            }
            let at = (usize::from(self.next()) << 8 | usize::from(self.next())) % bytes.len();
            match kind / 4 % 4 {
                0 => bytes[at] = self.next(),
                1 => bytes[at] ^= 1 << (self.next() % 8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, self.next()),
            }
        }
        wire::decode(&bytes).ok()
    }
}

fn params(post_quantum: bool) -> RoundParams {
    RoundParams {
        federation: "test".parse().expect("a name"),
        task: TaskId { run: "toy".parse().expect("a name"), round: 1, attempt: 1 },
        origin: BlobId::of(b"run"),
        model: BlobId::of(b"model"),
        previous: None,
        layout: Layout { tensors: vec![VALUES as u64], metrics: 1 },
        encoding: Encoding::new(16, SITES as u32).expect("sixteen bits of four sites fit"),
        ranges: vec![1.0],
        weight_cap: 8,
        min_updates: 2,
        max_colluding: Some(0),
        graph: GraphKind::Complete,
        post_quantum,
    }
}

/// Plays one attempt.
pub fn play(data: &[u8]) {
    let mut mutations = Mutations(data);
    let honest = params(mutations.next() % 8 == 7);
    let sites: Vec<Site> = (0..SITES).map(Site::new).collect();
    let mut clients: Vec<Option<Client>> = (0..SITES).map(|_| None).collect();
    let mut given: BTreeMap<ClientId, Answer> = BTreeMap::new();
    let mut vectors: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
    let members: BTreeSet<ClientId> = sites.iter().map(|site| site.name.clone()).collect();
    let mut server = Server::new(honest.clone(), members);
    loop {
        for (number, site) in sites.iter().enumerate() {
            let Some(ask) = server.ask(&site.name) else { continue };
            let client = &mut clients[number];
            let mut said = None;
            // A lying server asks more than once, in different words.
            for _ in 0..1 + mutations.next() / 64 {
                let Some(ask) = mutations.apply(ask.clone()) else { continue };
                let Some(answer) = answer(&honest, site, client, ask, &mut vectors) else { continue };
                if let Answer::Unmasking(_) = &answer {
                    let before = given.insert(site.name.clone(), answer.clone());
                    assert!(before.is_none_or(|before| before == answer), "shares were given twice");
                }
                said = Some(answer);
            }
            let Some(answer) = said.and_then(|answer| mutations.apply(answer)) else { continue };
            let evidence = match &answer {
                Answer::Advertisement(entry) => match site.verify(&entry.body.certificate) {
                    Ok((name, key)) if name == site.name => Evidence::Key(key),
                    Ok(_) | Err(_) => Evidence::Nothing,
                },
                Answer::Masked(blob) => {
                    vectors.get(blob).map_or(Evidence::Nothing, |vector| Evidence::Length(vector.len() as u64))
                }
                Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
            };
            // A refused answer costs its sender.
            if server.take(&site.name, answer, evidence).is_err() {
                server.lost(&site.name);
            }
        }
        match server.proceed() {
            Ok(Next::Stage(next)) => server = next,
            Ok(Next::Open(unmasking)) => return check(&unmasking, &vectors),
            Err(_) => return,
        }
    }
}

fn answer(
    honest: &RoundParams,
    site: &Site,
    client: &mut Option<Client>,
    ask: Ask,
    vectors: &mut BTreeMap<BlobId, Vec<u8>>,
) -> Option<Answer> {
    if let Ask::Advertise(params) = &ask
        && client.is_none()
    {
        let expectation =
            Expectation { params: honest.clone(), sites: None, min_updates: 2, released_with: Vec::new() };
        let entropy = [site.key.to_bytes()[0]; 32];
        *client = Some(Client::join((**params).clone(), &expectation, site, entropy).ok()?);
    }
    let client = client.as_mut()?;
    match client.handle(ask, site).ok()? {
        Reaction::Say(answer) => Some(answer),
        Reaction::Mask | Reaction::Nothing => {
            let (params, plan) = client.plan()?;
            let (masker, mut vector) = (Masker::new(params, plan, 1), Vec::new());
            let tally = masker.chunk(0, &[0.25; VALUES], &mut vector).expect("finite values");
            vector.extend(masker.slots(&tally, 0.0, &[1]));
            let blob = BlobId::of(&vector);
            vectors.insert(blob, vector);
            client.masked(blob)
        }
    }
}

/// A sum that opens and agrees with its checks is the sum over the survivors.
fn check(unmasking: &Unmasking, vectors: &BTreeMap<BlobId, Vec<u8>>) {
    let Ok(unmasker) = unmasking.open() else { return };
    let params = unmasking.params();
    let ring = usize::from(params.encoding.ring_bytes());
    let masked: Vec<&[u8]> = unmasking.masked().values().map(|blob| vectors[blob].as_slice()).collect();
    let mut sums = vec![0; VALUES];
    for vector in &masked {
        unmasker.add(&vector[..VALUES * ring], &mut sums);
    }
    let tally = unmasker.finish_chunk(0, &mut sums);
    let opened = unmasker.slots(masked.iter().map(|vector| &vector[VALUES * ring..])).expect("all slots");
    if !unmasker.agrees(tally, &opened.head) {
        return;
    }
    let survivors = masked.len() as u64;
    assert_eq!((opened.head.sites, opened.head.weight), (survivors, survivors));
    assert_eq!(opened.metrics, [survivors]);
    for sum in sums {
        let sites = u32::try_from(survivors).expect("at most four");
        let mean = params.encoding.decode(sum, sites, params.ranges[0]) * 8.0 / f64::from(sites);
        assert!((mean - 0.25).abs() < 1e-3, "{mean}");
    }
}
