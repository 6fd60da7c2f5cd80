//! A `PART` file of any bytes: an error that names it, or a part that says what the bytes say; and an attach of it that
//! leaves nothing behind unless it is the sound one.
//!
//! The first byte: bit 0 leaves the checksums as they are. Then edits of the sound file: two bytes of place, and the
//! new byte; what follows an edit with the place 65,535 is put in place of the rest.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Attach, Encoding, Index, Part, Schema, Writer};
use libfuzzer_sys::fuzz_target;

struct Bench {
    _folder: tempfile::TempDir,
    part: PathBuf,
    segments: PathBuf,
    sound: Vec<u8>,
    writer: Writer,
}

fn bench() -> Mutex<Bench> {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("x.gradix");
    let spec = SketchSpec::dense("fuzz", "v1", [("all", 2)]);
    let index = Index::create(&path, &Schema::new(spec.clone(), Encoding::F32).unwrap()).unwrap();
    let mut detached = index.detached(folder.path().join("built")).unwrap();
    detached.fit_curvature("curvature", &[]).unwrap();
    for id in ["a", "b"] {
        detached.append(id, &Sketch::dense(spec.clone(), vec![1.0, 2.0]).unwrap()).unwrap();
    }
    let part = detached.finish("payload").unwrap().path;
    let sound = fs::read(part.join("PART")).unwrap();
    let writer = index.writer().unwrap();
    Mutex::new(Bench { _folder: folder, part, segments: path.join("segments"), sound, writer })
}

fn edited(sound: &[u8], mut edits: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    while let Some((&[low, high, new], rest)) = edits.split_first_chunk::<3>() {
        edits = rest;
        let at = usize::from(u16::from_le_bytes([low, high]));
        if at == 65_535 {
            bytes.truncate(128 + usize::from(new));
            bytes.extend(rest);
            break;
        }
        let length = bytes.len();
        bytes[at % length] = new;
    }
    bytes
}

fn mend(bytes: &mut [u8]) {
    if bytes.len() >= 132 {
        let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
        bytes[124..128].copy_from_slice(&crc);
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[128..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
    }
}

fuzz_target!(|input: &[u8]| {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    let mut bench = BENCH.get_or_init(bench).lock().unwrap();
    let Some((&mode, edits)) = input.split_first() else { return };
    let mut bytes = edited(&bench.sound, edits);
    if mode % 2 == 0 {
        mend(&mut bytes);
    }
    let folder = bench.part.clone();
    fs::write(folder.join("PART"), &bytes).unwrap();
    let stated = Part::read(&folder);
    if let Ok(part) = &stated {
        let entries = 72 * part.segments.len() + 128 * part.sums.len();
        assert_eq!(bytes.len(), 128 + entries + part.payload.len() + 4);
        let _ = part.verify();
    }
    match bench.writer.attach(&folder, Attach::Link) {
        Ok(attached) => {
            assert_eq!(attached.parts, [stated.unwrap()]);
            assert!(attached.parts[0].verify().is_ok());
            bench.writer.abort().unwrap();
        }
        // Whatever was refused, the writer goes on.
        Err(_) => assert!(!bench.writer.contains("a").unwrap()),
    }
    assert_eq!(fs::read_dir(&bench.segments).unwrap().count(), 0);
});
