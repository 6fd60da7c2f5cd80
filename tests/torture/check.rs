//! Whether a folder holds what an oracle says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use gradix::curvature::FactorError;
use gradix::{Curvature, CurvatureError, GcOptions, Index, Part, Snapshot, SnapshotError};

use crate::fixtures::told;
use crate::workload::{Content, Oracle, Session, StoredRow, operation, rows_of};

/// What is wrong, in a word to count by and in a sentence.
#[derive(Debug)]
pub struct Failure {
    pub kind: &'static str,
    pub message: String,
}

pub fn failure(kind: &'static str, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// A typed error of the engine where there should be none.
fn refused(kind: &'static str, doing: &str, error: &dyn std::error::Error) -> Failure {
    failure(kind, format!("{doing}: {}", told(error)))
}

fn is_same(found: &StoredRow, expected: &StoredRow) -> bool {
    let bits = |row: &StoredRow| row.sketch.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    found == expected && bits(found) == bits(expected)
}

/// A snapshot shows this content and nothing else, bit for bit.
pub fn compare(snapshot: &Snapshot, content: &Content) -> Result<(), Failure> {
    let wrong = |message: String| {
        failure("wrong content", format!("generation {}: {message}", snapshot.generation()))
    };
    let mut found: BTreeMap<Vec<u8>, Vec<StoredRow>> = BTreeMap::new();
    for row in snapshot.iter().with_sketches() {
        let row = row.map_err(|error| refused("unreadable", "reading rows", &error))?;
        let Some(sketch) = row.sketch else { return Err(wrong("a row without its sketch".into())) };
        let stored = StoredRow { sketch, span: row.span, source: row.source, metadata: row.metadata };
        found.entry(row.id).or_default().push(stored);
    }
    for (id, &number) in &content.examples {
        let expected = rows_of(number);
        let Some(rows) = found.remove(id.as_bytes()) else { return Err(wrong(format!("{id} is missing"))) };
        if rows.len() != expected.len() || rows.iter().zip(&expected).any(|(row, other)| !is_same(row, other))
        {
            return Err(wrong(format!("{id} has other rows")));
        }
        let place = snapshot.get(id).map_err(|error| refused("unreadable", "get", &error))?;
        let alike = place.is_some_and(|example| {
            example.rows.len() == expected.len()
                && example.rows.iter().zip(&expected).all(|(row, other)| row.sketch == other.sketch)
        });
        if !alike {
            return Err(wrong(format!("`get` of {id} gives other rows")));
        }
    }
    if let Some(id) = found.keys().next() {
        return Err(wrong(format!("{} should not be there", String::from_utf8_lossy(id))));
    }
    let payload = snapshot.payload().map_err(|error| refused("unreadable", "reading the payload", &error))?;
    if payload != content.payload.as_bytes() {
        return Err(wrong("another payload".into()));
    }
    for (name, rows) in [("curvature", content.fitted), ("observed", content.observed)] {
        let curvature = Curvature::default().name(name);
        let found = match snapshot.curvature(&curvature) {
            Ok(state) => state.blocks[0].rows,
            Err(CurvatureError::NotFitted { .. }) => 0,
            Err(CurvatureError::Factor { source: FactorError::NoRows, .. }) if rows == 0 => 0,
            Err(error) => return Err(refused("unreadable", "the curvature", &error)),
        };
        if found != rows {
            return Err(wrong(format!("{found} rows in the sums of {name}, in place of {rows}")));
        }
    }
    Ok(())
}

/// A part that is offered to an index is whole as long as the index does not have it.
fn assert_offer(path: &Path, oracle: &Oracle, generation: u64) -> Result<(), Failure> {
    let Some(offer) = oracle.offered.as_ref().filter(|offer| offer.generation > generation) else {
        return Ok(());
    };
    let part = Part::read(path.with_file_name(&offer.part)).and_then(|part| part.verify());
    part.map_err(|error| refused("part lost", &format!("looking at {}", offer.part), &error))
}

fn assert_sound(index: &Index) -> Result<(), Failure> {
    let report = index.verify().map_err(|error| refused("unsound", "verifying", &error))?;
    if report.is_sound() { Ok(()) } else { Err(failure("unsound", format!("{:?}", report.findings))) }
}

/// The newest generation that is shown is one that may be, and whole.
pub fn newest(index: &Index, oracle: &Oracle, at_least: u64) -> Result<Snapshot, Failure> {
    let snapshot = index.snapshot().map_err(|error| refused("unreadable", "taking a snapshot", &error))?;
    let generation = snapshot.generation();
    if generation < at_least.max(oracle.acknowledged) {
        let message = format!(
            "generation {generation}, where {} was acknowledged and {at_least} was shown",
            oracle.acknowledged
        );
        let kind =
            if generation < oracle.acknowledged { "acknowledged commit lost" } else { "shown, then lost" };
        return Err(failure(kind, message));
    }
    let Some(content) = oracle.content(generation) else {
        return Err(failure("unknown generation", format!("generation {generation}")));
    };
    compare(&snapshot, &content)?;
    Ok(snapshot)
}

/// Opens an index only to read. Returns the generation that it shows; `None` if there is no index, which is right
/// as long as its creation was not acknowledged.
pub fn as_reader(path: &Path, oracle: &Oracle) -> Result<Option<u64>, Failure> {
    let index = match Index::open(path) {
        Ok(index) => index,
        Err(_) if !oracle.created => return Ok(None),
        Err(error) => return Err(refused("cannot open", "opening as a reader", &error)),
    };
    let generation = newest(&index, oracle, 0)?.generation();
    assert_sound(&index)?;
    assert_offer(path, oracle, generation)?;
    for earlier in oracle.oldest.saturating_sub(1)..generation {
        match index.snapshot_at(earlier) {
            Ok(snapshot) => {
                let Some(content) = oracle.content(earlier) else {
                    return Err(failure("unknown generation", format!("generation {earlier}")));
                };
                compare(&snapshot, &content)?;
            }
            Err(SnapshotError::NoSuchGeneration { .. }) if earlier < oracle.oldest => {}
            Err(error) => return Err(refused("unreadable", "an earlier generation", &error)),
        }
    }
    Ok(Some(generation))
}

/// After a writer was open, there are no files but those of segments that a generation sees, and no unfinished
/// ones.
pub fn assert_no_orphans(path: &Path, index: &Index) -> Result<(), Failure> {
    let names = |folder: &str| -> Result<BTreeSet<String>, Failure> {
        let entries = fs::read_dir(path.join(folder)).map_err(|error| refused("missing", folder, &error))?;
        Ok(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    };
    let stats = index.stats().map_err(|error| refused("unreadable", "stats", &error))?;
    let listed: BTreeSet<String> =
        stats.segments.iter().map(|segment| format!("{}.seg", segment.segment)).collect();
    let mut files = names("segments")?;
    // The notes of segments that were attached.
    files.retain(|name| {
        name.strip_suffix(".attached").is_none_or(|stem| !listed.contains(&format!("{stem}.seg")))
    });
    if files != listed {
        return Err(failure("orphans", format!("files {files:?}, where {listed:?} are listed")));
    }
    let listed: BTreeSet<String> =
        stats.artifacts.iter().map(|artifact| format!("{}.art", artifact.artifact)).collect();
    let files = names("artifacts")?;
    if files != listed {
        return Err(failure("orphans", format!("artifacts {files:?}, where {listed:?} are listed")));
    }
    let left: Vec<_> = names("manifest")?.into_iter().filter(|name| name.ends_with(".dbtmp")).collect();
    if !left.is_empty() {
        return Err(failure("left over", format!("in the manifest's folder: {left:?}")));
    }
    Ok(())
}

/// Opens an index to write, goes on with everything, and reads it again. Changes the folder. `at_least` was shown
/// to a reader before.
pub fn as_writer(path: &Path, oracle: &Oracle, at_least: u64, seed: u64) -> Result<(), Failure> {
    if let Err(error) = Index::open(path) {
        if oracle.created {
            return Err(refused("cannot open", "opening before writing", &error));
        }
        // An interrupted creation: "Remove the folder before trying again."
        if path.exists() {
            fs::remove_dir_all(path).unwrap();
        }
        return match Session::create(path, seed, |_| ()) {
            Ok(session) => go_on(path, session),
            Err(error) => Err(refused("cannot go on", "creating anew", &error)),
        };
    }
    let oracle = oracle.once_opened();
    let session = Session::open(path, oracle.clone(), seed, |_| ());
    let session = session.map_err(|error| refused("cannot write", "opening the writer", &error))?;
    newest(&session.index, &oracle, at_least)?;
    go_on(path, session)
}

fn go_on(path: &Path, mut session: Session) -> Result<(), Failure> {
    let collected = session.writer().map(|writer| writer.gc(GcOptions::default().grace(Duration::ZERO)));
    if let Some(Err(error)) = collected {
        return Err(refused("cannot go on", "collecting", &error));
    }
    assert_no_orphans(path, &session.index)?;
    let story = [
        "append",
        "commit",
        "append spans",
        "delete",
        "commit with payload",
        "attach and move",
        "compact",
        "collect",
    ];
    for name in story {
        let done = (operation(name).run)(&mut session);
        done.map_err(|error| refused("cannot go on", name, &error))?;
    }
    newest(&session.index, &session.oracle, 0)?;
    assert_sound(&session.index)?;
    let oracle = session.close();
    let index = Index::open(path).map_err(|error| refused("cannot go on", "opening again", &error))?;
    let snapshot = newest(&index, &oracle, 0)?;
    drop(snapshot);
    assert_no_orphans(path, &index)
}
