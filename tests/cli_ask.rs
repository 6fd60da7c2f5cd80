//! The program's commands that read and maintain an index: what they print, as text and as JSON, and how they end.

mod fixtures;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use fixtures::program::{command, gradix, json, ok, run, words};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Row, Schema, Span};
use tempfile::TempDir;

/// An index `x.gradix` of five examples and six rows in three commits, a deleted one counted; and vectors in `queries.npy`.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let spec = SketchSpec::dense("cli", "v1", [("a", 3), ("b", 2)]);
    let sketch = |values: [f32; 5]| Sketch::dense(spec.clone(), values.to_vec()).unwrap();
    let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
    let index = Index::create(folder.path().join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let append = |writer: &mut gradix::Writer, id: &[u8], values, source| {
        writer.append_rows(id, &[Row::new(&sketch(values)).source(source)]).unwrap();
    };
    append(&mut writer, b"sea", [3.0, -1.0, 2.0, 0.0, 0.0], "wiki");
    append(&mut writer, b"land", [-2.0, 0.5, 1.0, 0.0, 1.0], "news");
    writer.prepare_commit().unwrap().payload("first").commit().unwrap();
    let halves = [sketch([1.0, 0.0, 0.0, 2.0, 0.0]), sketch([0.0, 1.0, 0.0, 0.0, 3.0])];
    let rows = [
        Row::new(&halves[0]).span(Span::tokens(0, 4)).source("wiki").metadata(b"first half"),
        Row::new(&halves[1]).span(Span::tokens(4, 9)),
    ];
    writer.append_rows("page 7", &rows).unwrap();
    append(&mut writer, b"gone", [9.0, 9.0, 9.0, 9.0, 9.0], "news");
    writer.commit().unwrap();
    append(&mut writer, b"\xff\n", [0.0, 0.0, 1.0, 0.0, 0.0], "wiki");
    writer.delete("gone").unwrap();
    writer.commit().unwrap();
    write_npy(&folder.path().join("queries.npy"), &[[1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]]);
    write_npy(&folder.path().join("one.npy"), &[[0.0, 1.0, 0.0, 0.0, 0.0]]);
    folder
}

/// An array of numpy.
fn write_npy(path: &Path, rows: &[[f32; 5]]) {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 5), }}", rows.len());
    file.extend(118u16.to_le_bytes());
    file.extend(format!("{header:<117}\n").bytes());
    file.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, file).unwrap();
}

/// Catches ids that are shown in a way that cannot be given back, another order, and a filter that takes too much.
#[test]
fn ls_lists_ids_and_sources() {
    let folder = sample();
    let ok = |line| ok(folder.path(), line);
    assert_eq!(ok("ls x.gradix"), "land\npage 7\nsea\n\\xff\\x0a\n");
    assert_eq!(ok("ls x.gradix --from land --to page"), "land\n");
    assert_eq!(ok("ls x.gradix --prefix '\\xff'"), "\\xff\\x0a\n");
    assert_eq!(ok("ls x.gradix --generation 1"), "land\nsea\n");
    let long = "rows  sources  id\n   1  wiki     sea\n   1  news     land\n   2  wiki     page 7\n   1  wiki     \\xff\\x0a\n";
    assert_eq!(ok("ls x.gradix --long"), long);
    let sources =
        "rows  examples  source\n   1         1  (none)\n   1         1  news\n   3         3  wiki\n";
    assert_eq!(ok("ls x.gradix --sources"), sources);
    let lines = json(folder.path(), "ls x.gradix --json");
    assert_eq!(lines[3], serde_json::json!({"id": [255, 10]}));
    let long = json(folder.path(), "ls x.gradix --long --prefix page --json");
    assert_eq!(long, [serde_json::json!({"id": "page 7", "rows": 2, "sources": ["wiki"]})]);
    let sources = json(folder.path(), "ls x.gradix --sources --json");
    assert_eq!(sources[0], serde_json::json!({"source": null, "rows": 1, "examples": 1}));
}

/// Catches rows without their span, source, metadata or norm, and a missing id that hides the others.
#[test]
fn get_shows_rows() {
    let folder = sample();
    let run = gradix(folder.path(), "get x.gradix 'page 7' nope '\\xff\\x0a'");
    let shown = concat!(
        "page 7\n  span  source      norm  metadata\n  0..4  wiki    2.236068  first half\n  4..9  -       3.162278\n",
        "\\xff\\x0a\n  span   source      norm  metadata\n  whole  wiki    1.000000\n",
    );
    assert_eq!((run.code, run.stdout.as_str()), (Some(4), shown));
    assert!(run.stderr.contains("\"nope\""), "{}", run.stderr);
    assert!(ok(folder.path(), "get x.gradix sea --vectors").ends_with("  whole a: 3 -1 2\n  whole b: 0 0\n"));
    let row = &json(folder.path(), "get x.gradix 'page 7' --vectors --json")[0]["rows"][1];
    let expected = serde_json::json!({
        "span": {"start": 4, "end": 9}, "source": null, "metadata": "", "norms": {"a": 1.0, "b": 3.0},
        "values": {"a": [0.0, 1.0, 0.0], "b": [0.0, 3.0]},
    });
    assert_eq!(*row, expected);
}

/// Catches counts of another generation, sizes that do not add up, and a schema that `create` would not take.
#[test]
fn stats_and_schema_describe_the_index() {
    let folder = sample();
    let text = ok(folder.path(), "stats x.gradix --segments --blocks");
    assert!(
        text.starts_with("x.gradix: 5 rows in 3 segments, 112.54 kB, generation 3\n1 dead row, which"),
        "{text}"
    );
    assert!(
        text.contains("\nspec      dense \"cli\" digest \"v1\"; a x 3; b x 2\nencoding  f32, 128 B a row\n"),
        "{text}"
    );
    assert!(text.contains("\ncodes         12.29 kB  10.9%  b\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with(" kB") && line.contains('-')).count(), 3, "{text}");
    let counts = &json(folder.path(), "stats x.gradix --json")[0];
    assert_eq!((&counts["rows"], &counts["dead_rows"]), (&5.into(), &1.into()));
    let schema = &json(folder.path(), "schema x.gradix --json")[0];
    assert_eq!((schema, &schema["encodings"]), (&counts["schema"], &serde_json::json!(["f32", "f32"])));
    let pretty: serde_json::Value = serde_json::from_str(&ok(folder.path(), "schema x.gradix")).unwrap();
    assert_eq!(pretty, *schema);
}

/// Catches a log in another order, or without what the writer said.
#[test]
fn log_lists_commits() {
    let folder = sample();
    let text = ok(folder.path(), "log x.gradix");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["generation", "time", "appended", "deleted", "segments", "payload"]);
    assert_eq!((lines[1][0], &lines[1][2..]), ("3", &["1", "1", "+1"][..]));
    assert_eq!((lines[3][0], &lines[3][2..]), ("1", &["2", "0", "+1", "first"][..]));
    let commits = json(folder.path(), "log x.gradix --generation 2 -n 1 --json");
    assert_eq!(commits.len(), 1);
    assert_eq!((&commits[0]["generation"], &commits[0]["appended"]), (&2.into(), &3.into()));
}

/// Catches a ranking that is not the library's, or is printed for another query.
#[test]
fn query_ranks_by_files_and_examples() {
    let folder = sample();
    let run = gradix(folder.path(), "query x.gradix queries.npy -k 2 --bottom-k 1");
    let table = "\
proponents of queries.npy#0
rank     score  id      span   source
   1  5.000000  sea     whole  wiki
   2  1.000000  page 7  0..4   wiki

opponents of queries.npy#0
rank      score  id    source
   1  -1.000000  land  news

proponents of queries.npy#1
rank     score  id      span  source
   1  3.000000  page 7  4..9  -
   2  2.000000  page 7  0..4  wiki

opponents of queries.npy#1
rank     score  id   source
   1  0.000000  sea  wiki

";
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), table));
    assert!(run.stderr.starts_with("ranked 5 rows exactly in "), "{}", run.stderr);
    // The sum of both rows is (1, 1, 0, 2, 3).
    let csv = "query,name,end,rank,id,score,span_start,span_end,source\n0,page 7,proponent,1,sea,2.0,,,wiki\n0,page 7,proponent,2,land,1.5,,,news\n";
    assert_eq!(ok(folder.path(), "query x.gradix --id 'page 7' --exclude 'page 7' --format csv -k 2"), csv);
    let ranking = &json(folder.path(), "query x.gradix queries.npy --json -k 1")[0];
    assert_eq!(ranking["queries"], serde_json::json!(["queries.npy#0", "queries.npy#1"]));
    assert_eq!(ranking["proponents"][1][0]["score"], 3.0);
    assert_eq!(ranking["statistics"]["rows"], 5);
}

/// The ids and scores of the proponents of the first query.
fn best(folder: &Path, options: &str) -> Vec<(String, f64)> {
    let hits = json(folder, &format!("query x.gradix {options} --format jsonl"));
    let first = hits.iter().filter(|hit| hit["query"] == 0 && hit["end"] == "proponent");
    first
        .map(|hit| (hit["id"].as_str().unwrap_or("bytes").to_owned(), hit["score"].as_f64().unwrap()))
        .collect()
}

/// Catches an option that does not reach the scan.
#[test]
fn query_options_change_the_ranking() {
    let folder = sample();
    std::fs::write(folder.path().join("ids"), "sea\n\\xff\\x0a\n").unwrap();
    let best = |options: &str| best(folder.path(), &format!("queries.npy -k 1 {options}"));
    let is = |options: &str, id: &str, score: f64| {
        let found = best(options);
        assert_eq!((found.len(), found[0].0.as_str()), (1, id), "{options}");
        assert!((found[0].1 - score).abs() < 1e-6, "{options}: {}", found[0].1);
    };
    is("", "sea", 5.0);
    is("--minus one.npy", "sea", 6.0);
    is("--minus queries.npy", "land", 0.0);
    is("--minus-id sea", "land", 3.5);
    is("--blocks b", "land", 0.0);
    is("--weight a=0.5", "sea", 2.5);
    is("--metric unit-rows --exclude-from ids", "page 7", 1.0 / 5f64.sqrt());
    is("--source news", "land", -1.0);
    is("--ids-from ids --exclude sea", "bytes", 1.0);
    is("--prefix la", "land", -1.0);
    is("--spans tokens", "page 7", 1.0);
    is("--spans 4..5 --exclude-from ids --exclude land", "page 7", 0.0);
    is("--generation 1 --exclude sea", "land", -1.0);
    is("--group sum --exclude-from ids --exclude land", "page 7", 1.0);
    is("--threads 1", "sea", 5.0);
    let run = gradix(folder.path(), "query x.gradix queries.npy --ids-from ids --exclude nothing");
    assert!(run.stderr.contains("1 id of the filters not in the index"), "{}", run.stderr);
}

/// Catches texts that are not those of the hits, and lines that are longer than they may be.
#[test]
fn query_shows_texts() {
    let folder = sample();
    let lines = "{\"id\": \"sea\", \"text\": \"The sea\\n  is wide.\", \"more\": 1}\n\n{\"id\": \"other\", \"text\": \"no\"}\n";
    std::fs::write(folder.path().join("texts.jsonl"), lines).unwrap();
    let text = ok(folder.path(), "query x.gradix one.npy queries.npy --id sea -k 1 --texts texts.jsonl");
    assert!(text.contains("proponents of sea\nrank      score  id   source  text\n   1  14.000000  sea  wiki    The sea is wide.\n"), "{text}");
    let hits = json(folder.path(), "query x.gradix queries.npy -k 1 --texts texts.jsonl --format jsonl");
    assert_eq!(
        (&hits[0]["text"], &hits[1]["text"]),
        (&"The sea\n  is wide.".into(), &serde_json::Value::Null)
    );
    std::fs::write(folder.path().join("texts.jsonl"), "{\"id\": \"a\", \"text\": \"b\"}\n{\"id\": 7}\n")
        .unwrap();
    let run = gradix(folder.path(), "query x.gradix queries.npy --texts texts.jsonl");
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("texts.jsonl, line 2: "), "{}", run.stderr);
}

/// Catches a file that another program cannot read, or reads as something else.
#[test]
fn results_are_written_into_files() {
    let folder = sample();
    let path = |name: &str| folder.path().join(name);
    ok(folder.path(), "scores x.gradix queries.npy --format npy -o scores.npy");
    let npy = std::fs::read(path("scores.npy")).unwrap();
    let header = std::str::from_utf8(&npy[10..128]).unwrap();
    assert!(header.starts_with("{'descr': '<f8', 'fortran_order': False, 'shape': (5, 2), }"), "{header}");
    let numbers: Vec<f64> =
        npy[128..].chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(numbers, [5.0, 0.0, -1.0, 1.0, 1.0, 2.0, 0.0, 3.0, 1.0, 0.0]);
    let csv =
        ok(folder.path(), "scores x.gradix queries.npy --group sum --format csv --exclude '\\xff\\x0a'");
    assert_eq!(
        csv,
        "id,span_start,span_end,source,score_0,score_1\nsea,,,wiki,5.0,0.0\nland,,,news,-1.0,1.0\npage 7,,,wiki,1.0,5.0\n"
    );
    ok(folder.path(), "scores x.gradix queries.npy --source wiki --exclude '\\xff\\x0a' -o scores.parquet");
    assert!(std::fs::read(path("scores.parquet")).unwrap().starts_with(b"PAR1"));
    // Nothing is left of what could not be finished, and a file that was there stays.
    let run = gradix(folder.path(), "scores x.gradix queries.npy -o scores.parquet --force");
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("\\xff\\x0a is not UTF-8"), "{}", run.stderr);
    assert!(std::fs::read(path("scores.parquet")).unwrap().starts_with(b"PAR1"));
    let hidden = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0);
    for line in [
        "scores x.gradix queries.npy --format npy",
        "scores x.gradix queries.npy -o scores.txt",
        "query x.gradix queries.npy --format table -o x",
    ] {
        assert_eq!(gradix(folder.path(), line).code, Some(2), "{line}");
    }
}

/// Catches a plan for other rows than those of the index.
#[test]
fn explain_says_which_path() {
    let folder = sample();
    assert!(ok(folder.path(), "explain x.gradix queries.npy").contains("-> full"));
    let plan = &json(folder.path(), "explain x.gradix queries.npy --json")[0];
    assert_eq!((&plan["chosen"], &plan["queries"], &plan["rows"]), (&"full".into(), &2.into(), &6.into()));
}

/// Catches a curvature that is not fitted, not used, or not removed.
#[test]
fn fit_makes_what_query_and_select_read() {
    let folder = sample();
    let missing = gradix(folder.path(), "query x.gradix queries.npy --curvature");
    assert_eq!(missing.code, Some(4));
    assert!(missing.stderr.contains("`gradix fit` makes it"), "{}", missing.stderr);
    assert_eq!(gradix(folder.path(), "select self-influence x.gradix").code, Some(4));
    let fitted =
        ok(folder.path(), "fit x.gradix --self-influence --kappa 1 --estimate full --estimate b=nystrom:1");
    assert!(
        fitted.starts_with("fitted curvature: 5 rows, ") && fitted.contains("\nself-influence of 5 rows, "),
        "{fitted}"
    );
    assert!(ok(folder.path(), "fit x.gradix").starts_with("curvature is up to date: 5 rows, "));
    let stats = ok(folder.path(), "stats x.gradix");
    assert!(stats.contains("\ncurvature/self-influence "), "{stats}");
    let ranking = &json(
        folder.path(),
        "query x.gradix queries.npy --curvature --kappa 1 --metric relative -k 1 --json",
    )[0];
    assert_eq!(ranking["statistics"]["curvature"]["kappa"], 1.0);
    assert_eq!(ranking["statistics"]["curvature"]["blocks"][1]["estimate"]["nystrom"]["width"], 1);
    let highest =
        json(folder.path(), "select self-influence x.gradix --curvature --kappa 1 --count 2 --json");
    assert_eq!(highest.len(), 2);
    assert!(highest[0]["self_influence"].as_f64() >= highest[1]["self_influence"].as_f64());
    let before = listing(folder.path());
    let planned = &json(folder.path(), "fit x.gradix --drop curvature --dry-run --json")[0];
    assert_eq!(planned["artifacts"], serde_json::json!(["curvature", "curvature/self-influence"]));
    assert_eq!(listing(folder.path()), before);
    assert!(
        ok(folder.path(), "fit x.gradix --drop curvature")
            .starts_with("removed curvature and curvature/self-influence, ")
    );
    for line in ["fit x.gradix --drop curvature", "fit x.gradix --drop curvature --dry-run"] {
        assert_eq!(gradix(folder.path(), line).code, Some(4), "{line}");
    }
}

/// Catches a selection that is not the operator's, or takes the queries for other tasks.
#[test]
fn select_prints_what_operators_choose() {
    let folder = sample();
    let json = |line: &str| json(folder.path(), &format!("select {line} --json"));
    let ids = |rows: &[serde_json::Value]| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
    // As the mean of its queries, the first file gives sea 2.5, land 0, page 7 3; the second gives land .5, page 7 1.
    let chosen = json("less x.gradix queries.npy one.npy --count 2");
    assert_eq!(ids(&chosen), ["page 7", "sea"]);
    assert_eq!((&chosen[0]["score"], &chosen[0]["task"]), (&3.0.into(), &0.into()));
    let chosen = json("less x.gradix one.npy queries.npy --id land --count 1");
    assert_eq!(
        (&chosen[0]["id"], &chosen[0]["score"], &chosen[0]["task"]),
        (&"land".into(), &6.25.into(), &2.into())
    );
    assert_eq!(ids(&json("in2core x.gradix queries.npy --fraction 0.5")), ["page 7", "sea"]);
    let chosen = json("coreset x.gradix queries.npy --count 2 --objective facility-location");
    assert_eq!((ids(&chosen), &chosen[0]["gain"]), (vec!["page 7".into(), "sea".into()], &6.0.into()));
    let pairs = json("duplicates x.gradix --cosine 0.5");
    assert_eq!(
        (&pairs[0]["first"], &pairs[0]["second"], pairs.len()),
        (&"sea".into(), &serde_json::json!([255, 10]), 1)
    );
    let clusters = json("duplicates x.gradix --cosine 0.5 --clusters");
    assert_eq!((&clusters[1]["cluster"], &clusters[1]["member"]), (&0.into(), &1.into()));
    let sources = json("by-source x.gradix queries.npy --mean --replicates 10");
    assert_eq!((&sources[2]["source"], &sources[2]["sum"]), (&"wiki".into(), &4.5.into()));
    let table = ok(folder.path(), "select in2core x.gradix queries.npy --count 1");
    assert_eq!(table, "rank     score  task  id\n   1  3.000000     0  page 7\n");
    assert_eq!(gradix(folder.path(), "select in2core x.gradix queries.npy").code, Some(2));
}

/// All files of a folder, with length and time of the last change.
fn listing(folder: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        match metadata.is_dir() {
            true => files.extend(listing(&entry.path())),
            false => files.push((entry.path(), metadata.len(), metadata.modified().unwrap())),
        }
    }
    files.sort();
    files
}

/// Catches a dry run that changes something or promises something else, and maintenance that loses rows.
#[test]
fn compact_and_gc_do_what_their_dry_runs_say() {
    let folder = sample();
    let rows = ok(folder.path(), "ls x.gradix --long --json");
    let before = listing(folder.path());
    let planned = &json(folder.path(), "compact x.gradix --all --dry-run --json")[0];
    assert_eq!(listing(folder.path()), before);
    let done = &json(folder.path(), "compact x.gradix --all --json")[0];
    for name in ["segments_removed", "segments_added", "rows_copied", "rows_dropped"] {
        assert_eq!(done[name], planned[name], "{name}");
    }
    assert_eq!(
        (&done["rows_copied"], &done["rows_dropped"], &done["generation"]),
        (&5.into(), &1.into(), &4.into())
    );
    assert_eq!(
        ok(folder.path(), "compact x.gradix --small-fraction 0"),
        "nothing to compact in generation 4\n"
    );
    let before = listing(folder.path());
    let kept = ok(folder.path(), "gc x.gradix --dry-run");
    assert!(
        kept.starts_with("would remove 0 segments and 0 artifacts, ") && kept.contains("--grace"),
        "{kept}"
    );
    let planned = &json(folder.path(), "gc x.gradix --grace 0s --dry-run --json")[0];
    assert_eq!(listing(folder.path()), before);
    let done = &json(folder.path(), "gc x.gradix --grace 0s --json")[0];
    assert_eq!(
        (&done["segments"], &done["bytes"], &done["oldest"]),
        (&3.into(), &planned["bytes"], &4.into())
    );
    assert_eq!(planned["segments"], 3);
    let mut lines: Vec<_> = rows.lines().collect();
    let after = ok(folder.path(), "ls x.gradix --long --json");
    let mut now: Vec<_> = after.lines().collect();
    lines.sort();
    now.sort();
    assert_eq!(now, lines);
    assert_eq!(gradix(folder.path(), "ls x.gradix --generation 1").code, Some(10));
}

/// Catches a recovery that overwrites a manifest, or does not say what is lost.
#[test]
fn recover_needs_the_manifest_out_of_the_way() {
    let folder = sample();
    let refused = gradix(folder.path(), "recover x.gradix");
    assert_eq!(refused.code, Some(5));
    assert!(refused.stderr.contains("mv x.gradix/manifest"), "{}", refused.stderr);
    std::fs::rename(folder.path().join("x.gradix/manifest"), folder.path().join("lost")).unwrap();
    let text = ok(folder.path(), "recover x.gradix");
    assert!(text.starts_with("recovered generation 3: 5 examples, 6 rows, from 3 segments\n"), "{text}");
    assert!(
        text.ends_with(
            "lost: deletions, earlier generations, times and payloads of commits, what was fitted\n"
        ),
        "{text}"
    );
    assert!(ok(folder.path(), "verify x.gradix").contains(": sound: "));
}

/// Flips a byte of the codes in a segment.
fn damage(index: &Path) {
    let segment = fixtures::indexes::segment_files(index).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8192] ^= 1;
    std::fs::write(segment, bytes).unwrap();
}

/// Catches damage that is not found, not listed, or does not show in the exit code.
#[test]
fn verify_finds_damage() {
    let folder = sample();
    let sound = ok(folder.path(), "verify x.gradix");
    assert_eq!(
        sound,
        "x.gradix: sound: generation 3, 3 segments, 0 artifacts, 6 rows, 4 examples, 112.54 kB\n"
    );
    assert_eq!(json(folder.path(), "verify x.gradix --json")[0]["findings"], serde_json::json!([]));
    damage(&folder.path().join("x.gradix"));
    let run = gradix(folder.path(), "verify x.gradix");
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
    assert!(run.stdout.contains(".seg: ") && run.stdout.contains(": 1 finding: "), "{}", run.stdout);
    let run = gradix(folder.path(), "verify x.gradix --json");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, report["findings"].as_array().unwrap().len()), (Some(1), 1));
}

/// Catches a page without the texts, or tokens that stand for other queries than they say.
#[test]
fn report_is_one_page() {
    let folder = sample();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(
        path("texts.jsonl"),
        "{\"id\": \"sea\", \"text\": \"The sea is wide.\"}\n{\"id\": \"nobody\", \"text\": \"zzyzx\"}\n",
    )
    .unwrap();
    assert_eq!(
        ok(folder.path(), "report x.gradix queries.npy --texts texts.jsonl -o page.html"),
        "page.html: 2 queries, 5 rows\n"
    );
    let page = std::fs::read_to_string(path("page.html")).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && page.contains("The sea is wide.") && !page.contains("zzyzx")
    );
    let tokens = r#"{"prompt": "Where?", "tokens": ["In", {"text": " the", "untraced": true}, {"text": " Sea", "marked": true}]}"#;
    std::fs::write(path("tokens.json"), tokens).unwrap();
    ok(
        folder.path(),
        "report x.gradix queries.npy --tokens tokens.json --title 'Why the sea?' -o page.html --force",
    );
    let page = std::fs::read_to_string(path("page.html")).unwrap();
    assert!(page.contains("Why the sea?") && page.contains(" Sea") && page.contains("Where?"));
    let run = gradix(folder.path(), "report x.gradix one.npy --tokens tokens.json -o other.html");
    assert_eq!((run.code, path("other.html").exists()), (Some(3), false));
    assert!(run.stderr.contains("2 traced tokens, but 1 query"), "{}", run.stderr);
}

/// Catches an exit code that is not the documented one, an error that is no JSON, or one without advice.
#[test]
fn errors_end_with_their_code() {
    let folder = sample();
    write_npy(&folder.path().join("nan.npy"), &[[f32::NAN, 0.0, 0.0, 0.0, 0.0]]);
    std::fs::write(
        folder.path().join("cut.npy"),
        &std::fs::read(folder.path().join("queries.npy")).unwrap()[..140],
    )
    .unwrap();
    let cases = [
        (2, "query x.gradix", "usage"),
        (2, "query x.gradix queries.npy --spans 9..4", "usage"),
        (2, "get x.gradix 'a\\n'", "usage"),
        (3, "query x.gradix nan.npy", "invalid_input"),
        (3, "query x.gradix queries.npy --guarantee 2", "invalid_input"),
        (3, "query x.gradix queries.npy --minus queries.npy --id sea", "invalid_input"),
        (4, "stats nowhere", "not_found"),
        (4, "query x.gradix nowhere.npy", "not_found"),
        (4, "query x.gradix queries.npy --blocks c", "not_found"),
        (4, "query x.gradix --id nobody", "not_found"),
        (5, "recover x.gradix", "already_exists"),
        (7, "query x.gradix cut.npy", "damaged"),
        (9, "query x.gradix queries.npy --guarantee 0.1", "unsupported"),
    ];
    for (code, line, kind) in cases {
        let run = gradix(folder.path(), line);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{line}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{line}: {}", run.stderr);
        // What clap finds is said by clap.
        let run = gradix(folder.path(), &format!("{line} --json"));
        if let Ok(error) = serde_json::from_str::<serde_json::Value>(&run.stderr) {
            assert_eq!(
                (&error["error"]["kind"], &error["error"]["code"]),
                (&kind.into(), &code.into()),
                "{line}"
            );
        } else {
            assert_eq!(code, 2, "{line}: {}", run.stderr);
        }
    }
    let index = Index::open(folder.path().join("x.gradix")).unwrap();
    let writer = index.writer().unwrap();
    assert_eq!(gradix(folder.path(), "gc x.gradix").code, Some(6));
    drop(writer);
    damage(index.path());
    let run = gradix(folder.path(), "scores x.gradix queries.npy");
    assert_eq!(run.code, Some(7), "{}", run.stderr);
    assert!(run.stderr.contains("`gradix verify` lists all damage"), "{}", run.stderr);
}

/// Catches a command that the help does not name, or whose own help says too little.
#[test]
fn help_names_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let help = ok(folder.path(), "--help");
    assert!(help.contains("Exit codes:"));
    let commands = help.split("Commands:").nth(1).unwrap().split("Options").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for name in [
        "compact",
        "completions",
        "explain",
        "fit",
        "gc",
        "get",
        "log",
        "ls",
        "man",
        "query",
        "recover",
        "report",
        "schema",
        "scores",
        "select",
        "stats",
        "verify",
    ] {
        assert!(names.contains(&name), "{name}");
        let help = ok(folder.path(), &format!("{name} --help"));
        assert!(name == "select" || help.contains("Examples:\n"), "{name}");
    }
    for name in ["by-source", "coreset", "duplicates", "in2core", "less", "self-influence"] {
        assert!(ok(folder.path(), &format!("select {name} --help")).contains("Examples:\n"), "{name}");
    }
    ok(folder.path(), "man pages");
    for page in ["gradix.1", "gradix-query.1", "gradix-select-less.1"] {
        assert!(
            std::fs::read_to_string(folder.path().join("pages").join(page)).unwrap().contains(".SH NAME"),
            "{page}"
        );
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(ok(folder.path(), &format!("completions {shell}")).contains("self-influence"), "{shell}");
    }
}

/// Catches colours where there is no terminal or where they are not wanted, and progress in a pipe.
#[test]
fn colours_are_for_those_who_want_them() {
    let folder = tempfile::tempdir().unwrap();
    let stderr = |options: &[&str], name: &str| {
        let mut command = command(folder.path());
        command.args(["stats", "nowhere"]).args(options).env(name, "1");
        run(&mut command).stderr
    };
    let is_coloured = |text: &str| text.contains('\u{1b}');
    assert!(!is_coloured(&stderr(&[], "UNSET")));
    assert!(is_coloured(&stderr(&["--color", "always"], "UNSET")));
    assert!(is_coloured(&stderr(&[], "CLICOLOR_FORCE")));
    assert!(!is_coloured(&stderr(&[], "NO_COLOR")));
    assert!(!is_coloured(&stderr(&["--color", "never"], "CLICOLOR_FORCE")));
}

/// An index of so many one-row segments or rows.
fn large(folder: &Path, segments: usize, rows: usize) {
    let spec = SketchSpec::dense("large", "v1", [("all", 2)]);
    let index =
        Index::create(folder.join("x.gradix"), &Schema::new(spec.clone(), Encoding::F32).unwrap()).unwrap();
    let mut writer = index.writer().unwrap();
    let sketch = Sketch::dense(spec, vec![1.0, 2.0]).unwrap();
    for segment in 0..segments {
        for row in 0..rows {
            writer.append(format!("example {segment}/{row}"), &sketch).unwrap();
        }
        writer.commit().unwrap();
    }
}

/// Catches `| head` that ends in an error, or waits for all that nobody reads.
#[test]
fn closed_pipes_end_quietly() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path(), 1, 20_000);
    for line in ["ls x.gradix", "ls x.gradix --long", "scores x.gradix --id 'example 0/7'"] {
        let mut child = command(folder.path())
            .args(words(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{line}"
        );
    }
}

/// Catches Ctrl-C that kills in the middle of something, is not heeded, or does not say how it ended.
#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path(), 40, 2_000);
    let cases = [
        "verify x.gradix",
        "compact x.gradix --all",
        "fit x.gradix",
        "ls x.gradix",
        "scores x.gradix --id 'example 0/7' -o scores.csv",
    ];
    for line in cases {
        let child = command(folder.path())
            .args(words(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        // Until it has a handler for SIGINT, which is signal 2.
        let handles = |status: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            u64::from_str_radix(mask.map_or("0", str::trim), 16).unwrap() & 2 != 0
        };
        while !std::fs::read_to_string(&status).is_ok_and(|status| handles(&status)) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // SAFETY: sends a signal to a child that was not waited for yet, so that the number is its own.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) }, 0);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{line}: {stderr}");
        assert!(stderr.contains("interrupted") || stderr.contains("cancelled"), "{line}: {stderr}");
    }
    assert!(!folder.path().join("scores.csv").exists());
    let index = Index::open(folder.path().join("x.gradix")).unwrap();
    assert_eq!(index.stats().unwrap().rows, 80_000);
    fixtures::indexes::assert_sound(&index);
}
