//! A column of a Hugging Face dataset on disk: a folder with `state.json`, which names files of Arrow's stream format.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array as _, ArrayRef};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType};
use serde::Deserialize;

use super::super::FormatError;
use super::super::input::{malformed, unsupported};
use super::files;

/// The values of one column, in order.
pub(super) struct Column {
    name: String,
    /// The files that are left.
    files: VecDeque<PathBuf>,
    /// The file that is read.
    path: PathBuf,
    batches: Option<StreamReader<BufReader<File>>>,
    values: Option<ArrayRef>,
    next: usize,
    row: u64,
}

#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    data_files: Vec<DataFile>,
}

#[derive(Deserialize)]
struct DataFile {
    filename: String,
}

impl Column {
    pub fn open(folder: &Path, name: &str) -> Result<Self, FormatError> {
        let path = folder.join("state.json");
        let text = files::read_text(&path)?;
        let state: State = serde_json::from_str(&text).map_err(|error| files::bad_json(&path, 0, &error))?;
        let mut paths = VecDeque::new();
        for DataFile { filename } in state.data_files {
            if filename.contains(['/', '\\']) || filename == ".." {
                return Err(unsupported(&path, format!("{filename:?} is no file of this folder")));
            }
            paths.push_back(folder.join(filename));
        }
        let mut column =
            Self { name: name.into(), files: paths, path, batches: None, values: None, next: 0, row: 0 };
        // So that a name that is not there is an error before the first row.
        column.open_next()?;
        Ok(column)
    }

    /// Where the next value comes from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the next file; false if there is none.
    fn open_next(&mut self) -> Result<bool, FormatError> {
        let Some(path) = self.files.pop_front() else { return Ok(false) };
        let open = |projection| {
            StreamReader::try_new(files::open_buffered(&path)?, projection)
                .map_err(|error| arrow_error(&path, error))
        };
        let schema = open(None)?.schema();
        let Some((position, _)) = schema.column_with_name(&self.name) else {
            let found = schema.fields().iter().map(|field| field.name().clone()).collect();
            return Err(FormatError::Missing { path, name: self.name.clone(), found });
        };
        self.batches = Some(open(Some(vec![position]))?);
        self.path = path;
        Ok(true)
    }

    /// Puts the next value into `into`; false at the end.
    pub fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, FormatError> {
        loop {
            if let Some(values) = self.values.as_ref().filter(|values| self.next < values.len()) {
                into.clear();
                append(values, self.next, into).map_err(|what| {
                    unsupported(&self.path, format!("row {}: column {:?} {what}", self.row, self.name))
                })?;
                self.next += 1;
                self.row += 1;
                return Ok(true);
            }
            match self.batches.as_mut().and_then(Iterator::next) {
                Some(batch) => {
                    let batch = batch.map_err(|error| arrow_error(&self.path, error))?;
                    self.values = batch.columns().first().cloned();
                    self.next = 0;
                }
                None if self.open_next()? => {}
                None => return Ok(false),
            }
        }
    }
}

fn arrow_error(path: &Path, error: ArrowError) -> FormatError {
    match error {
        ArrowError::IoError(_, source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            malformed(path, 0, "the Arrow stream is cut off")
        }
        ArrowError::IoError(_, source) => files::io_error(path, "read", source),
        error => malformed(path, 0, format!("no sound Arrow stream: {error}")),
    }
}

/// Appends a text or bytes as they are, and an integer in decimal digits.
fn append(values: &ArrayRef, at: usize, into: &mut Vec<u8>) -> Result<(), String> {
    if values.is_null(at) {
        return Err("is null".into());
    }
    macro_rules! integer {
        ($kind:ty) => {
            // Writing to memory does not fail.
            write!(into, "{}", values.as_primitive::<$kind>().value(at)).map_err(|error| error.to_string())?
        };
    }
    match values.data_type() {
        DataType::Utf8 => into.extend_from_slice(values.as_string::<i32>().value(at).as_bytes()),
        DataType::LargeUtf8 => into.extend_from_slice(values.as_string::<i64>().value(at).as_bytes()),
        DataType::Binary => into.extend_from_slice(values.as_binary::<i32>().value(at)),
        DataType::LargeBinary => into.extend_from_slice(values.as_binary::<i64>().value(at)),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        other => return Err(format!("is of {other}, where texts, bytes and integers can be ids")),
    }
    Ok(())
}
