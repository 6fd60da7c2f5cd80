//! Vectors in the files that other programs make: reading them row by row, and writing them (feature `formats`).
//!
//! A [`RowSource`] reads one file, or one store of a peer, in its order and in bounded memory; [`open`] chooses it by
//! the file's first bytes. A [`RowSink`] writes one. Both pass [`Batch`]es: rows of `f32` values, block after block,
//! with what the file says of each row. None of them knows an index.

mod batch;
mod error;
pub mod stores;

pub use batch::Batch;
pub use error::FormatError;

use crate::sketch::SketchSpec;

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
