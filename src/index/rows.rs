//! Checks a caller's rows against the index, and encodes them.

use std::collections::HashSet;

use rayon::prelude::*;

use super::error::AppendError;
use crate::schema::Schema;
use crate::segment::{EncodedRow, MAX_ID, MAX_METADATA, MAX_SOURCE, RowEncoder, RowTags, Span};
use crate::sketch::{Sketch, SketchSpec};

/// The maximum number of rows of an example.
const MAX_ROWS: usize = 65_536;
/// The maximum bytes of ids and metadata over the rows of an example.
const MAX_STRING_BYTES: usize = 256 << 20;

/// One row to append: a sketch with its span, source and metadata.
///
/// ```
/// use gradix::{Row, Span, sketch::{Sketch, SketchSpec}};
/// # let sketch = Sketch::dense(SketchSpec::dense("mine", "v1", [("all", 1)]), vec![1.0])?;
/// let row = Row::new(&sketch).span(Span::tokens(4, 9)).source("wiki").metadata(b"page 7");
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Row<'a> {
    values: &'a [f32],
    /// The spec of a sketch; `None` if the caller gave values only.
    spec: Option<&'a SketchSpec>,
    tags: RowTags<'a>,
}

impl<'a> Row<'a> {
    /// A row for the whole example, without source or metadata.
    pub fn new(sketch: &'a Sketch) -> Self {
        Self { spec: Some(sketch.spec()), ..Self::of_values(sketch.values()) }
    }

    /// A row of values that lie elsewhere, as in a file or in the memory of another language: `dims` numbers, block
    /// after block. That they are of the index's spec is the caller's word; only their number is compared.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Row, Schema, sketch::SketchSpec};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec, Encoding::F32)?)?;
    /// let matrix = [1.0, 2.0, 3.0, 4.0];
    /// let mut writer = index.writer()?;
    /// writer.append_batch(&[("a", Row::of_values(&matrix[..2])), ("b", Row::of_values(&matrix[2..]))])?;
    /// # writer.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_values(values: &'a [f32]) -> Self {
        Self { values, spec: None, tags: RowTags { span: Span::WHOLE, source: None, metadata: &[] } }
    }

    /// The part of the example that the row stands for. Default: [`Span::WHOLE`].
    pub fn span(mut self, span: Span) -> Self {
        self.tags.span = span;
        self
    }

    /// The source label, 1 to 255 bytes; scans can filter by it. Default: none.
    pub fn source(mut self, source: &'a str) -> Self {
        self.tags.source = Some(source);
        self
    }

    /// Arbitrary bytes of the caller, at most 65,536. Default: none.
    pub fn metadata(mut self, metadata: &'a [u8]) -> Self {
        self.tags.metadata = metadata;
        self
    }

    pub(super) fn tags(&self) -> RowTags<'a> {
        self.tags
    }
}

impl<'a> From<&'a Sketch> for Row<'a> {
    fn from(sketch: &'a Sketch) -> Self {
        Self::new(sketch)
    }
}

/// Whether the format can hold this id.
pub(super) fn check_id(id: &[u8]) -> Result<(), AppendError> {
    if id.is_empty() || id.len() > MAX_ID as usize {
        return Err(AppendError::IdLength { length: id.len() });
    }
    Ok(())
}

/// What an append does with an example that is in the index already. See
/// [`Writer::append_examples`](crate::Writer::append_examples).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Existing {
    /// It is an error, and nothing is appended.
    #[default]
    Refuse,
    /// The rows that are there stay. Of an id that stands twice in what is appended, the first counts.
    Skip,
    /// The rows that are there are deleted in the same commit. Of an id that stands twice in what is appended, the
    /// last counts.
    Replace,
}

/// What became of examples. Returned by [`Writer::append_examples`](crate::Writer::append_examples).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Appended {
    /// Rows appended.
    pub rows: u64,
    /// Examples appended, those that replace others among them.
    pub examples: u64,
    /// Of these, the examples that were there before.
    pub replaced: u64,
    /// Examples that were not appended, because they were there before.
    pub skipped: u64,
}

/// Checks what concerns an example as a whole.
fn check_example(id: &[u8], rows: &[Row<'_>]) -> Result<(), AppendError> {
    check_id(id)?;
    if rows.is_empty() {
        return Err(AppendError::NoRows { id: id.to_owned() });
    }
    let bytes = rows.iter().map(|row| id.len() + row.tags.metadata.len()).sum();
    if rows.len() > MAX_ROWS || bytes > MAX_STRING_BYTES {
        return Err(AppendError::TooLarge { id: id.to_owned(), rows: rows.len(), bytes });
    }
    Ok(())
}

/// Checks all rows of an example and encodes them. Changes no state.
pub(super) fn encode(
    schema: &Schema,
    encoder: &RowEncoder,
    id: &[u8],
    rows: &[Row<'_>],
) -> Result<Vec<EncodedRow>, AppendError> {
    check_example(id, rows)?;
    let encode = |(ordinal, row)| encode_row(schema, encoder, id, ordinal, row);
    rows.iter().enumerate().map(encode).collect()
}

/// Checks and encodes the rows of examples, one after the other, on rayon's global thread pool. The error is that of
/// the first that has one.
pub(super) fn encode_examples<I: AsRef<[u8]> + Sync>(
    schema: &Schema,
    encoder: &RowEncoder,
    batch: &[(I, &[Row<'_>])],
) -> Result<Vec<EncodedRow>, AppendError> {
    // An example without rows gets a place too, for its error.
    let places = batch.iter().flat_map(|(id, rows)| {
        let id = id.as_ref();
        (0..rows.len().max(1)).map(move |ordinal| (id, *rows, ordinal))
    });
    let places: Vec<_> = places.collect();
    let encode = |&(id, rows, ordinal): &(&[u8], &[Row<'_>], usize)| {
        if ordinal == 0 {
            check_example(id, rows)?;
        }
        encode_row(schema, encoder, id, ordinal, &rows[ordinal])
    };
    let encoded: Vec<Result<_, AppendError>> = places.par_iter().map(encode).collect();
    encoded.into_iter().collect()
}

/// A batch of examples of one row each, as a batch of examples.
pub(super) fn of_one_row<'b, 'a, I>(batch: &'b [(I, Row<'a>)]) -> Vec<(&'b I, &'b [Row<'a>])> {
    batch.iter().map(|(id, row)| (id, std::slice::from_ref(row))).collect()
}

/// Checks that no id stands twice in a batch, or is one that `is_there`.
pub(super) fn check_new<I: AsRef<[u8]>>(
    batch: &[(I, &[Row<'_>])],
    is_there: impl Fn(&[u8]) -> Result<bool, AppendError>,
) -> Result<(), AppendError> {
    let mut ids = HashSet::with_capacity(batch.len());
    for (id, _) in batch {
        let id = id.as_ref();
        if !ids.insert(id) || is_there(id)? {
            return Err(AppendError::DuplicateId { id: id.to_owned() });
        }
    }
    Ok(())
}

fn encode_row(
    schema: &Schema,
    encoder: &RowEncoder,
    id: &[u8],
    row: usize,
    given: &Row<'_>,
) -> Result<EncodedRow, AppendError> {
    let id = || id.to_owned();
    if let Some(given) = given.spec.filter(|&given| given != schema.spec()) {
        let (given, index) = (Box::new(given.clone()), Box::new(schema.spec().clone()));
        return Err(AppendError::OtherSpec { id: id(), given, index });
    }
    let (length, expected) = (given.values.len(), schema.spec().dims());
    if length != expected {
        return Err(AppendError::Width { id: id(), row, given: length, expected });
    }
    let RowTags { span, source, metadata } = given.tags;
    if !span.is_valid() {
        return Err(AppendError::EmptySpan { id: id(), row, span });
    }
    if let Some(length) = source.map(str::len).filter(|&length| length == 0 || length > MAX_SOURCE as usize) {
        return Err(AppendError::SourceLength { id: id(), row, length });
    }
    if metadata.len() > MAX_METADATA as usize {
        return Err(AppendError::MetadataLength { id: id(), row, length: metadata.len() });
    }
    encoder.encode(given.values).map_err(|(block, source)| {
        let block = schema.spec().blocks()[block].name.clone();
        AppendError::Encode { id: id(), row, block, source }
    })
}
