//! gradix: an embeddable storage engine for gradient indexes.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

pub mod codec;
mod schema;
pub mod segment;
pub mod sketch;

pub use codec::Encoding;
pub use schema::Schema;
