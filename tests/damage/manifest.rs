//! Damage to the manifest's records by RocksDB's own hand. `folder` damages its files.

use std::path::{Path, PathBuf};

use gradix::{Encoding, Index, Row, Schema};
use rocksdb::{DB, Options};

use super::alone;
use crate::fixtures::indexes::{self, copy_folder};
use crate::fixtures::sketches::{sketch, spec};
use crate::fixtures::told;

const FAMILIES: [&str; 8] =
    ["meta", "segments", "examples", "deletes", "commits", "intents", "superseded", "artifacts"];

/// Examples `a`, `b` and `d` in two segments, `c` deleted; the last commit deleted it.
fn create() -> (tempfile::TempDir, PathBuf) {
    let (folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let mut writer = index.writer().unwrap();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        writer.append(id, &sketch(seed)).unwrap();
    }
    writer.commit().unwrap();
    // Opened again, the database has a table besides its log.
    drop(writer);
    let mut writer = index.writer().unwrap();
    writer.append("d", &sketch(4)).unwrap();
    writer.delete("c").unwrap();
    writer.commit().unwrap();
    (folder, index.path().to_owned())
}

/// Everything a reader and a writer do. `Err`: somebody said that something is wrong.
fn use_all(path: &Path) -> Result<(), String> {
    let index = Index::open(path).map_err(|error| told(&error))?;
    let snapshot = index.snapshot().map_err(|error| told(&error))?;
    let mut wrong = Vec::new();
    for (seed, id) in [(1, "a"), (2, "b"), (4, "d")] {
        match snapshot.get(id) {
            Ok(Some(found)) if found.rows.len() == 1 && found.rows[0].sketch == sketch(seed) => {}
            Ok(found) => wrong.push(format!("{id}: {found:?}")),
            Err(error) => return Err(told(&error)),
        }
    }
    if snapshot.get("c").map_err(|error| told(&error))?.is_some() {
        wrong.push("c is back".into());
    }
    snapshot.payload().map_err(|error| told(&error))?;
    let _ = format!("{snapshot:?} {:?}", snapshot.rows());
    let stats = snapshot.stats().map_err(|error| told(&error))?;
    let query = [sketch(1)];
    let ranking = snapshot.scan(&query).map_err(|error| told(&error))?.top_k(9).run();
    let hits = ranking.map_err(|error| told(&error))?.proponents(0).len();
    if (stats.rows, hits) != (3, 3) {
        wrong.push(format!("{} rows, {hits} hits", stats.rows));
    }
    let report = index.verify().map_err(|error| told(&error))?;
    if !report.is_sound() {
        return Err(format!("{:?}", report.findings));
    }
    assert!(wrong.is_empty(), "wrong in silence: {wrong:?}");
    drop(snapshot);
    let mut writer = index.writer().map_err(|error| told(&error))?;
    writer.append("e", &sketch(5)).map_err(|error| told(&error))?;
    writer.replace("a", &[Row::new(&sketch(6))]).map_err(|error| told(&error))?;
    writer.commit().map_err(|error| told(&error))?;
    writer.compact(gradix::CompactOptions::all()).map_err(|error| told(&error))?;
    Ok(())
}

/// Keys and values of a column family.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn edit(path: &Path, family: &str, edit: impl FnOnce(&mut Records)) {
    let db = DB::open_cf(&Options::default(), path.join("manifest"), FAMILIES).unwrap();
    let handle = db.cf_handle(family).unwrap();
    let records = db.iterator_cf(handle, rocksdb::IteratorMode::Start);
    let mut records: Records =
        records.map(|record| record.map(|(key, value)| (key.into(), value.into())).unwrap()).collect();
    for (key, _) in &records {
        db.delete_cf(handle, key).unwrap();
    }
    edit(&mut records);
    for (key, value) in records {
        db.put_cf(handle, key, value).unwrap();
    }
}

/// Catches a crafted record that panics, overflows, or is believed: each byte of each record is set
/// to its extremes, and each is cut off, prolonged and removed.
#[test]
fn crafted_records_are_refused() {
    let _alone = alone();
    let (folder, sound) = create();
    assert_eq!(
        use_all(&{
            let to = folder.path().join("sound");
            copy_folder(&sound, &to);
            to
        }),
        Ok(())
    );
    let mut cases = 0;
    let mut try_edit = |family: &str, what: &str, change: &dyn Fn(&mut Records)| {
        let path = folder.path().join(format!("case-{cases}"));
        cases += 1;
        copy_folder(&sound, &path);
        edit(&path, family, |records| change(records));
        let result = use_all(&path);
        std::fs::remove_dir_all(&path).unwrap();
        println!("{family}, {what}: {result:?}");
        result
    };
    for (family, values) in [("meta", 2), ("segments", 2), ("examples", 4), ("deletes", 1), ("commits", 2)] {
        for record in 0..values {
            let of = |what: &str| format!("record {record}: {what}");
            let newer = try_edit(family, &of("newer"), &|r| r[record].1[0] = 2);
            // Nobody asks what an earlier commit had to say.
            assert_eq!(newer.is_err(), (family, record) != ("commits", 0));
            if family != "commits" {
                assert!(try_edit(family, &of("cut off"), &|r| assert!(r[record].1.pop().is_some())).is_err());
                assert!(try_edit(family, &of("longer"), &|r| r[record].1.push(0)).is_err());
                assert!(try_edit(family, &of("empty"), &|r| r[record].1.clear()).is_err());
                // The third example is deleted; forgetting that it was there changes nothing now.
                let gone = try_edit(family, &of("gone"), &|r| drop(r.remove(record)));
                assert_eq!(gone.is_err(), (family, record) != ("examples", 2));
            }
            let length = std::cell::Cell::new(0);
            let _ = try_edit(family, &of("look"), &|r| length.set(r[record].1.len()));
            // Whole fields at their greatest: eight bytes at each place where one may begin.
            for at in (1..length.get()).step_by(8) {
                for fill in [0xFF, 0x00] {
                    let _ = try_edit(family, &of(&format!("{fill:02x} at {at}")), &|r| {
                        let value = &mut r[record].1;
                        let end = value.len().min(at + 8);
                        value[at..end].fill(fill);
                    });
                }
            }
        }
    }
    assert!(cases > 100);
}

/// Catches a crafted place that is believed: examples that are left out of a ranking, or rows that are
/// deleted, because another example is said to have them.
#[test]
fn place_beyond_its_segment_is_refused() {
    let _alone = alone();
    let (_folder, path) = create();
    // Version, number of versions, generation, "there is a place", segment, first row; then the rows.
    let rows = 1 + 8 + 8 + 1 + 16 + 4;
    edit(&path, "examples", |records| {
        let a = records.iter_mut().find(|(id, _)| id == b"a").unwrap();
        a.1[rows..rows + 4].copy_from_slice(&1000u32.to_le_bytes());
    });
    let index = Index::open(&path).unwrap();
    let snapshot = index.snapshot().unwrap();
    assert!(matches!(snapshot.get("a"), Err(gradix::GetError::Misplaced { .. })));
    let queries = [sketch(1)];
    let scan = snapshot.scan(&queries).unwrap().top_k(9).exclude_ids(["a"]);
    assert!(matches!(scan.run(), Err(gradix::ScanError::Lookup { .. })));
    let mut writer = index.writer().unwrap();
    assert!(writer.delete("a").is_err());
    assert!(writer.delete("b").unwrap());
    writer.commit().unwrap();
    // What is sound stays so, and the damage is found.
    let snapshot = index.snapshot().unwrap();
    assert_eq!(snapshot.rows(), 2);
    assert!(snapshot.get("d").unwrap().is_some());
    assert!(!index.verify().unwrap().is_sound());
}
