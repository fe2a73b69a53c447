//! A whole secure sum, with messages replaced on their way in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| sheaf_fuzz::attempt::play(data));
