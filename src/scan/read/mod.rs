//! How rows are brought to the threads that score them.
//!
//! - Which rows go together? `pieces` cuts row groups into pieces; `selection` says which rows of them
//!   take part.
//! - Where do codes come from? `stream` hands out the pieces in order, with their codes: in mapped files,
//!   or in buffers that are filled ahead of the workers (`buffer`).
//! - What else is known of a row? `columns`, decoded when it is first asked for.
//!
//! Takes a plan and knows nothing of scores. Segments of another kind of storage come in below, by
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
