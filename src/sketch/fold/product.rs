//! The product of two matrices, by which projections are made: each sum takes its terms in order.

/// `left^T right`: `left` is `[terms][rows]`, `right` has `terms` rows of `width` elements that are `stride`
/// apart. One element of each two that are multiplied must be 1 or -1, so that no product is rounded.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Product<'a> {
    pub(in super::super) left: &'a [f32],
    pub(in super::super) rows: usize,
    pub(in super::super) right: &'a [f32],
    pub(in super::super) stride: usize,
    pub(in super::super) width: usize,
}

/// Adds a product to `sums`, `[rows][width]`: term by term, each sum rounded. `HEIGHT` rows of `WIDTH` sums are
/// meant to stay in registers.
#[inline(always)]
pub(super) fn add<const HEIGHT: usize, const WIDTH: usize>(product: &Product<'_>, sums: &mut [f32]) {
    let Product { left, rows, right, stride, width } = *product;
    let (whole_rows, whole_width) = (rows - rows % HEIGHT, width - width % WIDTH);
    for first in (0..whole_width).step_by(WIDTH) {
        for top in (0..whole_rows).step_by(HEIGHT) {
            let mut tile = [[0.0; WIDTH]; HEIGHT];
            for (row, tile) in tile.iter_mut().enumerate() {
                tile.copy_from_slice(&sums[(top + row) * width + first..][..WIDTH]);
            }
            for (left, right) in left.chunks_exact(rows).zip(right.chunks(stride)) {
                let (left, right) = (&left[top..top + HEIGHT], &right[first..first + WIDTH]);
                for (tile, &by) in tile.iter_mut().zip(left) {
                    for (sum, &x) in tile.iter_mut().zip(right) {
                        *sum += x * by;
                    }
                }
            }
            for (row, tile) in tile.iter().enumerate() {
                sums[(top + row) * width + first..][..WIDTH].copy_from_slice(tile);
            }
        }
    }
    add_rest::<WIDTH>(product, sums, whole_rows, whole_width);
}

/// [`add`] of what is left: all columns from `from_column`, and all rows from `from_row`, up to `WIDTH` columns
/// at once.
#[inline(always)]
pub(super) fn add_rest<const WIDTH: usize>(
    product: &Product<'_>,
    sums: &mut [f32],
    from_row: usize,
    from_column: usize,
) {
    let Product { left, rows, right, stride, width } = *product;
    for row in 0..rows {
        let start = if row < from_row { from_column } else { 0 };
        for first in (start..width).step_by(WIDTH) {
            let end = width.min(first + WIDTH);
            let sums = &mut sums[row * width + first..row * width + end];
            for (left, right) in left.chunks_exact(rows).zip(right.chunks(stride)) {
                for (sum, &x) in sums.iter_mut().zip(&right[first..end]) {
                    *sum += x * left[row];
                }
            }
        }
    }
}
