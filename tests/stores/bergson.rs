//! bergson's stores.

use std::fs;

use gradix::Span;
use gradix::formats::stores::{Store, StoreIds, StoreOptions, open_store};
use gradix::formats::{Batch, Number};
use serde::Deserialize;

use super::{
    Ends, Ranked, Rows, assert_ranks_like, copy, cut_off, described, fixture, json, read, refused, replace,
};

fn documents() -> StoreOptions {
    StoreOptions::default().ids(StoreIds::Column("doc".into()))
}

fn open(name: &str, options: &StoreOptions) -> Rows {
    read(Store::Bergson, &fixture("bergson").join(name), options).unwrap()
}

fn digest(rows: &Rows) -> &str {
    let (name, digest) = described(&rows.spec);
    assert_eq!(name, "bergson");
    digest
}

/// What bergson's `Attributor` finds, in rows.
#[derive(Deserialize)]
struct Expected {
    proponents: Found,
    opponents: Found,
}

#[derive(Deserialize)]
struct Found {
    rows: Vec<Vec<u32>>,
    scores: Vec<Vec<f64>>,
}

impl Found {
    fn named(self) -> Ranked {
        let named = |rows: Vec<u32>| rows.iter().map(|row| format!("train-{row}")).collect();
        Ranked { ids: self.rows.into_iter().map(named).collect(), scores: self.scores }
    }
}

/// Catches modules, rows or numbers in another order or place than bergson means, a query store whose spec is not that
/// of its index, and ids that go to other rows.
#[test]
fn bergson_ranks_the_same() {
    let rows = open("train", &documents());
    let expected: Expected = json("bergson/expected.json");
    let ends = Ends { proponents: expected.proponents.named(), opponents: expected.opponents.named() };
    let queries = open("query", &documents());
    assert_eq!(queries.spec, rows.spec);
    assert_ranks_like(&rows, &queries.sketches(), &ends);
}

/// Catches blocks in the order of their names, which a mapping in JSON invites, and a type that is misread.
#[test]
fn bergson_blocks_are_in_the_order_of_the_file() {
    let rows = open("train", &StoreOptions::default());
    let names: Vec<_> = rows.spec.blocks().iter().map(|block| (block.name.as_str(), block.dims)).collect();
    assert_eq!(names[0], ("layers.0.self_attn.q_proj", 16));
    assert_eq!(names[6], ("layers.0.mlp.down_proj", 16));
    assert_eq!(rows.ids()[..2], ["0", "1"]);
    let bytes = fs::read(fixture("bergson/train/gradients.bin")).unwrap();
    let last = f32::from_le_bytes(*bytes.last_chunk().unwrap());
    assert_eq!(rows.batch.values.last(), Some(&last));
}

/// Catches halves that are misread, and rows of unit length that pass for raw ones.
#[test]
fn bergson_halves_of_unit_length() {
    let rows = open("unit-f16", &documents());
    for row in 0..rows.batch.rows {
        assert!((super::length(rows.values(row)) - 1.0).abs() < 1e-3);
    }
    assert!(digest(&rows).contains("unit_normalize=true"), "{}", digest(&rows));
    assert_ne!(digest(&rows), digest(&open("train", &documents())));
    let source = open_store(Store::Bergson, fixture("bergson/unit-f16"), &documents()).unwrap();
    assert_eq!((source.number(), source.rows()), (Number::F16, Some(4)));
}

/// Catches settings that decide what a row is and are not in the digest.
#[test]
fn bergson_digest_has_the_settings() {
    let rows = open("train", &StoreOptions::default());
    let digest = digest(&rows);
    for word in [
        "projection_dim=4",
        "projection_type=\"rademacher\"",
        "projection_seed=null",
        "projection_version=2",
        "model=\"model\"",
        "loss_reduction=\"sum\"",
        "unit_normalize=false",
    ] {
        assert!(digest.split(' ').any(|found| found == word), "{word} is not in {digest}");
    }
    // How a Hessian is inverted says nothing where there is none.
    assert!(!digest.contains("inversion_cfg"), "{digest}");
    let (_folder, path) = copy("bergson/train");
    replace(&path.join("config.yaml"), "hessian_path: null", "hessian_path: runs/hessian");
    let rows = read(Store::Bergson, &path, &documents()).unwrap();
    assert!(
        super::described(&rows.spec)
            .1
            .contains("hessian_path=\"runs/hessian\" ev_correction=false inversion_cfg={")
    );
}

/// Catches rows of tokens that go to other examples or places, and ids that are counted by rows.
#[test]
fn bergson_rows_of_tokens() {
    let rows = open("tokens-bf16", &documents());
    let source = open_store(Store::Bergson, fixture("bergson/tokens-bf16"), &documents()).unwrap();
    assert_eq!(source.number(), Number::Bf16);
    let mut expected = Vec::new();
    let offsets = fs::read(fixture("bergson/tokens-bf16/offsets.npy")).unwrap();
    let offsets: Vec<_> = offsets[128..].chunks(8).map(|at| u32::from(at[0])).collect();
    for (example, range) in offsets.windows(2).enumerate() {
        for token in 0..range[1] - range[0] {
            expected.push((format!("few-{example}"), Span::tokens(token, token + 1)));
        }
    }
    assert_eq!(rows.ids().into_iter().zip(rows.batch.spans.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(expected.len(), 17);
}

/// Catches stores of before `base_dtype` that are refused or misread.
#[test]
fn bergson_structured_type_of_old_versions() {
    let (_folder, path) = copy("bergson/train");
    let new = "\"base_dtype\": \"float32\"";
    replace(
        &path.join("info.json"),
        new,
        r#""dtype": {"names": ["a"], "formats": ["(16,)<f4"], "itemsize": 448}"#,
    );
    let old = read(Store::Bergson, &path, &documents()).unwrap();
    assert_eq!(old.batch, open("train", &documents()).batch);
}

/// Catches ids of a file or a pattern that go to other rows, and a file that is of something else.
#[test]
fn bergson_ids_from_elsewhere() {
    let ids = |ids| open("query", &StoreOptions::default().ids(ids)).ids();
    assert_eq!(ids(StoreIds::Pattern("{id}-th".into())), ["0-th", "1-th", "2-th"]);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("ids.txt");
    let options = StoreOptions::default().ids(StoreIds::File(list.clone()));
    for text in ["a\nb\nc\n", "a\r\nb\r\nc"] {
        fs::write(&list, text).unwrap();
        assert_eq!(ids(StoreIds::File(list.clone())), ["a", "b", "c"]);
    }
    for (text, reason) in [
        ("a\nb\n", "there are 2 ids, and more examples"),
        ("a\nb\nc\nd\n", "more ids than the 3 examples"),
        (&format!("{}\n", "a".repeat(5000)), "line 1 is too long"),
    ] {
        fs::write(&list, text).unwrap();
        let told = refused(Store::Bergson, &fixture("bergson/query"), &options);
        assert!(told.contains(reason), "{told}");
    }
    let pattern = StoreOptions::default().ids(StoreIds::Pattern("all".into()));
    assert!(refused(Store::Bergson, &fixture("bergson/query"), &pattern).contains("no {id}"));
    let none = StoreOptions::default().ids(StoreIds::Column("docs".into()));
    let told = refused(Store::Bergson, &fixture("bergson/query"), &none);
    assert!(told.contains("no \"docs\"; there are doc, text, input_ids, length, loss"), "{told}");
    let lists = StoreOptions::default().ids(StoreIds::Column("input_ids".into()));
    assert!(refused(Store::Bergson, &fixture("bergson/query"), &lists).contains("can be ids"));
    let numbers = StoreOptions::default().ids(StoreIds::Column("length".into()));
    assert_eq!(open("query", &numbers).ids().len(), 3);
}

/// Catches one of several stores that is taken unasked, and a part that is not found.
#[test]
fn bergson_parts() {
    let parts = fixture("bergson");
    let told = refused(Store::Bergson, &parts, &StoreOptions::default());
    assert!(told.contains("query, tokens-bf16, train, unit-f16"), "{told}");
    let told = refused(Store::Bergson, &parts, &StoreOptions::default().part("tests"));
    assert!(told.contains("no \"tests\""), "{told}");
    let part = read(Store::Bergson, &parts, &documents().part("train")).unwrap();
    assert_eq!(part.batch, open("train", &documents()).batch);
}

/// Catches damage that becomes rows, or an error that does not say where and what.
#[test]
fn bergson_damaged_stores_are_refused() {
    type Damage = fn(&std::path::Path);
    let cases: [(&str, Damage, &str); 12] = [
        (
            "train",
            |path| cut_off(&path.join("gradients.bin"), 1),
            "the file ends, where 24 rows of 112 dims have 10752 bytes, at byte 10751",
        ),
        ("train", |path| fs::remove_file(path.join("gradients.bin")).unwrap(), "cannot open"),
        ("train", |path| cut_off(&path.join("info.json"), 1), "no JSON as expected"),
        ("train", |path| replace(&path.join("info.json"), "float32", "int8"), "numbers of type \"int8\""),
        ("train", |path| replace(&path.join("info.json"), "float32", "float64"), "the file ends"),
        ("train", |path| replace(&path.join("info.json"), ": 16,", ": 0,"), "has 0 dims"),
        ("train", |path| replace(&path.join("info.json"), "k_proj", "q_proj"), "occurs twice"),
        (
            "train",
            |path| {
                let mut bytes = fs::read(path.join("gradients.bin")).unwrap();
                let at = 4 * (7 * 112 + 16 + 3);
                bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                fs::write(path.join("gradients.bin"), bytes).unwrap();
            },
            "row 7, block \"layers.0.self_attn.k_proj\": value 3 is NaN",
        ),
        (
            "train",
            |path| cut_off(&path.join("data.hf/data-00000-of-00001.arrow"), 900),
            "the Arrow stream is cut off",
        ),
        (
            "train",
            |path| replace(&path.join("data.hf/state.json"), "data-0", "../data-0"),
            "is no file of this folder",
        ),
        ("train", |path| replace(&path.join("config.yaml"), "steps:", "steps: ]"), "not valid YAML"),
        (
            "tokens-bf16",
            |path| cut_off(&path.join("offsets.npy"), 8),
            "the offsets end within example 3, before the last of 17 rows, at byte 160",
        ),
    ];
    for (name, damage, reason) in cases {
        let (_folder, path) = copy(&format!("bergson/{name}"));
        damage(&path);
        let told = refused(Store::Bergson, &path, &documents());
        assert!(told.contains(reason), "{told}, where {reason} is expected");
    }
    let nothing = tempfile::tempdir().unwrap();
    assert!(refused(Store::Bergson, nothing.path(), &documents()).contains("there is no info.json"));
    let (folder, path) = copy("bergson/train");
    let unfinished = folder.path().join("train.part");
    fs::rename(path, &unfinished).unwrap();
    assert!(refused(Store::Bergson, &unfinished, &documents()).contains("not finished"));
}

/// Catches a store that is read or mapped as a whole: this one has 2^32 rows and is longer than any memory.
#[test]
fn bergson_huge_store_is_read_by_ranges() {
    const ROWS: u64 = 1 << 32;
    let folder = tempfile::tempdir().unwrap();
    let info = serde_json::json!({ "num_grads": ROWS, "grad_sizes": { "b": 200, "a": 56 }, "base_dtype": "float32" });
    fs::write(folder.path().join("info.json"), info.to_string()).unwrap();
    let numbers = fs::File::create(folder.path().join("gradients.bin")).unwrap();
    numbers.set_len(ROWS * 256 * 4).unwrap();
    let mut source = open_store(Store::Bergson, folder.path(), &StoreOptions::default()).unwrap();
    source.skip(ROWS - 2).unwrap();
    let mut batch = Batch::default();
    source.read(100, &mut batch).unwrap();
    assert_eq!((batch.rows, batch.values.len()), (2, 512));
    assert_eq!(batch.ids, [b"4294967294", b"4294967295"]);
    source.read(100, &mut batch).unwrap();
    assert_eq!(batch.rows, 0);
    assert_eq!(described(source.spec()).1, "projection unknown settings unknown");
}
