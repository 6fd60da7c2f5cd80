//! gradix: an embeddable storage engine for gradient indexes.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

pub mod codec;
mod schema;
pub mod segment;
pub mod sketch;

pub use codec::Encoding;
pub use schema::Schema;
