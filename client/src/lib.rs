//! The site's daemon: dials out, trains on private data with libtorch, sends updates.
//!
//! * [`session`]: the site's side of the protocol, as a state machine without IO. Read this first.
//! * [`client`]: the shell around it: messages and results in, effects out.
//! * [`link`]: the connection, kept up. [`worker`]: the thread that trains. [`state`]: what survives a restart.
//! * [`departure`]: an update as it leaves the site, in fewer bytes where its run asks for that.
//! * `transfers`: a task's blobs to the site, its update to the server. `moving`: the one that is under way.
//! * [`pace`]: how long what is under way still takes. [`memory`]: what is freed is kept for the next step.
//! * [`gate`], [`approval`]: whether the site takes part in a run: its people, its clock, and who asked for it.
//! * [`party`], [`masking`], [`verification`]: the site in a secure sum: its signature, its masked vector, and seeing for
//!   itself that the sum and the model made of it are right.
//! * [`trainer`]: the seam to whatever trains, and behind it libtorch. [`data`]: the site's own files.
//! * [`audit`]: what the site writes down for its auditor. [`identity`]: its key and certificate: how they are made.
//! * [`config`]: `site.toml`. [`device`]: CPU or GPU.
//! * [`offline`]: what a site engineer does without a server: check, train alone, evaluate.

pub mod approval;
pub mod audit;
pub mod client;
pub mod config;
pub mod data;
pub mod departure;
pub mod device;
pub mod gate;
pub mod identity;
pub mod link;
pub mod masking;
pub mod memory;
mod moving;
pub mod offline;
pub mod pace;
pub mod party;
pub mod session;
pub mod state;
pub mod trainer;
mod transfers;
pub mod verification;
pub mod worker;
