//! Which locks keep a writer out: `flock` on `LOCK`, and no other kind.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use gradix::{Index, WriterError};

use super::Kept;

/// Tries to take a `flock`, without waiting.
fn flock(file: &File, operation: i32) -> bool {
    // SAFETY: the descriptor is open as long as `file`.
    unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) == 0 }
}

/// Tries to take a record lock (`fcntl`) of the open file on all bytes, without waiting.
fn record_lock(file: &File) -> bool {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open as long as `file`, and the call only reads `whole`.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) == 0 }
}

/// Catches a writer that takes another kind of lock than format-spec/README.md says, which would let two
/// programs write at once, and readers that take one at all.
#[test]
fn writer_takes_a_flock_and_readers_none() {
    let kept = Kept::new();
    let path = kept.path().join("LOCK");
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(open().metadata().unwrap().len(), 0);
    for operation in [libc::LOCK_EX, libc::LOCK_SH] {
        let file = open();
        assert!(flock(&file, operation));
        assert!(matches!(kept.index.writer(), Err(WriterError::Busy { .. })));
        assert!(Index::open(kept.path()).unwrap().snapshot().unwrap().get("kept").unwrap().is_some());
    }
    let file = open();
    assert!(record_lock(&file));
    let writer = kept.index.writer().unwrap();
    assert!(!flock(&file, libc::LOCK_EX) && !flock(&file, libc::LOCK_SH));
    drop(writer);
    assert!(flock(&file, libc::LOCK_EX));
    // The file itself locks nothing, and comes back.
    std::fs::remove_file(&path).unwrap();
    drop(kept.index.writer().unwrap());
    kept.assert_has(&[]);
    assert!(path.exists());
}
