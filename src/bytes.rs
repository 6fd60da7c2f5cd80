//! Reads little-endian numbers from bytes. Only the modules that define a file's bytes use it:
//! `segment::layout`, `segment::columns`, `artifact::layout`, `index::index_file`, `index::committed`, `index::part`, `index::attachment`
//! and `manifest::guard` (`tests/raw_bytes.rs` enforces this).

use uuid::Uuid;

/// The `N` bytes from `at` on, which must be there.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes(array_at(bytes, at))
}
