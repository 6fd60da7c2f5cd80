//! An `INDEX` file of any bytes: an error, or an index that can be read.
//!
//! The first byte says whether checksums and lengths are made right first; the others are the body of
//! a file with a sound header, or the whole file.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use gradix::sketch::SketchSpec;
use gradix::{Encoding, Index, Schema};
use libfuzzer_sys::fuzz_target;

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sound: Vec<u8>,
}

fn bench() -> Bench {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("x.gradix");
    let schema = Schema::new(SketchSpec::rapid_grad(7, 64), Encoding::I8).unwrap();
    Index::options().create(&path, &schema).unwrap();
    let sound = std::fs::read(path.join("INDEX")).unwrap();
    Bench { _folder: folder, path, sound }
}

fuzz_target!(|input: &[u8]| {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(bench);
    let Some((&mode, input)) = input.split_first() else { return };
    let mut bytes = match mode % 3 {
        0 => input.to_vec(),
        1 => [&bench.sound[..64], input].concat(),
        _ => {
            // A header of the input's before the sound body.
            let mut bytes = bench.sound.clone();
            for (byte, new) in bytes[8..56].iter_mut().zip(input) {
                *byte ^= new;
            }
            bytes
        }
    };
    if bytes.len() >= 64 && mode < 128 {
        let (header, body) = bytes.split_at_mut(64);
        if mode % 3 == 1 {
            header[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        }
        header[56..60].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let crc = crc32fast::hash(&header[..60]).to_le_bytes();
        header[60..].copy_from_slice(&crc);
    }
    std::fs::write(bench.path.join("INDEX"), &bytes).unwrap();
    if let Ok(index) = Index::open(&bench.path) {
        index.schema().spec().check().expect("an index that opens has a valid spec");
        let snapshot = index.snapshot().expect("an empty index can be read");
        assert_eq!(snapshot.rows(), 0);
    }
});
