//! Files of `torch.save`, of an old and a new torch: two-dimensional ones through LESS's reader, others through
//! RapidIn's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gradix::formats::Number;
use gradix::formats::stores::{Store, StoreOptions, open_store};
use serde::Deserialize;

use super::{fixture, json, read, refused};

const VERSIONS: [&str; 2] = ["torch-1.13", "torch-2.15"];

#[derive(Deserialize)]
struct Saved {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Catches numbers of a type, strides or an offset that are misread, in what either version writes.
#[test]
fn tensors_are_read_as_torch_reads_them() {
    for version in VERSIONS {
        let tensors: BTreeMap<String, Saved> = json(&format!("{version}/expected.json"));
        assert_eq!(tensors.len(), 10);
        for (name, expected) in tensors {
            let file = fixture(version).join(format!("{name}.pt"));
            if let [rows, dims] = expected.shape[..] {
                let found = read(Store::Less, &file, &StoreOptions::default()).unwrap();
                assert_eq!((found.batch.rows, found.spec.dims()), (rows, dims), "{version}: {name}");
                assert_eq!(found.batch.values, expected.values, "{version}: {name}");
            }
            let folder = tempfile::tempdir().unwrap();
            for example in ["00000000", "00000001"] {
                fs::copy(&file, folder.path().join(format!("train_grad_{example}.pt"))).unwrap();
            }
            let found = read(Store::RapidIn, folder.path(), &StoreOptions::default()).unwrap();
            assert_eq!(found.batch.values, expected.values.repeat(2), "{version}: {name}");
        }
        for (name, number) in
            [("f16", Number::F16), ("bf16", Number::Bf16), ("f32", Number::F32), ("f64", Number::F64)]
        {
            let file = fixture(version).join(format!("{name}.pt"));
            let source = open_store(Store::Less, file, &StoreOptions::default()).unwrap();
            assert_eq!(source.number(), number);
        }
    }
}

/// Catches something else than a tensor of numbers that becomes rows, and an error that does not say what it is.
#[test]
fn other_files_of_torch_are_refused() {
    for version in VERSIONS {
        for (name, reason) in [
            ("integers", "it imports torch.LongStorage"),
            ("expanded", "more numbers than the 1 of its storage"),
            ("dictionary", "a dictionary of 1, where a tensor is expected"),
            ("list", "a list of 2, where a tensor is expected"),
            ("before-1.6", "a file as torch wrote it before 1.6"),
            ("protocol-4", "protocol 4"),
            ("three-dimensions", "a tensor of shape [3, 2, 4], where rows of vectors are expected"),
        ] {
            let file = fixture(version).join(format!("{name}.pt"));
            let told = refused(Store::Less, &file, &StoreOptions::default());
            assert!(
                told.contains(reason) && told.contains(name),
                "{version}: {told}, where {reason} is expected"
            );
        }
    }
}

/// Catches checksums that are asked for where torch was told to leave them out.
#[test]
fn checksums_may_be_left_out() {
    let expected: BTreeMap<String, Saved> = json("torch-2.15/expected.json");
    let file = fixture("torch-2.15/no-checksums.pt");
    let found = read(Store::Less, &file, &StoreOptions::default()).unwrap();
    assert_eq!(found.batch.values, expected["f32"].values);
}

/// Catches a file that is cut off or damaged at any byte and gives other rows, or a panic.
#[test]
fn damaged_tensors_are_refused() {
    let whole = fs::read(fixture("torch-1.13/f16.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    let rows = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        all_values(&path)
    };
    let expected = rows(&whole).unwrap();
    for length in 0..whole.len() {
        assert_eq!(rows(&whole[..length]), None, "cut off after {length}");
    }
    let mut changed = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        // Names, times and padding have no checksum.
        if let Some(found) = rows(&bytes) {
            changed += usize::from(found != expected);
        }
    }
    assert_eq!(changed, 0);
}

fn all_values(path: &Path) -> Option<Vec<f32>> {
    let mut source = open_store(Store::Less, path, &StoreOptions::default()).ok()?;
    super::drain(&mut *source, 2).ok().map(|batch| batch.values)
}
