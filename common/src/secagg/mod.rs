//! Secure aggregation: the server learns the sum of the updates and nothing about any one of them.
//!
//! Bonawitz et al. 2017, with signed keys and a signed set of survivors. Read the primitives in this order:
//! [`secret`], [`shamir`], [`keys`], [`seal`], [`prg`], [`ring`], [`quantize`], [`check`], [`graph`], [`kem`].

pub mod check;
pub mod graph;
pub mod kem;
pub mod keys;
pub mod prg;
pub mod quantize;
pub mod ring;
pub mod seal;
pub mod secret;
pub mod shamir;
