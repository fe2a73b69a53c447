//! A round without training: a server and N clients, each a process of its own, over TLS. Clients return what they got plus
//! a constant. Everybody shares the processors of one machine.

mod peer;
mod sheaf;

use std::path::PathBuf;

use self::sheaf::{LOSING, PLAIN, SECURE};
use crate::case::{Case, Group};
use crate::settings::Settings;

/// Sizes of the model in megabytes, and numbers of clients, where none are asked for.
const SIZES: [u32; 4] = [1, 10, 100, 400];
const CLIENTS: [u32; 4] = [4, 8, 16, 64];
/// The same of secure rounds: 1, 10 and 100 million values.
const SECURE_SIZES: [u32; 3] = [4, 40, 400];
/// Where only one thing about a federation matters.
const FEW: [u32; 1] = [8];

/// The fewest clients of which one may be lost while a third of them may collude with the server.
const LOSABLE: u32 = 4;

/// Megabytes of the models of all clients together that are in the memory of one machine.
const MOST: u32 = 3200;
/// The same of the others, who take more of it, and their clients.
const PEERS_MOST: u32 = 1600;
const PEERS_CLIENTS: u32 = 8;
/// Megabytes up to which SecAgg+ takes part; with eight clients its round takes half a minute.
const SECAGG_PLUS_MAX: u32 = 4;

/// What is asked of each contestant.
#[derive(Clone, Copy, Debug)]
struct Work {
    megabytes: u32,
    clients: u32,
    rounds: u32,
}

impl Work {
    /// Bytes of the model, to every client and back, in so many rounds.
    fn payload(self, rounds: u32) -> f64 {
        2.0 * f64::from(self.clients) * f64::from(rounds) * f64::from(self.megabytes) * 1e6
    }

    /// Whether others take part.
    fn is_for_all(self) -> bool {
        self.clients <= PEERS_CLIENTS && self.clients.saturating_mul(self.megabytes) <= PEERS_MOST
    }
}

/// What is waited from until a client is asked to train.
#[derive(Clone, Copy, Debug)]
enum Since {
    /// There is no process yet.
    Nothing,
    /// Server and clients are up and the run is submitted.
    Submit,
}

/// All sizes with all numbers of clients.
pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    works(settings, &SIZES, &CLIENTS)
        .map(|work| {
            let mut group = vec![case("round", "Sheaf", work, move || sheaf::run(work, PLAIN))];
            if let Some(python) = settings.peers.clone().filter(|_| work.is_for_all()) {
                group.extend([peer::FLOWER, peer::NVFLARE].map(|peer| {
                    let python: PathBuf = python.clone();
                    case("round", peer.name, work, move || peer::run(&peer, work, &python))
                }));
            }
            group
        })
        .collect()
}

/// With secure aggregation: as it is by default, with a client that is lost in each round, and against none.
pub(crate) fn secure_groups(settings: &Settings) -> Vec<Group> {
    let secure = |work: Work| {
        let mut group = vec![
            case("secure round", "Sheaf", work, move || sheaf::run(work, SECURE)),
            case("secure round", "Sheaf, not encrypted", work, move || sheaf::run(work, PLAIN)),
        ];
        if work.clients >= LOSABLE {
            group
                .push(case("secure round", "Sheaf, one client lost", work, move || sheaf::run(work, LOSING)));
        }
        let takes_part = work.is_for_all() && work.megabytes <= SECAGG_PLUS_MAX;
        if let Some(python) = settings.peers.clone().filter(|_| takes_part) {
            let peer = peer::SECAGG_PLUS;
            group.push(case("secure round", peer.name, work, move || peer::run(&peer, work, &python)));
        }
        group
    };
    works(settings, &SECURE_SIZES, &FEW).map(secure).collect()
}

/// How long it takes until a client is asked to train, with the smallest model.
pub(crate) fn start_groups(settings: &Settings) -> Vec<Group> {
    let [nothing, submit] = ["start from nothing", "start from submit"];
    let start = |clients: &u32| {
        let work = Work { megabytes: 1, clients: *clients, rounds: 1 };
        let mut groups = [
            vec![case(nothing, "Sheaf", work, move || sheaf::start(work, Since::Nothing))],
            vec![case(submit, "Sheaf", work, move || sheaf::start(work, Since::Submit))],
        ];
        // NVFLARE starts its clients and submits in one step.
        let peers = [
            (nothing, peer::FLOWER, Since::Nothing),
            (nothing, peer::NVFLARE, Since::Nothing),
            (submit, peer::FLOWER, Since::Submit),
        ];
        for (workload, peer, since) in peers {
            if let Some(python) = settings.peers.clone() {
                let run = move || peer::start(&peer, work, &python, since);
                groups[usize::from(workload == submit)].push(case(workload, peer.name, work, run));
            }
        }
        groups
    };
    asked(&settings.clients, &FEW).iter().flat_map(start).collect()
}

/// All sizes with all numbers of clients that a machine's memory holds.
fn works<'a>(
    settings: &'a Settings,
    sizes: &'a [u32],
    clients: &'a [u32],
) -> impl Iterator<Item = Work> + 'a {
    let (sizes, clients) = (asked(&settings.sizes, sizes), asked(&settings.clients, clients));
    let works = sizes.iter().flat_map(|megabytes| {
        clients.iter().map(|clients| Work {
            megabytes: *megabytes,
            clients: *clients,
            rounds: settings.rounds,
        })
    });
    works.filter(|work| {
        let all = work.clients.saturating_mul(work.megabytes);
        if all > MOST {
            eprintln!(
                "{} MB x {}: left out, as all models together come to {all} MB, of which {MOST} are measured",
                work.megabytes, work.clients
            );
        }
        all <= MOST
    })
}

fn asked<'a>(asked: &'a [u32], otherwise: &'a [u32]) -> &'a [u32] {
    if asked.is_empty() { otherwise } else { asked }
}

fn case(
    workload: &'static str,
    contestant: &'static str,
    work: Work,
    run: impl Fn() -> anyhow::Result<crate::case::Sample> + 'static,
) -> Case {
    let (size_mb, clients) = (f64::from(work.megabytes), work.clients);
    Case { workload, contestant, size_mb, clients, run: Box::new(run) }
}
