//! Append throughput compared with the disk's: how fast do rows become durable?
//!
//! Prints one table. The disk's bandwidth is measured in the same run, in the same folder, by writing
//! and syncing one file of the same size. `GRADIX_BENCH_FOLDER` chooses the folder.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Row, Schema, Tier};

const BYTES: usize = 2 << 30;
const BATCH: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::var_os("GRADIX_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let disk = disk_bandwidth(folder.path())?;
    println!("disk, sequential write and sync: {:.2} GB/s", disk / 1e9);
    println!("{:<32} {:>10} {:>12} {:>10} {:>12}", "rows", "seconds", "rows/s", "GB/s", "of the disk");
    let sign = Tier::Sign { seed: 7 };
    let cases: [(Encoding, u32, &[Tier]); 8] = [
        (Encoding::F32, 4096, &[]),
        (Encoding::F16, 4096, &[]),
        (Encoding::F16, 4096, &[sign, Tier::I8]),
        (Encoding::F16, 4096, &[sign]),
        (Encoding::I8, 4096, &[]),
        (Encoding::I8, 4096, &[sign]),
        (Encoding::F16, 65_536, &[]),
        (Encoding::F16, 65_536, &[sign, Tier::I8]),
    ];
    for (encoding, dims, tiers) in cases {
        let path = folder.path().join("bench.gradix");
        let spec = SketchSpec::dense("bench", "1", [("all", dims)]);
        let schema = Schema::new(spec.clone(), encoding)?.with_tiers(tiers.iter().copied())?;
        let rows = BYTES / schema.row_bytes();
        let sketches: Vec<Sketch> = (0..BATCH)
            .map(|row| {
                let values = (0..dims).map(|i| ((row as u32 * 7919 + i * 104_729) % 2003) as f32 / 1e3 - 1.0);
                Sketch::dense(spec.clone(), values.collect())
            })
            .collect::<Result<_, _>>()?;
        let index = Index::options().create(&path, &schema)?;
        let start = Instant::now();
        let mut writer = index.writer()?;
        let mut id = 0u64;
        while id < rows as u64 {
            let batch: Vec<([u8; 8], Row<'_>)> =
                sketches.iter().zip(id..).map(|(sketch, id)| (id.to_le_bytes(), Row::new(sketch))).collect();
            writer.append_batch(&batch)?;
            id += BATCH as u64;
        }
        writer.commit()?;
        let seconds = start.elapsed().as_secs_f64();
        let bytes = index.stats()?.bytes as f64;
        let tiers: String = tiers.iter().map(|tier| format!(" + {}", tier.name())).collect();
        let name = format!("{id} x {dims} {encoding}{tiers}");
        println!(
            "{name:<32} {seconds:>10.2} {:>12.0} {:>10.2} {:>12.2}",
            id as f64 / seconds,
            bytes / seconds / 1e9,
            bytes / seconds / disk
        );
        drop(writer);
        drop(index);
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

fn disk_bandwidth(folder: &Path) -> std::io::Result<f64> {
    let path = folder.join("disk");
    let piece = vec![0x5a; 8 << 20];
    let start = Instant::now();
    let mut file = File::create(&path)?;
    for _ in 0..BYTES / piece.len() {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(BYTES as f64 / seconds)
}
