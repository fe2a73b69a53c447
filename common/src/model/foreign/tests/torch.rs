//! State dicts of PyTorch in both forms, and files that are none or want more.

use std::io::Cursor;

use proptest::prelude::*;

use crate::model::foreign::convert::Conversion;
use crate::model::foreign::pickle::BadPickle;
use crate::model::foreign::torch::{BadTorch, index};
use crate::model::foreign::*;

const ZIP: &[u8] = include_bytes!("zip.pth");
const LEGACY: &[u8] = include_bytes!("legacy.pth");
const FILES: [&[u8]; 3] = [ZIP, LEGACY, include_bytes!("checkpoint.pth")];

fn read(file: &[u8]) -> Result<Index, BadTorch> {
    index(&mut Cursor::new(file), file.len() as u64)
}

fn refusal(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

/// The older form around the pickle of a state dict.
fn legacy(state_dict: &[u8]) -> Vec<u8> {
    [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.", state_dict, b"\x80\x02]."]
        .concat()
}

/// Shape and values of a tensor.
fn values(file: &[u8], name: &str) -> (Vec<u64>, Vec<f32>) {
    let index = read(file).unwrap();
    let tensor = index.tensor(name).unwrap();
    let start = tensor.offset as usize;
    let mut values = Vec::new();
    tensor.format.decode(&file[start..start + tensor.bytes as usize], &mut values);
    (tensor.shape.clone(), values)
}

#[test]
fn both_forms_hold_what_pytorch_put_there() {
    for file in [ZIP, LEGACY] {
        let names: Vec<_> = read(file).unwrap().tensors().map(|tensor| tensor.name.clone()).collect();
        assert_eq!(names, ["bf16", "double", "grid", "half", "parameter", "row"]);
        assert_eq!(values(file, "grid"), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(values(file, "row"), (vec![3], vec![3.0, 4.0, 5.0]));
        assert_eq!(values(file, "half"), (vec![2], vec![1.0, -0.5]));
        assert_eq!(values(file, "bf16"), (vec![3], vec![3.0, -2.0, 0.5]));
        assert_eq!(values(file, "double"), (vec![], vec![0.25]));
        assert_eq!(values(file, "parameter"), (vec![2, 1], vec![7.0, 8.0]));
    }
}

#[test]
fn a_checkpoint_of_a_training_script_holds_a_state_dict() {
    let names: Vec<_> = read(FILES[2]).unwrap().tensors().map(|tensor| tensor.name.clone()).collect();
    assert_eq!(names, ["0.bias", "0.running_mean", "0.running_var", "0.weight"]);
}

#[test]
fn values_in_another_order_are_put_in_order() {
    let file: &[u8] = include_bytes!("transposed.pth");
    let index = read(file).unwrap();
    assert_eq!(index.tensor("grid").unwrap().shape, [4, 2, 1, 3]);
    let mut converted = Vec::new();
    Conversion::all(&index).write(&mut Cursor::new(file), &mut converted, &mut |_| ()).unwrap();
    let converted = safetensors::SafeTensors::deserialize(&converted).unwrap();
    let tensor = converted.tensor("grid").unwrap();
    assert_eq!(tensor.shape(), [4, 2, 1, 3]);
    // Element [a, b, 0, c] of the view is [b, c, 0, a] of 0 to 23 in a grid of 2 x 3 x 1 x 4.
    let places = (0..4).flat_map(|a| (0..2).flat_map(move |b| (0..3).map(move |c| b * 12 + c * 4 + a)));
    assert_eq!(crate::params::from_bytes(tensor.data()), places.map(|at| at as f32).collect::<Vec<_>>());
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    for bomb in [&b"cos\nsystem\n(X\x04\0\0\0echotR."[..], b"X\x02\0\0\0osX\x06\0\0\0system\x93)R."] {
        let said = refusal(&legacy(bomb));
        assert!(said.contains("asks for `os.system`") && said.contains("runs no code"), "{said}");
    }
    let said = refusal(include_bytes!("module.pth"));
    assert!(
        said.contains("`torch.nn.modules.container.Sequential`") && said.contains("state_dict()"),
        "{said}"
    );
    // An allowed name, called on what it must not be called on.
    let said = refusal(&legacy(b"ccollections\nOrderedDict\nK\x05\x85R."));
    assert!(said.contains("calls something that makes no tensor"), "{said}");
}

#[test]
fn values_that_repeat_and_nest_cost_no_more_than_their_bytes() {
    // Each tuple holds the one before twice: written out, the last would hold 2^100000 values.
    let mut bomb = b")q\0".to_vec();
    (0..100_000).for_each(|_| bomb.extend(b"h\0h\0\x86q\0"));
    bomb.push(b'.');
    assert!(matches!(read(&legacy(&bomb)), Err(BadTorch::NoTensors)));
    let many = vec![b')'; 2 << 20];
    assert!(matches!(read(&legacy(&many)), Err(BadTorch::Pickle(BadPickle::TooMany))));
    let again = [b")q\0".as_slice(), &b"h\0".repeat(2 << 20)].concat();
    assert!(matches!(read(&legacy(&again)), Err(BadTorch::Pickle(BadPickle::TooMany))));
}

#[test]
fn other_files_are_refused_in_a_sentence() {
    assert!(matches!(read(b""), Err(BadTorch::Format)));
    assert!(matches!(read(b"hello"), Err(BadTorch::Format)));
    assert!(matches!(read(&legacy(b"}.")), Err(BadTorch::NoTensors)));
    assert!(matches!(read(&legacy(b"X\xff\xff\xff\xff")), Err(BadTorch::Pickle(BadPickle::Cut))));
    let said = refusal(include_bytes!("gaps.pth"));
    assert!(said.contains("`grid`") && said.contains(".contiguous()"), "{said}");
    for file in FILES {
        for length in 0..file.len() {
            assert!(read(&file[..length]).is_err(), "{length}");
        }
    }
    let mut compressed = ZIP.to_vec();
    let listed = compressed.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    compressed[listed + 10] = 8;
    assert!(refusal(&compressed).contains("is compressed or encrypted"));
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = read(&legacy(&bytes));
    }

    /// Tensors lie within the file, whatever was changed in it.
    #[test]
    fn no_damage_leads_out_of_the_file(file in 0usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut file = FILES[file].to_vec();
        let at = at.index(file.len());
        file[at] = byte;
        if let Ok(index) = read(&file) {
            prop_assert!(index.tensors().all(|tensor| tensor.offset + tensor.bytes <= file.len() as u64));
        }
    }
}
