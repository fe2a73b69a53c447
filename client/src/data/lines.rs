//! JSON lines: one object per line, whose keys are the columns. Empty lines do not count, and null is an empty cell.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use csv::{ByteRecord, Position};
use serde_json::{Map, Value};

use super::contract::Breach;

/// Longest line, in bytes: one that never ends must not fill the memory.
const LINE_MAX: u64 = 64 << 20;

/// A file of JSON lines open for reading. Its columns are the keys of its first object; a later object may lack
/// some, which is an empty cell, and has no others that count.
pub(super) struct Lines {
    pub(super) names: Vec<String>,
    reader: BufReader<File>,
    /// The first object, which was read for its keys.
    first: Option<Object>,
    /// Of the line that is read next.
    position: Position,
}

/// One line's object, and where the line is.
struct Object {
    cells: Map<String, Value>,
    at: Position,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, Breach> {
        let file = File::open(path).map_err(|problem| Breach::Unreadable(problem.to_string()))?;
        let mut position = Position::new();
        position.set_line(1);
        let mut lines = Self { names: Vec::new(), reader: BufReader::new(file), first: None, position };
        let Some(first) = lines.object()? else { return Err(Breach::Empty) };
        lines.names = first.cells.keys().cloned().collect();
        lines.first = Some(first);
        Ok(lines)
    }

    /// The next object's cells, in the order of the names.
    pub(super) fn next(&mut self, record: &mut ByteRecord) -> Result<bool, Breach> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.object()?,
        };
        let Some(Object { cells, at }) = next else { return Ok(false) };
        record.clear();
        for name in &self.names {
            match cells.get(name) {
                None | Some(Value::Null) => record.push_field(b""),
                Some(Value::String(text)) => record.push_field(text.as_bytes()),
                // A list or an object is the text that it is written as.
                Some(value) => record.push_field(value.to_string().as_bytes()),
            }
        }
        record.set_position(Some(at));
        Ok(true)
    }

    fn object(&mut self) -> Result<Option<Object>, Breach> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let at = self.position.clone();
            let read = std::io::Read::take(&mut self.reader, LINE_MAX)
                .read_until(b'\n', &mut line)
                .map_err(|problem| Breach::Unreadable(problem.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            let refuse = |why: String| Breach::NoObject { line: at.line(), why };
            if read as u64 == LINE_MAX {
                return Err(refuse(format!("it is longer than {LINE_MAX} bytes")));
            }
            self.position.set_byte(at.byte() + read as u64).set_line(at.line() + 1);
            let line = line.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            return match serde_json::from_slice(line) {
                Ok(Value::Object(cells)) => Ok(Some(Object { cells, at })),
                Ok(_) => Err(refuse("it is another value".to_owned())),
                // The reader's own words may quote the line, and its line is always 1.
                Err(problem) => Err(refuse(format!("at character {}", problem.column()))),
            };
        }
    }
}
