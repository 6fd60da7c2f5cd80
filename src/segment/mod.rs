//! Segment files: immutable rows, column by column, checksummed throughout.
//!
//! - Where do the bytes go? [`storage`]: the trait that all I/O of segments passes through.
//! - What do they mean? `layout` (header, footer, tail) and `columns`; no other module here turns numbers into
//!   bytes or back.
//! - How does a row become bytes, and numbers again? `row`.
//! - Who writes? `writer` streams a segment out.
//! - Who reads? `reader` opens a `file` and reads its small columns, `codes` those of the blocks and tiers,
//!   checked at once or, by `checking`, while they are used.
//!
//! Depends on `codec` and the schema; knows nothing of the manifest. The bytes are fixed by
//! `format-spec/segment.md`.

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
pub(crate) use layout::Kind;
pub(crate) use reader::{Column, SegmentReader};
pub(crate) use row::{EncodedRow, RowEncoder, RowGroup, RowTags};
pub(crate) use writer::{Sealed, SegmentWriter};

use std::sync::Arc;

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::schema::Schema;

/// The longest id, in bytes.
pub const MAX_ID: u32 = 4096;
/// The longest metadata of a row, in bytes.
pub const MAX_METADATA: u32 = 65_536;
/// The longest name of a source, in bytes.
pub const MAX_SOURCE: u32 = 255;

/// What every segment of an index has in common.
#[derive(Debug)]
pub(crate) struct Identity {
    pub index: Uuid,
    pub schema: Schema,
    pub schema_digest: [u8; 32],
}

/// A segment as a snapshot sees it.
#[derive(Debug, Clone)]
pub(crate) struct LiveSegment {
    pub reader: Arc<SegmentReader>,
    /// Rows that are deleted at the snapshot's generation.
    pub dead: Arc<RoaringBitmap>,
}

/// The name of a segment's file.
pub(crate) fn file_name(segment: Uuid) -> String {
    format!("{segment}.seg")
}
