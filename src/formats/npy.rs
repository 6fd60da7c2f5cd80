//! Arrays of numpy: a header in the syntax of Python, and values.

use std::path::Path;

use super::arrays::{Array, Arrays};
use super::input::{Input, Section, malformed, unsupported};
use super::labels::{Fixed, Labels};
use super::numbers::Stored;
use super::{FormatError, IdSource, Number, ReadOptions};
use crate::sketch::WHOLE;

/// The longest header that is read; numpy reads no longer ones than 10,000 either, unless it is told to.
const LONGEST: usize = 1 << 16;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) shape: Vec<u64>,
    /// The type as numpy names it.
    descr: String,
}

/// The type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Numbers(Stored),
    /// And the bytes that one takes.
    Labels(Fixed, usize),
}

impl Header {
    /// Reads the header, to where the values begin. `what` says which array it is.
    pub(super) fn read(path: &Path, what: &str, section: &mut Section) -> Result<Self, FormatError> {
        let start = section.offset();
        let wrong = |reason: &str| malformed(path, start, format!("{what}: {reason}"));
        let mut fixed = [0; 8];
        section.read(&mut fixed).map_err(|_| wrong("too short for an array of numpy"))?;
        let [magic @ .., major, _] = fixed;
        if magic != *b"\x93NUMPY" {
            return Err(wrong("not an array of numpy"));
        }
        let mut length = [0; 4];
        let length_bytes = match major {
            1 => 2,
            2 | 3 => 4,
            _ => return Err(wrong(&format!("version {major} of the header is not known"))),
        };
        section.read(length.get_mut(..length_bytes).unwrap_or_default())?;
        let length = length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length > LONGEST {
            return Err(wrong(&format!("a header of {length} bytes; at most {LONGEST} are read")));
        }
        let mut text = vec![0; length];
        section.read(&mut text)?;
        let text = str::from_utf8(&text).map_err(|_| wrong("the header is not UTF-8"))?;
        let fields = Fields::parse(text)
            .ok_or_else(|| wrong("the header is not a dict of descr, fortran_order and shape"))?;
        if fields.fortran_order && fields.shape.iter().filter(|&&length| length > 1).count() > 1 {
            let reason = "in Fortran order; numpy.ascontiguousarray makes C order, which is read";
            return Err(unsupported(path, format!("{what}: {reason}")));
        }
        let kind = kind(fields.descr).ok_or_else(|| {
            let reason = "not f2, f4 or f8, nor a text or an integer";
            unsupported(path, format!("{what}: values of type {:?}; {reason}", fields.descr))
        })?;
        Ok(Self { kind, shape: fields.shape, descr: fields.descr.to_owned() })
    }

    /// The rows and dims of an array of vectors; one of a single dimension is one row.
    pub(super) fn vectors(&self, path: &Path, what: &str) -> Result<(u64, u64, Stored), FormatError> {
        let (Kind::Numbers(stored), [rows, dims]) = (
            self.kind,
            match *self.shape {
                [dims] => [1, dims],
                [rows, dims] => [rows, dims],
                _ => [0, 0],
            },
        ) else {
            let what = format!(
                "{what}: values of type {:?}, where vectors of f2, f4 or f8 are expected",
                self.descr
            );
            return Err(unsupported(path, what));
        };
        if !(1..=2).contains(&self.shape.len()) {
            let what =
                format!("{what}: {} dimensions; [rows, dims], or one vector, is expected", self.shape.len());
            return Err(unsupported(path, what));
        }
        Ok((rows, dims, stored))
    }
}

struct Fields<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Fields<'a> {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let after = after.trim_start().strip_prefix(':')?.trim_start();
            let after = match key {
                // A structured type is a list: shown in the message that refuses it.
                "descr" if after.starts_with('[') => {
                    let end = after.rfind(']')? + 1;
                    let (list, after) = after.split_at(end);
                    descr = Some(list);
                    after
                }
                "descr" => {
                    let (text, after) = quoted(after)?;
                    descr = Some(text);
                    after
                }
                "fortran_order" => {
                    let is_true = after.strip_prefix("True");
                    fortran_order = Some(is_true.is_some());
                    is_true.or_else(|| after.strip_prefix("False"))?
                }
                "shape" => {
                    let (list, after) = after.strip_prefix('(')?.split_once(')')?;
                    let lengths = list.split(',').map(str::trim).filter(|length| !length.is_empty());
                    // Python 2 wrote `3L`.
                    let lengths =
                        lengths.map(|length| length.strip_suffix('L').unwrap_or(length).parse().ok());
                    shape = Some(lengths.collect::<Option<Vec<u64>>>()?);
                    after
                }
                _ => return None,
            };
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// A string in quotes, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    text.get(1..)?.split_once(quote)
}

fn kind(descr: &str) -> Option<Kind> {
    let mut chars = descr.chars();
    let big_endian = match chars.next()? {
        '<' | '|' => false,
        '>' => true,
        _ => return None,
    };
    let kind = chars.next()?;
    let size: usize = chars.as_str().parse().ok()?;
    let number = |number| Some(Kind::Numbers(Stored { number, big_endian }));
    match (kind, size) {
        ('f', 2) => number(Number::F16),
        ('f', 4) => number(Number::F32),
        ('f', 8) => number(Number::F64),
        ('i', 1 | 2 | 4 | 8) => Some(Kind::Labels(Fixed::Signed { big_endian }, size)),
        ('u', 1 | 2 | 4 | 8) => Some(Kind::Labels(Fixed::Unsigned { big_endian }, size)),
        ('S', _) => Some(Kind::Labels(Fixed::Bytes, size)),
        ('U', _) => Some(Kind::Labels(Fixed::Unicode { big_endian }, size.checked_mul(4)?)),
        _ => None,
    }
}

/// One array, whose ids lie beside it, in `NAME.ids.txt` for `NAME.npy`, if not elsewhere. It does not name its block.
pub(super) fn open(input: Input, options: &ReadOptions) -> Result<Arrays, FormatError> {
    let path = input.path.clone();
    let mut section = input.into_section();
    let header = Header::read(&path, "the array", &mut section)?;
    let (rows, dims, stored) = header.vectors(&path, "the array")?;
    check_length(&path, "the array", &section, rows, dims, stored)?;
    let name = match &*options.blocks {
        [] => WHOLE.to_owned(),
        [name] => name.clone(),
        names => {
            return Err(unsupported(&path, format!("one array, where {} blocks are asked for", names.len())));
        }
    };
    let beside = path.with_extension("ids.txt");
    let mut options = options.clone();
    if options.ids.is_none() && path != Path::new("-") && beside.is_file() {
        options.ids = Some(IdSource::File(beside));
    }
    let array = Array { name, dims, stored, values: section };
    Arrays::new(path, &options, rows, vec![array], Labels::default(), None)
}

/// Checks that the values of an array are as many as its header says, if the end is known.
pub(super) fn check_length(
    path: &Path,
    what: &str,
    section: &Section,
    rows: u64,
    dims: u64,
    stored: Stored,
) -> Result<(), FormatError> {
    let expected = rows.checked_mul(dims).and_then(|values| values.checked_mul(stored.number.bytes() as u64));
    let left = section.left();
    if expected.is_none() || left.is_some_and(|left| Some(left) != expected) {
        let left = left.map_or("the data".into(), |left| format!("{left} bytes of data"));
        let what = format!("{what}: {left} cannot be {rows} rows of {dims} {} values", stored.number.name());
        return Err(malformed(path, section.offset(), what));
    }
    Ok(())
}
