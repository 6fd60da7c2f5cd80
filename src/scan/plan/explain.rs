//! What a scan would do, for those who ask.

use std::fmt;

use crate::scan::options::ScanPath;

/// What a scan would do, and why. Its `Display` is a small table.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The path that is taken.
    pub chosen: ScanPath,
    /// All paths, with what they are expected to cost.
    pub paths: Vec<PathCost>,
    /// The kernel that computes.
    pub kernel: &'static str,
    /// Threads that take part.
    pub threads: usize,
    /// Rows of the snapshot's segments.
    pub rows: u64,
    /// Queries of the batch.
    pub queries: usize,
    /// Bytes a second that the memory is taken to give to all threads.
    pub memory_bandwidth: f64,
}

/// A path through the rows, and what it is expected to cost.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PathCost {
    /// The path.
    pub path: ScanPath,
    /// Why it cannot be taken.
    pub impossible: Option<&'static str>,
    /// Bytes of codes and tiers to read.
    pub bytes: u64,
    /// Seconds for reading them from memory.
    pub read_seconds: f64,
    /// Seconds of computing, with all threads.
    pub compute_seconds: f64,
    /// The share of rows that are guessed to be candidates for each query, which is in both.
    pub candidates: f64,
    /// What earlier scans of this index took on the path, as a multiple of the estimate; 1 before the
    /// first.
    pub correction: f64,
}

impl PathCost {
    /// The longer of reading and computing, which overlap, corrected by what earlier scans took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.read_seconds.max(self.compute_seconds) * self.correction
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chosen, kernel, threads, rows, queries, memory_bandwidth, .. } = self;
        writeln!(
            f,
            "{queries} queries, {rows} rows, {kernel} kernel, {threads} threads, memory {:.1} GB/s",
            memory_bandwidth / 1e9
        )?;
        for path in &self.paths {
            let mark = if path.path == *chosen { "->" } else { "  " };
            write!(f, "{mark} {:<9} ", path.path)?;
            match path.impossible {
                Some(reason) => writeln!(f, "not possible: {reason}")?,
                None => writeln!(
                    f,
                    "{:9.3} ms: reads {:8.1} MB in {:.3} ms, computes {:.3} ms, times {:.2}",
                    path.seconds() * 1e3,
                    path.bytes as f64 / 1e6,
                    path.read_seconds * 1e3,
                    path.compute_seconds * 1e3,
                    path.correction
                )?,
            }
        }
        Ok(())
    }
}
