//! Every message of a secure sum and everything in one, from bytes that anybody may have sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_common::record::SignedRecord;
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::message::{
    Answer, Ask, RevealedShare, SealedShare, Signature, SignedAdvertisement,
};
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_fuzz::round_trip;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 10 {
        0 => round_trip::<Ask>(body),
        1 => round_trip::<Answer>(body),
        2 => round_trip::<SignedAdvertisement>(body),
        3 => round_trip::<SealedShare>(body),
        4 => round_trip::<RevealedShare>(body),
        5 => round_trip::<Signature>(body),
        6 => round_trip::<Layout>(body),
        7 => round_trip::<Encoding>(body),
        8 => round_trip::<SignedRecord>(body),
        _ => round_trip::<RoundParams>(body),
    }
});
