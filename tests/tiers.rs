//! Coarse tiers through the life of an index. What they hold is compared with the rows by `verify`;
//! `tests/second_reader.rs` compares both with the specification.

mod fixtures;

use std::collections::BTreeSet;

use fixtures::indexes::{self, assert_sound};
use fixtures::sketches::{constant, sketch_of};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{CompactOptions, Encoding, GcOptions, Index, Row, Schema, Tier};

fn spec() -> SketchSpec {
    SketchSpec::dense("test", "v1", [("one", 1), ("odd", 300), ("even", 256)])
}

fn schema() -> Schema {
    Schema::with_encodings(spec(), vec![Encoding::F16, Encoding::F32, Encoding::I8]).unwrap()
}

fn sketch(seed: u64) -> Sketch {
    sketch_of(&spec(), seed)
}

/// Catches tiers that are lost, or mixed up between rows, when segments are reopened, replaced, copied
/// or collected.
#[test]
fn tiers_survive_reopening_deletes_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    let schema = schema().with_tiers([Tier::Sign { seed: 7 }, Tier::I8]).unwrap();
    let options = || Index::options().segment_bytes(1 << 20);
    let mut writer = options().create(&path, &schema).unwrap().writer().unwrap();
    let batch: Vec<Sketch> = (0..900).map(sketch).collect();
    let rows: Vec<(String, Row<'_>)> =
        batch.iter().zip(0..).map(|(sketch, i)| (format!("{i}"), Row::new(sketch))).collect();
    writer.append_batch(&rows).unwrap();
    writer.commit().unwrap();
    drop(writer);

    let index = options().open(&path).unwrap();
    assert_eq!(index.snapshot().unwrap().schema(), &schema);
    assert_sound(&index);
    let mut writer = index.writer().unwrap();
    for i in (0..900).step_by(7) {
        assert!(writer.delete(format!("{i}")).unwrap());
    }
    let two = [sketch(1), sketch(2)];
    writer.replace("1", &two.each_ref().map(Row::new)).unwrap();
    writer.commit().unwrap();
    assert_sound(&index);
    let rows = index.snapshot().unwrap().rows();
    assert!(writer.compact(CompactOptions::all()).unwrap().rows_copied > 700);
    writer.gc(GcOptions::default().keep_generations(1).grace(std::time::Duration::ZERO)).unwrap();
    drop(writer);
    assert_sound(&index);
    let snapshot = Index::open(&path).unwrap().snapshot().unwrap();
    assert_eq!(snapshot.rows(), rows);
    assert_eq!(snapshot.get("1").unwrap().unwrap().rows.len(), 2);

    let stats = snapshot.stats().unwrap();
    let columns: BTreeSet<(&str, Option<&str>, Option<&str>)> = stats
        .columns
        .iter()
        .filter(|column| column.tier.is_some())
        .map(|column| (column.name.as_str(), column.tier.as_deref(), column.block.as_deref()))
        .collect();
    let codes = |tier, block| ("codes", Some(tier), Some(block));
    let expected = [
        codes("i8", "odd"),
        codes("i8", "one"),
        codes("sign", "even"),
        codes("sign", "odd"),
        codes("sign", "one"),
        ("factors", Some("i8"), None),
        ("factors", Some("sign"), None),
    ];
    assert_eq!(columns, expected.into());
}

/// Catches a schema without tiers whose bytes, and so whose digest, are not those of before, and a list
/// of tiers that does not come back.
#[test]
fn schema_keeps_its_bytes_without_tiers() {
    let json = serde_json::to_string(&schema()).unwrap();
    assert!(json.ends_with(r#""encodings":["f16","f32","i8"]}"#), "{json}");
    let tiered = schema().with_tiers([Tier::I8, Tier::Sign { seed: u64::MAX }]).unwrap();
    let json = serde_json::to_string(&tiered).unwrap();
    let tiers = r#""tiers":[{"kind":"sign","seed":"18446744073709551615"},{"kind":"i8"}]}"#;
    assert!(json.ends_with(tiers), "{json}");
    assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), tiered);
    assert_eq!(tiered.with_tiers([]).unwrap(), schema());
}

/// Catches an append that goes on with rows of which one cannot be encoded, tiers or not.
#[test]
fn append_refuses_what_cannot_be_encoded() {
    let schema = schema().with_tiers([Tier::Sign { seed: 7 }]).unwrap();
    let (_folder, index) = indexes::create(&schema);
    let mut writer = index.writer().unwrap();
    let huge = constant(&spec(), 1e30);
    assert!(writer.append("huge", &huge).is_err());
    writer.append("good", &sketch(1)).unwrap();
    writer.commit().unwrap();
    assert_sound(&index);
}
