//! The kernels for x86-64.
//!
//! A value of a kernel's type proves that its instructions exist: only `detect` creates one.

mod amx;
mod avx2;
mod avx512;
mod avx512vnni;

pub(super) use amx::Amx;
pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;
pub(super) use avx512vnni::Avx512Vnni;

use super::tiling::{filled_up, load, put, tiles};

/// As [`tiles`], in the form that is the fastest for one query: row by row if the query fits in L1, since
/// memory is read fastest in one stream; otherwise eight rows at once for each line of the query.
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

/// Bytes of a query that stay in L1 while rows are read through it.
const FIRST_CACHE: usize = 16 << 10;
