//! The system calls of this process on one watched folder: recorded, counted, and failed or cut off on demand.
//!
//! The functions at the end have the names of glibc's. As this program defines them, the linker takes them for
//! Rust's standard library and for RocksDB, which is linked statically; each calls glibc's own, which `dlsym`
//! finds behind this one. No preloaded library and no tracer are needed.
//!
//! One lock is held across each call on the watched folder, so that the order of the log is the order in which
//! the calls took effect, whichever of RocksDB's threads made them. What reaches the folder on another way (a
//! shared map, `copy_file_range`) would be missed: `disk::tests::log_replays_to_the_folder` compares the files
//! that the log makes with those of the folder, byte by byte.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{iovec, mode_t, off_t, off64_t, size_t, ssize_t};

use crate::workload::Mark;

/// A file or folder of the watched tree. Numbers are never used again, unlike those of a file system.
pub type Inode = u32;
/// The watched folder itself.
pub const ROOT: Inode = 1;

/// What a call changed, in the order in which it took effect.
#[derive(Debug, Clone)]
pub enum Event {
    Create {
        inode: Inode,
        folder: bool,
        parent: Inode,
        name: Name,
    },
    Write {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// Also a file that is opened to be overwritten.
    Truncate {
        inode: Inode,
        length: u64,
    },
    /// `fsync` or `fdatasync` of a file or a folder has returned.
    Sync {
        inode: Inode,
    },
    /// It was made to fail.
    FailedSync {
        inode: Inode,
    },
    Link {
        inode: Inode,
        parent: Inode,
        name: Name,
    },
    Rename {
        parent: Inode,
        from: Name,
        to: Name,
    },
    Unlink {
        parent: Inode,
        name: Name,
    },
    /// Not a call: what the workload says about itself.
    Mark(Mark),
}

pub type Name = Arc<[u8]>;

/// The recording while its lock is held.
type Held = MutexGuard<'static, Option<Recording>>;

/// Kinds of calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Open,
    List,
    Read,
    Write,
    Sync,
    Truncate,
    Rename,
    Unlink,
    Mkdir,
}

pub const CLASSES: [Class; 9] = [
    Class::Open,
    Class::List,
    Class::Read,
    Class::Write,
    Class::Sync,
    Class::Truncate,
    Class::Rename,
    Class::Unlink,
    Class::Mkdir,
];

/// What happens to the n-th call from now on, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Nothing,
    /// It fails with this number of an error, once.
    Fail(Class, u64, c_int),
    /// The process is killed instead of the n-th call that would change the folder.
    Kill(u64),
}

/// What was seen of a watched folder.
#[derive(Debug)]
pub struct Recording {
    root: Vec<u8>,
    names: HashMap<(Inode, Name), Inode>,
    last: Inode,
    /// Whether events are kept.
    keeps: bool,
    pub log: Vec<Event>,
    pub plan: Plan,
    /// How many calls of each class there were.
    pub calls: [u64; CLASSES.len()],
    pub mutations: u64,
    /// Of each call, its class and what it was made on.
    pub made: Vec<(Class, String)>,
    /// The call that was made to fail.
    pub failed: Option<String>,
}

static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);
/// Whether a folder is watched: asked first, and without a lock.
static WATCHING: AtomicBool = AtomicBool::new(false);
/// The watched file or folder of each descriptor; 0 for others.
static DESCRIPTORS: [AtomicU32; 4096] = [const { AtomicU32::new(0) }; 4096];

/// Watches a folder, whose path is absolute, until [`stop`]. What is in it already counts as durable. `keeps`
/// says whether events are kept, or only counted.
pub fn start(root: &Path, plan: Plan, keeps: bool) -> Vec<Event> {
    let mut recording = Recording {
        root: root.as_os_str().as_bytes().to_vec(),
        names: HashMap::new(),
        last: ROOT,
        keeps: true,
        log: Vec::new(),
        plan,
        calls: [0; CLASSES.len()],
        mutations: 0,
        made: Vec::new(),
        failed: None,
    };
    recording.adopt(root, ROOT);
    let before = std::mem::take(&mut recording.log);
    recording.keeps = keeps;
    let mut current = lock();
    assert!(current.is_none(), "one folder at a time");
    *current = Some(recording);
    WATCHING.store(true, Ordering::SeqCst);
    before
}

/// Ends the watch, if there is one. Files that are open still are forgotten.
pub fn stop_if_watching() -> Option<Recording> {
    let mut current = lock();
    WATCHING.store(false, Ordering::SeqCst);
    for descriptor in &DESCRIPTORS {
        descriptor.store(0, Ordering::Relaxed);
    }
    current.take()
}

/// Ends the watch.
pub fn stop() -> Recording {
    stop_if_watching().expect("a folder is watched")
}

/// Puts a mark of the workload into the log.
pub fn mark(mark: &Mark) {
    if let Some(recording) = lock().as_mut() {
        recording.push(Event::Mark(mark.clone()));
    }
}

/// Whether the planned failure has happened.
pub fn has_failed() -> bool {
    lock().as_ref().is_some_and(|recording| recording.failed.is_some())
}

fn lock() -> Held {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recording {
    fn push(&mut self, event: Event) {
        if self.keeps {
            self.log.push(event);
        }
    }

    /// Takes over what is in the folder before the watch begins.
    fn adopt(&mut self, path: &Path, inode: Inode) {
        let mut entries: Vec<_> = std::fs::read_dir(path).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let folder = entry.file_type().unwrap().is_dir();
            let child = self.create(inode, entry.file_name().as_bytes().into(), folder);
            if folder {
                self.adopt(&entry.path(), child);
            } else {
                let bytes = std::fs::read(entry.path()).unwrap();
                self.push(Event::Write { inode: child, offset: 0, bytes: bytes.into() });
            }
        }
    }

    fn create(&mut self, parent: Inode, name: Name, folder: bool) -> Inode {
        self.last += 1;
        let inode = self.last;
        self.names.insert((parent, Arc::clone(&name)), inode);
        self.push(Event::Create { inode, folder, parent, name });
        inode
    }

    /// The folder and the name of a path below the root; `None` for all others. The root has no name.
    fn find(&self, path: &[u8]) -> Option<(Inode, Name)> {
        let below = path.strip_prefix(&self.root[..])?;
        if below.first().is_some_and(|&byte| byte != b'/') {
            return None;
        }
        let mut parts = below.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).peekable();
        let mut folder = ROOT;
        while let Some(part) = parts.next() {
            if part == b"." || part == b".." {
                give_up("a path with dots", path);
            }
            if parts.peek().is_none() {
                return Some((folder, part.into()));
            }
            folder = *self.names.get(&(folder, part.into()))?;
        }
        Some((0, Name::default()))
    }

    fn inode(&self, at: &(Inode, Name)) -> Option<Inode> {
        if at.0 == 0 { Some(ROOT) } else { self.names.get(at).copied() }
    }

    /// Counts a call, and says whether it is to fail with an error instead of being made.
    fn count(&mut self, class: Class, what: impl Fn() -> String) -> Option<c_int> {
        let number = self.calls[class as usize];
        if self.keeps && self.plan == Plan::Nothing {
            self.made.push((class, what()));
        }
        self.calls[class as usize] += 1;
        match self.plan {
            Plan::Fail(failing, nth, error) if failing == class && nth == number => {
                self.failed = Some(what());
                Some(error)
            }
            _ => None,
        }
    }

    /// Counts a call that changes the folder, and dies before it if that is planned.
    fn mutate(&mut self) {
        if self.plan == Plan::Kill(self.mutations) {
            // SAFETY: a plain call; it does not return.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        self.mutations += 1;
    }

    /// For messages: the path of a file.
    fn describe(&self, inode: Inode) -> String {
        let found = self.names.iter().find(|(_, found)| **found == inode);
        found.map_or("a removed file".into(), |((_, name), _)| String::from_utf8_lossy(name).into_owned())
    }
}

/// The recorder has no model of this call: better no result than a wrong one.
fn give_up(what: &str, path: &[u8]) -> ! {
    eprintln!("tests/torture/calls.rs does not know {what}: {}", String::from_utf8_lossy(path));
    std::process::abort()
}

fn fail(error: c_int) {
    // SAFETY: the address of this thread's errno is valid.
    unsafe { *libc::__errno_location() = error };
}

fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// The recording, if a folder is watched and the path is below it.
fn at_path(path: *const c_char) -> Option<(Held, (Inode, Name))> {
    if !WATCHING.load(Ordering::Relaxed) || path.is_null() {
        return None;
    }
    // SAFETY: the caller of a system call passes a string that ends.
    let path = unsafe { CStr::from_ptr(path) };
    let guard = lock();
    let at = guard.as_ref()?.find(path.to_bytes())?;
    Some((guard, at))
}

/// The recording, if the descriptor is one of a watched file.
fn at_descriptor(descriptor: c_int) -> Option<(Held, Inode)> {
    let entry = DESCRIPTORS.get(usize::try_from(descriptor).ok()?)?;
    if !WATCHING.load(Ordering::Relaxed) || entry.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let guard = lock();
    let inode = entry.load(Ordering::Relaxed);
    (inode != 0 && guard.is_some()).then_some((guard, inode))
}

/// A call on a descriptor: `change` is what it does to the file if the result is not negative.
fn on_descriptor(
    descriptor: c_int,
    class: Class,
    mutates: bool,
    call: impl FnOnce() -> i64,
    change: impl FnOnce(Inode, i64) -> Option<Event>,
) -> i64 {
    let Some((mut guard, inode)) = at_descriptor(descriptor) else { return call() };
    let Some(recording) = guard.as_mut() else { return call() };
    let name = recording.describe(inode);
    if let Some(error) = recording.count(class, || format!("{class:?} of {name}")) {
        if class == Class::Sync {
            recording.push(Event::FailedSync { inode });
        }
        drop(guard);
        fail(error);
        return -1;
    }
    if mutates {
        recording.mutate();
    }
    let done = call();
    let error = errno();
    if done >= 0
        && let Some(event) = change(inode, done)
    {
        recording.push(event);
    }
    drop(guard);
    fail(error);
    done
}

/// A call on a path: `change` notes what it did, if the result is not negative.
fn on_path(
    path: *const c_char,
    class: Class,
    call: impl FnOnce() -> c_int,
    change: impl FnOnce(&mut Recording, (Inode, Name)),
) -> c_int {
    let Some((mut guard, at)) = at_path(path) else { return call() };
    let Some(recording) = guard.as_mut() else { return call() };
    if let Some(error) = recording.count(class, || format!("{class:?} of {}", String::from_utf8_lossy(&at.1)))
    {
        drop(guard);
        fail(error);
        return -1;
    }
    recording.mutate();
    let done = call();
    let error = errno();
    if done >= 0 {
        change(recording, at);
    }
    drop(guard);
    fail(error);
    done
}

/// Opens a file: creates or truncates it, if the flags say so.
fn opened(path: *const c_char, flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    let Some((mut guard, at)) = at_path(path) else { return call() };
    let Some(recording) = guard.as_mut() else { return call() };
    if let Some(error) = recording.count(Class::Open, || format!("open {}", String::from_utf8_lossy(&at.1))) {
        drop(guard);
        fail(error);
        return -1;
    }
    let before = recording.inode(&at);
    let (creates, truncates) = (flags & libc::O_CREAT != 0, flags & libc::O_TRUNC != 0);
    if creates && before.is_none() || truncates && before.is_some() {
        recording.mutate();
    }
    let descriptor = call();
    let error = errno();
    if descriptor >= 0 {
        let inode = match before {
            Some(inode) => {
                if truncates {
                    recording.push(Event::Truncate { inode, length: 0 });
                }
                inode
            }
            None if creates => recording.create(at.0, at.1, false),
            None => give_up("a file that came on another way", &at.1),
        };
        match DESCRIPTORS.get(descriptor as usize) {
            Some(entry) => entry.store(inode, Ordering::Relaxed),
            None => give_up("a descriptor beyond 4095", &[]),
        }
    }
    drop(guard);
    fail(error);
    descriptor
}

/// The bytes that a call wrote.
///
/// # Safety
/// `count` bytes from `from` can be read.
unsafe fn written(inode: Inode, offset: i64, from: *const c_void, count: i64) -> Option<Event> {
    // SAFETY: as promised above.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) };
    (count > 0).then(|| Event::Write { inode, offset: offset as u64, bytes: bytes.into() })
}

/// The function of the C library with a name, behind the one of this program.
macro_rules! real {
    ($name:literal, fn($($argument:ty),*) -> $result:ty) => {{
        static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
        let mut address = ADDRESS.load(Ordering::Relaxed);
        if address.is_null() {
            // SAFETY: the name is a string that ends.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, concat!($name, "\0").as_ptr().cast()) };
            if address.is_null() {
                give_up("a C library without", $name.as_bytes());
            }
            ADDRESS.store(address, Ordering::Relaxed);
        }
        // SAFETY: the function of this name has this type.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(address) }
    }};
}

/// `open`, whose third argument is there only if the flags ask for it: on the machines that this program is
/// built for, it is passed in the same register either way.
macro_rules! open {
    ($function:ident, $name:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            let call = real!($name, fn(*const c_char, c_int, mode_t) -> c_int);
            // SAFETY: the caller's arguments.
            opened(path, flags, || unsafe { call(path, flags, mode) })
        }
    };
}
open!(open, "open");
open!(open64, "open64");

macro_rules! openat {
    ($function:ident, $name:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            folder: c_int,
            path: *const c_char,
            flags: c_int,
            mode: mode_t,
        ) -> c_int {
            let call = real!($name, fn(c_int, *const c_char, c_int, mode_t) -> c_int);
            if at_descriptor(folder).is_some() {
                give_up("openat in a watched folder", &[]);
            }
            // SAFETY: the caller's arguments.
            opened(path, flags, || unsafe { call(folder, path, flags, mode) })
        }
    };
}
openat!(openat, "openat");
openat!(openat64, "openat64");

macro_rules! creat {
    ($function:ident, $name:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(path: *const c_char, mode: mode_t) -> c_int {
            let call = real!($name, fn(*const c_char, mode_t) -> c_int);
            // SAFETY: the caller's arguments.
            opened(path, libc::O_CREAT | libc::O_TRUNC, || unsafe { call(path, mode) })
        }
    };
}
creat!(creat, "creat");
creat!(creat64, "creat64");

#[unsafe(no_mangle)]
unsafe extern "C" fn opendir(path: *const c_char) -> *mut libc::DIR {
    let call = real!("opendir", fn(*const c_char) -> *mut libc::DIR);
    if let Some((mut guard, at)) = at_path(path)
        && let Some(recording) = guard.as_mut()
        && let Some(error) =
            recording.count(Class::List, || format!("list {}", String::from_utf8_lossy(&at.1)))
    {
        drop(guard);
        fail(error);
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's argument.
    unsafe { call(path) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    let call = real!("close", fn(c_int) -> c_int);
    if let Some(entry) = usize::try_from(descriptor).ok().and_then(|at| DESCRIPTORS.get(at))
        && entry.load(Ordering::Relaxed) != 0
    {
        // Before another thread is given the same number.
        let _guard = lock();
        entry.store(0, Ordering::Relaxed);
    }
    // SAFETY: the caller's argument.
    unsafe { call(descriptor) }
}

macro_rules! duplicate {
    ($function:ident, $name:literal, ($($argument:ident: $kind:ty),*)) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(descriptor: c_int $(, $argument: $kind)*) -> c_int {
            let call = real!($name, fn(c_int $(, $kind)*) -> c_int);
            if at_descriptor(descriptor).is_some() {
                give_up("a duplicate of a watched descriptor", &[]);
            }
            // SAFETY: the caller's arguments.
            unsafe { call(descriptor $(, $argument)*) }
        }
    };
}
duplicate!(dup, "dup", ());
duplicate!(dup2, "dup2", (to: c_int));
duplicate!(dup3, "dup3", (to: c_int, flags: c_int));

#[unsafe(no_mangle)]
unsafe extern "C" fn read(descriptor: c_int, to: *mut c_void, count: size_t) -> ssize_t {
    let call = real!("read", fn(c_int, *mut c_void, size_t) -> ssize_t);
    // SAFETY: the caller's arguments.
    let call = || unsafe { call(descriptor, to, count) } as i64;
    on_descriptor(descriptor, Class::Read, false, call, |_, _| None) as ssize_t
}

macro_rules! pread {
    ($function:ident, $name:literal, $offset:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            descriptor: c_int,
            to: *mut c_void,
            count: size_t,
            offset: $offset,
        ) -> ssize_t {
            let call = real!($name, fn(c_int, *mut c_void, size_t, $offset) -> ssize_t);
            // SAFETY: the caller's arguments.
            let call = || unsafe { call(descriptor, to, count, offset) } as i64;
            on_descriptor(descriptor, Class::Read, false, call, |_, _| None) as ssize_t
        }
    };
}
pread!(pread, "pread", off_t);
pread!(pread64, "pread64", off64_t);

#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, from: *const c_void, count: size_t) -> ssize_t {
    let call = real!("write", fn(c_int, *const c_void, size_t) -> ssize_t);
    // SAFETY: the caller's arguments.
    let call = || unsafe { call(descriptor, from, count) } as i64;
    let change = |inode, done| {
        // SAFETY: a plain call on an open descriptor.
        let end = unsafe { libc::lseek64(descriptor, 0, libc::SEEK_CUR) };
        // SAFETY: the call has read as many bytes there.
        unsafe { written(inode, end - done, from, done) }
    };
    on_descriptor(descriptor, Class::Write, true, call, change) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let call = real!("writev", fn(c_int, *const iovec, c_int) -> ssize_t);
    if at_descriptor(descriptor).is_some() {
        give_up("writev to a watched file", &[]);
    }
    // SAFETY: the caller's arguments.
    unsafe { call(descriptor, parts, count) }
}

macro_rules! pwrite {
    ($function:ident, $name:literal, $offset:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            descriptor: c_int,
            from: *const c_void,
            count: size_t,
            offset: $offset,
        ) -> ssize_t {
            let call = real!($name, fn(c_int, *const c_void, size_t, $offset) -> ssize_t);
            // SAFETY: the caller's arguments.
            let call = || unsafe { call(descriptor, from, count, offset) } as i64;
            // SAFETY: the call has read as many bytes there.
            let change = |inode, done| unsafe { written(inode, offset, from, done) };
            on_descriptor(descriptor, Class::Write, true, call, change) as ssize_t
        }
    };
}
pwrite!(pwrite, "pwrite", off_t);
pwrite!(pwrite64, "pwrite64", off64_t);

macro_rules! pwritev {
    ($function:ident, $name:literal, $offset:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            descriptor: c_int,
            parts: *const iovec,
            count: c_int,
            offset: $offset,
        ) -> ssize_t {
            let call = real!($name, fn(c_int, *const iovec, c_int, $offset) -> ssize_t);
            if at_descriptor(descriptor).is_some() {
                give_up("pwritev to a watched file", &[]);
            }
            // SAFETY: the caller's arguments.
            unsafe { call(descriptor, parts, count, offset) }
        }
    };
}
pwritev!(pwritev, "pwritev", off_t);
pwritev!(pwritev64, "pwritev64", off64_t);

macro_rules! sync {
    ($function:ident, $name:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(descriptor: c_int) -> c_int {
            let call = real!($name, fn(c_int) -> c_int);
            // SAFETY: the caller's argument.
            let call = || i64::from(unsafe { call(descriptor) });
            let change = |inode, _| Some(Event::Sync { inode });
            on_descriptor(descriptor, Class::Sync, true, call, change) as c_int
        }
    };
}
sync!(fsync, "fsync");
sync!(fdatasync, "fdatasync");

/// Starts writing back, and promises nothing: a failure is possible, but nothing becomes durable.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(
    descriptor: c_int,
    offset: off64_t,
    count: off64_t,
    flags: u32,
) -> c_int {
    let call = real!("sync_file_range", fn(c_int, off64_t, off64_t, u32) -> c_int);
    // SAFETY: the caller's arguments.
    let call = || i64::from(unsafe { call(descriptor, offset, count, flags) });
    on_descriptor(descriptor, Class::Sync, false, call, |_, _| None) as c_int
}

macro_rules! truncate {
    ($function:ident, $name:literal, $length:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(descriptor: c_int, length: $length) -> c_int {
            let call = real!($name, fn(c_int, $length) -> c_int);
            // SAFETY: the caller's arguments.
            let call = || i64::from(unsafe { call(descriptor, length) });
            let change = |inode, _| Some(Event::Truncate { inode, length: length as u64 });
            on_descriptor(descriptor, Class::Truncate, true, call, change) as c_int
        }
    };
}
truncate!(ftruncate, "ftruncate", off_t);
truncate!(ftruncate64, "ftruncate64", off64_t);

/// Whether `fallocate` changes only how many blocks are reserved: RocksDB reserves some for its logs, and gives back
/// those beyond the end.
fn is_beyond_the_end(descriptor: c_int, mode: c_int, offset: u64) -> bool {
    let mut status = std::mem::MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: the call fills in the structure if it succeeds.
    let length = unsafe {
        if libc::fstat64(descriptor, status.as_mut_ptr()) != 0 {
            return false;
        }
        status.assume_init().st_size as u64
    };
    let punches = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
    mode == libc::FALLOC_FL_KEEP_SIZE || mode == punches && offset >= length
}

macro_rules! allocate {
    ($function:ident, $name:literal, $offset:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(
            descriptor: c_int,
            mode: c_int,
            offset: $offset,
            length: $offset,
        ) -> c_int {
            let call = real!($name, fn(c_int, c_int, $offset, $offset) -> c_int);
            if at_descriptor(descriptor).is_some() && !is_beyond_the_end(descriptor, mode, offset as u64) {
                give_up("fallocate that changes a file", &[]);
            }
            // SAFETY: the caller's arguments.
            let call = || i64::from(unsafe { call(descriptor, mode, offset, length) });
            on_descriptor(descriptor, Class::Truncate, false, call, |_, _| None) as c_int
        }
    };
}
allocate!(fallocate, "fallocate", off_t);
allocate!(fallocate64, "fallocate64", off64_t);

macro_rules! posix_allocate {
    ($function:ident, $name:literal, $offset:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(descriptor: c_int, offset: $offset, length: $offset) -> c_int {
            let call = real!($name, fn(c_int, $offset, $offset) -> c_int);
            if at_descriptor(descriptor).is_some() {
                give_up("posix_fallocate of a watched file", &[]);
            }
            // SAFETY: the caller's arguments.
            unsafe { call(descriptor, offset, length) }
        }
    };
}
posix_allocate!(posix_fallocate, "posix_fallocate", off_t);
posix_allocate!(posix_fallocate64, "posix_fallocate64", off64_t);

fn renamed(recording: &mut Recording, from: (Inode, Name), to: *const c_char) {
    // SAFETY: the caller of a system call passes a string that ends.
    let path = unsafe { CStr::from_ptr(to) }.to_bytes();
    match recording.find(path) {
        Some((parent, to)) if parent == from.0 => {
            if let Some(inode) = recording.names.remove(&from) {
                recording.names.insert((parent, Arc::clone(&to)), inode);
            }
            recording.push(Event::Rename { parent, from: from.1, to });
        }
        _ => give_up("a rename from one folder to another", path),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let call = real!("rename", fn(*const c_char, *const c_char) -> c_int);
    // SAFETY: the caller's arguments.
    on_path(from, Class::Rename, || unsafe { call(from, to) }, |recording, at| renamed(recording, at, to))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(folder: c_int, from: *const c_char, other: c_int, to: *const c_char) -> c_int {
    let call = real!("renameat", fn(c_int, *const c_char, c_int, *const c_char) -> c_int);
    let call = || {
        // SAFETY: the caller's arguments.
        unsafe { call(folder, from, other, to) }
    };
    on_path(from, Class::Rename, call, |recording, at| renamed(recording, at, to))
}

fn linked(recording: &mut Recording, at: &(Inode, Name), to: *const c_char) {
    // SAFETY: the caller of a system call passes a string that ends.
    let path = unsafe { CStr::from_ptr(to) }.to_bytes();
    let (Some(inode), Some((parent, name))) = (recording.inode(at), recording.find(path)) else {
        give_up("a link out of the folder", path)
    };
    recording.names.insert((parent, Arc::clone(&name)), inode);
    recording.push(Event::Link { inode, parent, name });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    let call = real!("link", fn(*const c_char, *const c_char) -> c_int);
    // SAFETY: the caller's arguments.
    on_path(from, Class::Rename, || unsafe { call(from, to) }, |recording, at| linked(recording, &at, to))
}

/// As `link`: with absolute paths the folders do not matter.
#[unsafe(no_mangle)]
unsafe extern "C" fn linkat(
    folder: c_int,
    from: *const c_char,
    other: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    let call = real!("linkat", fn(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int);
    let call = || {
        // SAFETY: the caller's arguments.
        unsafe { call(folder, from, other, to, flags) }
    };
    on_path(from, Class::Rename, call, |recording, at| linked(recording, &at, to))
}

fn unlinked(recording: &mut Recording, at: (Inode, Name)) {
    recording.names.remove(&at);
    recording.push(Event::Unlink { parent: at.0, name: at.1 });
}

macro_rules! unlink {
    ($function:ident, $name:literal) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(path: *const c_char) -> c_int {
            let call = real!($name, fn(*const c_char) -> c_int);
            // SAFETY: the caller's argument.
            on_path(path, Class::Unlink, || unsafe { call(path) }, unlinked)
        }
    };
}
unlink!(unlink, "unlink");
unlink!(rmdir, "rmdir");

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    let call = real!("unlinkat", fn(c_int, *const c_char, c_int) -> c_int);
    if at_descriptor(folder).is_some() {
        give_up("unlinkat in a watched folder", &[]);
    }
    // SAFETY: the caller's arguments.
    on_path(path, Class::Unlink, || unsafe { call(folder, path, flags) }, unlinked)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    let call = real!("mkdir", fn(*const c_char, mode_t) -> c_int);
    // SAFETY: the caller's arguments.
    on_path(
        path,
        Class::Mkdir,
        || unsafe { call(path, mode) },
        |recording, at| {
            recording.create(at.0, at.1, true);
        },
    )
}
