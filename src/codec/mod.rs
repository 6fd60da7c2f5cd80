//! Numbers become codes: the encodings, norms and query quantisation of
//! `format-spec/encodings.md`, bit for bit.
//!
//! Depends on nothing else in the crate.

mod encoding;

pub use encoding::Encoding;
