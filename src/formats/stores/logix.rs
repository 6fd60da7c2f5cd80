//! LogIX's store: chunks `log_rank_R_chunk_C.mmap` of numbers, and for each a list in JSON of what lies where.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::vec;

use serde::Deserialize as _;
use serde_json::{Deserializer, Value};

use super::super::input::{DataFile, malformed, unsupported};
use super::super::{Batch, FormatError, Number, RowSource};
use super::ids::Names;
use super::numbers::{self, Numbers, check_finite};
use super::{StoreOptions, files};
use crate::sketch::SketchSpec;

/// The longest entry of a list that is read: 64 MiB. LogIX writes some 250 bytes for each module.
const LONGEST_ENTRY: u64 = 1 << 26;

/// A store that is read.
pub(super) struct Logix {
    spec: SketchSpec,
    number: Number,
    folder: PathBuf,
    /// The chunks that are left, by rank and number.
    chunks: vec::IntoIter<(u64, u64)>,
    entries: Entries,
    numbers: Numbers,
    /// The bytes of the file of `numbers`.
    length: u64,
    /// The entry of the next row; none at the end.
    entry: Option<Entry>,
    /// `path` and `shape` of all entries.
    layout: (Vec<Vec<String>>, Vec<Vec<u64>>),
    row: u64,
    names: Names,
}

/// What the list says of an example: the modules of its row in their order, each with the way to it and its shape.
#[derive(serde::Deserialize)]
struct Entry {
    data_id: Value,
    path: Vec<Vec<String>>,
    offset: u64,
    shape: Vec<Vec<u64>>,
    block_size: u64,
    dtype: String,
}

impl Entry {
    /// Names and dims; `grad` at the end of all names is left out.
    fn blocks(&self) -> Vec<(String, u32)> {
        let is_gradient = |way: &Vec<String>| way.len() > 1 && way.last().is_some_and(|last| last == "grad");
        let left_out = usize::from(self.path.iter().all(is_gradient));
        let blocks = self.path.iter().zip(&self.shape).map(|(way, shape)| {
            let name = way.get(..way.len().saturating_sub(left_out)).unwrap_or_default().join(".");
            let dims = shape.iter().try_fold(1u64, |dims, size| dims.checked_mul(*size));
            // What is too much for a block is refused as such.
            (name, dims.and_then(|dims| u32::try_from(dims).ok()).unwrap_or(u32::MAX))
        });
        blocks.collect()
    }
}

impl Logix {
    pub fn open(folder: &Path, options: &StoreOptions) -> Result<Self, FormatError> {
        if let Some(part) = &options.part {
            return Err(unsupported(folder, format!("a LogIX log has no parts, so none is called {part:?}")));
        }
        let mut chunks = find_chunks(folder)?.into_iter();
        let Some(first) = chunks.next() else {
            return Err(unsupported(folder, "no LogIX log: there is no log_rank_0_chunk_0.mmap in it"));
        };
        let (mut entries, file) = open_chunk(folder, first)?;
        let Some(entry) = entries.next()? else {
            return Err(unsupported(&entries.path, "a list without examples"));
        };
        let number = numbers::named(&entries.path, &entry.dtype)?;
        let spec = SketchSpec::dense("logix", digest(folder)?, entry.blocks());
        spec.check().map_err(|error| unsupported(&entries.path, error.to_string()))?;
        let names = Names::open(&options.ids, folder, None)?;
        let mut store = Self {
            spec,
            number,
            folder: folder.to_owned(),
            chunks,
            entries,
            length: file.length,
            numbers: Numbers::new(file, number, None),
            layout: (entry.path.clone(), entry.shape.clone()),
            entry: None,
            row: 0,
            names,
        };
        store.check(&entry)?;
        store.entry = Some(entry);
        Ok(store)
    }

    /// That an entry is of a row like the first, which the chunk has.
    fn check(&self, entry: &Entry) -> Result<(), FormatError> {
        let path = &self.entries.path;
        let dims = self.spec.dims() as u64;
        let is_like_first = entry.path == self.layout.0 && entry.shape == self.layout.1;
        if !is_like_first || numbers::named(path, &entry.dtype)? != self.number {
            let what = format!("example {} has other modules, shapes or types than the first", entry.data_id);
            return Err(unsupported(path, what));
        }
        if entry.block_size != dims {
            let what =
                format!("example {} has {} numbers, its shapes {dims}", entry.data_id, entry.block_size);
            return Err(malformed(path, self.entries.start, what));
        }
        let end = entry.offset.checked_add(dims * self.number.bytes() as u64);
        if end.is_none_or(|end| end > self.length) {
            let what = format!("the file ends before the numbers of example {}", entry.data_id);
            return Err(malformed(self.numbers.path(), self.length, what));
        }
        Ok(())
    }

    /// Goes to the entry of the next row.
    fn advance(&mut self) -> Result<(), FormatError> {
        self.row += 1;
        self.entry = loop {
            if let Some(entry) = self.entries.next()? {
                self.check(&entry)?;
                break Some(entry);
            }
            let Some(chunk) = self.chunks.next() else { break None };
            let (entries, file) = open_chunk(&self.folder, chunk)?;
            (self.entries, self.length) = (entries, file.length);
            self.numbers = Numbers::new(file, self.number, None);
        };
        Ok(())
    }
}

impl RowSource for Logix {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.number
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        for _ in 0..rows {
            if self.entry.is_none() {
                return Err(unsupported(&self.folder, format!("the log has only {} examples", self.row)));
            }
            self.advance()?;
        }
        Ok(())
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        batch.clear();
        let dims = self.spec.dims();
        while batch.rows < rows
            && let Some(entry) = &self.entry
        {
            self.numbers.read(entry.offset, dims, &mut batch.values)?;
            let values = batch.values.get(batch.rows * dims..).unwrap_or_default();
            check_finite(self.numbers.path(), &self.spec, self.row, values)?;
            let id = match &entry.data_id {
                Value::String(id) => id.clone(),
                Value::Number(id) => id.to_string(),
                other => return Err(unsupported(&self.entries.path, format!("a data id of {other}"))),
            };
            batch.ids.push(self.names.of(self.row, id.as_bytes())?.to_vec());
            batch.rows += 1;
            self.advance()?;
        }
        if batch.rows == 0 { self.names.finish(self.row) } else { Ok(()) }
    }
}

/// The chunks of a log, by rank and number. One that is missing between others is an error.
fn find_chunks(folder: &Path) -> Result<Vec<(u64, u64)>, FormatError> {
    let mut chunks = BTreeSet::new();
    files::each_name(folder, |name| {
        let chunk = name.strip_suffix(".mmap").or_else(|| name.strip_suffix("_metadata.json"));
        let chunk = chunk.and_then(|name| name.strip_prefix("log_rank_")?.split_once("_chunk_"));
        if let Some((Ok(rank), Ok(number))) = chunk.map(|(rank, number)| (rank.parse(), number.parse())) {
            chunks.insert((rank, number));
        }
    })?;
    let mut expected = (0, 0);
    for &(rank, number) in &chunks {
        if rank != expected.0 {
            // The first is 0, of which there must be a chunk.
            let next = if expected.1 > 0 { expected.0 + 1 } else { 0 };
            if rank != next {
                return Err(unsupported(folder, format!("rank {next} is missing, and there are later ones")));
            }
            expected = (rank, 0);
        }
        if number != expected.1 {
            let (rank, number) = expected;
            return Err(unsupported(
                folder,
                format!("chunk {number} of rank {rank} is missing, and there are later ones"),
            ));
        }
        expected.1 += 1;
    }
    Ok(chunks.into_iter().collect())
}

fn open_chunk(folder: &Path, (rank, number): (u64, u64)) -> Result<(Entries, DataFile), FormatError> {
    let file = files::open(&folder.join(format!("log_rank_{rank}_chunk_{number}.mmap")))?;
    // LogIX writes it last.
    let list = Entries::open(folder.join(format!("log_rank_{rank}_chunk_{number}_metadata.json")))?;
    Ok((list, file))
}

/// The projection, which LogIX draws at random and keeps beside the log.
fn digest(folder: &Path) -> Result<String, FormatError> {
    let projection = folder.join("lora/lora_state_dict.pt");
    Ok(if projection.exists() {
        format!("lora_state_dict.pt={}", files::sha256(&projection)?)
    } else {
        "not projected".into()
    })
}

/// A list of entries, one in memory at a time.
struct Entries {
    path: PathBuf,
    file: BufReader<File>,
    /// The byte at which the last entry begins.
    start: u64,
    is_begun: bool,
}

impl Entries {
    fn open(path: PathBuf) -> Result<Self, FormatError> {
        Ok(Self { file: files::open_buffered(&path)?, path, start: 0, is_begun: false })
    }

    /// The next byte that is no space, not yet passed.
    fn peek(&mut self) -> Result<u8, FormatError> {
        loop {
            let bytes = self.file.fill_buf().map_err(|source| files::io_error(&self.path, "read", source))?;
            let next = bytes.first().copied();
            if let Some(next) = next.filter(|next| !next.is_ascii_whitespace()) {
                let place = self.file.stream_position();
                self.start = place.map_err(|source| files::io_error(&self.path, "read", source))?;
                return Ok(next);
            }
            if next.is_none() {
                return Err(malformed(
                    &self.path,
                    self.start,
                    "the list of examples is cut off after the entry",
                ));
            }
            self.file.consume(1);
        }
    }

    fn next(&mut self) -> Result<Option<Entry>, FormatError> {
        match (self.peek()?, self.is_begun) {
            (b']', true) => return Ok(None),
            (b',', true) => self.file.consume(1),
            (b'[', false) => {
                self.file.consume(1);
                self.is_begun = true;
                if self.peek()? == b']' {
                    return Ok(None);
                }
            }
            _ => return Err(malformed(&self.path, self.start, "no list of examples in JSON")),
        }
        self.peek()?;
        let mut source = Deserializer::from_reader((&mut self.file).take(LONGEST_ENTRY));
        Entry::deserialize(&mut source)
            .map(Some)
            .map_err(|error| files::bad_json(&self.path, self.start, &error))
    }
}
