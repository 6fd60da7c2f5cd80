use super::*;
use crate::random::Random;

fn lines(random: &mut Random, count: usize) -> Vec<Line<f64>> {
    (0..count).map(|_| std::array::from_fn(|_| f64::from(random.normal()))).collect()
}

/// Catches a kernel with other bits than one sum after the other: an unfused product, another order, a lost row.
#[test]
fn every_kernel_adds_in_order() {
    let mut random = Random(1);
    for (rows, first) in [(0, 0), (1, 40), (7, 8), (256, 16)] {
        let (left, right) = (lines(&mut random, rows), lines(&mut random, rows));
        let start: Tile<f64> = lines(&mut random, HEIGHT).try_into().unwrap();
        let narrow = |lines: &[Line<f64>]| -> Vec<Line<f32>> {
            lines.iter().map(|line| line.map(|value| value as f32)).collect()
        };
        let (left_f32, right_f32) = (narrow(&left), narrow(&right));
        let start_f32 = start.map(|line| line.map(|value| value as f32));
        let (mut plus, mut minus, mut plus_f32) = (start, start, start_f32);
        for row in 0..rows {
            for i in 0..HEIGHT {
                for j in 0..WIDTH {
                    plus[i][j] = left[row][first + i].mul_add(right[row][j], plus[i][j]);
                    minus[i][j] = (-left[row][first + i]).mul_add(right[row][j], minus[i][j]);
                    plus_f32[i][j] = left_f32[row][first + i].mul_add(right_f32[row][j], plus_f32[i][j]);
                }
            }
        }
        for kernel in Kernel::available() {
            let mut tile = start;
            kernel.add_f64(&left, first, &right, &mut tile);
            assert_eq!(tile, plus, "{kernel}, {rows} rows");
            let mut tile = start;
            kernel.subtract_f64(&left, first, &right, &mut tile);
            assert_eq!(tile, minus, "{kernel}, {rows} rows");
            let mut tile = start_f32;
            kernel.add_f32(&left_f32, first, &right_f32, &mut tile);
            assert_eq!(tile, plus_f32, "{kernel}, {rows} rows");
        }
    }
}
