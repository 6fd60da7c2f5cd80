//! What is said of the rows, as columns of bytes that wait for the last row.

use std::io::{BufReader, Read};

use super::spool::Spool;
use super::{metadata_of, source_of, span_of};
use crate::formats::labels::{IDS, METADATA, OFFSETS, SOURCES, SPANS};
use crate::formats::numbers::{u32_bytes, u64_bytes, u64_of};
use crate::formats::{Batch, FormatError};

/// How many columns there are: bytes and offsets of ids, sources and metadata, and spans.
pub(super) const COLUMNS: usize = 7;
const TEXTS: [&str; 3] = [IDS, SOURCES, METADATA];

/// The columns from `at` on.
pub(super) struct Labels {
    at: usize,
    /// The bytes of ids, sources and metadata.
    bytes: [u64; 3],
    has_spans: bool,
}

/// Bytes of all rows, and where each row's begin.
pub(super) struct Texts {
    pub(super) name: &'static str,
    pub(super) bytes: usize,
    pub(super) offsets: usize,
}

impl Labels {
    pub(super) fn new(spool: &mut Spool, at: usize) -> Result<Self, FormatError> {
        for texts in 0..TEXTS.len() {
            spool.add(at + 2 * texts + 1, |offsets| offsets.extend(u64_bytes(0)))?;
        }
        Ok(Self { at, bytes: [0; 3], has_spans: false })
    }

    /// Whether a name is that of an array of labels.
    pub(super) fn is_label(name: &str) -> bool {
        let stem = name.strip_suffix(OFFSETS).unwrap_or(name);
        TEXTS.contains(&stem) || stem == SPANS
    }

    pub(super) fn add(&mut self, spool: &mut Spool, batch: &Batch) -> Result<(), FormatError> {
        for row in 0..batch.rows {
            let id = batch.ids.get(row).map(Vec::as_slice).unwrap_or_default();
            let texts = [id, source_of(batch, row).as_bytes(), metadata_of(batch, row)];
            for ((text, end), column) in texts.into_iter().zip(&mut self.bytes).zip((self.at..).step_by(2)) {
                *end += text.len() as u64;
                spool.add(column, |bytes| bytes.extend(text))?;
                spool.add(column + 1, |offsets| offsets.extend(u64_bytes(*end)))?;
            }
            let span = span_of(batch, row);
            self.has_spans |= !span.is_whole();
            spool.add(self.at + 6, |spans| {
                spans.extend(u32_bytes(span.start));
                spans.extend(u32_bytes(span.end));
            })?;
        }
        Ok(())
    }

    /// Those that say something of a row: always the ids.
    pub(super) fn texts(&self) -> impl Iterator<Item = Texts> {
        let said = TEXTS.into_iter().zip(self.bytes).zip((self.at..).step_by(2));
        let said: Vec<Texts> = said
            .filter(|((name, bytes), _)| *bytes > 0 || *name == IDS)
            .map(|((name, _), column)| Texts { name, bytes: column, offsets: column + 1 })
            .collect();
        said.into_iter()
    }

    /// The column of spans, if a row is not a whole example.
    pub(super) fn spans(&self) -> Option<usize> {
        self.has_spans.then_some(self.at + 6)
    }
}

impl Texts {
    /// Gives the text of each row to `see`, in order.
    pub(super) fn each(
        &self,
        spool: &Spool,
        rows: u64,
        mut see: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut bytes = BufReader::with_capacity(1 << 16, spool.read(self.bytes));
        let mut offsets = BufReader::with_capacity(1 << 16, spool.read(self.offsets));
        let (mut start, mut raw, mut text) = ([0; 8], [0; 8], Vec::new());
        offsets.read_exact(&mut start)?;
        for _ in 0..rows {
            offsets.read_exact(&mut raw)?;
            text.resize((u64_of(raw) - u64_of(start)) as usize, 0);
            bytes.read_exact(&mut text)?;
            see(&text)?;
            start = raw;
        }
        Ok(())
    }
}
