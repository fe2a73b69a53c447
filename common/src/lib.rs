//! The protocol and every decision of Sheaf, as plain values and functions.
//!
//! Nothing here touches a clock, a file, a thread or a socket: time, randomness and bytes are passed in, so
//! that whatever happens in a federation can be replayed from what was passed in. Read in this order:
//!
//! 1. [`id`], [`blob`], [`params`]: the names of things.
//! 2. [`run`]: what a data scientist asks for (`run.toml`), checked whole.
//! 3. [`message`]: what server, sites and operators say to each other; [`wire`]: how it is encoded; [`checked`]: how a record
//!    lies on a disk; [`author`]: whose word a run is.
//! 4. [`model`]: pretrained models as folders, and which of their parameters travel.
//! 5. [`metrics`]: counts that can be added over sites without losing anything.
//! 6. [`aggregate`]: the exact sum of updates and what the server makes of it; [`compression`]: updates in fewer bytes.
//! 7. [`secagg`]: the same sum without anybody seeing one site's update.
//! 8. [`status`]: what an operator sees; [`enrolment`]: how a site gets its certificate.

pub mod aggregate;
pub mod author;
pub mod blob;
pub mod checked;
pub mod compression;
pub mod config;
pub mod enrolment;
pub mod id;
pub mod message;
pub mod metrics;
pub mod model;
pub mod params;
pub mod record;
pub mod run;
pub mod secagg;
pub mod seed;
pub mod status;
pub mod time;
pub mod wire;
