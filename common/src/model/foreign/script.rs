//! A TorchScript module as `torch.jit.save` writes it: which parameters it has, read without running any of its code.
//!
//! Its pickle is a tree of objects. An attribute that is a tensor and asks for a gradient is a parameter, under the name
//! that its path makes: the one that PyTorch's `named_parameters` gives it. Everything else (buffers, constants, code) stays
//! in the file and is never looked at.

use std::collections::BTreeSet;

use super::archive::Archive;
use super::pickle::{BadPickle, Global, Id, Node, Pickle};
use super::torch::{BadTorch, StateDict, shown};
use super::{ForeignTensor, Format, Index};
use crate::model::export::Source;
use crate::model::vision::is_statistic;

/// Objects within each other at most.
const DEPTH_MAX: usize = 64;
/// Longest name of a parameter, in bytes.
const NAME_MAX: usize = 512;

/// What a TorchScript module's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its parameters in its own order, all of them f32. One that has two names has the first of them here.
    pub parameters: Vec<ForeignTensor>,
    /// Whether it counts batches (batch normalisation), and so would change in training otherwise than by gradients.
    pub has_statistics: bool,
}

/// A file that holds no module that can be trained. Each is the rest of a sentence on the file.
#[derive(Debug, thiserror::Error)]
pub enum BadScript {
    /// Not even an archive, or a damaged one.
    #[error(transparent)]
    Torch(#[from] BadTorch),
    /// A state dict.
    #[error("it is no TorchScript module: save one with torch.jit.script(model).save(PATH)")]
    NotScript,
    /// An attribute that is no module, tensor, number, text or list.
    #[error("a module in it holds a `{0}`, which Sheaf does not read: save it without that attribute")]
    Attribute(String),
    /// Nothing to train.
    #[error(
        "no tensor of it asks for a gradient, so that there is nothing to train: save it with its parameters, and not after \
         torch.jit.freeze"
    )]
    NoParameters,
    /// Another type than f32.
    #[error("its parameter `{0}` is not float32: save model.float()")]
    Type(String),
    /// Two parameters in each other.
    #[error("its parameter `{0}` shares values with another one: give each its own tensor before saving it")]
    Shared(String),
    /// Names that nobody gives.
    #[error("its modules are nested deeper than {DEPTH_MAX}, or have names longer than {NAME_MAX} bytes")]
    Deep,
}

/// The module in a file of `file_bytes` bytes.
///
/// # Errors
/// When it is none, or has nothing that could be trained. Nothing of it is ever executed.
pub fn module(file: &mut dyn Source, file_bytes: u64) -> Result<Module, BadScript> {
    let archive = Archive::open(file, file_bytes)?;
    if !archive.is_script() {
        return Err(BadScript::NotScript);
    }
    let pickle = archive.pickle(file).map_err(|error| {
        if let BadTorch::Pickle(BadPickle::Global(name)) = error {
            BadScript::Attribute(name)
        } else {
            error.into()
        }
    })?;
    let mut walk =
        Walk { pickle: &pickle, dict: StateDict::default(), seen: BTreeSet::new(), has_statistics: false };
    walk.attributes(pickle.root(), "", 0)?;
    let Walk { dict, has_statistics, .. } = walk;
    let places = archive.places(file, &dict.storages)?;
    let mut parameters = Vec::with_capacity(dict.tensors.len());
    for (name, tensor) in dict.tensors {
        let format = tensor.kind.format().filter(|format| *format == Format::F32);
        let format = format.ok_or_else(|| BadScript::Type(shown(&name)))?;
        let (start, values) = places.get(&tensor.storage).copied().unwrap_or_default();
        parameters.push(tensor.placed(name, format, start, values)?);
    }
    Index::new(parameters.iter().cloned(), file_bytes).map_err(BadTorch::from)?;
    match shared(&parameters) {
        Some(name) => Err(BadScript::Shared(shown(name))),
        None if parameters.is_empty() => Err(BadScript::NoParameters),
        None => Ok(Module { parameters, has_statistics }),
    }
}

/// A parameter that begins within another one.
fn shared(parameters: &[ForeignTensor]) -> Option<&str> {
    let mut by_place: Vec<_> = parameters.iter().filter(|parameter| parameter.bytes > 0).collect();
    by_place.sort_by_key(|parameter| parameter.offset);
    let mut pairs = by_place.windows(2);
    pairs.find(|pair| pair[1].offset < pair[0].offset + pair[0].bytes).map(|pair| pair[1].name.as_str())
}

/// A walk through the objects.
struct Walk<'a> {
    pickle: &'a Pickle,
    /// The parameters so far.
    dict: StateDict,
    /// Objects and tensors that have been met. What has two names is met twice.
    seen: BTreeSet<Id>,
    has_statistics: bool,
}

impl Walk<'_> {
    fn attributes(&mut self, object: &Node, path: &str, depth: usize) -> Result<(), BadScript> {
        let pickle = self.pickle;
        let Node::Object(Some(attributes)) = object else { return Ok(()) };
        let Node::Dict(items) = pickle.node(*attributes) else { return Ok(()) };
        for (key, value) in items {
            let Some(key) = pickle.text(*key) else { continue };
            let name = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            if depth > DEPTH_MAX || name.len() > NAME_MAX {
                return Err(BadScript::Deep);
            }
            let node = pickle.node(*value);
            if let Node::Object(_) = node
                && self.seen.insert(*value)
            {
                self.attributes(node, &name, depth + 1)?;
            } else if let Node::Call(Global::Tensor, arguments) = node
                && self.seen.insert(*value)
            {
                self.tensor(name, arguments)?;
            }
        }
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, …)`
    fn tensor(&mut self, name: String, arguments: &[Id]) -> Result<(), BadScript> {
        self.has_statistics |= is_statistic(&name);
        let asks = arguments.get(4).is_some_and(|asks| *self.pickle.node(*asks) == Node::Bool(true));
        if !asks {
            return Ok(());
        }
        let tensor = self.dict.tensor(self.pickle, Global::Tensor, arguments);
        let tensor = tensor.ok_or_else(|| BadTorch::Tensor(shown(&name)))?;
        self.dict.tensors.push((name, tensor));
        Ok(())
    }
}
