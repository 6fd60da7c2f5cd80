//! The second reader, `format-spec/reader.py`, was written from the specification alone. Here it reads
//! what the engine has just written, and both must agree bit for bit.

mod fixtures;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixtures::indexes::{self, assert_sound, segment_files};
use fixtures::random::Random;
use fixtures::sketches::constant;
use gradix::curvature::Estimate;
use gradix::sketch::{Normalisation, OptimizerStep, Sketch, SketchSpec, Sketcher};
use gradix::{
    Attach, CompactOptions, Encoding, FitOptions, Grouping, Hit, Index, Metric, Part, Row, Schema,
    SelfInfluenceOptions, Span, Tier,
};
use serde_json::Value;

/// The interpreter with numpy and zstandard. `make test` sets `GRADIX_PYTHON`; without it, a
/// `python3` that lacks them skips these tests, and says so.
fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("GRADIX_PYTHON") {
        return Some(python.into());
    }
    let probe = Command::new("python3").args(["-c", "import numpy, zstandard"]).output();
    if probe.is_ok_and(|probe| probe.status.success()) {
        return Some("python3".into());
    }
    eprintln!("SKIPPED: no python3 with numpy and zstandard; `make test` sets one up");
    None
}

fn reader(python: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/reader.py");
    Command::new(python).arg(script).args(arguments).output().unwrap()
}

fn read(python: &Path, arguments: &[&str]) -> String {
    let output = reader(python, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Numbers of many magnitudes, from a fixed sequence; every fourth sketch has zeros and subnormals.
fn sketch(spec: &SketchSpec, seed: u64) -> Sketch {
    let mut random = Random(seed);
    let values = (0..spec.dims()).map(|i| {
        let unit = random.uniform() as f32 - 0.5;
        match (seed % 4, i % 7) {
            (0, 0) => 0.0,
            (0, 1) => unit * 1e-42,
            (_, 2) => unit * 1e-8,
            (_, 3) => unit * 1e6,
            _ => unit,
        }
    });
    Sketch::dense(spec.clone(), values.collect()).unwrap()
}

/// Catches pages that no longer say what the second reader does, and a second reader that would accept what
/// the pages refuse: its own tests.
#[test]
fn second_reader_passes_its_own_tests() {
    let Some(python) = python() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec");
    let tests = Command::new(python)
        .args(["-B", "-m", "unittest", "test_reader"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}

/// Catches a schema that is written otherwise than the page says: the order of its keys, blanks, seeds as
/// numbers. Its bytes make the schema digest.
#[test]
fn schema_is_written_as_the_page_shows_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/index-file.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split("```json").nth(1).unwrap().split("```").next().unwrap();
    let example: String = example.split_whitespace().collect();
    let spec = SketchSpec::rapid_grad(7, 4096).normalised(Normalisation::PerTensor);
    let schema = Schema::new(spec, Encoding::F16).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 1 }, Tier::I8]).unwrap();
    assert_eq!(serde_json::to_string(&schema).unwrap(), example);
    let (_folder, index) = indexes::create(&schema);
    assert_eq!(&std::fs::read(index.path().join("INDEX")).unwrap()[64..], example.as_bytes());
}

struct Written {
    _folder: tempfile::TempDir,
    index: Index,
    path: String,
    listing: String,
}

/// Every encoding, several segments and row groups, spans, sources, metadata, deletes.
fn write() -> Written {
    let spec = SketchSpec::dense("test", "v1", [("layers.0", 37), ("layers.1", 64), ("head", 4099)]);
    let schema =
        Schema::with_encodings(spec.clone(), vec![Encoding::F32, Encoding::F16, Encoding::I8]).unwrap();
    assert!(Encoding::ALL.iter().all(|encoding| schema.encodings().contains(encoding)));
    let (folder, index) = indexes::create_with(Index::options().segment_bytes(1 << 20), &schema);
    let mut writer = index.writer().unwrap();
    for example in 0..260u64 {
        let rows: Vec<Sketch> = (0..1 + example % 3).map(|row| sketch(&spec, example * 3 + row)).collect();
        let metadata = example.to_string().repeat(example as usize % 5);
        let rows: Vec<Row<'_>> = rows
            .iter()
            .zip(0..)
            .map(|(sketch, i)| {
                let row = Row::new(sketch).metadata(metadata.as_bytes());
                let row = if example % 3 == 0 { row } else { row.span(Span::tokens(i, i + 4)) };
                if example % 4 == 0 {
                    row
                } else {
                    row.source(["wiki", "books", "naïve"][example as usize % 3])
                }
            })
            .collect();
        writer.append_rows(format!("example {example:03}"), &rows).unwrap();
        if example == 100 {
            writer.commit().unwrap();
        }
    }
    writer.append("zero", &constant(&spec, 0.0)).unwrap();
    writer.commit().unwrap();
    for example in (0..260).step_by(7) {
        assert!(writer.delete(format!("example {example:03}")).unwrap());
    }
    writer.commit().unwrap();
    drop(writer);
    let listing = folder.path().join("listing.json");
    std::fs::write(&listing, index.snapshot().unwrap().listing().unwrap()).unwrap();
    let (path, listing) = (index.path().to_str().unwrap().to_owned(), listing.to_str().unwrap().to_owned());
    Written { _folder: folder, index, path, listing }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bits(values: &[f32]) -> Vec<String> {
    values.iter().map(|value| format!("{:08x}", value.to_bits())).collect()
}

/// Catches any column that the engine writes or reads otherwise than the specification says.
#[test]
fn second_reader_sees_every_column() {
    let Some(python) = python() else { return };
    let written = write();
    let verified = read(&python, &["verify", &written.path, "--listing", &written.listing]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    let snapshot = written.index.snapshot().unwrap();
    assert!(snapshot.stats().unwrap().segments.len() > 2);
    assert_eq!(verified["live"], snapshot.rows());
    assert_eq!(verified["warnings"], serde_json::json!([]));

    let dump = read(&python, &["dump", &written.path, "--listing", &written.listing]);
    let mut rows = 0;
    let mut last = (String::new(), 0);
    for line in dump.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let id = row["id"].as_str().unwrap().to_owned();
        last = if last.0 == id { (id, last.1 + 1) } else { (id, 0) };
        let id: Vec<u8> = (0..last.0.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&last.0[i..i + 2], 16).unwrap())
            .collect();
        let example = snapshot.get(&id).unwrap().unwrap();
        let expected = &example.rows[last.1];
        assert_eq!(row["span"], serde_json::json!([expected.span.start, expected.span.end]));
        assert_eq!(row["source"].as_str(), expected.source.as_deref());
        assert_eq!(row["metadata"], hex(&expected.metadata));
        for (i, block) in snapshot.schema().spec().blocks().iter().enumerate() {
            let read = &row["blocks"][&block.name];
            assert_eq!(read["decoded"], serde_json::json!(bits(expected.sketch.block(i).unwrap())));
            assert_eq!(read["norm"], bits(&expected.norms[i..=i])[0]);
        }
        rows += 1;
    }
    assert_eq!(rows, snapshot.rows());
}

/// Catches tiers that are not those of the specification: the second reader makes all of them anew from
/// the rows and compares them bit for bit.
#[test]
fn second_reader_makes_the_same_tiers() {
    let Some(python) = python() else { return };
    let blocks =
        [("one", 1), ("odd", 37), ("two", 2), ("wide", 4099), ("even", 1024), ("half", 127), ("last", 1)];
    let spec = SketchSpec::dense("test", "v1", blocks);
    let (f32, f16, i8) = (Encoding::F32, Encoding::F16, Encoding::I8);
    let schema = Schema::with_encodings(spec.clone(), vec![f16, f32, i8, f16, i8, f32, i8]).unwrap();
    let schema = schema.with_tiers([Tier::I8, Tier::Sign { seed: u64::MAX - 7 }]).unwrap();
    assert!(Encoding::ALL.iter().all(|encoding| schema.encodings().contains(encoding)));
    // Whatever the second reader knows, so that no tier goes by it.
    let names = "import json, tiers; print(json.dumps(list(tiers.NUMBERS)))";
    let folder_of_reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec");
    let known =
        Command::new(&python).args(["-B", "-c", names]).current_dir(folder_of_reader).output().unwrap();
    let known: Vec<String> = serde_json::from_slice(&known.stdout).unwrap();
    assert_eq!(schema.tiers().iter().map(|tier| tier.name()).collect::<Vec<_>>(), known);
    let (folder, index) = indexes::create_with(Index::options().segment_bytes(1 << 20), &schema);
    let mut writer = index.writer().unwrap();
    for example in 0..120u64 {
        writer.append(format!("example {example:03}"), &sketch(&spec, example)).unwrap();
    }
    writer.append("zero", &constant(&spec, 0.0)).unwrap();
    // Rows of which i8 keeps only a scale, and the largest that there are.
    for (id, value) in [("tiny", f32::from_bits(1)), ("huge", 2f32.powi(49))] {
        writer.append(id, &constant(&spec, value)).unwrap();
    }
    writer.commit().unwrap();
    assert!(writer.delete("example 007").unwrap());
    writer.commit().unwrap();
    for compacted in [false, true] {
        if compacted {
            writer.compact(CompactOptions::all()).unwrap();
        }
        let snapshot = index.snapshot().unwrap();
        let listing = folder.path().join("listing.json");
        std::fs::write(&listing, snapshot.listing().unwrap()).unwrap();
        let arguments = ["verify", index.path().to_str().unwrap(), "--listing", listing.to_str().unwrap()];
        let verified: Value = serde_json::from_str(&read(&python, &arguments)).unwrap();
        assert_eq!(verified["live"], snapshot.rows());
        assert_sound(&index);
    }
}

/// Catches a listing whose order is not that of appending, which nothing else in it says: two indexes that were made alike
/// would be listed, read and summed up in different orders.
#[test]
fn listing_has_segments_in_the_order_of_appending() {
    let written = write();
    let files = |generation| -> Vec<String> {
        let snapshot = written.index.snapshot_at(generation).unwrap();
        let listing: Value = serde_json::from_str(&snapshot.listing().unwrap()).unwrap();
        assert_eq!(listing["generation"], generation);
        let segments = listing["segments"].as_array().unwrap();
        segments.iter().map(|segment| segment["file"].as_str().unwrap().to_owned()).collect()
    };
    let (first, all) = (files(1), files(3));
    assert!(!first.is_empty() && all.len() > first.len() + 1, "{first:?}, {all:?}");
    assert_eq!(all[..first.len()], first);
    // Generation and ordinal in each header.
    let origins: Vec<(u64, u32)> = all
        .iter()
        .map(|file| {
            let header = std::fs::read(written.index.path().join(file)).unwrap();
            let (generation, ordinal) = (&header[104..112], &header[112..116]);
            let generation = u64::from_le_bytes(generation.try_into().unwrap());
            (generation, u32::from_le_bytes(ordinal.try_into().unwrap()))
        })
        .collect();
    let expected = (0..first.len()).map(|ordinal| (1, ordinal as u32));
    let expected = expected.chain((0..all.len() - first.len()).map(|ordinal| (2, ordinal as u32)));
    assert_eq!(origins, expected.collect::<Vec<_>>());
    assert_eq!(files(0), Vec::<String>::new());
}

/// Catches a score, or an order, that depends on the implementation.
#[test]
fn second_reader_ranks_the_same() {
    let Some(python) = python() else { return };
    let written = write();
    let snapshot = written.index.snapshot().unwrap();
    let spec = snapshot.schema().spec().clone();
    let queries: Vec<Sketch> = [1001, 1004, 7].map(|seed| sketch(&spec, seed)).into();
    let file = Path::new(&written.listing).with_file_name("queries.json");
    let numbers: Vec<Vec<u32>> =
        queries.iter().map(|query| query.values().iter().map(|x| x.to_bits()).collect()).collect();
    std::fs::write(&file, serde_json::to_string(&numbers).unwrap()).unwrap();
    let base = [
        "scores",
        &written.path,
        "--listing",
        &written.listing,
        "--top",
        "1000",
        "--bottom",
        "9",
        "--queries",
    ];
    let base: Vec<&str> = base.into_iter().chain([file.to_str().unwrap()]).collect();

    for (metric, metric_name) in [(Metric::InnerProduct, "inner"), (Metric::Cosine, "cosine")] {
        for (grouping, grouping_name) in
            [(Grouping::Rows, "none"), (Grouping::Max, "max"), (Grouping::Sum, "sum")]
        {
            for blocks in [&["layers.0", "layers.1", "head"][..], &["head"], &["layers.1", "layers.0"]] {
                let weights: Vec<String> =
                    (0..blocks.len()).map(|i| format!("{}", 0.75 + i as f64)).collect();
                let mut arguments = base.clone();
                arguments.extend(["--metric", metric_name, "--group", grouping_name, "--weights"]);
                arguments.extend(weights.iter().map(String::as_str));
                arguments.push("--blocks");
                arguments.extend(blocks);
                let answer: Value = serde_json::from_str(&read(&python, &arguments)).unwrap();
                let weights =
                    blocks.iter().zip(&weights).map(|(block, weight)| (*block, weight.parse().unwrap()));
                let scan = snapshot.scan(&queries).unwrap().top_k(1000).bottom_k(9);
                let ranking = scan
                    .metric(metric)
                    .grouping(grouping)
                    .blocks(blocks.iter().copied())
                    .weights(weights)
                    .run()
                    .unwrap();
                for query in 0..queries.len() {
                    let expected = &answer["queries"][query];
                    assert_eq!(
                        Value::from(shown(ranking.proponents(query))),
                        expected_hits(&expected["top"])
                    );
                    assert_eq!(
                        Value::from(shown(ranking.opponents(query))),
                        expected_hits(&expected["bottom"])
                    );
                }
            }
        }
    }
}

/// Id and score bits of each hit.
fn shown(hits: &[Hit]) -> Vec<Value> {
    hits.iter()
        .map(|hit| serde_json::json!([hex(&hit.id), format!("{:016x}", hit.score.to_bits())]))
        .collect()
}

fn expected_hits(hits: &Value) -> Value {
    hits.as_array().unwrap().iter().map(|hit| serde_json::json!([hit["id"], hit["score"]])).collect()
}

/// Catches a fold that is not the one of the specification.
#[test]
fn second_reader_folds_the_same() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let gradient = sketch(&SketchSpec::dense("numbers", "1", [("all", 100_003)]), 5);
    let (first, second) = gradient.values().split_at(33_333);
    let mut tensors = Vec::new();
    for (name, values) in [("layers.0.weight", first), ("head.bias", second)] {
        let file = folder.path().join(name);
        std::fs::write(&file, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        tensors.push(format!("{name}={}", file.to_str().unwrap()));
    }
    for (normalisation, dims) in [(Normalisation::None, 1024u32), (Normalisation::PerTensor, 16)] {
        let spec = SketchSpec::rapid_grad(7, dims).normalised(normalisation);
        let sketcher = Sketcher::new(spec).unwrap();
        let mut fold = sketcher.start();
        fold.add("layers.0.weight", first).unwrap();
        fold.add("head.bias", second).unwrap();
        let ours: Vec<u32> = fold.finish().unwrap().values().iter().map(|x| x.to_bits()).collect();
        let dims = dims.to_string();
        let mut arguments =
            vec!["fold", "--seed", "7", "--dims", &dims, "--tensor", &tensors[0], "--tensor", &tensors[1]];
        if normalisation == Normalisation::PerTensor {
            arguments.push("--normalise");
        }
        let theirs: Vec<u32> = serde_json::from_str(&read(&python, &arguments)).unwrap();
        assert_eq!(ours, theirs);
    }
}

/// Catches projections or sums that are not those of the specification.
#[test]
fn second_reader_projects_the_same() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let gradient = sketch(&SketchSpec::dense("numbers", "1", [("all", 130 * 700)]), 5);
    let mut given = Vec::new();
    for (name, shape) in [("layer.q", [130, 700]), ("layer.k", [9, 40]), ("layer.v", [70, 12])] {
        let values = &gradient.values()[..shape[0] * shape[1]];
        let file = folder.path().join(name);
        std::fs::write(&file, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        let [n_in, n_out] = shape;
        given.push((name, shape, values, format!("{name}={n_in}x{n_out}={}", file.to_str().unwrap())));
    }
    for (p_in, p_out) in [(16u32, 12u32), (9, 64), (1, 1)] {
        let sketcher = Sketcher::new(SketchSpec::kronecker(7, [("layer", p_in, p_out)])).unwrap();
        let mut fold = sketcher.start();
        let (first, second) = (p_in.to_string(), p_out.to_string());
        let mut arguments = vec!["kronecker", "--seed", "7", "--sides", &first, &second];
        for (name, shape, values, matrix) in &given {
            fold.add_matrix(name, *shape, values).unwrap();
            arguments.extend(["--matrix", matrix]);
        }
        let ours: Vec<u32> = fold.finish().unwrap().values().iter().map(|x| x.to_bits()).collect();
        let theirs: Vec<u32> = serde_json::from_str(&read(&python, &arguments)).unwrap();
        assert_eq!(ours, theirs);
    }
}

/// Catches a schema of projections and of an optimizer that is written otherwise than the page says, or that
/// the second reader does not take.
#[test]
fn second_reader_takes_the_schema_of_projections() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/index-file.md");
    let page: String = std::fs::read_to_string(page).unwrap().split_whitespace().collect();
    let step = OptimizerStep::adam(0.9, 0.999, 1e-8, "sha256:5d1f");
    let spec = SketchSpec::kronecker(7, [("layers.0", 64, 64), ("layers.1", 16, 32)]).with_optimizer(step);
    let schema = Schema::new(spec.clone(), Encoding::F16).unwrap();
    let json = serde_json::to_string(&schema).unwrap();
    let parts: Vec<&str> = page.split("```").collect();
    let [sketcher, optimizer] = [r#"text"sketcher":{"kind":"kronecker""#, r#"text"optimizer":"#]
        .map(|start| parts.iter().find(|part| part.starts_with(start)).unwrap().trim_start_matches("text"));
    assert_eq!(json, format!(r#"{{"spec":{{{sketcher},{optimizer}}},"encodings":["f16","f16"]}}"#));

    let Some(python) = python() else { return };
    let (folder, index) = indexes::create(&schema);
    let mut writer = index.writer().unwrap();
    writer.append("x", &sketch(&spec, 3)).unwrap();
    writer.commit().unwrap();
    let listing = folder.path().join("listing.json");
    std::fs::write(&listing, index.snapshot().unwrap().listing().unwrap()).unwrap();
    let verified: Value = serde_json::from_str(&read(
        &python,
        &["verify", index.path().to_str().unwrap(), "--listing", listing.to_str().unwrap()],
    ))
    .unwrap();
    assert_eq!(verified["live"], 1);
}

/// Catches parts and notes that are not those of the specification, and attached segments that are no segments like
/// others to the second reader.
#[test]
fn second_reader_reads_parts_and_attached_segments() {
    let Some(python) = python() else { return };
    let spec = SketchSpec::dense("test", "v1", [("layers.0", 37), ("head", 4099)]);
    let schema = Schema::with_encodings(spec.clone(), vec![Encoding::F16, Encoding::I8]).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 3 }]).unwrap();
    let (folder, index) = indexes::create_with(Index::options().segment_bytes(1 << 20), &schema);
    let built = folder.path().join("built");
    let mut detached =
        Index::options().segment_bytes(1 << 20).detached(index.path().join("INDEX"), &built).unwrap();
    detached.fit_curvature("curvature", &[("head", Estimate::Nystrom { width: 11 })]).unwrap();
    for example in 0..300u64 {
        let sketches: Vec<Sketch> =
            (0..1 + example % 2).map(|row| sketch(&spec, 2 * example + row)).collect();
        let rows: Vec<Row<'_>> = sketches.iter().map(|sketch| Row::new(sketch).source("wiki")).collect();
        detached.append_rows(format!("example {example}"), &rows).unwrap();
        detached.observe("tokens", format!("example {example}"), &sketches[..1]).unwrap();
        if example == 4 {
            detached.finish("five").unwrap();
        }
    }
    detached.finish("the rest").unwrap();
    detached.finish("nothing more").unwrap();
    drop(detached);

    let parts = Part::list(&built).unwrap();
    assert!(parts[1].segments.len() > 1 && parts[2].segments.is_empty(), "{parts:?}");
    let path = index.path().to_str().unwrap();
    let arguments = parts.iter().map(|part| part.path.to_str().unwrap());
    let checked = read(&python, &["part", path].into_iter().chain(arguments).collect::<Vec<_>>());
    let checked: Vec<Value> = checked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = parts.iter().map(|part| {
        serde_json::json!({
            "number": part.number, "segments": part.segments.len(), "sums": part.sums.len(), "rows": part.rows(),
            "examples": part.examples(), "payload": hex(&part.payload), "warnings": [],
        })
    });
    assert_eq!(checked, expected.collect::<Vec<_>>());

    // Some linked, some moved; rows of the writer's own before, between and after, and a later commit.
    let mut writer = index.writer().unwrap();
    writer.append("before", &sketch(&spec, 1001)).unwrap();
    writer.attach(&parts[0].path, Attach::Link).unwrap();
    writer.append("between", &sketch(&spec, 1002)).unwrap();
    writer.attach(&parts[1].path, Attach::Move).unwrap();
    writer.commit().unwrap();
    assert!(writer.delete("example 7").unwrap());
    writer.append("after", &sketch(&spec, 1003)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let snapshot = index.snapshot().unwrap();
    let listing = folder.path().join("listing.json");
    std::fs::write(&listing, snapshot.listing().unwrap()).unwrap();
    let listing = listing.to_str().unwrap();
    let verified: Value =
        serde_json::from_str(&read(&python, &["verify", path, "--listing", listing])).unwrap();
    let attached = parts[0].segments.len() + parts[1].segments.len();
    assert_eq!((&verified["attached"], &verified["live"]), (&attached.into(), &snapshot.rows().into()));
    assert_eq!(verified["segments"], attached + 3);
    // Of curvature and tokens; the first is computed again from the rows of both parts.
    assert_eq!((&verified["artifacts"], &verified["recounted"]), (&2.into(), &1.into()));
    let dumped = read(&python, &["dump", path, "--listing", listing]);
    let ids: Vec<String> = dumped
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = snapshot.iter().map(|row| hex(&row.unwrap().id)).collect();
    assert_eq!(ids, expected);
    assert_sound(&index);

    // A part that was moved has no segments any more; a note is not to be changed.
    let moved = parts[1].path.with_extension("moved");
    let output = reader(&python, &["part", path, moved.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let segment = parts[0].segments[0].segment;
    let note = index.path().join(format!("segments/{segment}.attached"));
    let mut bytes = std::fs::read(&note).unwrap();
    bytes[12] ^= 1;
    std::fs::write(&note, bytes).unwrap();
    let output = reader(&python, &["verify", path, "--listing", listing]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!index.verify().unwrap().is_sound());
}

/// Catches artifacts and a listing of them that are not those of the specification, and sums that are not those of the covered
/// rows: the second reader computes them again.
#[test]
fn second_reader_computes_the_sums_again() {
    let Some(python) = python() else { return };
    let written = write();
    let verify = |recounted: usize| {
        let snapshot = written.index.snapshot().unwrap();
        std::fs::write(&written.listing, snapshot.listing().unwrap()).unwrap();
        let verified = read(&python, &["verify", &written.path, "--listing", &written.listing]);
        let verified: Value = serde_json::from_str(&verified).unwrap();
        assert_eq!(verified["recounted"], recounted);
        assert_sound(&written.index);
        verified["artifacts"].as_u64().unwrap()
    };
    let mut writer = written.index.writer().unwrap();
    let narrow = || FitOptions::default().estimate("head", Estimate::Nystrom { width: 11 });
    writer.fit_curvature(narrow()).unwrap();
    writer
        .fit_curvature(narrow().name("nested").estimate("layers", Estimate::Nystrom { width: 30 }))
        .unwrap();
    assert_eq!(verify(2), 2);
    // Rows that were summed are deleted, observed, subtracted, and moved.
    let spec = writer.schema().spec().clone();
    for example in (1..260).step_by(14) {
        assert!(writer.delete(format!("example {example:03}")).unwrap());
    }
    writer.append("late", &sketch(&spec, 2001)).unwrap();
    writer.observe("tokens", "late", &[sketch(&spec, 2002), sketch(&spec, 2003)]).unwrap();
    writer.commit().unwrap();
    assert_eq!(verify(2), 3);
    let fit = writer.fit_curvature(narrow()).unwrap();
    assert!(fit.subtracted > 0 && !fit.refitted, "{fit:?}");
    assert_eq!(verify(2), 3);
    // Then there are rows in the nested sums that nobody can find.
    writer.compact(CompactOptions::all()).unwrap();
    assert_eq!(verify(1), 3);
    assert!(writer.drop_curvature("nested").unwrap());
    assert_eq!(verify(1), 2);
    drop(writer);

    // A covered row too many.
    let listing = std::fs::read_to_string(&written.listing).unwrap();
    let mut listing: Value = serde_json::from_str(&listing).unwrap();
    let curvature = &mut listing["artifacts"][0];
    assert_eq!((&curvature["name"], &curvature["kind"]), (&"curvature".into(), &"rows".into()));
    let last = curvature["covered"][0]["rows"].as_array_mut().unwrap().last_mut().unwrap();
    last[1] = (last[1].as_u64().unwrap() - 1).into();
    std::fs::write(&written.listing, listing.to_string()).unwrap();
    let output = reader(&python, &["verify", &written.path, "--listing", &written.listing]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// Catches self-influence that is not laid out as the specification says, also when rows have been deleted and moved since.
#[test]
fn second_reader_reads_self_influence() {
    let Some(python) = python() else { return };
    let spec = SketchSpec::dense("test", "v1", [("layers.0", 37), ("head", 20)]);
    let schema = Schema::with_encodings(spec.clone(), vec![Encoding::F16, Encoding::I8]).unwrap();
    let (folder, index) = indexes::create(&schema);
    let mut writer = index.writer().unwrap();
    let listing = folder.path().join("listing.json");
    let verify = || {
        std::fs::write(&listing, index.snapshot().unwrap().listing().unwrap()).unwrap();
        let arguments = ["verify", index.path().to_str().unwrap(), "--listing", listing.to_str().unwrap()];
        let verified: Value = serde_json::from_str(&read(&python, &arguments)).unwrap();
        assert_sound(&index);
        (verified["artifacts"].as_u64().unwrap(), verified["recounted"].as_u64().unwrap())
    };
    for commit in 0..2u64 {
        for example in 0..30 {
            writer.append([commit as u8, example as u8], &sketch(&spec, commit * 30 + example)).unwrap();
        }
        writer.commit().unwrap();
    }
    writer.delete([0, 3]).unwrap();
    writer.delete([1, 9]).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    writer.fit_self_influence(SelfInfluenceOptions::default()).unwrap();
    assert_eq!(verify(), (2, 1));
    writer.delete([1, 10]).unwrap();
    writer.commit().unwrap();
    assert_eq!(verify(), (2, 1));
    // Its rows are not those of the new segment: it is dropped.
    writer.compact(CompactOptions::all()).unwrap();
    assert_eq!(verify(), (1, 0));
}

/// Catches a second reader that would accept anything.
#[test]
fn second_reader_refuses_damage() {
    let Some(python) = python() else { return };
    let written = write();
    let file = &segment_files(written.index.path())[0];
    let mut bytes = std::fs::read(file).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let output = reader(&python, &["verify", &written.path, "--listing", &written.listing]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!written.index.verify().unwrap().is_sound());
}
