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
/// meant to stay in registers. With `FUSED`, which needs the instruction, a product is added by a fused
/// multiply-add, which changes no bit since it is exact.
#[inline(always)]
pub(super) fn add<const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(
    product: &Product<'_>,
    sums: &mut [f32],
) {
    let Product { left, rows, right, stride, width } = *product;
    for first in (0..width).step_by(WIDTH) {
        for top in (0..rows).step_by(HEIGHT) {
            if first + WIDTH <= width && top + HEIGHT <= rows {
                let mut tile = [[0.0; WIDTH]; HEIGHT];
                for (row, tile) in tile.iter_mut().enumerate() {
                    tile.copy_from_slice(&sums[(top + row) * width + first..][..WIDTH]);
                }
                for (left, right) in left.chunks_exact(rows).zip(right.chunks(stride)) {
                    let (left, right) = (&left[top..top + HEIGHT], &right[first..first + WIDTH]);
                    for (tile, &by) in tile.iter_mut().zip(left) {
                        for (sum, &x) in tile.iter_mut().zip(right) {
                            *sum = if FUSED { x.mul_add(by, *sum) } else { *sum + x * by };
                        }
                    }
                }
                for (row, tile) in tile.iter().enumerate() {
                    sums[(top + row) * width + first..][..WIDTH].copy_from_slice(tile);
                }
            } else {
                let end = width.min(first + WIDTH);
                for row in top..rows.min(top + HEIGHT) {
                    let sums = &mut sums[row * width + first..row * width + end];
                    for (left, right) in left.chunks_exact(rows).zip(right.chunks(stride)) {
                        for (sum, &x) in sums.iter_mut().zip(&right[first..end]) {
                            *sum += x * left[row];
                        }
                    }
                }
            }
        }
    }
}
