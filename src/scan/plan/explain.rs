//! The planner's choice and estimates, for the caller.

use std::fmt;

use crate::scan::options::ScanPath;

/// The path that a scan would take, and the estimated cost of each path. Made by
/// [`Scan::explain`](crate::Scan::explain). Its `Display` is a table.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The chosen path.
    pub chosen: ScanPath,
    /// All paths with their estimated costs.
    pub paths: Vec<PathCost>,
    /// The kernel.
    pub kernel: &'static str,
    /// The number of threads.
    pub threads: usize,
    /// Rows of the snapshot's segments, including dead ones.
    pub rows: u64,
    /// Queries of the batch.
    pub queries: usize,
    /// The assumed memory bandwidth of all threads, in bytes per second.
    pub memory_bandwidth: f64,
}

/// The estimated cost of a scan path.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PathCost {
    /// The path.
    pub path: ScanPath,
    /// Why the path is not possible; `None` if it is.
    pub impossible: Option<&'static str>,
    /// Bytes of codes and tiers to read.
    pub bytes: u64,
    /// Seconds to read them from memory.
    pub read_seconds: f64,
    /// Seconds to compute, with all threads.
    pub compute_seconds: f64,
    /// The assumed fraction of rows that are candidates of a query; both estimates include their cost.
    pub candidates: f64,
    /// The measured time of earlier scans of this index on the path, relative to the estimate; 1 if there
    /// were none.
    pub correction: f64,
}

impl PathCost {
    /// The estimated duration in seconds: the longer of reading and computing, which overlap, times the
    /// correction.
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
