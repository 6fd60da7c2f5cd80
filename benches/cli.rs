//! The program's append and export beside the disk: how fast do rows of a file become durable, and go out again?
//!
//! Prints one table. The disk's speed is measured before and after each line, in the same folder, by writing and syncing one
//! file of as many bytes; a line has the mean of both. Inputs were just written, so that they come from the page cache, as
//! those do that a program hands over. `GRADIX_BENCH_FOLDER` chooses the folder, `GRADIX_BENCH_MB` the size of the input
//! (2048), `GRADIX_BENCH_ONLY` the lines whose names have this in them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gradix::formats::{self, Batch, FileFormat, Number};
use gradix::sketch::SketchSpec;

type Failure = Box<dyn std::error::Error>;

const DIMS: u32 = 4096;

fn main() -> Result<(), Failure> {
    let folder = match std::env::var_os("GRADIX_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let folder = folder.path();
    let megabytes: usize = std::env::var("GRADIX_BENCH_MB").ok().map_or(Ok(2048), |text| text.parse())?;
    let only = std::env::var("GRADIX_BENCH_ONLY").unwrap_or_default();
    let rows = (megabytes << 20) / (DIMS as usize * 4);
    println!("{rows} rows of {DIMS}; bytes are those of the input and of what is written; the disk in GB/s");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "", "seconds", "disk", "in GB/s", "out GB/s", "in / disk", "out / disk"
    );
    let appends = [
        ("npy", "f32", &[][..]),
        ("npy", "f16", &[]),
        ("safetensors", "f16", &[]),
        ("arrow", "f16", &[]),
        ("npy", "f16", &["sign", "i8"]),
        ("npy", "i8", &[]),
        ("safetensors", "i8", &[]),
        ("arrow", "i8", &[]),
        ("npy", "i8", &["sign"]),
    ];
    for (format, encoding, tiers) in appends {
        let name = format!(
            "append {format} to {encoding}{}",
            tiers.iter().map(|tier| format!(" + {tier}")).collect::<String>()
        );
        if !name.contains(&only) {
            continue;
        }
        let input = input(folder, format.parse()?, rows)?;
        let index = folder.join("i.gradix");
        let mut args = vec!["append", "i.gradix", &input, "--create", "--encoding", encoding];
        args.extend(tiers.iter().flat_map(|tier| ["--tier", *tier]));
        if format == "npy" {
            args.extend(["--ids", "{row}"]);
        }
        line(folder, &name, &args, &folder.join(&input), &index)?;
        fs::remove_dir_all(index)?;
        fs::remove_file(folder.join(&input))?;
    }
    let exports = [
        ("f16", "npy", "f16"),
        ("f16", "npy", "f32"),
        ("f16", "safetensors", "f16"),
        ("f16", "arrow", "f16"),
        ("i8", "npy", "f16"),
        ("i8", "arrow", "f32"),
    ];
    for (encoding, format, number) in exports {
        let name = format!("export {encoding} to {format} {number}");
        if !name.contains(&only) {
            continue;
        }
        let input = input(folder, FileFormat::Npy, rows)?;
        let args =
            ["append", "i.gradix", &input, "--create", "--encoding", encoding, "--ids", "{row}", "--quiet"];
        run(folder, &args)?;
        fs::remove_file(folder.join(&input))?;
        let out = format!("out.{format}");
        let args = ["export", "i.gradix", &out, "--number", number];
        line(folder, &name, &args, &folder.join("i.gradix"), &folder.join(&out))?;
        fs::remove_dir_all(folder.join("i.gradix"))?;
        fs::remove_file(folder.join(&out))?;
    }
    Ok(())
}

/// Runs the program between two measurements of the disk, and prints a line.
fn line(folder: &Path, name: &str, args: &[&str], input: &Path, output: &Path) -> Result<(), Failure> {
    let read = length(input)?;
    let before = disk(folder, read)?;
    let start = Instant::now();
    run(folder, args)?;
    let seconds = start.elapsed().as_secs_f64();
    let disk = (before + disk(folder, read)?) / 2.0;
    let (read, written) = (read as f64 / seconds, length(output)? as f64 / seconds);
    println!(
        "{name:<34} {seconds:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>10.2} {:>10.2}",
        disk / 1e9,
        read / 1e9,
        written / 1e9,
        read / disk,
        written / disk
    );
    Ok(())
}

fn run(folder: &Path, args: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradix"));
    let status = command.args(args).current_dir(folder).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("gradix {args:?}: {status}").into()) }
}

/// The bytes of a file, or of all files in a folder.
fn length(path: &Path) -> std::io::Result<u64> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| length(&entry?.path())).sum()
}

/// Bytes a second that are written in one file, and synced.
fn disk(folder: &Path, bytes: u64) -> std::io::Result<f64> {
    let path = folder.join("disk");
    let piece = vec![0x5a; 8 << 20];
    let pieces = bytes.div_ceil(8 << 20);
    let start = Instant::now();
    let mut file = File::create(&path)?;
    for _ in 0..pieces {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok((pieces * (8 << 20)) as f64 / seconds)
}

/// Writes a file of rows, and returns its name.
fn input(folder: &Path, format: FileFormat, rows: usize) -> Result<String, Failure> {
    let name = format!("in.{format}");
    let spec = SketchSpec::dense("bench", "1", [("all", DIMS)]);
    let mut sink = formats::create(folder.join(&name), format, &spec, Number::F32)?;
    let mut batch = Batch::default();
    batch.rows = 256;
    batch.values = (0..256 * DIMS).map(|i| (i.wrapping_mul(104_729) % 2003) as f32 / 1e3 - 1.0).collect();
    for first in (0..rows).step_by(256) {
        batch.ids = (first..first + 256).map(|row| format!("{row:08}").into_bytes()).collect();
        sink.write(&batch)?;
    }
    sink.finish()?;
    Ok(name)
}
