//! The bytes of a GGUF header, piece by piece: little-endian numbers, texts behind their length, and values of which
//! only the place is kept, so that a header costs no more memory than itself whatever lengths it claims.

use super::BadGguf;

/// What is left of a header.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// The type of a value in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// So many bytes, as an integer of that sign.
    Integer {
        bytes: usize,
        signed: bool,
    },
    /// Single or double precision.
    Float {
        bytes: usize,
    },
    Flag,
    Text,
}

/// A value of the header, not looked into yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    kind: Kind,
    /// Whether it is a list; else it is one value.
    is_list: bool,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], BadGguf> {
        let count = usize::try_from(count).map_err(|_| BadGguf::Short)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(BadGguf::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadGguf> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BadGguf::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BadGguf> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadGguf> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Result<&'a str, BadGguf> {
        let length = self.u64()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| BadGguf::Text)
    }

    /// A value behind its type.
    pub(super) fn value(&mut self) -> Result<Value<'a>, BadGguf> {
        let number = self.u32()?;
        let is_list = number == LIST;
        let kind = Kind::of(if is_list { self.u32()? } else { number })?;
        let count = if is_list { self.u64()? } else { 1 };
        let bytes = match kind {
            Kind::Integer { bytes, .. } | Kind::Float { bytes } => {
                self.take(count.checked_mul(bytes as u64).ok_or(BadGguf::Short)?)?
            }
            Kind::Flag => self.take(count)?,
            Kind::Text => {
                let start = self.rest;
                for _ in 0..count {
                    self.text()?;
                }
                &start[..start.len() - self.rest.len()]
            }
        };
        Ok(Value { kind, is_list, bytes })
    }
}

/// GGUF's number for a list.
const LIST: u32 = 9;

impl Kind {
    /// GGUF's numbers for the types of values. A list of lists is none of them; no model has one.
    fn of(number: u32) -> Result<Self, BadGguf> {
        let integer = |bytes, signed| Self::Integer { bytes, signed };
        Ok(match number {
            0 => integer(1, false),
            1 => integer(1, true),
            2 => integer(2, false),
            3 => integer(2, true),
            4 => integer(4, false),
            5 => integer(4, true),
            6 => Self::Float { bytes: 4 },
            7 => Self::Flag,
            8 => Self::Text,
            10 => integer(8, false),
            11 => integer(8, true),
            12 => Self::Float { bytes: 8 },
            other => return Err(BadGguf::Kind(other)),
        })
    }
}

impl<'a> Value<'a> {
    /// The integers; `None` when it is something else.
    pub(super) fn integers(self) -> Option<impl Iterator<Item = i128> + 'a> {
        let Kind::Integer { bytes, signed } = self.kind else { return None };
        Some(self.bytes.chunks_exact(bytes).map(move |chunk| integer(chunk, signed)))
    }

    /// The texts; `None` when it is something else.
    pub(super) fn texts(self) -> Option<impl Iterator<Item = &'a str>> {
        let mut reader = Reader::new(self.bytes);
        (self.kind == Kind::Text).then(|| std::iter::from_fn(move || reader.text().ok()))
    }

    /// One integer that is not negative.
    pub(super) fn integer(self) -> Option<u64> {
        let value = self.integers()?.next().filter(|_| !self.is_list)?;
        u64::try_from(value).ok()
    }

    /// One text.
    pub(super) fn text(self) -> Option<&'a str> {
        self.texts()?.next().filter(|_| !self.is_list)
    }

    /// One flag.
    pub(super) fn flag(self) -> Option<bool> {
        (self.kind == Kind::Flag && !self.is_list).then(|| self.bytes == [1])
    }

    /// One number of floating point: the decimal number that people wrote, which single precision holds only nearly.
    pub(super) fn float(self) -> Option<f64> {
        match self.kind {
            Kind::Float { .. } if self.is_list => None,
            Kind::Float { bytes: 4 } => {
                f32::from_le_bytes(self.bytes.try_into().ok()?).to_string().parse().ok()
            }
            Kind::Float { .. } => Some(f64::from_le_bytes(self.bytes.try_into().ok()?)),
            Kind::Integer { .. } | Kind::Flag | Kind::Text => None,
        }
    }
}

fn integer(chunk: &[u8], signed: bool) -> i128 {
    let mut wide = [0; 16];
    wide[..chunk.len()].copy_from_slice(chunk);
    let value = i128::from_le_bytes(wide);
    let bits = 8 * chunk.len();
    if signed && value >> (bits - 1) & 1 == 1 { value - (1 << bits) } else { value }
}
