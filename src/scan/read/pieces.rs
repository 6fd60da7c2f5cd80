//! Divides row groups into pieces, which workers take in order.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::columns::GroupColumns;
use crate::lock::lock;
use crate::scan::error::ScanError;
use crate::scan::options::Grouping;
use crate::segment::{ByteStrings, LiveSegment};

/// The pieces of a snapshot.
#[derive(Debug)]
pub(in crate::scan) struct Pieces<'a> {
    segments: &'a [LiveSegment],
    grouping: Grouping,
    /// The maximum number of rows of a piece.
    pub(super) piece_rows: u32,
    slots: Vec<Slot<'a>>,
    pieces: Vec<Piece>,
}

/// Rows of one row group that a worker scores at once.
#[derive(Debug, Clone)]
struct Piece {
    /// Ordinal among all row groups of the snapshot.
    group: usize,
    /// Ordinals in the row group.
    rows: Range<u32>,
}

/// A row group, and its columns while workers use them.
#[derive(Debug)]
struct Slot<'a> {
    segment: usize,
    group: usize,
    columns: Mutex<Weak<GroupColumns<'a>>>,
}

impl<'a> Pieces<'a> {
    /// Pieces of at most `piece_rows` rows.
    pub fn new(segments: &'a [LiveSegment], grouping: Grouping, piece_rows: u32) -> Self {
        let (mut slots, mut pieces) = (Vec::new(), Vec::new());
        for (segment, live) in segments.iter().enumerate() {
            for (group, found) in live.reader.groups().iter().enumerate() {
                let mut start = 0;
                while start < found.rows {
                    let end = start.saturating_add(piece_rows).min(found.rows);
                    pieces.push(Piece { group: slots.len(), rows: start..end });
                    start = end;
                }
                slots.push(Slot { segment, group, columns: Mutex::new(Weak::new()) });
            }
        }
        Self { segments, grouping, piece_rows, slots, pieces }
    }

    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The number of rows of a piece.
    pub fn row_count(&self, ordinal: usize) -> u32 {
        let Range { start, end } = self.pieces[ordinal].rows;
        end - start
    }

    /// The rows of a piece. If rows are grouped, the rows of the examples that begin in it.
    pub fn rows(&self, ordinal: usize, columns: &GroupColumns<'_>) -> Result<Range<u32>, ScanError> {
        let rows = self.pieces[ordinal].rows.clone();
        if !self.grouping.by_example() {
            return Ok(rows);
        }
        let ids = columns.ids()?;
        Ok(after_example(ids, rows.start)..after_example(ids, rows.end))
    }

    /// The columns of the row group that a piece is in.
    pub fn columns(&self, ordinal: usize) -> Arc<GroupColumns<'a>> {
        let slot = &self.slots[self.pieces[ordinal].group];
        let mut columns = lock(&slot.columns);
        columns.upgrade().unwrap_or_else(|| {
            let live = &self.segments[slot.segment];
            let made = Arc::new(GroupColumns::new(live, slot.segment, slot.group));
            *columns = Arc::downgrade(&made);
            made
        })
    }
}

/// The end of the example that contains `row`, if that began before `row`; otherwise `row`.
fn after_example(ids: &ByteStrings, row: u32) -> u32 {
    let mut i = row as usize;
    while i > 0 && i < ids.len() && ids.get(i) == ids.get(i - 1) {
        i += 1;
    }
    // At most the number of rows of the group.
    u32::try_from(i).unwrap_or(u32::MAX)
}
