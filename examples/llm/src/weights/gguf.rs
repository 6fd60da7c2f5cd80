//! GGUF, versions 2 and 3, little-endian: a header with settings and the tensors' places, then the tensors.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::quantised::Kind;
use super::{Source, elements};
use crate::error::{LoadError, Result};

/// The header is read in pieces of this size.
const PIECE: u64 = 1 << 20;
/// Lists may lie in lists, but no file needs more than this.
const MAX_DEPTH: usize = 4;

/// A setting of the header.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer.
    Integer(i128),
    /// A float of either width.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

/// A file whose header is read.
#[derive(Debug)]
pub struct File {
    source: Source,
    settings: HashMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
struct Tensor {
    kind: u32,
    /// The outer axis first; the file has it last.
    shape: Vec<usize>,
    start: u64,
}

impl File {
    /// Reads the header.
    ///
    /// # Errors
    /// Names the file, the offset and what is there.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let mut header = Header { source: &source, piece: Vec::new(), start: 0, at: 0 };
        if header.bytes("the magic number", 4)? != b"GGUF" {
            return Err(header.malformed(0, "the magic number", "is not GGUF"));
        }
        let version = header.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(header.malformed(4, "the version", format!("is {version}; 2 and 3 are read")));
        }
        let tensors = header.u64("the number of tensors")?;
        let count = header.u64("the number of settings")?;
        let mut settings = HashMap::new();
        for _ in 0..count {
            let key = header.text("a setting's name")?;
            let kind = header.u32(&key)?;
            let value = header.value(&key, kind, 0)?;
            settings.insert(key, value);
        }
        let mut places: BTreeMap<String, Tensor> = BTreeMap::new();
        for _ in 0..tensors {
            let offset = header.at;
            let name = header.text("a tensor's name")?;
            let axes = header.u32(&name)?;
            if axes > 4 {
                return Err(header.malformed(
                    offset,
                    &format!("tensor {name:?}"),
                    format!("has {axes} axes"),
                ));
            }
            let mut shape = Vec::new();
            for _ in 0..axes {
                let axis = header.u64(&name)?;
                let axis = usize::try_from(axis)
                    .map_err(|_| header.malformed(offset, &format!("tensor {name:?}"), "has a huge axis"))?;
                shape.push(axis);
            }
            shape.reverse();
            let kind = header.u32(&name)?;
            let start = header.u64(&name)?;
            if places.insert(name.clone(), Tensor { kind, shape, start }).is_some() {
                return Err(header.malformed(offset, &format!("tensor {name:?}"), "is there twice"));
            }
        }
        let alignment = match settings.get("general.alignment") {
            None => 32,
            Some(Value::Integer(number)) if (1..=1 << 20).contains(number) => *number as u64,
            Some(other) => {
                return Err(header.malformed(0, "general.alignment", format!("is {other:?}")));
            }
        };
        let data = header.at.next_multiple_of(alignment);
        for tensor in places.values_mut() {
            tensor.start = tensor.start.saturating_add(data);
        }
        Ok(Self { source, settings, tensors: places })
    }

    /// A setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.settings.get(name)
    }

    /// A setting that must be there.
    ///
    /// # Errors
    /// [`LoadError::MissingSetting`].
    pub fn required(&self, name: &str) -> Result<&Value> {
        self.settings.get(name).ok_or_else(|| LoadError::MissingSetting {
            path: self.source.path.clone(),
            setting: name.to_owned(),
        })
    }

    /// A setting of the wrong kind or value.
    #[must_use]
    pub fn refused(&self, setting: &str, reason: &str) -> LoadError {
        let given = match self.settings.get(setting) {
            None => "missing".to_owned(),
            Some(Value::List(list)) => format!("a list of {}", list.len()),
            Some(value) => format!("{value:?}"),
        };
        let (path, setting, reason) = (self.source.path.clone(), setting.to_owned(), reason.to_owned());
        LoadError::Setting { path, setting, given, reason }
    }

    /// A non-negative integer that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn integer(&self, name: &str) -> Result<usize> {
        match self.required(name)? {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        }
        .ok_or_else(|| self.refused(name, "a non-negative integer is needed"))
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.required(name)? {
            Value::Float(number) => Ok(*number),
            _ => Err(self.refused(name, "a float is needed")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn text(&self, name: &str) -> Result<&str> {
        match self.required(name)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.refused(name, "a text is needed")),
        }
    }

    /// A list of texts that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let wrong = || self.refused(name, "a list of texts is needed");
        let Value::List(list) = self.required(name)? else { return Err(wrong()) };
        list.iter()
            .map(|value| if let Value::Text(text) = value { Ok(text.as_str()) } else { Err(wrong()) })
            .collect()
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let path = self.source.path.clone();
        let Some(tensor) = self.tensors.get(name) else {
            return Err(LoadError::MissingTensor { path, tensor: name.to_owned() });
        };
        if tensor.shape != shape {
            let (tensor, given) = (name.to_owned(), tensor.shape.clone());
            return Err(LoadError::Shape { path, tensor, given, expected: shape.to_vec() });
        }
        let Some(kind) = Kind::from_ggml(tensor.kind) else {
            let kind = ggml_name(tensor.kind);
            return Err(LoadError::UnknownType { path, tensor: name.to_owned(), offset: tensor.start, kind });
        };
        let (numbers, size) = kind.block();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(numbers) {
            return Err(LoadError::Malformed {
                path,
                offset: tensor.start,
                what: format!("tensor {name:?}"),
                reason: format!("has rows of {row} numbers, {kind:?} comes in blocks of {numbers}"),
            });
        }
        let blocks = elements(&path, name, tensor.start, shape)? / numbers;
        let bytes = blocks.saturating_mul(size) as u64;
        Ok(kind.decode(&self.source.read(&format!("tensor {name:?}"), tensor.start, bytes)?))
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.source.path
    }
}

/// A type's name where ggml has one, for errors.
fn ggml_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16..=23 | 29 => "one of the IQ types",
        24..=27 => "an integer type",
        28 => "F64",
        _ => return format!("{number}, unknown"),
    };
    format!("{number}, {name}")
}

/// The header's bytes, in order.
struct Header<'a> {
    source: &'a Source,
    piece: Vec<u8>,
    /// Of the piece in the file.
    start: u64,
    /// Of the next byte in the file.
    at: u64,
}

impl Header<'_> {
    fn malformed(&self, offset: u64, what: &str, reason: impl Into<String>) -> LoadError {
        let path: PathBuf = self.source.path.clone();
        LoadError::Malformed { path, offset, what: what.to_owned(), reason: reason.into() }
    }

    fn bytes(&mut self, what: &str, count: u64) -> Result<&[u8]> {
        let within = self.at - self.start;
        if within + count > self.piece.len() as u64 {
            let ahead = count.max(PIECE.min(self.source.len.saturating_sub(self.at)));
            self.piece = self.source.read(what, self.at, ahead)?;
            self.start = self.at;
        }
        let from = (self.at - self.start) as usize;
        self.at += count;
        Ok(&self.piece[from..from + count as usize])
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, what: &str, bytes: u64) -> Result<u64> {
        Ok(self.bytes(what, bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(self.number(what, 4)? as u32)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.number(what, 8)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let offset = self.at;
        let bytes = self.u64(what)?;
        if bytes > self.source.len {
            let (path, what, len) = (self.source.path.clone(), what.to_owned(), self.source.len);
            return Err(LoadError::Truncated {
                path,
                what,
                start: self.at,
                end: self.at.saturating_add(bytes),
                len,
            });
        }
        let text = self.bytes(what, bytes)?.to_vec();
        String::from_utf8(text).map_err(|_| self.malformed(offset, what, "is not UTF-8"))
    }

    fn value(&mut self, key: &str, kind: u32, depth: usize) -> Result<Value> {
        let offset = self.at;
        Ok(match kind {
            0 => Value::Integer(self.number(key, 1)?.into()),
            1 => Value::Integer((self.number(key, 1)? as i8).into()),
            2 => Value::Integer(self.number(key, 2)?.into()),
            3 => Value::Integer((self.number(key, 2)? as i16).into()),
            4 => Value::Integer(self.number(key, 4)?.into()),
            5 => Value::Integer((self.number(key, 4)? as i32).into()),
            6 => Value::Float(f32::from_bits(self.u32(key)?).into()),
            7 => Value::Bool(self.number(key, 1)? != 0),
            8 => Value::Text(self.text(key)?),
            9 if depth < MAX_DEPTH => {
                let kind = self.u32(key)?;
                let count = self.u64(key)?;
                // No element takes less than a byte, so that a wrong count ends at the end of the file.
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(key, kind, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Integer(self.u64(key)?.into()),
            11 => Value::Integer((self.u64(key)? as i64).into()),
            12 => Value::Float(f64::from_bits(self.u64(key)?)),
            other => {
                return Err(self.malformed(offset, key, format!("has a value of the unknown type {other}")));
            }
        })
    }
}
