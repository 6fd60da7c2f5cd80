//! One error for all operations: what converts into it, what it says, and of which kind it is.

mod fixtures;

use std::error::Error as _;
use std::fs;

use fixtures::indexes;
use fixtures::sketches::{constant, sketch, sketch_of, spec};
use gradix::sketch::{SketchError, SketchSpec};
use gradix::{
    AppendError, CommitError, CompactOptions, CreateError, EncodeError, Encoding, Error, ErrorKind,
    GcOptions, GetError, Index, MaintenanceError, ManifestError, OpenError, RecoverError, Row, ScanError,
    Schema, SegmentError, SnapshotError, WriterError, scan,
};

/// Catches an operation whose error `?` cannot turn into the common one.
#[test]
fn error_of_every_operation_converts() {
    fn converts<T: Into<Error> + Send + Sync + 'static>() {}
    converts::<AppendError>();
    converts::<CommitError>();
    converts::<CreateError>();
    converts::<EncodeError>();
    converts::<GetError>();
    converts::<MaintenanceError>();
    converts::<ManifestError>();
    converts::<OpenError>();
    converts::<RecoverError>();
    converts::<ScanError>();
    converts::<SegmentError>();
    converts::<SketchError>();
    converts::<SnapshotError>();
    converts::<WriterError>();
    converts::<gradix::operators::OperatorError>();
    converts::<scan::KernelError>();
    converts::<Error>();
}

/// Catches a conversion that drops what the error said or what caused it.
#[test]
fn converted_error_says_the_same_and_keeps_its_cause() {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F16).unwrap());
    let mut writer = index.writer().unwrap();
    let huge = constant(&spec(), f32::MAX);
    let error = writer.append("a", &huge).unwrap_err();
    let (said, debug) = (error.to_string(), format!("{error:?}"));
    let error = Error::from(error);
    assert_eq!(error.to_string(), said);
    assert!(matches!(&error, Error::Append(error) if format!("{error:?}") == debug));
    let cause = error.source().unwrap().downcast_ref::<EncodeError>().unwrap();
    assert!(matches!(cause, EncodeError::NormTooLarge { .. }));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Catches an error of a kind that leads a caller to do the wrong thing about it.
#[test]
fn kind_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gradix");
    let schema = Schema::new(spec(), Encoding::F32).unwrap();
    let is = |error: Error, kind| assert_eq!(error.kind(), kind, "{error:?}");
    is(Index::open(&path).unwrap_err().into(), ErrorKind::NotFound);
    let index = Index::create(&path, &schema).unwrap();
    is(Index::create(&path, &schema).unwrap_err().into(), ErrorKind::AlreadyExists);
    is(Index::create(folder.path(), &schema).unwrap_err().into(), ErrorKind::AlreadyExists);
    let read_only = Index::options().read_only(true).open(&path).unwrap();
    is(read_only.writer().unwrap_err().into(), ErrorKind::InvalidState);

    let mut writer = index.writer().unwrap();
    is(index.writer().unwrap_err().into(), ErrorKind::Busy);
    let (own, other) = (sketch(1), sketch_of(&SketchSpec::dense("other", "v1", [("all", 2)]), 1));
    writer.append("a", &own).unwrap();
    is(writer.append("a", &own).unwrap_err().into(), ErrorKind::AlreadyExists);
    is(writer.append("b", &other).unwrap_err().into(), ErrorKind::InvalidInput);
    is(writer.append("", &own).unwrap_err().into(), ErrorKind::InvalidInput);
    is(writer.replace("nobody", &[Row::new(&own)]).unwrap_err().into(), ErrorKind::NotFound);
    is(writer.compact(CompactOptions::all()).unwrap_err().into(), ErrorKind::InvalidState);
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(std::time::Duration::ZERO)).unwrap();
    is(index.snapshot_at(0).unwrap_err().into(), ErrorKind::Expired);
    is(index.snapshot_at(2).unwrap_err().into(), ErrorKind::NotFound);

    let snapshot = index.snapshot().unwrap();
    let (queries, cancelled) = ([own], scan::CancelToken::new());
    cancelled.cancel();
    is(snapshot.scan(&[other]).unwrap_err().into(), ErrorKind::InvalidInput);
    is(
        snapshot.scan(&queries).unwrap().top_k(1).sources(["web"]).run().unwrap_err().into(),
        ErrorKind::NotFound,
    );
    is(
        snapshot.scan(&queries).unwrap().top_k(1).cancel(&cancelled).run().unwrap_err().into(),
        ErrorKind::Cancelled,
    );
    is("fast".parse::<scan::KernelChoice>().unwrap_err().into(), ErrorKind::InvalidInput);
    is(SketchSpec::rapid_grad(1, 3).nested(2).unwrap_err().into(), ErrorKind::InvalidInput);
    drop((snapshot, writer));

    let bytes = fs::read(path.join("INDEX")).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        fs::write(path.join("INDEX"), bytes).unwrap();
        Index::open(&path).unwrap_err().into()
    };
    is(changed(8, 99), ErrorKind::Newer);
    is(changed(40, bytes[40] ^ 1), ErrorKind::Damaged);
    fs::write(path.join("INDEX"), &bytes).unwrap();
    fs::remove_file(path.join("manifest/CURRENT")).unwrap();
    assert!(matches!(Index::open(&path), Err(OpenError::Manifest(ManifestError::Database { .. }))));
}

/// Catches damage that the database finds in its own files and that is told as a failure of the system.
#[test]
fn damage_within_the_database_is_damage() {
    let (_folder, index) = indexes::create(&Schema::new(spec(), Encoding::F32).unwrap());
    let path = index.path().to_owned();
    let mut writer = index.writer().unwrap();
    for id in 0..50u32 {
        writer.append(id.to_be_bytes(), &sketch(1)).unwrap();
    }
    writer.commit().unwrap();
    drop((writer, index));
    let mut damaged = 0;
    for entry in fs::read_dir(path.join("manifest")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_none_or(|kind| kind != "sst") {
            continue;
        }
        let sound = fs::read(entry.path()).unwrap();
        let mut bytes = sound.clone();
        bytes[3] ^= 0x40;
        fs::write(entry.path(), &bytes).unwrap();
        // The first block of a table, which is read when a record in it is.
        let read = || -> gradix::Result<()> {
            let snapshot = Index::open(&path)?.snapshot()?;
            snapshot.ids().try_for_each(|id| id.map(drop))?;
            snapshot.payload()?;
            Ok(())
        };
        if let Err(error) = read() {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
            damaged += 1;
        }
        fs::write(entry.path(), &sound).unwrap();
    }
    assert!(damaged > 0);
}
