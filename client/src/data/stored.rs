//! Examples that the memory is too small for: read and encoded once like all others, and kept in a file without a name, which
//! is gone when nobody uses it any more, also after a crash. How they are divided is a list of places; no example moves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are gathered before they go to a file.
const PART: u64 = 64 << 20;

/// Examples of one size in a file, one after the other, and which of them these are.
#[derive(Clone, Debug)]
pub struct Stored {
    file: Arc<File>,
    /// Examples in the file.
    pub all: usize,
    /// The place of each example in the file.
    pub places: Vec<usize>,
}

/// Texts in a file, one after the other, and which of them these are.
#[derive(Clone, Debug)]
pub struct StoredTexts {
    file: Arc<File>,
    folder: PathBuf,
    /// Where each text of the file ends.
    ends: Arc<[u64]>,
    /// The place of each example's text.
    places: Vec<usize>,
}

impl Stored {
    /// Makes room in `folder`, has `write` write `all` examples, and keeps all of them.
    pub(super) fn new<E: From<io::Error>>(
        folder: &Path,
        all: usize,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut file = nameless(folder)?;
        write(&mut file)?;
        Ok(Self::of(file, all))
    }

    /// All of the `all` examples in a file.
    pub(super) fn of(file: File, all: usize) -> Self {
        Self { file: Arc::new(file), all, places: (0..all).collect() }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads rows of `width` numbers: those of these examples, one after the other.
    pub fn rows(&self, width: usize, examples: &[usize]) -> io::Result<Vec<f32>> {
        let mut bytes = vec![0; width * size_of::<f32>()];
        let mut rows = Vec::with_capacity(width * examples.len());
        for example in examples {
            self.read(*example, &mut bytes)?;
            rows.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
        }
        Ok(rows)
    }

    /// Reads one of these examples, all of which have as many bytes as `bytes`.
    pub fn read(&self, example: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, (self.places[example] * bytes.len()) as u64)
    }

    /// The examples at these places, in this order.
    pub(super) fn select(&self, places: &[usize]) -> Self {
        Self { places: places.iter().map(|place| self.places[*place]).collect(), ..self.clone() }
    }

    /// The examples that are not at these places, and those that are.
    pub(super) fn divided(self, taken: &BTreeSet<usize>) -> [Self; 2] {
        divided(&self.places, taken).map(|places| Self { places, ..self.clone() })
    }
}

impl StoredTexts {
    /// All texts in a file, each of which ends where `ends` says.
    pub(super) fn of(file: File, folder: &Path, ends: Vec<u64>) -> Self {
        let places = (0..ends.len()).collect();
        Self { file: Arc::new(file), folder: folder.to_owned(), ends: ends.into(), places }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Reads the texts of these examples.
    pub fn read(&self, examples: Range<usize>) -> io::Result<Vec<String>> {
        let text = |place: &usize| {
            let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
            let mut bytes = vec![0; (self.ends[*place] - start) as usize];
            self.file.read_exact_at(&mut bytes, start)?;
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        self.places[examples].iter().map(text).collect()
    }

    /// A new file of the same kind, for what is made of the texts.
    pub fn beside(&self) -> io::Result<File> {
        nameless(&self.folder)
    }

    /// The examples at these places, in this order.
    pub(super) fn select(&self, places: &[usize]) -> Self {
        Self { places: places.iter().map(|place| self.places[*place]).collect(), ..self.clone() }
    }

    /// The examples that are not at these places, and those that are.
    pub(super) fn divided(self, taken: &BTreeSet<usize>) -> [Self; 2] {
        divided(&self.places, taken).map(|places| Self { places, ..self.clone() })
    }
}

/// The tokens that a language model foretells, some of each example, in memory or in a file.
#[derive(Clone, Debug)]
pub struct Foretold {
    /// Where those of each example begin and end among all.
    ranges: Vec<Range<u64>>,
    all: Tokens,
}

#[derive(Clone, Debug)]
enum Tokens {
    Memory(Arc<[i64]>),
    File(Arc<File>),
}

impl Foretold {
    /// Those of every example, in memory.
    pub fn new(examples: &[Vec<i64>]) -> Self {
        let lengths = examples.iter().map(Vec::len);
        Self { ranges: ranges(lengths), all: Tokens::Memory(examples.concat().into()) }
    }

    /// Those in a file, eight bytes each, so many of each example.
    pub fn in_file(file: File, lengths: impl IntoIterator<Item = usize>) -> Self {
        Self { ranges: ranges(lengths), all: Tokens::File(Arc::new(file)) }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many tokens of an example are foretold.
    pub fn count(&self, example: usize) -> usize {
        let range = &self.ranges[example];
        (range.end - range.start) as usize
    }

    /// The tokens of these examples, one's after another's.
    pub fn of(&self, examples: &[usize]) -> io::Result<Vec<i64>> {
        let mut tokens = Vec::with_capacity(examples.iter().map(|example| self.count(*example)).sum());
        for example in examples {
            let range = &self.ranges[*example];
            match &self.all {
                Tokens::Memory(all) => tokens.extend(&all[range.start as usize..range.end as usize]),
                Tokens::File(file) => {
                    let mut bytes = vec![0; self.count(*example) * size_of::<i64>()];
                    file.read_exact_at(&mut bytes, range.start * size_of::<i64>() as u64)?;
                    tokens.extend(bytes.as_chunks().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)));
                }
            }
        }
        Ok(tokens)
    }

    pub(super) fn select(&self, places: &[usize]) -> Self {
        let ranges = places.iter().map(|place| self.ranges[*place].clone()).collect();
        Self { ranges, all: self.all.clone() }
    }
}

/// One after the other.
fn ranges(lengths: impl IntoIterator<Item = usize>) -> Vec<Range<u64>> {
    let mut end = 0;
    let next = |length: usize| {
        let start = end;
        end += length as u64;
        start..end
    };
    lengths.into_iter().map(next).collect()
}

/// The same tokens of the same place.
impl PartialEq for Foretold {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.all, &other.all) {
            (Tokens::Memory(mine), Tokens::Memory(others)) => mine == others,
            (Tokens::File(mine), Tokens::File(others)) => Arc::ptr_eq(mine, others),
            (Tokens::Memory(_), Tokens::File(_)) | (Tokens::File(_), Tokens::Memory(_)) => false,
        };
        same && self.ranges == other.ranges
    }
}

/// The same examples of the same file.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.places == other.places
    }
}

impl PartialEq for StoredTexts {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.places == other.places
    }
}

/// What goes into a file when it is too much for the memory.
pub(super) trait Piece {
    /// Bytes of memory that it takes.
    fn bytes(&self) -> u64;
    /// Appends it to a file.
    fn write(&self, file: &mut impl Write) -> io::Result<()>;
}

impl Piece for f32 {
    fn bytes(&self) -> u64 {
        size_of::<Self>() as u64
    }

    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(&self.to_ne_bytes())
    }
}

impl Piece for String {
    fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.len()) as u64
    }

    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(self.as_bytes())
    }
}

/// Pieces that are gathered in memory while they take no more than `most` bytes, and otherwise in a file.
pub(super) struct Gathered<'a, T> {
    folder: &'a Path,
    most: u64,
    held: Vec<T>,
    bytes: u64,
    file: Option<File>,
}

/// Where they are in the end.
pub(super) enum Place<T> {
    Memory(Vec<T>),
    File(File),
}

impl<'a, T: Piece> Gathered<'a, T> {
    pub(super) fn new(folder: &'a Path, most: u64) -> Self {
        Self { folder, most, held: Vec::new(), bytes: 0, file: None }
    }

    pub(super) fn push(&mut self, piece: T) -> io::Result<()> {
        self.bytes += piece.bytes();
        self.held.push(piece);
        let most = if self.file.is_some() { PART } else { self.most };
        if self.bytes > most { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => nameless(self.folder)?,
        };
        let mut file = BufWriter::new(file);
        self.held.drain(..).try_for_each(|piece| piece.write(&mut file))?;
        self.held.shrink_to(PART as usize / size_of::<T>());
        self.bytes = 0;
        self.file = Some(file.into_inner()?);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Place<T>> {
        if self.file.is_some() {
            self.flush()?;
        }
        Ok(self.file.map_or_else(|| Place::Memory(self.held), Place::File))
    }
}

fn nameless(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder)
}

/// The places that are not those of these examples, and those that are.
fn divided(places: &[usize], taken: &BTreeSet<usize>) -> [Vec<usize>; 2] {
    [false, true].map(|wanted| {
        let all = places.iter().enumerate();
        all.filter(|(example, _)| taken.contains(example) == wanted).map(|(_, place)| *place).collect()
    })
}
