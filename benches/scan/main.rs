//! Scans compared with the bandwidth of memory and disk, and with other programs, in one run on one machine.
//!
//! `make bench` runs it together with the peers and prints the table; `cargo bench --bench scan` alone
//! measures gradix only. Lines go to `target/bench/scan.csv`. Seconds are the best of several runs, from the
//! builder of the scan to its ranking. `-t1` is one thread, otherwise all threads; `-first` is the first scan
//! of a snapshot, which checks checksums; `-scores` passes every score on; `-rows` are earlier generations of the same index. Memory's roof is
//! the fastest of several loops of plain 64-byte loads over the same number of bytes (at most 2 GiB) in huge
//! pages; the disk's is O_DIRECT with the fastest request size and number of threads, over the scanned files.
//! Cold scans run after the files' pages were dropped from the page cache and everything was reopened.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `GRADIX_BENCH_SCALE` | fraction of the rows | 1 |
//! | `GRADIX_BENCH_CASES` | which cases, `rowsxdims` as below, with commas | all |
//! | `GRADIX_BENCH_DATA` | `gradients`, `gaussian` | both |
//! | `GRADIX_BENCH_ENCODINGS` | which encodings, with commas | all |
//! | `GRADIX_BENCH_DEMO` | the demo's folder | `target/demo` |
//! | `GRADIX_BENCH_FOLDER` | where results and data go | `target/bench` |
//! | `GRADIX_BENCH_KEEP` | `1` keeps the data | removed |
//! | `GRADIX_BENCH_PEERS` | a program to run for each case, given the case's folder and the table | none |

mod data;
mod machine;
mod measure;
mod numbers;
#[expect(dead_code, reason = "other benchmarks need the bytes")]
#[path = "../roof/mod.rs"]
mod roof;
mod table;
mod truth;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Schema, Tier};

use data::{Gradients, Source};
use machine::DiskWay;
use measure::{Bench, Case, Stored};
use roof::Memory;
use table::{Line, Table};
use truth::Truth;

/// A failure of any layer; the benchmark only reports it.
type Failure = Box<dyn std::error::Error>;

/// Bytes of the first measurement of memory and disk.
const MACHINE_BYTES: usize = 1 << 30;

/// Rows, dims, encodings, and whether the index is also measured with an eighth of the rows and so on.
struct Size {
    rows: usize,
    dims: u32,
    kinds: &'static [Kind],
    grows: bool,
}

const SIZES: [Size; 3] = [
    Size { rows: 50_000, dims: 4096, kinds: &[Kind::I8, Kind::F16, Kind::F32], grows: false },
    Size { rows: 52_002, dims: 65_536, kinds: &[Kind::I8, Kind::F16], grows: false },
    Size { rows: 1_000_000, dims: 4096, kinds: &[Kind::I8, Kind::F16], grows: true },
];

/// What an index stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    I8,
    F16,
    F32,
}

impl Kind {
    fn name(self) -> &'static str {
        self.encoding().name()
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::I8 => Encoding::I8,
            Self::F16 => Encoding::F16,
            Self::F32 => Encoding::F32,
        }
    }

    /// The schema of its index, with all tiers of its encoding.
    fn schema(self, dims: usize) -> Result<Schema, Failure> {
        let schema = Schema::new(spec(u32::try_from(dims)?), self.encoding())?;
        let sign = Tier::Sign { seed: 1 };
        Ok(match self {
            Self::I8 => schema.with_tiers([sign])?,
            Self::F16 => schema.with_tiers([sign, Tier::I8])?,
            Self::F32 => schema,
        })
    }
}

fn spec(dims: u32) -> SketchSpec {
    SketchSpec::dense("bench", "1", [("all", dims)])
}

fn main() -> Result<(), Failure> {
    let folder = PathBuf::from(setting("GRADIX_BENCH_FOLDER").unwrap_or("target/bench".to_owned()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("scan.csv");
    let mut table = Table::create(&path)?;
    let threads = std::thread::available_parallelism()?.get();
    let disk = look_at_machine(&folder, &mut table, threads)?;
    let scale: f64 = setting("GRADIX_BENCH_SCALE").map_or(Ok(1.0), |scale| scale.parse())?;
    for size in &SIZES {
        if !chosen("GRADIX_BENCH_CASES", &format!("{}x{}", size.rows, size.dims)) {
            continue;
        }
        for data in ["gradients", "gaussian"] {
            if !chosen("GRADIX_BENCH_DATA", data) {
                continue;
            }
            let source = match data {
                "gaussian" => Source::Gaussian,
                _ => gradients(size.dims as usize)?,
            };
            let scratch = Scratch::new(folder.join("data"))?;
            let mut bench = Bench { table: &mut table, threads, disk };
            run_case(&source, size, scale, &scratch.path, &mut bench)?;
            drop(source);
            if let Some(peers) = setting("GRADIX_BENCH_PEERS") {
                let status = Command::new(peers).arg(&scratch.path).arg(&path).status()?;
                if !status.success() {
                    return Err(format!("the peers' script failed: {status}").into());
                }
            }
        }
    }
    Ok(())
}

/// Measures memory and disk. Returns the fastest way to read the disk.
fn look_at_machine(folder: &Path, table: &mut Table, threads: usize) -> Result<Option<DiskWay>, Failure> {
    let line = Line { data: "machine".to_owned(), encoding: "bytes".to_owned(), ..Line::default() };
    let memory = Memory::new(MACHINE_BYTES)?;
    for (threads, name) in [(1, "memory-read-t1"), (threads, "memory-read")] {
        let (seconds, bytes) = (memory.seconds(MACHINE_BYTES, threads), MACHINE_BYTES as u64);
        let system = name.to_owned();
        table.add(&Line { system, warm: true, seconds, bytes, ..line.clone() })?;
    }
    drop(memory);
    let noise = Scratch::new(folder.join("disk"))?;
    let file = noise.path.join("noise");
    machine::write_noise(&file, MACHINE_BYTES)?;
    let Some((way, speed)) = machine::disk(&file) else {
        eprintln!("the disk cannot be read past the page cache here: its speed is not measured");
        return Ok(None);
    };
    eprintln!("disk: fastest with {} readers of {} MiB", way.readers, way.request >> 20);
    let (system, bytes) = ("disk-read".to_owned(), MACHINE_BYTES as u64);
    table.add(&Line { system, seconds: bytes as f64 / speed, bytes, ..line })?;
    Ok(Some(way))
}

fn gradients(dims: usize) -> Result<Source, Failure> {
    let demo = setting("GRADIX_BENCH_DEMO").unwrap_or("target/demo".to_owned());
    let gradients = Gradients::load(Path::new(&demo), dims)?;
    let (rows, queries) = gradients.counts();
    let [least, most] = data::NOISE;
    eprintln!(
        "{rows} real gradients, tiled with noise of {least} to {most} of their norm; {queries} real queries"
    );
    Ok(Source::Gradients(gradients))
}

/// Makes the data of a case and measures its indexes.
fn run_case(
    source: &Source,
    size: &Size,
    scale: f64,
    folder: &Path,
    bench: &mut Bench<'_>,
) -> Result<(), Failure> {
    let dims = size.dims as usize;
    let rows = ((size.rows as f64 * scale) as usize).max(1000);
    let commits: Vec<usize> = if size.grows { vec![rows / 8, rows / 4, rows / 2, rows] } else { vec![rows] };
    let kinds: Vec<Kind> =
        size.kinds.iter().copied().filter(|kind| chosen("GRADIX_BENCH_ENCODINGS", kind.name())).collect();
    let spec = Arc::new(spec(size.dims));
    let numbers = source.queries(dims);
    let mut truth = Truth::new(&numbers);
    let mut paths = Vec::new();
    let mut generations = Vec::new();
    {
        let mut writers = Vec::new();
        for kind in &kinds {
            let path = folder.join(format!("{}.gradix", kind.name()));
            writers.push(Index::options().create(&path, &kind.schema(dims)?)?.writer()?);
            paths.push(path);
        }
        data::make(source, &spec, &commits, &folder.join("vectors.f16"), &mut writers, &mut truth)?;
        let last = writers.iter().map(gradix::Writer::generation).max().unwrap_or(0);
        let first = last + 1 - commits.len() as u64;
        generations.extend((first..).zip(commits.iter().copied()));
    }
    let best = truth.finish();
    data::write_queries(folder, &numbers, &best)?;
    let description = format!(
        "{{\"data\":\"{}\",\"rows\":{rows},\"dims\":{dims},\"queries\":{}}}\n",
        source.name(),
        numbers.len()
    );
    std::fs::write(folder.join("case.json"), description)?;
    let queries: Vec<Sketch> = numbers
        .into_iter()
        .map(|values| Sketch::dense(Arc::clone(&spec), values))
        .collect::<Result<_, _>>()?;
    let case = Case { data: source.name(), rows, dims, queries: &queries, truth: &best };
    for (kind, path) in kinds.iter().zip(&paths) {
        bench.index(&case, &Stored { kind: *kind, path, generations: generations.clone() })?;
        if setting("GRADIX_BENCH_KEEP").is_none() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// A folder for large files, removed at the end unless `GRADIX_BENCH_KEEP` is set.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, Failure> {
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if setting("GRADIX_BENCH_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a list names this, or there is no list.
fn chosen(list: &str, name: &str) -> bool {
    setting(list).is_none_or(|names| names.split(',').any(|listed| listed.trim() == name))
}
