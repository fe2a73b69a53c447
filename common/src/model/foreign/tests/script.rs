//! TorchScript modules of PyTorch (`scripts/reference/torchscript.py`), and files that are none or hold nothing to train.

use std::io::Cursor;

use proptest::prelude::*;

use crate::model::foreign::convert::{Conversion, Converted};
use crate::model::foreign::script::{BadScript, Module, module};
use crate::model::foreign::torch;
use crate::params::from_bytes;

macro_rules! saved {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../client/tests/data/torchscript/", $name, ".pt")).as_slice()
    };
}

const TABLE: &[u8] = saved!("table");

fn read(file: &[u8]) -> Result<Module, BadScript> {
    module(&mut Cursor::new(file), file.len() as u64)
}

fn refusal(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

fn names(file: &[u8]) -> Vec<String> {
    read(file).unwrap().parameters.into_iter().map(|parameter| parameter.name).collect()
}

/// The table's file with another pickle.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    let mut file = TABLE.to_vec();
    let start = file.windows(3).position(|window| window == b"\x80\x02c").unwrap();
    file[start..start + pickle.len()].copy_from_slice(pickle);
    file
}

#[test]
fn parameters_have_the_names_values_and_order_of_the_module() {
    // `layers.1.weight` is another name of `again`, and `frozen` asks for no gradient.
    let expected =
        ["again", "unused", "layers.0.weight", "layers.0.bias", "layers.1.bias", "head.weight", "head.bias"];
    assert_eq!(names(TABLE), expected);
    let Module { parameters, has_statistics } = read(TABLE).unwrap();
    assert!(!has_statistics);
    let shapes: Vec<_> = parameters.iter().map(|parameter| parameter.shape.as_slice()).collect();
    let expected: [&[u64]; 7] = [&[5, 5], &[2], &[5, 4], &[5], &[5], &[3, 5], &[3]];
    assert_eq!(shapes, expected);
    let conversion = Conversion::new(parameters.into_iter().map(Converted::from).collect());
    let mut file = Vec::new();
    conversion.write(&mut Cursor::new(TABLE), &mut file, &mut |_| ()).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    // The script's `wave` of the first parameter, before any training.
    let wave = |at: u32| (0.5 * (0.37 * f64::from(at * at)).sin()) as f32;
    assert_eq!(from_bytes(file.tensor("again").unwrap().data()), (0..25).map(wave).collect::<Vec<_>>());
    assert_eq!(from_bytes(file.tensor("unused").unwrap().data()), [1.0, 1.0]);
}

#[test]
fn a_module_that_counts_batches_is_known_by_it() {
    let image = saved!("image");
    assert!(read(image).unwrap().has_statistics);
    let expected = [
        "features.0.weight",
        "features.0.bias",
        "features.1.weight",
        "features.1.bias",
        "head.weight",
        "head.bias",
    ];
    assert_eq!(names(image), expected);
}

#[test]
fn traced_modules_are_read_alike() {
    assert_eq!(names(saved!("traced")), ["0.weight", "0.bias", "2.weight", "2.bias"]);
}

#[test]
fn what_cannot_be_trained_has_a_sentence() {
    for (file, said) in [
        (saved!("frozen"), "not after torch.jit.freeze"),
        (saved!("double"), "`weight` is not float32: save model.float()"),
        (saved!("views"), "`b` shares values with another one"),
        (
            include_bytes!("zip.pth"),
            "is no TorchScript module: save one with torch.jit.script(model).save(PATH)",
        ),
        (b"hello", "no whole zip archive"),
    ] {
        assert!(refusal(file).contains(said), "{}", refusal(file));
    }
    let said = torch::index(&mut Cursor::new(TABLE), TABLE.len() as u64).unwrap_err().to_string();
    assert!(said.contains("import it with --kind torchscript"), "{said}");
    for length in 0..TABLE.len() {
        assert!(read(&TABLE[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_pickle_that_asks_for_more_than_a_module_is_refused_by_name() {
    let said = refusal(&with_pickle(b"\x80\x02cos\nsystem\n(X\x04\0\0\0echotR."));
    assert!(said.contains("holds a `os.system`, which Sheaf does not read"), "{said}");
    let said = refusal(&with_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81."));
    assert!(said.contains("makes an object that is no part of a TorchScript module"), "{said}");
}

#[test]
fn objects_within_themselves_or_each_other_cost_no_more_than_their_bytes() {
    // An object that is its own attribute.
    let own = b"\x80\x02c__torch__\nM\n)\x81q\0}X\x01\0\0\0ah\0sb.";
    assert!(matches!(read(&with_pickle(own)), Err(BadScript::NoParameters)));
    let nested = |depth: usize| {
        let class = b"\x80\x02c__torch__\nM\nq\0".as_slice();
        let object = b"h\0)\x81}X\x01\0\0\0a".as_slice();
        [class, &object.repeat(depth), b"N", &b"sb".repeat(depth), b"."].concat()
    };
    assert!(matches!(read(&with_pickle(&nested(60))), Err(BadScript::NoParameters)));
    assert!(matches!(read(&with_pickle(&nested(70))), Err(BadScript::Deep)));
}

proptest! {
    /// Parameters lie within the file, whatever was changed in it.
    #[test]
    fn no_damage_leads_out_of_the_file(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut file = TABLE.to_vec();
        let at = at.index(file.len());
        file[at] = byte;
        if let Ok(module) = read(&file) {
            prop_assert!(module.parameters.iter().all(|p| p.offset + p.bytes <= file.len() as u64));
        }
    }
}
