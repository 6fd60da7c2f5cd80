//! Corrects the planner's estimates by the measured times of scans.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scan::options::ScanPath;

/// For each path, for plain and for preconditioned queries, and for one, a few and many of them: the measured time of
/// scans relative to the estimate.
///
/// An index has one, shared by its snapshots; it is not stored. Corrections only choose between paths that
/// give the same ranking.
#[derive(Debug)]
pub(crate) struct Feedback([[AtomicU64; 3]; 2 * ScanPath::ALL.len()]);

/// The maximum ratio that a scan records; the minimum is its inverse.
const MOST: f64 = 4.0;

impl Default for Feedback {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(1f64.to_bits()) }; 3] }; 2 * ScanPath::ALL.len()])
    }
}

impl Feedback {
    /// The factor to apply to the estimate of a path.
    pub fn correction(&self, path: ScanPath, curved: bool, queries: usize) -> f64 {
        // Relaxed, here and below: each number is independent.
        f64::from_bits(self.of(path, curved, queries).load(Ordering::Relaxed))
    }

    /// Records that a scan took `ratio` times the estimate. The correction becomes the mean of the old one
    /// and `ratio`.
    pub fn record(&self, path: ScanPath, curved: bool, queries: usize, ratio: f64) {
        if ratio.is_finite() && ratio > 0.0 {
            let known = self.correction(path, curved, queries);
            let corrected = known.midpoint(ratio.clamp(1.0 / MOST, MOST));
            self.of(path, curved, queries).store(corrected.to_bits(), Ordering::Relaxed);
        }
    }

    fn of(&self, path: ScanPath, curved: bool, queries: usize) -> &AtomicU64 {
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
        &self.0[path + usize::from(curved) * ScanPath::ALL.len()][batch]
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
            feedback.record(ScanPath::Bytes, false, 64, 1e9);
        }
        assert!((3.9..=MOST).contains(&feedback.correction(ScanPath::Bytes, false, 100)));
        let others = [(ScanPath::Bytes, false, 1), (ScanPath::Bytes, false, 8), (ScanPath::Bytes, true, 64)];
        let other_paths = ScanPath::ALL.iter().filter(|&&path| path != ScanPath::Bytes);
        for (path, curved, queries) in other_paths.map(|&path| (path, false, 64)).chain(others) {
            assert_eq!(feedback.correction(path, curved, queries), 1.0);
        }
        for ratio in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            feedback.record(ScanPath::Full, false, 1, ratio);
            assert_eq!(feedback.correction(ScanPath::Full, false, 1), 1.0);
        }
        for _ in 0..20 {
            feedback.record(ScanPath::Bytes, false, 64, 0.5);
        }
        assert!((feedback.correction(ScanPath::Bytes, false, 64) - 0.5).abs() < 1e-3);
    }
}
