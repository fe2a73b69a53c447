//! Sites behind bad lines: whatever the seed thinks of, every blob arrives whole, and a word never waits for bulk.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use sheaf_common::blob::BlobId;
use sheaf_common::id::{Identity, Role};
use tokio::time::{Instant, sleep, timeout};

use super::party::Authority;
use super::udp::{Net, Road};
use super::work::{Blobs, Load, serve, work};
use super::{Random, simulate};
use crate::blobs::BlobDir;
use crate::connection::{Connection, Ended};
use crate::endpoint;
use crate::issuer::Issuers;
use crate::network::{Congestion, Network};
use crate::pace::{Limits, Pace};
use crate::tls::Credentials;
use crate::transfer::TransferError;

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4433);

/// A line on which nothing goes wrong.
const GOOD: Road = Road {
    delay: Duration::from_millis(25),
    jitter: Duration::ZERO,
    loss: 0.0,
    twice: 0.0,
    rate: 12.5e6,
    queue: Duration::from_millis(100),
    mtu: 1500,
};

/// What befalls the first site.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    None,
    /// It is cut off from then on, for so long.
    Cut(Duration, Duration),
    /// Its address changes.
    Move(Duration),
    /// Datagrams beyond the least that QUIC needs vanish.
    Narrow(Duration),
}

#[derive(Debug)]
struct Scenario {
    road: Road,
    mishap: Mishap,
    sites: u8,
    /// Bytes of each blob.
    length: usize,
    /// Of every site.
    limits: Limits,
}

impl Scenario {
    fn of(seed: u64) -> Self {
        let random = &mut Random(seed);
        let ms =
            |random: &mut Random, from: u64, to: u64| Duration::from_millis(from + random.below(to - from));
        let road = Road {
            delay: ms(random, 1, 120),
            jitter: ms(random, 0, 20) * random.below(2) as u32,
            loss: random.below(2) as f64 * random.below(50) as f64 / 1000.0,
            twice: random.below(2) as f64 * 0.01,
            rate: [125e3, 1e6, 12.5e6][random.below(3) as usize],
            queue: ms(random, 50, 300),
            mtu: [1280, 1400, 1500, 9000][random.below(4) as usize],
        };
        let mishap = match random.below(5) {
            0 => Mishap::None,
            1 => Mishap::Cut(ms(random, 50, 2000), ms(random, 100, 20_000)),
            // So long that the connection is lost, and the transfer resumes over a new one.
            2 => Mishap::Cut(ms(random, 50, 2000), ms(random, 60_000, 90_000)),
            3 => Mishap::Move(ms(random, 50, 2000)),
            _ => Mishap::Narrow(ms(random, 50, 2000)),
        };
        Self {
            road,
            mishap,
            sites: 1 + random.below(3) as u8,
            length: 50_000 + random.below(200_000) as usize,
            limits: Limits::default(),
        }
    }
}

/// One site on a line on which nothing happens.
fn quiet(road: Road) -> Scenario {
    Scenario { road, mishap: Mishap::None, sites: 1, length: 0, limits: Limits::default() }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    trace: blake3::Hash,
    took: Duration,
    /// The longest wait for an answer to a word, of each site.
    waits: Vec<Duration>,
    /// Connections that the sites made.
    connections: u32,
}

/// A site's endpoint, as the daemon's but for the socket.
struct Site {
    net: Net,
    number: u8,
    endpoint: Endpoint,
    blobs: Blobs,
    pace: Arc<Pace>,
}

fn machine(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, number).into()
}

fn seeded(mut config: EndpointConfig, seed: u64, number: u8) -> EndpointConfig {
    let mut bytes = [number; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    config.rng_seed(Some(bytes));
    config
}

impl Site {
    fn new(net: &Net, number: u8, seed: u64, credentials: &Credentials, limits: Limits) -> Self {
        let socket = net.socket((machine(number), 5000).into());
        let config = seeded(EndpointConfig::default(), seed, number);
        let mut endpoint =
            Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).unwrap();
        let network = Network { limits, ..Network::default() };
        let tls = credentials.client_config(&Issuers::default()).unwrap();
        endpoint.set_default_client_config(endpoint::client_config(tls, &network).unwrap());
        Self { net: net.clone(), number, endpoint, blobs: Blobs::new(), pace: Arc::new(Pace::new(limits)) }
    }

    async fn connect(&self) -> Result<Connection, Ended> {
        let name = Identity::server_dns_name(&"hearts".parse().unwrap());
        let connection = self.endpoint.connect(SERVER, &name).unwrap().await?;
        Ok(Connection::from(connection).at(self.pace.clone()))
    }

    /// Works until everything has moved, over as many connections as it takes.
    async fn work(&self, load: &Load) -> (Duration, u32) {
        let mut connections = 0;
        loop {
            if let Ok(connection) = self.connect().await {
                connections += 1;
                match work(&connection, &self.blobs.dir, load).await {
                    Ok(longest) => return (longest, connections),
                    Err(TransferError::Lost { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn suffer(&self, mishap: Mishap) {
        match mishap {
            Mishap::None => {}
            Mishap::Cut(after, length) => {
                sleep(after).await;
                self.net.cut(machine(self.number), true);
                sleep(length).await;
                self.net.cut(machine(self.number), false);
            }
            Mishap::Move(after) => {
                sleep(after).await;
                let socket = self.net.socket((machine(self.number + 100), 6000).into());
                self.endpoint.rebind_abstract(socket).unwrap();
            }
            Mishap::Narrow(after) => {
                sleep(after).await;
                self.net.narrow(1252);
            }
        }
    }
}

/// The server, which serves whoever comes.
async fn hub(net: &Net, seed: u64, credentials: &Credentials, blobs: BlobDir) {
    let config = seeded(endpoint::restartable(&credentials.reset_secret()), seed, 0);
    let server = endpoint::server_config(credentials, false, Congestion::Cubic).unwrap();
    let endpoint =
        Endpoint::new_with_abstract_socket(config, Some(server), net.socket(SERVER), Arc::new(TokioRuntime));
    let endpoint = endpoint.unwrap();
    while let Some(incoming) = endpoint.accept().await {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                // What a server's only transfer may have in flight.
                connection.set_receive_window(endpoint::window(1, connection.rtt(), u64::MAX).into());
                serve(connection.into(), blobs).await;
            }
        });
    }
}

/// The certificates of all worlds: to make them takes longer than to live through one.
struct Parties {
    hub: Credentials,
    site: Credentials,
}

impl Parties {
    fn new() -> Self {
        let authority = Authority::new();
        Self { hub: authority.party(Role::Server, "hub"), site: authority.party(Role::Site, "a") }
    }
}

fn play(scenario: &Scenario, seed: u64, parties: &Parties) -> Outcome {
    simulate(async {
        let start = Instant::now();
        let net = Net::new(scenario.road, seed);
        let random = &mut Random(!seed);
        let server = Blobs::new();
        let fetch = server.dir.insert(&random.bytes(scenario.length)).unwrap();
        let sites: Vec<(Site, Load)> = (1..=scenario.sites)
            .map(|number| {
                let site = Site::new(&net, number, seed, &parties.site, scenario.limits);
                let put = site.blobs.dir.insert(&random.bytes(scenario.length)).unwrap();
                (site, Load { fetch, put })
            })
            .collect();
        let all = async {
            let mut work: Vec<_> = Vec::new();
            for (site, load) in &sites {
                work.push(site.work(load));
            }
            let mishap = sites[0].0.suffer(scenario.mishap);
            tokio::join!(futures::future::join_all(work), mishap).0
        };
        let results = tokio::select! {
            biased;
            results = timeout(Duration::from_secs(3600), all) => results.expect("it takes an hour"),
            () = hub(&net, seed, &parties.hub, server.dir.clone()) => unreachable!("the server never stops"),
        };
        for (site, load) in &sites {
            assert_eq!(BlobId::of(&site.blobs.dir.read(fetch).unwrap()), fetch);
            assert_eq!(BlobId::of(&server.dir.read(load.put).unwrap()), load.put);
        }
        Outcome {
            trace: net.trace(),
            took: start.elapsed(),
            waits: results.iter().map(|(wait, _)| *wait).collect(),
            connections: results.iter().map(|(_, connections)| connections).sum(),
        }
    })
}

#[test]
fn whatever_the_line_does_every_blob_arrives_whole() {
    let parties = Parties::new();
    let (mut resumed, mut bounded) = (0, 0);
    for seed in 0..300 {
        let scenario = Scenario::of(seed);
        let outcome = play(&scenario, seed, &parties);
        resumed += u32::from(outcome.connections > u32::from(scenario.sites));
        let Road { delay, jitter, queue, loss, .. } = scenario.road;
        if loss == 0.0 && matches!(scenario.mishap, Mishap::None) {
            // There, back, and once more for what TCP would have had to send again: the queue drops, too.
            let round_trip = 2 * (delay + jitter + queue);
            let longest = outcome.waits.iter().max().copied().unwrap_or_default();
            assert!(longest < 3 * round_trip, "seed {seed}: a word waited {longest:?}: {scenario:?}");
            bounded += 1;
        }
    }
    assert!(resumed > 30 && bounded > 10, "{resumed} worlds lost a connection, {bounded} had a quiet line");
}

#[test]
fn the_same_seed_does_the_same_again() {
    let parties = Parties::new();
    for seed in [3, 7, 12, 19] {
        let scenario = Scenario::of(seed);
        let first = play(&scenario, seed, &parties);
        assert_eq!(first, play(&scenario, seed, &parties), "{scenario:?}");
        assert_ne!(first.trace, play(&scenario, seed + 1000, &parties).trace);
    }
}

#[test]
fn a_word_does_not_wait_for_bulk_on_a_slow_line() {
    // 1 Mbit/s: two megabytes take a quarter of a minute each way.
    let road = Road { rate: 125e3, ..GOOD };
    let scenario = Scenario { length: 2_000_000, ..quiet(road) };
    let outcome = play(&scenario, 1, &Parties::new());
    assert!(outcome.took > Duration::from_secs(16), "the line was full: {outcome:?}");
    assert!(outcome.waits[0] < Duration::from_millis(500), "{outcome:?}");
}

#[test]
fn a_change_of_address_keeps_the_connection() {
    let road = Road { rate: 125e3, ..GOOD };
    let mishap = Mishap::Move(Duration::from_secs(2));
    let scenario = Scenario { mishap, length: 500_000, ..quiet(road) };
    let outcome = play(&scenario, 1, &Parties::new());
    assert_eq!(outcome.connections, 1, "{outcome:?}");
}

#[test]
fn a_path_that_grows_narrow_is_noticed() {
    let mishap = Mishap::Narrow(Duration::from_secs(2));
    let scenario = Scenario { mishap, length: 500_000, ..quiet(Road { rate: 125e3, ..GOOD }) };
    let outcome = play(&scenario, 1, &Parties::new());
    assert_eq!(outcome.connections, 1, "{outcome:?}");
    assert!(outcome.took < Duration::from_secs(20), "{outcome:?}");
}

#[test]
fn a_site_that_was_cut_off_for_a_minute_resumes_where_it_was() {
    let road = Road { rate: 125e3, ..GOOD };
    let mishap = Mishap::Cut(Duration::from_secs(14), Duration::from_secs(65));
    let scenario = Scenario { mishap, length: 2_000_000, ..quiet(road) };
    let outcome = play(&scenario, 1, &Parties::new());
    assert_eq!(outcome.connections, 2, "{outcome:?}");
    // Everything takes 16 seconds: from the start again it would be so many more.
    assert!(outcome.took < Duration::from_secs(14 + 65 + 12), "{outcome:?}");
}

#[test]
fn bulk_keeps_to_its_limits_and_words_do_not_wait() {
    let limits = Limits {
        upload: Some("100kB/s".parse().unwrap()),
        download: Some("200kB/s".parse().unwrap()),
        hours: None,
    };
    let scenario = Scenario { length: 2_000_000, limits, ..quiet(GOOD) };
    let outcome = play(&scenario, 1, &Parties::new());
    let took = outcome.took.as_secs_f64();
    assert!((20.0..21.0).contains(&took), "two megabytes at 100 kB/s: {outcome:?}");
    assert!(outcome.waits[0] < Duration::from_millis(300), "{outcome:?}");
}
