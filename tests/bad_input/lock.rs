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
        // Not only closed: another test may fork just now.
        assert!(flock(&file, libc::LOCK_UN));
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

/// Catches a lock that goes on with a process that was forked while the writer had it: an application that
/// starts programs would be refused its next writer now and then.
#[test]
fn writer_that_is_gone_leaves_no_lock_to_a_forked_process() {
    let kept = Kept::new();
    let writer = kept.index.writer().unwrap();
    // SAFETY: the child calls nothing but what may be called after a fork, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: both may be called after a fork.
        unsafe {
            libc::sleep(60);
            libc::_exit(0);
        }
    }
    assert!(child > 0);
    drop(writer);
    let next = kept.index.writer();
    // SAFETY: the child is ours, and is waited for once.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    drop(next.unwrap());
    kept.assert_has(&[]);
}
