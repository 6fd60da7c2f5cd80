//! The JSON that the feature `serde` makes: its names are an interface, and change with a note only.

mod fixtures;

use fixtures::indexes::{self, segment_files};
use fixtures::sketches::constant;
use gradix::eval::{Bootstrap, Retrainings};
use gradix::operators::{BySource, Coreset, Duplicates, Mixture, Objective, Selection};
use gradix::sketch::SketchSpec;
use gradix::{CompactOptions, Encoding, ErrorKind, GcOptions, Row, Schema, Tier};

/// Catches the same in what `gradix::eval` reports.
#[test]
fn names_of_eval_in_json_are_these() {
    let truth = Retrainings::new(2, vec![vec![0], vec![1]], &[vec![vec![1.0], vec![2.0]]]).unwrap();
    let lds = truth.lds(&[vec![0.0, 1.0]]).unwrap();
    assert_eq!(serde_json::to_string(&lds).unwrap(), r#"{"per_query":[1.0]}"#);
    let interval = lds.interval(&Bootstrap::default()).unwrap();
    assert_eq!(serde_json::to_string(&interval).unwrap(), r#"{"mean":1.0,"low":1.0,"high":1.0}"#);
}

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
            r#""artifacts":[],"segments":[{{"segment":"{}","rows":3,"dead_rows":1,"examples":2,"bytes":{},"#,
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

/// Catches a field of an operator's result that is renamed, added or lost, and an id that is not text.
#[test]
fn names_in_json_of_operators_are_these() {
    let spec = SketchSpec::dense("json", "v1", [("a", 1)]);
    let (_folder, index) = indexes::create(&Schema::new(spec.clone(), Encoding::F32).unwrap());
    let mut writer = index.writer().unwrap();
    let sketch = constant(&spec, 2.0);
    writer.append_rows("x", &[Row::new(&sketch).source("wiki")]).unwrap();
    writer.append_rows("y", &[Row::new(&sketch).source("wiki")]).unwrap();
    writer.commit().unwrap();
    let (snapshot, queries) = (index.snapshot().unwrap(), [constant(&spec, 1.0)]);
    let scan = || snapshot.scan(&queries);
    let json = |value: Result<String, serde_json::Error>| value.unwrap();
    let sources = BySource::new().replicates(20).run(scan().unwrap()).unwrap();
    let json_of_sources = json(serde_json::to_string(&sources[0][0]));
    let expected = r#"{"source":"wiki","examples":2,"sum":4.0,"sum_interval":{"low":0.0,"high":"#;
    assert!(json_of_sources.starts_with(expected), "{json_of_sources}");
    let expected = concat!(
        r#""mean":2.0,"mean_interval":{"low":2.0,"high":2.0},"#,
        r#""share":1.0,"share_interval":{"low":0.0,"high":1.0}}"#
    );
    assert!(json_of_sources.ends_with(expected), "{json_of_sources}");
    let selected = Selection::count(1).task(0..1).run(scan().unwrap()).unwrap();
    assert_eq!(json(serde_json::to_string(&selected)), r#"[{"id":"x","score":2.0,"task":0}]"#);
    let chosen = Coreset::new(1).objective(Objective::FacilityLocation).choose(scan).unwrap();
    assert_eq!(
        json(serde_json::to_string(&chosen)),
        r#"{"examples":[{"id":"x","gain":2.0}],"value":2.0,"kept":[1.0],"passes":1}"#
    );
    let mut pairs = Vec::new();
    let count = Duplicates::new(0.9).run(&snapshot, |pair| {
        pairs.push(json(serde_json::to_string(pair)));
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!((count.unwrap(), pairs), (1, vec![r#"{"first":"x","second":"y","cosine":1.0}"#.to_owned()]));
    let fit = Mixture::new().replicates(5).iterations(1).fit(&[vec![[1.0f32]; 2]]).unwrap();
    let json_of_fit = json(serde_json::to_string(&fit));
    let names = [
        r#"{"base":"#,
        r#","base_interval":"#,
        r#","base_bound":1.0,"sources":[{"share":"#,
        r#","share_interval":"#,
        r#","relative":1.0,"relative_interval":"#,
        r#"}],"residual":0.0,"iterations":1,"converged":"#,
        r#","replicates_not_converged":"#,
    ];
    let mut rest = &json_of_fit[..];
    for name in names {
        rest = rest.split_once(name).unwrap_or_else(|| panic!("no {name} in {json_of_fit}")).1;
    }
}
