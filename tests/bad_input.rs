//! Bad input: each case is a typed error that names the thing, and nothing already stored is lost.

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::indexes::{self, assert_sound, segment_files};
use fixtures::sketches::{constant, sketch, spec};
use fixtures::told;
use gradix::sketch::{OptimizerStep, Sketch, SketchError, SketchSpec};
use gradix::{
    AppendError, CommitError, CreateError, Encoding, GcOptions, Index, MaintenanceError, ManifestError,
    OpenError, Row, Schema, SegmentError, SnapshotError, Span, Tier, WriterError,
};

#[path = "bad_input/full_disk.rs"]
mod full_disk;
#[cfg(target_os = "linux")]
#[path = "bad_input/lock.rs"]
mod lock;
#[cfg(unix)]
#[path = "bad_input/permissions.rs"]
mod permissions;

fn is_other_schema(opened: &Result<Index, OpenError>) -> bool {
    matches!(opened, Err(OpenError::Manifest(ManifestError::OtherSchema { .. })))
}

fn schema() -> Schema {
    Schema::with_encodings(spec(), vec![Encoding::F16, Encoding::F32]).unwrap()
}

/// An index with the committed example `kept`.
struct Kept {
    folder: tempfile::TempDir,
    index: Index,
}

impl Kept {
    fn new() -> Self {
        let (folder, index) = indexes::create(&schema());
        let mut writer = index.writer().unwrap();
        writer.append("kept", &sketch(1)).unwrap();
        writer.commit().unwrap();
        drop(writer);
        Self { folder, index }
    }

    fn path(&self) -> &Path {
        self.index.path()
    }

    fn index_file(&self) -> PathBuf {
        self.path().join("INDEX")
    }

    fn segment_file(&self) -> PathBuf {
        segment_files(self.path()).remove(0)
    }

    /// `kept` and exactly these other examples are there, now and after opening again.
    fn assert_has(&self, others: &[&str]) {
        for index in [self.index.clone(), Index::open(self.path()).unwrap()] {
            let snapshot = index.snapshot().unwrap();
            for id in others.iter().chain(&["kept"]) {
                assert!(snapshot.get(id).unwrap().is_some(), "{id}");
            }
            assert_eq!(snapshot.get("kept").unwrap().unwrap().rows[0].sketch, sketch(1));
            assert_eq!(snapshot.rows(), 1 + others.len() as u64);
            assert_sound(&index);
        }
    }
}

/// Catches an id that is there twice: in a commit, over commits, in a batch, after a reopen.
#[test]
fn append_refuses_an_id_that_is_there() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    let refused = |result: Result<(), AppendError>, id: &str| {
        let error = result.unwrap_err();
        assert!(matches!(&error, AppendError::DuplicateId { id: given } if given == id.as_bytes()));
        assert!(told(&error).contains(id), "{}", told(&error));
    };
    refused(writer.append("kept", &sketch(2)), "kept");
    writer.append("new", &sketch(2)).unwrap();
    refused(writer.append("new", &sketch(3)), "new");
    let (one, two) = (sketch(4), sketch(5));
    refused(writer.append_batch(&[("a", Row::new(&one)), ("a", Row::new(&two))]), "a");
    refused(writer.append_batch(&[("b", Row::new(&one)), ("new", Row::new(&two))]), "new");
    assert!(!writer.contains("a").unwrap() && !writer.contains("b").unwrap());
    writer.commit().unwrap();
    refused(writer.append("new", &sketch(3)), "new");
    drop(writer);
    let mut writer = Index::open(kept.path()).unwrap().writer().unwrap();
    refused(writer.append("new", &sketch(3)), "new");
    drop(writer);
    kept.assert_has(&["new"]);
}

/// Catches a replace that adds, and a delete that makes up an example.
#[test]
fn replace_refuses_an_id_that_is_not_there() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    let error = writer.replace("nobody", &[Row::new(&sketch(2))]).unwrap_err();
    assert!(matches!(error, AppendError::NotFound { .. }));
    assert!(!writer.delete("nobody").unwrap());
    writer.commit().unwrap();
    drop(writer);
    kept.assert_has(&[]);
}

/// Catches a row of another width, or a number that no dot product survives, getting in.
#[test]
fn sketch_refuses_another_width_and_numbers_that_are_not_finite() {
    for width in [0, 4, 6] {
        let error = Sketch::dense(spec(), vec![1.0; width]).unwrap_err();
        assert!(matches!(error, SketchError::Width { given, expected: 5, .. } if given == width));
    }
    for (at, block, position) in [(0, "first", 0), (2, "first", 2), (3, "second", 0), (4, "second", 1)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 5];
            values[at] = value;
            let error = Sketch::dense(spec(), values).unwrap_err();
            assert!(
                matches!(&error, SketchError::NotFiniteValue { block: b, position: p, .. }
                    if b == block && *p == position),
                "{error}"
            );
        }
    }
}

/// Catches a norm that overflows a later dot product; the example, block and row must be named.
#[test]
fn append_refuses_a_row_that_is_too_large() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    let large = Sketch::dense(spec(), vec![0.0, 0.0, 0.0, 1.0, f32::MAX]).unwrap();
    let error = writer.append_rows("large", &[Row::new(&sketch(1)), Row::new(&large)]).unwrap_err();
    assert!(matches!(&error, AppendError::Encode { row: 1, block, .. } if block == "second"), "{error}");
    assert!(told(&error).contains("large"));
    assert!(!writer.contains("large").unwrap());
    writer.append("next", &sketch(2)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    kept.assert_has(&["next"]);
}

/// Catches zeros that are refused, or that come back as something else than zeros.
#[test]
fn append_keeps_a_row_of_zeros() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    writer.append("zero", &constant(&spec(), 0.0)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let zero = kept.index.snapshot().unwrap().get("zero").unwrap().unwrap();
    assert!(zero.rows[0].is_zero());
    assert_eq!(zero.rows[0].norms, [0.0, 0.0]);
    assert_eq!(zero.rows[0].sketch.values(), [0.0; 5]);
    assert!(!kept.index.snapshot().unwrap().get("kept").unwrap().unwrap().rows[0].is_zero());
    kept.assert_has(&["zero"]);
}

/// Catches an empty batch that makes a file, and an example without rows.
#[test]
fn append_of_nothing_does_nothing() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    writer.append_batch::<&str>(&[]).unwrap();
    let error = writer.append_rows("rowless", &[]).unwrap_err();
    assert!(matches!(&error, AppendError::NoRows { id } if id == b"rowless"));
    assert!(matches!(writer.replace("kept", &[]), Err(AppendError::NoRows { .. })));
    assert_eq!(segment_files(kept.path()).len(), 1);
    assert_eq!(writer.commit().unwrap().appended, 0);
    drop(writer);
    kept.assert_has(&[]);
}

/// Catches ids, spans, sources and metadata beyond what the format can hold.
#[test]
fn append_refuses_what_the_format_cannot_hold() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    for length in [0, 4097] {
        let id = vec![b'i'; length];
        let is_it = |result: Result<(), AppendError>| matches!(result, Err(AppendError::IdLength { length: given }) if given == length);
        assert!(is_it(writer.append(&id, &sketch(2))));
        assert!(is_it(writer.append_batch(&[(&id, Row::new(&sketch(2)))])));
        assert!(is_it(writer.replace(&id, &[Row::new(&sketch(2))])));
        assert!(is_it(writer.delete(&id).map(|_| ())));
    }
    let (good, long) = (sketch(2), "s".repeat(256));
    let mut second = |row| {
        let error = writer.append_rows("bad", &[Row::new(&good), row]).unwrap_err();
        assert!(!writer.contains("bad").unwrap());
        error
    };
    for (start, end) in [(3, 3), (4, 3), (0, 0), (u32::MAX, u32::MAX)] {
        let error = second(Row::new(&good).span(Span::tokens(start, end)));
        assert!(matches!(error, AppendError::EmptySpan { row: 1, .. }), "{error}");
    }
    for source in ["", &long] {
        let error = second(Row::new(&good).source(source));
        assert!(matches!(error, AppendError::SourceLength { row: 1, .. }), "{error}");
    }
    let metadata = vec![0; 65_537];
    let error = second(Row::new(&good).metadata(&metadata));
    assert!(matches!(error, AppendError::MetadataLength { row: 1, length: 65_537, .. }), "{error}");
    assert!(told(&error).contains("bad"));
    let many = vec![Row::new(&good); 65_537];
    let error = writer.append_rows("bad", &many).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { rows: 65_537, .. }), "{error}");

    // The longest that fit.
    let longest = "i".repeat(4096);
    let row = Row::new(&good).span(Span::tokens(u32::MAX - 1, u32::MAX)).source(&long[1..]);
    writer.append_rows(&longest, &[row.metadata(&metadata[1..])]).unwrap();
    writer.commit().unwrap();
    drop(writer);
    kept.assert_has(&[&longest]);
    let example = kept.index.snapshot().unwrap().get(&longest).unwrap().unwrap();
    assert_eq!(
        (example.rows[0].metadata.len(), example.rows[0].source.as_deref()),
        (65_536, Some(&long[1..]))
    );
}

/// Catches sketches of two specs in one index; the message must show both.
#[test]
fn append_refuses_another_spec() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    let others = [
        SketchSpec::dense("test", "v2", [("first", 3), ("second", 2)]),
        SketchSpec::dense("test", "v1", [("second", 2), ("first", 3)]),
        SketchSpec::dense("test", "v1", [("first", 5)]),
        SketchSpec::rapid_grad(7, 16),
    ];
    for other in others {
        let error = writer.append("bad", &constant(&other, 1.0));
        let error = error.unwrap_err();
        assert!(matches!(&error, AppendError::OtherSpec { given, index, .. }
            if **given == other && **index == spec()));
        let message = told(&error);
        assert!(message.contains(&other.to_string()) && message.contains(&spec().to_string()), "{message}");
    }
    drop(writer);
    kept.assert_has(&[]);
}

/// Catches folders, files and damage that are taken for an index.
#[test]
fn open_refuses_what_is_not_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| match Index::open(path) {
        Err(OpenError::NotAnIndex { path: named, reason }) => {
            assert_eq!(named, path);
            reason
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&folder.path().join("nowhere")), "it does not exist");
    assert_eq!(refused(folder.path()), "it has no INDEX file");
    let file = folder.path().join("file");
    std::fs::write(&file, b"text").unwrap();
    assert_eq!(refused(&file), "it is not a folder");
    let odd = folder.path().join("odd");
    std::fs::create_dir_all(odd.join("INDEX")).unwrap();
    assert_eq!(refused(&odd), "INDEX is not a regular file");
    std::fs::remove_dir(odd.join("INDEX")).unwrap();
    for bytes in [&b""[..], b"\x89GD", b"\x89GDX\r\n\x1a\nmore", b"\x89GDI\n\x1a\nunix newlines"] {
        std::fs::write(odd.join("INDEX"), bytes).unwrap();
        refused(&odd);
    }
}

fn with_header(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
}

/// An `INDEX` file with another body, its length and checksums made right.
fn with_body(sound: &[u8], body: &str) -> Vec<u8> {
    let mut bytes = sound[..64].to_vec();
    bytes.extend(body.as_bytes());
    bytes[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes[56..60].copy_from_slice(&crc32fast::hash(body.as_bytes()).to_le_bytes());
    with_header(&mut bytes, 0, &sound[..8]);
    bytes
}

/// Catches a reader that guesses its way through a file of a later version.
#[test]
fn open_refuses_what_it_does_not_understand() {
    let kept = Kept::new();
    let sound = std::fs::read(kept.index_file()).unwrap();
    let open = |at: usize, field: &[u8]| {
        let mut bytes = sound.clone();
        with_header(&mut bytes, at, field);
        std::fs::write(kept.index_file(), bytes).unwrap();
        Index::open(kept.path())
    };
    let error = open(8, &2u32.to_le_bytes()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, supported: 1, .. }), "{error}");
    assert!(told(&error).contains("INDEX") && told(&error).contains('2'));
    let error = open(16, &(1u64 << 63 | 4).to_le_bytes()).unwrap_err();
    assert!(matches!(error, OpenError::UnknownFeature { bits, .. } if bits == 1 << 63 | 4), "{error}");
    assert!(matches!(open(8, &0u32.to_le_bytes()), Err(OpenError::Damaged { offset: 8, .. })));
    assert!(matches!(open(12, &9u32.to_le_bytes()), Err(OpenError::Damaged { offset: 12, .. })));

    // What only a writer must understand keeps only writers out.
    let index = open(24, &2u64.to_le_bytes()).unwrap();
    assert!(index.snapshot().unwrap().get("kept").unwrap().is_some());
    assert!(matches!(index.writer(), Err(WriterError::UnknownFeature { bits: 2, .. })));
    // What is only informative keeps nobody out.
    let index = open(32, &u64::MAX.to_le_bytes()).unwrap();
    drop(index.writer().unwrap());
    // Another index's UUID.
    let error = open(40, &[7; 16]).unwrap_err();
    assert!(matches!(error, OpenError::Manifest(ManifestError::Foreign { .. })), "{error}");

    std::fs::write(kept.index_file(), sound).unwrap();
    kept.assert_has(&[]);
}

/// Catches an `INDEX` whose body is taken although it is no schema.
#[test]
fn open_refuses_a_body_that_is_no_schema() {
    let kept = Kept::new();
    let sound = std::fs::read(kept.index_file()).unwrap();
    let schema = String::from_utf8(sound[64..].to_vec()).unwrap();
    let deep = "[".repeat(100_000);
    let bodies = [
        String::new(),
        "null".into(),
        deep,
        schema.replace("\"spec\"", "\"more\":1,\"spec\""),
        schema.replace("\"f16\"", "\"f12\""),
        schema.replace("\"spec\":", "\"spec\":1,\"spec\":"),
        schema.replace("\"dims\":3", "\"dims\":3,\"dims\":3"),
        schema.replace("\"kind\":\"dense\"", "\"kind\":\"dense\",\"kind\":\"dense\""),
        schema.replace("\"digest\":\"v1\"", "\"digest\":\"v1\",\"digest\":\"v1\""),
        schema.replace("\"dims\":3", "\"dims\":3.0"),
        format!("\u{FEFF}{schema}"),
        schema.replace("\"f16\",", ""),
        schema.replace("\"dims\":3", "\"dims\":0"),
        schema.replace("\"dims\":3", "\"dims\":4000000000"),
        schema.replace("\"first\"", "\"second\""),
        schema.replace("\"first\"", "\"\""),
    ];
    let tiers = [
        "[]",
        "null",
        "[1]",
        r#"["i8"]"#,
        r#"[{"kind":"i4"}]"#,
        r#"[{"kind":"sign"}]"#,
        r#"[{"kind":"sign","seed":"1","more":1}]"#,
        r#"[{"kind":"sign","seed":"1"},{"kind":"sign","seed":"2"}]"#,
        r#"[{"kind":"i8","seed":"1"}]"#,
        r#"[{"kind":"i8"},{"kind":"i8"}]"#,
        r#"[{"kind":"i8"},{"kind":"sign","seed":"1"}]"#,
    ];
    let tiers =
        tiers.map(|tiers| schema.replace("\"encodings\"", &format!("\"tiers\":{tiers},\"encodings\"")));
    let sketchers = [
        r#"{"kind":"sjlt","seed":"7"}"#,
        r#"{"kind":"kronecker","version":2,"seed":"7","sides":[[1,3],[2,1]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":7,"sides":[[1,3],[2,1]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7"}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3],[2,1],[1,1]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3],[2,1,1]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3],[2,2]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3],[-2,-1]]}"#,
        r#"{"kind":"kronecker","version":1,"seed":"7","sides":[[1,3],[2,1]],"routing":"prefix"}"#,
    ];
    let sketcher = r#"{"kind":"dense","name":"test","digest":"v1"}"#;
    let sketchers = sketchers.map(|other| schema.replace(sketcher, other));
    let steps = [
        "null",
        r#"{"kind":"sgd"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.999","epsilon":"0.1"}"#,
        r#"{"kind":"adam","beta_1":"1","beta_2":"0.999","epsilon":"0.1","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.90","epsilon":"0.1","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":".9","epsilon":"0.1","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"00.9","beta_2":"0.9","epsilon":"0.1","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.9","epsilon":"1e-8","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.9","epsilon":"-1","state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.9","epsilon":0.1,"state":"s"}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.9","epsilon":"0.1","state":""}"#,
        r#"{"kind":"adam","beta_1":"0.9","beta_2":"0.9","epsilon":"0.1","state":"s","more":1}"#,
    ];
    let blocks = r#"}]},"encodings""#;
    let steps =
        steps.map(|step| schema.replace(blocks, &format!("}}],\"optimizer\":{step}}},\"encodings\"")));
    for body in bodies.into_iter().chain(tiers).chain(sketchers).chain(steps) {
        assert_ne!(body, schema);
        std::fs::write(kept.index_file(), with_body(&sound, &body)).unwrap();
        let error = Index::open(kept.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { offset: 64, .. }), "{error} for {body:.80}");
        // A sketcher of a later version is named.
        assert_eq!(
            body.contains("sjlt"),
            told(&error).contains("unknown variant `sjlt`"),
            "{}",
            told(&error)
        );
    }
    std::fs::write(kept.index_file(), sound).unwrap();
    kept.assert_has(&[]);
}

/// Catches a seed that is read from a JSON number, which other programs round above 2^53, or from another
/// text than the one that it is written as. The message must say so: early indexes have numbers.
#[test]
fn open_refuses_a_seed_that_is_no_string_of_digits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    let schema = Schema::new(SketchSpec::rapid_grad(7, 16), Encoding::F16).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 7 }]).unwrap();
    Index::create(&path, &schema).unwrap();
    let sound = std::fs::read(path.join("INDEX")).unwrap();
    let body = String::from_utf8(sound[64..].to_vec()).unwrap();
    let seed = r#""seed":"7""#;
    assert_eq!(body.matches(seed).count(), 2, "{body}");
    assert_eq!(with_body(&sound, &body), sound);
    let refused =
        ["7", "7.0", "-7", "null", r#""""#, r#""07""#, r#""+7""#, r#"" 7""#, r#""18446744073709551616""#];
    for text in refused {
        let bad = format!("\"seed\":{text}");
        let of_the_tier = body.rfind(seed).map(|at| body[..at].to_owned() + &bad + &body[at + seed.len()..]);
        for body in [body.replacen(seed, &bad, 1), of_the_tier.unwrap()] {
            std::fs::write(path.join("INDEX"), with_body(&sound, &body)).unwrap();
            let error = Index::open(&path).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { offset: 64, .. }), "{error} for {body}");
            let told = told(&error);
            assert!(told.contains("INDEX") && told.contains("a seed: a string of decimal digits"), "{told}");
        }
    }
    // Any other seed is a good one, but the schema is then not the one that the manifest knows.
    for text in [r#""0""#, r#""18446744073709551615""#] {
        let body = body.replace(seed, &format!("\"seed\":{text}"));
        std::fs::write(path.join("INDEX"), with_body(&sound, &body)).unwrap();
        assert!(is_other_schema(&Index::open(&path)), "{body}");
    }
    // The same with its keys in another order and with blanks: read, but with another digest.
    let sign = r#"{"kind":"sign","seed":"7"}"#;
    let reordered = body.replace(sign, "{ \"seed\": \"7\",\n\"kind\": \"sign\" }");
    assert_ne!(reordered, body);
    std::fs::write(path.join("INDEX"), with_body(&sound, &reordered)).unwrap();
    assert!(is_other_schema(&Index::open(&path)));
    std::fs::write(path.join("INDEX"), sound).unwrap();
    assert_eq!(Index::open(&path).unwrap().schema(), &schema);
}

/// Catches a segment of a later version, another index or another schema that is read all the same.
#[test]
fn snapshot_refuses_a_segment_that_it_does_not_understand() {
    let kept = Kept::new();
    let file = kept.segment_file();
    let sound = std::fs::read(&file).unwrap();
    let open = |at: usize, field: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
        bytes[124..128].copy_from_slice(&crc);
        // Never in place: the file may be mapped.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let index = Index::open(kept.path()).unwrap();
        let report = index.verify().unwrap();
        assert_eq!(report.findings.len(), 1, "{report:#?}");
        assert_eq!(report.findings[0].file, file.display().to_string());
        match index.snapshot() {
            Err(SnapshotError::Segment(error)) => {
                assert!(error.to_string().contains(&file.display().to_string()), "{error}");
                error
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(open(0, b"\x88"), SegmentError::NotASegment { .. }));
    assert!(matches!(open(8, &7u32.to_le_bytes()), SegmentError::Newer { found: 7, supported: 1, .. }));
    assert!(matches!(open(16, &[2]), SegmentError::UnknownFeature { bits: 2, .. }));
    assert!(matches!(open(16, &[7]), SegmentError::UnknownFeature { bits: 6, .. }));
    // Tiers, which the schema does not have.
    assert!(matches!(open(16, &[1]), SegmentError::Damaged { offset: 16, .. }));
    assert!(matches!(open(40, &[9; 16]), SegmentError::Foreign { .. }));
    assert!(matches!(open(56, &[9; 16]), SegmentError::Misplaced { .. }));
    assert!(matches!(open(72, &[9; 32]), SegmentError::OtherSchema { .. }));
    assert!(matches!(open(111, &[0x80]), SegmentError::Damaged { offset: 104, .. }));
    for at in 116..124 {
        assert!(matches!(open(at, &[1]), SegmentError::Damaged { offset: 116, .. }));
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, sound).unwrap();
    kept.assert_has(&[]);
}

/// Catches a compaction that drops what a feature that it does not know has added to a segment.
#[test]
fn writer_refuses_a_segment_that_it_may_only_read() {
    let kept = Kept::new();
    let file = kept.segment_file();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[24] = 1;
    let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
    bytes[124..128].copy_from_slice(&crc);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let index = Index::open(kept.path()).unwrap();
    assert!(index.snapshot().unwrap().get("kept").unwrap().is_some());
    let mut writer = index.writer().unwrap();
    let error = writer.compact(gradix::CompactOptions::all()).unwrap_err();
    assert!(told(&error).contains("features 0x1"), "{}", told(&error));
    // Appending beside it is harmless.
    writer.append("new", &sketch(2)).unwrap();
    writer.commit().unwrap();
    assert_eq!(index.snapshot().unwrap().rows(), 2);
}

/// Catches a create that harms what is there.
#[test]
fn create_refuses_a_folder_that_is_taken() {
    let kept = Kept::new();
    let create = |path: &Path| Index::options().create(path, &schema()).unwrap_err();
    assert!(matches!(create(kept.path()), CreateError::Exists { .. }));
    kept.assert_has(&[]);
    assert!(matches!(create(kept.folder.path()), CreateError::NotEmpty { .. }));
    let file = kept.folder.path().join("file");
    std::fs::write(&file, b"text").unwrap();
    assert!(matches!(create(&file), CreateError::Io { .. }));
    assert!(matches!(create(&file.join("below")), CreateError::Io { .. }));
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
    kept.assert_has(&[]);
}

/// Catches a spec that no reader would accept being written into an index.
#[test]
fn schema_refuses_specs_that_make_no_sense() {
    let name = "n".repeat(256);
    let dense = |blocks: Vec<(&str, u32)>| SketchSpec::dense("test", "v1", blocks);
    let stepped = |beta_1, beta_2, epsilon, state: &str| {
        spec().with_optimizer(OptimizerStep::adam(beta_1, beta_2, epsilon, state))
    };
    let specs = [
        dense(vec![]),
        dense(vec![("", 1)]),
        dense(vec![(&name, 1)]),
        dense(vec![("a", 1), ("a", 1)]),
        dense(vec![("a", 0)]),
        dense(vec![("a", (1 << 28) + 1)]),
        dense(vec![("a", 1 << 28), ("b", 1 << 28), ("c", 1 << 28), ("d", 1 << 28), ("e", 1)]),
        SketchSpec::rapid_grad(1, 8),
        SketchSpec::rapid_grad(1, 100),
        SketchSpec::rapid_grad_blocks::<String>(1, []),
        SketchSpec::kronecker(1, [("a", 0, 4)]),
        SketchSpec::kronecker(1, [("a", (1 << 14) + 1, 1)]),
        stepped(1.0, 0.9, 0.1, "s"),
        stepped(0.9, -0.1, 0.1, "s"),
        stepped(0.9, 0.9, f32::NAN, "s"),
        stepped(0.9, 0.9, f32::INFINITY, "s"),
        stepped(0.9, 0.9, 0.1, ""),
        stepped(0.9, 0.9, 0.1, &name),
    ];
    for spec in specs {
        let error = Schema::new(spec.clone(), Encoding::I8).unwrap_err();
        assert!(matches!(error, SketchError::InvalidSpec { .. }), "{spec}: {error}");
        assert!(Sketch::dense(spec, vec![]).is_err());
    }
    assert!(Schema::with_encodings(spec(), vec![Encoding::I8]).is_err());
    let schema = Schema::new(spec(), Encoding::I8).unwrap();
    for tiers in [vec![Tier::I8], vec![Tier::Sign { seed: 1 }, Tier::Sign { seed: 2 }]] {
        assert!(matches!(schema.clone().with_tiers(tiers), Err(SketchError::InvalidSpec { .. })));
    }
    let schema = Schema::new(spec(), Encoding::F16).unwrap();
    assert!(schema.with_tiers([Tier::I8, Tier::I8]).is_err());
}

/// Catches two writers at once, and a writer for an index that was opened for reading.
#[test]
fn second_writer_is_refused_while_the_first_is_open() {
    let kept = Kept::new();
    let mut first = kept.index.writer().unwrap();
    first.append("new", &sketch(2)).unwrap();
    for index in [kept.index.clone(), Index::open(kept.path()).unwrap()] {
        let error = index.writer().unwrap_err();
        assert!(matches!(&error, WriterError::Busy { path } if path == kept.path()), "{error}");
    }
    first.commit().unwrap();
    drop(first);
    let read_only = Index::options().read_only(true).open(kept.path()).unwrap();
    assert!(matches!(read_only.writer(), Err(WriterError::ReadOnly { .. })));
    kept.assert_has(&["new"]);
}

/// Catches a new writer that is refused because a reader of this process has not let go of the old
/// writer's manifest yet.
#[test]
fn writer_after_writer_is_given_while_readers_read() {
    let kept = Kept::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let snapshot = kept.index.snapshot().unwrap();
                    assert!(snapshot.get("kept").unwrap().is_some());
                    assert_sound(&kept.index);
                }
            });
        }
        let opened: Vec<Result<(), WriterError>> = (0..20).map(|_| kept.index.writer().map(drop)).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for (i, result) in opened.into_iter().enumerate() {
            if let Err(error) = result {
                panic!("writer {i}: {}", told(&error));
            }
        }
    });
    kept.assert_has(&[]);
}

/// Catches a commit that stores a payload which no reader would decode, or loses its rows over it.
#[test]
fn commit_refuses_a_payload_that_is_too_long() {
    let kept = Kept::new();
    let mut writer = kept.index.writer().unwrap();
    writer.append("new", &sketch(2)).unwrap();
    let error = writer.prepare_commit().unwrap().payload(vec![0; (1 << 20) + 1]).commit().unwrap_err();
    assert!(matches!(error, CommitError::PayloadLength { length } if length == (1 << 20) + 1));
    // Nothing has happened: the same rows can be committed.
    assert_eq!(kept.index.snapshot().unwrap().rows(), 1);
    let commit = writer.prepare_commit().unwrap().payload(vec![7; 1 << 20]).commit().unwrap();
    assert_eq!((commit.generation, commit.appended), (2, 1));
    drop(writer);
    assert_eq!(kept.index.snapshot().unwrap().payload().unwrap(), vec![7; 1 << 20]);
    kept.assert_has(&["new"]);
}

/// Catches a snapshot of a generation that does not exist, and maintenance amid uncommitted changes.
#[test]
fn snapshot_refuses_a_generation_that_is_not_there() {
    let kept = Kept::new();
    for asked in [2, u64::MAX] {
        let error = kept.index.snapshot_at(asked).unwrap_err();
        assert!(matches!(error, SnapshotError::NoSuchGeneration { oldest: 0, newest: 1, .. }), "{error}");
    }
    assert_eq!(kept.index.snapshot_at(0).unwrap().rows(), 0);
    let mut writer = kept.index.writer().unwrap();
    writer.append("new", &sketch(2)).unwrap();
    let refused = writer.compact(gradix::CompactOptions::all());
    assert!(matches!(refused, Err(MaintenanceError::Uncommitted)));
    assert!(matches!(writer.gc(GcOptions::default()), Err(MaintenanceError::Uncommitted)));
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(std::time::Duration::ZERO)).unwrap();
    let error = kept.index.snapshot_at(1).unwrap_err();
    assert!(matches!(error, SnapshotError::NoSuchGeneration { asked: 1, oldest: 2, newest: 2 }), "{error}");
    drop(writer);
    kept.assert_has(&["new"]);
}
