//! Files of vectors: what numpy, pyarrow and safetensors write is read to the bit, and what is written is read by them to
//! the bit; what is damaged, cut off or not what it says is an error.
#![cfg(feature = "formats")]

use std::path::{Path, PathBuf};
use std::process::Command;

use gradix::Span;
use gradix::formats::{self, Batch, FileFormat, FormatError, IdSource, Number, ReadOptions, RowSource};
use gradix::sketch::SketchSpec;
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

/// Rows with all that can be said of them; values that are exact in every type.
fn rows_of(spec: &SketchSpec, rows: usize, says_all: bool) -> Batch {
    let mut batch = Batch::default();
    batch.rows = rows;
    let value = |i: usize| ((i * 7919 % 255) as f32 - 127.0) * 2f32.powi((i % 5) as i32 - 4);
    batch.values = (0..rows * spec.dims()).map(value).collect();
    batch.ids = (0..rows).map(|row| format!("example {row} ü").into_bytes()).collect();
    if says_all {
        let span = |row: u32| if row.is_multiple_of(3) { Span::WHOLE } else { Span::tokens(row, row + 2) };
        batch.spans = (0..rows as u32).map(span).collect();
        let sources = [Some("wiki".to_owned()), None, Some("books ü".to_owned())];
        batch.sources = (0..rows).map(|row| sources[row % 3].clone()).collect();
        batch.metadata = (0..rows).map(|row| vec![row as u8; row % 4]).collect();
    }
    batch
}

/// The rows `from..from + rows` of a batch.
fn part(of: &Batch, from: usize, rows: usize) -> Batch {
    let dims = of.values.len() / of.rows;
    let range = from..from + rows;
    let mut batch = Batch::default();
    batch.rows = rows;
    batch.values = of.values[from * dims..(from + rows) * dims].to_vec();
    batch.ids = of.ids.get(range.clone()).unwrap_or_default().to_vec();
    batch.spans = of.spans.get(range.clone()).unwrap_or_default().to_vec();
    batch.sources = of.sources.get(range.clone()).unwrap_or_default().to_vec();
    batch.metadata = of.metadata.get(range).unwrap_or_default().to_vec();
    batch
}

fn write(path: &Path, format: FileFormat, spec: &SketchSpec, number: Number, batch: &Batch, at_once: usize) {
    let mut file = formats::create(path, format, spec, number).unwrap();
    for from in (0..batch.rows).step_by(at_once) {
        file.write(&part(batch, from, at_once.min(batch.rows - from))).unwrap();
        assert!(!path.exists(), "{path:?} has its name before it is finished");
    }
    file.finish().unwrap();
}

fn numbers(format: FileFormat) -> &'static [Number] {
    match format {
        FileFormat::Safetensors => &[Number::F16, Number::Bf16, Number::F32, Number::F64],
        FileFormat::Npy | FileFormat::Npz => &[Number::F16, Number::F32, Number::F64],
        _ => &[Number::F16, Number::F32],
    }
}

/// Every format, type of number and shape that is written: one block and several, with labels and without.
fn writable() -> Vec<(FileFormat, Number, SketchSpec, bool)> {
    let one = SketchSpec::dense("made", "elsewhere", [("all", 7)]);
    let several = SketchSpec::dense("made", "elsewhere", [("layers.1", 5), ("layers.0", 1), ("head", 16)]);
    let mut all = Vec::new();
    for format in FileFormat::ALL {
        for &number in numbers(format) {
            for spec in [&one, &several] {
                all.push((format, number, spec.clone(), false));
                if format != FileFormat::Npy {
                    all.push((format, number, spec.clone(), true));
                }
            }
        }
    }
    all
}

/// Catches a file that its own library reads otherwise than it was meant, or not at all.
#[test]
fn peers_read_what_is_written() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut written = Vec::new();
    for (i, (format, number, spec, says_all)) in writable().into_iter().enumerate() {
        if format == FileFormat::Safetensors && number == Number::F64 {
            continue;
        }
        let rows = [29, 1, 0][i % 3];
        let batch = if rows == 0 { Batch::default() } else { rows_of(&spec, rows, says_all) };
        let (file, values) = (format!("{i}.{format}"), format!("{i}.values"));
        write(&folder.join(&file), format, &spec, number, &batch, 8);
        std::fs::write(
            folder.join(&values),
            batch.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(),
        )
        .unwrap();
        let blocks: Vec<Value> =
            spec.blocks().iter().map(|block| serde_json::json!([block.name, block.dims])).collect();
        let spans = batch.spans.iter().map(|span| {
            if span.is_whole() { Value::Null } else { serde_json::json!([span.start, span.end]) }
        });
        let sources = || (0..rows).map(|row| batch.sources.get(row).cloned().flatten()).collect::<Vec<_>>();
        written.push(serde_json::json!({
            "file": file,
            "values": values,
            "rows": rows,
            "blocks": blocks,
            "ids": batch.ids.iter().map(|id| String::from_utf8_lossy(id)).collect::<Vec<_>>(),
            "sources": sources(),
            "spans": if says_all { spans.collect() } else { vec![Value::Null; rows] },
            "metadata": if says_all { batch.metadata.clone() } else { vec![Vec::new(); rows] },
            "says_all": says_all && rows > 1,
        }));
    }
    std::fs::write(folder.join("written.json"), serde_json::to_vec(&written).unwrap()).unwrap();
    peers(&python, "check", folder);
}

/// Catches a format that loses bits, a label or the spec on the way out and in again.
#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for (format, number, spec, says_all) in writable() {
        for (rows, at_once) in [(1, 1), (50, 7), (50, 50)] {
            let batch = rows_of(&spec, rows, says_all);
            let path = folder.path().join(format!("{rows}-{at_once}.{format}"));
            let _ = std::fs::remove_file(&path);
            write(&path, format, &spec, number, &batch, at_once);
            let mut source = formats::open(&path, &ReadOptions::default()).unwrap();
            let what = format!("{format} of {}, {rows} rows", number.name());
            assert_eq!((source.number(), source.rows()), (number, Some(rows as u64)), "{what}");
            match format {
                FileFormat::Npy => assert_eq!(source.spec().dims(), spec.dims()),
                FileFormat::Npz => assert_eq!(source.spec().blocks(), spec.blocks()),
                _ => assert_eq!(source.spec(), &spec),
            }
            let mut read = read_all(source.as_mut(), 13).unwrap();
            assert_eq!(bits(&read.values), bits(&batch.values), "{what}");
            read.values.clone_from(&batch.values);
            // What no row has need not be written.
            let whole = read.spans.iter().all(Span::is_whole) && batch.spans.iter().all(Span::is_whole);
            if whole {
                read.spans.clone_from(&batch.spans);
            }
            if read.sources.iter().chain(&batch.sources).all(Option::is_none) {
                read.sources.clone_from(&batch.sources);
            }
            if read.metadata.iter().chain(&batch.metadata).all(Vec::is_empty) {
                read.metadata.clone_from(&batch.metadata);
            }
            assert_eq!(read, batch, "{what}");
        }
    }
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let unfinished: Vec<_> = left.filter(|name| name.to_string_lossy().contains("unfinished")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}
