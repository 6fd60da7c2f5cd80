//! Corrects the planner's estimates by the measured times of scans.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scan::options::ScanPath;

/// For each path, and for one, a few and many queries: the measured time of scans relative to the estimate.
///
/// An index has one, shared by its snapshots; it is not stored. Corrections only choose between paths that
/// give the same ranking.
#[derive(Debug)]
pub(crate) struct Feedback([[AtomicU64; 3]; ScanPath::ALL.len()]);

/// The maximum ratio that a scan records; the minimum is its inverse.
const MOST: f64 = 4.0;

impl Default for Feedback {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(1f64.to_bits()) }; 3] }; ScanPath::ALL.len()])
    }
}

impl Feedback {
    /// The factor to apply to the estimate of a path.
    pub fn correction(&self, path: ScanPath, queries: usize) -> f64 {
        // Relaxed, here and below: each number is independent.
        f64::from_bits(self.of(path, queries).load(Ordering::Relaxed))
    }

    /// Records that a scan took `ratio` times the estimate. The correction becomes the mean of the old one
    /// and `ratio`.
    pub fn record(&self, path: ScanPath, queries: usize, ratio: f64) {
        if ratio.is_finite() && ratio > 0.0 {
            let known = self.correction(path, queries);
            let corrected = known.midpoint(ratio.clamp(1.0 / MOST, MOST));
            self.of(path, queries).store(corrected.to_bits(), Ordering::Relaxed);
        }
    }

    fn of(&self, path: ScanPath, queries: usize) -> &AtomicU64 {
        let path = match path {
            ScanPath::Auto | ScanPath::Full => 0,
            ScanPath::Bytes => 1,
            ScanPath::I8Tier => 2,
            ScanPath::SignTier => 3,
        };
        let batch = match queries {
            0..=1 => 0,
            2..=15 => 1,
            _ => 2,
        };
        &self.0[path][batch]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches one odd scan that decides for good, and a correction that leaks to another path or batch.
    #[test]
    fn corrections_follow_what_scans_took() {
        let feedback = Feedback::default();
        for _ in 0..20 {
            feedback.record(ScanPath::Bytes, 64, 1e9);
        }
        assert!((3.9..=MOST).contains(&feedback.correction(ScanPath::Bytes, 100)));
        let other_batches = [(ScanPath::Bytes, 1), (ScanPath::Bytes, 8)];
        let other_paths = ScanPath::ALL.iter().filter(|&&path| path != ScanPath::Bytes);
        for (path, queries) in other_paths.map(|&path| (path, 64)).chain(other_batches) {
            assert_eq!(feedback.correction(path, queries), 1.0);
        }
        for ratio in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            feedback.record(ScanPath::Full, 1, ratio);
            assert_eq!(feedback.correction(ScanPath::Full, 1), 1.0);
        }
        for _ in 0..20 {
            feedback.record(ScanPath::Bytes, 64, 0.5);
        }
        assert!((feedback.correction(ScanPath::Bytes, 64) - 0.5).abs() < 1e-3);
    }
}
