//! Segment files: immutable rows, stored column by column, with checksums of all bytes.
//! `format-spec/segment.md` specifies the bytes.
//!
//! All I/O of segments goes through the traits of [`storage`].

// - What are the bytes? `layout` (header, footer, tail) and `columns`; no other module here converts numbers
//   to bytes or back.
// - How is a row encoded and decoded? `row`.
// - How is a segment written? `writer` streams it.
// - How is a segment read? `reader` opens a `file` and reads its small columns; `codes` reads the codes of
//   blocks and tiers, which are checked at once or, by `checking`, while they are used.
//
// Depends on `codec` and the schema, not on the manifest.

mod checking;
mod codes;
mod columns;
mod error;
mod file;
mod layout;
mod reader;
mod row;
pub mod storage;
#[cfg(test)]
mod tests;
mod writer;

pub use columns::Span;
pub use error::{Place, SegmentError};

pub(crate) use checking::{Checking, Extent};
pub(crate) use codes::{CodeColumn, Codes};
pub(crate) use columns::ByteStrings;
pub(crate) use layout::{Kind, Origin};
pub(crate) use reader::{Column, SegmentReader};
pub(crate) use row::{EncodedRow, RowEncoder, RowGroup, RowTags};
pub(crate) use writer::{Sealed, SegmentWriter};

use std::sync::Arc;

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::schema::Schema;

/// The maximum length of an id, in bytes.
pub const MAX_ID: u32 = 4096;
/// The maximum length of a row's metadata, in bytes.
pub const MAX_METADATA: u32 = 65_536;
/// The maximum length of a source label, in bytes.
pub const MAX_SOURCE: u32 = 255;

/// What all segments of an index have in common.
#[derive(Debug)]
pub(crate) struct Identity {
    pub index: Uuid,
    pub schema: Schema,
    pub schema_digest: [u8; 32],
}

/// A segment as of a snapshot's generation.
#[derive(Debug, Clone)]
pub(crate) struct LiveSegment {
    pub reader: Arc<SegmentReader>,
    /// The rows that are dead at the snapshot's generation.
    pub dead: Arc<RoaringBitmap>,
}

/// The name of a segment's file.
pub(crate) fn file_name(segment: Uuid) -> String {
    format!("{segment}.seg")
}
