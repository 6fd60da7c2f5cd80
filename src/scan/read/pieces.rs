//! Row groups cut into pieces, which workers take in order.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::columns::GroupColumns;
use crate::lock::lock;
use crate::scan::error::ScanError;
use crate::scan::options::Grouping;
use crate::segment::{ByteStrings, LiveSegment};

/// The rows of a snapshot, piece by piece.
#[derive(Debug)]
pub(in crate::scan) struct Pieces<'a> {
    segments: &'a [LiveSegment],
    grouping: Grouping,
    /// The most rows of a piece.
    pub(super) piece_rows: u32,
    slots: Vec<Slot<'a>>,
    pieces: Vec<Piece>,
}

/// Rows of one row group that a worker takes at once.
#[derive(Debug, Clone)]
struct Piece {
    /// Ordinal among all row groups of the snapshot.
    group: usize,
    /// Ordinals in the row group.
    rows: Range<u32>,
}

/// A row group, and its columns while workers are in it.
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

    /// How many rows a piece has.
    pub fn row_count(&self, ordinal: usize) -> u32 {
        let Range { start, end } = self.pieces[ordinal].rows;
        end - start
    }

    /// The rows that belong to a piece: of examples, those that begin in it.
    pub fn rows(&self, ordinal: usize, columns: &GroupColumns<'_>) -> Result<Range<u32>, ScanError> {
        let rows = self.pieces[ordinal].rows.clone();
        if self.grouping == Grouping::Rows {
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

/// `row`, or the end of the example that it lies in if that began before it.
fn after_example(ids: &ByteStrings, row: u32) -> u32 {
    let mut i = row as usize;
    while i > 0 && i < ids.len() && ids.get(i) == ids.get(i - 1) {
        i += 1;
    }
    // No more than the rows of the group.
    u32::try_from(i).unwrap_or(u32::MAX)
}
