//! PyTorch's zip archives: `NAME/data.pkl` says what there is, and the values of each storage are in `NAME/data/KEY`.
//! State dicts and TorchScript modules have this form alike.

use std::collections::BTreeMap;

use super::pickle::{BadPickle, PICKLE_MAX, Pickle, StorageKind};
use super::torch::{BadTorch, Places};
use super::zip::{self, Entry};
use crate::model::export::Source;

/// The entries of an archive.
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
    /// What all names begin with.
    folder: String,
}

impl Archive {
    /// The archive in a file of `file_bytes` bytes, written on a machine that stores numbers as ours does.
    pub(super) fn open(file: &mut dyn Source, file_bytes: u64) -> Result<Self, BadTorch> {
        let entries = zip::entries(file, file_bytes)?;
        let folder = entries.keys().find_map(|name| name.strip_suffix("data.pkl"));
        let folder = folder.filter(|folder| folder.matches('/').count() == 1).ok_or(BadTorch::Format)?;
        let archive = Self { folder: folder.to_owned(), entries };
        if archive.has("byteorder") && archive.content(file, "byteorder")? != b"little" {
            return Err(BadTorch::BigEndian);
        }
        Ok(archive)
    }

    /// Whether it is a TorchScript module.
    pub(super) fn is_script(&self) -> bool {
        self.has("constants.pkl")
    }

    /// What the archive says that there is.
    pub(super) fn pickle(&self, file: &mut dyn Source) -> Result<Pickle, BadTorch> {
        Ok(Pickle::read(&self.content(file, "data.pkl")?)?)
    }

    /// Where these storages lie.
    pub(super) fn places(
        &self,
        file: &mut dyn Source,
        storages: &BTreeMap<String, (StorageKind, u64)>,
    ) -> Result<Places, BadTorch> {
        let mut places = Places::new();
        for (key, (kind, values)) in storages {
            let name = format!("{}data/{key}", self.folder);
            let entry = self.entries.get(&name).filter(|entry| kind.bytes(*values) == Some(entry.bytes));
            let entry = entry.ok_or_else(|| BadTorch::Storage(key.clone()))?;
            places.insert(key.clone(), (entry.start(file, &name)?, *values));
        }
        Ok(places)
    }

    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(&format!("{}{name}", self.folder))
    }

    fn content(&self, file: &mut dyn Source, name: &str) -> Result<Vec<u8>, BadTorch> {
        let name = format!("{}{name}", self.folder);
        let entry = self.entries.get(&name).filter(|entry| entry.bytes <= PICKLE_MAX);
        let entry = entry.ok_or(BadPickle::Cut)?;
        let start = entry.start(file, &name)?;
        Ok(zip::read(file, start, entry.bytes)?)
    }
}
