//! Any sequence of operations on an index against a model in memory: each kept generation, and each held
//! snapshot, is what the model was, by id, by iterator, by scan and by another handle.
//!
//! A byte is an operation and an example. Scores are sums of small integers, so that a scan over the rows of
//! the model has the same bits.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gradix::scan::ScanPath;
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    AppendError, CompactOptions, Encoding, GcOptions, Hit, Index, Row, Schema, Snapshot, Span, Tier, Writer,
};
use libfuzzer_sys::fuzz_target;

const IDS: u8 = 6;
const STEPS: usize = 40;
const SOURCES: [&str; 3] = ["books", "news", "wiki"];

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    seed: u32,
    span: Span,
    source: Option<&'static str>,
    metadata: Vec<u8>,
}

/// A generation: the rows of each example, and the commit's payload.
#[derive(Debug, Clone, Default)]
struct Model {
    examples: BTreeMap<u8, Vec<Stored>>,
    payload: Vec<u8>,
}

fn spec() -> SketchSpec {
    SketchSpec::dense("fuzz", "v1", [("all", 2)])
}

fn sketch(seed: u32) -> Sketch {
    Sketch::dense(spec(), vec![(seed % 16) as f32 - 7.0, 1.0 + (seed % 3) as f32]).unwrap()
}

/// Rows that differ in all columns.
fn rows_of(step: usize, count: u32) -> Vec<Stored> {
    let row = |row: u32| {
        let seed = step as u32 * 4 + row;
        Stored {
            seed,
            span: if seed % 4 == 0 { Span::WHOLE } else { Span::tokens(seed, seed + 1 + row) },
            source: SOURCES.get(seed as usize % 4).copied(),
            metadata: vec![b'm'; seed as usize % 5 * 7],
        }
    };
    (0..count).map(row).collect()
}

fn with_rows<T>(stored: &[Stored], work: impl FnOnce(&[Row<'_>]) -> T) -> T {
    let sketches: Vec<Sketch> = stored.iter().map(|row| sketch(row.seed)).collect();
    let rows = stored.iter().zip(&sketches).map(|(stored, sketch)| {
        let row = Row::new(sketch).span(stored.span).metadata(&stored.metadata);
        match stored.source {
            Some(source) => row.source(source),
            None => row,
        }
    });
    work(&rows.collect::<Vec<_>>())
}

/// What a row says of itself.
type Seen = (Span, Option<String>, Vec<u8>, Sketch);

fn expected(stored: &Stored) -> Seen {
    let source = stored.source.map(str::to_owned);
    (stored.span, source, stored.metadata.clone(), sketch(stored.seed))
}

fn score(seed: u32, query: &Sketch) -> f64 {
    let row = sketch(seed);
    row.values().iter().zip(query.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn assert_ranking(model: &Model, snapshot: &Snapshot, query: u32, path: ScanPath) {
    let queries = [sketch(query)];
    let k = 1 + query as usize % 5;
    let scan = snapshot.scan(&queries).unwrap().top_k(k).bottom_k(2).metadata(true).threads(1).path(path);
    let ranking = scan.run().unwrap();
    let rows = model.examples.iter().flat_map(|(id, rows)| rows.iter().map(move |row| (*id, row)));
    let scored: Vec<(f64, u8, &Stored)> =
        rows.map(|(id, row)| (score(row.seed, &queries[0]), id, row)).collect();
    let compare = |sign: f64, hits: &[Hit], k: usize| {
        let mut best = scored.clone();
        // Stable: rows of an example stay in their order.
        best.sort_by(|a, b| (sign * b.0).total_cmp(&(sign * a.0)).then(a.1.cmp(&b.1)));
        best.truncate(k);
        assert_eq!(hits.len(), best.len());
        for (hit, (score, id, stored)) in hits.iter().zip(best) {
            let (span, source, metadata, _) = expected(stored);
            assert_eq!((hit.score, &hit.id[..], hit.span), (score, &[id][..], span));
            assert_eq!((&hit.source, hit.metadata.as_ref()), (&source, Some(&metadata)));
        }
    };
    compare(1.0, ranking.proponents(0), k);
    compare(-1.0, ranking.opponents(0), 2);
}

/// By the planner's choice, and by one path that takes turns.
fn assert_is(model: &Model, snapshot: &Snapshot) {
    let count = model.examples.values().map(|rows| rows.len() as u64).sum::<u64>();
    assert_eq!(snapshot.rows(), count);
    assert_eq!(snapshot.payload().unwrap(), model.payload);
    for id in 0..IDS {
        let found = snapshot.get([id]).unwrap();
        let found = found.map(|found| {
            let rows = found.rows.into_iter();
            rows.map(|row| (row.span, row.source, row.metadata, row.sketch)).collect::<Vec<Seen>>()
        });
        let stored = model.examples.get(&id).map(|rows| rows.iter().map(expected).collect());
        assert_eq!(found, stored, "generation {}, id {id}", snapshot.generation());
    }
    let ids: Vec<Vec<u8>> = snapshot.ids().map(Result::unwrap).collect();
    assert_eq!(ids, model.examples.keys().map(|id| vec![*id]).collect::<Vec<_>>());
    let mut rows: BTreeMap<u8, Vec<Seen>> = BTreeMap::new();
    for row in snapshot.iter().with_sketches() {
        let row = row.unwrap();
        rows.entry(row.id[0]).or_default().push((row.span, row.source, row.metadata, row.sketch.unwrap()));
    }
    let stored = model.examples.iter().map(|(id, rows)| (*id, rows.iter().map(expected).collect()));
    assert_eq!(rows, stored.collect());
    let counted: u64 = snapshot.sources().unwrap().iter().map(|source| source.rows).sum();
    assert_eq!((counted, snapshot.stats().unwrap().rows), (count, count));
    let turn = snapshot.generation() as u32 + 3;
    let paths = [ScanPath::Full, ScanPath::Bytes, ScanPath::I8Tier];
    for path in [ScanPath::Auto, paths[turn as usize % 3]] {
        assert_ranking(model, snapshot, turn, path);
    }
}

/// The writer, and what it must have done.
struct Run {
    index: Index,
    /// Another handle, as another program has it.
    other: Index,
    writer: Option<Writer>,
    now: Model,
    /// What each kept generation is.
    generations: BTreeMap<u64, Model>,
    /// Snapshots, which outlive the collection of their files.
    held: VecDeque<(Model, Snapshot)>,
}

impl Run {
    fn new(path: &std::path::Path) -> Self {
        let schema = Schema::new(spec(), Encoding::F32).unwrap();
        let schema = schema.with_tiers([Tier::Sign { seed: 7 }, Tier::I8]).unwrap();
        let index = Index::create(path, &schema).unwrap();
        let writer = Some(index.writer().unwrap());
        let generations = BTreeMap::from([(0, Model::default())]);
        let other = Index::open(path).unwrap();
        Self { other, index, writer, now: Model::default(), generations, held: VecDeque::new() }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn last(&self) -> Model {
        self.generations.last_key_value().unwrap().1.clone()
    }

    fn commit(&mut self, payload: &[u8]) {
        let prepared = self.writer().prepare_commit().unwrap();
        let generation = prepared.payload(payload).commit().unwrap().generation;
        self.now.payload = payload.to_vec();
        assert!(self.generations.insert(generation, self.now.clone()).is_none());
    }

    fn step(&mut self, step: usize, byte: u8) {
        let (id, operation) = (byte % IDS, byte / IDS);
        let stored = rows_of(step, 1 + u32::from(operation) % 3);
        let is_there = self.now.examples.contains_key(&id);
        match operation {
            0..10 => match with_rows(&stored, |rows| self.writer().append_rows([id], rows)) {
                Ok(()) => assert!(self.now.examples.insert(id, stored).is_none()),
                Err(AppendError::DuplicateId { .. }) => assert!(is_there),
                Err(error) => panic!("{error}"),
            },
            10..12 => {
                let other = (id + 1) % IDS;
                let (one, two) = (&stored[..1], &rows_of(step + 100, 1)[..]);
                let appended = with_rows(one, |a| {
                    with_rows(two, |b| self.writer().append_batch(&[([id], a[0]), ([other], b[0])]))
                });
                let is_there = is_there || self.now.examples.contains_key(&other);
                match appended {
                    Ok(()) => {
                        assert!(!is_there);
                        self.now.examples.insert(id, one.to_vec());
                        self.now.examples.insert(other, two.to_vec());
                    }
                    Err(AppendError::DuplicateId { .. }) => assert!(is_there),
                    Err(error) => panic!("{error}"),
                }
            }
            12..17 => match with_rows(&stored, |rows| self.writer().replace([id], rows)) {
                Ok(()) => assert!(self.now.examples.insert(id, stored).is_some()),
                Err(AppendError::NotFound { .. }) => assert!(!is_there),
                Err(error) => panic!("{error}"),
            },
            17..22 => {
                assert_eq!(self.writer().contains([id]).unwrap(), is_there);
                assert_eq!(self.writer().delete([id]).unwrap(), is_there);
                self.now.examples.remove(&id);
            }
            22..27 => self.commit(&[id; 3][..usize::from(operation) % 4]),
            27 => {
                self.writer().prepare_commit().unwrap().abort().unwrap();
                self.now = self.last();
            }
            28 => {
                self.writer().abort().unwrap();
                self.now = self.last();
            }
            29 => {
                // A prepared commit that is dropped, with its writer.
                drop(self.writer().prepare_commit().unwrap());
                self.writer = None;
                self.writer = Some(self.index.writer().unwrap());
                self.now = self.last();
            }
            30 => {
                // The writer moves to the other handle.
                self.writer = None;
                std::mem::swap(&mut self.index, &mut self.other);
                self.writer = Some(self.index.writer().unwrap());
                self.now = self.last();
            }
            31..34 => {
                self.commit(b"before compaction");
                self.writer().compact(CompactOptions::all()).unwrap();
                let generation = self.writer().generation();
                if generation > *self.generations.last_key_value().unwrap().0 {
                    self.now.payload.clear();
                    self.generations.insert(generation, self.now.clone());
                }
            }
            34..37 => {
                self.commit(b"before collection");
                let kept = GcOptions::default().keep_generations(1 + u64::from(id)).grace(Duration::ZERO);
                let oldest = self.writer().gc(kept).unwrap().oldest;
                self.generations.retain(|&generation, _| generation >= oldest);
            }
            37..39 => {
                let index = if id % 2 == 0 { &self.index } else { &self.other };
                let snapshot = index.snapshot().unwrap();
                let model = self.last();
                assert_eq!(snapshot.generation(), *self.generations.last_key_value().unwrap().0);
                self.held.push_back((model, snapshot));
                if self.held.len() > 3 {
                    self.held.pop_front();
                }
            }
            39..41 => {
                // A kept generation, by either handle.
                let nth = usize::from(id) % self.generations.len();
                let (generation, model) = self.generations.iter().nth(nth).unwrap();
                let index = if operation == 39 { &self.index } else { &self.other };
                assert_is(model, &index.snapshot_at(*generation).unwrap());
            }
            _ => {
                self.held.pop_front();
            }
        }
    }

    /// Snapshots of the writer's own process pin their generation; all must still be readable.
    fn check_held(&self) {
        for (model, snapshot) in &self.held {
            assert_is(model, snapshot);
        }
    }
}

fuzz_target!(|steps: &[u8]| {
    let folder = gradix_fuzz::folder();
    let path = folder.path().join("x.gradix");
    let mut run = Run::new(&path);
    for (step, &byte) in steps.iter().take(STEPS).enumerate() {
        run.step(step, byte);
        if byte / IDS >= 31 && byte / IDS < 37 {
            run.check_held();
        }
    }
    run.check_held();
    run.writer = None;
    let reopened = Index::open(&path).unwrap();
    for (&generation, model) in &run.generations {
        assert_is(model, &reopened.snapshot_at(generation).unwrap());
    }
    for index in [&run.index, &run.other] {
        assert_is(&run.last(), &index.snapshot().unwrap());
    }
    let report = reopened.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
});
