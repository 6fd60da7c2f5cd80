//! Archives of numpy: arrays by name, stored or deflated.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use zip::CompressionMethod;
use zip::read::ZipArchive;

use super::arrays::{Array, Arrays};
use super::input::{DataFile, FileRange, Input, Section, malformed, unsupported};
use super::labels::{Fixed, IDS, Labels, METADATA, OFFSETS, SOURCES, SPANS, Texts, offsets_of};
use super::npy::{Header, Kind, check_length};
use super::{FormatError, ReadOptions};

/// Deflate makes no byte more than 1032.
const LARGEST_RATIO: u64 = 1032;

/// The most deflated arrays that are read side by side: each takes some 64 KiB for what it inflates.
const MOST_DEFLATED: usize = 2048;

/// An array, and where it lies. Of its header, which may be long, only the type is kept.
struct Member {
    kind: Kind,
    start: u64,
    end: u64,
    is_deflated: bool,
    /// The bytes of the array, and their checksum.
    size: u64,
    crc: u32,
}

/// An array whose header was read.
struct Opened {
    header: Header,
    values: Section,
}

struct Members {
    path: PathBuf,
    file: Arc<DataFile>,
    /// In the order of the archive.
    names: Vec<String>,
    members: BTreeMap<String, Member>,
    /// How many deflated ones are open.
    deflated: usize,
}

pub(super) fn open(input: Input, options: &ReadOptions) -> Result<Arrays, FormatError> {
    let mut members = Members::read(input.into_file()?)?;
    let (rows, arrays) = members.blocks(options)?;
    let labels = members.labels(options, rows)?;
    Arrays::new(members.path, options, rows, arrays, labels, None)
}

impl Members {
    fn read(file: DataFile) -> Result<Self, FormatError> {
        let file = Arc::new(file);
        let path = file.path.clone();
        let wrong = |error: zip::result::ZipError| malformed(&path, 0, format!("the archive: {error}"));
        let reader = file.file.try_clone();
        let reader =
            reader.map_err(|source| FormatError::Io { path: path.clone(), operation: "open", source })?;
        let mut archive = ZipArchive::new(reader).map_err(wrong)?;
        if archive.has_duplicate_names() {
            return Err(malformed(&path, 0, "the archive has a name twice"));
        }
        let (mut names, mut members) = (Vec::new(), BTreeMap::new());
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(wrong)?;
            let full = entry.name().map_err(wrong)?.into_owned();
            let name = full.strip_suffix(".npy").unwrap_or(&full).to_owned();
            let start = entry.data_start().unwrap_or(u64::MAX);
            let end = start.checked_add(entry.compressed_size()).filter(|&end| end <= file.length);
            let Some(end) = end.filter(|_| !entry.encrypted()) else {
                return Err(malformed(
                    &path,
                    start,
                    format!("member {full:?} is encrypted, or ends behind the file"),
                ));
            };
            let size = entry.size();
            let (is_deflated, longest) = match entry.compression() {
                CompressionMethod::Stored => (false, end - start),
                CompressionMethod::Deflated => (true, (end - start).saturating_mul(LARGEST_RATIO)),
                other => return Err(unsupported(&path, format!("member {full:?} is compressed by {other}"))),
            };
            if size > longest {
                let what = format!("member {full:?} says that {} bytes become {size}", end - start);
                return Err(malformed(&path, start, what));
            }
            let crc = entry.crc32();
            // Labels are told from vectors by the type, which only the header says.
            let kind = Kind::Labels(Fixed::Bytes, 0);
            let mut member = Member { kind, start, end, is_deflated, size, crc };
            member.kind = member.open(&file, &name)?.header.kind;
            names.push(name.clone());
            members.insert(name, member);
        }
        Ok(Self { path, file, names, members, deflated: 0 })
    }

    fn take(&mut self, name: &str) -> Result<Opened, FormatError> {
        let member = self.members.remove(name).ok_or_else(|| FormatError::Missing {
            path: self.path.clone(),
            name: name.to_owned(),
            found: self.names.clone(),
        })?;
        self.deflated += usize::from(member.is_deflated);
        if self.deflated > MOST_DEFLATED {
            let what = format!(
                "more than {MOST_DEFLATED} deflated arrays, which take too much memory side by side; numpy.savez stores \
                 arrays as they are"
            );
            return Err(unsupported(&self.path, what));
        }
        member.open(&self.file, name)
    }

    fn blocks(&mut self, options: &ReadOptions) -> Result<(u64, Vec<Array>), FormatError> {
        let named: Vec<String> = if options.blocks.is_empty() {
            self.names.iter().filter(|name| !self.is_label(name, options)).cloned().collect()
        } else {
            options.blocks.clone()
        };
        let mut found = None;
        let mut arrays = Vec::new();
        for name in named {
            let Opened { header, values } = self.take(&name)?;
            let what = format!("array {name:?}");
            let (rows, dims, stored) = header.vectors(&self.path, &what)?;
            check_length(&self.path, &what, &values, rows, dims, stored)?;
            let expected = *found.get_or_insert(rows);
            if rows != expected {
                return Err(unsupported(
                    &self.path,
                    format!("{what} has {rows} rows, those before {expected}"),
                ));
            }
            arrays.push(Array { name, dims, stored, values });
        }
        let rows = found.ok_or_else(|| unsupported(&self.path, "no vectors"))?;
        Ok((rows, arrays))
    }

    /// Whether an array says something of the rows: by its name, and as it holds no vectors.
    fn is_label(&self, name: &str, options: &ReadOptions) -> bool {
        let named = [options.id_column.as_deref(), options.source_column.as_deref()];
        let stem = name.strip_suffix(OFFSETS).unwrap_or(name);
        let is_named = [IDS, SOURCES, METADATA, SPANS].contains(&stem) || named.contains(&Some(stem));
        is_named && self.members.get(name).is_some_and(|member| matches!(member.kind, Kind::Labels(..)))
    }

    fn labels(&mut self, options: &ReadOptions, rows: u64) -> Result<Labels, FormatError> {
        let ids = self.texts(options, options.id_column.as_deref(), IDS, rows)?;
        let sources = self.texts(options, options.source_column.as_deref(), SOURCES, rows)?;
        let metadata = self.texts(options, None, METADATA, rows)?;
        let mut spans = None;
        if self.is_label(SPANS, options) {
            let member = self.take(SPANS)?;
            let kind = Kind::Labels(Fixed::Unsigned { big_endian: false }, 4);
            spans = Some(member.values_of(&self.path, SPANS, |is| is == kind, &[rows, 2], 4)?);
        }
        Ok(Labels { ids, sources, spans, metadata, ..Labels::default() })
    }

    fn texts(
        &mut self,
        options: &ReadOptions,
        asked: Option<&str>,
        usual: &str,
        rows: u64,
    ) -> Result<Option<Texts>, FormatError> {
        let name = asked.unwrap_or(usual);
        if asked.is_none() && !self.is_label(name, options) {
            return Ok(None);
        }
        let member = self.take(name)?;
        let with_offsets = format!("{name}{OFFSETS}");
        if self.members.contains_key(&with_offsets) {
            let is_u8 = |kind| matches!(kind, Kind::Labels(Fixed::Unsigned { .. }, 1));
            let length = member.values.left().unwrap_or_default();
            let bytes = member.values_of(&self.path, name, is_u8, &[length], 1)?;
            let is_i64 = |kind| {
                matches!(
                    kind,
                    Kind::Labels(
                        Fixed::Signed { big_endian: false } | Fixed::Unsigned { big_endian: false },
                        8
                    )
                )
            };
            let offsets = self.take(&with_offsets)?;
            let count = offsets_of(&self.path, rows)?;
            let offsets = offsets.values_of(&self.path, &with_offsets, is_i64, &[count], 8)?;
            return Ok(Some(Texts::Offsets { offsets, bytes, last: None }));
        }
        let Kind::Labels(kind, width) = member.header.kind else {
            return Err(unsupported(&self.path, format!("array {name:?} holds no texts or integers")));
        };
        let values = member.values_of(&self.path, name, |_| true, &[rows], width)?;
        Ok(Some(Texts::Fixed { values, width, kind }))
    }
}

impl Member {
    /// Reads its header, to where its values begin.
    fn open(&self, file: &Arc<DataFile>, name: &str) -> Result<Opened, FormatError> {
        let range = FileRange { file: file.clone(), offset: self.start, end: self.end };
        let bytes: Box<dyn Read + Send> = match self.is_deflated {
            false => Box::new(range),
            true => Box::new(DeflateDecoder::new(io::BufReader::with_capacity(1 << 14, range))),
        };
        let checked = Checked { bytes, left: self.size, crc: crc32fast::Hasher::new(), expected: self.crc };
        let mut values = Section::of_stream(file.path.clone(), Box::new(checked), Some(self.size));
        let header = Header::read(&file.path, &format!("array {name:?}"), &mut values)?;
        Ok(Opened { header, values })
    }
}

impl Opened {
    /// Its values, if they are of this kind and shape, `width` bytes each.
    fn values_of(
        self,
        path: &Path,
        name: &str,
        is_kind: impl Fn(Kind) -> bool,
        shape: &[u64],
        width: usize,
    ) -> Result<Section, FormatError> {
        let expected = shape.iter().try_fold(width as u64, |bytes, &length| bytes.checked_mul(length));
        if self.header.shape != shape || !is_kind(self.header.kind) || self.values.left() != expected {
            let what =
                format!("array {name:?} of shape {:?} is not what fits rows {shape:?}", self.header.shape);
            return Err(unsupported(path, what));
        }
        Ok(self.values)
    }
}

/// The bytes of a member, whose checksum is compared when the last is read.
struct Checked {
    bytes: Box<dyn Read + Send>,
    left: u64,
    crc: crc32fast::Hasher,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let longest = self.left.min(into.len() as u64) as usize;
        let read = self.bytes.read(into.get_mut(..longest).unwrap_or_default())?;
        self.crc.update(into.get(..read).unwrap_or_default());
        self.left -= read as u64;
        if self.left == 0 && read > 0 && self.crc.clone().finalize() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of the member is wrong"));
        }
        Ok(read)
    }
}
