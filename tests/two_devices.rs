//! `examples/two_devices.rs` as a test: an index of two processes is that of one.

use std::path::Path;
use std::process::{Command, Stdio};

use gradix::Index;

#[path = "../examples/two_devices.rs"]
#[allow(dead_code, reason = "the program's `main` is not called")]
mod example;

const HALF: &str = "GRADIX_TEST_TWO_DEVICES_HALF";
const DESCRIPTION: &str = "GRADIX_TEST_TWO_DEVICES_INDEX";
const PARTS: &str = "GRADIX_TEST_TWO_DEVICES_PARTS";

/// Not a test by itself: the process of one half.
#[test]
fn child() {
    let Ok(half) = std::env::var(HALF) else { return };
    let path = |name| std::env::var_os(name).unwrap();
    example::collect_half(half.parse().unwrap(), path(DESCRIPTION).as_ref(), path(PARTS).as_ref()).unwrap();
}

fn process(half: usize, description: &Path, parts: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", "--exact"]).env(HALF, half.to_string()).env(DESCRIPTION, description);
    command.env(PARTS, parts).stdout(Stdio::null());
    Ok(command)
}

/// All rows with the bits of their values, by id.
fn rows(index: &Index) -> Vec<(Vec<u8>, Vec<u8>, Vec<u32>)> {
    let snapshot = index.snapshot().unwrap();
    let rows = snapshot.iter().with_sketches().map(|row| {
        let row = row.unwrap();
        let bits = row.sketch.unwrap().values().iter().map(|value| value.to_bits()).collect();
        (row.id, row.metadata, bits)
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

/// Would catch a half that is missing or collected twice, rows that depend on the process, and an attached index that
/// answers otherwise.
#[test]
fn two_processes_make_the_index_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let together = example::collect_in_processes(folder.path(), process).unwrap();
    let alone = example::collect_alone(&folder.path().join("alone.gradix")).unwrap();
    let rows = [rows(&together), rows(&alone)];
    assert_eq!(rows[0].len(), 96);
    assert!(rows[0] == rows[1]);
    assert_eq!(together.snapshot().unwrap().generation(), 1);
    assert!(together.verify().unwrap().findings.is_empty());
    let said = "my neighbour has lost an island in the north";
    assert_eq!(example::ask(&together, said).unwrap(), example::ask(&alone, said).unwrap());
}

/// Would catch an index that is published although one of the processes has failed.
#[test]
fn failed_process_is_named_and_nothing_is_attached() {
    let folder = tempfile::tempdir().unwrap();
    let failing = |half: usize, description: &Path, parts: &Path| {
        let nowhere = folder.path().join("nowhere");
        let mut command = process(half, if half == 1 { &nowhere } else { description }, parts)?;
        command.stderr(Stdio::null());
        Ok(command)
    };
    let error = example::collect_in_processes(folder.path(), failing).unwrap_err().to_string();
    assert!(error.starts_with("the process of half 1 ended with"), "{error}");
    let index = Index::open(folder.path().join("index.gradix")).unwrap();
    assert_eq!(index.snapshot().unwrap().rows(), 0);
}
