//! Edits to any files of an index's folder, RocksDB's included: right answers or an error, from a reader and
//! from a writer. A hang is libFuzzer's to notice (`-timeout`).
//!
//! The first byte: bit 0 leaves the checksums of gradix's own files as they are, bit 1 lets a writer go on
//! afterwards. Then edits: a byte for the file, two of place, one of kind or length, and the new bytes.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{CompactOptions, Encoding, Example, GcOptions, Index, Row, Schema, Span, Tier};
use gradix_fuzz::mend_segment;
use libfuzzer_sys::fuzz_target;

type Files = BTreeMap<String, Vec<u8>>;

struct Bench {
    folder: tempfile::TempDir,
    files: Files,
    examples: Vec<Example>,
}

fn sketch(seed: u32) -> Sketch {
    let spec = SketchSpec::dense("fuzz", "v1", [("a", 3), ("b", 20)]);
    Sketch::dense(spec, (0..23).map(|d| ((seed * 7 + d) % 31) as f32 - 15.0).collect()).unwrap()
}

fn read(folder: &Path, below: &str, files: &mut Files) {
    for entry in fs::read_dir(folder.join(below)).unwrap().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(folder, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

fn bench() -> Bench {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("sound.gradix");
    let schema = Schema::with_encodings(sketch(0).spec().clone(), vec![Encoding::F32, Encoding::I8]).unwrap();
    let index = Index::create(&path, &schema.with_tiers([Tier::I8]).unwrap()).unwrap();
    let mut files = Files::new();
    let mut writer = index.writer().unwrap();
    for commit in 0..2u32 {
        for i in 0..4 {
            let sketch = sketch(commit * 4 + i);
            let row = Row::new(&sketch).span(Span::tokens(i, i + 2)).source("wiki").metadata(b"metadata");
            writer.append_rows(format!("{commit}-{i}"), &[row, row]).unwrap();
        }
        if commit == 1 {
            writer.delete("0-1").unwrap();
        }
        writer.prepare_commit().unwrap().payload("payload").commit().unwrap();
        if commit == 0 {
            // Opened again, the database has tables.
            drop(writer);
            writer = index.writer().unwrap();
        }
    }
    read(&path, "", &mut files);
    files.retain(|name, _| !name.contains("LOG"));
    let snapshot = index.snapshot().unwrap();
    let examples = snapshot.ids().map(|id| snapshot.get(id.unwrap()).unwrap().unwrap()).collect();
    Bench { folder, files, examples }
}

fn edit(files: &mut Files, sound: &Files, mut edits: &[u8]) {
    while let Some((&[which, low, high, kind], rest)) = edits.split_first_chunk::<4>() {
        edits = rest;
        let nth = |which: u8| sound.keys().nth(usize::from(which) % sound.len()).unwrap();
        let name = nth(which);
        let place = usize::from(u16::from_le_bytes([low, high]));
        let Some(bytes) = files.get_mut(name) else { continue };
        // Places count from the end in every other case: what matters is often there.
        let at = match bytes.len() {
            0 => 0,
            length if place % 2 == 0 => place / 2 * (length / 32_768 + 1) % length,
            length => length - 1 - place / 2 % length,
        };
        match kind {
            255 => bytes.truncate(at),
            254 => {
                let (more, rest) = edits.split_at(edits.len().min(place % 40));
                bytes.extend(more);
                edits = rest;
            }
            253 => drop(files.remove(name)),
            252 => *bytes = sound[nth(low)].clone(),
            length => {
                let new = &edits[..edits.len().min(usize::from(length % 32)).min(bytes.len() - at)];
                bytes[at..at + new.len()].copy_from_slice(new);
                edits = &edits[new.len()..];
            }
        }
    }
}

/// Makes the checksums of gradix's own files right, as far as their lengths allow.
fn mend(files: &mut Files, sound: &Files) {
    for (name, bytes) in files {
        if name == "COMMITTED" && bytes.len() == 20 {
            let crc = crc32fast::hash(&bytes[..16]).to_le_bytes();
            bytes[16..].copy_from_slice(&crc);
        } else if name == "INDEX" && bytes.len() >= 64 {
            let body = crc32fast::hash(&bytes[64..]).to_le_bytes();
            bytes[56..60].copy_from_slice(&body);
            let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
            bytes[60..64].copy_from_slice(&crc);
        } else if name.ends_with(".seg") {
            mend_segment(bytes, &sound[name]);
        }
    }
}

/// Reads everything. With `examples`, what is read must be these.
fn read_all(index: &Index, examples: Option<&[Example]>) {
    if let Ok(snapshot) = index.snapshot() {
        for id in (0..2).flat_map(|commit| (0..4).map(move |i| format!("{commit}-{i}"))) {
            if let (Ok(found), Some(examples)) = (snapshot.get(&id), examples) {
                let expected = examples.iter().find(|example| example.id == id.as_bytes());
                assert_eq!(found.as_ref(), expected, "{id}");
            }
        }
        let rows: Result<Vec<_>, _> = snapshot.iter().with_sketches().collect();
        if let (Ok(rows), Some(examples)) = (rows, examples) {
            assert_eq!(rows.len(), examples.iter().map(|example| example.rows.len()).sum::<usize>());
        }
        let queries = [sketch(2)];
        let _ = snapshot.scan(&queries).and_then(|scan| scan.top_k(3).threads(1).metadata(true).run());
        let _ = (snapshot.listing(), snapshot.stats(), snapshot.sources(), snapshot.payload());
    }
    let _ = index.verify();
}

fuzz_target!(|input: &[u8]| {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(bench);
    let Some((&flags, edits)) = input.split_first() else { return };
    let mut files = bench.files.clone();
    edit(&mut files, &bench.files, edits);
    let repaired = flags % 2 == 0;
    if repaired {
        mend(&mut files, &bench.files);
    }
    let path = bench.folder.path().join("case.gradix");
    let _ = fs::remove_dir_all(&path);
    for folder in ["manifest", "segments"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    for (name, bytes) in &files {
        fs::write(path.join(name), bytes).unwrap();
    }
    let Ok(index) = Index::open(&path) else { return };
    // With repaired checksums, other contents are as good as any.
    let examples = (!repaired).then_some(&bench.examples[..]);
    read_all(&index, examples);
    if flags & 2 == 0 {
        return;
    }
    let Ok(mut writer) = index.writer() else { return };
    let _ = writer.append("new", &sketch(9));
    let _ = writer.delete("1-3");
    if let Ok(commit) = writer.commit() {
        let snapshot = index.snapshot();
        assert!(snapshot.is_err() || snapshot.is_ok_and(|it| it.generation() == commit.generation));
        let _ = writer.compact(CompactOptions::all());
        let _ = writer.gc(GcOptions::default().grace(Duration::ZERO));
    }
    drop(writer);
    if let Ok(index) = Index::open(&path) {
        read_all(&index, None);
    }
});
