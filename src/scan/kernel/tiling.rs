//! Register tiles, for the kernels of every architecture: a few rows times a few queries at once, so that
//! each loaded and widened value is used in several products whose sums stay in registers.

/// The products of a register tile: up to `R` rows times up to `Q` queries.
///
/// Iterates over the rows `R` at a time, and for each over the queries `Q` at a time, so that the rows of a
/// tile stay in L1 for all queries. The rest is processed one by one. `more` are further constants of the
/// tile.
macro_rules! tiles {
    ($rows:expr, $queries:expr, $out:expr, R = $R:literal, Q = $Q:literal, $tile:ident, $query:expr
     $(, $more:literal)*) => {{
        let (rows, queries, out): (&Rows<'_>, Range<usize>, &mut [_]) = ($rows, $queries, $out);
        let count = rows.len();
        let mut i = 0;
        while i < count {
            let tall = count - i >= $R;
            let mut j = 0;
            while j < queries.len() {
                let wide = queries.len() - j >= $Q;
                let query = |k: usize| $query(queries.start + j + k);
                match (tall, wide) {
                    (true, true) => put(
                        out,
                        count,
                        (i, j),
                        $tile::<$R, $Q $(, $more)*>(std::array::from_fn(|k| rows.row(i + k)), std::array::from_fn(query)),
                    ),
                    (true, false) => {
                        put(
                            out,
                            count,
                            (i, j),
                            $tile::<$R, 1 $(, $more)*>(std::array::from_fn(|k| rows.row(i + k)), [query(0)]),
                        );
                    }
                    (false, true) => {
                        put(out, count, (i, j), $tile::<1, $Q $(, $more)*>([rows.row(i)], std::array::from_fn(query)));
                    }
                    (false, false) => put(out, count, (i, j), $tile::<1, 1 $(, $more)*>([rows.row(i)], [query(0)])),
                }
                j += if wide { $Q } else { 1 };
            }
            i += if tall { $R } else { 1 };
        }
    }};
}
pub(super) use tiles;

/// One register for each row. A loop, because closures in `array::map` are not always inlined if they need
/// target features that the caller lacks.
macro_rules! load {
    ($zero:expr, $rows:expr, |$row:ident| $load:expr) => {{
        let mut x = [$zero; R];
        for (x, $row) in x.iter_mut().zip($rows) {
            *x = $load;
        }
        x
    }};
}
pub(super) use load;

/// Writes a tile's products, query by query, to `out`, from the first row and query `at`.
pub(super) fn put<T: Copy, const R: usize, const Q: usize>(
    out: &mut [T],
    rows: usize,
    at: (usize, usize),
    tile: [[T; Q]; R],
) {
    for (k, products) in tile.iter().enumerate() {
        for (l, &product) in products.iter().enumerate() {
            out[(at.1 + l) * rows + at.0 + k] = product;
        }
    }
}

/// The last codes of a row, padded with zeros.
#[inline]
pub(super) fn filled_up<const BYTES: usize>(end: &[u8]) -> [u8; BYTES] {
    let mut codes = [0; BYTES];
    codes[..end.len()].copy_from_slice(end);
    codes
}
