//! Segments that are built apart from an index and attached to it: what is taken, what is refused, and what stays of
//! the builder's files.

mod fixtures;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fixtures::indexes::{self, assert_sound, copy_folder};
use fixtures::sketches::{sketch, sketch_of, spec};
use gradix::curvature::Estimate;
use gradix::segment::storage::MemoryStorage;
use gradix::sketch::SketchSpec;
use gradix::{
    AppendError, Attach, AttachError, CommitError, CompactOptions, Curvature, DetachedError, DetachedWriter,
    Encoding, ErrorKind, FitError, FitOptions, GcOptions, Index, LeftOutReason, Part, PartError, Row, Schema,
    SegmentError, Span, Tier, Writer, WriterError,
};
use sha2::{Digest as _, Sha256};

fn schema() -> Schema {
    Schema::new(spec(), Encoding::F16).unwrap().with_tiers([Tier::I8]).unwrap()
}

/// An index, and beside it a folder for detached writers.
struct Scene {
    _folder: tempfile::TempDir,
    index: Index,
    built: PathBuf,
}

fn scene() -> Scene {
    let (folder, index) = indexes::create(&schema());
    let built = folder.path().join("built");
    Scene { _folder: folder, index, built }
}

impl Scene {
    fn detached(&self) -> DetachedWriter {
        self.index.detached(&self.built).unwrap()
    }

    /// A finished part with these examples.
    fn part(&self, ids: &[&str]) -> Part {
        let mut writer = self.detached();
        append(&mut writer, ids);
        writer.finish(ids.join(" ")).unwrap()
    }

    fn segments(&self) -> Vec<String> {
        let files = indexes::segment_files(self.index.path()).into_iter();
        let mut names: Vec<_> =
            files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn ids(&self) -> Vec<String> {
        let ids = self.index.snapshot().unwrap().ids();
        ids.map(|id| String::from_utf8(id.unwrap()).unwrap()).collect()
    }
}

/// The seed of an example's sketch.
fn seed(id: &str) -> u64 {
    id.bytes().fold(7, |sum, byte| sum % 1_000_003 * 131 + u64::from(byte))
}

fn append(writer: &mut DetachedWriter, ids: &[&str]) {
    for id in ids {
        writer.append(id, &sketch(seed(id))).unwrap();
    }
}

#[track_caller]
fn assert_has(index: &Index, ids: &[&str]) {
    let snapshot = index.snapshot().unwrap();
    let found: Vec<_> = snapshot.ids().map(|id| String::from_utf8(id.unwrap()).unwrap()).collect();
    assert_eq!(found, ids);
    for id in ids {
        let example = snapshot.get(id).unwrap().unwrap();
        assert_eq!(example.rows[0].sketch, sketch(seed(id)), "{id}");
    }
    assert_sound(index);
}

fn collect(writer: &mut Writer) {
    writer.gc(GcOptions::default().grace(Duration::ZERO)).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn segment_file(part: &Part) -> PathBuf {
    part.file(&part.segments[0])
}

/// Writes the description of a part anew, with its checksums.
fn rewrite(part: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(part.join("PART")).unwrap();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
    bytes[124..128].copy_from_slice(&crc);
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[128..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    fs::write(part.join("PART"), bytes).unwrap();
}

/// Catches rows that change on their way, an attach that is not part of the commit, and segments that compaction,
/// collection, verification or another handle cannot use.
#[test]
fn attached_segments_are_segments_like_others() {
    let scene = scene();
    let mut writer = scene.index.writer().unwrap();
    writer.append("old", &sketch(seed("old"))).unwrap();
    writer.append("gone", &sketch(seed("gone"))).unwrap();
    writer.commit().unwrap();
    let mut detached = scene.detached();
    append(&mut detached, &["a", "gone"]);
    let sketches = [sketch(1), sketch(2)];
    let rows = [
        Row::new(&sketches[0]).span(Span::tokens(0, 4)).source("wiki").metadata(b"first"),
        Row::new(&sketches[1]).span(Span::tokens(4, 9)),
    ];
    detached.append_rows("spans", &rows).unwrap();
    detached.finish("one").unwrap();
    let batch: Vec<_> = ["x", "y"].map(|id| (id, sketch(seed(id)))).into();
    let lent: Vec<_> = batch.iter().map(|(id, sketch)| (*id, Row::new(sketch))).collect();
    detached.append_batch(&lent).unwrap();
    detached.finish("two").unwrap();

    // With appends and deletes before and after, of what is attached too.
    writer.append("before", &sketch(seed("before"))).unwrap();
    assert!(writer.delete("gone").unwrap());
    let attached = writer.attach(&scene.built, Attach::Link).unwrap();
    let payloads: Vec<_> = attached.parts.iter().map(|part| &part.payload[..]).collect();
    assert_eq!((payloads, attached.rows(), attached.examples()), (vec![&b"one"[..], b"two"], 6, 5));
    assert!(writer.contains("spans").unwrap() && writer.delete("x").unwrap());
    writer.append("x", &sketch(seed("x"))).unwrap();
    assert_eq!(scene.index.snapshot().unwrap().rows(), 2, "before the commit");
    let commit = writer.commit().unwrap();
    assert_eq!((commit.generation, commit.appended, commit.deleted), (2, 8, 2));

    let check = |index: &Index| {
        let snapshot = index.snapshot().unwrap();
        let example = snapshot.get("spans").unwrap().unwrap();
        let found: Vec<_> =
            example.rows.iter().map(|row| (row.span, row.source.as_deref(), &row.metadata[..])).collect();
        assert_eq!(
            found,
            [(Span::tokens(0, 4), Some("wiki"), &b"first"[..]), (Span::tokens(4, 9), None, b"")]
        );
        let best = snapshot.scan(&[sketch(2)]).unwrap().top_k(1).run().unwrap();
        let scores = snapshot.scan(&[sketch(2)]).unwrap().top_k(100).run().unwrap();
        assert_eq!(scores.proponents(0).len(), 8);
        assert_eq!(best.proponents(0)[0].id, scores.proponents(0)[0].id);
        for id in ["a", "before", "gone", "old", "x", "y"] {
            assert_eq!(snapshot.get(id).unwrap().unwrap().rows[0].sketch, sketch(seed(id)), "{id}");
        }
        assert_eq!(snapshot.iter().count(), 8);
        assert_eq!(index.stats().unwrap().rows, snapshot.stats().unwrap().rows);
        assert_sound(index);
    };
    check(&scene.index);
    check(&Index::open(scene.index.path()).unwrap());
    assert_eq!(scene.index.snapshot_at(1).unwrap().rows(), 2);

    writer.compact(CompactOptions::all()).unwrap();
    check(&scene.index);
    collect(&mut writer);
    check(&scene.index);
    drop(writer);
    // Nothing of the attached files is left in the index; the builder has its own still.
    assert!(scene.segments().iter().all(|name| name.ends_with(".seg")), "{:?}", scene.segments());
    for part in Part::list(&scene.built).unwrap() {
        part.verify().unwrap();
    }
    check(&Index::open(scene.index.path()).unwrap());
}

/// Catches rows of one commit in an order that nobody chose, as that of their segments' random names, in the index
/// and in one that was recovered.
#[test]
fn rows_stand_in_the_order_of_appending_and_attaching() {
    let scene = scene();
    let mut writer = scene.index.writer().unwrap();
    let mut appended = Vec::new();
    for commit in 0..2 {
        for turn in 0..4 {
            let (own, built) = (format!("own {commit} {turn}"), format!("built {commit} {turn}"));
            writer.append(&own, &sketch(seed(&own))).unwrap();
            let part = scene.part(&[&built]);
            writer.attach(&part.path, Attach::Link).unwrap();
            appended.extend([own, built]);
        }
        writer.commit().unwrap();
    }
    drop(writer);
    let rows = |index: &Index| -> Vec<String> {
        let snapshot = index.snapshot().unwrap();
        snapshot.iter().map(|row| String::from_utf8(row.unwrap().id).unwrap()).collect()
    };
    assert_eq!(rows(&scene.index), appended);

    let path = scene.index.path().to_owned();
    fs::remove_dir_all(path.join("manifest")).unwrap();
    let recovery = Index::recover(&path).unwrap();
    assert_eq!((recovery.segments.len(), recovery.rows), (16, 16));
    let recovered = Index::open(&path).unwrap();
    assert_eq!(rows(&recovered), appended);
    assert_sound(&recovered);
}

/// Catches a copy that was not asked for, a move that leaves its files or takes its payload, and a link that is a
/// copy.
#[cfg(unix)]
#[test]
fn link_move_and_copy_do_what_they_say() {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    for how in [Attach::Link, Attach::Move, Attach::Copy] {
        let scene = scene();
        let part = scene.part(&["a"]);
        let (file, before) = (segment_file(&part), inode(&segment_file(&part)));
        let mut writer = scene.index.writer().unwrap();
        writer.attach(&part.path, how).unwrap();
        assert!(file.exists(), "{how:?}: until the commit");
        writer.commit().unwrap();
        let own = scene.index.path().join("segments").join(file.file_name().unwrap());
        assert_eq!(inode(&own) == before, how != Attach::Copy, "{how:?}");
        assert_eq!(file.exists(), how != Attach::Move, "{how:?}");
        let name = if how == Attach::Move { "00000001.moved" } else { "00000001.part" };
        assert_eq!(files(&scene.built), [name, "LOCK"], "{how:?}");
        assert_has(&scene.index, &["a"]);
        // The builder goes on in its folder, and only what is new is found there.
        let mut detached = scene.detached();
        assert_eq!((detached.finished(), detached.payload(1).unwrap()), (1, Some(b"a".to_vec())));
        append(&mut detached, &["b"]);
        assert_eq!(detached.finish("").unwrap().number, 2);
        let expected = if how == Attach::Move { 1 } else { 2 };
        assert_eq!(Part::list(&scene.built).unwrap().len(), expected);
        let again = writer.attach(&scene.built, how);
        assert_eq!(again.is_ok(), how == Attach::Move, "{how:?}: {again:?}");
    }
}

/// The scores of all rows under the default curvature, by id.
fn curvature_scores(index: &Index) -> Vec<f64> {
    let queries = [sketch(99)];
    let snapshot = index.snapshot().unwrap();
    let scan = snapshot.scan(&queries).unwrap().top_k(1000).curvature(Curvature::default());
    let ranking = scan.run().unwrap();
    let mut hits: Vec<_> = ranking.proponents(0).iter().map(|hit| (hit.id.clone(), hit.score)).collect();
    hits.sort_by(|a, b| a.0.cmp(&b.0));
    hits.into_iter().map(|(_, score)| score).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * scale, "{found}, expected {expected}");
    }
}

/// Catches sums of a part that are lost, added twice or not those of its rows, rows that they do not cover, and files of theirs
/// that stay.
#[test]
fn attached_sums_are_those_of_a_fit_of_all() {
    let many: Vec<String> = (0..40).map(|i| format!("m{i:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for how in [Attach::Link, Attach::Move, Attach::Copy] {
        let scene = scene();
        let mut writer = scene.index.writer().unwrap();
        let mut detached = scene.detached();
        detached.fit_curvature("curvature", &[]).unwrap();
        append(&mut detached, &many[..15]);
        let first = detached.finish("").unwrap();
        append(&mut detached, &many[15..30]);
        detached.finish("").unwrap();
        drop(detached);
        assert_eq!(
            (first.sums.len(), &first.sums[0].name[..], first.sums[0].observed),
            (1, "curvature", false)
        );
        first.verify().unwrap();
        // Nothing of an attach stays behind without its commit.
        writer.attach(&scene.built, how).unwrap();
        writer.abort().unwrap();
        writer.attach(&first.path, how).unwrap();
        writer.commit().unwrap();
        let covered = |index: &Index| index.snapshot().unwrap().curvature(&Curvature::default()).unwrap();
        // The index had none under this name: they are its own now.
        assert_eq!((covered(&scene.index).covered.rows, covered(&scene.index).blocks[0].rows), (15, 15));
        for id in &many[30..] {
            writer.append(id, &sketch(seed(id))).unwrap();
        }
        writer.commit().unwrap();
        assert_eq!(writer.fit_curvature(FitOptions::default()).unwrap().added, 10);
        let rest = scene.built.join("00000002.part");
        writer.attach(&rest, how).unwrap();
        // Deleted before it was committed, but in the sums.
        writer.delete(many[20]).unwrap();
        writer.commit().unwrap();
        let state = covered(&scene.index);
        assert_eq!((state.covered.rows, state.covered.uncovered, state.covered.stale), (39, 0, 1));
        assert_eq!(state.blocks.iter().map(|block| block.rows).collect::<Vec<_>>(), [40, 40]);
        assert_sound(&scene.index);
        let fit = writer.fit_curvature(FitOptions::default()).unwrap();
        assert_eq!((fit.added, fit.subtracted, fit.refitted), (0, 1, false));
        let incremental = curvature_scores(&scene.index);
        assert!(writer.fit_curvature(FitOptions::default().refit(true)).unwrap().refitted);
        assert_close(&incremental, &curvature_scores(&scene.index));
        let moved = scene.built.join("00000001.moved");
        assert_eq!(moved.exists(), how == Attach::Move);
        if how == Attach::Move {
            assert_eq!(files(&moved), ["PART"]);
        } else {
            first.verify().unwrap();
        }
    }
}

/// Catches observed sketches of parts that are lost, forgotten for some examples, or kept of a part that was aborted.
#[test]
fn parts_bring_what_was_observed() {
    let scene = scene();
    let mut detached = scene.detached();
    append(&mut detached, &["a", "b"]);
    detached.observe("tokens", "a", &[sketch(1), sketch(2), sketch(3)]).unwrap();
    let error = detached.finish("").unwrap_err();
    assert!(
        matches!(&error, CommitError::NotObserved { name, examples: 1 } if name == "tokens"),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert!(matches!(detached.observe("tokens", "c", &[]), Err(FitError::NotFound { .. })));
    assert!(matches!(detached.fit_curvature("tokens", &[]), Err(FitError::NotOfRows { .. })));
    assert!(matches!(detached.observe("", "a", &[]), Err(FitError::InvalidName { .. })));
    detached.observe("tokens", "b", &[]).unwrap();
    let part = detached.finish("").unwrap();
    append(&mut detached, &["aborted"]);
    detached.observe("tokens", "aborted", &[sketch(9)]).unwrap();
    detached.abort().unwrap();
    assert!(detached.finish("").unwrap().sums.is_empty());
    drop(detached);
    let mut writer = scene.index.writer().unwrap();
    writer.append("own", &sketch(7)).unwrap();
    writer.observe("tokens", "own", &[sketch(4), sketch(5)]).unwrap();
    writer.attach(&part.path, Attach::Copy).unwrap();
    writer.commit().unwrap();
    let tokens = Curvature::default().name("tokens");
    let state = scene.index.snapshot().unwrap().curvature(&tokens).unwrap();
    assert_eq!((state.covered.rows, state.covered.uncovered, state.blocks[1].rows), (3, 0, 5));
    // A part of the other kind, with the same name; also when the index's are not committed yet.
    let mut detached = scene.detached();
    detached.fit_curvature("tokens", &[]).unwrap();
    assert!(matches!(detached.observe("tokens", "d", &[]), Err(FitError::NotObserved { .. })));
    append(&mut detached, &["d"]);
    let other = detached.finish("").unwrap();
    for pending in [false, true] {
        if pending {
            writer.observe("tokens", "own", &[sketch(4)]).unwrap();
        }
        let error = writer.attach(&other.path, Attach::Copy).unwrap_err();
        assert!(matches!(&error, AttachError::OtherSums { name, .. } if name == "tokens"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    writer.commit().unwrap();
    assert_eq!(scene.index.snapshot().unwrap().curvature(&tokens).unwrap().blocks[1].rows, 6);
    assert_sound(&scene.index);
}

/// Catches sums that are taken although they are damaged, missing or of another width, and an attach that then leaves something.
#[test]
fn sums_that_do_not_fit_are_refused_and_nothing_is_lost() {
    let scene = scene();
    let mut writer = scene.index.writer().unwrap();
    writer.append("own", &sketch(7)).unwrap();
    writer.commit().unwrap();
    writer.fit_curvature(FitOptions::default()).unwrap();
    let mut detached = scene.detached();
    let narrow = Estimate::Nystrom { width: 1 };
    assert!(matches!(
        detached.fit_curvature("curvature", &[("x", narrow)]),
        Err(FitError::UnknownBlock { .. })
    ));
    let wide = Estimate::Nystrom { width: 4 };
    let error = detached.fit_curvature("curvature", &[("first", wide)]).unwrap_err();
    assert!(matches!(error, FitError::InvalidEstimate { dims: 3, .. }), "{error:?}");
    detached.fit_curvature("curvature", &[("first", narrow)]).unwrap();
    append(&mut detached, &["a"]);
    let other = detached.finish("").unwrap();
    detached.fit_curvature("curvature", &[]).unwrap();
    append(&mut detached, &["b"]);
    let part = detached.finish("").unwrap();
    drop(detached);
    let error = writer.attach(&other.path, Attach::Link).unwrap_err();
    assert!(matches!(&error, AttachError::OtherSums { name, .. } if name == "curvature"), "{error:?}");
    // Both at once, into an index that has none.
    let (_folder, empty) = indexes::create(&schema());
    let error = empty.writer().unwrap().attach(&scene.built, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Foreign { .. }), "{error:?}");
    writer.drop_curvature("curvature").unwrap();
    let error = writer.attach(&scene.built, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::OtherSums { .. }), "{error:?}");

    let file = part.sums_file(&part.sums[0]);
    let sound = fs::read(&file).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, bytes).unwrap();
        let error = writer.attach(&part.path, Attach::Link).unwrap_err();
        let is_named =
            matches!(error, AttachError::Artifact(_) | AttachError::Part(PartError::Digest { .. }));
        assert!(is_named && error.kind() == ErrorKind::Damaged, "byte {at}: {error:?}");
    }
    fs::write(&file, &sound[..sound.len() - 1]).unwrap();
    assert!(writer.attach(&part.path, Attach::Link).is_err());
    assert!(matches!(part.verify(), Err(PartError::Length { .. })));
    fs::remove_file(&file).unwrap();
    let error = writer.attach(&part.path, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Part(PartError::Missing { .. })), "{error:?}");
    fs::write(&file, &sound).unwrap();
    assert_eq!(scene.segments().len(), 1);
    writer.attach(&part.path, Attach::Link).unwrap();
    writer.commit().unwrap();
    let state = scene.index.snapshot().unwrap().curvature(&Curvature::default()).unwrap();
    assert_eq!((state.covered.rows, state.covered.uncovered), (1, 1));
    assert_eq!(writer.fit_curvature(FitOptions::default()).unwrap().added, 1);
    assert_sound(&scene.index);
}

/// Catches files that an attach leaves in the index though nothing was committed, and a builder's file that goes with
/// them.
#[test]
fn what_was_not_committed_is_cleaned_up() {
    for how in [Attach::Link, Attach::Move, Attach::Copy] {
        let scene = scene();
        let part = scene.part(&["a"]);
        let mut writer = scene.index.writer().unwrap();
        let untouched = || {
            assert_eq!(scene.segments(), [""; 0], "{how:?}");
            Part::read(&part.path).unwrap().verify().unwrap();
            assert_eq!(scene.index.snapshot().unwrap().rows(), 0);
        };
        writer.attach(&part.path, how).unwrap();
        assert_eq!(scene.segments().len(), 2);
        writer.abort().unwrap();
        untouched();
        writer.attach(&part.path, how).unwrap();
        writer.prepare_commit().unwrap().abort().unwrap();
        untouched();
        writer.attach(&part.path, how).unwrap();
        drop(writer);
        untouched();
        // As after a kill: the folder is copied while the files are there.
        let mut writer = scene.index.writer().unwrap();
        writer.attach(&part.path, how).unwrap();
        let killed = scene.built.with_file_name("killed.gradix");
        copy_folder(scene.index.path(), &killed);
        drop(writer);
        assert_eq!(indexes::segment_files(&killed).len(), 2);
        let index = Index::open(&killed).unwrap();
        let mut writer = index.writer().unwrap();
        assert!(indexes::segment_files(&killed).is_empty());
        writer.attach(&part.path, how).unwrap();
        writer.commit().unwrap();
        assert_has(&index, &["a"]);
    }
}

/// Catches an example that is in an index twice, and an error that does not say where.
#[test]
fn duplicate_ids_are_named_with_their_files() {
    let scene = scene();
    let mut writer = scene.index.writer().unwrap();
    writer.append("committed", &sketch(1)).unwrap();
    writer.append("deleted", &sketch(1)).unwrap();
    writer.commit().unwrap();
    writer.append("pending", &sketch(1)).unwrap();
    writer.delete("deleted").unwrap();
    let parts: Vec<_> = [&["a", "committed"][..], &["pending"], &["b", "deleted"], &["c", "b"]]
        .map(|ids| scene.part(ids))
        .into();
    let before = scene.segments();
    let mut refused = |part: &Part, expected: &str| {
        let error = writer.attach(&part.path, Attach::Move).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let AttachError::DuplicateId { id, path, holder } = error else { panic!("{error}") };
        assert_eq!((&*String::from_utf8_lossy(&id), path), (expected, segment_file(part)));
        assert!(Path::new(&holder).exists(), "{holder}");
        holder
    };
    assert!(before.iter().any(|name| refused(&parts[0], "committed").ends_with(name)));
    refused(&parts[1], "pending");
    // Two parts that have the same example, in one call and in two.
    let both = scene.built.with_file_name("both");
    fs::create_dir(&both).unwrap();
    for (part, name) in [(&parts[2], "00000001.part"), (&parts[3], "00000002.part")] {
        copy_folder(&part.path, &both.join(name));
    }
    let error = writer.attach(&both, Attach::Link).unwrap_err();
    let AttachError::DuplicateId { id, path, .. } = error else { panic!("{error}") };
    assert_eq!(
        (&id[..], path),
        (&b"b"[..], both.join("00000002.part").join(segment_file(&parts[3]).file_name().unwrap()))
    );
    assert!(!writer.contains("c").unwrap() && !writer.contains("b").unwrap());
    writer.attach(&parts[2].path, Attach::Link).unwrap();
    let error = writer.attach(&parts[3].path, Attach::Link).unwrap_err();
    let AttachError::DuplicateId { holder, .. } = error else { panic!("{error}") };
    let name = segment_file(&parts[2]).file_name().unwrap().to_str().unwrap().to_owned();
    assert!(holder.ends_with(&name), "{holder}");
    writer.commit().unwrap();
    assert_eq!(scene.ids(), ["b", "committed", "deleted", "pending"]);
    assert_sound(&scene.index);
    for part in &parts {
        part.verify().unwrap();
    }
}

/// Catches an attach that puts an intent on a segment of the index, by which the next writer would remove it; and one
/// that takes what somebody else has put there.
#[test]
fn segment_attached_twice_is_refused_and_stays() {
    let scene = scene();
    let (part, other) = (scene.part(&["a"]), scene.part(&["b"]));
    let mut writer = scene.index.writer().unwrap();
    writer.attach(&part.path, Attach::Link).unwrap();
    let twice = |writer: &mut Writer| {
        let error = writer.attach(&part.path, Attach::Copy).unwrap_err();
        let AttachError::AttachedAlready { path, segment } = error else { panic!("{error}") };
        assert_eq!((path, segment), (segment_file(&part), part.segments[0].segment));
    };
    twice(&mut writer);
    writer.commit().unwrap();
    twice(&mut writer);
    // Under two names at once.
    let both = scene.built.with_file_name("both");
    fs::create_dir(&both).unwrap();
    for name in ["00000001.part", "00000002.part"] {
        copy_folder(&other.path, &both.join(name));
    }
    let error = writer.attach(&both, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::AttachedAlready { .. }), "{error}");
    // Somebody else's file.
    let file = scene.index.path().join("segments").join(segment_file(&other).file_name().unwrap());
    fs::write(&file, "mine").unwrap();
    for how in [Attach::Link, Attach::Copy] {
        let error = writer.attach(&other.path, how).unwrap_err();
        assert!(matches!(error, AttachError::Occupied { .. }), "{error}");
    }
    writer.append("own", &sketch(seed("own"))).unwrap();
    writer.commit().unwrap();
    drop(writer);
    drop(scene.index.writer().unwrap());
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    fs::remove_file(&file).unwrap();
    assert_has(&scene.index, &["a", "own"]);
}

/// Catches parts that belong elsewhere, or that are not what was built, and errors without names and numbers.
#[test]
fn parts_that_do_not_fit_are_refused() {
    let scene = scene();
    let part = scene.part(&["a", "b"]);
    let mut writer = scene.index.writer().unwrap();
    let copy = scene.built.with_file_name("copy");
    let file = copy.join(segment_file(&part).file_name().unwrap());
    let sound = fs::read(segment_file(&part)).unwrap();
    let mut refused = |change: &dyn Fn()| {
        let _ = fs::remove_dir_all(&copy);
        copy_folder(&part.path, &copy);
        change();
        let errors = [Attach::Link, Attach::Copy].map(|how| writer.attach(&copy, how).unwrap_err());
        assert_eq!(errors[0].to_string(), errors[1].to_string());
        assert_eq!(errors[0].kind(), errors[1].kind());
        let [error, _] = errors;
        error
    };
    // Of terabytes, which are not read.
    let error =
        refused(&|| fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 42).unwrap());
    assert!(
        matches!(&error, AttachError::Part(PartError::Length { found, .. }) if *found == 1 << 42),
        "{error:?}"
    );
    // Its bytes.
    let error = refused(&|| {
        let mut bytes = sound.clone();
        bytes[60] ^= 1;
        fs::write(&file, bytes).unwrap();
    });
    let AttachError::Part(PartError::Digest { path, expected, found }) = error else { panic!("{error}") };
    assert_eq!((path, expected.len(), found.len()), (file.clone(), 64, 64));
    let built: String = Sha256::digest(&sound).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(expected != found && expected == built);
    // Cut off anywhere, or longer: the length says so.
    for length in [0, 100, 4096, 8192, sound.len() - 1, sound.len() + 1] {
        let error = refused(&|| {
            let mut bytes = sound.clone();
            bytes.resize(length, 0);
            fs::write(&file, bytes).unwrap();
        });
        let told = matches!(error, AttachError::Part(PartError::Length { .. }))
            && error.kind() == ErrorKind::Damaged;
        assert!(told, "{length}: {error:?}");
    }
    let error = refused(&|| fs::remove_file(&file).unwrap());
    assert!(matches!(&error, AttachError::Part(PartError::Missing { path }) if *path == file), "{error:?}");
    // Its description.
    let error = refused(&|| fs::remove_file(copy.join("PART")).unwrap());
    assert!(
        matches!(&error, AttachError::Part(PartError::Unfinished { path }) if *path == copy),
        "{error:?}"
    );
    let error = refused(&|| fs::write(copy.join("PART"), "x").unwrap());
    assert!(matches!(error, AttachError::Part(PartError::Damaged { .. })), "{error:?}");
    let error = refused(&|| rewrite(&copy, |bytes| bytes[8] = 2));
    assert_eq!(error.kind(), ErrorKind::Newer);
    let error = refused(&|| rewrite(&copy, |bytes| bytes[16] = 2));
    assert!(matches!(error, AttachError::Part(PartError::UnknownFeature { bits: 2, .. })), "{error:?}");
    let error = refused(&|| rewrite(&copy, |bytes| bytes[40] ^= 1));
    assert!(matches!(error, AttachError::Foreign { .. }), "{error:?}");
    let error = refused(&|| rewrite(&copy, |bytes| bytes[72] ^= 1));
    assert!(matches!(error, AttachError::OtherSchema { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // Numbers that are not those of the file: fewer examples, more, other rows.
    for (at, value) in [(128 + 24, 1), (128 + 16, 3)] {
        let error = refused(&|| rewrite(&copy, |bytes| bytes[at] = value));
        let AttachError::Part(PartError::Counts { found_rows, .. }) = error else { panic!("{error:?}") };
        assert_eq!(found_rows, 2);
    }
    // Other folders.
    let error = writer.attach(scene.built.with_file_name("nowhere"), Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Io { .. }), "{error:?}");
    let empty = scene.built.with_file_name("empty");
    fs::create_dir(&empty).unwrap();
    let error = writer.attach(&empty, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::NoParts { .. }), "{error:?}");
    // After all that the writer goes on.
    writer.attach(&part.path, Attach::Link).unwrap();
    writer.commit().unwrap();
    assert_has(&scene.index, &["a", "b"]);
}

/// Catches a segment of an index that is passed off as a detached one: its header states a generation, and it may
/// have an example twice.
#[test]
fn crafted_segments_are_refused() {
    let scene = scene();
    let part = scene.part(&["a"]);
    // A segment with the id twice, as one of an index may be.
    let donor = scene.built.with_file_name("donor.gradix");
    copy_folder(scene.index.path(), &donor);
    let index = Index::open(&donor).unwrap();
    let mut writer = index.writer().unwrap();
    for seed in [1, 2] {
        writer.append("a", &sketch(seed)).unwrap();
        if seed == 1 {
            writer.delete("a").unwrap();
        }
    }
    writer.commit().unwrap();
    drop(writer);
    let [own] = &indexes::segment_files(&donor)[..] else { panic!("one segment") };
    let mut writer = scene.index.writer().unwrap();
    for keeps_origin in [true, false] {
        let copy = scene.built.with_file_name(format!("crafted-{keeps_origin}"));
        fs::create_dir(&copy).unwrap();
        let mut bytes = fs::read(own).unwrap();
        if !keeps_origin {
            bytes[104..116].fill(0);
            let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
            bytes[124..128].copy_from_slice(&crc);
        }
        fs::write(copy.join(own.file_name().unwrap()), &bytes).unwrap();
        fs::copy(part.path.join("PART"), copy.join("PART")).unwrap();
        rewrite(&copy, |description| {
            description[128..144].copy_from_slice(&bytes[56..72]);
            description[144..152].copy_from_slice(&2u64.to_le_bytes());
            description[152..160].copy_from_slice(&2u64.to_le_bytes());
            description[160..168].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            description[168..200].copy_from_slice(&Sha256::digest(&bytes));
        });
        let error = writer.attach(&copy, Attach::Link).unwrap_err();
        if keeps_origin {
            assert!(
                matches!(error, AttachError::Segment(SegmentError::Damaged { offset: 104, .. })),
                "{error:?}"
            );
        } else {
            assert!(matches!(&error, AttachError::DuplicateId { id, .. } if id == b"a"), "{error:?}");
        }
    }
    assert_eq!(scene.segments(), [""; 0]);
    // The segment of one index in the part of another.
    let other = indexes::create(&schema());
    let mut detached = other.1.detached(scene.built.with_file_name("other")).unwrap();
    append(&mut detached, &["a"]);
    let foreign = detached.finish("").unwrap();
    rewrite(&foreign.path, |bytes| bytes[40..56].copy_from_slice(scene.index.uuid().as_bytes()));
    let error = writer.attach(&foreign.path, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Segment(SegmentError::Foreign { .. })), "{error:?}");
    assert_eq!(scene.segments(), [""; 0]);
}

/// Catches links that are followed, and pipes that are waited for.
#[cfg(unix)]
#[test]
fn links_and_pipes_are_not_segments() {
    let scene = scene();
    let part = scene.part(&["a"]);
    let (file, aside) = (segment_file(&part), scene.built.with_file_name("aside"));
    fs::rename(&file, &aside).unwrap();
    let mut writer = scene.index.writer().unwrap();
    for is_pipe in [false, true] {
        if is_pipe {
            assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        } else {
            std::os::unix::fs::symlink(&aside, &file).unwrap();
        }
        for how in [Attach::Link, Attach::Move, Attach::Copy] {
            let error = writer.attach(&part.path, how).unwrap_err();
            assert!(matches!(&error, AttachError::Io { path, .. } if *path == file), "{how:?}: {error:?}");
        }
        assert_eq!(scene.segments(), [""; 0]);
        fs::remove_file(&file).unwrap();
    }
    // A part that is a link to another folder is not looked for in a folder of parts.
    fs::rename(&aside, &file).unwrap();
    let linked = scene.built.with_file_name("linked");
    fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&part.path, linked.join("00000001.part")).unwrap();
    let error = writer.attach(&linked, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::NoParts { .. }), "{error:?}");
    // A pipe for a description.
    fs::remove_file(part.path.join("PART")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(part.path.join("PART")).status().unwrap().success());
    let error = writer.attach(&part.path, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Part(PartError::Damaged { .. })), "{error:?}");
}

/// Catches a commit of a file that its builder has written since it was attached.
#[test]
fn file_written_after_it_was_attached_is_not_committed() {
    use std::io::{Seek as _, Write as _};
    for how in [Attach::Link, Attach::Move, Attach::Copy] {
        let scene = scene();
        let part = scene.part(&["a"]);
        let mut writer = scene.index.writer().unwrap();
        writer.attach(&part.path, how).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(segment_file(&part)).unwrap();
        file.seek(std::io::SeekFrom::Start(5000)).unwrap();
        file.write_all(b"other bytes").unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
        let done = writer.commit();
        if how == Attach::Copy {
            done.unwrap();
            assert_has(&scene.index, &["a"]);
            continue;
        }
        let error = done.unwrap_err();
        assert!(
            matches!(&error, CommitError::AttachedFileChanged { path } if *path == segment_file(&part)),
            "{error:?}"
        );
        writer.abort().unwrap();
        writer.append("own", &sketch(seed("own"))).unwrap();
        writer.commit().unwrap();
        assert_has(&scene.index, &["own"]);
    }
}

/// Catches a storage without links that is copied to in silence, and one that cannot be copied to.
#[test]
fn storage_without_links_takes_copies_only() {
    let folder = tempfile::tempdir().unwrap();
    let options = Index::options().storage(Arc::new(MemoryStorage::new()));
    let index = options.create(folder.path().join("x.gradix"), &schema()).unwrap();
    let mut detached = index.detached(folder.path().join("built")).unwrap();
    append(&mut detached, &["a"]);
    let part = detached.finish("").unwrap();
    let mut writer = index.writer().unwrap();
    for how in [Attach::Link, Attach::Move] {
        let error = writer.attach(&part.path, how).unwrap_err();
        assert!(matches!(error, AttachError::CannotLink { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    writer.attach(&part.path, Attach::Copy).unwrap();
    writer.commit().unwrap();
    assert_has(&index, &["a"]);
}

/// Catches a part on another file system that is copied in silence, or an error that does not say what to do.
#[cfg(target_os = "linux")]
#[test]
fn part_on_another_file_system_is_copied_only_if_asked() {
    use std::os::unix::fs::MetadataExt as _;
    let scene = scene();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(elsewhere.path()) == device(scene.index.path()) {
        return;
    }
    let mut detached = scene.index.detached(elsewhere.path().join("built")).unwrap();
    append(&mut detached, &["a"]);
    let part = detached.finish("").unwrap();
    let mut writer = scene.index.writer().unwrap();
    for how in [Attach::Link, Attach::Move] {
        let error = writer.attach(&part.path, how).unwrap_err();
        assert!(
            matches!(&error, AttachError::OtherFileSystem { path, .. } if *path == segment_file(&part)),
            "{error:?}"
        );
        assert_eq!(scene.segments(), [""; 0]);
    }
    writer.attach(&part.path, Attach::Copy).unwrap();
    writer.commit().unwrap();
    assert_has(&scene.index, &["a"]);
}

/// Catches an attach that takes more memory than a commit may, and a limit that lets nothing pass.
#[test]
fn attach_keeps_to_the_maximum_of_examples() {
    let folder = tempfile::tempdir().unwrap();
    let index =
        Index::options().commit_examples(3).create(folder.path().join("x.gradix"), &schema()).unwrap();
    let built = folder.path().join("built");
    let mut detached = index.detached(&built).unwrap();
    append(&mut detached, &["a", "b", "c"]);
    let error = detached.append("d", &sketch(1)).unwrap_err();
    assert!(matches!(error, AppendError::CommitFull { limit: 3 }), "{error:?}");
    let part = detached.finish("").unwrap();
    let mut writer = index.writer().unwrap();
    writer.append("own", &sketch(1)).unwrap();
    let error = writer.attach(&part.path, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::CommitFull { examples: 4, limit: 3 }), "{error:?}");
    writer.commit().unwrap();
    writer.attach(&part.path, Attach::Link).unwrap();
    let error = writer.append("e", &sketch(1)).unwrap_err();
    assert!(matches!(error, AppendError::CommitFull { limit: 3 }), "{error:?}");
    assert_eq!(writer.commit().unwrap().appended, 3);
}

/// Catches compaction and collection that overlook what is attached and not committed.
#[test]
fn maintenance_waits_for_what_is_attached() {
    let scene = scene();
    let part = scene.part(&["a"]);
    let mut writer = scene.index.writer().unwrap();
    let empty = scene.detached().finish("nothing").unwrap();
    writer.attach(&empty.path, Attach::Move).unwrap();
    assert_eq!(writer.gc(GcOptions::default()).unwrap_err().kind(), ErrorKind::InvalidState);
    writer.attach(&part.path, Attach::Link).unwrap();
    assert_eq!(writer.compact(CompactOptions::all()).unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(writer.gc(GcOptions::default()).unwrap_err().kind(), ErrorKind::InvalidState);
    writer.commit().unwrap();
    assert_has(&scene.index, &["a"]);
}

/// Catches a detached writer that takes what the index's writer would refuse, or that loses what came before.
#[test]
fn detached_writer_checks_as_the_writer_does() {
    let scene = scene();
    let mut detached = scene.detached();
    append(&mut detached, &["a"]);
    let sketch = sketch(1);
    let duplicate = |done: Result<(), AppendError>| {
        let error = done.unwrap_err();
        assert!(matches!(&error, AppendError::DuplicateId { id } if id == b"a"), "{error:?}");
    };
    duplicate(detached.append("a", &sketch));
    duplicate(detached.append_rows("a", &[Row::new(&sketch), Row::new(&sketch)]));
    duplicate(detached.append_batch(&[("b", Row::new(&sketch)), ("a", Row::new(&sketch))]));
    let error = detached.append_batch(&[("b", Row::new(&sketch)), ("b", Row::new(&sketch))]).unwrap_err();
    assert!(matches!(&error, AppendError::DuplicateId { id } if id == b"b"), "{error:?}");
    assert!(detached.contains("a") && !detached.contains("b"));
    let other = sketch_of(&SketchSpec::dense("test", "v2", [("first", 3), ("second", 2)]), 1);
    assert!(matches!(detached.append("b", &other), Err(AppendError::OtherSpec { .. })));
    assert!(matches!(detached.append("", &sketch), Err(AppendError::IdLength { length: 0 })));
    assert!(matches!(detached.append_rows("b", &[]), Err(AppendError::NoRows { .. })));
    let error = detached.finish(vec![0; (1 << 20) + 1]).unwrap_err();
    assert!(matches!(error, CommitError::PayloadLength { length: 1_048_577 }), "{error:?}");
    let part = detached.finish(vec![7; 1 << 20]).unwrap();
    assert_eq!((part.rows(), part.payload.len()), (1, 1 << 20));
    // In the next part the id is free again.
    append(&mut detached, &["a"]);
    detached.abort().unwrap();
    assert_eq!(files(&scene.built), ["00000001.part", "LOCK"]);
    assert!(!detached.contains("a"));
    // A part without examples has a payload too.
    let empty = detached.finish("nothing").unwrap();
    assert_eq!((empty.number, empty.rows(), empty.segments.len()), (2, 0, 0));
    let mut writer = scene.index.writer().unwrap();
    assert_eq!(writer.attach(&scene.built, Attach::Move).unwrap().parts[1], empty);
    writer.commit().unwrap();
    assert_has(&scene.index, &["a"]);
    assert_eq!(detached.payload(2).unwrap(), Some(b"nothing".to_vec()));
    assert_eq!(detached.payload(3).unwrap(), None);
}

/// Catches leftovers of a killed writer that could be attached or stay, finished parts that go with them, and two
/// writers in one folder.
#[test]
fn interrupted_detached_writer_leaves_whole_parts_only() {
    let scene = scene();
    let mut detached = Index::options()
        .segment_bytes(1 << 20)
        .detached(scene.index.path().join("INDEX"), &scene.built)
        .unwrap();
    assert!(matches!(
        scene.index.detached(&scene.built),
        Err(DetachedError::Writer(WriterError::Busy { .. }))
    ));
    append(&mut detached, &["a"]);
    detached.finish("up to a").unwrap();
    // More than a segment, so that some are sealed.
    let metadata = vec![5; 65_000];
    for i in 0..30 {
        let sketch = sketch(i);
        detached.append_rows(format!("b{i}"), &[Row::new(&sketch).metadata(&metadata)]).unwrap();
    }
    // As after a kill.
    let killed = scene.built.with_file_name("killed");
    copy_folder(&scene.built, &killed);
    drop(detached);
    assert_eq!(files(&scene.built), ["00000001.part", "LOCK"]);
    let left = killed.join("00000002.unfinished");
    assert!(files(&left).iter().all(|name| name.ends_with(".seg")), "{:?}", files(&left));
    let mut writer = scene.index.writer().unwrap();
    // Killed while it wrote sums.
    fs::write(left.join("00000000-0000-0000-0000-000000000001.art"), "sums").unwrap();
    // Killed between the description and the name.
    fs::copy(killed.join("00000001.part/PART"), left.join("PART")).unwrap();
    let error = writer.attach(&left, Attach::Link).unwrap_err();
    assert!(matches!(error, AttachError::Part(PartError::Unfinished { .. })), "{error:?}");
    assert_eq!(writer.attach(&killed, Attach::Link).unwrap().parts.len(), 1);
    writer.abort().unwrap();

    // In an index it would be in the way of the index's own lock.
    let error = scene.index.detached(scene.index.path()).unwrap_err();
    assert!(matches!(&error, DetachedError::Occupied { path } if path == scene.index.path()), "{error:?}");
    // A file of somebody else's is not removed.
    fs::write(left.join("notes.txt"), "mine").unwrap();
    let error = scene.index.detached(&killed).unwrap_err();
    assert!(matches!(&error, DetachedError::Occupied { path } if path.ends_with("notes.txt")), "{error:?}");
    assert!(left.join("PART").exists());
    fs::remove_file(left.join("notes.txt")).unwrap();
    let mut again = scene.index.detached(&killed).unwrap();
    assert_eq!(files(&killed), ["00000001.part", "LOCK"]);
    assert_eq!((again.finished(), again.payload(1).unwrap()), (1, Some(b"up to a".to_vec())));
    append(&mut again, &["b"]);
    again.fit_curvature("curvature", &[]).unwrap();
    again.finish("up to b").unwrap();
    drop(again);
    writer.attach(&killed, Attach::Move).unwrap();
    // An interrupted move: its names are taken away by the next writer.
    let moved = killed.with_file_name("moved");
    copy_folder(&killed, &moved);
    fs::rename(moved.join("00000002.part"), moved.join("00000002.moved")).unwrap();
    drop(scene.index.detached(&moved).unwrap());
    assert_eq!(files(&moved.join("00000002.moved")), ["PART"]);
    assert_eq!(files(&moved.join("00000001.part")).len(), 2);
    writer.commit().unwrap();
    assert_has(&scene.index, &["a", "b"]);

    // Another index.
    let (_folder, other) = indexes::create(&schema());
    let error = other.detached(&killed).unwrap_err();
    assert!(matches!(error, DetachedError::Foreign { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = Index::options().detached(killed.join("00000001.moved/PART"), &killed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Catches a recovery that mistakes the order of attached segments, whose headers state none, or that takes those of
/// a commit that never was.
#[test]
fn recovery_knows_for_which_commit_segments_were_attached() {
    let scene = scene();
    let path = scene.index.path().to_owned();
    let mut writer = scene.index.writer().unwrap();
    for id in ["a", "b"] {
        writer.append(id, &sketch(1)).unwrap();
    }
    writer.commit().unwrap();
    // Later than what is in the index, and earlier than what is appended after it, in the same commit.
    let part = scene.part(&["a", "b", "c"]);
    writer.append("d", &sketch(1)).unwrap();
    for id in ["a", "b", "d"] {
        writer.delete(id).unwrap();
    }
    writer.attach(&part.path, Attach::Move).unwrap();
    let second = scene.part(&["d"]);
    writer.attach(&second.path, Attach::Link).unwrap();
    writer.delete("c").unwrap();
    writer.append("c", &sketch(seed("late"))).unwrap();
    writer.commit().unwrap();
    // Not committed, as after a kill.
    let third = scene.part(&["a"]);
    writer.delete("a").unwrap();
    writer.attach(&third.path, Attach::Link).unwrap();
    let killed = scene.built.with_file_name("killed.gradix");
    copy_folder(&path, &killed);
    drop(writer);

    let recover = |name: &str, change: &dyn Fn(&Path)| {
        let folder = killed.with_file_name(name);
        copy_folder(&killed, &folder);
        fs::remove_dir_all(folder.join("manifest")).unwrap();
        change(&folder.join("segments"));
        let recovery = Index::recover(&folder).unwrap();
        (recovery, Index::open(&folder).unwrap())
    };
    let (recovery, index) = recover("all.gradix", &|_| ());
    assert_eq!((recovery.generation, recovery.ambiguous, recovery.examples), (2, 0, 4));
    let [left_out] = &recovery.left_out[..] else { panic!("{:?}", recovery.left_out) };
    assert_eq!(left_out.reason, LeftOutReason::NotCommitted { generation: 3 });
    let snapshot = index.snapshot().unwrap();
    for (id, expected) in [("a", "a"), ("b", "b"), ("c", "late"), ("d", "d")] {
        let example = snapshot.get(id).unwrap().unwrap();
        assert_eq!(example.rows[0].sketch, sketch(seed(expected)), "{id}");
    }
    assert_sound(&index);

    // Damaged, a note leaves its segment out by name; without it, the segment counts as one of the first commit.
    let note = |part: &Part| format!("{}.attached", part.segments[0].segment);
    let (recovery, _) = recover("damaged.gradix", &|segments| {
        let path = segments.join(note(&part));
        let mut bytes = fs::read(&path).unwrap();
        bytes[16] ^= 1;
        fs::write(path, bytes).unwrap();
    });
    let told = recovery.left_out.iter().any(|left_out| {
        matches!(&left_out.reason, LeftOutReason::Unusable { error } if error.contains(&note(&part)))
    });
    assert!(told && recovery.left_out.len() == 2, "{:?}", recovery.left_out);
    let (recovery, index) = recover("gone.gradix", &|segments| {
        fs::remove_file(segments.join(note(&part))).unwrap();
    });
    assert_eq!(recovery.left_out.len(), 1);
    assert_eq!(index.snapshot().unwrap().get("a").unwrap().unwrap().rows[0].sketch, sketch(1));
}

/// Catches a note that nobody compares with the manifest.
#[test]
fn verify_reports_a_note_that_is_not_the_manifests() {
    let scene = scene();
    let part = scene.part(&["a"]);
    let mut writer = scene.index.writer().unwrap();
    writer.attach(&part.path, Attach::Link).unwrap();
    writer.commit().unwrap();
    let note = scene.index.path().join(format!("segments/{}.attached", part.segments[0].segment));
    let mut bytes = fs::read(&note).unwrap();
    bytes[16] = 9;
    fs::write(&note, &bytes).unwrap();
    let finding = |index: &Index| {
        let report = index.verify().unwrap();
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!(finding.file, note.display().to_string());
        finding.message.clone()
    };
    assert!(finding(&scene.index).contains("checksum"));
    let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
    bytes[60..].copy_from_slice(&crc);
    fs::write(&note, &bytes).unwrap();
    assert!(finding(&scene.index).contains("generation 9"));
}

/// Catches parts that depend on the folder's name or on where the process stands.
#[test]
fn part_can_be_copied_under_any_name() {
    let scene = scene();
    let part = scene.part(&["a"]);
    let copy = scene.built.with_file_name("what.ever");
    copy_folder(&part.path, &copy);
    let mut writer = scene.index.writer().unwrap();
    let attached = writer.attach(&copy, Attach::Move).unwrap();
    assert_eq!(attached.parts[0].number, 1);
    writer.commit().unwrap();
    assert!(!copy.exists());
    assert_eq!(files(&copy.with_file_name("what.ever.moved")), ["PART"]);
    part.verify().unwrap();
    assert_has(&scene.index, &["a"]);
}
