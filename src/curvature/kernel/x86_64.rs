//! The kernels on x86-64.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::WIDTH;

/// A function that adds products to a tile, `$rows` times `$vectors` vectors at a time, which stay in registers.
macro_rules! tile {
    (
        $name:ident, $features:literal, $number:ty, [$rows:literal][$vectors:literal][$lanes:literal],
        $load:ident, $store:ident, $all:ident, $multiply_add:ident
    ) => {
        #[target_feature(enable = $features)]
        pub(in super::super) fn $name(
            left: &[Line<$number>],
            first: usize,
            right: &[Line<$number>],
            tile: &mut Tile<$number>,
        ) {
            assert!(first + HEIGHT <= WIDTH, "the columns must be in the strip");
            for top in (0..HEIGHT).step_by($rows) {
                for start in (0..WIDTH).step_by($vectors * $lanes) {
                    let mut sums = [[$all(0.0); $vectors]; $rows];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        for (vector, sum) in sums.iter_mut().enumerate() {
                            let from = &tile[top + row][start + vector * $lanes..][..$lanes];
                            // SAFETY: `from` is as long as a vector.
                            *sum = unsafe { $load(from.as_ptr()) };
                        }
                    }
                    for (left, right) in left.iter().zip(right) {
                        let mut x = [$all(0.0); $vectors];
                        for (vector, x) in x.iter_mut().enumerate() {
                            // SAFETY: steps and vectors divide WIDTH, so that the vectors end within the line.
                            *x = unsafe { $load(right.as_ptr().add(start + vector * $lanes)) };
                        }
                        for (row, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: below `first + HEIGHT`, which the line has as asserted.
                            let by = $all(unsafe { *left.get_unchecked(first + top + row) });
                            for (sum, &x) in sums.iter_mut().zip(&x) {
                                *sum = $multiply_add(by, x, *sum);
                            }
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (vector, sum) in sums.iter().enumerate() {
                            let to = &mut tile[top + row][start + vector * $lanes..][..$lanes];
                            // SAFETY: `to` is as long as a vector.
                            unsafe { $store(to.as_mut_ptr(), *sum) };
                        }
                    }
                }
            }
        }
    };
}

/// See [`prefetch`](super::prefetch).
pub(super) fn prefetch(values: &[f64]) {
    for part in values.chunks(8).take(WIDTH / 8) {
        // SAFETY: every x86-64 has the instruction, which may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().cast()) };
    }
}

/// What the compiler makes of the portable functions with more instructions.
macro_rules! portable {
    ($features:literal: $($name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)?;)+) => {
        $(
            #[target_feature(enable = $features)]
            pub(in super::super) fn $name($($argument: $type),+) $(-> $result)? {
                portable::$name($($argument),+)
            }
        )+
    };
    ($features:literal) => {
        portable! {
            $features:
            largest(values: &[f32]) -> u32;
            sum_of_squares(values: &[f32]) -> f64;
            pack(rows: &[f32], columns: usize, first: usize, scale: f32, strip: &mut [Line<f32>]);
            add_line(sums: &Line<f32>, factor: f64, values: &mut [f64]);
            solve(lower: &Square, block: &mut Square);
            factor(block: &mut Square, least: &Line<f64>) -> bool;
            add_scaled(by: f64, values: &[f64], sums: &mut [f64]);
            rotate(rotations: &[Rotation], rows: &mut [Line<f64>]);
        }
    };
}

/// Eight registers of sums, of sixteen: with twelve the compiler keeps one of them in memory, at half the speed.
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::super::{HEIGHT, Line, Rotation, Square, Tile, WIDTH, portable};

    tile!(
        add_f32,
        "avx2,fma",
        f32,
        [4][2][8],
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );
    tile!(
        add_f64,
        "avx2,fma",
        f64,
        [4][2][4],
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_fmadd_pd
    );
    tile!(
        subtract_f64,
        "avx2,fma",
        f64,
        [4][2][4],
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_fnmadd_pd
    );
    portable!("avx2,fma");
}

/// Twenty-four registers of sums, of thirty-two.
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::super::{HEIGHT, Line, Rotation, Square, Tile, WIDTH, portable};

    tile!(
        add_f32,
        "avx512f",
        f32,
        [8][3][16],
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );
    tile!(
        add_f64,
        "avx512f",
        f64,
        [8][3][8],
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_fmadd_pd
    );
    tile!(
        subtract_f64,
        "avx512f",
        f64,
        [8][3][8],
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_fnmadd_pd
    );
    portable!("avx512f");
}
