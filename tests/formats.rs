//! Files of vectors: what numpy, pyarrow and safetensors write is read to the bit, and what is written is read by them to
//! the bit; what is damaged, cut off or not what it says is an error.
#![cfg(feature = "formats")]

use std::path::{Path, PathBuf};
use std::process::Command;

use gradix::Span;
use gradix::formats::{self, Batch, FormatError, IdSource, Number, ReadOptions, RowSource};
use serde_json::Value;

/// The interpreter with numpy, pyarrow and safetensors. `make test` sets `GRADIX_PYTHON_TABLES`; without it, a `python3`
/// that lacks them skips these tests, and says so.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("GRADIX_PYTHON_TABLES") {
        return Some(python.into());
    }
    let probe = Command::new("python3").args(["-c", "import numpy, pyarrow, safetensors"]).output();
    if probe.is_ok_and(|probe| probe.status.success()) {
        return Some("python3".into());
    }
    eprintln!("SKIPPED: no python3 with numpy, pyarrow and safetensors; `make test` sets one up");
    None
}

fn peers(python: &Path, what: &str, folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/peers.py");
    let done = Command::new(python).arg("-B").arg(script).arg(what).arg(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The values that peers.py wrote as bytes.
fn values(path: &Path) -> Vec<u32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// All rows that are left, read `rows` at a time.
fn read_all(source: &mut dyn RowSource, rows: usize) -> Result<Batch, FormatError> {
    let (mut all, mut batch) = (Batch::default(), Batch::default());
    loop {
        source.read(rows, &mut batch)?;
        if batch.rows == 0 {
            assert!(batch.values.is_empty());
            return Ok(all);
        }
        assert!(batch.rows <= rows);
        all.rows += batch.rows;
        all.values.append(&mut batch.values);
        all.ids.append(&mut batch.ids);
        all.spans.append(&mut batch.spans);
        all.sources.append(&mut batch.sources);
        all.metadata.append(&mut batch.metadata);
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn options(case: &Value) -> ReadOptions {
    let mut options = ReadOptions::default();
    for (key, value) in case["options"].as_object().unwrap() {
        let text = || value.as_str().unwrap().to_owned();
        options = match key.as_str() {
            "pattern" => options.ids(IdSource::Pattern(text())),
            "id_column" => options.id_column(text()),
            "source_column" => options.source_column(text()),
            "metadata_columns" => options.metadata_columns(texts(value)),
            "blocks" => options.blocks(texts(value)),
            "number" => options.number(number(&text())),
            other => panic!("{other}"),
        };
    }
    options
}

fn number(name: &str) -> Number {
    [Number::F16, Number::Bf16, Number::F32, Number::F64]
        .into_iter()
        .find(|number| number.name() == name)
        .unwrap()
}

/// What a case says of the rows from `from` on.
fn expected(folder: &Path, case: &Value, from: usize) -> (Vec<u32>, Batch) {
    let rows = case["rows"].as_u64().unwrap() as usize;
    let mut values = values(&folder.join(case["values"].as_str().unwrap()));
    let values = values.split_off(from * (values.len() / rows.max(1)));
    let list = |key: &str| case[key].as_array().into_iter().flatten().skip(from).cloned().collect::<Vec<_>>();
    let mut batch = Batch::default();
    batch.rows = rows - from;
    batch.ids = list("ids").iter().map(|id| id.as_str().unwrap().as_bytes().to_vec()).collect();
    batch.sources = list("sources").iter().map(|source| source.as_str().map(str::to_owned)).collect();
    batch.spans = list("spans")
        .iter()
        .map(|span| {
            let token = |at: usize| span[at].as_u64().unwrap() as u32;
            if span.is_null() { Span::WHOLE } else { Span::tokens(token(0), token(1)) }
        })
        .collect();
    batch.metadata = list("metadata")
        .iter()
        .map(|bytes| bytes.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect())
        .collect();
    (values, batch)
}

/// Catches a type, an order of bytes, a compression, a list, a dictionary, a null or a slice that is read otherwise than its
/// own library meant it, a batch or a skip that loses rows, and ids that are not those of the rows.
#[test]
fn files_of_peers_are_read_bit_for_bit() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    peers(&python, "make", folder);
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 60);
    for case in &cases {
        let file = case["file"].as_str().unwrap();
        let open = || {
            formats::open(folder.join(file), &options(case)).unwrap_or_else(|error| panic!("{file}: {error}"))
        };
        let rows = case["rows"].as_u64().unwrap();
        for (skipped, at_once) in [(0, 1), (0, 5), (0, 1000), (4, 6), (rows, 3)] {
            let skipped = skipped.min(rows);
            let mut source = open();
            let blocks = source.spec().blocks().iter();
            let blocks: Vec<Value> =
                blocks.map(|block| serde_json::json!([block.name, block.dims])).collect();
            assert_eq!(Value::from(blocks), case["blocks"], "{file}");
            assert_eq!(
                (source.number(), source.rows()),
                (number(case["number"].as_str().unwrap()), Some(rows)),
                "{file}"
            );
            source.skip(skipped).unwrap();
            let mut read =
                read_all(source.as_mut(), at_once).unwrap_or_else(|error| panic!("{file}: {error}"));
            let (values, expected) = expected(folder, case, skipped as usize);
            assert_eq!(bits(&std::mem::take(&mut read.values)), values, "{file}, {skipped} skipped");
            assert_eq!(read, expected, "{file}, {skipped} skipped");
        }
        let mut source = open();
        source.skip(rows.min(2)).unwrap();
        assert!(source.skip(rows).is_err() || rows == 0, "{file}");
    }
}
