//! `gradix delete`, `gradix export`, and how much memory an append and an export take.

mod fixtures;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use fixtures::appends::{done, fails, generation, listing, npy, program};
use gradix::Index;
use serde_json::Value;

fn index_of(folder: &Path, rows: usize) {
    npy(folder.join("a.npy"), 0, rows, 16);
    npy(folder.join("b.npy"), rows, rows, 16);
    let append = |input, source| {
        done(
            folder,
            &[
                "append",
                "i",
                input,
                "--create",
                "--encoding",
                "f32",
                "--ids",
                "{stem}/{row}",
                "--source",
                source,
            ],
        );
    };
    append("a.npy", "news");
    append("b.npy", "wiki");
}

fn ids(index: &Path) -> Vec<String> {
    listing(index).iter().map(|row| row.split(' ').next().unwrap().to_owned()).collect()
}

/// Catches a delete that takes others than it was told, is not one commit, or passes over what is not there in silence.
#[test]
fn delete_takes_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    index_of(folder, 6);
    let index = folder.join("i");
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&done(folder, &[&["delete", "i", "--json"], args].concat())).unwrap()
    };
    let told = json(&["a/1", "--prefix", "b/", "--dry-run"]);
    assert_eq!((&told["rows"], &told["examples"], generation(&index)), (&7.into(), &7.into(), 2));
    let told = json(&["a/1", "a/3"]);
    assert_eq!((&told["rows"], &told["generation"]), (&2.into(), &3.into()));
    assert!(fails(folder, &["delete", "i", "a/0", "a/1"], 4).contains("a/1"));
    assert_eq!(generation(&index), 3);
    let told = json(&["a/0", "a/1", "--missing-ok"]);
    assert_eq!((&told["rows"], &told["missing"]), (&1.into(), &serde_json::json!(["a/1"])));
    fs::write(folder.join("list"), "b/0\n\nb/5\n").unwrap();
    json(&["--ids-from", "list"]);
    let mut child =
        program(folder, &["delete", "i", "--ids-from", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"b/2\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ids(&index), ["a/2", "a/4", "a/5", "b/1", "b/3", "b/4"]);
    json(&["--source", "wiki"]);
    assert_eq!(ids(&index), ["a/2", "a/4", "a/5"]);
    let before = generation(&index);
    assert_eq!(json(&["--prefix", "nothing"])["rows"], 0);
    assert_eq!(generation(&index), before, "there was nothing to commit");
    fails(folder, &["delete", "i"], 2);
    fails(folder, &["delete", "nothing", "x"], 4);
}

/// Catches metadata that is not that of the rows, and an export that overwrites a file or leaves half of one.
#[test]
fn metadata_is_exported_as_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    index_of(folder, 5);
    let told: Value = serde_json::from_str(&done(
        folder,
        &["export", "i", "m.parquet", "--metadata-only", "--source", "wiki", "--json"],
    ))
    .unwrap();
    assert_eq!(told["rows"], 5);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(
        fs::File::open(folder.join("m.parquet")).unwrap(),
        100,
    );
    let batch = reader.unwrap().next().unwrap().unwrap();
    let snapshot = Index::open(folder.join("i")).unwrap().snapshot().unwrap();
    let expected: Vec<_> =
        snapshot.iter().map(Result::unwrap).filter(|row| row.source.as_deref() == Some("wiki")).collect();
    let ids = batch.column_by_name("id").unwrap();
    let ids = ids.as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
    let norms = batch.column_by_name("norm.all").unwrap();
    let norms = norms.as_any().downcast_ref::<arrow_array::Float64Array>().unwrap();
    assert_eq!(batch.num_rows(), expected.len());
    for (row, stored) in expected.iter().enumerate() {
        assert_eq!(
            (ids.value(row).as_bytes(), norms.value(row)),
            (&stored.id[..], f64::from(stored.norms[0]))
        );
    }
    assert!(fails(folder, &["export", "i", "m.parquet", "--metadata-only"], 5).contains("--force"));
    done(folder, &["export", "i", "m.parquet", "--metadata-only", "--force"]);
    fails(folder, &["export", "i", "x.parquet", "--metadata-only", "--id", "c/1"], 4);
    assert!(!folder.join("x.parquet").exists());
}
