//! What the server, the sites and the operator's command line share of the network.
//!
//! * [`tls`]: who we are and who the peer is, from certificates; [`key`]: private keys, in files and in memory.
//! * [`authority`]: whom certificates that come in messages belong to; signing with our own.
//! * [`enrolment`]: how a site without a certificate asks for one; [`files`]: keys and certificates as files;
//!   [`reload`]: their changing while a program runs; [`audit`]: what a program did, signed and chained.
//! * [`endpoint`]: QUIC with settings for long trainings behind firewalls; [`connection`] is one over it, or over TCP
//!   where UDP is blocked, and the same to everything above. `socket`, beneath QUIC, takes long packets in numbers.
//! * [`network`]: what a party says of the network that it is in; [`dial`] reaches the server through it, by a
//!   [`proxy`] if need be; [`listener`] takes in whoever comes, as many as
//!   [`gate`] lets in; [`issuer`] tells of TLS that is looked into on the way.
//! * [`frames`]: control messages on a stream; [`pace`]: how fast bulk may go, and when.
//! * [`blobs`]: files named by their hash, on disk; [`transfer`] moves them, resumable at any offset; [`chunks`] works
//!   on long ones on all cores; [`open_files`]: as many at once as the system lets us.
//! * [`durable`]: files and folders that survive a loss of power.
//! * [`base`]: an imported model among blobs, and what it adds to the parameters of a round.
//!
//! It decides nothing about rounds: it turns bytes into messages and back.

pub mod audit;
pub mod authority;
pub mod base;
pub mod blobs;
pub mod chunks;
pub mod connection;
pub mod dial;
pub mod durable;
pub mod endpoint;
pub mod enrolment;
pub mod files;
pub mod frames;
pub mod gate;
pub mod issuer;
pub mod key;
pub mod listener;
pub mod network;
pub mod open_files;
pub mod pace;
pub mod proxy;
pub mod reload;
#[cfg(test)]
mod simulation;
mod socket;
pub mod tls;
pub mod transfer;
