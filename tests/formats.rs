//! Files of vectors: what numpy, pyarrow and safetensors write is read to the bit, and what is written is read by them to
//! the bit; what is damaged, cut off or not what it says is an error.

mod fixtures;

use std::path::{Path, PathBuf};
use std::process::Command;

use fixtures::vectors::{bits, read_all, rows_of, writable, write};
use gradix::Span;
use gradix::formats::{self, Batch, FileFormat, IdSource, Number, ReadOptions};
use gradix::sketch::SketchSpec;
use proptest::prelude::*;
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

/// The values that peers.py wrote as bytes.
fn values(path: &Path) -> Vec<u32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
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

/// Catches a page whose snippet makes files that are not read as it says.
#[test]
fn snippet_of_the_page_runs() {
    let Some(python) = python() else { return };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
    let page = std::fs::read_to_string(page).unwrap();
    let code = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(python).args(["-c", code]).current_dir(folder.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let read = ["gradients.npz", "gradients.parquet"].map(|file| {
        let mut source = formats::open(folder.path().join(file), &ReadOptions::default()).unwrap();
        assert_eq!((source.spec().blocks()[0].name.as_str(), source.number()), ("layers.0", Number::F16));
        read_all(source.as_mut(), 1000).unwrap()
    });
    assert_eq!((read[0].rows, &read[0].ids[999][..]), (1000, &b"example-999"[..]));
    assert_eq!((bits(&read[0].values), &read[0].ids), (bits(&read[1].values), &read[1].ids));
}

/// Catches a null, a list of another length or a type that becomes a row of some numbers, and an error that does not say which.
#[test]
fn files_of_peers_that_cannot_be_rows_are_refused() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    peers(&python, "wrong", folder);
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 20);
    for case in &cases {
        let path = folder.join(case["file"].as_str().unwrap());
        let read = formats::open(&path, &options(case)).and_then(|mut rows| read_all(rows.as_mut(), 4));
        let error = read.expect_err(&format!("{path:?} was read")).to_string();
        let parts = texts(&case["error"]);
        assert!(parts.iter().all(|part| error.contains(part)), "{error:?} does not say {parts:?}");
        assert!(error.contains(path.to_str().unwrap()), "{error:?} does not name the file");
    }
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

/// What proptest makes rows of: dims of each block, and rows.
fn shapes() -> impl Strategy<Value = (Vec<u32>, usize, usize)> {
    (prop::collection::vec(1u32..40, 1..5), 0usize..60, 1usize..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Catches a shape, an id or a label that a format does not bring back: any bytes, long ones, empty ones, rows at the edges of
    /// what is written and read at once.
    #[test]
    fn any_rows_come_back(
        (dims, rows, at_once) in shapes(),
        seeds in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), any::<u32>(), "[a-zü]{0,3}"), 60),
        bits in prop::collection::vec(any::<u32>(), 200),
    ) {
        let blocks = dims.iter().enumerate().map(|(i, &dims)| (format!("b{}", 9 - i), dims));
        let spec = SketchSpec::dense("any", "1", blocks);
        let mut batch = Batch::default();
        batch.rows = rows;
        let finite = |i: usize| Some(f32::from_bits(bits[i % 200])).filter(|value| value.is_finite()).unwrap_or(0.5);
        batch.values = (0..rows * spec.dims()).map(finite).collect();
        for (id, number, source) in &seeds[..rows] {
            batch.ids.push([id.as_slice(), b"."].concat());
            batch.spans.push(if number % 3 == 0 { Span::WHOLE } else { Span::tokens(number / 2, *number) });
            batch.sources.push(Some(source.clone()).filter(|source| !source.is_empty()));
            batch.metadata.push(id.clone());
        }
        let folder = tempfile::tempdir().unwrap();
        for format in [FileFormat::Safetensors, FileFormat::Npz, FileFormat::Arrow, FileFormat::Parquet] {
            let path = folder.path().join(format!("x.{format}"));
            write(&path, format, &spec, Number::F32, &batch, at_once);
            let mut source = formats::open(&path, &ReadOptions::default()).unwrap();
            let read = read_all(source.as_mut(), 60 - at_once).unwrap();
            prop_assert_eq!(fixtures::vectors::bits(&read.values), fixtures::vectors::bits(&batch.values));
            prop_assert_eq!(&read.ids, &batch.ids);
            for row in 0..rows {
                prop_assert_eq!(read.spans.get(row).copied().unwrap_or(Span::WHOLE), batch.spans[row]);
                prop_assert_eq!(read.sources.get(row).cloned().flatten(), batch.sources[row].clone());
                prop_assert_eq!(read.metadata.get(row).cloned().unwrap_or_default(), batch.metadata[row].clone());
            }
        }
    }
}
