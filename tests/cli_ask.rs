//! The program's commands that read and maintain an index: what they print, as text and as JSON, and how they end.

mod fixtures;

use std::path::Path;

use fixtures::program::{gradix, json, ok, words};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Row, Schema, Span};
use tempfile::TempDir;

/// An index `x.gradix` of five examples and six rows in three commits, a deleted one counted; and vectors in `queries.npy`.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let spec = SketchSpec::dense("cli", "v1", [("a", 3), ("b", 2)]);
    let sketch = |values: [f32; 5]| Sketch::dense(spec.clone(), values.to_vec()).unwrap();
    let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
    let index = Index::create(folder.path().join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let append = |writer: &mut gradix::Writer, id: &[u8], values, source| {
        writer.append_rows(id, &[Row::new(&sketch(values)).source(source)]).unwrap();
    };
    append(&mut writer, b"sea", [3.0, -1.0, 2.0, 0.0, 0.0], "wiki");
    append(&mut writer, b"land", [-2.0, 0.5, 1.0, 0.0, 1.0], "news");
    writer.prepare_commit().unwrap().payload("first").commit().unwrap();
    let halves = [sketch([1.0, 0.0, 0.0, 2.0, 0.0]), sketch([0.0, 1.0, 0.0, 0.0, 3.0])];
    let rows = [
        Row::new(&halves[0]).span(Span::tokens(0, 4)).source("wiki").metadata(b"first half"),
        Row::new(&halves[1]).span(Span::tokens(4, 9)),
    ];
    writer.append_rows("page 7", &rows).unwrap();
    append(&mut writer, b"gone", [9.0, 9.0, 9.0, 9.0, 9.0], "news");
    writer.commit().unwrap();
    append(&mut writer, b"\xff\n", [0.0, 0.0, 1.0, 0.0, 0.0], "wiki");
    writer.delete("gone").unwrap();
    writer.commit().unwrap();
    write_npy(&folder.path().join("queries.npy"), &[[1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]]);
    write_npy(&folder.path().join("one.npy"), &[[0.0, 1.0, 0.0, 0.0, 0.0]]);
    folder
}

/// An array of numpy.
fn write_npy(path: &Path, rows: &[[f32; 5]]) {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 5), }}", rows.len());
    file.extend(118u16.to_le_bytes());
    file.extend(format!("{header:<117}\n").bytes());
    file.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, file).unwrap();
}

#[test]
fn look() {
    let folder = sample();
    for line in std::fs::read_to_string("/work/scratch/cliask/lines").unwrap().lines() {
        let run = gradix(folder.path(), line);
        println!("$ gradix {line}\n{}{}[{:?}]", run.stdout, run.stderr, run.code);
    }
    let _ = (json, ok, words);
}
