//! Which rows of the snapshot take part.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::columns::GroupColumns;
use super::error::ScanError;
use crate::segment::{LiveSegment, SegmentError, Span};

/// Which rows take part, by their spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpanFilter {
    /// All rows.
    #[default]
    All,
    /// Rows that stand for whole examples.
    Whole,
    /// Rows that stand for a token range.
    Tokens,
    /// Rows that have at least one token in common with this span; those of whole examples have.
    Overlapping(Span),
}

impl SpanFilter {
    fn admits(self, span: Span) -> bool {
        match self {
            Self::All => true,
            Self::Whole => span.is_whole(),
            Self::Tokens => !span.is_whole(),
            Self::Overlapping(other) => span.start < other.end && other.start < span.end,
        }
    }
}

/// Where the rows of an example are: the ordinal of the segment in the snapshot, and the rows there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExampleRows {
    pub segment: usize,
    pub rows: Range<u32>,
}

/// Looks an id up in the snapshot that is scanned.
pub(super) type Find<'a> = dyn Fn(&[u8]) -> Result<Option<ExampleRows>, ScanError> + 'a;

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterRequest {
    pub ids: Option<Vec<Vec<u8>>>,
    pub excluded: Vec<Vec<u8>>,
    pub sources: Option<Vec<String>>,
    pub spans: SpanFilter,
}

/// The request in terms of rows.
#[derive(Debug)]
pub(super) struct RowFilter {
    /// For each segment: rows of the ids that were asked for.
    included: Option<Vec<RoaringBitmap>>,
    /// For each segment: rows of excluded ids; none if no id is excluded.
    excluded: Vec<RoaringBitmap>,
    /// For each segment and each of its source names: whether it was asked for.
    sources: Option<Vec<Vec<bool>>>,
    spans: SpanFilter,
    /// Ids that the snapshot does not have.
    pub ids_missing: u64,
}

impl RowFilter {
    pub fn new(
        request: &FilterRequest,
        segments: &[LiveSegment],
        find: &Find<'_>,
    ) -> Result<Self, ScanError> {
        let mut ids_missing = 0;
        let mut rows_of = |ids: &[Vec<u8>]| -> Result<Vec<RoaringBitmap>, ScanError> {
            let mut rows = vec![RoaringBitmap::new(); segments.len()];
            for id in ids {
                match find(id)? {
                    Some(found) if found.segment < rows.len() => {
                        rows[found.segment].insert_range(found.rows);
                    }
                    _ => ids_missing += 1,
                }
            }
            Ok(rows)
        };
        let included = request.ids.as_deref().map(&mut rows_of).transpose()?;
        let excluded = if request.excluded.is_empty() { Vec::new() } else { rows_of(&request.excluded)? };
        let sources = request.sources.as_deref().map(|names| sources(names, segments)).transpose()?;
        Ok(Self { included, excluded, sources, spans: request.spans, ids_missing })
    }

    /// Puts the rows of a range that take part into `selected`: ordinals in the row group, ascending.
    pub fn select(
        &self,
        segment: &LiveSegment,
        columns: &GroupColumns<'_>,
        rows: Range<u32>,
        selected: &mut Vec<u32>,
    ) -> Result<(), SegmentError> {
        selected.clear();
        let (ordinal, first) = (columns.segment(), columns.first_row());
        let range = first + rows.start..first + rows.end;
        match &self.included {
            Some(included) => selected.extend(included[ordinal].range(range.clone()).map(|row| row - first)),
            None => selected.extend(rows),
        }
        for left_out in [Some(&*segment.dead), self.excluded.get(ordinal)].into_iter().flatten() {
            if left_out.range_cardinality(range.clone()) > 0 {
                selected.retain(|row| !left_out.contains(first + row));
            }
        }
        if let Some(sources) = &self.sources
            && !selected.is_empty()
        {
            if sources[ordinal].contains(&true) {
                let column = columns.sources()?;
                let wanted = |source: u32| sources[ordinal].get(source as usize) == Some(&true);
                selected.retain(|&row| wanted(column[row as usize]));
            } else {
                selected.clear();
            }
        }
        if self.spans != SpanFilter::All && !selected.is_empty() {
            let column = columns.spans()?;
            selected.retain(|&row| self.spans.admits(column[row as usize]));
        }
        Ok(())
    }
}

fn sources(names: &[String], segments: &[LiveSegment]) -> Result<Vec<Vec<bool>>, ScanError> {
    let known = |name: &String| segments.iter().any(|segment| segment.reader.source_names().contains(name));
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(ScanError::UnknownSource { name: name.clone() });
    }
    let wanted: std::collections::HashSet<&str> = names.iter().map(String::as_str).collect();
    let of_segment = |segment: &LiveSegment| {
        segment.reader.source_names().iter().map(|name| wanted.contains(name.as_str())).collect()
    };
    Ok(segments.iter().map(of_segment).collect())
}
