//! Damage to any file of an index's folder, RocksDB's included: each damaged folder is used by a child
//! process that has limits of time and memory, and what it answers must be right or a typed error.
//!
//! - `GRADIX_DAMAGE=all` tries every length and every bit, instead of a sample;
//! - `GRADIX_DAMAGE_ONLY=text` tries the cases whose description contains the text;
//! - `GRADIX_DAMAGE_LIST=1` prints the outcome of each case.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Row, Schema, Span, Tier};
use tempfile::TempDir;

use super::alone;
use super::craft::{PAGE, TAIL, footer_start};
use super::pool::{Case, VICTIM, try_all};
use super::worker::{self, Change, Use};
use crate::fixtures::indexes::copy_folder;
use crate::fixtures::random::Random;
use crate::fixtures::sketches::sketch_of;

/// Not a test by itself: the process that tries damaged folders.
#[test]
fn child() {
    if let Ok(sound) = std::env::var(worker::SOUND) {
        worker::work(Path::new(&sound));
    }
}

fn spec() -> SketchSpec {
    SketchSpec::dense("test", "v1", [("a", 20), ("b", 24), ("c", 40)])
}

pub fn sketch_for(seed: u64) -> Sketch {
    sketch_of(&spec(), seed)
}

/// Sound folders, in memory where the system has a file system there.
struct Folders {
    home: TempDir,
    /// Two segments with deletes, a replaced example and payloads; tables, and a log with records.
    sound: PathBuf,
    /// The same before its last commit.
    older: PathBuf,
    /// Another index with the same schema and the same contents.
    other: PathBuf,
}

fn build(home: &Path, name: &str) -> (PathBuf, PathBuf) {
    let blocks = [Encoding::F32, Encoding::F16, Encoding::I8];
    assert_eq!(blocks.len(), Encoding::ALL.len(), "a block of each encoding");
    let schema = Schema::with_encodings(spec(), blocks.to_vec()).unwrap();
    let schema = schema.with_tiers([Tier::Sign { seed: 7 }, Tier::I8]).unwrap();
    let path = home.join(format!("{name}.live"));
    let index = Index::create(&path, &schema).unwrap();
    let append = |writer: &mut gradix::Writer, segment: u64| {
        for i in 0..8u64 {
            let sketches = [0, 1].map(|k| sketch_for(segment * 100 + i * 2 + k));
            let metadata = format!("metadata of {i} in segment {segment}, compressible, compressible");
            let tag =
                |row| Row::new(row).source(["wiki", "news"][i as usize % 2]).metadata(metadata.as_bytes());
            let rows = [tag(&sketches[0]).span(Span::tokens(0, 5)), tag(&sketches[1])];
            writer.append_rows(format!("{segment}-{i}"), &rows[..1 + i as usize % 2]).unwrap();
        }
    };
    let mut writer = index.writer().unwrap();
    append(&mut writer, 0);
    writer.prepare_commit().unwrap().payload("day 1").commit().unwrap();
    // Opened again, the database has tables besides its log.
    drop(writer);
    let mut writer = index.writer().unwrap();
    append(&mut writer, 1);
    writer.delete("0-2").unwrap();
    writer.replace("0-3", &[Row::new(&sketch_for(300))]).unwrap();
    writer.prepare_commit().unwrap().payload("day 2").commit().unwrap();
    let older = home.join(format!("{name}.older"));
    copy_folder(&path, &older);
    writer.delete("1-4").unwrap();
    writer.prepare_commit().unwrap().payload("day 3").commit().unwrap();
    // As a kill would leave it, so that there are records in the log.
    let sound = home.join(format!("{name}.gradix"));
    copy_folder(&path, &sound);
    (sound, older)
}

impl Folders {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let mut name = tempfile::Builder::new();
        name.prefix("gradix-damage-");
        let home = if memory.is_dir() { name.tempdir_in(memory) } else { name.tempdir() }.unwrap();
        let (sound, older) = build(home.path(), "sound");
        let (other, _) = build(home.path(), "other");
        Self { home, sound, older, other }
    }

    /// The files of the folder, relative to it, in order.
    fn files(&self) -> Vec<String> {
        files_of(&self.sound)
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.sound.join(file)).unwrap()
    }

    #[track_caller]
    fn try_all(&self, what: &str, at_least: usize, cases: Vec<Case>) {
        try_all(&self.sound, self.home.path(), cases).assert_good(what, at_least);
    }
}

fn files_of(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for below in ["", "manifest", "segments"] {
        for entry in fs::read_dir(folder.join(below)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                files.push(Path::new(below).join(entry.file_name()).to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn tries_all() -> bool {
    std::env::var("GRADIX_DAMAGE").is_ok_and(|value| value == "all")
}

/// About `count` of the numbers from 0 to `end`, with both ends, evenly spread; all in the long run.
fn sample(end: usize, count: usize) -> Vec<usize> {
    spread(end, if tries_all() { end } else { count })
}

fn spread(end: usize, count: usize) -> Vec<usize> {
    if end == 0 {
        return Vec::new();
    }
    let step = end.div_ceil(count);
    // Odd, so that all bits of a byte get their turn.
    let step = if step > 1 { step | 1 } else { 1 };
    (0..end).step_by(step).chain([end - 1]).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Files that are read by people only, or that are empty.
fn holds_nothing(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap();
    name.starts_with("LOG") || name.starts_with("OPTIONS") || name == "LOCK"
}

fn case(
    file: &str,
    what: impl Into<String>,
    how: Use,
    damage: impl Fn(&Path) + Send + Sync + 'static,
) -> Case {
    let path = file.to_owned();
    let damage = move |root: &Path| damage(&root.join(&path));
    Case { file: file.to_owned(), what: what.into(), how, damage: Box::new(damage) }
}

/// A case that replaces a file's bytes.
fn with_bytes(file: &str, what: impl Into<String>, how: Use, bytes: Vec<u8>) -> Case {
    case(file, what, how, move |path| fs::write(path, &bytes).unwrap())
}

/// Writers are tried with every n-th case, readers with all.
fn now_and_then(count: usize, every: usize) -> Use {
    if count.is_multiple_of(every) { Use::Write } else { Use::Read }
}

/// Whether a message says which file is meant, and for a file of gradix's own where in it.
pub fn names_a_place(message: &str) -> bool {
    // What a writer says after its first error, which is looked at too.
    if message.ends_with("an earlier write failed; open the index again") {
        return true;
    }
    let own = message.contains(".seg") || message.contains("INDEX") || message.contains("COMMITTED");
    let names = ["manifest", "segments", "LOCK", "x.gradix"];
    let file = own || names.iter().any(|name| message.contains(name));
    let content = message.contains("checksum") || message.contains("damaged");
    let place = ["offset", "region", "MANIFEST", ".sst", ".log", "manifest"];
    file && (!content || !own || place.iter().any(|place| message.contains(place)))
}

/// Catches a file that is cut off and then believed, waited for or crashed on.
#[test]
fn folder_with_a_file_of_another_length() {
    let _alone = alone();
    let folders = Folders::new();
    let mut cases = Vec::new();
    for file in folders.files() {
        let bytes = folders.bytes(&file);
        for length in lengths(&file, &bytes) {
            let how = now_and_then(cases.len(), 2);
            cases.push(with_bytes(&file, format!("cut to {length}"), how, bytes[..length].to_vec()));
        }
    }
    folders.try_all("other length", 150, cases);
}

/// The lengths to which a file is cut.
fn lengths(file: &str, bytes: &[u8]) -> Vec<usize> {
    if holds_nothing(file) {
        return spread(bytes.len(), 4);
    }
    if !file.ends_with(".seg") {
        return sample(bytes.len(), 24);
    }
    // Regions begin with pages; within one, a length is as good as another.
    let ends = (0..bytes.len()).step_by(PAGE).flat_map(|at| [at.saturating_sub(1), at, at + 1]);
    let metadata = (0..128).chain(footer_start(bytes)..bytes.len());
    let all: Vec<usize> = if tries_all() {
        ends.chain(metadata).chain((0..bytes.len()).step_by(64)).collect()
    } else {
        sample(bytes.len(), 24)
    };
    all.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether RocksDB writes records to it one after the other.
fn is_log(file: &str) -> bool {
    file.contains("MANIFEST-") || file.ends_with(".log")
}

/// Where the types of the records of such a file are: a header is checksum (4), length (2), type (1).
fn record_types(bytes: &[u8]) -> Vec<usize> {
    assert!(bytes.len() < 32_768, "one block");
    let mut types = Vec::new();
    let mut at = 0;
    while at + 7 <= bytes.len() {
        types.push(at + 6);
        at += 7 + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
    }
    assert_eq!(at, bytes.len(), "the records end with the file");
    types
}

/// The places of a file's metadata, as ranges of bytes, and some of its payload.
fn places(file: &str, bytes: &[u8]) -> Vec<usize> {
    if file.ends_with(".seg") {
        let footer = footer_start(bytes);
        let metadata = (0..128).chain(footer..bytes.len());
        let payload =
            spread(footer - PAGE, if tries_all() { 2000 } else { 40 }).into_iter().map(|at| PAGE + at);
        metadata.chain(payload).collect()
    } else {
        (0..bytes.len()).collect()
    }
}

/// Catches a bit that no checksum covers, or that RocksDB believes before it looks at the checksum.
#[test]
fn folder_with_a_flipped_bit() {
    let _alone = alone();
    let folders = Folders::new();
    let mut cases = Vec::new();
    for file in folders.files() {
        let bytes = folders.bytes(&file);
        let places = places(&file, &bytes);
        let count = match file.as_str() {
            "COMMITTED" | "manifest/CURRENT" => usize::MAX,
            file if holds_nothing(file) => 4,
            file if file.contains("MANIFEST") || file.ends_with(".log") => 300,
            _ => 60,
        };
        let bits = places.len() * 8;
        for bit in if holds_nothing(&file) { spread(bits, count) } else { sample(bits, count.min(bits)) } {
            let (at, bit) = (places[bit / 8], bit % 8);
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let how = now_and_then(cases.len(), 4);
            cases.push(with_bytes(&file, format!("bit {bit} of byte {at}"), how, bytes));
        }
        // All bits of what RocksDB looks at before a record's checksum.
        for at in if is_log(&file) { record_types(&bytes) } else { Vec::new() } {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                cases.push(with_bytes(&file, format!("bit {bit} of the type at {at}"), Use::Read, bytes));
            }
        }
    }
    folders.try_all("flipped bit", 1000, cases);
}

/// Catches pages that the disk lost, wrote to another's place, or wrote twice.
#[test]
fn folder_with_lost_and_misplaced_pages() {
    let _alone = alone();
    let folders = Folders::new();
    let mut cases = Vec::new();
    for file in folders.files() {
        let bytes = folders.bytes(&file);
        let pages = bytes.len().div_ceil(PAGE);
        let range = |page: usize| page * PAGE..bytes.len().min((page + 1) * PAGE);
        for page in spread(pages, 30) {
            let mut lost = bytes.clone();
            lost[range(page)].fill(0);
            cases.push(with_bytes(
                &file,
                format!("page {page} is zeros"),
                now_and_then(cases.len(), 2),
                lost,
            ));
            let mut twice = bytes.clone();
            twice.splice(range(page).end..range(page).end, bytes[range(page)].to_vec());
            cases.push(with_bytes(&file, format!("page {page} is there twice"), Use::Write, twice));
            let other = (page + 1 + cases.len() % 3) % pages;
            if other != page && range(other).len() == PAGE && range(page).len() == PAGE {
                let mut swapped = bytes.clone();
                swapped[range(page)].copy_from_slice(&bytes[range(other)]);
                swapped[range(other)].copy_from_slice(&bytes[range(page)]);
                cases.push(with_bytes(
                    &file,
                    format!("pages {page} and {other} are swapped"),
                    Use::Read,
                    swapped,
                ));
                let mut over = bytes.clone();
                over[range(page)].copy_from_slice(&bytes[range(other)]);
                cases.push(with_bytes(&file, format!("page {other} lies over {page}"), Use::Read, over));
            }
        }
    }
    folders.try_all("pages", 100, cases);
}

/// Catches bytes behind the end of a file that are waited for, believed, or crashed on. Some begin like a
/// record of RocksDB's logs of any type.
#[test]
fn folder_with_bytes_appended() {
    let _alone = alone();
    let folders = Folders::new();
    let mut random = Random(5);
    let mut cases = Vec::new();
    for file in folders.files() {
        let sound = folders.bytes(&file);
        let few = if holds_nothing(&file) { 1 } else { 6 };
        let count = if is_log(&file) || tries_all() { 63 } else { few };
        for length in spread(63, count) {
            let more: Vec<u8> = (0..=length).map(|_| random.below(256) as u8).collect();
            let how = now_and_then(cases.len(), 2);
            cases.push(with_bytes(&file, format!("and {more:02x?}"), how, [&sound[..], &more].concat()));
        }
        let zeros = [&sound[..], &[0; 3 * PAGE]].concat();
        cases.push(with_bytes(&file, "and three pages of zeros", Use::Write, zeros));
        if is_log(&file) {
            for kind in sample(256, 40).into_iter().chain([5, 6, 7, 8, 9, 10, 11, 130, 131]) {
                let header = [0, 0, 0, 0, 0, 0, kind as u8];
                for (what, rest) in [("", &[][..]), (" and more", &[0; 9][..])] {
                    let bytes = [&sound[..], &header, rest].concat();
                    cases.push(with_bytes(
                        &file,
                        format!("and a header of type {kind}{what}"),
                        Use::Write,
                        bytes,
                    ));
                }
            }
        }
    }
    folders.try_all("appended", 150, cases);
}

/// Catches a file that is taken for another one: of this index, of an older generation of it, or of another
/// index.
#[test]
fn folder_with_files_exchanged() {
    let _alone = alone();
    let folders = Folders::new();
    let files = folders.files();
    let mut cases = Vec::new();
    for one in &files {
        for two in &files {
            let has_bytes = !holds_nothing(two) || two.contains("OPTIONS");
            if one != two && !holds_nothing(one) && has_bytes {
                cases.push(with_bytes(
                    one,
                    format!("holds what {two} holds"),
                    Use::Write,
                    folders.bytes(two),
                ));
                if one < two {
                    let (a, b) = (folders.bytes(one), folders.bytes(two));
                    let second = two.clone();
                    let damage = move |root: &Path, one: &str| {
                        fs::write(root.join(one), &b).unwrap();
                        fs::write(root.join(&second), &a).unwrap();
                    };
                    let first = one.clone();
                    cases.push(Case {
                        file: one.clone(),
                        what: format!("exchanged with {two}"),
                        how: Use::Write,
                        damage: Box::new(move |root| damage(root, &first)),
                    });
                }
            }
        }
    }
    for (whose, from) in [("the older generation", &folders.older), ("another index", &folders.other)] {
        let theirs = files_of(from);
        for file in &files {
            // Segments have other names there.
            let named = if file.ends_with(".seg") {
                theirs.iter().find(|file| file.ends_with(".seg")).unwrap()
            } else {
                file
            };
            let Ok(bytes) = fs::read(from.join(named)) else { continue };
            let unchanged = bytes == folders.bytes(file);
            // A log that ends where the older one does is a manifest that lost a commit, and is refused.
            // COMMITTED of the generation before is what a crash leaves, and no damage (`tests/reliability.rs`).
            if !unchanged && file != "COMMITTED" {
                cases.push(with_bytes(file, format!("is that of {whose}"), Use::Write, bytes));
            }
        }
        for folder in ["manifest", "segments"] {
            let from = from.join(folder);
            cases.push(case(folder, format!("is that of {whose}"), Use::Write, move |path| {
                // The segments of the older generation are those of the newer one.
                fs::remove_dir_all(path).unwrap();
                copy_folder(&from, path);
            }));
        }
    }
    folders.try_all("exchanged", 60, cases);
}

#[derive(Debug, Clone, Copy)]
enum Odd {
    Missing,
    Folder,
    Fifo,
    Device,
    Endless,
    LinkToACopy,
    LinkToNothing,
    LinkToTheVictim,
    LinkToItself,
    Unreadable,
}

const ODD: [Odd; 10] = [
    Odd::Missing,
    Odd::Folder,
    Odd::Fifo,
    Odd::Device,
    Odd::Endless,
    Odd::LinkToACopy,
    Odd::LinkToNothing,
    Odd::LinkToTheVictim,
    Odd::LinkToItself,
    Odd::Unreadable,
];

fn node(path: &Path, mode: libc::mode_t, device: libc::dev_t) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a zero byte, and lives until the call returns.
    let made = unsafe { libc::mknod(path.as_ptr(), mode | 0o600, device) };
    // Devices are for the superuser.
    assert!(made == 0 || mode == libc::S_IFCHR, "{}", std::io::Error::last_os_error());
}

impl Odd {
    /// Puts this in place of the file, which may be missing.
    fn put(self, path: &Path) {
        let home = path.ancestors().find(|folder| folder.join(VICTIM).exists()).unwrap();
        let sound = path.is_file();
        let aside = home.join("copy");
        if path.exists() {
            fs::rename(path, &aside).unwrap();
        }
        match self {
            Self::Missing => {}
            Self::Folder => fs::create_dir(path).unwrap(),
            Self::Fifo => node(path, libc::S_IFIFO, 0),
            Self::Device => node(path, libc::S_IFCHR, libc::makedev(1, 3)),
            Self::Endless => node(path, libc::S_IFCHR, libc::makedev(1, 5)),
            Self::LinkToACopy => symlink(&aside, path).unwrap(),
            Self::LinkToNothing => symlink(home.join("nothing"), path).unwrap(),
            Self::LinkToTheVictim => symlink(home.join(VICTIM), path).unwrap(),
            Self::LinkToItself => symlink(path, path).unwrap(),
            Self::Unreadable => {
                use std::os::unix::fs::PermissionsExt as _;
                if sound {
                    fs::copy(&aside, path).unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
                }
            }
        }
    }
}

/// Catches a link that is followed out of the folder, a pipe that is waited for, a device that is read, and
/// a file that is missing without an error.
#[test]
fn folder_with_something_else_in_place_of_a_file() {
    let _alone = alone();
    let folders = Folders::new();
    let mut files = folders.files();
    // What a writer will create.
    files.extend(["COMMITTED.unfinished", "INDEX.unfinished", "manifest", "segments"].map(str::to_owned));
    let mut cases = Vec::new();
    for file in &files {
        for odd in ODD {
            cases.push(case(file, format!("{odd:?}"), Use::Write, move |path| odd.put(path)));
        }
    }
    // The next files of RocksDB's.
    for number in 1..60 {
        for name in ["NNN.log", "NNN.sst", "NNN.dbtmp", "MANIFEST-NNN", "OPTIONS-NNN", "OPTIONS-NNN.dbtmp"] {
            let file = format!("manifest/{}", name.replace("NNN", &format!("{number:06}")));
            if !files.contains(&file) && (tries_all() || (20..46).contains(&number)) {
                let odd = Odd::LinkToTheVictim;
                cases.push(case(&file, format!("{odd:?}"), Use::Write, move |path| odd.put(path)));
            }
        }
    }
    folders.try_all("odd", 150, cases);
}

/// Catches memory or time that grows with what a file claims to be.
#[test]
fn folder_with_a_sparse_giant() {
    let _alone = alone();
    let folders = Folders::new();
    let mut cases = Vec::new();
    for file in folders.files() {
        for (what, length) in [("6 GB", 6u64 << 30), ("700 MB", 700 << 20)] {
            cases.push(case(&file, format!("grown to {what}"), Use::Write, move |path| {
                fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
            }));
            cases.push(case(&file, format!("{what} of nothing"), Use::Write, move |path| {
                fs::File::create(path).unwrap().set_len(length).unwrap();
            }));
        }
        if file.ends_with(".seg") {
            let tail = folders.bytes(&file);
            cases.push(case(&file, "6 GB with its tail at the end", Use::Write, move |path| {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.write_all_at(&tail[tail.len() - TAIL..], (6 << 30) - TAIL as u64).unwrap();
            }));
        }
    }
    folders.try_all("sparse", 20, cases);
}

/// Catches a file that is read again, or through a map, after it changed under an open index.
#[test]
fn folder_whose_files_change_while_it_is_open() {
    let _alone = alone();
    let folders = Folders::new();
    let mut cases = Vec::new();
    for file in folders.files() {
        for change in [Change::Shrinks, Change::Empties, Change::Grows, Change::IsOverwritten] {
            let what = format!("{change:?} while it is open");
            cases.push(case(&file, what, Use::Changed(change), |_| {}));
        }
    }
    folders.try_all("changed", 40, cases);
}
