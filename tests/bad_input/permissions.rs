//! Files that the system will not let us read or write.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use gradix::{CreateError, Index, OpenError, SnapshotError, WriterError};

use super::{Kept, schema};
use crate::fixtures::indexes::assert_sound;
use crate::fixtures::sketches::sketch;
use crate::fixtures::told;

const PATH: &str = "GRADIX_TEST_UNPRIVILEGED_PATH";
const CASE: &str = "GRADIX_TEST_UNPRIVILEGED_CASE";
const NOBODY: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn set_all(folder: &Path, files: u32, folders: u32) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            set_all(&entry.path(), files, folders);
        } else {
            set_mode(&entry.path(), files);
        }
    }
    set_mode(folder, folders);
}

/// Runs a case below as a user without rights, in a process of its own. `false`: it cannot be done.
fn run_unprivileged(kept: &Kept, case: &str) -> bool {
    let program = kept.folder.path().join("case");
    if !program.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        set_mode(&program, 0o755);
        set_mode(kept.folder.path(), 0o755);
    }
    let mut command = Command::new(&program);
    command.args(["permissions::unprivileged_case", "--exact", "--nocapture"]);
    command.env(PATH, kept.path()).env(CASE, case).uid(NOBODY).gid(NOBODY);
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{case}: {text}{}", String::from_utf8_lossy(&output.stderr));
            assert!(text.contains("CASE DONE"), "{case}: {text}");
            true
        }
        Err(error) => {
            println!("SKIPPED: cannot start a process without rights: {error}");
            false
        }
    }
}

/// Not a test by itself: the body of the one below, without rights.
#[test]
fn unprivileged_case() {
    let (Ok(path), Ok(case)) = (std::env::var(PATH), std::env::var(CASE)) else { return };
    let path = Path::new(&path);
    let denied = std::io::ErrorKind::PermissionDenied;
    match case.as_str() {
        "hidden folder" | "hidden INDEX" => {
            let error = Index::open(path).unwrap_err();
            assert!(matches!(&error, OpenError::Io { source, .. } if source.kind() == denied), "{error:?}");
            assert!(told(&error).contains("INDEX"), "{}", told(&error));
        }
        "hidden manifest" => {
            let error = Index::open(path).unwrap_err();
            assert!(matches!(error, OpenError::Manifest(_)), "{error:?}");
            assert!(told(&error).contains("manifest"), "{}", told(&error));
        }
        "hidden segments" => {
            let index = Index::open(path).unwrap();
            let error = index.snapshot().unwrap_err();
            assert!(matches!(error, SnapshotError::Segment(_)), "{error:?}");
            assert!(told(&error).contains(".seg") && told(&error).contains("ermission"), "{}", told(&error));
            assert_eq!(index.verify().unwrap().findings.len(), 1);
        }
        "read only" => {
            // Reading needs no right to write; writing says what it lacks.
            let index = Index::open(path).unwrap();
            let snapshot = index.snapshot().unwrap();
            assert_eq!(snapshot.get("kept").unwrap().unwrap().rows[0].sketch, sketch(1));
            assert_sound(&index);
            let error = index.writer().unwrap_err();
            assert!(matches!(&error, WriterError::Io { source, .. } if source.kind() == denied), "{error:?}");
            let error = Index::options().create(path.with_extension("new"), &schema()).unwrap_err();
            assert!(matches!(&error, CreateError::Io { source, .. } if source.kind() == denied), "{error:?}");
        }
        other => panic!("no case {other}"),
    }
    println!("CASE DONE");
}

/// Catches a missing right that shows as something else, as a panic, or as an empty index; and a
/// reader that needs the right to write.
#[test]
fn missing_rights_are_named() {
    let kept = Kept::new();
    let (manifest, segments) = (kept.path().join("manifest"), kept.path().join("segments"));
    let public = || set_all(kept.path(), 0o644, 0o755);
    public();
    if !run_unprivileged(&kept, "read only") {
        return;
    }
    set_mode(kept.path(), 0o700);
    assert!(run_unprivileged(&kept, "hidden folder"));
    public();
    set_mode(&kept.index_file(), 0o600);
    assert!(run_unprivileged(&kept, "hidden INDEX"));
    public();
    set_mode(&manifest, 0o700);
    assert!(run_unprivileged(&kept, "hidden manifest"));
    public();
    set_mode(&segments, 0o700);
    assert!(run_unprivileged(&kept, "hidden segments"));
    public();
    set_mode(&kept.segment_file(), 0o600);
    assert!(run_unprivileged(&kept, "hidden segments"));
    kept.assert_has(&[]);
}
