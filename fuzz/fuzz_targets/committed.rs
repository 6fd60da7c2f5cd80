//! A `COMMITTED` file of any bytes: an error that names it, or the generation that it states.
//!
//! An odd first byte leaves the bytes as they are; otherwise the magic and the checksum of what follows are
//! made right first.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use gradix::sketch::SketchSpec;
use gradix::{Encoding, Index, Schema};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8] = b"\x89GDC\r\n\x1a\n";

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn bench() -> Bench {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("x.gradix");
    let schema = Schema::new(SketchSpec::dense("fuzz", "v1", [("all", 2)]), Encoding::F32).unwrap();
    let index = Index::create(&path, &schema).unwrap();
    index.writer().unwrap().commit().unwrap();
    Bench { _folder: folder, path }
}

fuzz_target!(|input: &[u8]| {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(bench);
    let Some((&mode, input)) = input.split_first() else { return };
    let bytes = if mode % 2 == 0 {
        let mut bytes = [MAGIC, &input[..input.len().min(64)]].concat();
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend(crc);
        bytes
    } else {
        input.to_vec()
    };
    std::fs::write(bench.path.join("COMMITTED"), &bytes).unwrap();
    let stated = match bytes.get(8..16) {
        Some(generation) if mode % 2 == 0 && bytes.len() == 20 => {
            Some(u64::from_le_bytes(generation.try_into().unwrap()))
        }
        _ => None,
    };
    match (Index::open(&bench.path), stated) {
        (Ok(index), Some(0 | 1)) => {
            let rows = index.snapshot().map(|snapshot| snapshot.rows());
            assert_eq!(rows.ok().unwrap_or_default(), 0);
        }
        (Ok(_), Some(more)) => panic!("generation {more} was acknowledged, and is not there"),
        // Bytes that happen to be sound.
        (Ok(_), None) => assert!(bytes.len() == 20 && bytes.starts_with(MAGIC), "{bytes:?} was taken"),
        (Err(_), _) => {}
    }
});
