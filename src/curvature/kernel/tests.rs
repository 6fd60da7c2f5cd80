use super::*;
use crate::random::Random;

fn line(random: &mut Random) -> Line<f64> {
    std::array::from_fn(|_| f64::from(random.normal()))
}

fn square(random: &mut Random) -> Square {
    std::array::from_fn(|_| line(random))
}

/// Catches a kernel with other bits than one sum after the other: an unfused product, another order, a lost row or
/// column.
#[test]
fn every_kernel_adds_in_order() {
    let mut random = Random(1);
    for (count, columns) in [(0usize, 48usize), (1, 1), (3, 40), (CACHED + 1, 13)] {
        let left: Vec<Square> = (0..count).map(|_| square(&mut random)).collect();
        let right: Vec<Square> = (0..count).map(|_| square(&mut random)).collect();
        let start = square(&mut random);
        let (mut plus, mut minus) = (start, start);
        for i in 0..columns.next_multiple_of(HEIGHT) {
            for j in 0..WIDTH {
                for (left, right) in left.as_flattened().iter().zip(right.as_flattened()) {
                    plus[i][j] = left[i].mul_add(right[j], plus[i][j]);
                    minus[i][j] = (-left[i]).mul_add(right[j], minus[i][j]);
                }
            }
        }
        for kernel in Kernel::available() {
            let (mut sums, mut differences) = (start, start);
            kernel.add(&left, columns, &right, &mut sums);
            kernel.subtract(&left, columns, &right, &mut differences);
            assert!(sums == plus && differences == minus, "{kernel}, {count} squares, {columns} columns");
        }
    }
}

/// Catches a kernel whose `f32` sums are others, for every place of the tile in its strip.
#[test]
fn every_kernel_adds_f32_in_order() {
    let mut random = Random(2);
    for rows in [0, 1, 2, 257] {
        let mut strip =
            || -> Vec<Line<f32>> { (0..rows).map(|_| std::array::from_fn(|_| random.normal())).collect() };
        let (left, right) = (strip(), strip());
        for first in (0..WIDTH).step_by(HEIGHT) {
            let start: Tile<f32> = std::array::from_fn(|i| [i as f32 / 3.0; WIDTH]);
            let mut expected = start;
            for (i, sums) in expected.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    for (left, right) in left.iter().zip(&right) {
                        *sum = left[first + i].mul_add(right[j], *sum);
                    }
                }
            }
            for kernel in Kernel::available() {
                let mut tile = start;
                kernel.add_f32(&left, first, &right, &mut tile);
                assert!(tile == expected, "{kernel}, {rows} rows, columns from {first}");
            }
        }
    }
}

/// Catches a square that is factored or solved wrongly: `L L^T` and `L x` must give back what was there.
#[test]
fn squares_are_factored_and_solved() {
    let mut random = Random(3);
    let (half, right) = (square(&mut random), square(&mut random));
    let mut symmetric = EMPTY;
    for (i, row) in symmetric.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value = half.iter().map(|line| line[i] * line[j]).sum::<f64>() + f64::from(u8::from(i == j));
        }
    }
    let mut results = Kernel::available().map(|kernel| {
        let mut lower = symmetric;
        // What stands above the diagonal must not matter.
        lower.iter_mut().enumerate().for_each(|(column, line)| line[..column].fill(f64::NAN));
        assert!(kernel.factor(&mut lower, &[0.0; WIDTH]), "{kernel}");
        let mut x = right;
        kernel.solve(&lower, &mut x);
        (lower, x)
    });
    let (lower, x) = results.next().unwrap();
    assert!(results.all(|other| other == (lower, x)), "a kernel has other bits");
    for i in 0..WIDTH {
        for j in 0..WIDTH {
            let product: f64 = lower.iter().map(|column| column[i] * column[j]).sum();
            assert!((product - symmetric[i][j]).abs() < 1e-10, "{product} for {}", symmetric[i][j]);
            let product: f64 = (0..WIDTH).map(|k| lower[k][i] * x[k][j]).sum();
            assert!((product - right[i][j]).abs() < 1e-10, "{product} for {}", right[i][j]);
        }
    }
}

/// Catches a factor of what is not positive definite: a pivot of 0, below 0, NaN, or not above its bound.
#[test]
fn pivots_must_be_above_their_bound() {
    let identity: Square = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for kernel in Kernel::available() {
        for (pivot, bound, expected) in [
            (1.0, 0.0, true),
            (0.0, 0.0, false),
            (-1.0, 0.0, false),
            (f64::NAN, 0.0, false),
            (1.0, 1.0, false),
            (1.0, 0.9, true),
        ] {
            let (mut block, mut least) = (identity, [0.0; WIDTH]);
            block[30][30] = pivot;
            least[30] = bound;
            assert_eq!(kernel.factor(&mut block, &least), expected, "{kernel}, {pivot}, {bound}");
        }
    }
}

/// Catches a kernel that differs in the small loops, or reads beyond what it is given.
#[test]
fn small_loops_equal_plain_ones() {
    let mut random = Random(4);
    for kernel in Kernel::available() {
        for columns in [1, 16, 47, 48, 49, 100] {
            let rows = random.normals(3 * columns);
            let largest = rows.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            assert_eq!(kernel.largest(&rows), largest.to_bits());
            assert_eq!(kernel.sum_of_squares(&rows), crate::codec::lanes::sum_of_squares(&rows));
            for first in (0..columns).step_by(WIDTH) {
                let mut strip = [[f32::NAN; WIDTH]; 3];
                kernel.pack(&rows, columns, first, 0.5, &mut strip);
                for (line, row) in strip.iter().zip(rows.chunks(columns)) {
                    let expected: Vec<f32> =
                        (first..first + WIDTH).map(|i| row.get(i).map_or(0.0, |x| x * 0.5)).collect();
                    assert_eq!(line.as_slice(), expected);
                }
            }
            let sums = std::array::from_fn(|i| i as f32);
            let mut values: Vec<f64> = rows.iter().map(|x| f64::from(*x)).collect();
            kernel.add_line(&sums, -4.0, &mut values);
            let scaled: Vec<f64> = values.iter().rev().copied().collect();
            let mut more = values.clone();
            kernel.add_scaled(0.3, &scaled, &mut more);
            for (i, &row) in rows.iter().enumerate() {
                let sum = if i < WIDTH { i as f64 } else { 0.0 };
                assert_eq!(values[i], f64::from(row) - 4.0 * sum);
                assert_eq!(more[i], 0.3f64.mul_add(scaled[i], values[i]));
            }
        }
        assert!(kernel.largest(&[1.0, f32::NEG_INFINITY]) >= f32::INFINITY.to_bits());
        assert!(kernel.largest(&[f32::NAN, 1.0]) >= f32::INFINITY.to_bits());
        let before = [line(&mut random), line(&mut random), line(&mut random)];
        let mut rows = before;
        kernel.rotate(&[Rotation { row: 1, cosine: 0.8, sine: -0.6 }], &mut rows);
        for i in 0..WIDTH {
            let (x, y) = (before[1][i], before[2][i]);
            let expected = [before[0][i], 0.8f64.mul_add(x, -(-0.6 * y)), (-0.6f64).mul_add(x, 0.8 * y)];
            assert_eq!(rows.map(|row| row[i]), expected);
        }
    }
}

/// Catches a transposition that mixes rows up where it goes from part to part.
#[test]
fn transposed_columns_are_rows() {
    let square = square(&mut Random(5));
    let mut rows = EMPTY;
    transpose(&square, 13, &mut rows);
    for (i, row) in rows.iter().enumerate() {
        let expected = if i < 13 { square.map(|line| line[i]) } else { [0.0; WIDTH] };
        assert_eq!(*row, expected);
    }
    let mut turned = EMPTY;
    turn(&square, &mut turned);
    for (i, row) in turned.iter().enumerate() {
        assert_eq!(*row, std::array::from_fn(|j| square[WIDTH - 1 - j][WIDTH - 1 - i]));
    }
}
