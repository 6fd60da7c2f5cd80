//! What arrays beside the vectors say of each row: ids, sources, spans, metadata.

use std::path::Path;

use super::ids::IdMaker;
use super::input::{Section, malformed, unsupported};
use super::numbers::u64_of;
use super::{Batch, FormatError, ReadOptions};
use crate::segment::{MAX_ID, MAX_METADATA, MAX_SOURCE, Span};

/// The bytes that a byte of a label takes at most: numpy's `U` has four for a character, which in UTF-8 may be one.
const WIDEST: u32 = 4;

/// The arrays that say something of each row.
pub(super) const IDS: &str = "ids";
pub(super) const SOURCES: &str = "sources";
pub(super) const METADATA: &str = "metadata";
pub(super) const SPANS: &str = "spans";
/// Behind the name of an array of bytes: where each row's begin in it, and where the last row's end.
pub(super) const OFFSETS: &str = ".offsets";

/// The number of offsets for as many rows.
pub(super) fn offsets_of(path: &Path, rows: u64) -> Result<u64, FormatError> {
    rows.checked_add(1).ok_or_else(|| unsupported(path, format!("{rows} rows")))
}

/// A text or bytes for each row.
pub(super) enum Texts {
    /// Held in memory: names of a header.
    Names(std::vec::IntoIter<String>),
    /// The bytes of row `i` lie from offset `i` to offset `i + 1`.
    Offsets { offsets: Section, bytes: Section, last: Option<u64> },
    /// As many bytes for each row, padded with zeros.
    Fixed { values: Section, width: usize, kind: Fixed },
}

/// What values of as many bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixed {
    Bytes,
    /// Code points of 32 bits.
    Unicode {
        big_endian: bool,
    },
    Signed {
        big_endian: bool,
    },
    Unsigned {
        big_endian: bool,
    },
}

impl Texts {
    /// Appends those of the next rows. None of them can be longer than `longest`, which bounds the memory for one.
    fn read(
        &mut self,
        path: &Path,
        row: u64,
        rows: usize,
        longest: u32,
        into: &mut Vec<Vec<u8>>,
    ) -> Result<(), FormatError> {
        let most = u64::from(longest) * u64::from(WIDEST);
        let too_long = |bytes: u64, row| FormatError::Row {
            path: path.to_owned(),
            row,
            what: format!("a text of {bytes} bytes, where one has at most {longest}"),
        };
        match self {
            Self::Names(names) => into.extend(names.by_ref().take(rows).map(String::into_bytes)),
            Self::Offsets { offsets, bytes, last } => {
                let mut start = first_offset(path, offsets, last)?;
                let mut raw = [0; 8];
                for row in row..row + rows as u64 {
                    offsets.read(&mut raw)?;
                    let end = u64_of(raw);
                    let length = end
                        .checked_sub(start)
                        .filter(|&length| bytes.left().is_none_or(|left| length <= left));
                    let Some(length) = length else {
                        return Err(malformed(
                            path,
                            offsets.offset() - 8,
                            "offsets that do not rise, or lead out of the data",
                        ));
                    };
                    if length > most {
                        return Err(too_long(length, row));
                    }
                    let mut text = vec![0; length as usize];
                    bytes.read(&mut text)?;
                    into.push(text);
                    start = end;
                }
                *last = Some(start);
            }
            Self::Fixed { .. } if rows == 0 => {}
            Self::Fixed { width, .. } if *width as u64 > most => return Err(too_long(*width as u64, row)),
            Self::Fixed { values, width, kind } => {
                let mut raw = vec![0; *width];
                for row in row..row + rows as u64 {
                    values.read(&mut raw)?;
                    into.push(kind.text(&raw).ok_or_else(|| FormatError::Row {
                        path: path.to_owned(),
                        row,
                        what: "a text with what is no character".into(),
                    })?);
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, rows: u64) -> Result<(), FormatError> {
        match self {
            Self::Names(names) => {
                for _ in 0..rows {
                    names.next();
                }
                Ok(())
            }
            Self::Offsets { offsets, bytes, last } => {
                let start = first_offset(path, offsets, last)?;
                if rows == 0 {
                    return Ok(());
                }
                offsets.skip(8 * (rows - 1))?;
                let mut raw = [0; 8];
                offsets.read(&mut raw)?;
                let end = u64_of(raw);
                let Some(length) = end.checked_sub(start) else {
                    return Err(malformed(path, offsets.offset() - 8, "offsets that do not rise"));
                };
                bytes.skip(length)?;
                *last = Some(end);
                Ok(())
            }
            Self::Fixed { values, width, .. } => values.skip(*width as u64 * rows),
        }
    }
}

fn first_offset(path: &Path, offsets: &mut Section, last: &mut Option<u64>) -> Result<u64, FormatError> {
    if let Some(last) = *last {
        return Ok(last);
    }
    let mut raw = [0; 8];
    offsets.read(&mut raw)?;
    if u64_of(raw) != 0 {
        return Err(malformed(path, offsets.offset() - 8, "the first offset is not 0"));
    }
    *last = Some(0);
    Ok(0)
}

impl Fixed {
    fn text(self, raw: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Bytes => {
                let length = raw.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                raw.get(..length).map(<[u8]>::to_vec)
            }
            Self::Unicode { big_endian } => {
                let points =
                    raw.as_chunks().0.iter().map(|raw| {
                        if big_endian { u32::from_be_bytes(*raw) } else { u32::from_le_bytes(*raw) }
                    });
                let text: Option<String> = points.map(char::from_u32).collect();
                Some(text?.trim_end_matches('\0').as_bytes().to_vec())
            }
            Self::Signed { big_endian } | Self::Unsigned { big_endian } => {
                let mut wide = [0; 16];
                let mut little = raw.to_vec();
                if big_endian {
                    little.reverse();
                }
                let is_negative =
                    matches!(self, Self::Signed { .. }) && little.last().is_some_and(|&byte| byte >= 128);
                if is_negative {
                    wide.fill(0xff);
                }
                wide.get_mut(..little.len())?.copy_from_slice(&little);
                Some(i128::from_le_bytes(wide).to_string().into_bytes())
            }
        }
    }
}

/// What is known of each row beside its vector.
#[derive(Default)]
pub(super) struct Labels {
    pub(super) made: Option<IdMaker>,
    pub(super) ids: Option<Texts>,
    pub(super) sources: Option<Texts>,
    /// Two `u32` for each row, little-endian.
    pub(super) spans: Option<Section>,
    pub(super) metadata: Option<Texts>,
    pub(super) row: u64,
}

impl Labels {
    /// Takes the ids that the options give, and checks that there are some.
    pub(super) fn complete(mut self, path: &Path, options: &ReadOptions) -> Result<Self, FormatError> {
        self.made = made_ids(path, options, self.ids.is_some())?;
        if self.made.is_some() {
            self.ids = None;
        }
        Ok(self)
    }

    /// Appends what is known of the next rows to a batch.
    pub(super) fn read(&mut self, path: &Path, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        if let Some(ids) = &mut self.ids {
            ids.read(path, self.row, rows, MAX_ID, &mut batch.ids)?;
        }
        if let Some(made) = &mut self.made {
            made.make(rows, &mut batch.ids)?;
        }
        if let Some(metadata) = &mut self.metadata {
            metadata.read(path, self.row, rows, MAX_METADATA, &mut batch.metadata)?;
        }
        if let Some(sources) = &mut self.sources {
            let mut texts = Vec::new();
            sources.read(path, self.row, rows, MAX_SOURCE, &mut texts)?;
            for (text, row) in texts.into_iter().zip(self.row..) {
                let what = "a source that is not UTF-8".to_owned();
                let text = String::from_utf8(text).map_err(|_| FormatError::Row {
                    path: path.to_owned(),
                    row,
                    what,
                })?;
                batch.sources.push(Some(text).filter(|text| !text.is_empty()));
            }
        }
        if let Some(spans) = &mut self.spans {
            let mut raw = vec![0; 8 * rows];
            spans.read(&mut raw)?;
            batch.spans.extend(raw.as_chunks().0.iter().map(|raw: &[u8; 8]| {
                let both = u64_of(*raw);
                Span::tokens(both as u32, (both >> 32) as u32)
            }));
        }
        self.row += rows as u64;
        Ok(())
    }

    pub(super) fn skip(&mut self, path: &Path, rows: u64) -> Result<(), FormatError> {
        for texts in [&mut self.ids, &mut self.sources, &mut self.metadata].into_iter().flatten() {
            texts.skip(path, rows)?;
        }
        if let Some(made) = &mut self.made {
            made.skip(rows)?;
        }
        if let Some(spans) = &mut self.spans {
            spans.skip(8 * rows)?;
        }
        self.row += rows;
        Ok(())
    }

    /// Checks, behind the last row, that no ids are left.
    pub(super) fn end(&mut self) -> Result<(), FormatError> {
        self.made.as_mut().map_or(Ok(()), IdMaker::end)
    }
}

/// What makes the ids, if the options say so; an error if then there are none.
pub(super) fn made_ids(
    path: &Path,
    options: &ReadOptions,
    has_ids: bool,
) -> Result<Option<IdMaker>, FormatError> {
    match &options.ids {
        Some(source) => IdMaker::new(source, path).map(Some),
        None if has_ids || options.optional_ids => Ok(None),
        None => Err(unsupported(
            path,
            "no ids: name the column or array that has them, give a file with one id a line, or a pattern such as \
             {stem}-{row:06}",
        )),
    }
}
