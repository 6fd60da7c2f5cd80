//! Reads rows for the threads that score them.
//!
//! - Which rows are read together? `pieces` divides row groups into pieces; `selection` applies the filters.
//! - Where are the codes? `stream` gives out the pieces in order, with their codes: in mapped files, or in
//!   buffers that are filled ahead of the workers (`buffer`).
//! - What about the other columns? `columns`, decoded on first use.
//!
//! Depends on the plan, not on scores. Another kind of storage is another
//! [`Storage`](crate::segment::storage::Storage).

mod buffer;
mod columns;
mod pieces;
mod selection;
mod stream;

pub(super) use buffer::PieceCodes;
pub(super) use columns::GroupColumns;
pub(super) use pieces::Pieces;
pub(super) use selection::RowFilter;
pub(super) use stream::{Load, Source, Stream};
