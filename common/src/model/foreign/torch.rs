//! A state dict as `torch.save` writes it, in a zip archive (since PyTorch 1.6) or in the older form: a row of pickles,
//! then for each storage the number of its values and the values.
//!
//! The pickles say which tensors there are ([`super::pickle`] reads them without running anything); the values stay
//! where they are.

use std::collections::BTreeMap;
use std::io;

use super::archive::Archive;
use super::pickle::{BadPickle, Global, Id, Node, PICKLE_MAX, Pickle, StorageKind};
use super::zip::{self, BadZip};
use super::{BadIndex, ForeignTensor, Format, Index};
use crate::model::export::Source;

/// The number at the start of the older form.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The version of the older form.
const PROTOCOL: i128 = 1001;
/// Keys under which training scripts keep the model beside the optimizer.
const NESTED: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// A file that is no state dict, and what to do. Each is the rest of a sentence on the file.
#[derive(Debug, thiserror::Error)]
pub enum BadTorch {
    /// It cannot be read at all.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Neither form.
    #[error("it is no file of torch.save")]
    Format,
    /// It holds something else.
    #[error("it holds no tensors by name: save them with torch.save(model.state_dict(), PATH)")]
    NoTensors,
    /// A TorchScript archive, which is a program.
    #[error(
        "it is a TorchScript module, which is a program: import it with --kind torchscript, or save model.state_dict() \
         instead"
    )]
    Script,
    /// Values of a big-endian machine.
    #[error("it was written on a big-endian machine: save it as safetensors there")]
    BigEndian,
    /// The archive.
    #[error(transparent)]
    Zip(#[from] BadZip),
    /// A pickle.
    #[error(transparent)]
    Pickle(#[from] BadPickle),
    /// A tensor that is described in another way than PyTorch does it.
    #[error("`{0}` in it is not described as a tensor should be")]
    Tensor(String),
    /// A storage that is not there.
    #[error("the values `{0}` are missing from it, or have another length than its pickle says")]
    Storage(String),
    /// Tensors that cannot all be in one file.
    #[error(transparent)]
    Index(#[from] BadIndex),
}

/// The tensors of a state dict in a file of `file_bytes` bytes. Those of integers, which are counters and not
/// parameters, are left out.
///
/// # Errors
/// When the file is no state dict, or asks for more than reading tensors. Nothing of it is ever executed.
pub fn index(file: &mut dyn Source, file_bytes: u64) -> Result<Index, BadTorch> {
    let start = zip::read(file, 0, file_bytes.min(PICKLE_MAX))?;
    let (dict, places) =
        if start.starts_with(b"PK\x03\x04") { archived(file, file_bytes)? } else { legacy(file, &start)? };
    let tensors = dict.tensors.into_iter().filter_map(|(name, tensor)| {
        let format = tensor.kind.format()?;
        let (start, values) = places.get(&tensor.storage).copied()?;
        Some(tensor.placed(name, format, start, values))
    });
    Ok(Index::new(tensors.collect::<Result<Vec<_>, _>>()?, file_bytes)?)
}

/// Where each storage starts, and how many values it has.
pub(super) type Places = BTreeMap<String, (u64, u64)>;

/// The form since PyTorch 1.6.
fn archived(file: &mut dyn Source, file_bytes: u64) -> Result<(StateDict, Places), BadTorch> {
    let archive = Archive::open(file, file_bytes)?;
    if archive.is_script() {
        return Err(BadTorch::Script);
    }
    let dict = StateDict::of(&archive.pickle(file)?)?;
    let places = archive.places(file, &dict.storages)?;
    Ok((dict, places))
}

/// The older form: the pickles of a magic number, a version, facts on the machine, the state dict and the storages'
/// keys; then the storages in the order of the keys.
fn legacy(file: &mut dyn Source, start: &[u8]) -> Result<(StateDict, Places), BadTorch> {
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(start.get(at..).unwrap_or_default())?;
        at += pickle.bytes;
        Ok::<_, BadPickle>(pickle)
    };
    // What begins otherwise is no such file, rather than a damaged one.
    if next().ok().is_none_or(|magic| *magic.root() != Node::Int(MAGIC)) {
        return Err(BadTorch::Format);
    }
    if *next()?.root() != Node::Int(PROTOCOL) {
        return Err(BadTorch::Format);
    }
    next()?;
    let dict = StateDict::of(&next()?)?;
    let keys = next()?;
    let Node::List(list) = keys.root() else { return Err(BadTorch::Format) };
    let mut places = Places::new();
    let mut offset = at as u64;
    for key in list {
        let key = keys.text(*key).ok_or(BadTorch::Format)?;
        let missing = || BadTorch::Storage(key.to_owned());
        let (kind, values) = dict.storages.get(key).copied().ok_or_else(missing)?;
        let count = zip::read(file, offset, 8)?;
        if count != values.to_le_bytes() {
            return Err(missing());
        }
        places.insert(key.to_owned(), (offset + 8, values));
        let bytes = kind.bytes(values).and_then(|bytes| bytes.checked_add(8));
        offset = bytes.and_then(|bytes| offset.checked_add(bytes)).ok_or_else(missing)?;
    }
    Ok((dict, places))
}

/// What the pickle says of tensors and of the storages that they lie in.
#[derive(Default)]
pub(super) struct StateDict {
    pub(super) tensors: Vec<(String, StoredIn)>,
    pub(super) storages: BTreeMap<String, (StorageKind, u64)>,
}

/// A tensor as a part of a storage.
pub(super) struct StoredIn {
    pub(super) storage: String,
    pub(super) kind: StorageKind,
    /// In values from the storage's start.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl StateDict {
    fn of(pickle: &Pickle) -> Result<Self, BadTorch> {
        let Node::Dict(mut items) = pickle.root().clone() else { return Err(BadTorch::NoTensors) };
        let nested = items.iter().find_map(|(key, value)| match (pickle.text(*key), pickle.node(*value)) {
            (Some(key), Node::Dict(items)) if NESTED.contains(&key) => Some(items.clone()),
            _ => None,
        });
        items = nested.unwrap_or(items);
        let mut dict = Self::default();
        for (name, value) in items {
            let (Some(name), Node::Call(global, arguments)) = (pickle.text(name), pickle.node(value)) else {
                continue;
            };
            let tensor = dict.tensor(pickle, *global, arguments);
            let tensor = tensor.ok_or_else(|| BadTorch::Tensor(shown(name)))?;
            dict.tensors.push((name.to_owned(), tensor));
        }
        if dict.tensors.is_empty() { Err(BadTorch::NoTensors) } else { Ok(dict) }
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, …)`, perhaps within `_rebuild_parameter(tensor, …)`.
    pub(super) fn tensor(&mut self, pickle: &Pickle, global: Global, arguments: &[Id]) -> Option<StoredIn> {
        let arguments = match (global, pickle.node(*arguments.first()?)) {
            (Global::Parameter, Node::Call(Global::Tensor, inner)) => inner,
            (Global::Parameter, _) => return None,
            _ => arguments,
        };
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let (storage, kind) = self.storage(pickle, *storage)?;
        let (shape, strides) = (pickle.naturals(*shape)?, pickle.naturals(*strides)?);
        Some(StoredIn { storage, kind, offset: pickle.natural(*offset)?, shape, strides })
    }

    /// `("storage", type, key, device, number of values)`, and in the older form whether it is part of another.
    fn storage(&mut self, pickle: &Pickle, id: Id) -> Option<(String, StorageKind)> {
        let Node::Persistent(name) = pickle.node(id) else { return None };
        let Node::Tuple(parts) = pickle.node(*name) else { return None };
        let [word, kind, key, _, values, rest @ ..] = parts.as_slice() else { return None };
        let Node::Global(Global::Storage(kind)) = pickle.node(*kind) else { return None };
        let is_whole = rest.iter().all(|part| *pickle.node(*part) == Node::Opaque);
        let (key, values) = (pickle.text(*key)?.to_owned(), pickle.natural(*values)?);
        let known = *self.storages.entry(key.clone()).or_insert((*kind, values));
        (pickle.text(*word) == Some("storage") && is_whole && known == (*kind, values))
            .then_some((key, *kind))
    }
}

impl StoredIn {
    /// The tensor in a storage that starts at byte `start` of the file and has `values` values.
    pub(super) fn placed(
        self,
        name: String,
        format: Format,
        start: u64,
        values: u64,
    ) -> Result<ForeignTensor, BadTorch> {
        let impossible = || BadTorch::Tensor(shown(&name));
        let strides = (!is_contiguous(&self.shape, &self.strides)).then_some(self.strides);
        let tensor =
            ForeignTensor { name: name.clone(), shape: self.shape, format, offset: 0, bytes: 0, strides };
        let numel = tensor.numel().ok_or_else(impossible)?;
        if self.offset.checked_add(numel).is_none_or(|end| end > values) {
            return Err(impossible());
        }
        let skipped = format.bytes(self.offset).and_then(|skipped| start.checked_add(skipped));
        let bytes = format.bytes(numel).ok_or_else(impossible)?;
        Ok(ForeignTensor { offset: skipped.ok_or_else(impossible)?, bytes, ..tensor })
    }
}

/// Whether the values lie row by row. Where there is one row only, it does not matter how far the next would be.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
}

impl StorageKind {
    /// How parameters of this kind are stored; `None` for integers.
    pub(super) fn format(self) -> Option<Format> {
        match self {
            Self::F32 => Some(Format::F32),
            Self::F16 => Some(Format::F16),
            Self::Bf16 => Some(Format::Bf16),
            Self::F64 => Some(Format::F64),
            Self::Integer(_) => None,
        }
    }

    pub(super) fn bytes(self, values: u64) -> Option<u64> {
        match (self, self.format()) {
            (Self::Integer(bytes), _) => values.checked_mul(bytes),
            (_, format) => format?.bytes(values),
        }
    }
}

/// As much of a name as a message should show.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(80).collect()
}
