//! .
pub mod pki;
