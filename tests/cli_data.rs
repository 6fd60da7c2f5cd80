//! `gradix delete`, `gradix export`, and how much memory an append and an export take.

mod fixtures;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use fixtures::appends::{done, fails, generation, listing, npy, program};
use gradix::sketch::SketchSpec;
use gradix::{Encoding, Index, Row, Schema};
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
    // As with a variable that is not set.
    fails(folder, &["delete", "i", "--prefix", ""], 2);
    assert_eq!(generation(&index), before);
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

/// An index of rows of two dims, each with as much metadata.
fn index_of_metadata(path: &Path, rows: usize, bytes: usize) {
    let schema = Schema::new(SketchSpec::dense("x", "", [("all", 2)]), Encoding::F32).unwrap();
    let index = Index::create(path, &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let metadata = vec![b'm'; bytes];
    let row = Row::of_values(&[1.0, 2.0]).metadata(&metadata);
    let ids: Vec<_> = (0..rows).map(|row| format!("{row:06}")).collect();
    for ids in ids.chunks(256) {
        let batch: Vec<_> = ids.iter().map(|id| (id, row)).collect();
        writer.append_batch(&batch).unwrap();
    }
    writer.commit().unwrap();
}

/// Catches a row group that grows with the metadata, to 2 GiB and a panic.
#[test]
fn metadata_that_is_long_is_exported_in_more_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (rows, length) = (300, 65_536);
    index_of_metadata(&folder.join("i"), rows, length);
    done(folder, &["export", "i", "m.parquet", "--metadata-only"]);
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        fs::File::open(folder.join("m.parquet")).unwrap(),
    )
    .unwrap();
    let groups = builder.metadata().row_groups();
    assert!(groups.len() > 1 && groups.iter().all(|group| group.num_rows() < 256), "{}", groups.len());
    let mut read = 0;
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let metadata = batch.column_by_name("metadata").unwrap();
        let metadata = metadata.as_any().downcast_ref::<arrow_array::BinaryArray>().unwrap();
        assert!(metadata.iter().all(|bytes| bytes == Some(&vec![b'm'; length])));
        read += batch.num_rows();
    }
    assert_eq!(read, rows);
}

/// Catches an export that leaves rows, ids, spans, sources or metadata out, or changes a bit, in a format that can hold them;
/// filters that let others pass; and a generation that is not the one that was asked for.
#[test]
fn exported_rows_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    index_of(folder, 40);
    let whole = listing(&folder.join("i"));
    for format in ["arrow", "parquet", "npz", "safetensors"] {
        let file = format!("out.{format}");
        let told: Value = serde_json::from_str(&done(folder, &["export", "i", &file, "--json"])).unwrap();
        assert_eq!((&told["rows"], &told["generation"]), (&80.into(), &2.into()), "{format}");
        let again = format!("from-{format}");
        done(folder, &["append", &again, &file, "--create", "--encoding", "f32"]);
        assert_eq!(listing(&folder.join(&again)), whole, "{format}");
        assert!(fails(folder, &["export", "i", &file], 5).contains("--force"));
    }
    // To a pipe, and from it.
    let mut export =
        program(folder, &["export", "i", "-", "--format", "arrow"]).stdout(Stdio::piped()).spawn().unwrap();
    let append = ["append", "piped", "-", "--create", "--encoding", "f32"];
    let status = program(folder, &append).stdin(export.stdout.take().unwrap()).status().unwrap();
    assert!(status.success() && export.wait().unwrap().success());
    assert_eq!(listing(&folder.join("piped")), whole);

    let filtered = |args: &[&str], wanted: &dyn Fn(&str) -> bool| {
        let _ = fs::remove_dir_all(folder.join("some"));
        done(folder, &[&["export", "i", "some.arrow", "--force"], args].concat());
        done(folder, &["append", "some", "some.arrow", "--create", "--encoding", "f32"]);
        let expected: Vec<_> = whole.iter().filter(|row| wanted(row)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < whole.len());
        assert_eq!(listing(&folder.join("some")), expected, "{args:?}");
    };
    filtered(&["--prefix", "b/"], &|row| row.starts_with("b/"));
    filtered(&["--source", "news", "--prefix", "a/1"], &|row| row.starts_with("a/1"));
    filtered(&["--id", "a/3", "--id", "b/7", "--id", "c", "--missing-ok"], &|row| {
        row.starts_with("a/3 ") || row.starts_with("b/7 ")
    });
    filtered(&["--generation", "1"], &|row| row.starts_with("a/"));
    fails(folder, &["export", "i", "x.bin"], 2);
    fails(folder, &["export", "i", "x.npy", "--number", "f64"], 2);
    fails(folder, &["export", "i", "x.npy", "--generation", "7"], 4);
    assert!(
        fs::read_dir(folder).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("x."))
    );
}

/// Catches an export that overwrites the ids of another array without --force.
#[test]
fn export_of_npy_keeps_ids_that_lie_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("v.npy"), 0, 3, 8);
    done(folder, &["append", "i", "v.npy", "--create", "--ids", "a/{row}"]);
    fs::write(folder.join("x.ids.txt"), "mine\n").unwrap();
    let told = fails(folder, &["export", "i", "x.npy"], 5);
    assert!(told.contains("x.ids.txt") && told.contains("--force"), "{told}");
    assert_eq!(fs::read(folder.join("x.ids.txt")).unwrap(), b"mine\n");
    assert!(!folder.join("x.npy").exists());
    done(folder, &["export", "i", "x.npy", "--force"]);
    assert!(fs::read_to_string(folder.join("x.ids.txt")).unwrap().starts_with("a/0\na/1\n"));
}

/// Catches a command that writes over a file, through a link or in the place of a pipe, without being told to.
#[cfg(unix)]
#[test]
fn outputs_that_are_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    index_of(folder, 3);
    fs::write(folder.join("kept.csv"), "kept").unwrap();
    // One points to nothing, which `exists` takes for nothing.
    std::os::unix::fs::symlink("nowhere.csv", folder.join("dangling.csv")).unwrap();
    std::os::unix::fs::symlink("kept.csv", folder.join("link.csv")).unwrap();
    fs::create_dir(folder.join("folder.csv")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.join("pipe.csv")).status().unwrap();
    assert!(made.success());
    let commands: [&[&str]; 5] = [
        &["query", "i", "--id", "a/0", "-o"],
        &["scores", "i", "--id", "a/0", "-o"],
        &["report", "i", "--id", "a/0", "-o"],
        &["select", "duplicates", "i", "--cosine", "0.9", "-o"],
        &["export", "i", "--format", "arrow"],
    ];
    for command in commands {
        for file in ["kept.csv", "dangling.csv", "link.csv"] {
            let told = fails(folder, &[command, &[file]].concat(), 5);
            assert!(told.contains(file) && told.contains("--force"), "{told}");
        }
        for (file, kind) in [("folder.csv", "folder"), ("pipe.csv", "pipe")] {
            let told = fails(folder, &[command, &[file, "--force"]].concat(), 5);
            assert!(told.contains(file) && told.contains(kind), "{told}");
        }
        assert_eq!(fs::read(folder.join("kept.csv")).unwrap(), b"kept");
        assert!(!folder.join("nowhere.csv").exists());
    }
    for command in commands {
        done(folder, &[command, &["dangling.csv", "--force"]].concat());
        assert!(fs::symlink_metadata(folder.join("dangling.csv")).unwrap().is_file());
        assert!(!folder.join("nowhere.csv").exists());
    }
}

/// Runs the program with as many MiB of memory.
#[cfg(target_os = "linux")]
fn limited(folder: &Path, mebibytes: usize, args: &str) {
    // RLIMIT_DATA counts the stacks of RocksDB's threads too, which are as large as the limit of stacks.
    let line = format!("ulimit -s 1024 && ulimit -d {} && exec \"$0\" {args}", mebibytes << 10);
    let mut shell = std::process::Command::new("sh");
    let output =
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_gradix")]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Catches batches that are of as many rows however long their metadata are.
#[cfg(target_os = "linux")]
#[test]
fn append_and_export_take_less_memory_than_the_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    index_of_metadata(&folder.join("i"), 8192, 60_000);
    for file in ["m.npz", "m.parquet"] {
        limited(folder, 320, &format!("export i {file}"));
        limited(folder, 320, &format!("append from-{file} {file} --create --encoding f32"));
        assert_eq!(fixtures::appends::rows(&folder.join(format!("from-{file}"))), 8192);
        fs::remove_file(folder.join(file)).unwrap();
    }
}

/// Catches an example without an end, of which all rows are held before the engine refuses it.
#[test]
fn example_of_too_many_rows_is_refused_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("a.npy"), 0, 140_000, 1);
    fs::write(folder.join("ids"), "b\n".to_owned() + &"a\n".repeat(139_999)).unwrap();
    let append = ["append", "i", "a.npy", "--create", "--encoding", "f32", "--ids", "ids"];
    let told = fails(folder, &append, 3);
    assert!(told.contains("a.npy, row 1") && told.contains("65536"), "{told}");
    let rows = told.split("\"a\" has ").nth(1).unwrap().split(' ').next().unwrap();
    assert!((65_537..80_000).contains(&rows.parse::<u32>().unwrap()), "{told}");
    // As many as there may be.
    npy(folder.join("most.npy"), 0, 65_536, 1);
    fs::write(folder.join("ids"), "a\n".repeat(65_536)).unwrap();
    done(folder, &["append", "j", "most.npy", "--create", "--encoding", "f32", "--ids", "ids"]);
    assert_eq!(fixtures::appends::rows(&folder.join("j")), 65_536);
}

/// Catches memory that grows with the input, as with a file that is read whole, or a queue that has no bound.
#[cfg(target_os = "linux")]
#[test]
fn append_and_export_take_less_memory_than_their_input() {
    use std::io::{Seek as _, SeekFrom};

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let megabytes = 512;
    let (rows, dims) = (megabytes * 16, 16_384);
    let mut file = fs::File::create(folder.join("v.npy")).unwrap();
    let header = fixtures::appends::npy_header(rows, dims);
    file.write_all(&header).unwrap();
    // A file of zeros that takes no room.
    file.set_len((header.len() + rows * dims * 4) as u64).unwrap();
    file.seek(SeekFrom::Start(header.len() as u64)).unwrap();
    file.write_all(&1f32.to_le_bytes()).unwrap();
    drop(file);
    limited(folder, 320, "append i v.npy --create --encoding i8 --tier sign --ids '{row}'");
    limited(folder, 320, "export i out.npy --number f16");
    let exported = fs::metadata(folder.join("out.npy")).unwrap().len();
    assert!(exported > (rows * dims * 2) as u64 && exported < (rows * dims * 2 + 4096) as u64);
}
