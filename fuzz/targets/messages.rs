//! Every message of the protocol, from bytes that anybody may have sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_common::message::{BlobReply, Open, Reply, Request, ServerMessage, SiteMessage};
use sheaf_fuzz::round_trip;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 6 {
        0 => round_trip::<Open>(body),
        1 => round_trip::<SiteMessage>(body),
        2 => round_trip::<ServerMessage>(body),
        3 => round_trip::<Request>(body),
        4 => round_trip::<Reply>(body),
        _ => round_trip::<BlobReply>(body),
    }
});
