//! The JSON that the feature `serde` makes: its names are an interface, and change with a note only.

mod fixtures;

use fixtures::indexes::{self, segment_files};
use fixtures::sketches::constant;
use gradix::sketch::SketchSpec;
use gradix::{CompactOptions, Encoding, ErrorKind, GcOptions, Row, Schema, Tier};

/// Catches a field of a report that is renamed, added or lost without a note to those who parse it.
#[test]
fn names_in_json_are_these() {
    let spec = SketchSpec::dense("json", "v1", [("a", 3), ("b", 2)]);
    let schema = Schema::new(spec.clone(), Encoding::F16).unwrap().with_tiers([Tier::I8]).unwrap();
    let (_folder, index) = indexes::create(&schema);
    let mut writer = index.writer().unwrap();
    let sketch = constant(&spec, 1.0);
    let rows = [Row::new(&sketch).source("wiki"), Row::new(&sketch)];
    writer.append_rows("x", &rows).unwrap();
    writer.append("y", &sketch).unwrap();
    let json = |value: Result<String, serde_json::Error>| value.unwrap();
    assert_eq!(
        json(serde_json::to_string(&writer.commit().unwrap())),
        r#"{"generation":1,"appended":3,"deleted":0}"#
    );
    writer.delete("y").unwrap();
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    assert_eq!(
        json(serde_json::to_string(&snapshot.sources().unwrap())),
        r#"[{"source":null,"rows":1,"examples":1},{"source":"wiki","rows":1,"examples":1}]"#
    );
    let stats = snapshot.stats().unwrap();
    let expected = format!(
        concat!(
            r#"{{"generation":2,"rows":2,"dead_rows":1,"bytes":{},"columns":["#,
            r#"{{"name":"codes","tier":null,"block":"a","bytes":4096}}"#,
        ),
        stats.bytes
    );
    let stats_json = json(serde_json::to_string(&stats));
    assert!(stats_json.starts_with(&expected), "{stats_json}");
    let factors = r#"{"name":"factors","tier":"i8","block":null,"bytes":4096}"#;
    assert!(stats_json.contains(factors), "{stats_json}");
    let segments = format!(
        concat!(
            r#""segments":[{{"segment":"{}","rows":3,"dead_rows":1,"examples":2,"bytes":{},"#,
            r#""row_groups":1,"added":1}}]}}"#
        ),
        stats.segments[0].segment, stats.bytes
    );
    assert!(stats_json.ends_with(&segments), "{stats_json}");
    let report = index.verify().unwrap();
    assert_eq!(
        json(serde_json::to_string(&report)),
        format!(
            r#"{{"generation":2,"segments":1,"artifacts":0,"rows":3,"examples":1,"bytes":{},"findings":[]}}"#,
            stats.bytes
        )
    );
    assert_eq!(
        json(serde_json::to_string(&writer.compact(CompactOptions::all()).unwrap())),
        r#"{"segments_removed":1,"segments_added":1,"rows_copied":2,"rows_dropped":1}"#
    );
    drop(snapshot);
    let now = GcOptions::default().grace(std::time::Duration::ZERO);
    assert_eq!(
        json(serde_json::to_string(&writer.gc(now).unwrap())),
        format!(r#"{{"oldest":3,"segments":1,"artifacts":0,"bytes":{}}}"#, stats.bytes)
    );
    assert_eq!(json(serde_json::to_string(&ErrorKind::AlreadyExists)), r#""already_exists""#);

    // A segment that is not there is a finding.
    std::fs::remove_file(&segment_files(index.path())[0]).unwrap();
    let report = json(serde_json::to_string(&index.verify().unwrap()));
    let finding = r#""findings":[{"file":"#;
    assert!(report.contains(finding) && report.contains(r#","message":""#), "{report}");
}
