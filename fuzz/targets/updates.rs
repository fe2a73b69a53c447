//! Updates in fewer bytes, from a site that may have made them up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_common::compression::{BLOCK, BLOCK_HEADER, Block, HEADER, opened};

fuzz_target!(|data: &[u8]| {
    let Some((header, mut rest)) = data.split_first_chunk::<HEADER>() else { return };
    let Some((form, numel)) = opened(*header) else { return };
    let mut values = vec![0.0; BLOCK];
    for start in (0..numel).step_by(BLOCK) {
        let values = &mut values[..(numel - start).min(BLOCK as u64) as usize];
        let Some((header, after)) = rest.split_first_chunk::<BLOCK_HEADER>() else { return };
        let Ok(block) = Block::opened(*header, form, values.len()) else { return };
        let Some((bytes, after)) = after.split_at_checked(block.length) else { return };
        if block.unpack(form, bytes, values).is_err() {
            return;
        }
        rest = after;
    }
});
