//! The aggregation server, and the operator's command line that talks to it. Never links libtorch.
//!
//! * [`core`]: every decision about a run, as a state machine without IO. Read this first.
//! * [`journal`]: one step of a run: what is durable before anything is done.
//! * [`server`]: the shell around it, with the one `select!`: events in, effects out.
//! * `state`: what the shell owns, and what each event does to it.
//! * [`connection`]: one task per connection, turning streams into events.
//! * [`registry`]: who is connected and what they may fetch.
//! * [`enrolment`]: certificates for sites that have none yet, or whose own ends.
//! * [`submit`]: from `run.toml` to a run whose initial parameters are a blob.
//! * [`aggregation`]: the mean of a round's updates. `delta`: an update's blob.
//! * [`opening`]: the same from a secure sum. [`publication`]: what the server signs of either.
//! * [`store`]: what survives a crash; `audit`: what is written down of it for an auditor. [`retention`]: which blobs are
//!   let go of. [`backup`]: a copy of all that.
//! * [`pki`]: the federation's certificates.
//! * [`cli`]: the program `sheaf`.

pub mod aggregation;
mod audit;
pub mod backup;
pub mod cli;
pub mod config;
pub mod connection;
pub mod core;
mod delta;
pub mod enrolment;
pub mod journal;
pub mod opening;
pub mod pki;
pub mod publication;
pub mod registry;
mod report;
pub mod retention;
pub mod server;
mod state;
pub mod store;
pub mod submit;
mod throttle;
