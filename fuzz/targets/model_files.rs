//! The files of a model from anybody: config.json, the header of model.safetensors, a manifest, a GGUF file, a state dict of
//! PyTorch, a TorchScript module.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use sheaf_common::model::foreign;
use sheaf_common::model::foreign::gguf::Gguf;
use sheaf_common::model::{Manifest, ModelConfig, Weights};

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            let _ = ModelConfig::parse(body);
        }
        1 => {
            // The file may claim any length.
            for length in [body.len() as u64, u64::MAX, 1 << 40] {
                if let Ok(weights) = Weights::parse(body, length) {
                    assert!(weights.num_params() <= length);
                }
            }
        }
        2 => {
            if let Ok(index) = foreign::torch::index(&mut Cursor::new(body), body.len() as u64) {
                assert!(index.tensors().all(|tensor| tensor.offset + tensor.bytes <= body.len() as u64));
            }
            if let Ok(module) = foreign::script::module(&mut Cursor::new(body), body.len() as u64) {
                assert!(module.parameters.iter().all(|p| p.offset + p.bytes <= body.len() as u64));
            }
        }
        3 => {
            let file = [b"GGUF\x03\0\0\0", body].concat();
            if let Ok(gguf) = Gguf::parse(&file, file.len() as u64) {
                for tensor in gguf.convert().map_or_else(|_| Vec::new(), |converted| converted.tensors) {
                    let start = tensor.stored.offset as usize;
                    let values = tensor.values(&file[start..start + tensor.stored.bytes as usize]);
                    assert_eq!(Some(values.len() as u64), tensor.stored.numel());
                }
            }
        }
        _ => {
            if let Ok(manifest) = Manifest::parse(body) {
                let again = Manifest::parse(&manifest.to_json()).expect("a manifest reads itself");
                assert_eq!(again.id(), manifest.id());
            }
        }
    }
});
