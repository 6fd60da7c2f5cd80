//! `gradix append` that is killed, interrupted, or fails, and goes on.

mod fixtures;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use fixtures::appends::{done, fails, generation, listing, npy, npy_bytes, npy_header, program, rows, run};
use fixtures::random::Random;
use gradix::{Attach, Index};
use serde_json::Value;

const PATTERN: [&str; 2] = ["--ids", "{stem}/{row}"];

fn record_of(index: &Path) -> Value {
    let snapshot = Index::open(index).unwrap().snapshot().unwrap();
    serde_json::from_slice(&snapshot.payload().unwrap()).unwrap()
}

/// An append of `a.npy` and `b.npy`, each of 30 rows, that stops at row 20 of `b.npy`, where 20 of its rows are committed: an
/// example is there already.
fn unfinished(folder: &Path) {
    npy(folder.join("a.npy"), 0, 30, 8);
    npy(folder.join("b.npy"), 30, 30, 8);
    npy(folder.join("one.npy"), 90, 1, 8);
    done(folder, &["append", "i", "one.npy", "--create", "--encoding", "f32", "--ids", "b/2{row}"]);
    let append = ["append", "i", "a.npy", "b.npy", "--commit-every", "10"];
    let told = fails(folder, &[&append[..], &PATTERN[..]].concat(), 5);
    assert!(told.contains("b.npy, row 20") && told.contains("50 rows are committed"), "{told}");
    assert!(told.contains("--resume"), "{told}");
}

/// Catches an append that begins anew, leaves rows out or has them twice, wherever it was killed.
#[test]
fn append_that_is_killed_anywhere_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for shard in 0..5 {
        npy(folder.join(format!("s-{shard}.npy")), shard * 1500, 1500, 512);
    }
    let args = |index| {
        [&["append", index, "s-*.npy", "--create", "--encoding", "i8", "--commit-every", "200"], &PATTERN[..]]
            .concat()
    };
    done(folder, &args("whole"));
    let mut random = Random(11);
    let mut kills = 0;
    loop {
        let mut child =
            program(folder, &[&args("i")[..], &["--resume"]].concat()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(150_000) as u64 * (1 + kills / 20)));
        // An error if it has ended by itself.
        let _ = child.kill();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
        if folder.join("i/INDEX").exists() {
            let found = rows(&folder.join("i"));
            assert!(found.is_multiple_of(200) || found == 7500, "a part of a commit: {found}");
        } else {
            // Killed while it created the index, which `create` says to remove.
            let _ = fs::remove_dir_all(folder.join("i"));
        }
    }
    assert!(kills > 0, "it was never killed");
    assert_eq!(listing(&folder.join("i")), listing(&folder.join("whole")));
    assert!(done(folder, &["verify", "i"]).contains("sound"));
    let told = done(folder, &[&args("i")[..], &["--resume"]].concat());
    assert!(told.contains("nothing to do"), "{told}");
}

/// Catches a resume that repeats or leaves out rows within an input, and a record that does not say how far it was.
#[test]
fn append_that_failed_goes_on_behind_its_last_commit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    unfinished(folder);
    let record = record_of(&folder.join("i"));
    assert_eq!((&record["input"], &record["row"], &record["done"]), (&1.into(), &20.into(), &false.into()));
    assert_eq!(
        (&record["path"], &record["rows"], &record["rows_in_all"]),
        (&"b.npy".into(), &10.into(), &50.into())
    );
    let append = [&["append", "i", "a.npy", "b.npy", "--commit-every", "7"], &PATTERN[..]].concat();
    // Without --resume a note says that there is something to go on with.
    assert!(fails(folder, &append, 5).contains("was not finished"));
    done(folder, &["delete", "i", "b/20"]);
    // Another append in between has nothing to do with it, with --resume too.
    npy(folder.join("c.npy"), 60, 5, 8);
    done(folder, &[&["append", "i", "c.npy", "--resume"], &PATTERN[..]].concat());
    let told: Value =
        serde_json::from_str(&done(folder, &[&append[..], &["--resume", "--json"]].concat())).unwrap();
    assert_eq!(told["rows"], 10);
    let mut found = listing(&folder.join("i"));
    found.retain(|row| !row.starts_with("c/"));
    done(
        folder,
        &[&["append", "whole", "a.npy", "b.npy", "--create", "--encoding", "f32"], &PATTERN[..]].concat(),
    );
    assert_eq!(found, listing(&folder.join("whole")));
    let record = record_of(&folder.join("i"));
    assert_eq!((&record["input"], &record["row"], &record["done"]), (&2.into(), &0.into(), &true.into()));
    assert_eq!(record["rows_in_all"], 60);
}

/// Catches an append that goes on with other rows than it began with, and a message that does not say what has changed.
#[test]
fn inputs_and_flags_that_changed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    unfinished(folder);
    let before = generation(&folder.join("i"));
    let refused = |args: &[&str], words: &[&str]| {
        let told = fails(folder, &[&["append", "i"], args, &["--resume"]].concat(), 3);
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    };
    let same = ["a.npy", "b.npy"];
    refused(&[&["b.npy", "a.npy"], &PATTERN[..]].concat(), &["input 1 is b.npy"]);
    refused(&[&["a.npy"], &PATTERN[..]].concat(), &["1 inputs", "2 then"]);
    refused(&[&same[..], &["--ids", "{stem}-{row}"]].concat(), &["--ids {stem}-{row}", "--ids {stem}/{row}"]);
    refused(&[&same[..], &PATTERN[..], &["--source", "wiki"]].concat(), &["--source wiki", "no --source"]);
    let whole = fs::read(folder.join("a.npy")).unwrap();
    npy(folder.join("a.npy"), 1, 30, 8);
    refused(&[&same[..], &PATTERN[..]].concat(), &["input 1, a.npy, was changed"]);
    fs::write(folder.join("a.npy"), whole).unwrap();
    npy(folder.join("b.npy"), 30, 31, 8);
    refused(&[&same[..], &PATTERN[..]].concat(), &["input 2, b.npy, was changed"]);
    assert_eq!(generation(&folder.join("i")), before);
    // Once it is done, files of the same names are other files: as of the night after.
    npy(folder.join("n.npy"), 0, 3, 8);
    done(folder, &["append", "j", "n.npy", "--create", "--ids", "first/{row}", "--resume"]);
    npy(folder.join("n.npy"), 3, 3, 8);
    done(folder, &["append", "j", "n.npy", "--ids", "second/{row}", "--resume"]);
    assert_eq!(rows(&folder.join("j")), 6);
}

/// Starts an append of stdin to `i` and gives it rows; it goes on to wait for more.
fn waiting(folder: &Path, bytes: &[u8]) -> Child {
    let args =
        ["append", "i", "-", "--create", "--encoding", "f32", "--ids", "{row}", "--commit-every", "100"];
    let mut child = program(folder, &[&args[..], &["--resume", "--format", "npy"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    child
}

fn wait_for_rows(index: &Path, least: u64) {
    while !index.join("INDEX").exists() || rows(index) < least {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Catches Ctrl-C that loses what was read, leaves an index that must be repaired, or does not say what is kept; and a stream
/// that goes on with another one.
#[cfg(unix)]
#[test]
fn ctrl_c_commits_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // So wide that a batch has 128 rows, the first 64: 256 are given, of which two batches are read, and more are promised.
    let dims = 16_384;
    let stream = npy_bytes(0, 300, dims);
    let given = npy_header(300, dims).len() + 256 * dims * 4;
    let mut child = waiting(folder, &stream[..given]);
    // It stays open: there is more to come.
    let stdin = child.stdin.take();
    wait_for_rows(&folder.join("i"), 100);
    // SAFETY: sends a signal to a process that was started here and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let kept = rows(&folder.join("i"));
    assert!(kept >= 100 && told.contains(&format!("{kept} rows are committed")), "{told}");
    assert!(told.contains("--resume"), "{told}");
    assert!(done(folder, &["verify", "i"]).contains("sound"));

    // The same stream goes on; another one does not.
    let resume = |bytes: &[u8]| {
        let mut child = waiting(folder, bytes);
        drop(child.stdin.take());
        child.wait_with_output().unwrap()
    };
    let output = resume(&stream);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rows(&folder.join("i")), 300);
    npy(folder.join("v.npy"), 0, 300, dims);
    done(folder, &["append", "whole", "v.npy", "--create", "--encoding", "f32", "--ids", "{row}"]);
    assert_eq!(listing(&folder.join("i")), listing(&folder.join("whole")));
}

/// Catches a stream that goes on with rows of another one.
#[test]
fn stream_with_other_ids_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let give = |ids: &str, rows: usize| {
        fs::write(folder.join("ids"), ids).unwrap();
        let args = [
            "append",
            "i",
            "-",
            "--create",
            "--ids",
            "ids",
            "--commit-every",
            "2",
            "--resume",
            "--format",
            "npy",
        ];
        let mut child = program(folder, &args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&npy_bytes(0, rows, 8)).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // Row 4 has an id that is there already.
    assert_eq!(give("a\nb\nc\nd\na\n", 5).0, Some(5));
    assert_eq!(rows(&folder.join("i")), 4);
    let (code, told) = give("a\nb\nc\nx\ne\n", 5);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("row 3 of -"), "{told}");
    let (code, told) = give("a\nb\nc\nd\ne\n", 5);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(rows(&folder.join("i")), 5);
}

/// Catches a stream that is passed over, or goes on with the rows of another one, because its ids are made of row numbers.
#[test]
fn another_stream_with_the_same_ids_is_not_taken_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let give = |first: usize, rows: usize, ids: &str| {
        let args = ["append", "i", "-", "--create", "--encoding", "f32", "--format", "npy", "--resume"];
        let args = [&args[..], &["--commit-every", "2", "--ids", ids]].concat();
        let mut child = program(folder, &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&npy_bytes(first, rows, 8)).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    npy(folder.join("one.npy"), 90, 1, 8);
    fs::write(folder.join("one-ids"), "s/4\n").unwrap();
    done(folder, &["append", "i", "one.npy", "--create", "--encoding", "f32", "--ids", "one-ids"]);
    // Row 4 has an id that is there already.
    assert_eq!(give(0, 6, "s/{row}").0, Some(5));
    let (code, told) = give(10, 6, "s/{row}");
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("row 3 of -") && told.contains("other values"), "{told}");
    done(folder, &["delete", "i", "s/4"]);
    let (code, told) = give(0, 6, "s/{row}");
    assert_eq!((code, rows(&folder.join("i"))), (Some(0), 6), "{told}");
    // That stream is done; the next is another one, from its beginning.
    let (code, told) = give(20, 6, "s/{row}");
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains("-, row 0"), "{told}");
}

/// Catches a file that goes on with other rows, where only values in its middle have changed.
#[test]
fn file_with_other_values_where_it_goes_on_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // So long that its ends do not meet: row 29 is behind the first 64 KiB, and before the last.
    let dims = 1024;
    npy(folder.join("a.npy"), 0, 60, dims);
    npy(folder.join("one.npy"), 90, 1, dims);
    done(folder, &["append", "i", "one.npy", "--create", "--encoding", "f32", "--ids", "a/3{row}"]);
    let append = [&["append", "i", "a.npy", "--commit-every", "10", "--resume"], &PATTERN[..]].concat();
    fails(folder, &append, 5);
    done(folder, &["delete", "i", "a/30"]);
    let whole = fs::read(folder.join("a.npy")).unwrap();
    let mut changed = whole.clone();
    let row = npy_header(60, dims).len() + 29 * dims * 4;
    changed[row..row + 4].copy_from_slice(&0.5f32.to_le_bytes());
    fs::write(folder.join("a.npy"), changed).unwrap();
    let told = fails(folder, &append, 3);
    assert!(told.contains("row 29 of a.npy") && told.contains("other values"), "{told}");
    fs::write(folder.join("a.npy"), whole).unwrap();
    done(folder, &append);
    assert_eq!(rows(&folder.join("i")), 60);
}

/// Catches a store that is taken for the same although it was made anew, with files of the same lengths.
#[test]
fn store_with_other_rows_is_not_taken_for_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores/bergson/train");
    copy(&made, &folder.join("store"));
    let import = ["import", "bergson", "store", "i", "--resume"];
    done(folder, &import);
    assert!(done(folder, &import).contains("nothing to do"));
    let gradients = folder.join("store/gradients.bin");
    let mut bytes = fs::read(&gradients).unwrap();
    bytes[0] ^= 1;
    fs::write(gradients, bytes).unwrap();
    // Its ids are there already.
    assert!(fails(folder, &import, 5).contains("--replace"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Catches an append that does not find its record behind one of other rows of the same name, or begins anew when a pattern has
/// got a file more.
#[test]
fn finished_appends_are_found_again_and_grow() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let append = |ids| done(folder, &["append", "i", "n-*.npy", "--create", "--resume", "--ids", ids]);
    npy(folder.join("n-1.npy"), 0, 3, 8);
    let first = fs::read(folder.join("n-1.npy")).unwrap();
    append("first/{stem}/{row}");
    npy(folder.join("n-1.npy"), 3, 3, 8);
    append("second/{stem}/{row}");
    fs::write(folder.join("n-1.npy"), first).unwrap();
    let told = append("first/{stem}/{row}");
    assert!(told.contains("nothing to do") && told.contains("generation 1"), "{told}");
    npy(folder.join("n-2.npy"), 6, 4, 8);
    let told = append("first/{stem}/{row}");
    assert!(told.contains("appended 4 rows"), "{told}");
    assert_eq!(rows(&folder.join("i")), 10);
    assert!(append("first/{stem}/{row}").contains("nothing to do"));
}

/// Catches an append that does not go on because one of some of its inputs, with other flags, was finished meanwhile.
#[test]
fn unfinished_append_is_found_behind_another_of_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    unfinished(folder);
    done(folder, &["append", "i", "a.npy", "--ids", "other/{row}"]);
    done(folder, &["delete", "i", "b/20"]);
    let append = [&["append", "i", "a.npy", "b.npy", "--resume", "--json"], &PATTERN[..]].concat();
    let told: Value = serde_json::from_str(&done(folder, &append)).unwrap();
    assert_eq!((&told["rows"], rows(&folder.join("i"))), (&10.into(), 90));
}

/// Catches a message that rows are there which were deleted, and an append that brings them back without being told to.
#[test]
fn deleted_rows_come_back_only_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("a.npy"), 0, 5, 8);
    let append = [&["append", "i", "a.npy", "--resume"], &PATTERN[..]].concat();
    done(folder, &[&append[..], &["--create"]].concat());
    assert!(done(folder, &append).contains("nothing to do: 5 rows appended by generation 1"));
    done(folder, &["delete", "i", "a/2"]);
    let told = done(folder, &append);
    assert!(!told.contains("nothing to do") && told.contains("deleted"), "{told}");
    let told: Value = serde_json::from_str(&done(folder, &[&append[..], &["--json"]].concat())).unwrap();
    assert_eq!((&told["deleted_since"], &told["rows"]), (&true.into(), &0.into()));
    assert_eq!(rows(&folder.join("i")), 4);
    let told = done(folder, &[&append[..], &["--skip-existing"]].concat());
    assert!(told.contains("appended 1 row"), "{told}");
    assert_eq!(rows(&folder.join("i")), 5);
    assert!(done(folder, &append).contains("nothing to do"));
}

/// Catches an append that is taken for the same although its ids are others, in a file of their own.
#[test]
fn other_ids_beside_the_same_vectors_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (flags, file) in [(&["--ids", "list"][..], "list"), (&[], "a.ids.txt")] {
        npy(folder.join("a.npy"), 0, 3, 8);
        let index = format!("i-{file}");
        let append = [&["append", &index, "a.npy", "--create", "--resume"], flags].concat();
        fs::write(folder.join(file), "a\nb\nc\n").unwrap();
        done(folder, &append);
        fs::write(folder.join(file), "d\ne\nf\n").unwrap();
        done(folder, &append);
        assert_eq!(rows(&folder.join(&index)), 6);
        assert!(done(folder, &append).contains("nothing to do"));
    }
}

/// Catches parts that cannot be attached, or a detached append that does not go on with the next part.
#[test]
fn detached_append_builds_parts_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("a.npy"), 0, 50, 8);
    done(folder, &["create", "i", "--dims", "8", "--encoding", "f32"]);
    fs::copy(folder.join("i/INDEX"), folder.join("INDEX.copy")).unwrap();
    let mut ids: Vec<_> = (0..50).map(|row| format!("a/{row}")).collect();
    ids[33] = "a/25".into();
    fs::write(folder.join("ids"), ids.join("\n")).unwrap();
    let append =
        ["append", "INDEX.copy", "a.npy", "--ids", "ids", "--detached", "parts", "--commit-every", "10"];
    // Within a part ids are known: row 33 is in the fourth, with 30 to 39; row 25 is in the third.
    done(folder, &append);
    let told = fails(folder, &["attach", "i", "parts", "--dry-run"], 5);
    assert!(told.contains("a/25") && told.contains("nothing was attached"), "{told}");
    fs::remove_dir_all(folder.join("parts")).unwrap();
    ids[33] = "a/31".into();
    fs::write(folder.join("ids"), ids.join("\n")).unwrap();
    assert!(fails(folder, &append, 5).contains("a.npy, row 33"));
    ids[33] = "a/33".into();
    fs::write(folder.join("ids"), ids.join("\n")).unwrap();
    let told: Value =
        serde_json::from_str(&done(folder, &[&append[..], &["--resume", "--json"]].concat())).unwrap();
    assert_eq!((&told["rows"], &told["part"]), (&20.into(), &6.into()));
    fails(folder, &[&append[..], &["--replace"]].concat(), 2);

    let told: Value =
        serde_json::from_str(&done(folder, &["attach", "i", "parts", "--dry-run", "--json"])).unwrap();
    assert_eq!((&told["rows"], generation(&folder.join("i"))), (&50.into(), 0));
    let told: Value =
        serde_json::from_str(&done(folder, &["attach", "i", "parts", "--move", "--json", "--payload", "p"]))
            .unwrap();
    assert_eq!((&told["rows"], &told["generation"]), (&50.into(), &1.into()));
    done(folder, &["append", "whole", "a.npy", "--create", "--encoding", "f32", "--ids", "{stem}/{row}"]);
    assert_eq!(listing(&folder.join("i")), listing(&folder.join("whole")));
    assert_eq!(Index::open(folder.join("i")).unwrap().snapshot().unwrap().payload().unwrap(), b"p");
    assert!(done(folder, &["verify", "i"]).contains("sound"));
    let mut writer = Index::open(folder.join("whole")).unwrap().writer().unwrap();
    assert!(writer.attach(folder.join("parts"), Attach::Link).is_err(), "the parts were moved");
    fails(folder, &["attach", "i", "gone"], 4);
    let told = run(folder, &["attach", "i"]);
    assert_eq!(told.status.code(), Some(2));
}
