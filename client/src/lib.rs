//! The site's daemon: dials out, trains on private data with libtorch, sends updates.

pub mod data;
pub mod device;
pub mod trainer;
