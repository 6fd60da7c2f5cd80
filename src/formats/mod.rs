//! Vectors in the files that other programs make: reading them row by row, and writing them (feature `formats`).
//!
//! A [`RowSource`] reads one file, or one store of a peer, in its order and in bounded memory; [`open`] chooses it by
//! the file's first bytes. A [`RowSink`] writes one. Both pass [`Batch`]es: rows of `f32` values, block after block,
//! with what the file says of each row. None of them knows an index.

mod arrays;
mod arrow;
mod batch;
mod cells;
mod columns;
mod error;
mod ids;
mod input;
mod labels;
mod npy;
mod npz;
mod numbers;
mod options;
mod parquet;
pub(crate) mod pickle;
mod safetensors;
pub mod stores;
mod tables;
mod write;

use std::path::Path;

pub use batch::Batch;
pub use error::FormatError;
pub use options::{FileFormat, IdSource, ReadOptions};
pub use write::create;

use crate::sketch::SketchSpec;
use input::{Input, unsupported};

/// Opens a file of vectors; `-` is standard input. Rows come in the file's order, and a value that is NaN or infinite is an
/// error. `docs/formats.md` says what becomes block, id, source, span and metadata.
///
/// Npy and Arrow streams are read as they come from a pipe; other formats are copied to a temporary file first.
///
/// ```no_run
/// use gradix::formats::{self, Batch, IdSource, ReadOptions};
/// let options = ReadOptions::default().ids(IdSource::Pattern("{stem}-{row:06}".into()));
/// let mut rows = formats::open("gradients.npy", &options)?;
/// let mut batch = Batch::default();
/// loop {
///     rows.read(256, &mut batch)?;
///     if batch.rows == 0 {
///         break;
///     }
///     for (id, values) in batch.ids.iter().zip(batch.values.chunks(rows.spec().dims())) {
///         println!("{} {}", String::from_utf8_lossy(id), values.len());
///     }
/// }
/// # Ok::<(), gradix::formats::FormatError>(())
/// ```
///
/// # Errors
/// The file cannot be opened, is of no known format, is damaged, or holds what cannot become rows; it has no ids, and the
/// options give none.
pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Box<dyn RowSource>, FormatError> {
    let input = Input::open(path.as_ref())?;
    let format = options.format.or(FileFormat::of_bytes(&input.first)).or(FileFormat::of_path(&input.path));
    match format {
        Some(FileFormat::Safetensors) => Ok(Box::new(safetensors::open(input, options)?)),
        Some(FileFormat::Npy) => Ok(Box::new(npy::open(input, options)?)),
        Some(FileFormat::Npz) => Ok(Box::new(npz::open(input, options)?)),
        Some(FileFormat::Arrow) => Ok(Box::new(arrow::open(input, options)?)),
        Some(FileFormat::Parquet) => Ok(Box::new(parquet::open(input, options)?)),
        None => {
            let names = FileFormat::ALL.map(FileFormat::name).join(", ");
            Err(unsupported(
                &input.path,
                format!("neither the first bytes nor the name tell the format; there are {names}"),
            ))
        }
    }
}

/// A file of vectors, or a store, that is read row by row from its beginning.
pub trait RowSource: Send {
    /// What an index of these rows would have for a spec: the store's own, or a dense one with the file's blocks.
    fn spec(&self) -> &SketchSpec;

    /// The type of the numbers as they are stored.
    fn number(&self) -> Number;

    /// The number of rows; `None` if only reading to the end tells it, as with a stream.
    fn rows(&self) -> Option<u64>;

    /// Passes over the next `rows` rows without decoding them, where the file allows it.
    ///
    /// # Errors
    /// The file cannot be read, or has fewer rows.
    fn skip(&mut self, rows: u64) -> Result<(), FormatError>;

    /// Reads at most `rows` rows into `batch`, whose rows before are dropped and whose memory is used again. Fewer are
    /// read only where the file asks for it; none, at its end.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or cut off.
    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError>;
}

/// A file of vectors that is written row by row. What is written is under the file's name only after
/// [`RowSink::finish`].
pub trait RowSink {
    /// Writes all rows of a batch.
    ///
    /// # Errors
    /// The file cannot be written, or the format cannot hold a row.
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError>;

    /// Ends the file, syncs it and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written.
    fn finish(self: Box<Self>) -> Result<(), FormatError>;
}

/// The type of a file's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Number {
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64: rounded to binary32 when read.
    F64,
}
