//! Prunes rows by their norms.

use super::thresholds::Threshold;
use crate::scan::batch::Batch;
use crate::scan::bounds::{ABOVE, EPSILON};
use crate::scan::read::GroupColumns;
use crate::segment::SegmentError;

/// Removes rows from the selection whose scores cannot reach any threshold, by the Cauchy-Schwarz inequality.
pub(super) fn by_norm(
    batch: &Batch,
    thresholds: &[Threshold],
    columns: &GroupColumns<'_>,
    selected: &mut Vec<u32>,
) -> Result<(), SegmentError> {
    // Norms do not bound what scores are divided by.
    if batch.divisor.is_some() || thresholds.iter().any(|&(top, bottom)| top.min(bottom) <= 0.0) {
        return Ok(());
    }
    let (least, greatest) = columns.norm_range(batch.ordinals())?;
    let reaches = |norms: &[f32]| {
        let reach = batch.reach(norms);
        reach.zip(thresholds).any(|(reach, &(top, bottom))| !(reach < top && reach < bottom))
    };
    if !reaches(greatest) {
        selected.clear();
    } else if !reaches(least) {
        let columns = columns.norms(batch.ordinals())?;
        if let [norms] = columns {
            let least = least_norm(batch, thresholds);
            selected.retain(|&row| f64::from(norms[row as usize]) >= least);
        } else {
            let mut norms = vec![0.0; columns.len()];
            selected.retain(|&row| {
                for (norm, column) in norms.iter_mut().zip(columns) {
                    *norm = column[row as usize];
                }
                reaches(&norms)
            });
        }
    }
    Ok(())
}

/// With one block, the least norm with which a row can reach a threshold of any query. Thresholds are above
/// 0.
fn least_norm(batch: &Batch, thresholds: &[Threshold]) -> f64 {
    let block = &batch.blocks[0];
    let tiny = block.tiny();
    let of_query = |(&(top, bottom), reach): (&Threshold, &f64)| {
        (top.min(bottom) / ABOVE - tiny) / (reach + tiny) * (1.0 - EPSILON)
    };
    thresholds.iter().zip(&block.reach).map(of_query).fold(f64::INFINITY, f64::min)
}
