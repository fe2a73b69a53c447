//! What a secure sum costs against a plain one: `cargo bench -p sheaf-tests --bench cost`.
//!
//! The real state machines of a server and N sites exchange their real messages in memory; one core does all the work of
//! one site, then that of the server, on a model of the stated size. Vectors are made and read chunk by chunk, so that
//! hundreds of megabytes need no memory: a site's chunk is masked once and stands for every site's, since what is timed
//! does not depend on the values. Disk and network are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use ed25519_dalek::{Signer, SigningKey};
use sheaf_common::aggregate::{Aggregate as Sum, FedAvg, ServerOptimizer};
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::run::GraphKind;
use sheaf_common::secagg::client::{Client, Expectation, Party, Reaction};
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::mask::{Masker, Tally};
use sheaf_common::secagg::message::{Answer, Signature};
use sheaf_common::secagg::outcome;
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::server::{Evidence, Next, Server, Unmasking};
use sheaf_common::wire;

/// Values that are worked on at a time, as a site and the server do.
const CHUNK: usize = 1 << 18;

struct Site(ClientId, SigningKey);

impl Party for Site {
    fn name(&self) -> &ClientId {
        &self.0
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.as_str().as_bytes().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        Ok(self.1.sign(message).to_bytes().into())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        let name = std::str::from_utf8(certificate).map_err(|e| e.to_string())?;
        Ok((name.parse().map_err(|_| "no name")?, key(name).verifying_key().to_bytes()))
    }

    fn verify_server(&self, _: &[u8]) -> Result<[u8; 32], String> {
        Err("there is none".into())
    }
}

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes())
}

/// Seconds of one core, and bytes.
#[derive(Default)]
struct Cost {
    site: f64,
    server: f64,
    sent: u64,
}

fn main() {
    println!(
        "{:>8} {:>6} {:>8} | {:>10} {:>10} {:>10} | {:>10} {:>10} | {:>10} {:>10}",
        "values",
        "sites",
        "dropped",
        "site s",
        "G value/s",
        "server s",
        "plain site",
        "plain srv",
        "bytes",
        "of plain"
    );
    for values in [1_000_000u64, 10_000_000, 100_000_000] {
        for sites in [4, 16, 64] {
            for dropped in [0, sites / 4] {
                let (secure, plain) = (secure(values, sites, dropped), plain(values, sites - dropped));
                println!(
                    "{:>7}M {sites:>6} {dropped:>8} | {:>10.3} {:>10.3} {:>10.3} | {:>10.3} {:>10.3} | {:>9.1}M {:>10.3}",
                    values / 1_000_000,
                    secure.site,
                    values as f64 / secure.site / 1e9,
                    secure.server,
                    plain.site,
                    plain.server,
                    secure.sent as f64 / 1e6,
                    secure.sent as f64 / plain.sent as f64,
                );
            }
        }
    }
}

/// The exact weighted mean of plain updates: a site only sends, the server only adds.
fn plain(values: u64, sites: usize) -> Cost {
    let update: Vec<f32> = (0..CHUNK).map(|at| (at as f32 * 0.37).sin()).collect();
    let start = Instant::now();
    for_chunks(values, |_, len| {
        let mut sum = Sum::zero(len);
        for _ in 0..sites {
            sum.add(black_box(&update[..len]), 100);
        }
        let mut global = update[..len].to_vec();
        FedAvg { learning_rate: 1.0 }.step(&mut global, sum.mean());
        black_box(global);
    });
    Cost { site: 0.0, server: start.elapsed().as_secs_f64(), sent: 4 * values }
}

fn for_chunks(values: u64, mut work: impl FnMut(u64, usize)) {
    for start in (0..values).step_by(CHUNK) {
        work(start, (values - start).min(CHUNK as u64) as usize);
    }
}

fn params(values: u64, sites: usize) -> RoundParams {
    RoundParams {
        federation: "bench".parse().expect("a name"),
        task: TaskId { run: "bench".parse().expect("a name"), round: 1, attempt: 1 },
        origin: BlobId::of(b"run"),
        model: BlobId::of(b"model"),
        previous: None,
        layout: Layout { tensors: vec![values], metrics: 0 },
        encoding: Encoding::new(16, sites as u32).expect("sixteen bits of so many sites fit"),
        ranges: vec![1.0],
        weight_cap: 100,
        min_updates: 2,
        max_colluding: None,
        graph: GraphKind::Complete,
        post_quantum: false,
    }
}

/// One attempt among `sites`, of which `dropped` are lost after they shared their secrets.
fn secure(values: u64, sites: usize, dropped: usize) -> Cost {
    let terms = params(values, sites);
    let expectation =
        Expectation { params: terms.clone(), sites: None, min_updates: 2, released_with: Vec::new() };
    let parties: Vec<Site> = (0..sites)
        .map(|number| format!("site-{number:03}"))
        .map(|name| Site(name.parse().expect("a name"), key(&name)))
        .collect();
    let members: BTreeSet<ClientId> = parties.iter().map(|site| site.0.clone()).collect();
    let mut clients: BTreeMap<&ClientId, Client> = BTreeMap::new();
    let mut server = Server::new(terms.clone(), members);
    let mut cost = Cost::default();
    // The site that is looked at survives.
    let (watched, survivors) = (&parties[0], &parties[..sites - dropped]);
    let unmasking = loop {
        let masking = server.masked_bytes();
        let present = if masking.is_some() { survivors } else { &parties[..] };
        for site in present {
            let Some(ask) = server.ask(&site.0) else { continue };
            let start = Instant::now();
            let client = clients.entry(&site.0).or_insert_with(|| {
                let entropy = *blake3::hash(site.0.as_str().as_bytes()).as_bytes();
                Client::join(terms.clone(), &expectation, site, entropy).expect("honest terms")
            });
            let reaction = client.handle(ask, site).expect("an honest server");
            let answer = match reaction {
                Reaction::Say(answer) => answer,
                Reaction::Mask | Reaction::Nothing => {
                    if site.0 == watched.0 {
                        mask(client, values);
                    }
                    client.masked(BlobId::of(site.0.as_str().as_bytes())).expect("a masked vector")
                }
            };
            if site.0 == watched.0 {
                cost.site += start.elapsed().as_secs_f64();
                cost.sent += wire::encode(&answer).expect("an answer fits").len() as u64;
                cost.sent += masking.unwrap_or_default();
            }
            let evidence = match &answer {
                Answer::Advertisement(_) => Evidence::Key(site.1.verifying_key().to_bytes()),
                Answer::Masked(_) => Evidence::Length(masking.unwrap_or_default()),
                Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
            };
            let start = Instant::now();
            server.take(&site.0, answer, evidence).expect("an honest site");
            cost.server += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        let next = server.proceed().expect("enough sites");
        cost.server += start.elapsed().as_secs_f64();
        match next {
            Next::Stage(next) => server = next,
            Next::Open(unmasking) => break unmasking,
        }
    };
    cost.server += open(&unmasking, values);
    cost
}

fn mask(client: &Client, values: u64) {
    let (params, plan) = client.plan().expect("something to mask");
    let masker = Masker::new(params, plan, 100);
    let update: Vec<f32> = (0..CHUNK).map(|at| (at as f32 * 0.37).sin() * 0.9).collect();
    let mut out = Vec::with_capacity(4 * CHUNK);
    for_chunks(values, |start, len| {
        out.clear();
        black_box(masker.chunk(start, &update[..len], &mut out).expect("finite values"));
        black_box(&out);
    });
}

/// Seconds to add, unmask and apply. The vectors are stand-ins of the right length, so the sum is noise.
fn open(unmasking: &Unmasking, values: u64) -> f64 {
    let start = Instant::now();
    let unmasker = unmasking.open().expect("honest shares");
    let ring = usize::from(unmasking.params().encoding.ring_bytes());
    let vector: Vec<u8> = (0..ring * CHUNK).map(|at| (at * 31) as u8).collect();
    let head = sheaf_common::secagg::layout::Head { sites: 1, weight: 100, ..Default::default() };
    let mut tally = Tally::default();
    for_chunks(values, |start, len| {
        let mut sums = vec![0; len];
        for _ in unmasking.masked() {
            unmasker.add(black_box(&vector[..ring * len]), &mut sums);
        }
        tally.add(&unmasker.finish_chunk(start, &mut sums));
        let mean = outcome::mean(unmasking.params(), &head, start, &sums);
        let mut global = vec![0f32; len];
        FedAvg { learning_rate: 1.0 }.step(&mut global, &mean);
        black_box(global);
    });
    black_box(tally);
    start.elapsed().as_secs_f64()
}
