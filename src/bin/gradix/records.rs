//! Results as records: JSON lines, CSV or Parquet, to stdout or into a file, as they come.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Float64Builder, StringBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use tempfile::NamedTempFile;

use crate::failure::{Failure, Result};
use crate::id;

/// The most rows of a Parquet row group, which is in memory until it is written.
const GROUP: usize = 65_536;
/// And the bytes from which on it is written: metadata alone may be 64 KiB a row.
const GROUP_BYTES: usize = 8 << 20;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An object on each line
    Jsonl,
    /// Comma-separated, with a line of names
    Csv,
    Parquet,
}

impl Format {
    /// That of a file name's ending.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson" | "json") => Ok(Self::Jsonl),
            Some("csv") => Ok(Self::Csv),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Failure::Usage(format!(
                "{}: the format is not clear from the name: end it in .jsonl, .csv or .parquet, or say --format",
                path.display()
            ))),
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ids: text where it is UTF-8. Parquet takes no others.
    Id,
    /// Bytes: text where it is UTF-8; binary in Parquet.
    Bytes,
    Text,
    Count,
    Number,
}

/// A column: its name, and what it holds.
pub type Column = (String, Kind);

/// One value.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    Count(u64),
    Number(f64),
    Nothing,
}

impl<'a> Cell<'a> {
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }

    /// The bytes that a column has of it.
    fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
            Self::Count(_) | Self::Number(_) => 8,
            Self::Nothing => 0,
        }
    }
}

/// Checks that a file may be made: that nothing is there, or with `force` no more than a file or a link, which it replaces.
pub fn check_free(path: &Path, force: bool) -> Result {
    let what = format!("write {}", path.display());
    let there = |kind: &str| io::Error::new(io::ErrorKind::AlreadyExists, kind.to_owned());
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Failure::Io { what, source }),
    };
    let kind = match metadata.file_type() {
        kind if kind.is_file() => "it is there already",
        kind if kind.is_symlink() => "it is a symbolic link",
        kind if kind.is_dir() => {
            return Err(Failure::Io { what, source: there("it is a folder") });
        }
        _ => return Err(Failure::Io { what, source: there("it is no file, but a pipe or a device") }),
    };
    if force {
        return Ok(());
    }
    Err(Failure::Io { what, source: there(kind) }.and("--force puts the new file in its place".into()))
}

/// Where bytes go: stdout, or a file that has its name only when it is whole.
pub enum Destination {
    Stdout(BufWriter<io::Stdout>),
    File { file: BufWriter<NamedTempFile>, path: PathBuf, force: bool },
}

impl Destination {
    /// Begins a file, or stdout if there is no path. What is at the path is replaced with `force` only.
    pub fn new(path: Option<&Path>, force: bool) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(BufWriter::new(io::stdout()))) };
        check_free(path, force)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As any other file: the umask takes away what is not wanted.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.prefix(".gradix-").tempfile_in(folder);
        let file = file.map_err(Failure::io(format!("create {}", path.display())))?;
        Ok(Self::File { file: BufWriter::new(file), path: path.to_owned(), force })
    }

    /// What failed.
    pub fn failed(&self) -> impl Fn(io::Error) -> Failure + use<> {
        let what = match self {
            Self::Stdout(_) => "write to stdout".to_owned(),
            Self::File { path, .. } => format!("write {}", path.display()),
        };
        move |source| Failure::Io { what: what.clone(), source }
    }

    /// Ends a file: syncs it, and gives it its name.
    pub fn finish(self) -> Result {
        let failed = self.failed();
        match self {
            Self::Stdout(mut out) => out.flush().map_err(failed),
            Self::File { file, path, force } => {
                let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
                file.as_file().sync_all().map_err(&failed)?;
                // Another process may have made one meanwhile.
                let named = if force { file.persist(path) } else { file.persist_noclobber(path) };
                named.map_err(|error| failed(error.error))?;
                Ok(())
            }
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

/// A writer of records.
pub struct Records {
    columns: Vec<Column>,
    failed: Box<dyn Fn(io::Error) -> Failure + Send>,
    writer: Writer,
}

enum Writer {
    Jsonl(Destination),
    Csv(Box<csv::Writer<Destination>>),
    Parquet {
        writer: Box<ArrowWriter<Destination>>,
        schema: Arc<arrow_schema::Schema>,
        builders: Vec<Builder>,
        rows: usize,
        bytes: usize,
    },
}

enum Builder {
    Id(StringBuilder),
    Bytes(BinaryBuilder),
    Text(StringBuilder),
    Count(UInt64Builder),
    Number(Float64Builder),
}

impl Records {
    /// Begins a file, or what goes to stdout, with these columns.
    pub fn create(format: Format, destination: Destination, columns: Vec<Column>) -> Result<Self> {
        let failed = Box::new(destination.failed());
        let writer = match format {
            Format::Jsonl => Writer::Jsonl(destination),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(destination);
                let names = columns.iter().map(|(name, _)| name);
                writer.write_record(names).map_err(|error| failed(error.into()))?;
                Writer::Csv(Box::new(writer))
            }
            Format::Parquet => {
                let fields: Vec<Field> =
                    columns.iter().map(|(name, kind)| Field::new(name, data_type(*kind), true)).collect();
                let schema = Arc::new(arrow_schema::Schema::new(fields));
                let writer = ArrowWriter::try_new(destination, Arc::clone(&schema), None);
                let writer = Box::new(writer.map_err(|error| failed(io::Error::other(error)))?);
                let builders = columns.iter().map(|(_, kind)| Builder::new(*kind)).collect();
                Writer::Parquet { writer, schema, builders, rows: 0, bytes: 0 }
            }
        };
        Ok(Self { columns, failed, writer })
    }

    /// Writes a record, which has a cell for each column.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> Result {
        match &mut self.writer {
            Writer::Jsonl(out) => {
                let record = Record { columns: &self.columns, cells };
                let written = serde_json::to_writer(&mut *out, &record).map_err(io::Error::from);
                written.and_then(|()| writeln!(out)).map_err(&self.failed)
            }
            Writer::Csv(writer) => cells
                .iter()
                .try_for_each(|cell| csv_field(writer, *cell))
                .and_then(|()| writer.write_record(None::<&[u8]>))
                .map_err(|error| (self.failed)(error.into())),
            Writer::Parquet { builders, rows, bytes, .. } => {
                for (builder, cell) in builders.iter_mut().zip(cells) {
                    builder.append(*cell)?;
                    *bytes += cell.bytes();
                }
                *rows += 1;
                if *rows == GROUP || *bytes >= GROUP_BYTES { self.flush_group() } else { Ok(()) }
            }
        }
    }

    fn flush_group(&mut self) -> Result {
        let Writer::Parquet { writer, schema, builders, rows, bytes } = &mut self.writer else {
            return Ok(());
        };
        *bytes = 0;
        if std::mem::take(rows) == 0 {
            return Ok(());
        }
        let arrays = builders.iter_mut().map(Builder::finish).collect();
        let failed = &self.failed;
        let batch = RecordBatch::try_new(Arc::clone(schema), arrays)
            .map_err(|error| failed(io::Error::other(error)))?;
        writer.write(&batch).and_then(|()| writer.flush()).map_err(|error| failed(error_of(error)))
    }

    /// Ends the records.
    pub fn finish(mut self) -> Result {
        self.flush_group()?;
        let failed = self.failed;
        match self.writer {
            Writer::Jsonl(out) => out.finish(),
            Writer::Csv(writer) => writer
                .into_inner()
                .map_err(|error| failed(io::Error::other(error.error().to_string())))?
                .finish(),
            Writer::Parquet { writer, .. } => {
                writer.into_inner().map_err(|error| failed(error_of(error)))?.finish()
            }
        }
    }
}

/// The system's error within one of Parquet, so that a closed pipe is known.
fn error_of(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Id | Kind::Text => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Count => DataType::UInt64,
        Kind::Number => DataType::Float64,
    }
}

fn csv_field(writer: &mut csv::Writer<Destination>, cell: Cell<'_>) -> csv::Result<()> {
    match cell {
        Cell::Bytes(bytes) => writer.write_field(bytes),
        Cell::Text(text) => writer.write_field(text),
        Cell::Count(count) => writer.write_field(count.to_string()),
        Cell::Number(number) => writer.write_field(format!("{number:?}")),
        Cell::Nothing => writer.write_field(""),
    }
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Id => Self::Id(StringBuilder::new()),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Count => Self::Count(UInt64Builder::new()),
            Kind::Number => Self::Number(Float64Builder::new()),
        }
    }

    fn append(&mut self, cell: Cell<'_>) -> Result {
        match (self, cell) {
            (Self::Id(ids), Cell::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => ids.append_value(text),
                Err(_) => {
                    let shown = id::shown(bytes);
                    return Err(Failure::Wrong(format!(
                        "the id {shown} is not UTF-8, which a column of text cannot hold: take --format jsonl or csv"
                    )));
                }
            },
            (Self::Bytes(column), Cell::Bytes(bytes)) => column.append_value(bytes),
            (Self::Text(column) | Self::Id(column), Cell::Text(text)) => column.append_value(text),
            (Self::Count(column), Cell::Count(count)) => column.append_value(count),
            (Self::Number(column), Cell::Number(number)) => column.append_value(number),
            (Self::Id(column) | Self::Text(column), _) => column.append_null(),
            (Self::Bytes(column), _) => column.append_null(),
            (Self::Count(column), _) => column.append_null(),
            (Self::Number(column), _) => column.append_null(),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Id(column) | Self::Text(column) => Arc::new(column.finish()),
            Self::Bytes(column) => Arc::new(column.finish()),
            Self::Count(column) => Arc::new(column.finish()),
            Self::Number(column) => Arc::new(column.finish()),
        }
    }
}

struct Record<'r> {
    columns: &'r [Column],
    cells: &'r [Cell<'r>],
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for ((name, _), cell) in self.columns.iter().zip(self.cells) {
            match *cell {
                Cell::Bytes(bytes) => map.serialize_entry(name, &id::json(bytes))?,
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Count(count) => map.serialize_entry(name, &count)?,
                Cell::Number(number) => map.serialize_entry(name, &number)?,
                Cell::Nothing => map.serialize_entry(name, &())?,
            }
        }
        map.end()
    }
}
