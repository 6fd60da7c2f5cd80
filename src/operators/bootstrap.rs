//! The Poisson bootstrap: resampling in one pass, in any order.
//!
//! Each replicate takes each unit Poisson(1) times, independently, where the classical bootstrap draws as many
//! units as there are: for many units the same, and no replicate needs to know the others or the number of
//! units (Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", 2006;
//! Chamandy et al., "Estimating uncertainty for massive data streams", Google, 2012). The number of times is a
//! function of the seed, the unit and the replicate alone.

use sha2::{Digest, Sha256};

use super::error::OperatorError;
use crate::codec::mix::splitmix;

/// An interval of confidence: from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// How intervals are made.
#[derive(Debug, Clone)]
pub(super) struct Bootstrap {
    pub replicates: usize,
    pub confidence: f64,
    pub seed: u64,
}

/// The greatest number of replicates.
const MAX_REPLICATES: usize = 1_000_000;

/// 2^64 times the probability that a Poisson(1) number is at most 0, 1, 2, ..., rounded down.
const AT_MOST: [u64; 20] = [
    0x5e2d_58d8_b3bc_df1a,
    0xbc5a_b1b1_6779_be35,
    0xeb71_5e1d_c158_2dc2,
    0xfb23_9797_34a2_52f1,
    0xff10_25f5_9174_dc3d,
    0xffd9_0f3b_a405_5e19,
    0xfffa_8b71_fc72_c913,
    0xffff_540c_0914_b3c9,
    0xffff_ed1f_4aa8_f120,
    0xffff_fe21_6e64_1462,
    0xffff_ffd4_d85d_3183,
    0xffff_fffc_6da2_62b4,
    0xffff_ffff_ba12_d178,
    0xffff_ffff_fb07_c64c,
    0xffff_ffff_ffab_8ea5,
    0xffff_ffff_fffa_be22,
    0xffff_ffff_ffff_b11a,
    0xffff_ffff_ffff_fba1,
    0xffff_ffff_ffff_ffc5,
    0xffff_ffff_ffff_fffd,
];

impl Bootstrap {
    pub const DEFAULT: Self = Self { replicates: 1000, confidence: 0.95, seed: 0 };

    pub fn check(&self) -> Result<(), OperatorError> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            let (setting, given) = ("confidence", self.confidence);
            return Err(OperatorError::Setting { setting, given, expected: "above 0 and below 1" });
        }
        if !(1..=MAX_REPLICATES).contains(&self.replicates) {
            let (setting, given) = ("replicates", self.replicates as f64);
            return Err(OperatorError::Setting { setting, given, expected: "from 1 to 1,000,000" });
        }
        Ok(())
    }

    /// How many times each replicate takes a unit: SplitMix64 (Steele et al., 2014) from a state that is the
    /// first eight bytes of SHA-256 over the seed and the unit's name, inverted to Poisson(1).
    pub fn times(&self, unit: &[u8], times: &mut Vec<u8>) {
        let digest = Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(unit).finalize();
        let mut state = digest.iter().take(8).rev().fold(0u64, |state, byte| state << 8 | u64::from(*byte));
        times.clear();
        times.extend((0..self.replicates).map(|_| poisson(splitmix(&mut state))));
    }

    /// The percentile interval of the statistic's values in the replicates (Efron and Tibshirani, "An
    /// Introduction to the Bootstrap", 1993, chapter 13), the percentiles taken outwards; `None` if it has no
    /// value.
    pub fn interval(&self, mut values: Vec<f64>) -> Option<Interval> {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let tail = (1.0 - self.confidence) / 2.0 * last as f64;
        let cut = tail.floor() as usize;
        Some(Interval { low: *values.get(cut)?, high: *values.get(last - cut)? })
    }
}

/// A Poisson(1) number from 64 uniform bits, by inversion.
fn poisson(bits: u64) -> u8 {
    // Branch-free for the first four, which all but .4% of the numbers need, so that it vectorises.
    let mut number = AT_MOST[..4].iter().map(|&bound| u8::from(bits >= bound)).sum();
    if number == 4 {
        number += AT_MOST[4..].iter().map(|&bound| u8::from(bits >= bound)).sum::<u8>();
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a wrong bound: the shares of 0, 1, 2, ... must be those of Poisson(1).
    #[test]
    fn times_are_poisson() {
        let bootstrap = Bootstrap { replicates: 1000, ..Bootstrap::DEFAULT };
        let (mut counts, mut times) = ([0u32; 256], Vec::new());
        for unit in 0..1000u32 {
            bootstrap.times(format!("example {unit}").as_bytes(), &mut times);
            times.iter().for_each(|&times| counts[usize::from(times)] += 1);
        }
        let mut expected = 1e6 * (-1f64).exp();
        for (number, &count) in counts.iter().enumerate().take(8) {
            let off = (f64::from(count) - expected) / expected.sqrt();
            assert!(off.abs() < 5.0, "{number}: {count} where {expected} are expected");
            expected /= number as f64 + 1.0;
        }
    }

    /// Catches a change of the generator, by which reported intervals could not be reproduced any more.
    #[test]
    fn times_are_those_of_the_seed() {
        let bootstrap = Bootstrap { replicates: 12, seed: 7, ..Bootstrap::DEFAULT };
        let mut times = Vec::new();
        bootstrap.times(b"page 7", &mut times);
        // Computed by hashlib and integers of any size.
        assert_eq!(times, [1, 1, 2, 0, 0, 1, 1, 1, 0, 0, 1, 3]);
    }

    /// Catches percentiles that are taken at the wrong end, or inwards.
    #[test]
    fn interval_is_taken_outwards() {
        let bootstrap = Bootstrap { confidence: 0.5, ..Bootstrap::DEFAULT };
        let of = |count: u32| bootstrap.interval((0..count).rev().map(f64::from).collect());
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some(Interval { low: 0.0, high: 0.0 }));
        assert_eq!(of(11), Some(Interval { low: 2.0, high: 8.0 }));
        assert_eq!(of(101), Some(Interval { low: 25.0, high: 75.0 }));
    }
}
