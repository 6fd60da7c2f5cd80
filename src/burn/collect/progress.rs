//! How far a collection is, and what its time goes into.

use std::time::Duration;

use super::work::Times;

/// How far a collection is. Counts are of this run alone, without what earlier runs have committed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The position in the input from which this run went on; 0 if there were no commits.
    pub resumed_at: u64,
    /// Examples that are computed or have failed.
    pub examples: u64,
    /// Examples among them of which it is recorded that they have failed. Counted when their window is complete.
    pub failed: u64,
    /// Rows that are computed.
    pub rows: u64,
    /// Tokens of these rows and of what is observed, without padding.
    pub tokens: u64,
    /// Commits.
    pub commits: u64,
    /// The position behind the last committed example.
    pub committed: u64,
    /// The examples of the whole input, if [`Collector::total`](super::Collector::total) gave it.
    pub total: Option<u64>,
    /// The time since the first window was read.
    pub elapsed: Duration,
    /// What the time went into.
    pub shares: Shares,
}

/// Shares of the elapsed time, from 0 to 1. Those of the devices are means over the devices, whose threads work beside
/// the one that appends. What is missing from 1 they have waited, or tried batches that failed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Shares {
    /// Devices: from the call of [`Replica::losses`](super::Replica::losses) until the losses are on the host.
    pub forward: f64,
    /// Devices: from then until the device has finished the backward.
    pub backward: f64,
    /// Devices: from then until the sketches are on the host.
    pub sketch: f64,
    /// The calling thread: appends, observations and commits.
    pub append: f64,
}

impl Progress {
    pub(super) fn new(resumed_at: u64, total: Option<u64>) -> Self {
        Self {
            resumed_at,
            examples: 0,
            failed: 0,
            rows: 0,
            tokens: 0,
            commits: 0,
            committed: resumed_at,
            total,
            elapsed: Duration::ZERO,
            shares: Shares::default(),
        }
    }

    pub(super) fn time(&mut self, elapsed: Duration, devices: usize, times: &Times, append: Duration) {
        self.elapsed = elapsed;
        let all = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let of_devices = |time: Duration| time.as_secs_f64() / (all * devices.max(1) as f64);
        self.shares = Shares {
            forward: of_devices(times.forward),
            backward: of_devices(times.backward),
            sketch: of_devices(times.sketch),
            append: append.as_secs_f64() / all,
        };
    }

    /// Examples for each second of this run.
    #[must_use]
    pub fn examples_per_second(&self) -> f64 {
        self.examples as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Tokens for each second of this run.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The time that is left at this run's mean speed; `None` without a total, or before the first example.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.resumed_at + self.examples);
        let seconds = left as f64 / self.examples_per_second();
        Duration::try_from_secs_f64(seconds).ok()
    }
}
