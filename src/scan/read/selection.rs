//! Selects the rows of a piece by the filters.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::columns::GroupColumns;
use crate::scan::control::CancelToken;
use crate::scan::error::ScanError;
use crate::scan::filter::{FilterRequest, SpanFilter};
use crate::scan::source::Lookup;
use crate::segment::{LiveSegment, SegmentError};

/// The filters, resolved to rows.
#[derive(Debug)]
pub(in crate::scan) struct RowFilter {
    /// For each segment: rows of the included ids; `None` if all are included.
    included: Option<Vec<RoaringBitmap>>,
    /// For each segment: rows of the excluded ids; empty if no id is excluded.
    excluded: Vec<RoaringBitmap>,
    /// For each segment and each of its source names: whether it is included.
    sources: Option<Vec<Vec<bool>>>,
    /// What the ids begin with.
    prefix: Vec<u8>,
    spans: SpanFilter,
    /// The number of filter ids that are not in the snapshot.
    pub ids_missing: u64,
}

impl RowFilter {
    pub fn new(
        request: &FilterRequest,
        segments: &[LiveSegment],
        lookup: &dyn Lookup,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let mut ids_missing = 0;
        let mut rows_of = |ids: &[Vec<u8>]| -> Result<Vec<RoaringBitmap>, ScanError> {
            let mut rows = vec![RoaringBitmap::new(); segments.len()];
            for id in ids {
                cancel.check()?;
                match lookup.find(id)? {
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
        let (prefix, spans) = (request.prefix.clone(), request.spans);
        Ok(Self { included, excluded, sources, prefix, spans, ids_missing })
    }

    /// Writes the selected rows of a range to `selected`: ordinals in the row group, ascending.
    pub fn select(
        &self,
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
        let dead = Some(&*columns.live().dead);
        for dropped in [dead, self.excluded.get(ordinal)].into_iter().flatten() {
            if dropped.range_cardinality(range.clone()) > 0 {
                selected.retain(|row| !dropped.contains(first + row));
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
        if !self.prefix.is_empty() && !selected.is_empty() {
            let column = columns.ids()?;
            selected.retain(|&row| column.get(row as usize).starts_with(&self.prefix));
        }
        if self.spans != SpanFilter::All && !selected.is_empty() {
            let column = columns.spans()?;
            selected.retain(|&row| self.spans.admits(column[row as usize]));
        }
        Ok(())
    }
}

fn sources(names: &[String], segments: &[LiveSegment]) -> Result<Vec<Vec<bool>>, ScanError> {
    let known = |name: &String| {
        segments.iter().any(|segment| segment.reader.source_names().iter().any(|known| known == name))
    };
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(ScanError::UnknownSource { name: name.clone() });
    }
    let wanted: std::collections::HashSet<&str> = names.iter().map(String::as_str).collect();
    let of_segment = |segment: &LiveSegment| {
        segment.reader.source_names().iter().map(|name| wanted.contains(name)).collect()
    };
    Ok(segments.iter().map(of_segment).collect())
}
