//! A block of a packed update: a header of four bytes, whose upper bit says whether zstd was at it and the rest how many
//! bytes follow, and those bytes.

use std::io::{self, Write};

use rand::Rng;

use super::Form;

/// Values in a block; the last one may have fewer.
pub const BLOCK: usize = 1 << 14;

/// Bytes before a block's payload.
pub const BLOCK_HEADER: usize = 4;

/// Values of a block that share a scale as int8.
pub(super) const SCALED: usize = 4096;

/// The highest int8 that is used, and the lowest negated: as many on either side of 0.
const STEPS: f32 = 127.0;

/// More finds little more in updates, and takes longer.
const ZSTD_LEVEL: i32 = 1;

const ZSTD: u32 = 1 << 31;

/// A block is not what its update's header promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of the update is damaged")]
pub struct BadBlock;

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes that follow.
    pub length: usize,
    zstd: bool,
}

impl Block {
    /// Reads the header of a block of `numel` values; a length beyond any such block is refused before anything is
    /// allocated.
    pub fn opened(header: [u8; BLOCK_HEADER], form: Form, numel: usize) -> Result<Self, BadBlock> {
        let word = u32::from_le_bytes(header);
        let length = (word & !ZSTD) as usize;
        if length > most(form, numel) { Err(BadBlock) } else { Ok(Self { length, zstd: word & ZSTD != 0 }) }
    }

    /// Fills `values` with those of the block.
    pub fn unpack(self, form: Form, bytes: &[u8], values: &mut [f32]) -> Result<(), BadBlock> {
        let unpacked;
        let payload = if self.zstd {
            let planes = zstd::bulk::decompress(bytes, most(form, values.len())).map_err(|_| BadBlock)?;
            unpacked = gather(&planes, width(form));
            &unpacked
        } else {
            bytes
        };
        match form {
            Form::F32 => fill(payload, values, f32::from_le_bytes),
            Form::Bf16 => fill(payload, values, from_bf16),
            Form::Int8 => from_int8(payload, values),
            Form::TopK => from_places(payload, values),
        }
    }
}

/// Most bytes of a block's payload before zstd. What zstd made longer is not sent.
fn most(form: Form, numel: usize) -> usize {
    match form {
        Form::F32 | Form::TopK => numel * 4,
        Form::Bf16 => numel * 2,
        Form::Int8 => numel.div_ceil(SCALED) * 4 + numel,
    }
}

/// Bytes that belong together: zstd is given all first ones, then all second ones, and so on, among which there is more
/// to find.
fn width(form: Form) -> usize {
    match form {
        Form::F32 => 4,
        Form::Bf16 | Form::TopK => 2,
        Form::Int8 => 1,
    }
}

/// The bytes of a block of values in which nothing is left out.
pub(super) fn payload(form: Form, values: &[f32], rng: &mut impl Rng) -> Vec<u8> {
    match form {
        Form::F32 | Form::TopK => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Form::Bf16 => values.iter().flat_map(|value| to_bf16(*value)).collect(),
        Form::Int8 => to_int8(values, rng),
    }
}

/// Writes a block, with zstd where that is wanted and makes it shorter.
pub(super) fn write(form: Form, payload: Vec<u8>, zstd: bool, out: &mut impl Write) -> io::Result<()> {
    let compressed =
        if zstd { Some(zstd::bulk::compress(&scatter(&payload, width(form)), ZSTD_LEVEL)?) } else { None };
    let (flag, bytes) = match compressed.filter(|shorter| shorter.len() < payload.len()) {
        Some(shorter) => (ZSTD, shorter),
        None => (0, payload),
    };
    // A block has 64 KiB at most.
    out.write_all(&(bytes.len() as u32 | flag).to_le_bytes())?;
    out.write_all(&bytes)
}

fn scatter(bytes: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|plane| bytes.iter().skip(plane).step_by(width).copied()).collect()
}

fn gather(planes: &[u8], width: usize) -> Vec<u8> {
    let rows = planes.len() / width;
    let mut bytes = vec![0; rows * width];
    for (plane, values) in planes.chunks_exact(rows.max(1)).enumerate() {
        for (place, value) in bytes.iter_mut().skip(plane).step_by(width).zip(values) {
            *place = *value;
        }
    }
    bytes
}

fn fill<const N: usize>(bytes: &[u8], values: &mut [f32], read: fn([u8; N]) -> f32) -> Result<(), BadBlock> {
    match bytes.as_chunks::<N>() {
        (coded, []) if coded.len() == values.len() => {
            values.iter_mut().zip(coded).for_each(|(value, coded)| *value = read(*coded));
            Ok(())
        }
        _ => Err(BadBlock),
    }
}

/// The upper half of an f32, rounded to the nearest, the even one of two.
pub(super) fn to_bf16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    // Added to a NaN it could come out as a number.
    let rounded = if value.is_nan() { bits } else { bits + 0x7fff + (bits >> 16 & 1) };
    ((rounded >> 16) as u16).to_le_bytes()
}

pub(super) fn from_bf16(coded: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(coded)) << 16)
}

fn to_int8(values: &[f32], rng: &mut impl Rng) -> Vec<u8> {
    let scale =
        |values: &[f32]| {
            // A NaN stays one, so that the server sees it.
            let largest = values.iter().fold(0.0, |most: f32, value| {
                if value.abs() > most || value.is_nan() { value.abs() } else { most }
            });
            largest / STEPS
        };
    let scales: Vec<f32> = values.chunks(SCALED).map(scale).collect();
    let mut bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    for (values, scale) in values.chunks(SCALED).zip(scales) {
        bytes.extend(values.iter().map(|value| {
            // In [0, 1), of 24 bits, which an f32 holds.
            let part = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
            // 0 / 0 where all are 0: a NaN becomes 0.
            (value / scale + part).floor().clamp(-STEPS, STEPS) as i8 as u8
        }));
    }
    bytes
}

fn from_int8(bytes: &[u8], values: &mut [f32]) -> Result<(), BadBlock> {
    let (scales, steps) = bytes.split_at_checked(values.len().div_ceil(SCALED) * 4).ok_or(BadBlock)?;
    if steps.len() != values.len() {
        return Err(BadBlock);
    }
    let scales = scales.as_chunks::<4>().0.iter().map(|scale| f32::from_le_bytes(*scale));
    for ((values, steps), scale) in values.chunks_mut(SCALED).zip(steps.chunks(SCALED)).zip(scales) {
        values.iter_mut().zip(steps).for_each(|(value, step)| *value = f32::from(*step as i8) * scale);
    }
    Ok(())
}

/// Positions, ascending, then as many values.
fn from_places(bytes: &[u8], values: &mut [f32]) -> Result<(), BadBlock> {
    let (coded, rest) = bytes.as_chunks::<2>();
    let (places, kept) = coded.split_at(coded.len() / 2);
    if !rest.is_empty() || places.len() != kept.len() {
        return Err(BadBlock);
    }
    values.fill(0.0);
    let mut next = 0;
    for (place, value) in places.iter().zip(kept) {
        let place = usize::from(u16::from_le_bytes(*place));
        if place < next {
            return Err(BadBlock);
        }
        *values.get_mut(place).ok_or(BadBlock)? = from_bf16(*value);
        next = place + 1;
    }
    Ok(())
}
