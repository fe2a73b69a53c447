//! The aggregation server, and the operator's command line that talks to it. Never links libtorch.
//!
//! * [`core`]: every decision about a run, as a state machine without IO. Read this first.
//! * [`server`]: the shell around it, with the one `select!`: events in, effects out.
//! * `state`: what the shell owns, and what each event does to it.
//! * [`connection`]: one task per connection, turning streams into events.
//! * [`registry`]: who is connected and what they may fetch.
//! * [`submit`]: from `run.toml` to a run whose initial parameters are a blob.
//! * [`aggregation`]: the mean of a round's updates.
//! * [`opening`]: the same from a secure sum.
//! * [`store`]: what survives a crash.
//! * [`pki`]: the federation's certificates.
//! * [`cli`]: the program `sheaf`.

pub mod aggregation;
pub mod cli;
pub mod config;
pub mod connection;
pub mod core;
pub mod opening;
pub mod pki;
pub mod registry;
mod report;
pub mod server;
mod state;
pub mod store;
pub mod submit;
mod throttle;
