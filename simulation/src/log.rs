//! The rounds that are over, in a file that only grows: whoever goes on reads them all, and each is written once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sheaf_common::checked;

use crate::rounds::Row;

/// What a row's record belongs to.
const PLACE: &str = "rows";

/// Bytes in front of a record: its length, little-endian.
const LENGTH: usize = 4;

/// Rows, one after the other.
pub(crate) struct Log {
    file: File,
    length: u64,
}

impl Log {
    /// The file, which is made when it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, length: 0 })
    }

    /// The rows that are whole in the first `most` bytes. What comes after them is cut off: somebody was killed while writing it, or
    /// before anything else was written down.
    pub(crate) fn retain(&mut self, most: u64) -> io::Result<Vec<Row>> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        Read::by_ref(&mut self.file).take(most).read_to_end(&mut bytes)?;
        let (mut left, mut rows) = (bytes.as_slice(), Vec::new());
        while let Some((row, rest)) = next(left) {
            rows.push(row);
            left = rest;
        }
        self.length = (bytes.len() - left.len()) as u64;
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(rows)
    }

    /// Adds a row.
    pub(crate) fn append(&mut self, row: &Row) -> io::Result<()> {
        let record = checked::encode(PLACE, row).map_err(io::Error::other)?;
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_le_bytes()[..], &record].concat();
        self.file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of the rows so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

/// The first row and what follows it, if it is whole.
fn next(bytes: &[u8]) -> Option<(Row, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((checked::decode(PLACE, record).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use sheaf_common::status::{RoundOutcome, RoundRecord};
    use sheaf_common::time::Timestamp;

    use super::*;
    use crate::rounds::Traffic;

    fn row(round: u32) -> Row {
        let record = RoundRecord {
            round,
            attempt: 1,
            started: Timestamp(0),
            ended: Timestamp(1),
            outcome: RoundOutcome::Abandoned("nobody came".into()),
            participants: Vec::new(),
            global_metrics: None,
            local_metrics: None,
            train_loss: Some(0.1),
            secure: None,
            record: None,
        };
        Row::of(&record, None, Traffic { up: 1, down: 2 }, Timestamp(3), Duration::from_millis(4))
    }

    #[test]
    fn rows_that_are_whole_and_within_the_length_are_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let retained = |most| {
            let mut log = Log::open(&path).unwrap();
            let rows = log.retain(most).unwrap();
            (log, rows)
        };
        let (mut log, none) = retained(u64::MAX);
        assert!(none.is_empty() && log.length() == 0);
        let rows: Vec<Row> = (1..=3).map(row).collect();
        let mut lengths = Vec::new();
        for row in &rows {
            log.append(row).unwrap();
            lengths.push(log.length());
        }
        assert_eq!(retained(u64::MAX).1, rows);
        assert_eq!(retained(lengths[1]).1, rows[..2]);
        assert_eq!(fs::metadata(&path).unwrap().len(), lengths[1], "the third is cut off");
        // As if it had been killed while writing the second.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(lengths[1] - 1).unwrap();
        let (mut log, first) = retained(u64::MAX);
        assert_eq!((first.as_slice(), log.length()), (&rows[..1], lengths[0]));
        log.append(&rows[2]).unwrap();
        assert_eq!(retained(u64::MAX).1, [rows[0].clone(), rows[2].clone()]);
    }
}
