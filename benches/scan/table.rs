//! The table: one line for each measurement, written as soon as there is one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

const COLUMNS: &str =
    "data,rows,dims,encoding,system,batch,k,warm,seconds,bytes,roof_share,resident_mb,recall";

/// One measurement. What was not measured stays empty.
#[derive(Debug, Clone, Default)]
pub struct Line {
    pub data: String,
    pub rows: usize,
    pub dims: usize,
    pub encoding: String,
    pub system: String,
    pub batch: usize,
    pub k: usize,
    /// Whether the bytes were in memory; otherwise they were read from the disk.
    pub warm: bool,
    /// The best of several runs.
    pub seconds: f64,
    /// Bytes of codes that were read.
    pub bytes: u64,
    /// Bytes per second, relative to the bandwidth of memory with the same threads, or of the disk.
    pub roof_share: Option<f64>,
    /// Growth of anonymous memory at its peak.
    pub resident_mb: Option<f64>,
    /// The recall: the fraction of the true best `k` that was found.
    pub recall: Option<f64>,
}

/// The file, which the peers' script continues.
pub struct Table {
    file: File,
}

impl Table {
    pub fn create(path: &Path) -> io::Result<Self> {
        std::fs::write(path, format!("{COLUMNS}\n"))?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)? })
    }

    pub fn add(&mut self, line: &Line) -> io::Result<()> {
        let shown = |number: Option<f64>, digits: usize| {
            number.map_or_else(String::new, |number| format!("{number:.digits$}"))
        };
        let text = format!(
            "{},{},{},{},{},{},{},{},{:.6},{},{},{},{}",
            line.data,
            line.rows,
            line.dims,
            line.encoding,
            line.system,
            line.batch,
            line.k,
            u8::from(line.warm),
            line.seconds,
            line.bytes,
            shown(line.roof_share, 3),
            shown(line.resident_mb, 1),
            shown(line.recall, 4),
        );
        eprintln!("{text}");
        writeln!(self.file, "{text}")
    }
}
