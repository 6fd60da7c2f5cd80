//! Any sequence of operations on an index against a map: each kept generation is what the map was.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{AppendError, CompactOptions, Encoding, GcOptions, Index, Row, Schema, Tier, Writer};
use libfuzzer_sys::fuzz_target;

const IDS: u8 = 6;

type Model = BTreeMap<u8, Vec<u32>>;

fn spec() -> SketchSpec {
    SketchSpec::dense("fuzz", "v1", [("all", 2)])
}

fn sketch(seed: u32) -> Sketch {
    Sketch::dense(spec(), vec![seed as f32, 1.0]).unwrap()
}

fn assert_is(index: &Index, generation: u64, model: &Model) {
    let snapshot = index.snapshot_at(generation).unwrap();
    assert_eq!(snapshot.rows(), model.values().map(|rows| rows.len() as u64).sum::<u64>());
    for id in 0..IDS {
        let found = snapshot.get([id]).unwrap();
        let found = found.map(|found| found.rows.into_iter().map(|row| row.sketch).collect::<Vec<_>>());
        let expected = model.get(&id).map(|seeds| seeds.iter().map(|&seed| sketch(seed)).collect());
        assert_eq!(found, expected, "generation {generation}, id {id}");
    }
}

fuzz_target!(|steps: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    let schema = Schema::new(spec(), Encoding::F32).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 7 }, Tier::I8]).unwrap();
    let index = Index::options().create(&path, &schema).unwrap();
    let mut writer: Option<Writer> = Some(index.writer().unwrap());
    let mut now = Model::new();
    let mut generations = BTreeMap::from([(0, now.clone())]);
    let mut held = None;
    for (step, &byte) in steps.iter().take(48).enumerate() {
        let (id, operation) = (byte % IDS, byte / IDS);
        let w = writer.as_mut().unwrap();
        let seeds: Vec<u32> = (0..1 + u32::from(operation) % 3).map(|row| step as u32 * 4 + row).collect();
        let sketches: Vec<Sketch> = seeds.iter().map(|&seed| sketch(seed)).collect();
        let rows: Vec<Row<'_>> = sketches.iter().map(Row::new).collect();
        let mut commit = |w: &mut Writer, now: &Model| {
            generations.insert(w.commit().unwrap().generation, now.clone());
        };
        match operation {
            0..12 => match w.append_rows([id], &rows) {
                Ok(()) => assert!(now.insert(id, seeds).is_none()),
                Err(AppendError::DuplicateId { .. }) => assert!(now.contains_key(&id)),
                Err(error) => panic!("{error}"),
            },
            12..18 => match w.replace([id], &rows) {
                Ok(()) => assert!(now.insert(id, seeds).is_some()),
                Err(AppendError::NotFound { .. }) => assert!(!now.contains_key(&id)),
                Err(error) => panic!("{error}"),
            },
            18..24 => assert_eq!(w.delete([id]).unwrap(), now.remove(&id).is_some()),
            24..32 => commit(w, &now),
            32..34 => {
                w.abort().unwrap();
                now = generations.last_key_value().unwrap().1.clone();
            }
            34..36 => {
                writer = None;
                writer = Some(index.writer().unwrap());
                now = generations.last_key_value().unwrap().1.clone();
            }
            36..38 => {
                commit(w, &now);
                w.compact(CompactOptions::all()).unwrap();
                generations.insert(w.generation(), now.clone());
            }
            38..41 => {
                commit(w, &now);
                let kept = GcOptions::default().keep_generations(1 + u64::from(id)).grace(Duration::ZERO);
                let oldest = w.gc(kept).unwrap().oldest;
                generations.retain(|&generation, _| generation >= oldest);
            }
            _ => held = Some(index.snapshot().unwrap()),
        }
        if let Some(held) = &held {
            assert!(generations.contains_key(&held.generation()), "a held generation was collected");
        }
    }
    drop(writer);
    let other = Index::open(&path).unwrap();
    for (&generation, model) in &generations {
        assert_is(&index, generation, model);
        assert_is(&other, generation, model);
    }
    let report = other.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
});
