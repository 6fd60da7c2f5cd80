//! How fast are files of vectors read and written, compared with the same bytes read and written plainly?
//!
//! Prints one table: GB/s of each format and type of number, the plain figure that was measured just before, and the ratio.
//! Reading is from the page cache; writing ends with a sync, so that it is the disk's. `GRADIX_BENCH_FOLDER` chooses the
//! folder, `GRADIX_BENCH_BYTES` the size of a file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use gradix::formats::{self, Batch, FileFormat, Number, ReadOptions};
use gradix::sketch::SketchSpec;

const BATCH: usize = 256;
const DIMS: u32 = 4096;
const BYTES: usize = 1 << 30;
/// Each figure is the best of so many.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::var_os("GRADIX_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let bytes = match std::env::var("GRADIX_BENCH_BYTES") {
        Ok(bytes) => bytes.parse()?,
        Err(_) => BYTES,
    };
    let one = SketchSpec::dense("bench", "", [("all", DIMS)]);
    let several = SketchSpec::dense("bench", "", (0..16).map(|block| (format!("layers.{block}"), DIMS / 16)));
    println!(
        "{:<32} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "GB/s", "read", "plain", "ratio", "write", "plain", "ratio"
    );
    for format in FileFormat::ALL {
        for number in [Number::F32, Number::F16] {
            for (name, spec) in [("1 block", &one), ("16 blocks", &several)] {
                let path = folder.path().join(format!("bench.{format}"));
                let (mut write, mut plain_write, mut read, mut plain_read) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
                for _ in 0..ROUNDS {
                    write = write.max(rate(&path, || write_rows(&path, format, spec, number, bytes))?);
                    read = read.max(rate(&path, || read_rows(&path))?);
                    plain_read = plain_read.max(rate(&path, || read_bytes(&path))?);
                    let length = std::fs::metadata(&path)?.len();
                    let plain = folder.path().join("plain");
                    plain_write = plain_write.max(rate(&plain, || write_bytes(&plain, length))?);
                    std::fs::remove_file(plain)?;
                }
                std::fs::remove_file(&path)?;
                println!(
                    "{:<32} {read:>10.2} {plain_read:>10.2} {:>7.2} {write:>10.2} {plain_write:>10.2} {:>7.2}",
                    format!("{format}, {}, {name}", number.name()),
                    read / plain_read,
                    write / plain_write
                );
            }
        }
    }
    Ok(())
}

/// The bytes of a file, divided by the time that work with it takes, in GB/s.
fn rate(
    path: &Path,
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(std::fs::metadata(path)?.len() as f64 / seconds / 1e9)
}

fn write_rows(
    path: &Path,
    format: FileFormat,
    spec: &SketchSpec,
    number: Number,
    bytes: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut batch = Batch::default();
    batch.rows = BATCH;
    batch.values = (0..BATCH * spec.dims()).map(|i| ((i * 104_729) % 2003) as f32 / 1e3 - 1.0).collect();
    batch.ids = (0..BATCH).map(|row| format!("example {row}").into_bytes()).collect();
    let mut file = formats::create(path, format, spec, number)?;
    for _ in 0..bytes / (BATCH * spec.dims() * number.bytes()) {
        file.write(&batch)?;
    }
    file.finish()?;
    Ok(())
}

fn read_rows(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut rows = formats::open(path, &ReadOptions::default())?;
    let mut batch = Batch::default();
    loop {
        rows.read(BATCH, &mut batch)?;
        if batch.rows == 0 {
            return Ok(());
        }
    }
}

fn read_bytes(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn write_bytes(path: &Path, length: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (mut file, buffer) = (File::create(path)?, vec![1; 1 << 20]);
    let mut left = length;
    while left > 0 {
        let now = left.min(buffer.len() as u64) as usize;
        file.write_all(&buffer[..now])?;
        left -= now as u64;
    }
    file.sync_all()?;
    Ok(())
}
