//! Files of vectors that are damaged, cut off or not what they say: an error that names the file, and no memory for what is
//! not there.

mod fixtures;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field};
use fixtures::vectors::{bits, read_all, rows_of, write};
use gradix::Index;
use gradix::Row;
use gradix::formats::{self, Batch, FileFormat, FormatError, IdSource, Number, ReadOptions};
use gradix::sketch::SketchSpec;
use gradix::{Encoding, Schema};

fn specs() -> [SketchSpec; 2] {
    [SketchSpec::dense("x", "", [("all", 8)]), SketchSpec::dense("x", "", [("b", 3), ("a", 5)])]
}

fn read(path: &Path, options: &ReadOptions) -> Result<Batch, FormatError> {
    formats::open(path, options).and_then(|mut source| read_all(source.as_mut(), 7))
}

fn pattern() -> ReadOptions {
    ReadOptions::default().ids(IdSource::Pattern("{row}".into()))
}

/// Catches a file that lost its end and is taken for a shorter one.
#[test]
fn files_cut_off_anywhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut");
    for format in FileFormat::ALL {
        for spec in specs() {
            let whole = folder.path().join(format!("whole.{format}"));
            write(&whole, format, &spec, Number::F32, &rows_of(&spec, 30, format != FileFormat::Npy), 11);
            let bytes = std::fs::read(&whole).unwrap();
            let options = pattern().format(format);
            std::fs::write(&cut, &bytes).unwrap();
            assert_eq!(read(&cut, &options).unwrap().rows, 30, "{format}");
            for length in (0..bytes.len()).step_by(bytes.len() / 150 + 1).chain(bytes.len() - 20..bytes.len())
            {
                std::fs::write(&cut, &bytes[..length]).unwrap();
                let error =
                    read(&cut, &options).expect_err(&format!("{format} cut off at {length} was read"));
                assert!(matches!(error, FormatError::Malformed { .. }), "{format} at {length}: {error:?}");
            }
        }
    }
}

/// Catches damage that ends the process: a panic, or memory for lengths that a file only says it has.
#[test]
fn damaged_bytes_are_an_error_or_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged");
    for format in FileFormat::ALL {
        let spec = &specs()[1];
        let whole = folder.path().join(format!("whole.{format}"));
        write(&whole, format, spec, Number::F16, &rows_of(spec, 20, format != FileFormat::Npy), 11);
        let sound = std::fs::read(&whole).unwrap();
        for at in (0..sound.len()).step_by(sound.len() / 150 + 1) {
            for bad in [sound[at] ^ 1, sound[at] ^ 0x80, 0xff, 0x7f] {
                let mut bytes = sound.clone();
                bytes[at] = bad;
                std::fs::write(&damaged, &bytes).unwrap();
                let options = ReadOptions::default().format(format).optional_ids();
                let Ok(mut source) = formats::open(&damaged, &options) else { continue };
                let dims = source.spec().dims();
                let mut batch = Batch::default();
                for _ in 0..30 {
                    if source.read(3, &mut batch).is_err() {
                        break;
                    }
                    assert_eq!(batch.values.len(), batch.rows * dims);
                }
            }
        }
    }
}

/// Catches a checksum of an archive that is not compared, stored or deflated.
#[test]
fn damaged_values_of_an_archive_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let spec = &specs()[0];
    let mut batch = rows_of(spec, 30, false);
    batch.values[99] = 1234.5;
    write(&path, FileFormat::Npz, spec, Number::F32, &batch, 30);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == 1234.5f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

/// Catches a value that no number can have and that becomes a row, and an error that does not say where it is.
#[test]
fn values_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for format in [FileFormat::Safetensors, FileFormat::Npy, FileFormat::Arrow, FileFormat::Parquet] {
        for (spec, expected) in specs().into_iter().zip([("all", 5), ("a", 2)]) {
            let path = folder.path().join(format!("x.{format}"));
            let mut batch = rows_of(&spec, 30, false);
            // Row 17, position 5 of all.
            batch.values[17 * 8 + 5] = 1234.5;
            write(&path, format, &spec, Number::F32, &batch, 11);
            let mut bytes = std::fs::read(&path).unwrap();
            for (bad, at) in [(f32::NAN, 1234.5f32), (f32::NEG_INFINITY, f32::NAN)] {
                let at = bytes.windows(4).position(|window| window == at.to_le_bytes()).unwrap();
                bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                std::fs::write(&path, &bytes).unwrap();
                let expected = if format == FileFormat::Npy { ("all", 5) } else { expected };
                match read(&path, &pattern()) {
                    Err(FormatError::NotFinite { row: 17, block, position, value, .. }) => {
                        assert_eq!((block.as_str(), position), expected, "{format}");
                        assert_eq!(bits(&[value]), bits(&[bad]));
                    }
                    other => panic!("{format}: {other:?}"),
                }
                let sink = formats::create(folder.path().join("out"), format, &spec, Number::F32);
                batch.values[17 * 8 + 5] = bad;
                let refused = sink.unwrap().write(&batch).unwrap_err().to_string();
                assert!(refused.contains("row 17") && refused.contains("not finite"), "{refused}");
            }
        }
    }
}

/// Catches a length in a header that memory is taken for, or that overflows, before the file's length is looked at.
#[test]
fn headers_that_promise_too_much_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let npy = |version: u8, length: &[u8], text: &str| {
        [b"\x93NUMPY", &[version, 0][..], length, text.as_bytes(), &[0; 64]].concat()
    };
    let shaped = |shape: &str| {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        npy(1, &(text.len() as u16).to_le_bytes(), &text)
    };
    let tensors = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes(), &[0; 64]].concat();
    let tensor = |shape: &str, offsets: &str| {
        let text = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}");
        tensors(text.len() as u64, &text)
    };
    let arrow = |length: i32| {
        [b"ARROW1\0\0\xff\xff\xff\xff", &length.to_le_bytes()[..], &[1; 80], b"ARROW1"].concat()
    };
    let files = [
        (FileFormat::Npy, shaped("(1099511627776, 1048576)")),
        (FileFormat::Npy, shaped("(18446744073709551615, 18446744073709551615)")),
        (FileFormat::Npy, shaped("(99999999999999999999999999, 1)")),
        (FileFormat::Npy, shaped("(16, 2)")),
        (FileFormat::Npy, shaped("(-1, 16)")),
        (FileFormat::Npy, npy(2, &u32::MAX.to_le_bytes(), "{")),
        (FileFormat::Npy, npy(9, &[0, 0], "")),
        (FileFormat::Npy, npy(1, &u16::MAX.to_le_bytes(), &"(".repeat(70_000))),
        (FileFormat::Npy, npy(1, &9u16.to_le_bytes(), "{'descr':")),
        (FileFormat::Safetensors, tensors(1 << 60, "{}")),
        (FileFormat::Safetensors, tensors(u64::MAX, "{}")),
        (FileFormat::Safetensors, tensors(99_000_000, "{}")),
        (FileFormat::Safetensors, tensors(2, "[]")),
        (FileFormat::Safetensors, tensor("[4611686018427387904,4]", "[0,64]")),
        (FileFormat::Safetensors, tensor("[4,4]", "[0,18446744073709551615]")),
        (FileFormat::Safetensors, tensor("[4,5]", "[0,80]")),
        (FileFormat::Safetensors, tensor("[2,4]", "[0,32]")),
        (FileFormat::Arrow, arrow(i32::MAX)),
        (FileFormat::Arrow, arrow(-5)),
        (FileFormat::Arrow, arrow(16)),
    ];
    for (i, (format, bytes)) in files.into_iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, &pattern().format(format)).expect_err(&format!("file {i} was read"));
        assert!(matches!(error, FormatError::Malformed { .. }), "file {i}: {error:?}");
    }
}

/// Catches an archive that says a few bytes become very many, and memory that is taken for them.
#[test]
fn archives_that_promise_too_much_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let spec = SketchSpec::dense("x", "", [("all", 8)]);
    write(&path, FileFormat::Npz, &spec, Number::F32, &rows_of(&spec, 30, false), 30);
    let sound = std::fs::read(&path).unwrap();
    // The sizes in the directory at the end, of the deflated ids too.
    for (i, at) in sound
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == b"PK\x01\x02")
        .map(|(at, _)| at)
        .enumerate()
    {
        let mut bytes = sound.clone();
        bytes[at + 24..at + 28].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert!(
            matches!(
                read(&path, &ReadOptions::default()),
                Err(FormatError::Malformed { .. } | FormatError::Unsupported { .. })
            ),
            "{i}"
        );
    }
}

/// An archive of deflated arrays of numpy: name, type, shape, bytes.
fn deflated(path: &Path, arrays: &[(&str, &str, &str, &[u8])]) {
    let mut archive = zip::write::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    let options = options.compression_method(zip::CompressionMethod::Deflated);
    for (name, descr, shape, bytes) in arrays {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        archive.start_file(format!("{name}.npy"), options).unwrap();
        let header = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()];
        archive.write_all(&header.concat()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// Catches an archive whose thousands of arrays are all inflated side by side, and a count that refuses what is left alone.
#[test]
fn archives_of_very_many_deflated_arrays_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let names: Vec<String> = (0..2049).map(|array| format!("a{array:04}")).collect();
    let value = 1.5f32.to_le_bytes();
    let arrays: Vec<_> = names.iter().map(|name| (&**name, "<f4", "(1, 1)", &value[..])).collect();
    deflated(&path, &arrays);
    let error = read(&path, &pattern()).unwrap_err();
    assert!(error.to_string().contains("more than 2048 deflated arrays"), "{error}");
    let some = read(&path, &pattern().blocks(names[1..].iter().cloned())).unwrap();
    assert_eq!((some.rows, some.values.len()), (1, 2048));
}

/// Catches memory for a label that is as long as a few deflated bytes say, and a limit that refuses padding.
#[test]
fn labels_longer_than_any_label_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let long = vec![b'x'; 20_000];
    let vectors = ("all", "<f4", "(1, 1)", &[0u8; 4][..]);
    let fixed = |bytes: &[u8]| {
        deflated(&path, &[vectors, ("ids", &format!("|S{}", bytes.len()), "(1,)", bytes)]);
        read(&path, &ReadOptions::default())
    };
    let mut padded = vec![0; 16_384];
    padded[0] = b'a';
    assert_eq!(fixed(&padded).unwrap().ids, [b"a"]);
    let error = fixed(&long).unwrap_err().to_string();
    assert!(error.contains("row 0") && error.contains("20000 bytes") && error.contains("4096"), "{error}");
    let offsets = [0u64.to_le_bytes(), 20_000u64.to_le_bytes()].concat();
    let ids = [vectors, ("ids", "|u1", "(20000,)", &long), ("ids.offsets", "<i8", "(2,)", &offsets)];
    deflated(&path, &ids);
    let error = read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("row 0") && error.contains("20000 bytes") && error.contains("4096"), "{error}");
}

/// Catches a number of rows to which one cannot be added.
#[test]
fn offsets_of_the_most_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    deflated(
        &path,
        &[
            ("all", "<f4", "(18446744073709551615, 0)", &[]),
            ("ids", "|u1", "(0,)", &[]),
            ("ids.offsets", "<i8", "(0,)", &[]),
        ],
    );
    let refused = |format| {
        let error = read(&path, &ReadOptions::default().format(format)).unwrap_err().to_string();
        assert!(error.contains("18446744073709551615 rows"), "{error}");
    };
    refused(FileFormat::Npz);
    let tensor = |dtype: &str, shape: &str| {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,0]}}")
    };
    let (vectors, ids) = (tensor("F32", "[18446744073709551615,0]"), tensor("U8", "[0]"));
    let offsets = tensor("I64", "[0]");
    let text = format!("{{\"all\":{vectors},\"ids\":{ids},\"ids.offsets\":{offsets}}}");
    std::fs::write(&path, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
    refused(FileFormat::Safetensors);
}

/// Catches a table of as many rows as the encoded bytes are few: of equal values and texts, they are next to none.
#[test]
fn parquet_of_equal_values_is_read_in_small_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let (rows, dims) = (1024, 4096);
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let zeros = |dims: usize| Arc::new(Float32Array::from(vec![0.0; rows * dims]));
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(item.clone(), dims as i32, zeros(dims), None));
    let lengths = OffsetBuffer::from_lengths(std::iter::repeat_n(dims, rows));
    let listed: ArrayRef = Arc::new(ListArray::new(item.clone(), lengths, zeros(dims), None));
    let narrow: ArrayRef = Arc::new(FixedSizeListArray::new(item, 1, zeros(1), None));
    let metadata: ArrayRef = Arc::new(StringArray::from(vec![&*"m".repeat(65_536); rows]));
    for (columns, most) in [
        (vec![("v", fixed)], (8 << 20) / (4 * dims)),
        (vec![("v", listed)], (8 << 20) / (4 * dims)),
        (vec![("v", narrow), ("metadata", metadata)], (8 << 20) / 65_536),
    ] {
        let table = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, table.schema(), None).unwrap();
        writer.write(&table).unwrap();
        writer.close().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        let mut source = formats::open(&path, &pattern()).unwrap();
        let (mut batch, mut read, mut longest) = (Batch::default(), 0, 0);
        loop {
            source.read(rows, &mut batch).unwrap();
            if batch.rows == 0 {
                break;
            }
            longest = longest.max(batch.rows);
            read += batch.rows;
        }
        assert_eq!(read, rows);
        assert!((most / 2..=most).contains(&longest), "{longest} rows, not {most}");
    }
}

/// Catches ids that go to other rows than they stand beside: lists that are too short or too long, empty lines, ids of two
/// kinds, and an id twice.
#[test]
fn ids_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, list) = (folder.path().join("x.npy"), folder.path().join("list"));
    let spec = SketchSpec::dense("x", "", [("all", 8)]);
    let mut batch = rows_of(&spec, 3, false);
    batch.ids.clear();
    write(&path, FileFormat::Npy, &spec, Number::F32, &batch, 2);
    let with = |lines: &str| {
        std::fs::write(&list, lines).unwrap();
        read(&path, &ReadOptions::default().ids(IdSource::File(list.clone())))
    };
    assert_eq!(with("a\nb\r\nc").unwrap().ids, [b"a", b"b", b"c"]);
    for (lines, expected) in
        [("a\nb\n", "row 2"), ("a\n\nc\n", "row 1"), ("a\nb\nc\nd\n", "more ids than rows"), ("", "row 0")]
    {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("list"), "{error}");
    }
    let longest = "i".repeat(4096);
    assert_eq!(with(&format!("{longest}\r\nb\nc\n")).unwrap().ids[0], longest.as_bytes());
    let error = with(&format!("a\n{longest}ii\nc\n")).unwrap_err().to_string();
    assert!(error.contains("row 1") && error.contains("too long"), "{error}");
    let none = read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(none.contains("no ids") && none.contains("pattern"), "{none}");
    assert!(read(&path, &ReadOptions::default().optional_ids()).unwrap().ids.is_empty());

    let twice = with("a\nb\na\n").unwrap();
    let schema = Schema::new(spec, Encoding::F32).unwrap();
    let index = Index::create(folder.path().join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let rows: Vec<(&[u8], Row<'_>)> =
        twice.ids.iter().map(Vec::as_slice).zip(twice.values.chunks(8).map(Row::of_values)).collect();
    let error = fixtures::told(&writer.append_batch(&rows).unwrap_err());
    assert!(error.contains("\"a\"") || error.contains(" a"), "{error}");
}

/// Catches rows that a format cannot hold and that are written otherwise: without an id, with an id that is no line, too large
/// for the type, fewer than the batch says.
#[test]
fn rows_that_a_format_cannot_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spec = &specs()[1];
    let path = folder.path().join("x");
    for format in FileFormat::ALL {
        let refused = |batch: &Batch| {
            let mut sink = formats::create(&path, format, spec, Number::F16).unwrap();
            sink.write(batch).expect_err(&format!("{format} took it")).to_string()
        };
        let mut batch = rows_of(spec, 4, false);
        batch.values[13] = 65520.0;
        let error = refused(&batch);
        assert!(
            error.contains("row 1") && error.contains("\"a\"") && error.contains("value 2 is 65520"),
            "{error}"
        );
        let mut batch = rows_of(spec, 4, false);
        batch.ids.pop();
        refused(&batch);
        let mut batch = rows_of(spec, 4, false);
        batch.values.pop();
        refused(&batch);
        if format == FileFormat::Npy {
            refused(&rows_of(spec, 4, true));
            let mut batch = rows_of(spec, 4, false);
            batch.ids[2] = b"two\nlines".to_vec();
            assert!(refused(&batch).contains("row 2"));
        } else {
            let mut batch = rows_of(spec, 4, false);
            batch.ids.clear();
            assert!(refused(&batch).contains("row 0"));
        }
        let named = SketchSpec::dense("x", "", [("id", 1), ("ids", 1)]);
        assert_eq!(formats::create(&path, format, &named, Number::F32).is_ok(), format == FileFormat::Npy);
        assert!(!path.exists());
    }
    assert!(formats::create(&path, FileFormat::Npy, spec, Number::Bf16).is_err());
    let nowhere = folder.path().join("none/x.npy");
    assert!(matches!(
        formats::create(&nowhere, FileFormat::Npy, spec, Number::F32),
        Err(FormatError::Io { .. })
    ));
    assert!(matches!(formats::open(&nowhere, &pattern()), Err(FormatError::Io { .. })));
    assert!(matches!(formats::open(folder.path(), &pattern()), Err(FormatError::Io { .. })));
    std::fs::write(&path, b"text").unwrap();
    assert!(matches!(formats::open(&path, &pattern()), Err(FormatError::Unsupported { .. })));
}

/// Catches a pipe that is read otherwise than a file, one byte too few at its beginning, or lies that it tells of its length.
#[cfg(unix)]
#[test]
fn pipes_are_read_as_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let spec = &specs()[1];
    for format in FileFormat::ALL {
        let (path, pipe) =
            (folder.path().join(format!("x.{format}")), folder.path().join(format!("{format}.pipe")));
        let batch = rows_of(spec, 30, false);
        write(&path, format, spec, Number::F32, &batch, 11);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let expected = read(&path, &pattern()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let through = |bytes: Vec<u8>| {
            let to = pipe.clone();
            // Who reads may stop before the end.
            let writer = std::thread::spawn(move || std::fs::write(to, bytes).unwrap_or(()));
            let read = read(&pipe, &pattern());
            writer.join().unwrap();
            read
        };
        assert_eq!(through(bytes.clone()).unwrap(), expected, "{format}");
        assert!(through(bytes[..bytes.len() / 2].to_vec()).is_err(), "{format}");
    }
    let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 268435456), }";
    let header =
        [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), &[0; 64]].concat();
    let pipe = folder.path().join("npy.pipe");
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, header).unwrap()
    });
    assert!(matches!(read(&pipe, &pattern()), Err(FormatError::Malformed { .. })));
    writer.join().unwrap();
}
