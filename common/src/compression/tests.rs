//! Packed updates against plain references: what arrives, what is left, golden bytes, and bytes from anybody.

use proptest::prelude::*;

use super::*;
use crate::seed;

/// The values in a packed update.
fn unpack(bytes: &[u8]) -> Result<Vec<f32>, BadBlock> {
    let (header, mut rest) = bytes.split_first_chunk::<HEADER>().ok_or(BadBlock)?;
    let (form, numel) = opened(*header).ok_or(BadBlock)?;
    let mut values = vec![0.0; numel as usize];
    for values in values.chunks_mut(BLOCK) {
        let (header, after) = rest.split_first_chunk::<BLOCK_HEADER>().ok_or(BadBlock)?;
        let block = Block::opened(*header, form, values.len())?;
        let (payload, after) = after.split_at_checked(block.length).ok_or(BadBlock)?;
        block.unpack(form, payload, values)?;
        rest = after;
    }
    if rest.is_empty() { Ok(values) } else { Err(BadBlock) }
}

fn packed(encoding: Encoding, zstd: bool, values: &mut [f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let how = Compression { encoding, zstd };
    how.pack(values, &mut seed::stream(1, &["a"]), &mut bytes).unwrap();
    bytes
}

/// What arrives of `values`, and what is left of them.
fn sent(encoding: Encoding, zstd: bool, values: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut rest = values.to_vec();
    let bytes = packed(encoding, zstd, &mut rest);
    // As if it were on: without it nothing is packed.
    let most = Compression { encoding, zstd: true }.bytes(values.len() as u64);
    assert!(bytes.len() as u64 <= most, "{} bytes, {most} at most", bytes.len());
    (unpack(&bytes).unwrap(), rest)
}

fn deltas() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![8 => -1e-2f32..1e-2, 1 => Just(0.0), 1 => -8.0f32..8.0, 1 => -1e-30f32..1e-30];
    let few = prop::collection::vec(value, 0..200);
    // Repeated beyond a block and the values that share a scale.
    (few, prop_oneof![Just(1usize), Just(100), Just(300)]).prop_map(|(few, times)| few.repeat(times))
}

const EACH: [Encoding; 4] = [Encoding::F32, Encoding::Bf16, Encoding::Int8, Encoding::TopK(0.1)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn f32_is_exact_and_zstd_changes_no_value(values in deltas()) {
        for encoding in EACH {
            prop_assert_eq!(sent(encoding, false, &values), sent(encoding, true, &values));
        }
        prop_assert_eq!(sent(Encoding::F32, true, &values).0, values);
    }

    #[test]
    fn bf16_is_the_nearest(values in deltas()) {
        for (value, sent) in values.iter().zip(sent(Encoding::Bf16, true, &values).0) {
            prop_assert!((value - sent).abs() <= value.abs() / 256.0 + f32::MIN_POSITIVE, "{value} {sent}");
        }
    }

    #[test]
    fn int8_is_a_step_away_at_most(values in deltas()) {
        let sent = sent(Encoding::Int8, true, &values).0;
        for (values, sent) in values.chunks(4096).zip(sent.chunks(4096)) {
            let step = values.iter().fold(0.0, |most: f32, value| most.max(value.abs())) / 127.0;
            for (value, sent) in values.iter().zip(sent) {
                prop_assert!((value - sent).abs() <= step * 1.001, "{value} {sent} {step}");
            }
        }
    }

    /// Beside a sort.
    #[test]
    fn top_k_sends_the_largest_and_leaves_the_rest(values in deltas(), share in 0.001f64..=1.0) {
        let (sent, rest) = sent(Encoding::TopK(share), true, &values);
        let wanted = (values.len() as f64 * share).ceil() as usize;
        let mut sorted: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted.iter().take(wanted).rfind(|value| **value > 0.0).copied().unwrap_or(f32::MAX);
        let nonzero = sorted.iter().take(wanted).filter(|value| **value > 0.0).count();
        // The smallest round to 0, and are sent as that.
        let gone = values.iter().zip(&rest).filter(|(value, rest)| value != rest || **value == 0.0).count();
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        let exact = values.iter().filter(|value| value.abs() >= least).count();
        prop_assert!(gone - zeros <= nonzero && exact >= nonzero);
        for ((value, sent), rest) in values.iter().zip(sent).zip(rest) {
            prop_assert_eq!(sent + rest, *value, "nothing is lost");
            prop_assert!(sent == 0.0 || value.abs() >= least);
            prop_assert!(value.abs() <= least || (sent - value).abs() <= value.abs() / 256.0 + f32::MIN_POSITIVE);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0usize..4, at in 0usize..400, bit in 0u8..8) {
        let form = [Form::F32, Form::Bf16, Form::Int8, Form::TopK][form];
        let _ = unpack(&[&header(form, 50)[..], &bytes].concat());
        let mut values: Vec<f32> = (0..100).map(|i| (i as f32).sin()).collect();
        let mut whole = packed(EACH[form as usize], true, &mut values);
        let at = HEADER + at % (whole.len() - HEADER);
        whole[at] ^= 1 << bit;
        let _ = unpack(&whole);
        prop_assert!(unpack(&whole[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn int8_is_right_on_average() {
    let values = vec![0.3f32; 4095].into_iter().chain([1.0]).collect::<Vec<_>>();
    let sum: f32 = sent(Encoding::Int8, false, &values).0[..4095].iter().sum();
    // A step is 1/127; the mean of 4095 is off by some 6e-5.
    assert!((sum / 4095.0 - 0.3).abs() < 3e-4, "{}", sum / 4095.0);
}

/// It would be strange if a site could hide it by asking for fewer bytes.
#[test]
fn a_nan_arrives_as_what_is_not_finite() {
    for encoding in EACH {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.5f32; 100];
            values[7] = bad;
            assert!(
                sent(encoding, true, &values).0.iter().any(|value| !value.is_finite()),
                "{encoding:?} {bad}"
            );
        }
    }
}

#[test]
fn the_format_stays() {
    let values = [1.0f32, -0.25, 0.0, 3.0e-3];
    let hex = |encoding| hex::encode(packed(encoding, false, &mut values.clone()));
    let header = |form: &str| format!("5355ff7f{form}0000000400000000000000");
    assert_eq!(hex(Encoding::F32), header("00") + "10000000" + "0000803f000080be00000000a69b443b");
    assert_eq!(hex(Encoding::Bf16), header("01") + "08000000" + "803f80be0000453b");
    assert_eq!(hex(Encoding::TopK(0.5)), header("03") + "08000000" + "00000100" + "803f80be");
    assert_eq!(hex(Encoding::Int8)[..48], header("02") + "08000000" + "0402013c");
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    for form in [Form::F32, Form::Bf16, Form::Int8, Form::TopK] {
        assert_eq!(Block::opened([0xff; 4], form, BLOCK), Err(BadBlock));
    }
    // A block that would become longer than it may.
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    let header = (bomb.len() as u32 | 1 << 31).to_le_bytes();
    let block = Block::opened(header, Form::F32, 1000).unwrap();
    assert_eq!(block.unpack(Form::F32, &bomb, &mut [0.0; 1000]), Err(BadBlock));
}

#[test]
fn what_is_not_packed_is_told_from_what_is() {
    assert_eq!(opened([0; HEADER]), None);
    assert!(f32::from_le_bytes(MAGIC).is_nan());
    assert_eq!(opened(header(Form::Int8, 7)), Some((Form::Int8, 7)));
    assert_eq!(opened(header(Form::Int8, NUMEL_MAX + 1)), None);
    assert_eq!(Compression::default().bytes(10), 40);
}
