//! Values and places of tensors in foreign files.

use crate::model::foreign::*;

fn tensor(shape: &[u64], format: Format, offset: u64, bytes: u64) -> ForeignTensor {
    ForeignTensor { name: "w".into(), shape: shape.into(), format, offset, bytes, strides: None }
}

fn decoded(format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    format.decode(bytes, &mut values);
    values
}

#[test]
fn values_are_those_of_ieee() {
    let half = |bits: u16| decoded(Format::F16, &bits.to_le_bytes())[0];
    let known = [
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x3555, 0.333_251_95),
        (0x7bff, 65504.0),
        (0x0400, 6.103_515_6e-5),
        (0x0001, 5.960_464_5e-8),
        (0x03ff, 6.097_555e-5),
        (0x7c00, f32::INFINITY),
        (0xfc00, f32::NEG_INFINITY),
    ];
    known.iter().for_each(|(bits, value)| assert_eq!(half(*bits), *value, "{bits:#x}"));
    assert_eq!(half(0x8000).to_bits(), (-0.0f32).to_bits());
    assert!(half(0x7c01).is_nan());
    assert_eq!(decoded(Format::Bf16, &[0x80, 0x3f, 0x49, 0xc0]), [1.0, -3.140_625]);
    assert_eq!(decoded(Format::F64, &0.1f64.to_le_bytes()), [0.1]);
    assert_eq!(decoded(Format::F32, &[0, 0, 0x80, 0x3f, 9, 9]), [1.0]);
}

#[test]
fn a_tensor_lies_within_its_file_as_its_shape_asks() {
    let index = |tensor: ForeignTensor| Index::new([tensor], 100).map(|index| index.tensors().count());
    assert_eq!(index(tensor(&[2, 3], Format::F32, 76, 24)), Ok(1));
    assert_eq!(index(tensor(&[], Format::F16, 98, 2)), Ok(1));
    assert_eq!(index(tensor(&[0, 7], Format::F32, 0, 0)), Ok(1));
    let place = Err(BadIndex::Place("w".into()));
    assert_eq!(index(tensor(&[2, 3], Format::F32, 77, 24)), place);
    assert_eq!(index(tensor(&[2, 3], Format::F32, 0, 20)), place);
    assert_eq!(index(tensor(&[1 << 62], Format::F64, 0, 0)), place);
    assert_eq!(index(tensor(&[1], Format::F32, u64::MAX, 4)), place);
    let shape = Err(BadIndex::Shape("w".into()));
    assert_eq!(index(tensor(&[1 << 40, 1 << 40], Format::F32, 0, 0)), shape);
    assert_eq!(index(tensor(&[1; 9], Format::F32, 0, 4)), shape);
    let one = || tensor(&[1], Format::F32, 0, 4);
    assert_eq!(Index::new([one(), one()], 4), Err(BadIndex::Duplicate("w".into())));
}
