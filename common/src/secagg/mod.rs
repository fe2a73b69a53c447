//! Secure aggregation: the server learns the sum of the updates and nothing about any one of them.
//!
//! Masked sums in the manner of Bonawitz et al. 2017, with signed keys, a signed set of survivors, hidden weights
//! and checks of the sum. Both sides are state machines without IO; the shells give them messages, randomness and
//! chunks of vectors. `docs/secure-aggregation.md` tells the protocol. Read in this order:
//!
//! 1. [`message`]: what server and sites say to each other; [`params`]: the terms; [`transcript`]: what binds it all.
//! 2. [`client`] and [`server`]: the two sides, a state a file.
//! 3. [`layout`], [`mask`], [`outcome`]: from an update to a masked vector, and from the sum to the mean;
//!    [`crate::record`]: what the server says of it.
//! 4. The primitives: [`secret`], [`shamir`], [`keys`], [`seal`], [`prg`], [`ring`], [`quantize`], [`check`],
//!    [`graph`], [`kem`].

pub mod check;
pub mod client;
pub mod graph;
pub mod kem;
pub mod keys;
pub mod layout;
pub mod mask;
pub mod message;
pub mod outcome;
pub mod params;
pub mod prg;
pub mod quantize;
pub mod ring;
pub mod seal;
pub mod secret;
pub mod server;
pub mod shamir;
pub mod transcript;

#[cfg(test)]
mod protocol;
