//! Where in a zip archive its entries lie. PyTorch stores tensors and pickles without compressing, so that an entry's bytes
//! are the file's; the code of a TorchScript module it compresses, which nobody here reads.

use std::collections::BTreeMap;
use std::io::{self, Read, SeekFrom};

use crate::model::export::Source;

/// Longest list of entries, in bytes.
const DIRECTORY_MAX: u64 = 16 << 20;
/// The record at the end, without its comment.
const END_BYTES: u64 = 22;
/// Longest comment behind that record.
const COMMENT_MAX: u64 = 0xffff;
/// What stands before an entry's name in the list of entries.
const LISTED_BYTES: usize = 46;
/// What stands before an entry's name where its bytes are.
const LOCAL_BYTES: usize = 30;

/// An archive that cannot be used. Each is the rest of a sentence on the file.
#[derive(Debug, thiserror::Error)]
pub enum BadZip {
    /// It cannot be read at all.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// No list of entries, or a damaged one.
    #[error("it is no whole zip archive")]
    Damaged,
    /// An entry beyond 4 GiB, for which the format has other records.
    #[error("it is larger than 4 GiB: save it as safetensors")]
    TooLarge,
    /// An entry that is compressed or encrypted.
    #[error("`{0}` in it is compressed or encrypted: save it again with torch.save")]
    Compressed(String),
}

/// An entry: where its own header is, and the length of what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    header: u64,
    pub(super) bytes: u64,
    /// Whether the bytes are the file's.
    is_stored: bool,
}

/// The entries of an archive of `file_bytes` bytes, by name.
pub(super) fn entries(file: &mut dyn Source, file_bytes: u64) -> Result<BTreeMap<String, Entry>, BadZip> {
    let tail_bytes = file_bytes.min(END_BYTES + COMMENT_MAX);
    let tail = read(file, file_bytes - tail_bytes, tail_bytes)?;
    let end = tail.windows(END_BYTES as usize).rev().find(|window| window.starts_with(b"PK\x05\x06"));
    let end = end.ok_or(BadZip::Damaged)?;
    let (bytes, start) = (u64::from(u32_at(end, 12)?), u64::from(u32_at(end, 16)?));
    if start == u64::from(u32::MAX) {
        return Err(BadZip::TooLarge);
    }
    if bytes > DIRECTORY_MAX || start + bytes > file_bytes {
        return Err(BadZip::Damaged);
    }
    let directory = read(file, start, bytes)?;
    let mut entries = BTreeMap::new();
    let mut rest = directory.as_slice();
    while !rest.is_empty() {
        let (name, entry, after) = listed(rest)?;
        if entries.insert(name, entry).is_some() {
            return Err(BadZip::Damaged);
        }
        rest = after;
    }
    Ok(entries)
}

/// The first entry of a list, and the list without it.
fn listed(list: &[u8]) -> Result<(String, Entry, &[u8]), BadZip> {
    if !list.starts_with(b"PK\x01\x02") {
        return Err(BadZip::Damaged);
    }
    let name_end = LISTED_BYTES + usize::from(u16_at(list, 28)?);
    let end = name_end + usize::from(u16_at(list, 30)?) + usize::from(u16_at(list, 32)?);
    let name = list.get(LISTED_BYTES..name_end).ok_or(BadZip::Damaged)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| BadZip::Damaged)?;
    let (flags, method) = (u16_at(list, 8)?, u16_at(list, 10)?);
    let (bytes, header) = (u32_at(list, 24)?, u32_at(list, 42)?);
    if bytes == u32::MAX || header == u32::MAX {
        return Err(BadZip::TooLarge);
    }
    let is_stored = method == 0 && flags & 1 == 0;
    let entry = Entry { header: header.into(), bytes: bytes.into(), is_stored };
    Ok((name, entry, list.get(end..).ok_or(BadZip::Damaged)?))
}

impl Entry {
    /// Where the bytes of the entry of this name start, which its own header says.
    pub(super) fn start(&self, file: &mut dyn Source, name: &str) -> Result<u64, BadZip> {
        if !self.is_stored {
            return Err(BadZip::Compressed(name.to_owned()));
        }
        let header = read(file, self.header, LOCAL_BYTES as u64)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(BadZip::Damaged);
        }
        let names = u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?);
        Ok(self.header + LOCAL_BYTES as u64 + names)
    }
}

/// Bytes of a file.
pub(super) fn read(file: &mut dyn Source, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    let read = file.take(bytes).read_to_end(&mut buffer)?;
    if read as u64 == bytes { Ok(buffer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BadZip> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BadZip::Damaged)?;
    Ok(u16::from_le_bytes(*found))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BadZip> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BadZip::Damaged)?;
    Ok(u32::from_le_bytes(*found))
}
