//! Python's pickles, as `torch.save` writes them for tensors. They are read, and nothing in them is executed.
//!
//! A pickle is a program for a stack machine, which may import and call anything. This reader knows the opcodes of
//! protocol 2 that torch writes for tensors, parameters, lists, tuples, dictionaries, texts and numbers. Every name that
//! a pickle imports is one of [`Global`], or an error that says which it was; "calling" one only notes its arguments.
//!
//! Pickles may come from anybody. Values lie in one table and refer to each other by their place in it, so that
//! neither depth nor references that meet need a stack or a copy: memory is in proportion to the bytes read, which are at
//! most [`LONGEST`].

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::Number;

/// The longest pickle that is read: 1 MiB. That of a tensor has some 150 bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// What is wrong with a pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickleError {
    /// The byte of the pickle.
    pub offset: usize,
    pub what: String,
}

/// A value's place in the table.
type At = usize;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    /// `None`, a truth value or a fraction, of which nothing needs more.
    Other,
    Int(i64),
    Text(&'a str),
    Tuple {
        first: usize,
        length: usize,
    },
    List {
        length: usize,
    },
    Dictionary {
        length: usize,
    },
    Global(Global),
    Storage {
        number: Number,
        key: At,
        elements: u64,
    },
    Tensor {
        storage: At,
        offset: u64,
        shape: At,
        strides: At,
    },
}

/// What a pickle may import.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    Storage(Number),
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "HalfStorage") => Self::Storage(Number::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Number::Bf16),
            ("torch", "FloatStorage") => Self::Storage(Number::F32),
            ("torch", "DoubleStorage") => Self::Storage(Number::F64),
            _ => return None,
        })
    }
}

/// Where the numbers of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub number: Number,
    /// The name of the storage.
    pub storage: String,
    /// The numbers of the storage.
    pub elements: u64,
    /// The place of the tensor's first number in the storage, in numbers.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// How far the next number along each dimension is, in numbers.
    pub strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    /// The items of all tuples.
    items: Vec<At>,
    root: At,
}

impl<'a> Pickle<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        if bytes.len() > LONGEST {
            let what = format!("a pickle of {} bytes, where at most {LONGEST} are read", bytes.len());
            return Err(PickleError { offset: 0, what });
        }
        let mut machine = Machine {
            bytes,
            at: 0,
            opcode: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pickle: Self { values: Vec::new(), items: Vec::new(), root: 0 },
        };
        while !machine.step()? {}
        Ok(machine.pickle)
    }

    /// Whether it is a dictionary without entries.
    pub fn is_empty_dictionary(&self) -> bool {
        self.values.get(self.root) == Some(&Value::Dictionary { length: 0 })
    }

    /// The tensor that it is; else what it is.
    pub fn tensor(&self) -> Result<Tensor, String> {
        let root = self.values.get(self.root);
        let Some(&Value::Tensor { storage, offset, shape, strides }) = root else {
            return Err(root.map_or_else(String::new, |root| root.to_words()));
        };
        let Some(&Value::Storage { number, key, elements }) = self.values.get(storage) else {
            return Err("a tensor without a storage".into());
        };
        let Some(Value::Text(key)) = self.values.get(key) else {
            return Err("a storage without a name".into());
        };
        let tensor = Tensor {
            number,
            storage: (*key).to_owned(),
            elements,
            offset,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        };
        tensor.check()?;
        Ok(tensor)
    }

    fn tuple(&self, at: At) -> Option<&[At]> {
        match self.values.get(at) {
            Some(&Value::Tuple { first, length }) => self.items.get(first..first.checked_add(length)?),
            _ => None,
        }
    }

    fn sizes(&self, at: At) -> Result<Vec<u64>, String> {
        let size = |at: &At| match self.values.get(*at) {
            Some(&Value::Int(size)) => u64::try_from(size).ok(),
            _ => None,
        };
        let sizes = self.tuple(at).and_then(|items| items.iter().map(size).collect());
        sizes.ok_or_else(|| "a tensor whose shape or strides are no sizes".into())
    }
}

impl Tensor {
    /// How many numbers it has.
    pub fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size))
    }

    /// That all of it lies in its storage, and that no number of that stands for several.
    fn check(&self) -> Result<(), String> {
        let shape = || format!("a tensor of shape {:?} and strides {:?}", self.shape, self.strides);
        if self.shape.len() != self.strides.len() {
            return Err(shape());
        }
        let count = self.count();
        if count == Some(0) {
            return Ok(());
        }
        if count.is_none_or(|count| count > self.elements) {
            return Err(format!("{}, more numbers than the {} of its storage", shape(), self.elements));
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (size, stride)| {
            size.checked_sub(1)
                .and_then(|steps| steps.checked_mul(*stride))
                .and_then(|way| last.checked_add(way))
        });
        if last.is_none_or(|last| last >= self.elements) {
            let (offset, elements) = (self.offset, self.elements);
            return Err(format!(
                "{} from {offset} on, out of the {elements} numbers of its storage",
                shape()
            ));
        }
        Ok(())
    }
}

impl Value<'_> {
    fn to_words(self) -> String {
        match self {
            Self::Other => "None, a truth value or a fraction".into(),
            Self::Int(_) => "a number".into(),
            Self::Text(_) => "a text".into(),
            Self::Tuple { length, .. } => format!("a tuple of {length}"),
            Self::List { length } => format!("a list of {length}"),
            Self::Dictionary { length } => format!("a dictionary of {length}"),
            Self::Global(global) => format!("{global:?}"),
            Self::Storage { .. } => "a storage".into(),
            Self::Tensor { .. } => "a tensor".into(),
        }
    }
}

/// The opcodes, by the names in Python's `pickletools`.
mod opcode {
    pub const PROTO: u8 = 0x80;
    pub const STOP: u8 = b'.';
    pub const MARK: u8 = b'(';
    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG1: u8 = 0x8a;
    pub const BINFLOAT: u8 = b'G';
    pub const BINUNICODE: u8 = b'X';
    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;
    pub const TUPLE: u8 = b't';
    pub const EMPTY_LIST: u8 = b']';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const EMPTY_DICT: u8 = b'}';
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';
    pub const GLOBAL: u8 = b'c';
    pub const BINPERSID: u8 = b'Q';
    pub const REDUCE: u8 = b'R';
}

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the opcode stands that is executed.
    opcode: usize,
    stack: Vec<At>,
    /// The heights of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, At>,
    pickle: Pickle<'a>,
}

type Step<T> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    fn fail<T>(&self, what: impl Into<String>) -> Step<T> {
        Err(PickleError { offset: self.opcode, what: what.into() })
    }

    /// Reads one opcode; true if it was the last.
    fn step(&mut self) -> Step<bool> {
        self.opcode = self.at;
        let code = self.number(u8::from_le_bytes)?;
        match code {
            opcode::PROTO => match self.number(u8::from_le_bytes)? {
                2 => {}
                other => return self.fail(format!("protocol {other}; torch writes 2 unless told otherwise")),
            },
            opcode::STOP => {
                self.pickle.root = self.pop()?;
                if !self.stack.is_empty() || self.at < self.bytes.len() {
                    return self.fail("an end that leaves something over");
                }
                return Ok(true);
            }
            opcode::MARK => self.marks.push(self.stack.len()),
            opcode::NONE | opcode::NEWTRUE | opcode::NEWFALSE => self.push(Value::Other),
            opcode::BINFLOAT => {
                self.take(8)?;
                self.push(Value::Other);
            }
            opcode::BININT => self.integer(i32::from_le_bytes)?,
            opcode::BININT1 => self.integer(u8::from_le_bytes)?,
            opcode::BININT2 => self.integer(u16::from_le_bytes)?,
            opcode::LONG1 => self.long()?,
            opcode::BINUNICODE => {
                let length = self.number(u32::from_le_bytes)? as usize;
                let Ok(text) = std::str::from_utf8(self.take(length)?) else {
                    return self.fail("a text that is no UTF-8");
                };
                self.push(Value::Text(text));
            }
            opcode::EMPTY_TUPLE => self.push_tuple(self.stack.len())?,
            opcode::TUPLE1 => self.push_tuple(self.height(1)?)?,
            opcode::TUPLE2 => self.push_tuple(self.height(2)?)?,
            opcode::TUPLE3 => self.push_tuple(self.height(3)?)?,
            opcode::TUPLE => {
                let mark = self.pop_mark()?;
                self.push_tuple(mark)?;
            }
            opcode::EMPTY_LIST => self.push(Value::List { length: 0 }),
            opcode::APPEND => self.grow(self.height(1)?)?,
            opcode::EMPTY_DICT => self.push(Value::Dictionary { length: 0 }),
            opcode::SETITEM => self.grow(self.height(2)?)?,
            opcode::APPENDS | opcode::SETITEMS => {
                let mark = self.pop_mark()?;
                self.grow(mark)?;
            }
            opcode::BINPUT => {
                let key = self.number(u8::from_le_bytes)?;
                self.put(u32::from(key))?;
            }
            opcode::LONG_BINPUT => {
                let key = self.number(u32::from_le_bytes)?;
                self.put(key)?;
            }
            opcode::BINGET => {
                let key = self.number(u8::from_le_bytes)?;
                self.get(u32::from(key))?;
            }
            opcode::LONG_BINGET => {
                let key = self.number(u32::from_le_bytes)?;
                self.get(key)?;
            }
            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                let Some(global) = Global::named(module, name) else {
                    return self.fail(format!(
                        "it imports {module}.{name}; only tensors of half, bfloat16, float and double are read"
                    ));
                };
                self.push(Value::Global(global));
            }
            opcode::BINPERSID => self.storage()?,
            opcode::REDUCE => self.reduce()?,
            other => {
                return self.fail(format!("opcode {other:#04x}, which torch does not write for tensors"));
            }
        }
        Ok(false)
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return self.fail("the pickle is cut off");
        };
        self.at += length;
        Ok(bytes)
    }

    fn number<T, const N: usize>(&mut self, decode: fn([u8; N]) -> T) -> Step<T> {
        match self.take(N)?.first_chunk() {
            Some(bytes) => Ok(decode(*bytes)),
            None => self.fail("the pickle is cut off"),
        }
    }

    /// What stands before the next end of a line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(line).or_else(|_| self.fail("a name that is no UTF-8"))
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.pickle.values.len());
        self.pickle.values.push(value);
    }

    /// The height above which values may be taken: that of the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<At> {
        if self.stack.len() > self.floor()
            && let Some(at) = self.stack.pop()
        {
            return Ok(at);
        }
        self.fail("a value is missing on the stack")
    }

    /// The height of the stack without its last `count` values.
    fn height(&self, count: usize) -> Step<usize> {
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(height),
            _ => self.fail("a value is missing on the stack"),
        }
    }

    fn pop_mark(&mut self) -> Step<usize> {
        match self.marks.pop() {
            Some(height) => Ok(height),
            None => self.fail("a mark is missing on the stack"),
        }
    }

    fn integer<T: Into<i64>, const N: usize>(&mut self, decode: fn([u8; N]) -> T) -> Step<()> {
        let number = self.number(decode)?.into();
        self.push(Value::Int(number));
        Ok(())
    }

    /// An integer of any length; those of more than eight bytes are no size of anything.
    fn long(&mut self) -> Step<()> {
        let length = self.number(u8::from_le_bytes)? as usize;
        let bytes = self.take(length)?;
        let sign = if bytes.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
        let mut whole = [sign; 8];
        let Some(start) = whole.get_mut(..length) else {
            return self.fail(format!("an integer of {length} bytes"));
        };
        start.copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    /// Makes a tuple of all above a height of the stack.
    fn push_tuple(&mut self, height: usize) -> Step<()> {
        let first = self.pickle.items.len();
        self.pickle.items.extend(self.stack.drain(height..));
        let length = self.pickle.items.len() - first;
        self.push(Value::Tuple { first, length });
        Ok(())
    }

    /// Moves all above a height of the stack into the list or dictionary below it. Nothing asks for these again, so they
    /// are only counted.
    fn grow(&mut self, height: usize) -> Step<()> {
        let count = self.stack.len().saturating_sub(height);
        self.stack.truncate(height);
        let into = self.stack.last().and_then(|at| self.pickle.values.get_mut(*at));
        match into {
            Some(Value::List { length }) => *length += count,
            Some(Value::Dictionary { length }) if count.is_multiple_of(2) => *length += count / 2,
            _ => return self.fail("items without a list or dictionary for them"),
        }
        Ok(())
    }

    fn put(&mut self, key: u32) -> Step<()> {
        match self.stack.last() {
            Some(at) => {
                self.memo.insert(key, *at);
                Ok(())
            }
            None => self.fail("a value is missing on the stack"),
        }
    }

    fn get(&mut self, key: u32) -> Step<()> {
        match self.memo.get(&key) {
            Some(at) => {
                self.stack.push(*at);
                Ok(())
            }
            None => self.fail(format!("value {key} is asked for, and not noted before")),
        }
    }

    fn value(&self, at: At) -> Option<Value<'a>> {
        self.pickle.values.get(at).copied()
    }

    /// `("storage", type, key, device, elements)`.
    fn storage(&mut self) -> Step<()> {
        let id = self.pop()?;
        if let Some(&[tag, kind, key, _, elements]) = self.pickle.tuple(id)
            && self.value(tag) == Some(Value::Text("storage"))
            && let Some(Value::Global(Global::Storage(number))) = self.value(kind)
            && let Some(Value::Text(_)) = self.value(key)
            && let Some(Value::Int(elements)) = self.value(elements)
            && let Ok(elements) = u64::try_from(elements)
        {
            self.push(Value::Storage { number, key, elements });
            return Ok(());
        }
        self.fail("a reference to something outside that is no storage")
    }

    fn reduce(&mut self) -> Step<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let value = match (self.value(callable), self.pickle.tuple(arguments)) {
            (Some(Value::Global(Global::OrderedDict)), Some([])) => Some(Value::Dictionary { length: 0 }),
            (Some(Value::Global(Global::RebuildParameter)), Some(&[tensor, _, _])) => {
                self.value(tensor).filter(|tensor| matches!(tensor, Value::Tensor { .. }))
            }
            // Newer versions may add metadata.
            (
                Some(Value::Global(Global::RebuildTensor)),
                Some(&[storage, offset, shape, strides, _, _] | &[storage, offset, shape, strides, _, _, _]),
            ) => match (self.value(storage), self.value(offset)) {
                (Some(Value::Storage { .. }), Some(Value::Int(offset))) => {
                    let tensor = |offset| Value::Tensor { storage, offset, shape, strides };
                    u64::try_from(offset).ok().map(tensor)
                }
                _ => None,
            },
            _ => None,
        };
        match value {
            Some(value) => self.push(value),
            None => return self.fail("a call that rebuilds no tensor"),
        }
        Ok(())
    }
}
