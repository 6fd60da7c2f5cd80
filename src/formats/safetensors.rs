//! Safetensors: a header in JSON, and tensors one after the other.

use std::path::PathBuf;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::arrays::{Array, Arrays};
use super::input::{DataFile, Input, Section, malformed, unsupported};
use super::labels::{IDS, Labels, METADATA, OFFSETS, SOURCES, SPANS, Texts, offsets_of};
use super::numbers::{Stored, u64_of};
use super::{FormatError, Number, ReadOptions};
use crate::sketch::{SketchSpec, WHOLE};

/// The longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// The key of the spec in a file's metadata.
pub(super) const SPEC_KEY: &str = "gradix.spec";

struct Tensors {
    file: Arc<DataFile>,
    /// Where the data begin.
    data: u64,
    header: Metadata,
    /// In the order of the file.
    names: Vec<String>,
}

pub(super) fn open(input: Input, options: &ReadOptions) -> Result<Arrays, FormatError> {
    let tensors = Tensors::read(input.into_file()?)?;
    let spec = tensors.header.metadata().as_ref().and_then(|metadata| metadata.get(SPEC_KEY));
    // What does not fit is nobody's spec, and no reason to refuse the vectors.
    let spec: Option<SketchSpec> = spec.and_then(|spec| serde_json::from_str(spec).ok());
    let path = tensors.path().clone();
    let is_row = |(_, info): &(&String, &TensorInfo)| info.shape.len() == 1 && number(info.dtype).is_some();
    if options.blocks.is_empty() && !tensors.names.is_empty() && tensors.all().all(|tensor| is_row(&tensor)) {
        let (rows, array) = tensors.one_for_each_row()?;
        let labels = Labels { ids: Some(Texts::Names(tensors.names.into_iter())), ..Labels::default() };
        return Arrays::new(path, options, rows, vec![array], labels, spec);
    }
    let (rows, arrays) = tensors.blocks(options)?;
    let labels = tensors.labels(options, rows)?;
    Arrays::new(path, options, rows, arrays, labels, spec)
}

fn number(dtype: Dtype) -> Option<Number> {
    match dtype {
        Dtype::F16 => Some(Number::F16),
        Dtype::BF16 => Some(Number::Bf16),
        Dtype::F32 => Some(Number::F32),
        Dtype::F64 => Some(Number::F64),
        _ => None,
    }
}

impl Tensors {
    fn read(file: DataFile) -> Result<Self, FormatError> {
        let wrong = |offset, what: String| malformed(&file.path, offset, what);
        let mut length = [0; 8];
        file.read_at(&mut length, 0)?;
        let length = u64_of(length);
        let data = length.saturating_add(8);
        if length > LONGEST || data > file.length {
            let what = format!("a header of {length} bytes in a file of {}", file.length);
            return Err(wrong(0, what));
        }
        let mut text = vec![0; length as usize];
        file.read_at(&mut text, 8)?;
        let header: Metadata =
            serde_json::from_slice(&text).map_err(|error| wrong(8, format!("the header: {error}")))?;
        if data.checked_add(header.data_len() as u64) != Some(file.length) {
            let what = format!(
                "{} bytes of tensors in a file with {} bytes of data",
                header.data_len(),
                file.length - data
            );
            return Err(wrong(data, what));
        }
        let names = header.offset_keys();
        Ok(Self { file: Arc::new(file), data, header, names })
    }

    fn path(&self) -> &PathBuf {
        &self.file.path
    }

    fn all(&self) -> impl Iterator<Item = (&String, &TensorInfo)> {
        self.names.iter().filter_map(|name| Some((name, self.header.info(name)?)))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.header.info(name).ok_or_else(|| FormatError::Missing {
            path: self.path().clone(),
            name: name.to_owned(),
            found: self.names.clone(),
        })
    }

    fn section(&self, info: &TensorInfo) -> Section {
        let (start, end) = info.data_offsets;
        Section::of_file(self.file.clone(), self.data + start as u64, self.data + end as u64)
    }

    /// Tensors that are one row each: they lie one after the other, so they are one array.
    fn one_for_each_row(&self) -> Result<(u64, Array), FormatError> {
        let mut first: Option<(&String, &TensorInfo)> = None;
        for (name, info) in self.all() {
            let (first_name, first) = *first.get_or_insert((name, info));
            if (&info.shape, info.dtype) != (&first.shape, first.dtype) {
                let what = format!(
                    "tensors of one dimension are a row each, but {name:?} is {:?} {:?} and {first_name:?} {:?} {:?}",
                    info.dtype, info.shape, first.dtype, first.shape
                );
                return Err(unsupported(self.path(), what));
            }
        }
        let stored = first.and_then(|(_, first)| Some((number(first.dtype)?, *first.shape.first()?)));
        let Some((number, dims)) = stored else { return Err(unsupported(self.path(), "no vectors")) };
        let values = Section::of_file(self.file.clone(), self.data, self.file.length);
        let array = Array { name: WHOLE.into(), dims: dims as u64, stored: Stored::little(number), values };
        Ok((self.names.len() as u64, array))
    }

    fn blocks(&self, options: &ReadOptions) -> Result<(u64, Vec<Array>), FormatError> {
        let mut rows = None;
        let mut arrays = Vec::new();
        let named: Vec<(&String, &TensorInfo)> = if options.blocks.is_empty() {
            self.all().filter(|(name, _)| !self.is_label(name, options)).collect()
        } else {
            options.blocks.iter().map(|name| Ok((name, self.info(name)?))).collect::<Result<_, _>>()?
        };
        for (name, info) in named {
            let (&[its_rows, dims], Some(number)) = (&*info.shape, number(info.dtype)) else {
                let what = format!(
                    "tensor {name:?} is {:?} {:?}, not vectors [rows, dims] of F16, BF16, F32 or F64; name the tensors that \
                     are blocks if it is none",
                    info.dtype, info.shape
                );
                return Err(unsupported(self.path(), what));
            };
            let rows = *rows.get_or_insert(its_rows);
            if its_rows != rows {
                let what = format!("tensor {name:?} has {its_rows} rows, those before {rows}");
                return Err(unsupported(self.path(), what));
            }
            let array = Array {
                name: name.clone(),
                dims: dims as u64,
                stored: Stored::little(number),
                values: self.section(info),
            };
            arrays.push(array);
        }
        let rows = rows.ok_or_else(|| unsupported(self.path(), "no vectors"))?;
        Ok((rows as u64, arrays))
    }

    /// Whether a tensor says something of the rows: by its name, and as it holds no vectors.
    fn is_label(&self, name: &str, options: &ReadOptions) -> bool {
        let named = [options.id_column.as_deref(), options.source_column.as_deref()];
        let is_named =
            |name: &str| [IDS, SOURCES, METADATA, SPANS].contains(&name) || named.contains(&Some(name));
        let holds_vectors = self.header.info(name).is_some_and(|info| number(info.dtype).is_some());
        !holds_vectors && is_named(name.strip_suffix(OFFSETS).unwrap_or(name))
    }

    fn labels(&self, options: &ReadOptions, rows: u64) -> Result<Labels, FormatError> {
        let texts = |asked: Option<&str>, usual: &str| {
            let name = asked.unwrap_or(usual);
            if asked.is_none() && !self.names.iter().any(|is| is == name && self.is_label(is, options)) {
                return Ok(None);
            }
            let bytes = self.info(name)?;
            let offsets = self.info(&format!("{name}{OFFSETS}"))?;
            let count = offsets_of(self.path(), rows)?;
            let is_offset = matches!(offsets.dtype, Dtype::I64 | Dtype::U64) && is_shape(offsets, &[count]);
            if bytes.dtype != Dtype::U8
                || !is_shape(bytes, &[(bytes.data_offsets.1 - bytes.data_offsets.0) as u64])
                || !is_offset
            {
                let what = format!(
                    "{name:?} must be U8 [bytes], and {name}{OFFSETS} I64 or U64 [{count}]; they are {:?} {:?} and {:?} {:?}",
                    bytes.dtype, bytes.shape, offsets.dtype, offsets.shape
                );
                return Err(unsupported(self.path(), what));
            }
            Ok(Some(Texts::Offsets {
                offsets: self.section(offsets),
                bytes: self.section(bytes),
                last: None,
            }))
        };
        let spans = self.header.info(SPANS).filter(|_| self.is_label(SPANS, options));
        if let Some(info) = spans.filter(|info| info.dtype != Dtype::U32 || !is_shape(info, &[rows, 2])) {
            let what = format!("{SPANS:?} must be U32 [{rows}, 2], and is {:?} {:?}", info.dtype, info.shape);
            return Err(unsupported(self.path(), what));
        }
        Ok(Labels {
            ids: texts(options.id_column.as_deref(), IDS)?,
            sources: texts(options.source_column.as_deref(), SOURCES)?,
            spans: spans.map(|info| self.section(info)),
            metadata: texts(None, METADATA)?,
            ..Labels::default()
        })
    }
}

fn is_shape(info: &TensorInfo, shape: &[u64]) -> bool {
    info.shape.iter().map(|&length| length as u64).eq(shape.iter().copied())
}
