//! `gradix create` and `gradix append`: the built program, in a folder of its own.

mod fixtures;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use fixtures::appends::{done, fails, listing, npy, npy_bytes, npy_header, program, rows, run, value};
use gradix::sketch::SketchSpec;
use gradix::{Encoding, Existing, Index, Row, Schema, Span, Tier};
use serde_json::Value;

fn schema_of(index: &Path) -> Schema {
    Index::open(index).unwrap().schema().clone()
}

/// Catches a flag that is lost on its way into the schema, a schema that is not the one of the file, of the other index or
/// of the input, and an exit code that says something else.
#[test]
fn create_makes_the_schema_that_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = done(
        folder,
        &["create", "a", "--dims", "32", "--encoding", "i8", "--tier", "sign=7", "--name", "mine", "--json"],
    );
    let dense = SketchSpec::dense("mine", "", [("all", 32)]);
    let expected = Schema::new(dense, Encoding::I8).unwrap().with_tiers([Tier::Sign { seed: 7 }]).unwrap();
    assert_eq!(schema_of(&folder.join("a")), expected);
    fs::write(folder.join("schema.json"), made).unwrap();
    done(folder, &["create", "b", "--schema", "schema.json"]);
    done(folder, &["create", "c", "--like", "b"]);
    assert_eq!(schema_of(&folder.join("b")), expected);
    assert_eq!(schema_of(&folder.join("c")), expected);

    let blocks = ["--block", "x.0=16", "--block", "x.1=32", "--encoding", "f32", "--encoding", "x.1=i8"];
    done(
        folder,
        &[&["create", "d", "--kind", "rapid_grad", "--seed", "9", "--per-tensor"], &blocks[..]].concat(),
    );
    let spec = SketchSpec::rapid_grad_blocks(9, [("x.0", 16), ("x.1", 32)])
        .normalised(gradix::sketch::Normalisation::PerTensor);
    let expected = Schema::with_encodings(spec, vec![Encoding::F32, Encoding::I8]).unwrap();
    assert_eq!(schema_of(&folder.join("d")), expected);
    done(folder, &["create", "e", "--kind", "kronecker", "--block", "x=4x8", "--tier", "i8"]);
    let expected = Schema::new(SketchSpec::kronecker(0, [("x", 4, 8)]), Encoding::F16).unwrap();
    assert_eq!(schema_of(&folder.join("e")), expected.with_tiers([Tier::I8]).unwrap());

    npy(folder.join("v.npy"), 0, 3, 5);
    done(folder, &["create", "f", "--from", "v.npy", "--encoding", "f32"]);
    assert_eq!(schema_of(&folder.join("f")).spec().dims(), 5);

    assert!(fails(folder, &["create", "a", "--dims", "32"], 5).contains("already"));
    assert!(fails(folder, &["create", "g"], 2).contains("--dims"));
    for wrong in [
        &["--dims", "9", "--encoding", "i4"][..],
        &["--dims", "9", "--encoding", "y=i8"],
        &["--dims", "9", "--tier", "big"],
        &["--dims", "9", "--seed", "1"],
        &["--block", "x"],
        &["--kind", "kronecker", "--dims", "9"],
        &["--schema", "v.npy"],
    ] {
        fails(folder, &[&["create", "g"], wrong].concat(), 2);
    }
    fails(folder, &["create", "g", "--kind", "rapid_grad", "--dims", "17"], 3);
    fails(folder, &["create", "g", "--like", "nothing"], 4);
    assert!(!folder.join("g").exists());
}

/// Catches rows that are not those of the file, in its order, with its ids; and commits that are not as large as asked.
#[test]
fn appended_rows_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("v.npy"), 0, 100, 24);
    let args = [
        "append",
        "i",
        "v.npy",
        "--create",
        "--encoding",
        "f32",
        "--ids",
        "{stem}-{row:03}",
        "--source",
        "wiki",
    ];
    let told =
        done(folder, &[&args[..], &["--commit-every", "30", "--payload", "first night", "--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["rows"], &told["commits"], &told["generation"]), (&100.into(), &4.into(), &4.into()));
    let index = Index::open(folder.join("i")).unwrap();
    for (row, stored) in index.snapshot().unwrap().iter().with_sketches().enumerate() {
        let stored = stored.unwrap();
        assert_eq!(stored.id, format!("v-{row:03}").into_bytes());
        assert_eq!(stored.source.as_deref(), Some("wiki"));
        let expected: Vec<f32> = (0..24).map(|dim| value(row, dim)).collect();
        assert_eq!(stored.sketch.unwrap().values(), expected);
    }
    assert_eq!(index.snapshot_at(1).unwrap().rows(), 30);
    let payload: Value = serde_json::from_slice(&index.snapshot().unwrap().payload().unwrap()).unwrap();
    assert_eq!(
        (&payload["payload"], &payload["done"], &payload["rows"]),
        (&"first night".into(), &true.into(), &10.into())
    );
}

/// Catches an option of `append` that has the name of one that every command has, and panics.
#[test]
fn append_takes_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("v.npy"), 0, 3, 8);
    done(folder, &["append", "i", "v.npy", "--ids", "{row}", "--create", "--threads", "1"]);
    assert_eq!(rows(&folder.join("i")), 3);
}

/// Catches patterns that are not expanded, or in the order of their letters, and inputs whose order is changed.
#[test]
fn quoted_patterns_are_expanded_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for shard in [10, 9, 1] {
        npy(folder.join(format!("s-{shard}.npy")), shard * 10, 2, 8);
    }
    npy(folder.join("first.npy"), 0, 1, 8);
    done(folder, &["append", "i", "first.npy", "s-*.npy", "--ids", "{stem}/{row}", "--create"]);
    let ids: Vec<_> =
        listing(&folder.join("i")).iter().map(|row| row.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(ids, ["first/0", "s-1/0", "s-1/1", "s-9/0", "s-9/1", "s-10/0", "s-10/1"]);
    assert!(fails(folder, &["append", "i", "t-*.npy", "--ids", "{row}"], 4).contains("t-*.npy"));
    fs::create_dir(folder.join("d")).unwrap();
    assert!(fails(folder, &["append", "i", "d", "--ids", "{row}"], 2).contains("d/*.safetensors"));
}

/// Catches an error that does not say which input, row, id and block it is about, what can be done, and what is kept; one that
/// takes committed rows along; and exit codes that mean something else.
#[test]
fn errors_say_what_where_and_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("a.npy"), 0, 20, 8);
    npy(folder.join("wide.npy"), 0, 20, 9);
    let mut bad = npy_bytes(100, 20, 8);
    let at = bad.len() - 4 * 8 * 3 + 4;
    bad[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.join("bad.npy"), bad).unwrap();
    fs::write(folder.join("cut.npy"), &npy_bytes(0, 20, 8)[..500]).unwrap();
    let mut huge = npy_header(1, 8);
    huge.extend(f32::MAX.to_le_bytes().repeat(8));
    fs::write(folder.join("huge.npy"), huge).unwrap();
    let ids = ["--ids", "{stem}/{row}"];
    let append = |args: &[&'static str]| [&["append", "i"], args, &ids[..]].concat();
    done(folder, &["create", "i", "--dims", "8", "--encoding", "i8"]);
    done(folder, &append(&["a.npy", "--commit-every", "7"]));
    let before = listing(&folder.join("i"));

    let told = fails(folder, &append(&["a.npy"]), 5);
    for word in ["a.npy, row 0", "a/0", "--skip-existing", "--replace", "0 rows are committed"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let told = fails(folder, &append(&["bad.npy", "--commit-every", "4"]), 3);
    for word in ["bad.npy", "row 17", "\"all\"", "value 1 is NaN", "rows are committed"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let told = fails(folder, &append(&["huge.npy"]), 3);
    for word in ["huge.npy, row 0", "huge/0", "\"all\"", "norm"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let told = fails(folder, &append(&["wide.npy"]), 3);
    assert!(told.contains("all=9") && told.contains("all=8"), "{told}");
    fails(folder, &append(&["cut.npy"]), 7);
    fails(folder, &append(&["gone.npy"]), 4);
    fails(folder, &["append", "j", "a.npy"], 4);
    assert!(fails(folder, &["append", "i", "a.npy"], 9).contains("ids"));
    fails(folder, &["append", "i", "a.npy", "bad.npy", "--ids", "ids.txt"], 2);
    fails(folder, &append(&["a.npy", "--dims", "8"]), 2);
    fails(folder, &append(&["a.npy", "--create", "--encoding", "f32"]), 2);
    fails(folder, &append(&["a.npy", "--replace", "--skip-existing"]), 2);
    let writer = Index::open(folder.join("i")).unwrap().writer().unwrap();
    fails(folder, &append(&["a.npy"]), 6);
    drop(writer);
    assert_eq!(listing(&folder.join("i")), before);

    let told =
        String::from_utf8(run(folder, &[&append(&["a.npy"])[..], &["--json"]].concat()).stderr).unwrap();
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&told["error"]["code"], &told["error"]["kind"]), (&5.into(), &"already_exists".into()));
}

/// Catches rows that are appended twice, or are not replaced; and ids that stand twice in the input.
#[test]
fn existing_examples_are_skipped_or_replaced_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("old.npy"), 0, 6, 8);
    npy(folder.join("new.npy"), 50, 6, 8);
    fs::write(folder.join("ids"), "a\nb\nc\na\nd\ne\n").unwrap();
    fs::write(folder.join("old-ids"), "a\nb\nx\ny\nz\nc\n").unwrap();
    let told = fails(folder, &["append", "i", "new.npy", "--ids", "ids", "--create", "--encoding", "f32"], 5);
    assert!(told.contains("new.npy, row 3"), "{told}");
    done(folder, &["append", "i", "old.npy", "--ids", "old-ids"]);
    let append = |flag| done(folder, &["append", "i", "new.npy", "--ids", "ids", flag, "--json"]);
    let first = |row: usize| value(row, 0);
    let stored = |id: &str| {
        let snapshot = Index::open(folder.join("i")).unwrap().snapshot().unwrap();
        snapshot.get(id).unwrap().map(|example| example.rows[0].sketch.values()[0])
    };
    let told: Value = serde_json::from_str(&append("--skip-existing")).unwrap();
    assert_eq!((&told["rows"], &told["skipped"]), (&2.into(), &4.into()));
    assert_eq!((stored("a"), stored("d"), rows(&folder.join("i"))), (Some(first(0)), Some(first(54)), 8));
    // The other way round `a` would have the rows of the second only.
    fails(folder, &["append", "i", "new.npy", "--ids", "ids", "--replace"], 5);
    assert_eq!((stored("a"), stored("b")), (Some(first(0)), Some(first(1))));
    fs::write(folder.join("ids"), "a\nb\nc\nf\nd\ne\n").unwrap();
    let told: Value = serde_json::from_str(&append("--replace")).unwrap();
    assert_eq!((&told["rows"], &told["replaced"]), (&6.into(), &5.into()));
    assert_eq!((stored("a"), stored("b"), rows(&folder.join("i"))), (Some(first(50)), Some(first(51)), 9));
}

/// Catches rows that are lost in silence, because their id stands twice in one input and what is there may be replaced or
/// skipped.
#[test]
fn id_twice_in_a_commit_is_an_error_whatever_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("v.npy"), 0, 3, 8);
    fs::write(folder.join("ids"), "a\nb\na\n").unwrap();
    done(folder, &["create", "i", "--dims", "8"]);
    for flag in ["--replace", "--skip-existing"] {
        for more in [&[][..], &["--dry-run"]] {
            let told = fails(folder, &[&["append", "i", "v.npy", "--ids", "ids", flag], more].concat(), 5);
            assert!(told.contains("v.npy, row 2") && told.contains("the same commit"), "{told}");
            assert_eq!(rows(&folder.join("i")), 0);
        }
    }
    // In another commit it is there already.
    done(folder, &["append", "i", "v.npy", "--ids", "ids", "--skip-existing", "--commit-every", "2"]);
    assert_eq!(rows(&folder.join("i")), 2);
}

/// Catches an example whose rows are torn apart where batches or commits end, and one that reaches over an input's end.
#[test]
fn neighbours_with_one_id_are_one_example() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A batch of such rows has 32.
    let dims = 65_536;
    npy(folder.join("v.npy"), 0, 80, dims);
    let counts = [1, 40, 2, 31, 1, 5];
    let ids: String =
        counts.iter().enumerate().map(|(id, &count)| format!("x{id}\n").repeat(count)).collect();
    fs::write(folder.join("ids"), ids).unwrap();
    done(
        folder,
        &["append", "i", "v.npy", "--ids", "ids", "--create", "--encoding", "i8", "--commit-every", "2"],
    );
    let index = Index::open(folder.join("i")).unwrap();
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.generation(), 4, "three commits of two examples, and one that says that all is done");
    let mut row = 0;
    for (id, count) in counts.into_iter().enumerate() {
        let example = snapshot.get(format!("x{id}")).unwrap().unwrap();
        assert_eq!(example.rows.len(), count, "x{id}");
        for stored in example.rows {
            assert!((stored.sketch.values()[3] - value(row, 3)).abs() < 0.1);
            row += 1;
        }
    }
    npy(folder.join("a.npy"), 0, 2, 8);
    npy(folder.join("b.npy"), 0, 2, 8);
    done(folder, &["create", "j", "--dims", "8"]);
    // Ids without the file's name: `2` is never there, but `0` twice, in two inputs.
    assert!(fails(folder, &["append", "j", "a.npy", "b.npy", "--ids", "{row}"], 5).contains("b.npy, row 0"));
}

/// Catches a dry run that changes something, or lets pass what an append refuses.
#[test]
fn dry_run_checks_everything_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    npy(folder.join("a.npy"), 0, 40, 8);
    npy(folder.join("b.npy"), 0, 40, 8);
    let mut huge = npy_header(1, 8);
    huge.extend(f32::MAX.to_le_bytes().repeat(8));
    fs::write(folder.join("huge.npy"), huge).unwrap();
    let ids = ["--ids", "{stem}/{row}", "--dry-run"];
    let told = done(folder, &[&["append", "i", "a.npy", "--create", "--json"], &ids[..]].concat());
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["rows"], 40);
    assert!(!folder.join("i").exists());
    done(folder, &["append", "i", "a.npy", "--create", "--ids", "{stem}/{row}"]);
    let files = || {
        let mut all = Vec::new();
        let mut folders = vec![folder.join("i")];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => folders.push(entry),
                    false => all.push((
                        entry.clone(),
                        fs::metadata(&entry).unwrap().modified().unwrap(),
                        fs::read(&entry).unwrap(),
                    )),
                }
            }
        }
        all.sort();
        all
    };
    let before = files();
    let dry = |args: &[&'static str]| [&["append", "i"], args, &ids[..]].concat();
    assert!(fails(folder, &dry(&["a.npy"]), 5).contains("a.npy, row 0"));
    assert!(fails(folder, &dry(&["huge.npy"]), 3).contains("norm"));
    assert!(
        fails(folder, &["append", "i", "b.npy", "a.npy", "--ids", "{row}", "--dry-run"], 5)
            .contains("a.npy, row 0")
    );
    let told: Value =
        serde_json::from_str(&done(folder, &dry(&["a.npy", "b.npy", "--skip-existing", "--json"]))).unwrap();
    assert_eq!((&told["rows"], &told["skipped"]), (&40.into(), &40.into()));
    let told: Value =
        serde_json::from_str(&done(folder, &dry(&["a.npy", "b.npy", "--replace", "--json"]))).unwrap();
    assert_eq!((&told["rows"], &told["replaced"]), (&80.into(), &40.into()));
    assert_eq!(files(), before);
}

/// Catches a stream that is not read as it comes, with a schema of its own, or read from its second row on.
#[test]
fn stdin_is_appended_as_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (index, create) in [("i", "--create"), ("j", "--create")] {
        let mut child = program(
            folder,
            &["append", index, "-", create, "--ids", "{row}", "--encoding", "f32", "--format", "npy"],
        )
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
        child.stdin.take().unwrap().write_all(&npy_bytes(0, 500, 16)).unwrap();
        assert!(child.wait().unwrap().success());
    }
    npy(folder.join("v.npy"), 0, 500, 16);
    done(folder, &["append", "k", "v.npy", "--create", "--ids", "{row}", "--encoding", "f32"]);
    assert_eq!(listing(&folder.join("i")), listing(&folder.join("k")));
    assert_eq!(listing(&folder.join("j")), listing(&folder.join("k")));
}

/// Catches blocks that are mixed up when a file has them in another order than the index.
#[test]
fn blocks_of_a_file_find_those_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let header = r#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([1f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|value| value.to_le_bytes()));
    fs::write(folder.join("v.safetensors"), bytes).unwrap();
    let create = |index, first, second| {
        done(folder, &["create", index, "--block", first, "--block", second, "--encoding", "f32"]);
    };
    create("i", "b=2", "a=1");
    done(folder, &["append", "i", "v.safetensors", "--ids", "{row}"]);
    let index = Index::open(folder.join("i")).unwrap();
    let example = index.snapshot().unwrap().get("1").unwrap().unwrap();
    assert_eq!(example.rows[0].sketch.values(), [5.0, 6.0, 2.0]);
    create("j", "b=2", "c=1");
    assert!(fails(folder, &["append", "j", "v.safetensors", "--ids", "{row}"], 3).contains("--blocks"));
    done(folder, &["create", "k", "--dims", "3"]);
    fails(folder, &["append", "k", "v.safetensors", "--ids", "{row}"], 3);
}

/// Catches a batch of the library that skips, replaces or refuses others than it says.
#[test]
fn batches_of_examples_meet_those_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::new(SketchSpec::dense("x", "", [("all", 2)]), Encoding::F32).unwrap();
    let index = Index::create(folder.path().join("i"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let (one, two) = ([Row::of_values(&[1.0, 1.0])], [Row::of_values(&[2.0, 2.0])]);
    let pair = [two[0].span(Span::tokens(0, 1)), two[0].span(Span::tokens(1, 2))];
    let done = writer.append_examples(&[("a", &one[..]), ("b", &pair[..])], Existing::Refuse).unwrap();
    assert_eq!((done.rows, done.examples, done.replaced, done.skipped), (3, 2, 0, 0));
    for batch in [[("c", &one[..]), ("a", &one[..])], [("c", &one[..]), ("c", &one[..])]] {
        let error = writer.append_examples(&batch, Existing::Refuse).unwrap_err();
        assert_eq!(error.example().unwrap().0, batch[1].0.as_bytes());
        assert!(!writer.contains("c").unwrap(), "nothing of the batch is appended");
    }
    let twice = [("c", &one[..]), ("c", &two[..]), ("a", &two[..])];
    let done = writer.append_examples(&twice, Existing::Skip).unwrap();
    assert_eq!((done.examples, done.skipped), (1, 2));
    let done = writer.append_examples(&twice, Existing::Replace).unwrap();
    assert_eq!((done.examples, done.replaced), (3, 3));
    let wrong = [Row::of_values(&[1.0, 1.0]), Row::of_values(&[f32::NAN, 0.0])];
    let error = writer.append_examples(&[("d", &one[..]), ("e", &wrong[..])], Existing::Refuse).unwrap_err();
    assert_eq!(error.example(), Some((&b"e"[..], 1)));
    assert!(writer.append_examples(&[("d", &[][..])], Existing::Replace).is_err());
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let first = |id: &str| snapshot.get(id).unwrap().unwrap().rows[0].sketch.values()[0];
    assert_eq!((first("a"), first("b"), first("c"), snapshot.rows()), (2.0, 2.0, 2.0, 4));
    assert!(snapshot.contains("c").unwrap() && !snapshot.contains("d").unwrap());
}
