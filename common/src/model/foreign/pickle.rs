//! Python's pickle, read without running it.
//!
//! A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names. This one
//! calls nothing: it knows the opcodes that a state dict or a TorchScript module needs, keeps a call as a note of what would be called with what
//! (`Node::Call`), and refuses every name but the few in `Global::named`.
//!
//! Values lie in one list and refer to each other by number, so that nothing is ever copied or walked: a pickle of `n`
//! bytes makes at most `n` values, however often it repeats or nests them.

use std::collections::BTreeMap;

/// Longest pickle, in bytes.
pub const PICKLE_MAX: u64 = 16 << 20;

/// Most values that a pickle makes, and most that lie on its stack.
const VALUES_MAX: usize = 1 << 20;

/// The number of a value.
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Something that does not matter here: `None`, a float, a list that is told its type.
    Opaque,
    Bool(bool),
    Int(i128),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Something of a Python module.
    Global(Global),
    /// What calling this would give.
    Call(Global, Vec<Id>),
    /// Something outside the pickle, under this name.
    Persistent(Id),
    /// A TorchScript object, with its attributes once they are there.
    Object(Option<Id>),
}

/// What a state dict or a TorchScript module may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `_rebuild_tensor_v2`, and its elder of the same first arguments.
    Tensor,
    /// A tensor that is a parameter.
    Parameter,
    Storage(StorageKind),
    /// A class of a TorchScript module.
    Class,
    /// What makes something else than a tensor of a TorchScript module's attributes.
    Attribute,
}

/// The type of a storage's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageKind {
    F32,
    F16,
    Bf16,
    F64,
    /// Integers of so many bytes.
    Integer(u64),
}

/// A pickle that is none, or more than a state dict. Each is the rest of a sentence on the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPickle {
    /// It ends too early.
    #[error("its pickle is cut short, or longer than {PICKLE_MAX} bytes")]
    Cut,
    /// More values than `VALUES_MAX`.
    #[error("its pickle holds more than {VALUES_MAX} values")]
    TooMany,
    /// It names something that is not needed for tensors.
    #[error(
        "its pickle asks for `{0}`, and Sheaf runs no code of a model's file: save the values alone, with \
         torch.save(model.state_dict(), PATH)"
    )]
    Global(String),
    /// An opcode that no state dict needs, or one that is wrong where it stands.
    #[error("its pickle cannot be read: opcode {opcode:#04x} at byte {at} {problem}")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where it is.
        at: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What a pickle makes.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
    /// Its length in bytes.
    pub(super) bytes: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`; others may follow it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BadPickle> {
        let mut machine = Machine { bytes, ..Machine::default() };
        while !machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { nodes: machine.nodes, root, bytes: machine.at })
    }

    /// The value that the pickle stands for.
    pub(super) fn root(&self) -> &Node {
        self.node(self.root)
    }

    /// The value of this number.
    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::Opaque)
    }

    /// The text of this number.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Node::Text(text) = self.node(id) { Some(text) } else { None }
    }

    /// The natural number of this number.
    pub(super) fn natural(&self, id: Id) -> Option<u64> {
        if let Node::Int(value) = self.node(id) { u64::try_from(*value).ok() } else { None }
    }

    /// The natural numbers of the tuple of this number.
    pub(super) fn naturals(&self, id: Id) -> Option<Vec<u64>> {
        let Node::Tuple(items) = self.node(id) else { return None };
        items.iter().map(|item| self.natural(*item)).collect()
    }
}

impl Global {
    /// What this name of this module is, if a state dict may name it.
    fn named(module: &str, name: &str) -> Option<Self> {
        if module == "__torch__" || module.starts_with("__torch__.") {
            return Some(Self::Class);
        }
        let storage = |kind| Some(Self::Storage(kind));
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Self::Tensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::Parameter),
            ("torch.jit._pickle", _) | ("torch", "device") => Some(Self::Attribute),
            ("torch", "FloatStorage") => storage(StorageKind::F32),
            ("torch", "HalfStorage") => storage(StorageKind::F16),
            ("torch", "BFloat16Storage") => storage(StorageKind::Bf16),
            ("torch", "DoubleStorage") => storage(StorageKind::F64),
            ("torch", "LongStorage") => storage(StorageKind::Integer(8)),
            ("torch", "IntStorage") => storage(StorageKind::Integer(4)),
            ("torch", "ShortStorage") => storage(StorageKind::Integer(2)),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => storage(StorageKind::Integer(1)),
            _ => None,
        }
    }
}

/// The stack machine.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the opcode is that is worked on.
    opcode_at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where lists of unknown length begin.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl Machine<'_> {
    /// Does one opcode; true at the end.
    fn step(&mut self) -> Result<bool, BadPickle> {
        self.opcode_at = self.at;
        let [opcode] = self.array()?;
        match opcode {
            b'.' => return Ok(true),
            0x80 => drop(self.array::<1>()?), // protocol
            0x95 => drop(self.array::<8>()?), // frame
            b'N' => self.push(Node::Opaque)?,
            0x88 | 0x89 => self.push(Node::Bool(opcode == 0x88))?,
            b'G' => {
                self.array::<8>()?;
                self.push(Node::Opaque)?;
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Node::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))?;
            }
            0x8a => self.long()?,
            b'U' | 0x8c => {
                let [length] = self.array()?;
                self.push_text(length.into())?;
            }
            b'T' | b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.push_text(length as usize)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Node::Tuple(items))?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.put(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.put(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => self.push_again(self.top()?)?,
            b'q' => {
                let [number] = self.array()?;
                self.keep(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.keep(number)?;
            }
            0x94 => self.keep(self.memo.len() as u32)?,
            b'h' => {
                let [number] = self.array()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                self.recall(number)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.global(&module, &name)?;
            }
            b'R' => self.call()?,
            0x81 => self.object()?,
            b'b' => self.build()?,
            b'Q' => {
                let name = self.pop()?;
                self.push(Node::Persistent(name))?;
            }
            _ => return Err(self.wrong("is none that a state dict needs")),
        }
        Ok(false)
    }

    fn wrong(&self, problem: &'static str) -> BadPickle {
        let opcode = self.bytes.get(self.opcode_at).copied().unwrap_or_default();
        BadPickle::Opcode { opcode, at: self.opcode_at, problem }
    }

    fn take(&mut self, length: usize) -> Result<&[u8], BadPickle> {
        let end = self.at.checked_add(length).ok_or(BadPickle::Cut)?;
        let taken = self.bytes.get(self.at..end).ok_or(BadPickle::Cut)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadPickle> {
        self.take(N)?.try_into().map_err(|_| BadPickle::Cut)
    }

    /// Bytes up to the end of the line, as text.
    fn line(&mut self) -> Result<String, BadPickle> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(BadPickle::Cut)?;
        let line = String::from_utf8_lossy(self.take(length + 1)?);
        Ok(line.trim_end_matches('\n').to_owned())
    }

    /// An integer of any length up to 16 bytes, little-endian two's complement.
    fn long(&mut self) -> Result<(), BadPickle> {
        let [length] = self.array()?;
        let bytes = self.take(length.into())?;
        let negative = bytes.last().is_some_and(|last| last >> 7 == 1);
        let mut whole = if negative { [0xff; 16] } else { [0; 16] };
        match whole.get_mut(..bytes.len()) {
            Some(start) => start.copy_from_slice(bytes),
            None => return Err(self.wrong("has more than 16 bytes")),
        }
        self.push(Node::Int(i128::from_le_bytes(whole)))
    }

    fn push(&mut self, node: Node) -> Result<(), BadPickle> {
        if self.nodes.len() == VALUES_MAX {
            return Err(BadPickle::TooMany);
        }
        self.nodes.push(node);
        self.push_again(self.nodes.len() - 1)
    }

    fn push_again(&mut self, id: Id) -> Result<(), BadPickle> {
        if self.stack.len() == VALUES_MAX {
            return Err(BadPickle::TooMany);
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_text(&mut self, length: usize) -> Result<(), BadPickle> {
        let text = str::from_utf8(self.take(length)?).map(str::to_owned);
        let text = text.map_err(|_| self.wrong("is a text that is not UTF-8"))?;
        self.push(Node::Text(text))
    }

    /// What lies on top, above the last mark.
    fn top(&self) -> Result<Id, BadPickle> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).unwrap_or_default();
        above.last().copied().ok_or_else(|| self.wrong("finds nothing on the stack"))
    }

    fn pop(&mut self) -> Result<Id, BadPickle> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_text(&mut self) -> Result<String, BadPickle> {
        let (top, wrong) = (self.pop()?, self.wrong("finds no text on the stack"));
        if let Node::Text(text) = &self.nodes[top] { Ok(text.clone()) } else { Err(wrong) }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, BadPickle> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("finds no mark on the stack"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, length: usize) -> Result<(), BadPickle> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    /// The items of the dict on top.
    fn dict(&mut self) -> Result<&mut Vec<(Id, Id)>, BadPickle> {
        let (top, wrong) = (self.top()?, self.wrong("finds no dict on the stack"));
        if let Node::Dict(items) = &mut self.nodes[top] { Ok(items) } else { Err(wrong) }
    }

    fn put(&mut self, items: &[Id]) -> Result<(), BadPickle> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.wrong("finds a key without a value"));
        }
        self.dict()?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn append(&mut self, more: &[Id]) -> Result<(), BadPickle> {
        let (top, wrong) = (self.top()?, self.wrong("finds no list on the stack"));
        let Node::List(items) = &mut self.nodes[top] else { return Err(wrong) };
        items.extend_from_slice(more);
        Ok(())
    }

    fn keep(&mut self, number: u32) -> Result<(), BadPickle> {
        self.memo.insert(number, self.top()?);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), BadPickle> {
        let id = self.memo.get(&number).copied();
        self.push_again(id.ok_or_else(|| self.wrong("recalls what was never kept"))?)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), BadPickle> {
        match Global::named(module, name) {
            Some(global) => self.push(Node::Global(global)),
            None => {
                let shown = format!("{module}.{name}").chars().filter(|c| !c.is_control()).take(80).collect();
                Err(BadPickle::Global(shown))
            }
        }
    }

    fn call(&mut self) -> Result<(), BadPickle> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let called = match (&self.nodes[callee], &self.nodes[arguments]) {
            (Node::Global(Global::OrderedDict), Node::Tuple(items)) if items.is_empty() => {
                Node::Dict(Vec::new())
            }
            (Node::Global(global @ (Global::Tensor | Global::Parameter)), Node::Tuple(items)) => {
                Node::Call(*global, items.clone())
            }
            (Node::Global(Global::Class | Global::Attribute), Node::Tuple(_)) => Node::Opaque,
            _ => return Err(self.wrong("calls something that makes no tensor")),
        };
        self.push(called)
    }

    /// An object without attributes yet.
    fn object(&mut self) -> Result<(), BadPickle> {
        let (_, class) = (self.pop()?, self.pop()?);
        if self.nodes[class] == Node::Global(Global::Class) {
            self.push(Node::Object(None))
        } else {
            Err(self.wrong("makes an object that is no part of a TorchScript module"))
        }
    }

    /// Gives an object its attributes; what Python hangs onto a dict besides its items, PyTorch's version numbers, does not
    /// matter.
    fn build(&mut self) -> Result<(), BadPickle> {
        let (attributes, top) = (self.pop()?, self.top()?);
        if let Node::Object(own) = &mut self.nodes[top] {
            *own = Some(attributes);
            return Ok(());
        }
        self.dict().map(drop)
    }
}
