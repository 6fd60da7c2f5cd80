//! Measures the scans of one index.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gradix::scan::{Guarantee, ScanPath, Statistics};
use gradix::sketch::Sketch;
use gradix::{Index, Ranking, Scan, ScanError, Snapshot};

use super::machine::{self, DiskWay};
use super::roof::Memory;
use super::table::{Line, Table};
use super::{Failure, Kind};

/// The maximum number of runs of a measurement, and the seconds after which it ends, after at least two runs.
const RUNS: usize = 7;
const SECONDS: f64 = 3.0;
const BATCHES: [usize; 4] = [1, 10, 64, 100];
const KS: [usize; 2] = [10, 100];
/// The maximum bytes of a measurement of memory: more bytes are read at the same speed.
const MEMORY_BYTES: usize = 2 << 30;
/// Bytes of a measurement of the disk's current speed.
const DISK_BYTES: u64 = 4 << 30;

/// The measured pass over the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// All codes of all rows.
    Full,
    /// Exact, by the planned path.
    Exact,
    /// The sign tier of all rows, then the candidates.
    Coarse,
}

impl Pass {
    /// The passes that an index of this kind has, and what they are called as codes.
    fn of(kind: Kind) -> Vec<(Self, &'static str)> {
        match kind {
            Kind::I8 => vec![(Self::Full, "i8"), (Self::Exact, "i8 planned"), (Self::Coarse, "sign+i8")],
            Kind::F16 => vec![(Self::Full, "f16"), (Self::Exact, "f16 planned"), (Self::Coarse, "sign+f16")],
            Kind::F32 => vec![(Self::Full, "f32"), (Self::Exact, "f32 planned")],
        }
    }

    fn scan<'a>(self, snapshot: &'a Snapshot, queries: &'a [Sketch]) -> Result<Scan<'a>, ScanError> {
        let scan = snapshot.scan(queries)?;
        Ok(match self {
            Self::Full => scan.path(ScanPath::Full),
            Self::Exact => scan,
            Self::Coarse => scan.guarantee(Guarantee::Probable { delta: 1e-6 }),
        })
    }
}

/// The case that an index belongs to.
pub struct Case<'a> {
    pub data: &'a str,
    pub rows: usize,
    pub dims: usize,
    pub queries: &'a [Sketch],
    /// The best rows for each query, best first.
    pub truth: &'a [Vec<u32>],
}

/// An index on disk, of some kind.
pub struct Stored<'a> {
    pub kind: Kind,
    pub path: &'a Path,
    /// Its generations and how many rows each has, all rows last.
    pub generations: Vec<(u64, usize)>,
}

/// What all measurements of a run share.
pub struct Bench<'a> {
    pub table: &'a mut Table,
    pub threads: usize,
    /// `None` where the disk's own speed could not be measured.
    pub disk: Option<DiskWay>,
}

/// The memory's speed, in bytes per second.
struct Roofs {
    one: f64,
    all: f64,
}

impl Bench<'_> {
    /// Everything about one index.
    pub fn index(&mut self, case: &Case<'_>, stored: &Stored<'_>) -> Result<(), Failure> {
        for (pass, encoding) in Pass::of(stored.kind) {
            let line = Line {
                data: case.data.to_owned(),
                rows: case.rows,
                dims: case.dims,
                encoding: encoding.to_owned(),
                ..Line::default()
            };
            let roofs = self.roofs(&line, stored.kind.schema(case.dims)?.row_bytes() * case.rows)?;
            self.warm(case, stored, pass, &line, &roofs)?;
            if pass == Pass::Full {
                self.smaller(case, stored, &line, &roofs)?;
            }
            self.cold(case, stored, pass, &line)?;
        }
        Ok(())
    }

    /// The memory's current speed, for the same number of bytes.
    fn roofs(&mut self, line: &Line, bytes: usize) -> Result<Roofs, Failure> {
        let bytes = bytes.min(MEMORY_BYTES);
        let memory = Memory::new(bytes)?;
        let mut speed = |threads: usize, name: &str| -> Result<f64, Failure> {
            let seconds = memory.seconds(bytes, threads);
            let (system, bytes) = (format!("memory-read{name}"), bytes as u64);
            self.table.add(&Line { system, warm: true, seconds, bytes, ..line.clone() })?;
            Ok(bytes as f64 / seconds)
        };
        Ok(Roofs { one: speed(1, "-t1")?, all: speed(self.threads, "")? })
    }

    fn warm(
        &mut self,
        case: &Case<'_>,
        stored: &Stored<'_>,
        pass: Pass,
        line: &Line,
        roofs: &Roofs,
    ) -> Result<(), Failure> {
        let before = machine::anonymous_bytes();
        // The bytes are in memory, but nothing is mapped or checked yet: the cost of a first scan.
        let mut first = Best::default();
        for run in 0..4 {
            let snapshot = Index::options().read_only(true).open(stored.path)?.snapshot()?;
            if run == 0 {
                // This one may read from the disk.
                pass.scan(&snapshot, &case.queries[..1])?.top_k(KS[0]).run()?;
                continue;
            }
            first
                .run(|| pass.scan(&snapshot, &case.queries[..1])?.top_k(KS[0]).threads(self.threads).run())?;
        }
        let snapshot = Index::options().read_only(true).open(stored.path)?.snapshot()?;
        let scan = |batch: usize, k: usize, threads: usize| {
            pass.scan(&snapshot, &case.queries[..batch])?.top_k(k).threads(threads).run()
        };
        scan(1, KS[0], self.threads)?;
        for threads in [self.threads, 1] {
            for batch in BATCHES {
                for k in KS {
                    let full = threads == self.threads;
                    // One thread: how one query and a large batch scale is enough.
                    if !full && ((batch != 1 && batch != 64) || k != KS[0]) {
                        continue;
                    }
                    let mut best = Best::default();
                    best.runs(|| scan(batch, k, threads))?;
                    let (result, grown) = machine::growth(before, || scan(batch, k, threads));
                    let ranking = result?;
                    let roof = if full { roofs.all } else { roofs.one };
                    let mut line = best.line(line, if full { "" } else { "-t1" });
                    (line.batch, line.k, line.warm) = (batch, k, true);
                    line.roof_share = Some(line.bytes as f64 / line.seconds / roof);
                    line.resident_mb = Some(grown as f64 / 1e6);
                    line.recall = Some(recall(&ranking, case.truth, k));
                    self.table.add(&line)?;
                }
            }
            if threads == 1 || self.threads == 1 {
                break;
            }
        }
        if pass == Pass::Full {
            for batch in [1, 64] {
                let mut best = Best::default();
                for _ in 0..RUNS {
                    let started = Instant::now();
                    let scan = pass.scan(&snapshot, &case.queries[..batch])?.threads(self.threads);
                    best.note(started, &scan.scores(|_| ControlFlow::Continue(()))?);
                }
                let mut line = best.line(line, "-scores");
                (line.batch, line.warm) = (batch, true);
                line.roof_share = Some(line.bytes as f64 / line.seconds / roofs.all);
                self.table.add(&line)?;
            }
        }
        let mut line = first.line(line, "-first");
        (line.batch, line.k, line.warm) = (1, KS[0], true);
        line.roof_share = Some(line.bytes as f64 / line.seconds / roofs.all);
        self.table.add(&line)?;
        Ok(())
    }

    /// Earlier generations: the same index with an eighth, a quarter and half of the rows.
    fn smaller(
        &mut self,
        case: &Case<'_>,
        stored: &Stored<'_>,
        line: &Line,
        roofs: &Roofs,
    ) -> Result<(), Failure> {
        if stored.generations.len() < 2 {
            return Ok(());
        }
        let index = Index::options().read_only(true).open(stored.path)?;
        for &(generation, rows) in &stored.generations {
            let snapshot = index.snapshot_at(generation)?;
            let mut best = Best::default();
            best.runs(|| {
                Pass::Full.scan(&snapshot, &case.queries[..1])?.top_k(KS[0]).threads(self.threads).run()
            })?;
            let mut line = best.line(line, "-rows");
            (line.rows, line.batch, line.k, line.warm) = (rows, 1, KS[0], true);
            line.roof_share = Some(line.bytes as f64 / line.seconds / roofs.all);
            self.table.add(&line)?;
        }
        Ok(())
    }

    /// From the disk: everything is reopened, and none of the segments' pages are in memory.
    fn cold(&mut self, case: &Case<'_>, stored: &Stored<'_>, pass: Pass, line: &Line) -> Result<(), Failure> {
        let files = segments(stored.path)?;
        let mut roof = None;
        if let Some(way) = self.disk {
            let mut best: Option<(u64, f64)> = None;
            for _ in 0..2 {
                machine::drop_pages(&files)?;
                let (bytes, seconds) = machine::read_direct(&files, way, DISK_BYTES)?;
                if best.is_none_or(|(_, other)| seconds < other) {
                    best = Some((bytes, seconds));
                }
            }
            if let Some((bytes, seconds)) = best {
                let system = "disk-read".to_owned();
                self.table.add(&Line { system, seconds, bytes, ..line.clone() })?;
                roof = Some(bytes as f64 / seconds);
            }
        }
        for (batch, k, runs) in [(1, KS[0], 3), (64, KS[0], 1), (100, KS[1], 1)] {
            let mut best = Best::default();
            let mut found = None;
            for _ in 0..runs {
                let left = machine::drop_pages(&files)?;
                if left > 0.01 {
                    eprintln!("not cold: {:.0}% of the pages stay in memory, no row for it", left * 100.0);
                    return Ok(());
                }
                let snapshot = Index::options().read_only(true).open(stored.path)?.snapshot()?;
                let scan =
                    || pass.scan(&snapshot, &case.queries[..batch])?.top_k(k).threads(self.threads).run();
                found = Some(best.run(scan)?);
            }
            let mut line = best.line(line, "");
            (line.batch, line.k, line.warm) = (batch, k, false);
            line.roof_share = roof.map(|roof| line.bytes as f64 / line.seconds / roof);
            line.recall = found.map(|ranking| recall(&ranking, case.truth, k));
            self.table.add(&line)?;
        }
        Ok(())
    }
}

/// The best of several runs of one scan.
#[derive(Default)]
struct Best {
    seconds: Option<f64>,
    spent: f64,
    bytes: u64,
    kernel: &'static str,
}

impl Best {
    fn run(&mut self, scan: impl FnOnce() -> Result<Ranking, ScanError>) -> Result<Ranking, ScanError> {
        let started = Instant::now();
        let ranking = scan()?;
        self.note(started, ranking.statistics());
        Ok(ranking)
    }

    /// A scan that began then has just ended.
    fn note(&mut self, started: Instant, statistics: &Statistics) {
        let seconds = started.elapsed().as_secs_f64();
        self.spent += seconds;
        if self.seconds.is_none_or(|best| seconds < best) {
            self.seconds = Some(seconds);
        }
        self.bytes = statistics.code_bytes + statistics.tier_bytes;
        self.kernel = statistics.kernel;
    }

    fn runs(&mut self, mut scan: impl FnMut() -> Result<Ranking, ScanError>) -> Result<(), ScanError> {
        for run in 0..RUNS {
            if run >= 2 && self.spent > SECONDS {
                break;
            }
            self.run(&mut scan)?;
        }
        Ok(())
    }

    fn line(&self, line: &Line, suffix: &str) -> Line {
        let system = format!("gradix-{}{suffix}", self.kernel);
        Line { system, seconds: self.seconds.unwrap_or(f64::NAN), bytes: self.bytes, ..line.clone() }
    }
}

/// The recall: the fraction of the true best `k` rows that were found, over all queries.
fn recall(ranking: &Ranking, truth: &[Vec<u32>], k: usize) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for (query, truth) in truth.iter().enumerate().take(ranking.queries()) {
        let truth = &truth[..k.min(truth.len())];
        let row = |id: &[u8]| std::str::from_utf8(id).ok()?.parse::<u32>().ok();
        found += ranking
            .proponents(query)
            .iter()
            .filter_map(|hit| row(&hit.id))
            .filter(|row| truth.contains(row))
            .count();
        wanted += truth.len();
    }
    found as f64 / wanted.max(1) as f64
}

/// The files that hold an index's codes.
fn segments(index: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(index.join("segments"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    Ok(files)
}
