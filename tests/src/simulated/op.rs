//! What may happen to a federation, in any order.

use rand::RngExt;
use rand::seq::IndexedRandom;
use sheaf_common::seed;

use super::SITES;

/// Something that happens. Sites are told by their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// One of all the things that are under way goes on: a message arrives, a job is done.
    Go(usize),
    /// The daemon starts, and connects if the server lets it.
    Join(usize),
    /// The daemon stops, and the server is told.
    Leave(usize),
    /// The connection breaks; whether the server notices.
    Cut(usize, bool),
    /// The next message to the server is lost.
    LoseAnswer(usize),
    /// The next message to the site is lost.
    LoseQuestion(usize),
    /// The next message to the server arrives twice.
    AnswerTwice(usize),
    /// The next blob to or from the site is damaged on the way.
    Damage(usize),
    /// An update at the server loses its end.
    Truncate(usize),
    /// Seconds pass, so that what is under way may be late.
    Wait(u64),
    /// `kill -9` of the server, after so many more steps.
    CrashServer(u64),
    /// `kill -9` of a site, after so many more steps.
    CrashSite(usize, u64),
    /// An operator sends a site away for now, and keeps what it gave or not.
    Suspend(usize, bool),
    /// An operator lets it in again.
    Resume(usize),
    /// An operator sends a site away for good.
    Revoke(usize, bool),
    /// An operator stops the run.
    Stop,
}

/// What a seed makes happen: mostly a run that gets on, and now and then something else.
pub fn ops(seed: u64) -> Vec<Op> {
    let rng = &mut seed::stream(seed, &["simulation"]);
    let count = rng.random_range(20..160);
    // Some federations are quiet, some are not.
    let trouble = *[0.03, 0.1, 0.25].choose(rng).unwrap_or(&0.1);
    let one = |_| {
        let site = rng.random_range(0..SITES.len());
        match rng.random_range(0..100) {
            _ if !rng.random_bool(trouble) => Op::Go(rng.random_range(0..64)),
            0..30 => Op::Join(site),
            30..36 => Op::Leave(site),
            36..46 => Op::Cut(site, rng.random()),
            46..50 => Op::LoseAnswer(site),
            50..54 => Op::LoseQuestion(site),
            54..60 => Op::AnswerTwice(site),
            60..63 => Op::Damage(site),
            63..65 => Op::Truncate(rng.random_range(0..8)),
            65..73 => Op::Wait(rng.random_range(1..40)),
            73..83 => Op::CrashServer(rng.random_range(0..12)),
            83..93 => Op::CrashSite(site, rng.random_range(0..6)),
            93..96 => Op::Suspend(site, rng.random()),
            96..98 => Op::Resume(site),
            98 => Op::Revoke(site, rng.random()),
            _ => {
                if rng.random_bool(0.2) {
                    Op::Stop
                } else {
                    Op::Resume(site)
                }
            }
        }
    };
    (0..count).map(one).collect()
}

/// The shortest list that still fails, found by leaving out one after the other.
pub fn shrink(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut at = 0;
    while at < ops.len() {
        let left_out = ops.remove(at);
        if fails(&ops) {
            at = 0;
        } else {
            ops.insert(at, left_out);
            at += 1;
        }
    }
    ops
}
