//! The kernels for x86-64.
//!
//! A kernel value is proof that its instructions exist: only `detect` makes one.

mod amx;
mod avx2;
mod avx512;
mod avx512vnni;

pub(super) use amx::Amx;
pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
pub(super) use avx512vnni::Avx512Vnni;

use super::tiling::{filled_up, load, put, tiles};

/// As [`tiles`], but what fits one query best: rows one after the other if the query stays in the first
/// cache, for memory is read fastest in one stream, and else eight of them at once for each of its lines.
macro_rules! one_query_or_tiles {
    ($rows:expr, $queries:expr, $out:expr, R = $R:literal, Q = $Q:literal, $tile:ident, $query:expr) => {{
        let (rows, queries): (&Rows<'_>, Range<usize>) = ($rows, $queries);
        match queries.len() {
            1 if size_of_val($query(queries.start)) <= FIRST_CACHE => {
                tiles!(rows, queries, $out, R = 1, Q = 1, $tile, $query);
            }
            1 => tiles!(rows, queries, $out, R = 8, Q = 1, $tile, $query),
            _ => tiles!(rows, queries, $out, R = $R, Q = $Q, $tile, $query),
        }
    }};
}
use one_query_or_tiles;

/// Bytes of a query that stay in the first cache while rows pass through it.
const FIRST_CACHE: usize = 16 << 10;
