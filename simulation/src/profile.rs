//! What a virtual client is like: how fast it computes, how it is connected, and when it is not there. All of it is drawn
//! from the simulation's seed, from a stream of its own for each client, purpose and round.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp};
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::seed;

use crate::config::{Availability, Devices, Network, Simulation};

/// Bits of a byte, per second and megabit.
const BYTES_PER_MBIT: f64 = 1e6 / 8.0;

/// Messages of a site in an attempt at a secure sum: it is ready, and four stages.
const WORDS: u32 = 5;

/// A client's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    speed: f64,
    latency: f64,
    down: f64,
    up: f64,
}

/// How a client behaves in an attempt at a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mood {
    /// How many times slower than usual it trains.
    pub slowdown: f64,
    /// After so many messages it falls silent, if it does.
    pub silent_after: Option<u32>,
}

impl Profile {
    /// A client's speed and line.
    pub fn of(simulation: &Simulation, name: &ClientId) -> Self {
        let random = |what| seed::stream(simulation.seed, &[what, name.as_str()]);
        let (Devices { speed, .. }, Network { latency_ms, down_mbit, up_mbit }) =
            (&simulation.devices, &simulation.network);
        Self {
            speed: speed.draw(&mut random("speed")),
            latency: latency_ms.draw(&mut random("latency")) / 1000.0,
            down: down_mbit.draw(&mut random("down")) * BYTES_PER_MBIT,
            up: up_mbit.draw(&mut random("up")) * BYTES_PER_MBIT,
        }
    }

    /// How long a message of so many bytes takes from the server.
    pub fn receive(&self, bytes: u64) -> Duration {
        seconds(self.latency + bytes as f64 / self.down)
    }

    /// How long one takes to the server.
    pub fn send(&self, bytes: u64) -> Duration {
        seconds(self.latency + bytes as f64 / self.up)
    }

    /// How long it takes to pass over so many examples.
    pub fn compute(&self, examples: u64, slowdown: f64) -> Duration {
        seconds(examples as f64 / self.speed * slowdown)
    }
}

/// How a client behaves in an attempt at a round.
pub fn mood(simulation: &Simulation, name: &ClientId, task: &TaskId, is_secure: bool) -> Mood {
    let devices = &simulation.devices;
    let labels = [name.as_str(), &task.round.to_string(), &task.attempt.to_string()];
    let random = |what| seed::stream(simulation.seed, &[[what].as_slice(), &labels].concat());
    let is_slow = random("straggler").random_bool(devices.stragglers.share);
    let drops = &mut random("dropout");
    let is_silent = drops.random_bool(devices.dropout);
    Mood {
        slowdown: if is_slow { devices.stragglers.slowdown } else { 1.0 },
        silent_after: is_silent.then(|| if is_secure { drops.random_range(0..WORDS) } else { 0 }),
    }
}

/// Whether a client is there at the beginning.
pub fn begins_online(simulation: &Simulation, name: &ClientId) -> bool {
    let random = &mut seed::stream(simulation.seed, &["online", name.as_str()]);
    simulation.devices.availability.is_none_or(|availability| random.random_bool(availability.share))
}

/// How long a client stays as it is after it has come and gone so many times.
pub fn stays(
    availability: Availability,
    seed: u64,
    name: &ClientId,
    is_online: bool,
    changes: u64,
) -> Duration {
    let Availability { share, online } = availability;
    let mean = if is_online { 1.0 } else { (1.0 - share) / share } * online.as_secs_f64();
    let random = &mut seed::stream(seed, &["availability", name.as_str(), &changes.to_string()]);
    seconds(exponential(mean, random))
}

fn exponential(mean: f64, random: &mut impl Rng) -> f64 {
    Exp::new(1.0 / mean).map_or(mean, |times| times.sample(random))
}

/// At least a millisecond, which is the simulation's unit; what is longer than anybody waits is as long as that.
fn seconds(seconds: f64) -> Duration {
    const LONGEST: f64 = 1e10;
    Duration::from_secs_f64(seconds.clamp(0.001, LONGEST))
}
