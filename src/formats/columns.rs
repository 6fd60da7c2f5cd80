//! Columns of Arrow as rows: which are blocks, ids, sources, spans and metadata, and their values.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};

use super::arrays::spec_of;
use super::cells::{Cell, cell, has_cells, json_object};
use super::ids::IdMaker;
use super::input::unsupported;
use super::labels::made_ids;
use super::numbers::{Stored, first_not_finite};
use super::{Batch, FormatError, Number, ReadOptions};
use crate::segment::Span;
use crate::sketch::SketchSpec;

/// The names that [`create`](super::create) gives to the columns.
pub(super) const ID: &str = "id";
pub(super) const SOURCE: &str = "source";
pub(super) const SPAN_START: &str = "span_start";
pub(super) const SPAN_END: &str = "span_end";
pub(super) const METADATA: &str = "metadata";
/// The key of the spec in a schema's metadata.
pub(super) const SPEC_KEY: &str = "gradix.spec";

/// A column of vectors.
struct BlockColumn {
    name: String,
    index: usize,
    number: Number,
}

/// The columns that are read. An `index` is that among them, in the order of the schema.
pub(super) struct Columns {
    path: PathBuf,
    blocks: Vec<BlockColumn>,
    /// Of each block, as soon as they are known.
    dims: Vec<usize>,
    id: Option<usize>,
    made: Option<IdMaker>,
    source: Option<usize>,
    span: Option<(usize, usize)>,
    metadata: Vec<(String, usize)>,
    /// Where the columns stand in the file's schema.
    pub(super) projection: Vec<usize>,
}

impl Columns {
    pub(super) fn choose(path: &Path, schema: &Schema, options: &ReadOptions) -> Result<Self, FormatError> {
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let find = |name: &str| {
            names.iter().position(|is| *is == name).ok_or_else(|| FormatError::Missing {
                path: path.to_owned(),
                name: name.to_owned(),
                found: names.iter().map(|&name| name.clone()).collect(),
            })
        };
        let asked = |name: &Option<String>, usual: &str| match name {
            Some(name) => find(name).map(Some),
            None => Ok(find(usual).ok()),
        };
        let id = if options.ids.is_some() { None } else { asked(&options.id_column, ID)? };
        let source = asked(&options.source_column, SOURCE)?;
        let span = match &options.span_columns {
            Some((start, end)) => Some((find(start)?, find(end)?)),
            None => find(SPAN_START).ok().zip(find(SPAN_END).ok()),
        };
        let mut metadata = Vec::new();
        for name in &options.metadata_columns {
            metadata.push((name.clone(), find(name)?));
        }
        if options.metadata_columns.is_empty() {
            metadata.extend(find(METADATA).ok().map(|at| (METADATA.to_owned(), at)));
        }
        let labels =
            id.into_iter().chain(source).chain(span.map(|span| span.0)).chain(span.map(|span| span.1));
        let labels: Vec<usize> = labels.chain(metadata.iter().map(|(_, at)| *at)).collect();
        let type_at = |at: usize| schema.fields().get(at).map_or(&DataType::Null, |field| field.data_type());
        for &at in &labels {
            if !has_cells(type_at(at)) {
                let name = names.get(at).copied().cloned().unwrap_or_default();
                let what = format!(
                    "column {name:?} is {}; texts, bytes, numbers and booleans can be read",
                    type_at(at)
                );
                return Err(unsupported(path, what));
            }
        }
        let mut blocks = Vec::new();
        if options.blocks.is_empty() {
            for (index, name) in names.iter().enumerate().filter(|(at, _)| !labels.contains(at)) {
                let number = number_of(type_at(index), options);
                blocks.extend(number.map(|number| BlockColumn { name: (*name).clone(), index, number }));
            }
        }
        for name in &options.blocks {
            let index = find(name)?;
            let Some(number) = number_of(type_at(index), options) else {
                let what = format!(
                    "column {name:?} is {}; vectors are lists of Float16, Float32 or Float64, of as many values in each \
                     row, or FixedSizeBinary if the type of its numbers is given",
                    type_at(index)
                );
                return Err(unsupported(path, what));
            };
            blocks.push(BlockColumn { name: name.clone(), index, number });
        }
        if blocks.is_empty() {
            return Err(unsupported(path, format!("no column of vectors; there are {}", describe(schema))));
        }
        let mut projection: Vec<usize> =
            labels.iter().copied().chain(blocks.iter().map(|block| block.index)).collect();
        projection.sort_unstable();
        projection.dedup();
        let place = |at: usize| projection.iter().position(|&is| is == at).unwrap_or_default();
        for block in &mut blocks {
            block.index = place(block.index);
        }
        Ok(Self {
            path: path.to_owned(),
            dims: Vec::new(),
            id: id.map(place),
            made: made_ids(path, options, id.is_some())?,
            source: source.map(place),
            span: span.map(|(start, end)| (place(start), place(end))),
            metadata: metadata.into_iter().map(|(name, at)| (name, place(at))).collect(),
            blocks,
            projection,
        })
    }

    /// Learns how long vectors are, from their type or from the first row, and makes the spec.
    pub(super) fn spec(
        &mut self,
        schema: &Schema,
        first: Option<&RecordBatch>,
    ) -> Result<SketchSpec, FormatError> {
        self.dims.clear();
        for block in &self.blocks {
            let field = self.projection.get(block.index).and_then(|&at| schema.fields().get(at));
            let fixed = match field.map(|field| field.data_type()) {
                Some(DataType::FixedSizeList(_, dims)) => usize::try_from(*dims).ok(),
                Some(DataType::FixedSizeBinary(bytes)) => {
                    let bytes = usize::try_from(*bytes).ok();
                    bytes
                        .filter(|bytes| bytes.is_multiple_of(block.number.bytes()))
                        .map(|bytes| bytes / block.number.bytes())
                }
                _ => first.map(|batch| first_length(batch.column(block.index).as_ref())),
            };
            let Some(dims) = fixed else {
                let what = format!(
                    "how long the vectors of {:?} are cannot be told from its type, and there is no row",
                    block.name
                );
                return Err(unsupported(&self.path, what));
            };
            self.dims.push(dims);
        }
        let blocks: Vec<(&str, u64)> = self
            .blocks
            .iter()
            .zip(&self.dims)
            .map(|(block, &dims)| (block.name.as_str(), dims as u64))
            .collect();
        let held = schema.metadata().get(SPEC_KEY).and_then(|spec| serde_json::from_str(spec).ok());
        spec_of(&self.path, &blocks, held)
    }

    pub(super) fn number(&self) -> Number {
        self.blocks.iter().map(|block| block.number).reduce(Number::or).unwrap_or(Number::F32)
    }

    /// Passes over rows.
    pub(super) fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        self.made.as_mut().map_or(Ok(()), |made| made.skip(rows))
    }

    /// Checks, behind the last row, that no ids are left.
    pub(super) fn end(&mut self) -> Result<(), FormatError> {
        self.made.as_mut().map_or(Ok(()), IdMaker::end)
    }

    /// Puts the rows `at..at + rows` of a table into a batch; `row` is the first one's number in the file.
    pub(super) fn read(
        &mut self,
        table: &RecordBatch,
        at: usize,
        rows: usize,
        row: u64,
        batch: &mut Batch,
    ) -> Result<(), FormatError> {
        let stride = self.dims.iter().sum::<usize>();
        batch.values.resize(rows * stride, 0.0);
        let mut offset = 0;
        for (block, &dims) in self.blocks.iter().zip(&self.dims) {
            let column = table.column(block.index).as_ref();
            let vectors = Vectors::of(column, dims, block.number, at, rows).map_err(|(wrong, what)| {
                self.wrong(row + (wrong - at) as u64, format!("block {:?}: {what}", block.name))
            })?;
            for (i, out) in batch.values.chunks_mut(stride).enumerate() {
                let out = out.get_mut(offset..offset + dims).unwrap_or_default();
                vectors.copy(i, out);
                if let Some(position) = first_not_finite(out) {
                    return Err(FormatError::NotFinite {
                        path: self.path.clone(),
                        row: row + i as u64,
                        block: block.name.clone(),
                        position,
                        value: out.get(position).copied().unwrap_or_default(),
                    });
                }
            }
            offset += dims;
        }
        batch.rows = rows;
        self.read_labels(table, at, rows, row, batch)
    }

    fn read_labels(
        &mut self,
        table: &RecordBatch,
        at: usize,
        rows: usize,
        row: u64,
        batch: &mut Batch,
    ) -> Result<(), FormatError> {
        let numbered = || (at..at + rows).zip(row..);
        if let Some(made) = &mut self.made {
            made.make(rows, &mut batch.ids)?;
        }
        if let Some(id) = self.id {
            let column = table.column(id).as_ref();
            for (i, row) in numbered() {
                let id = match cell(column, i) {
                    Some(Cell::Bytes(id)) => id.to_vec(),
                    Some(Cell::Text(id)) => id.as_bytes().to_vec(),
                    Some(Cell::Integer(id)) => id.to_string().into_bytes(),
                    Some(Cell::Float(_) | Cell::Boolean(_)) => {
                        return Err(unsupported(
                            &self.path,
                            format!("ids are {}, not texts, bytes or integers", column.data_type()),
                        ));
                    }
                    None => return Err(self.wrong(row, "the id is null".into())),
                };
                batch.ids.push(id);
            }
        }
        if let Some(source) = self.source {
            let column = table.column(source).as_ref();
            for (i, row) in numbered() {
                let source = match cell(column, i) {
                    None | Some(Cell::Text("")) => None,
                    Some(Cell::Text(source)) => Some(source.to_owned()),
                    Some(Cell::Integer(source)) => Some(source.to_string()),
                    Some(_) => {
                        return Err(
                            self.wrong(row, format!("the source is {}, not a text", column.data_type()))
                        );
                    }
                };
                batch.sources.push(source);
            }
        }
        if let Some((start, end)) = self.span {
            let (start, end) = (table.column(start).as_ref(), table.column(end).as_ref());
            for (i, row) in numbered() {
                let token = |cell| match cell {
                    Some(Cell::Integer(token)) => u32::try_from(token).ok(),
                    _ => None,
                };
                let span = match (cell(start, i), cell(end, i)) {
                    (None, None) => Some(Span::WHOLE),
                    (start, end) => token(start).zip(token(end)).map(|(start, end)| Span::tokens(start, end)),
                };
                batch.spans.push(
                    span.ok_or_else(|| self.wrong(row, "the span is not two tokens below 2^32".into()))?,
                );
            }
        }
        match &*self.metadata {
            [] => {}
            [(_, only)] if is_bytes(table.column(*only).as_ref()) => {
                let column = table.column(*only).as_ref();
                batch.metadata.extend((at..at + rows).map(|i| match cell(column, i) {
                    Some(Cell::Bytes(bytes)) => bytes.to_vec(),
                    Some(Cell::Text(text)) => text.as_bytes().to_vec(),
                    _ => Vec::new(),
                }));
            }
            columns => {
                for (i, row) in numbered() {
                    let cells = columns
                        .iter()
                        .map(|(name, index)| (name.as_str(), cell(table.column(*index).as_ref(), i)));
                    let object = json_object(cells).map_err(|what| self.wrong(row, what))?;
                    batch.metadata.push(object);
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, row: u64, what: String) -> FormatError {
        FormatError::Row { path: self.path.clone(), row, what }
    }
}

fn describe(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| format!("{} ({})", field.name(), field.data_type()));
    fields.collect::<Vec<_>>().join(", ")
}

/// The type of the numbers of a column of vectors.
fn number_of(column: &DataType, options: &ReadOptions) -> Option<Number> {
    match column {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
            match item.data_type() {
                DataType::Float16 => Some(Number::F16),
                DataType::Float32 => Some(Number::F32),
                DataType::Float64 => Some(Number::F64),
                _ => None,
            }
        }
        DataType::FixedSizeBinary(_) => options.number,
        _ => None,
    }
}

fn is_bytes(column: &dyn Array) -> bool {
    matches!(
        column.data_type(),
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

fn first_length(column: &dyn Array) -> usize {
    let short = column.as_list_opt::<i32>().and_then(|lists| lists.offsets().lengths().next());
    short.or_else(|| column.as_list_opt::<i64>()?.offsets().lengths().next()).unwrap_or_default()
}

/// The values of some rows, one row after the other.
enum Vectors<'a> {
    F16(&'a [half::f16]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bytes(Stored, &'a [u8]),
}

impl<'a> Vectors<'a> {
    /// Those of the rows `at..at + rows`. The error is a row and what is wrong with it.
    fn of(
        column: &'a dyn Array,
        dims: usize,
        number: Number,
        at: usize,
        rows: usize,
    ) -> Result<Self, (usize, String)> {
        if let Some(wrong) = (at..at + rows).find(|&row| column.is_null(row)) {
            return Err((wrong, "the vector is null".into()));
        }
        let other = || (at, format!("{} where another type was announced", column.data_type()));
        if let Some(column) = column.as_fixed_size_binary_opt() {
            let width = dims * number.bytes();
            let bytes = column.value_data().get(at * width..(at + rows) * width);
            return Ok(Self::Bytes(Stored::little(number), bytes.ok_or_else(other)?));
        }
        let (values, start) = if let Some(lists) = column.as_fixed_size_list_opt() {
            (lists.values(), at * dims)
        } else if let Some(lists) = column.as_list_opt::<i32>() {
            let lengths = lists.offsets().lengths();
            let start = check_lengths(lengths, dims, at, rows).and(Ok(lists.offsets().get(at)))?;
            (lists.values(), start.and_then(|&start| usize::try_from(start).ok()).ok_or_else(other)?)
        } else {
            let lists = column.as_list_opt::<i64>().ok_or_else(other)?;
            let start =
                check_lengths(lists.offsets().lengths(), dims, at, rows).and(Ok(lists.offsets().get(at)))?;
            (lists.values(), start.and_then(|&start| usize::try_from(start).ok()).ok_or_else(other)?)
        };
        let range = start..start + rows * dims;
        if values.null_count() > 0
            && let Some(wrong) = range.clone().find(|&value| values.is_null(value))
        {
            let (row, position) = ((wrong - start) / dims, (wrong - start) % dims);
            return Err((at + row, format!("value {position} is null")));
        }
        let values = match number {
            Number::F16 => {
                values.as_primitive_opt::<Float16Type>().and_then(|is| is.values().get(range)).map(Self::F16)
            }
            Number::F64 => {
                values.as_primitive_opt::<Float64Type>().and_then(|is| is.values().get(range)).map(Self::F64)
            }
            _ => {
                values.as_primitive_opt::<Float32Type>().and_then(|is| is.values().get(range)).map(Self::F32)
            }
        };
        values.ok_or_else(other)
    }

    /// Those of row `i` among them.
    fn copy(&self, i: usize, out: &mut [f32]) {
        use half::slice::HalfFloatSliceExt as _;
        let range = i * out.len()..(i + 1) * out.len();
        match self {
            Self::F16(values) => values.get(range).unwrap_or_default().convert_to_f32_slice(out),
            Self::F32(values) => out.copy_from_slice(values.get(range).unwrap_or_default()),
            Self::F64(values) => {
                for (out, value) in out.iter_mut().zip(values.get(range).unwrap_or_default()) {
                    *out = *value as f32;
                }
            }
            Self::Bytes(stored, bytes) => {
                let width = stored.number.bytes();
                stored.decode(bytes.get(range.start * width..range.end * width).unwrap_or_default(), out);
            }
        }
    }
}

/// Checks that the lists of some rows are as long as they must be.
fn check_lengths(
    lengths: impl Iterator<Item = usize>,
    dims: usize,
    at: usize,
    rows: usize,
) -> Result<(), (usize, String)> {
    match lengths.zip(0..).skip(at).take(rows).find(|&(length, _)| length != dims) {
        Some((length, row)) => Err((row, format!("{length} values, where the rows before have {dims}"))),
        None => Ok(()),
    }
}
