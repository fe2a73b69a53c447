//! What `run.toml` says of updates in fewer bytes.

use super::*;
use crate::compression::{Compression, Encoding};

fn with(compression: &str) -> Result<Compression, String> {
    let model = "model = { architecture = \"constant\", parameters = 4 }\ntask = { type = \"none\" }";
    let text = format!(
        "name = \"toy\"\nrounds = 1\nsecure_aggregation = \"off\"\n{model}\n[compression]\n{compression}"
    );
    parse(&text).map(|run| run.compression)
}

#[test]
fn every_encoding_is_read() {
    let cases = [
        ("", Encoding::F32, false),
        ("zstd = true", Encoding::F32, true),
        ("encoding = \"bf16\"", Encoding::Bf16, false),
        ("encoding = \"int8\"\nzstd = true", Encoding::Int8, true),
        ("encoding = \"top-k\"\nshare = 0.01", Encoding::TopK(0.01), false),
    ];
    for (written, encoding, zstd) in cases {
        assert_eq!(with(written), Ok(Compression { encoding, zstd }));
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let cases = [
        (
            "encoding = \"int4\"",
            "compression.encoding: `int4` is unknown; write \"f32\", \"bf16\", \"int8\" or \"top-k\"",
        ),
        ("share = 0.1", "compression.share: goes with encoding = \"top-k\" only"),
        (
            "encoding = \"top-k\"",
            "compression.share: is missing: it says which share of the values is sent, as 0.1",
        ),
        ("encoding = \"top-k\"\nshare = 0", "compression.share: 0 is not above 0 and at most 1"),
        ("encoding = \"top-k\"\nshare = nan", "compression.share: NaN is not above 0 and at most 1"),
    ];
    for (written, sentence) in cases {
        let said = with(written).unwrap_err();
        assert!(said.ends_with(sentence), "{said}");
    }
    let encrypted = "name = \"toy\"\nrounds = 1\nmodel = { architecture = \"constant\", parameters = 4 }\n\
        task = { type = \"none\" }\ncompression = { zstd = true }";
    assert_eq!(
        parse(encrypted).unwrap_err(),
        "run.toml:5: compression: is of updates that the server sees: with secure aggregation set secagg.quantization_bits instead, from 8 to 24"
    );
}
