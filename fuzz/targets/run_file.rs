//! A `run.toml` from anybody: a run, or one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_common::run::RunSpec;

fuzz_target!(|text: &str| {
    match RunSpec::parse("run.toml", text) {
        // A run that was understood travels.
        Ok(spec) => {
            let bytes = sheaf_common::wire::encode_record(&spec).expect("a run can be written down");
            let again: RunSpec = sheaf_common::wire::decode_record(&bytes).expect("and read back");
            assert_eq!(again, spec);
        }
        Err(error) => assert!(error.to_string().starts_with("run.toml")),
    }
});
