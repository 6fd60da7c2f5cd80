//! The engine against a reference that decodes every row and sorts everything.

mod every;
mod reading;
mod reference;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::plan::Limits;
use super::*;
use crate::codec::{Encoding, Tier};
use crate::random::Random;
use crate::schema::Schema;
use crate::segment::{SegmentError, Span};
use crate::sketch::{Sketch, SketchSpec};
use reference::{Data, Request};

/// Names and dims of blocks, one of each encoding and a second one of `i8`.
const BLOCKS: [(&str, u32, Encoding); 4] =
    [("a", 37, Encoding::F32), ("b", 16, Encoding::F16), ("c", 65, Encoding::I8), ("d", 3, Encoding::I8)];

fn schema() -> Schema {
    let spec = SketchSpec::dense("test", "1", BLOCKS.map(|(name, dims, _)| (name, dims)));
    let schema = Schema::with_encodings(spec, BLOCKS.map(|(_, _, encoding)| encoding).to_vec()).unwrap();
    schema.with_tiers(Tier::all(5)).unwrap()
}

/// Catches an encoding that no scan of these tests meets.
#[test]
fn blocks_have_every_encoding() {
    for wanted in Encoding::ALL {
        assert!(BLOCKS.iter().any(|(_, _, encoding)| encoding == wanted), "no block has {wanted}");
    }
}

fn request() -> impl Strategy<Value = Request> {
    let ends = (0usize..12, 0usize..12).prop_filter("one end", |(top, bottom)| top + bottom > 0);
    let how = (
        prop_oneof![Just(Metric::InnerProduct), Just(Metric::Cosine), Just(Metric::UnitRows)],
        0..3usize,
        0..6usize,
    );
    let blocks = 1u8..1 << BLOCKS.len();
    (ends, how, blocks, prop::collection::vec(0..4usize, BLOCKS.len()), any::<u64>()).prop_map(
        |((top_k, bottom_k), (metric, grouping, spans), blocks, weights, seed)| {
            let mut random = Random(seed);
            Request {
                top_k,
                bottom_k,
                metric,
                grouping: [Grouping::Rows, Grouping::Max, Grouping::Sum][grouping],
                blocks: (0..BLOCKS.len()).filter(|block| blocks >> block & 1 == 1).collect(),
                weights: weights
                    .iter()
                    .map(|&weight| {
                        [1.0, 0.0, 0.3, if metric == Metric::InnerProduct { -2.5 } else { 7.0 }][weight]
                    })
                    .collect(),
                spans: match spans {
                    0 => SpanFilter::Whole,
                    1 => SpanFilter::Tokens,
                    2 => SpanFilter::Overlapping(Span::tokens(2, 4)),
                    _ => SpanFilter::All,
                },
                ids: (random.below(3) == 0)
                    .then(|| (0..random.below(20)).map(|_| random.below(60)).collect()),
                excluded: if random.below(3) == 0 {
                    (0..5).map(|_| random.below(60)).collect()
                } else {
                    vec![]
                },
                sources: (random.below(3) == 0)
                    .then(|| (0..random.below(3)).map(|i| i + random.below(2)).collect()),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// Catches any score that is not the specification's to the last bit, a deleted or filtered row
    /// that is ranked, an example cut in two by a piece or a tile, ties in another order than by id,
    /// and anything that depends on the kernel, the threads, or how the rows are cut and read.
    #[test]
    fn ranking_equals_the_reference(
        request in request(),
        seed in any::<u64>(),
        examples in 1usize..60,
        queries in 1usize..7,
        threads in 1usize..5,
        reading in prop_oneof![Just(Reading::Auto), Just(Reading::Mapped), Just(Reading::Buffered), Just(Reading::Direct)],
        piece_rows in 1usize..9,
        tile_rows in 1u32..12,
    ) {
        // Without tiers, floats are narrowed on the way.
        let has_tiers = seed & 2 == 0;
        let schema = if has_tiers { schema() } else { schema().with_tiers([]).unwrap() };
        let data = Data::new(&schema, seed, examples, 3);
        let queries = data.queries(queries);
        let row_bytes: usize = request.blocks.iter().map(|&block| data.schema.stride(block)).sum();
        let break_even = Some(if seed & 1 == 0 { 1.0 } else { 0.5 });
        let limits = Limits { piece_bytes: piece_rows * row_bytes, block_bytes: 1, tile_rows, break_even };
        let guarantee = if has_tiers { Guarantee::Probable { delta: 1e-12 } } else { Guarantee::Exact };
        let expected = data.rank(&request, &queries);
        let kernels = KernelChoice::ALL;
        let paths = |kernel| ScanPath::ALL.iter().map(move |&path| (kernel, path));
        for (kernel, path) in kernels.into_iter().flat_map(paths) {
            if matches!(kernel.kernel(), Err(KernelError::Unsupported { .. })) {
                continue;
            }
            let mut scan = data.scan(&request, &queries).kernel(kernel).threads(threads).reading(reading);
            scan = scan.path(path).guarantee(guarantee);
            scan.limits = limits;
            let known = |name: &String| data.sources().contains(name);
            let unknown = request.source_names().into_iter().flatten().any(|name| !known(&name));
            match scan.run() {
                Err(ScanError::ImpossiblePath { path: found, .. }) => {
                    prop_assert!(found == path && path != ScanPath::Full);
                    let lacks_tier = !has_tiers && path != ScanPath::Bytes;
                    prop_assert!(request.grouping != Grouping::Rows || lacks_tier);
                }
                Err(ScanError::UnknownSource { .. }) => prop_assert!(unknown),
                ranking => {
                    let ranking = ranking.unwrap();
                    prop_assert!(!unknown);
                    prop_assert_eq!(ranking.statistics().kernel, kernel.to_string());
                    prop_assert_eq!(ranking.statistics().path, path);
                    prop_assert!(reading == Reading::Auto || ranking.statistics().reading == reading);
                    let total = ranking.statistics().rows + ranking.statistics().rows_filtered;
                    prop_assert_eq!(total, data.rows.len() as u64);
                    if path == ScanPath::Full {
                        let read = ranking.statistics().rows - ranking.statistics().rows_pruned_by_norm;
                        prop_assert_eq!(ranking.statistics().code_bytes, read * row_bytes as u64);
                    }
                    for (query, (top, bottom)) in expected.iter().enumerate() {
                        prop_assert_eq!(&reference::bits(ranking.proponents(query)), &reference::bits(top));
                        prop_assert_eq!(&reference::bits(ranking.opponents(query)), &reference::bits(bottom));
                    }
                }
            }
        }
    }
}

/// Rows wide and many enough for several row groups, pieces and tiles under the real limits. Catches
/// a row group that is skipped or scored with another one's scales.
#[test]
fn ranking_over_several_row_groups() {
    let spec = SketchSpec::dense("test", "1", [("wide", 1 << 20), ("narrow", 5)]);
    let schema = Schema::with_encodings(spec, vec![Encoding::I8, Encoding::F16]).unwrap();
    let data = Data::new(&schema, 5, 60, 2);
    assert!(data.segments.iter().any(|segment| segment.reader.groups().len() > 1));
    let queries = data.queries(2);
    for grouping in [Grouping::Rows, Grouping::Sum] {
        let request = Request { top_k: 100, bottom_k: 3, grouping, ..Request::all(2) };
        let expected = data.rank(&request, &queries);
        for threads in [0, 1, 3] {
            let ranking = data.scan(&request, &queries).threads(threads).run().unwrap();
            for (query, (top, bottom)) in expected.iter().enumerate() {
                assert_eq!(reference::bits(ranking.proponents(query)), reference::bits(top));
                assert_eq!(reference::bits(ranking.opponents(query)), reference::bits(bottom));
            }
        }
    }
}

/// Catches a cosine that divides by zero, and zero rows that are lost from the ranking.
#[test]
fn zero_rows_and_queries_have_cosine_zero() {
    let data = Data::new(&schema(), 1, 20, 1);
    let zero = Sketch::dense(data.schema.spec().clone(), vec![0.0; data.schema.spec().dims()]).unwrap();
    let request = Request { top_k: 1000, metric: Metric::Cosine, ..Request::all(4) };
    let queries = [zero, data.queries(1).remove(0)];
    let ranking = data.scan(&request, &queries).run().unwrap();
    let live = data.rows.iter().filter(|row| !row.dead).count();
    assert_eq!((ranking.proponents(0).len(), ranking.proponents(1).len()), (live, live));
    assert!(ranking.proponents(0).iter().all(|hit| hit.score == 0.0));
    let ids: Vec<_> = ranking.proponents(0).iter().map(|hit| &hit.id).collect();
    assert!(ids.is_sorted(), "equal scores are in the order of ids");
    let zeros: Vec<_> = data.rows.iter().filter(|row| !row.dead && row.is_zero()).collect();
    assert!(!zeros.is_empty());
    for row in zeros {
        assert!(ranking.proponents(1).iter().any(|hit| hit.id == row.id && hit.score == 0.0));
    }
}

/// Catches a scan that needs rows, or memory for `k` candidates, before it starts.
#[test]
fn empty_snapshot_gives_an_empty_ranking() {
    let data = Data::new(&schema(), 1, 0, 1);
    let queries = data.queries(2);
    let request = Request { top_k: usize::MAX, bottom_k: usize::MAX, ..Request::all(4) };
    let ranking = data.scan(&request, &queries).run().unwrap();
    assert_eq!((ranking.queries(), ranking.proponents(1).len(), ranking.opponents(0).len()), (2, 0, 0));
    assert!(ranking.proponents(7).is_empty());
    let full = Data::new(&schema(), 1, 10, 1);
    let queries = full.queries(1);
    let ranking = full.scan(&request, &queries).run().unwrap();
    assert_eq!(ranking.proponents(0).len(), full.rows.iter().filter(|row| !row.dead).count());
}

/// Catches a mistake of the caller that panics, is ignored, or is told without what was wrong.
#[test]
fn requests_that_make_no_sense_are_refused() {
    let data = Data::new(&schema(), 1, 10, 1);
    let queries = data.queries(1);
    let scan = || data.scan_all(&queries).unwrap();
    assert!(matches!(data.scan_all(&[]).unwrap_err(), ScanError::NoQueries));
    assert!(matches!(scan().run().unwrap_err(), ScanError::NoResults));
    let error = scan().top_k(1).blocks(["a", "nope"]).run().unwrap_err();
    assert!(matches!(error, ScanError::UnknownBlock { name } if name == "nope"));
    let error = scan().top_k(1).blocks(Vec::<String>::new()).run().unwrap_err();
    assert!(matches!(error, ScanError::NoBlocks));
    let error = scan().top_k(1).weights([("nope", 1.0)]).run().unwrap_err();
    assert!(matches!(error, ScanError::UnknownBlock { name } if name == "nope"));
    let error = scan().top_k(1).blocks(["a"]).weights([("b", 1.0)]).run().unwrap_err();
    assert!(matches!(error, ScanError::NotSelected { name } if name == "b"));
    for weight in [f64::NAN, f64::INFINITY] {
        let error = scan().top_k(1).weights([("b", weight)]).run().unwrap_err();
        assert!(matches!(error, ScanError::InvalidWeight { name, .. } if name == "b"));
    }
    assert!(scan().top_k(1).weights([("b", -1.0)]).run().is_ok());
    let error = scan().top_k(1).weights([("b", -1.0)]).metric(Metric::Cosine).run().unwrap_err();
    assert!(matches!(error, ScanError::InvalidWeight { name, weight } if name == "b" && weight == -1.0));
    let error = scan().top_k(1).sources(["nope"]).run().unwrap_err();
    assert!(matches!(error, ScanError::UnknownSource { name } if name == "nope"));
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let error = scan().top_k(1).weights([("a", f64::MAX), ("c", f64::MAX)]).metric(metric).run();
        assert!(matches!(error.unwrap_err(), ScanError::WeightsOverflow { query: 0 }));
    }
}

/// Catches a sketch of another spec, or one too large for f32 sums, that is ranked in silence.
#[test]
fn queries_that_do_not_fit_are_refused() {
    let data = Data::new(&schema(), 1, 10, 1);
    let spec = SketchSpec::dense("test", "2", BLOCKS.map(|(name, dims, _)| (name, dims)));
    let other = Sketch::dense(spec.clone(), vec![1.0; spec.dims()]).unwrap();
    let error = data.scan_all(&[data.queries(1).remove(0), other]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(r#"digest "1""#) && message.contains(r#"digest "2""#), "{message}");
    assert!(matches!(error, ScanError::OtherSpec { query: 1, .. }));

    let mut values = vec![0f32; data.schema.spec().dims()];
    values[37] = 4.7e18;
    let large = Sketch::dense(data.schema.spec().clone(), values.clone()).unwrap();
    let error = data.scan_all(&[large]).unwrap_err();
    assert!(matches!(error, ScanError::NormTooLarge { query: 0, block, .. } if block == "b"));
    values[37] = 4.6e18;
    let fits = [Sketch::dense(data.schema.spec().clone(), values).unwrap()];
    assert!(data.scan_all(&fits).unwrap().top_k(1).run().is_ok());
}

/// Catches ids of a filter that are missing and not counted, and an error of the lookup that is lost.
#[test]
fn ids_that_are_not_there_are_counted() {
    let data = Data::new(&schema(), 1, 10, 1);
    let queries = data.queries(1);
    let scan = data.scan_all(&queries).unwrap().top_k(5).ids(["no such id"]).exclude_ids(["nor this"]);
    let ranking = scan.run().unwrap();
    assert_eq!((ranking.proponents(0).len(), ranking.statistics().ids_missing), (0, 2));
    let mut gone = Data::new(&schema(), 1, 10, 1);
    gone.is_gone = true;
    let error = gone.scan_all(&queries).unwrap().top_k(5).ids(["x"]).run().unwrap_err();
    assert!(matches!(error, ScanError::Lookup { source } if source.to_string() == "gone"));
}

/// Catches a scan that goes on after it was cancelled, and progress that jumps back or stops early.
#[test]
fn progress_is_told_and_cancelling_stops() {
    let data = Data::new(&schema(), 3, 50, 2);
    let queries = data.queries(1);
    let (calls, last) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut scan = data.scan_all(&queries).unwrap().top_k(1).threads(3).progress(|progress| {
        assert_eq!(progress.rows_total, data.rows.len() as u64);
        assert!(progress.rows_done > last.swap(progress.rows_done, Ordering::Relaxed));
        calls.fetch_add(1, Ordering::Relaxed);
    });
    scan.limits = Limits { piece_bytes: 1, block_bytes: 1, tile_rows: 1, break_even: None };
    scan.run().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), data.rows.len() as u64);
    assert_eq!(last.load(Ordering::Relaxed), data.rows.len() as u64);

    let token = CancelToken::new();
    let mut scan = data.scan_all(&queries).unwrap().top_k(1).threads(2).cancel(&token).progress(|progress| {
        assert!(progress.rows_done < progress.rows_total, "ran to the end");
        token.cancel();
    });
    scan.limits = Limits { piece_bytes: 1, block_bytes: 1, tile_rows: 1, break_even: None };
    assert!(matches!(scan.run().unwrap_err(), ScanError::Cancelled));
    let scan = data.scan_all(&queries).unwrap().top_k(1).cancel(&token);
    assert!(matches!(scan.run().unwrap_err(), ScanError::Cancelled));
}

/// Catches a tile that is too large to react within 50 ms, and a batch that is packed to the end:
/// many wide queries on the slowest kernel.
#[test]
fn cancelling_reacts_at_once_on_the_slowest_kernel() {
    let spec = SketchSpec::dense("test", "1", [("wide", 1 << 16)]);
    let schema = Schema::new(spec, Encoding::F32).unwrap();
    let data = Data::new(&schema, 9, 40, 1);
    let queries = data.queries(300);
    let mut reactions = Vec::new();
    for delay in [5, 50, 300, 310, 320] {
        let token = CancelToken::new();
        let scan = data.scan_all(&queries).unwrap().top_k(10).kernel(KernelChoice::Scalar).cancel(&token);
        let watcher = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            token.cancel();
            Instant::now()
        });
        let error = scan.threads(1).run().unwrap_err();
        assert!(matches!(error, ScanError::Cancelled));
        let ended = Instant::now();
        reactions.push(ended.saturating_duration_since(watcher.join().unwrap()));
    }
    // Others may share the machine, so that some of the reactions are late.
    reactions.sort();
    assert!(reactions[2] < Duration::from_millis(50), "{reactions:?}");
}

/// Catches damage that is skipped, that hides behind another worker's stop, or that names no file.
#[test]
fn damage_is_an_error_that_names_the_file() {
    let data = Data::new(&schema(), 3, 50, 2);
    let queries = data.queries(1);
    let damaged = data.with_flipped_code(1);
    for threads in [1, 4] {
        let error = damaged.scan_all(&queries).unwrap().top_k(1).threads(threads).run().unwrap_err();
        let ScanError::Segment(SegmentError::Damaged { file, .. }) = error else { panic!("{error}") };
        assert!(file.contains(&damaged.segments[1].reader.segment().to_string()));
    }
    // Blocks that were not damaged can still be scanned.
    assert!(damaged.scan_all(&queries).unwrap().top_k(1).blocks(["b", "c"]).run().is_ok());
}

/// Catches infinity and NaN that crafted codes with right checksums bring into scores.
#[test]
fn codes_that_are_not_numbers_are_damage() {
    for code in [f32::NAN, f32::INFINITY] {
        let data = Data::crafted(&schema(), code);
        let queries = data.queries(1);
        let error = data.scan_all(&queries).unwrap().top_k(1).run().unwrap_err();
        assert!(matches!(error, ScanError::Segment(SegmentError::Damaged { .. })), "{error}");
    }
}

/// Catches a snapshot whose scans look ids up in the wrong place, or rank what was deleted.
#[test]
fn snapshot_scans_its_generation() {
    let folder = tempfile::tempdir().unwrap();
    let schema = schema();
    let index = crate::Index::options().create(folder.path().join("x.gradix"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let dims = schema.spec().dims();
    let sketch = |value: f32| Sketch::dense(schema.spec().clone(), vec![value; dims]).unwrap();
    for i in 1u8..=5 {
        writer.append([b'a' + i], &sketch(f32::from(i))).unwrap();
    }
    writer.commit().unwrap();
    let before = index.snapshot().unwrap();
    writer.delete("f").unwrap();
    writer.replace("b", &[crate::Row::new(&sketch(9.0)).source("new")]).unwrap();
    writer.commit().unwrap();
    let after = index.snapshot().unwrap();
    let queries = [sketch(1.0)];
    let ids = |scan: Scan<'_>| {
        let ranking = scan.run().unwrap();
        ranking.proponents(0).iter().map(|hit| hit.id_lossy().into_owned()).collect::<String>()
    };
    assert_eq!(ids(before.scan(&queries).unwrap().top_k(9)), "fedcb");
    assert_eq!(ids(after.scan(&queries).unwrap().top_k(9)), "bedc");
    assert_eq!(ids(before.scan(&queries).unwrap().top_k(9).ids(["b", "f"])), "fb");
    assert_eq!(ids(after.scan(&queries).unwrap().top_k(9).ids(["b", "f"])), "b");
    assert_eq!(ids(after.scan(&queries).unwrap().top_k(9).exclude_ids(["b", "d"])), "ec");
    assert_eq!(ids(after.scan(&queries).unwrap().top_k(9).sources(["new"])), "b");
}

/// Catches a screen whose intervals are so wide that it prunes nothing where most could be.
#[test]
fn screens_prune_most_rows() {
    const DIMS: u32 = 1024;
    let folder = tempfile::tempdir().unwrap();
    let spec = SketchSpec::dense("test", "1", [("all", DIMS)]);
    let schema = Schema::new(spec.clone(), Encoding::F16).unwrap();
    let schema = schema.with_tiers(Tier::all(8)).unwrap();
    let index = crate::Index::options().create(folder.path().join("a.gradix"), &schema).unwrap();
    let mut random = Random(4);
    let mut noise = || (0..DIMS).map(|_| random.below(1 << 20) as f32 / 524_288.0 - 1.0).collect::<Vec<_>>();
    let common = noise();
    let mut writer = index.writer().unwrap();
    for row in 0..4000 {
        // One row of forty is like the query.
        let share = if row % 40 == 0 { 0.9 } else { 0.0 };
        let values = common.iter().zip(noise()).map(|(c, n)| share * c + (1.0 - share) * n).collect();
        writer.append(format!("{row}"), &Sketch::dense(spec.clone(), values).unwrap()).unwrap();
    }
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let queries = [Sketch::dense(spec.clone(), common.clone()).unwrap()];
    for &path in ScanPath::ALL.iter().filter(|&&path| path != ScanPath::Full) {
        let mut scan = snapshot.scan(&queries).unwrap().top_k(10).threads(1).path(path);
        // Never put aside, whatever this machine's speeds are.
        scan.limits = Limits { break_even: Some(1.0), ..Limits::DEFAULT };
        let ranking = scan.guarantee(Guarantee::Probable { delta: 1e-9 }).run().unwrap();
        let statistics = ranking.statistics();
        assert_eq!(statistics.path, path);
        assert!(statistics.rows_screened > 3000, "{path} looked at {}", statistics.rows_screened);
        assert!(statistics.candidate_scores * 10 < statistics.rows_screened, "{path}: {statistics:?}");
    }
}
