//! Every score in row order.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::reference::{self, Data};
use crate::scan::plan::Limits;
use crate::scan::{CancelToken, Grouping, Hit, Reading, ScanError, ScoredRows};

/// What a sink gets, as hits.
fn hits(rows: &ScoredRows<'_>, query: usize) -> Vec<Hit> {
    let hit = |(row, &score): (usize, &f64)| Hit {
        id: rows.id(row).unwrap().to_vec(),
        score,
        span: rows.span(row).unwrap(),
        source: rows.source(row).unwrap().map(str::to_owned),
        metadata: None,
    };
    rows.scores(query).iter().enumerate().map(hit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Catches a score that is lost, comes twice, out of order or with another row's id, whatever is
    /// filtered, grouped, and however the rows are cut and read.
    #[test]
    fn scores_come_in_row_order(
        request in super::request(),
        seed in any::<u64>(),
        examples in 0usize..60,
        threads in 1usize..5,
        reading in prop_oneof![Just(Reading::Mapped), Just(Reading::Buffered), Just(Reading::Direct)],
        piece_rows in 1usize..9,
        tile_rows in 1u32..12,
    ) {
        let data = Data::new(&super::schema(), seed, examples, 3);
        prop_assume!(request.source_names().into_iter().flatten().all(|name| data.sources().contains(&name)));
        let queries = data.queries(3);
        let row_bytes: usize = request.blocks.iter().map(|&block| data.schema.stride(block)).sum();
        let mut scan = data.scan(&request, &queries).threads(threads).reading(reading);
        scan.limits =
            Limits { piece_bytes: piece_rows * row_bytes, block_bytes: 1, tile_rows, break_even: None };
        let mut found: Vec<Vec<Hit>> = vec![Vec::new(); queries.len()];
        let statistics = scan.scores(|rows| {
            assert!(rows.scores(queries.len()).is_empty());
            for (query, found) in found.iter_mut().enumerate() {
                assert_eq!(rows.scores(query).len(), rows.len());
                found.extend(hits(rows, query));
            }
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(statistics.rows + statistics.rows_filtered, data.rows.len() as u64);
        for (query, found) in found.iter_mut().enumerate() {
            let mut expected = data.every(&request, &queries[query]);
            if request.grouping == Grouping::Max && query > 0 {
                // The row that stands for an example is that of the first query.
                for hit in found.iter_mut().chain(&mut expected) {
                    (hit.span, hit.source) = (crate::segment::Span::WHOLE, None);
                }
            }
            prop_assert_eq!(reference::bits(found), reference::bits(&expected));
        }
    }
}

/// Catches a scan that goes on after its caller has had enough, or takes that for a failure; one that
/// cannot be cancelled; and workers that wait for ever when the sink panics.
#[test]
fn sinks_end_the_scan() {
    let data = Data::new(&super::schema(), 3, 80, 2);
    let queries = data.queries(1);
    let scan = |threads| {
        let mut scan = data.scan_all(&queries).unwrap().threads(threads);
        scan.limits = Limits { piece_bytes: 1, block_bytes: 1, tile_rows: 1, break_even: None };
        scan
    };
    for threads in [1, 4] {
        let mut calls = 0;
        let statistics = scan(threads).scores(|_| {
            calls += 1;
            if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(calls, 5);
        assert!(statistics.unwrap().rows < data.rows.len() as u64);

        let token = CancelToken::new();
        let cancelled = scan(threads).cancel(&token).scores(|_| {
            token.cancel();
            ControlFlow::Continue(())
        });
        assert!(matches!(cancelled.unwrap_err(), ScanError::Cancelled));

        let panicked = AtomicBool::new(false);
        let run = || {
            scan(threads).scores(|_| {
                assert!(panicked.swap(true, Ordering::Relaxed), "the sink panics once");
                ControlFlow::Continue(())
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}

/// Catches scores of damaged codes that reach the caller, or damage that is not told.
#[test]
fn scores_of_damaged_codes_are_an_error() {
    let data = Data::new(&super::schema(), 11, 60, 3).with_flipped_code(1);
    let queries = data.queries(1);
    let segment = data.segments[0].reader.rows() as usize;
    let mut rows = 0;
    let error = data.scan_all(&queries).unwrap().threads(2).scores(|scored| {
        rows += scored.len();
        ControlFlow::Continue(())
    });
    assert!(matches!(error.unwrap_err(), ScanError::Segment(_)));
    assert!(rows <= segment, "{rows} rows of {segment}");
}

/// Catches a window that lets scores pile up in front of a slow sink.
#[test]
fn scores_wait_for_a_slow_sink() {
    let data = Data::new(&super::schema(), 5, 200, 1);
    let queries = data.queries(1);
    let mut scan = data.scan_all(&queries).unwrap().threads(3);
    scan.limits = Limits { piece_bytes: 1, block_bytes: 1, tile_rows: 1, break_even: None };
    let scored = std::sync::atomic::AtomicUsize::new(0);
    let (mut got, mut most) = (0, 0);
    let scan = scan.progress(|_| {
        scored.fetch_add(1, Ordering::SeqCst);
    });
    scan.scores(|rows| {
        std::thread::sleep(std::time::Duration::from_micros(300));
        got += rows.len();
        most = most.max(scored.load(Ordering::SeqCst).saturating_sub(got));
        ControlFlow::Continue(())
    })
    .unwrap();
    // Pieces of one row: those of deleted rows are told and not delivered.
    let dead = data.rows.iter().filter(|row| row.dead).count();
    assert!(got > 100 && most <= dead + 2 * 3 + 3, "{most} rows ahead of {got}");
}
