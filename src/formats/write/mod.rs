//! Files of vectors that are written row by row.

mod labels;
mod npy;
mod npz;
mod output;
mod safetensors;
mod spool;
mod tables;

use std::path::Path;

use spool::Spool;

use super::input::unsupported;
use super::numbers::encode;
use super::{Batch, FileFormat, FormatError, Number, RowSink};
use crate::segment::Span;
use crate::sketch::SketchSpec;

/// Creates a file of vectors with the blocks of a spec, in numbers of a type; `-` is standard output. A file of that name is
/// replaced when the new one is finished, not before.
///
/// Each row must have an id, but for npy. Npy holds one array of all blocks, and the ids beside it, in `NAME.ids.txt` for
/// `NAME.npy`; it is an error if rows have sources, spans or metadata. `docs/formats.md` says what the other formats hold.
///
/// ```
/// use gradix::formats::{self, Batch, FileFormat, Number};
/// use gradix::sketch::SketchSpec;
/// let folder = tempfile::tempdir()?;
/// let spec = SketchSpec::dense("vectors", "", [("layers.0", 3), ("layers.1", 1)]);
/// let path = folder.path().join("rows.safetensors");
/// let mut file = formats::create(path, FileFormat::Safetensors, &spec, Number::F32)?;
/// let mut batch = Batch::default();
/// batch.rows = 2;
/// batch.values = vec![1.0, 2.0, 3.0, 0.5, 4.0, 5.0, 6.0, 0.25];
/// batch.ids = vec![b"one".to_vec(), b"two".to_vec()];
/// file.write(&batch)?;
/// file.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The file cannot be created; the format does not have the type of number; two blocks, or a block and what is said of the
/// rows, would have one name.
pub fn create(
    path: impl AsRef<Path>,
    format: FileFormat,
    spec: &SketchSpec,
    number: Number,
) -> Result<Box<dyn RowSink>, FormatError> {
    let path = path.as_ref();
    spec.check().map_err(|error| unsupported(path, error.to_string()))?;
    let has_number = match format {
        FileFormat::Safetensors => true,
        FileFormat::Npy | FileFormat::Npz => number != Number::Bf16,
        FileFormat::Arrow | FileFormat::Parquet => matches!(number, Number::F16 | Number::F32),
    };
    if !has_number {
        return Err(unsupported(
            path,
            format!("{format} files are not written with numbers of {}", number.name()),
        ));
    }
    Ok(match format {
        FileFormat::Safetensors => Box::new(safetensors::Sink::new(path, spec, number)?),
        FileFormat::Npy => Box::new(npy::Sink::new(path, spec, number)?),
        FileFormat::Npz => Box::new(npz::Sink::new(path, spec, number)?),
        FileFormat::Arrow => Box::new(tables::ArrowSink::new(path, spec, number)?),
        FileFormat::Parquet => Box::new(tables::ParquetSink::new(path, spec, number)?),
    })
}

/// Checks that a batch says something of each row or of none, and that its values are as many as the rows need. `row` is the
/// number of its first row.
fn check(
    path: &Path,
    spec: &SketchSpec,
    row: u64,
    batch: &Batch,
    needs_ids: bool,
) -> Result<(), FormatError> {
    let rows = batch.rows;
    if batch.values.len() != rows * spec.dims() {
        let what = format!("{} values for {rows} rows of {} dims", batch.values.len(), spec.dims());
        return Err(unsupported(path, what));
    }
    let is_said = |length: usize| length == 0 || length == rows;
    let said = [batch.spans.len(), batch.sources.len(), batch.metadata.len(), batch.ids.len()];
    if let Some(wrong) = said.into_iter().find(|&length| !is_said(length)) {
        return Err(unsupported(path, format!("ids, spans, sources or metadata of {wrong} of {rows} rows")));
    }
    if needs_ids && batch.ids.len() != rows {
        return Err(FormatError::Row { path: path.to_owned(), row, what: "a row without an id".into() });
    }
    Ok(())
}

/// The error about a value that a type does not have. `at` is its position in the values of a batch whose first row is `row`.
fn too_large(
    path: &Path,
    spec: &SketchSpec,
    row: u64,
    values: &[f32],
    at: usize,
    number: Number,
) -> FormatError {
    let dims = spec.dims().max(1);
    let value = values.get(at).copied().unwrap_or_default();
    let (row, at) = (row + (at / dims) as u64, at % dims);
    let place = spec.blocks().iter().zip(spec.ranges()).find(|(_, range)| range.contains(&at));
    let (block, position) = place.map_or(("", at), |(block, range)| (block.name.as_str(), at - range.start));
    let what =
        format!("block {block:?}: value {position} is {value}, which is not finite as {}", number.name());
    FormatError::Row { path: path.to_owned(), row, what }
}

/// The span of a row of a batch.
fn span_of(batch: &Batch, row: usize) -> Span {
    batch.spans.get(row).copied().unwrap_or(Span::WHOLE)
}

/// The source of a row of a batch; empty if it has none.
fn source_of(batch: &Batch, row: usize) -> &str {
    batch.sources.get(row).and_then(Option::as_deref).unwrap_or_default()
}

/// The metadata of a row of a batch.
fn metadata_of(batch: &Batch, row: usize) -> &[u8] {
    batch.metadata.get(row).map(Vec::as_slice).unwrap_or_default()
}

/// Adds the values of each block to the column of its number.
fn add_blocks(
    spool: &mut Spool,
    path: &Path,
    spec: &SketchSpec,
    number: Number,
    row: u64,
    batch: &Batch,
) -> Result<(), FormatError> {
    for (column, range) in spec.ranges().enumerate() {
        for (i, values) in batch.values.chunks(spec.dims()).enumerate() {
            let block = values.get(range.clone()).unwrap_or_default();
            let added = spool.add(column, |buffer| encode(number, block, buffer))?;
            added.map_err(|at| too_large(path, spec, row + i as u64, values, range.start + at, number))?;
        }
    }
    Ok(())
}
