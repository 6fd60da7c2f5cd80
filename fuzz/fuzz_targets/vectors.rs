//! A file of vectors of any bytes, in each format: opened and read, it is an error or rows of finite numbers, as many as it says.
//!
//! The first byte modulo 5 is the format. If bit 3 is set, the rest is the file; else the rest are edits of a sound one: two bytes
//! of place, modulo the length, and the new byte.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use gradix::formats::{self, Batch, FileFormat, Number, ReadOptions};
use gradix::sketch::SketchSpec;
use libfuzzer_sys::fuzz_target;

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sound: Vec<Vec<u8>>,
}

fn bench() -> Bench {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("x");
    let spec = SketchSpec::dense("fuzz", "", [("b", 3), ("a", 2)]);
    let sound = FileFormat::ALL.map(|format| {
        let mut file = formats::create(&path, format, &spec, Number::F16).unwrap();
        let mut batch = Batch::default();
        batch.rows = 4;
        batch.values = (0..20).map(|i| i as f32).collect();
        batch.ids = (0..4).map(|row| vec![b'a' + row; 3]).collect();
        if format != FileFormat::Npy {
            batch.sources = vec![Some("s".into()), None, None, Some("t".into())];
            batch.metadata = vec![vec![1, 2], vec![], vec![], vec![3]];
        }
        file.write(&batch).unwrap();
        file.finish().unwrap();
        std::fs::read(&path).unwrap()
    });
    Bench { _folder: folder, path, sound: sound.into() }
}

fuzz_target!(
    init: {
        // A panic of a decoder is caught and becomes an error; the fuzzer's hook would abort before. One that
        // is not caught still ends the run.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: &[u8]| {
        static BENCH: OnceLock<Bench> = OnceLock::new();
        let bench = BENCH.get_or_init(bench);
        let Some((&mode, mut input)) = input.split_first() else { return };
        let at = usize::from(mode) % 5;
        let bytes = if mode & 8 != 0 {
            input.to_vec()
        } else {
            let mut bytes = bench.sound[at].clone();
            while let Some((&[low, high, new], rest)) = input.split_first_chunk::<3>() {
                input = rest;
                let place = usize::from(u16::from_le_bytes([low, high])) % bytes.len();
                bytes[place] = new;
            }
            bytes
        };
        std::fs::write(&bench.path, &bytes).unwrap();
        let options = ReadOptions::default().format(FileFormat::ALL[at]).optional_ids();
        let Ok(mut source) = formats::open(&bench.path, &options) else { return };
        let dims = source.spec().dims();
        let (mut batch, mut rows) = (Batch::default(), 0);
        for _ in 0..64 {
            if source.read(3, &mut batch).is_err() {
                return;
            }
            assert!(batch.rows <= 3 && batch.values.len() == batch.rows * dims);
            assert!(batch.values.iter().all(|value| value.is_finite()));
            assert!(batch.ids.is_empty() || batch.ids.len() == batch.rows);
            rows += batch.rows as u64;
            if batch.rows == 0 {
                assert!(source.rows().is_none_or(|said| said == rows));
                return;
            }
        }
    }
);
