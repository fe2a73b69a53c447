//! Simulates a whole federation in one process: the real coordinator, the real sessions, trainer, messages and secure sums,
//! on simulated time, with as many virtual clients as one likes.
//!
//! * [`config`]: `sim.toml`. [`data`] and [`partition`]: who holds which examples.
//! * [`federation`]: one event after the other. Read this first. [`agenda`]: what is to come.
//! * [`hub`]: the server without its network; [`client`]: a site without its own; [`identity`]: their certificates.
//! * [`base`]: the imported model that all start from.
//! * [`profile`]: how fast and how reliable a client is. [`pool`]: who trains for all of them.
//! * [`rounds`] and [`scoring`]: what is measured, kept in a `log`; [`baselines`]: what it is compared with.
//! * [`quic`]: the same over a real network, with the real programs' shells.
//! * [`simulate`](mod@simulate): from a file to a `folder` of results, which [`output`] writes; tables as `columns`.
//! * [`compare`]: variants side by side, which [`plot`] draws.
//! * [`cli`]: the program `sheaf-sim`.

pub mod agenda;
pub mod base;
pub mod baselines;
pub mod cli;
pub mod client;
mod columns;
pub mod compare;
pub mod config;
pub mod data;
pub mod federation;
mod folder;
pub mod hub;
pub mod identity;
mod log;
pub mod output;
pub mod partition;
pub mod plot;
pub mod pool;
pub mod profile;
pub mod quic;
pub mod rounds;
pub mod scoring;
pub mod simulate;
