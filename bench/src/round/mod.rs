//! A round without training: a server and N clients, each a process of its own, over TLS. Clients return what they got plus
//! a constant. Everybody shares the processors of one machine.

mod peer;
mod sheaf;

use std::path::PathBuf;

use crate::case::{Case, Group};
use crate::settings::Settings;

/// Megabytes up to which SecAgg+ takes part.
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
    works(settings)
        .map(|work| {
            let mut group = vec![case("round", "Sheaf", work, move || sheaf::run(work, "off"))];
            if let Some(python) = settings.peers.clone() {
                group.extend([peer::FLOWER, peer::NVFLARE].map(|peer| {
                    let python: PathBuf = python.clone();
                    case("round", peer.name, work, move || peer::run(&peer, work, &python))
                }));
            }
            group
        })
        .collect()
}

/// With secure aggregation: as it is by default, against none.
pub(crate) fn secure_groups(settings: &Settings) -> Vec<Group> {
    let secure = |work: Work| {
        let mut group = vec![
            case("secure round", "Sheaf", work, move || sheaf::run(work, "required")),
            case("secure round", "Sheaf, not encrypted", work, move || sheaf::run(work, "off")),
        ];
        // A million values take it a minute a round.
        if let Some(python) = settings.peers.clone().filter(|_| work.megabytes <= SECAGG_PLUS_MAX) {
            let peer = peer::SECAGG_PLUS;
            group.push(case("secure round", peer.name, work, move || peer::run(&peer, work, &python)));
        }
        group
    };
    works(settings).map(secure).collect()
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
    settings.clients.iter().flat_map(start).collect()
}

fn works(settings: &Settings) -> impl Iterator<Item = Work> + '_ {
    settings.sizes.iter().flat_map(|megabytes| {
        settings.clients.iter().map(|clients| Work {
            megabytes: *megabytes,
            clients: *clients,
            rounds: settings.rounds,
        })
    })
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
