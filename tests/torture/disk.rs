//! What a disk may hold after a power cut.
//!
//! A file has the bytes of its last completed sync, and of each later change to each page either the old or the
//! new bytes, whichever page it is and in whatever order; its length is any of those that it has had since, and
//! what is missing in between is zeros. A folder has the entries of its last completed sync, and of each later
//! creation, link, rename and removal all or nothing, each for itself. Syncing a file does not save its name. In
//! RocksDB's folder names reach the disk in the order of the calls, as on any journaling file system; RocksDB
//! relies on that. `docs/durability.md` says what this leaves out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::calls::{Event, Inode, Name, ROOT};
use crate::fixtures::random::Random;

/// The page of a disk, within which nothing tears.
pub const PAGE: usize = 4096;
/// Up to so many states of one moment are all tried.
const ALL: usize = 48;

/// How unkind a disk is.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Nothing tears within so many bytes.
    pub page: usize,
    /// Names in RocksDB's folder, too, are saved in any order.
    pub any_order: bool,
}

/// The files of a disk while power is on, with what is not on it yet.
#[derive(Debug, Clone)]
pub struct Disk {
    model: Model,
    files: HashMap<Inode, File>,
    folders: HashMap<Inode, Folder>,
    /// RocksDB's log for people, which nothing reads: always empty, and no reason for more states.
    ignored: BTreeSet<Inode>,
    time: usize,
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    live: Vec<u8>,
    /// Of each page that has changed since the last sync: when first, and what it was after each change.
    pages: BTreeMap<usize, (usize, Vec<Vec<u8>>)>,
    /// The same of its length.
    lengths: (usize, Vec<usize>),
}

#[derive(Debug, Clone, Default)]
struct Folder {
    /// Changes reach the disk in their order.
    in_order: bool,
    durable: BTreeMap<Name, Inode>,
    /// Changes since the last sync, and when.
    changes: Vec<(usize, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    Add(Name, Inode),
    Remove(Name),
    /// Both ends of it, or neither.
    Rename(Name, Name, Inode),
}

/// Something that is not on the disk yet, and may come to be in one of several versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Entry {
        folder: Inode,
        change: usize,
    },
    /// The first so many changes of a folder in which they keep their order.
    Entries {
        folder: Inode,
    },
    Page {
        file: Inode,
        page: usize,
    },
    Length {
        file: Inode,
    },
}

/// What can become of a disk at a moment: items in the order in which they came up, each with the number of its
/// newest version.
#[derive(Debug)]
pub struct Unsynced {
    items: Vec<(Item, u32)>,
}

/// A disk after a power cut: the content of each file by its path; `None` for folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<Vec<u8>, Option<Arc<Vec<u8>>>>);

impl Disk {
    /// A disk with what `before` made, all of it durable.
    pub fn new(before: &[Event], model: Model) -> Self {
        let folders = HashMap::from([(ROOT, Folder::default())]);
        let (files, ignored) = (HashMap::new(), BTreeSet::new());
        let mut disk = Self { model, files, folders, ignored, time: 0 };
        for event in before {
            disk.apply(event);
        }
        for file in disk.files.values_mut() {
            file.sync(model.page);
        }
        for folder in disk.folders.values_mut() {
            folder.sync();
        }
        disk
    }

    pub fn apply(&mut self, event: &Event) {
        self.time += 1;
        let time = self.time;
        match event {
            Event::Create { inode, folder, parent, name } => {
                if *folder {
                    let in_order = !self.model.any_order && **name == *b"manifest";
                    self.folders.insert(*inode, Folder { in_order, ..Folder::default() });
                } else {
                    self.files.insert(*inode, File::default());
                    if **name == *b"LOG" {
                        self.ignored.insert(*inode);
                    }
                }
                self.change(*parent, Change::Add(Arc::clone(name), *inode));
            }
            Event::Write { inode, offset, bytes } => {
                if !self.ignored.contains(inode)
                    && let Some(file) = self.files.get_mut(inode)
                {
                    file.write(time, self.model.page, *offset as usize, bytes);
                }
            }
            Event::Truncate { inode, length } => {
                if !self.ignored.contains(inode)
                    && let Some(file) = self.files.get_mut(inode)
                {
                    file.truncate(time, self.model.page, *length as usize);
                }
            }
            // The kernel drops what it could not write, and says so once: a later sync that succeeds saves only
            // what was written after. In memory the bytes are still there.
            Event::FailedSync { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.pages.clear();
                }
            }
            Event::Sync { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.sync(self.model.page);
                } else if let Some(folder) = self.folders.get_mut(inode) {
                    folder.sync();
                    self.forget_removed();
                }
            }
            Event::Link { inode, parent, name } => {
                self.change(*parent, Change::Add(Arc::clone(name), *inode));
            }
            Event::Rename { parent, from, to } => {
                let inode = self.folders[parent].live()[from];
                self.change(*parent, Change::Rename(Arc::clone(from), Arc::clone(to), inode));
            }
            Event::Unlink { parent, name } => self.change(*parent, Change::Remove(Arc::clone(name))),
            Event::Mark(_) => {}
        }
    }

    fn change(&mut self, folder: Inode, change: Change) {
        let time = self.time;
        self.folders.get_mut(&folder).expect("a known folder").changes.push((time, change));
    }

    /// Files that no name can lead to any more.
    fn forget_removed(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for folder in self.folders.values() {
            named.extend(folder.durable.values());
            for (_, change) in &folder.changes {
                if let Change::Add(_, inode) | Change::Rename(_, _, inode) = change {
                    named.insert(*inode);
                }
            }
        }
        self.files.retain(|inode, _| named.contains(inode));
        self.folders.retain(|inode, _| named.contains(inode));
    }

    /// All that is not on the disk for certain.
    pub fn unsynced(&self) -> Unsynced {
        let mut items = Vec::new();
        for (&folder, state) in &self.folders {
            if state.in_order {
                if let Some((first, _)) = state.changes.first() {
                    items.push((*first, Item::Entries { folder }, state.changes.len() as u32));
                }
                continue;
            }
            for (change, (time, what)) in state.changes.iter().enumerate() {
                let of = match what {
                    Change::Add(_, inode) | Change::Rename(_, _, inode) => Some(inode),
                    Change::Remove(_) => None,
                };
                if of.is_none_or(|inode| !self.ignored.contains(inode)) {
                    items.push((*time, Item::Entry { folder, change }, 1));
                }
            }
        }
        for (&file, state) in &self.files {
            for (&page, (time, versions)) in &state.pages {
                items.push((*time, Item::Page { file, page }, versions.len() as u32));
            }
            if !state.lengths.1.is_empty() {
                items.push((state.lengths.0, Item::Length { file }, state.lengths.1.len() as u32));
            }
        }
        items.sort_by_key(|&(time, item, _)| (time, matches!(item, Item::Length { .. })));
        Unsynced { items: items.into_iter().map(|(_, item, versions)| (item, versions)).collect() }
    }

    /// The disk with these versions of what was not synced.
    pub fn after_cut(&self, unsynced: &Unsynced, choice: &[u32]) -> Tree {
        let mut entries: HashMap<Inode, BTreeSet<usize>> = HashMap::new();
        let mut pages: HashMap<Inode, Vec<(usize, usize)>> = HashMap::new();
        let mut lengths: HashMap<Inode, usize> = HashMap::new();
        for ((item, _), &version) in unsynced.items.iter().zip(choice) {
            let Some(version) = (version as usize).checked_sub(1) else { continue };
            match *item {
                Item::Entry { folder, change } => {
                    entries.entry(folder).or_default().insert(change);
                }
                Item::Entries { folder } => {
                    entries.insert(folder, (0..=version).collect());
                }
                Item::Page { file, page } => pages.entry(file).or_default().push((page, version)),
                Item::Length { file } => {
                    lengths.insert(file, version);
                }
            }
        }
        let mut tree = Tree(BTreeMap::new());
        let mut folders = vec![(Vec::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            let state = &self.folders[&folder];
            let kept = entries.get(&folder);
            let is_kept = |change: usize, what: &Change| {
                let ignored = match what {
                    Change::Add(_, inode) | Change::Rename(_, _, inode) => self.ignored.contains(inode),
                    Change::Remove(_) => false,
                };
                ignored || kept.is_some_and(|kept| kept.contains(&change))
            };
            for (name, inode) in state.with(is_kept) {
                let mut path = path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend(&*name);
                if self.folders.contains_key(&inode) {
                    tree.0.insert(path.clone(), None);
                    folders.push((path, inode));
                } else {
                    let none = Vec::new();
                    let versions = pages.get(&inode).unwrap_or(&none);
                    let bytes =
                        self.files[&inode].with(self.model.page, versions, lengths.get(&inode).copied());
                    tree.0.insert(path, Some(bytes));
                }
            }
        }
        tree
    }

    /// For messages: what was lost, and what is of an earlier time.
    pub fn describe(&self, unsynced: &Unsynced, choice: &[u32]) -> String {
        let mut words = Vec::new();
        for ((item, versions), &version) in unsynced.items.iter().zip(choice) {
            if version == *versions {
                continue;
            }
            let what = match *item {
                Item::Entry { folder, change } => match &self.folders[&folder].changes[change].1 {
                    Change::Add(name, _) => format!("the name {}", show(name)),
                    Change::Remove(name) => format!("the removal of {}", show(name)),
                    Change::Rename(from, to, _) => format!("the rename of {} to {}", show(from), show(to)),
                },
                Item::Entries { folder } => format!("names in {}", self.name(folder)),
                Item::Page { file, page } => format!("page {page} of {}", self.name(file)),
                Item::Length { file } => format!("the length of {}", self.name(file)),
            };
            words.push(if *versions == 1 {
                what
            } else {
                format!("{what} ({version} of {versions} changes kept)")
            });
        }
        let lost = words.len();
        words.truncate(8);
        format!("{lost} of {} lost: {}", unsynced.items.len(), words.join(", "))
    }

    pub fn name(&self, inode: Inode) -> String {
        for folder in self.folders.values() {
            if let Some((name, _)) = folder.live().iter().find(|(_, other)| **other == inode) {
                return show(name);
            }
        }
        format!("removed file {inode}")
    }
}

fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl File {
    fn touch(&mut self, time: usize, page: usize, number: usize) {
        let start = (number * page).min(self.live.len());
        let end = (start + page).min(self.live.len());
        let now = &self.live[start..end];
        let old = self.durable.get(number * page..).unwrap_or_default();
        let old = &old[..old.len().min(page)];
        let (_, versions) = self.pages.entry(number).or_insert_with(|| (time, Vec::new()));
        if versions.last().map_or(old, Vec::as_slice) != now || versions.is_empty() {
            versions.push(now.to_vec());
        }
    }

    fn length(&mut self, time: usize) {
        let (first, lengths) = &mut self.lengths;
        if lengths.is_empty() {
            *first = time;
        }
        lengths.push(self.live.len());
    }

    fn write(&mut self, time: usize, page: usize, offset: usize, bytes: &[u8]) {
        let (end, before) = (offset + bytes.len(), self.live.len());
        if end > before {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        for number in offset / page..end.div_ceil(page) {
            self.touch(time, page, number);
        }
        if end > before {
            self.length(time);
        }
    }

    fn truncate(&mut self, time: usize, page: usize, length: usize) {
        let before = self.live.len();
        if length == before {
            return;
        }
        self.live.resize(length, 0);
        // A page beyond the end that is written again later starts from zeros.
        for number in length / page..before.max(length).div_ceil(page) {
            self.touch(time, page, number);
        }
        self.length(time);
    }

    fn sync(&mut self, page: usize) {
        if !self.pages.is_empty() || !self.lengths.1.is_empty() {
            let length = (!self.lengths.1.is_empty()).then(|| self.lengths.1.len() - 1);
            let pages: Vec<_> =
                self.pages.iter().map(|(&number, (_, versions))| (number, versions.len() - 1)).collect();
            self.durable = self.with(page, &pages, length);
            self.pages.clear();
            self.lengths.1.clear();
        }
    }

    /// Its bytes with these versions of pages and length, all others as they were durable.
    fn with(&self, page: usize, pages: &[(usize, usize)], length: Option<usize>) -> Arc<Vec<u8>> {
        if pages.is_empty() && length.is_none() {
            return Arc::clone(&self.durable);
        }
        let length = length.map_or(self.durable.len(), |version| self.lengths.1[version]);
        let mut bytes = (*self.durable).clone();
        bytes.resize(length, 0);
        for &(number, version) in pages {
            let start = number * page;
            if start >= length {
                continue;
            }
            let end = (start + page).min(length);
            let saved = &self.pages[&number].1[version];
            let count = saved.len().min(end - start);
            bytes[start..start + count].copy_from_slice(&saved[..count]);
            bytes[start + count..end].fill(0);
        }
        Arc::new(bytes)
    }
}

impl Folder {
    fn with(&self, is_kept: impl Fn(usize, &Change) -> bool) -> BTreeMap<Name, Inode> {
        let mut entries = self.durable.clone();
        for (number, (_, change)) in self.changes.iter().enumerate() {
            if !is_kept(number, change) {
                continue;
            }
            match change {
                Change::Add(name, inode) => {
                    entries.insert(Arc::clone(name), *inode);
                }
                Change::Remove(name) => {
                    entries.remove(name);
                }
                Change::Rename(from, to, inode) => {
                    entries.remove(from);
                    entries.insert(Arc::clone(to), *inode);
                }
            }
        }
        entries
    }

    fn live(&self) -> BTreeMap<Name, Inode> {
        self.with(|_, _| true)
    }

    fn sync(&mut self) {
        self.durable = self.live();
        self.changes.clear();
    }
}

impl Unsynced {
    /// Whether a few pages are on their way, as when a long record is written to a log: few states, of which many are
    /// hard to read.
    pub fn is_torn_record(&self) -> bool {
        let pages = self.items.iter().filter(|(item, _)| matches!(item, Item::Page { .. })).count();
        (2..=5).contains(&pages)
    }

    pub fn nothing(&self) -> Vec<u32> {
        vec![0; self.items.len()]
    }

    pub fn everything(&self) -> Vec<u32> {
        self.items.iter().map(|&(_, versions)| versions).collect()
    }

    /// What to try: all choices if they are few; else nothing, everything, each item alone, each item missing,
    /// each beginning, and choices at random, `limit` in all.
    pub fn choices(&self, limit: usize, random: &mut Random) -> Vec<Vec<u32>> {
        let newest = self.everything();
        let count = newest.iter().try_fold(1usize, |product, &versions| {
            product.checked_mul(versions as usize + 1).filter(|&product| product <= ALL)
        });
        let mut choices = vec![vec![0; newest.len()], newest.clone()];
        if let Some(count) = count {
            choices = (0..count).map(|number| self.numbered(number)).collect();
        } else {
            for (at, &all) in newest.iter().enumerate() {
                let (mut alone, mut missing, mut beginning) =
                    (vec![0; newest.len()], newest.clone(), newest.clone());
                alone[at] = all;
                missing[at] = 0;
                beginning[at..].fill(0);
                choices.extend([alone, missing, beginning]);
            }
            while choices.len() < limit {
                // Disks keep a little, half, or nearly all.
                let share = [0.1, 0.5, 0.9][random.below(3)];
                let version = |&all: &u32| {
                    if random.uniform() >= share {
                        0
                    } else if random.below(4) == 0 {
                        random.below(all as usize + 1) as u32
                    } else {
                        all
                    }
                };
                choices.push(newest.iter().map(version).collect());
            }
        }
        // The first two stay; of the others some are left out.
        while choices.len() > limit.max(2) {
            let out = 2 + random.below(choices.len() - 2);
            choices.swap_remove(out);
        }
        choices
    }

    fn numbered(&self, mut number: usize) -> Vec<u32> {
        let digit = |&(_, versions): &(Item, u32)| {
            let base = versions as usize + 1;
            let digit = number % base;
            number /= base;
            digit as u32
        };
        self.items.iter().map(digit).collect()
    }
}

impl Tree {
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes it into an empty folder.
    pub fn write(&self, folder: &Path) {
        for (path, bytes) in &self.0 {
            let path = folder.join(std::ffi::OsStr::from_bytes(path));
            match bytes {
                Some(bytes) => fs::write(path, &**bytes).unwrap(),
                None => fs::create_dir(path).unwrap(),
            }
        }
    }

    /// What is in a folder.
    pub fn read(folder: &Path) -> Self {
        fn add(tree: &mut Tree, root: &Path, folder: &Path) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                if entry.file_type().unwrap().is_dir() {
                    tree.0.insert(name, None);
                    add(tree, root, &path);
                } else {
                    tree.0.insert(name, Some(Arc::new(fs::read(path).unwrap())));
                }
            }
        }
        let mut tree = Self(BTreeMap::new());
        add(&mut tree, folder, folder);
        tree
    }

    /// The paths that differ.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let paths: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        paths
            .into_iter()
            .filter(|&path| self.0.get(path) != other.0.get(path))
            .map(|path| show(path))
            .collect()
    }

    /// Without the bytes of files that RocksDB writes for people.
    pub fn without_logs(mut self) -> Self {
        for (path, bytes) in &mut self.0 {
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap();
            if name == b"LOG" || name.starts_with(b"LOG.old") {
                *bytes = Some(Arc::default());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.as_bytes().into()
    }

    fn states(disk: &Disk) -> BTreeSet<String> {
        let unsynced = disk.unsynced();
        let mut random = Random(1);
        let show = |choice: Vec<u32>| {
            let tree = disk.after_cut(&unsynced, &choice);
            let file = |(path, bytes): (&Vec<u8>, &Option<Arc<Vec<u8>>>)| {
                let bytes = bytes.as_ref().map_or("folder".into(), |bytes| show(bytes));
                format!("{}={bytes}", super::show(path))
            };
            fn show(bytes: &[u8]) -> String {
                bytes.iter().map(|&byte| if byte == 0 { '0' } else { byte as char }).collect()
            }
            tree.0.iter().map(file).collect::<Vec<_>>().join(" ")
        };
        unsynced.choices(1000, &mut random).into_iter().map(show).collect()
    }

    /// Catches a model that is kinder than a disk: a name that a file's sync saves, a page that waits for the one
    /// before it, or half a rename.
    #[test]
    fn disk_after_a_cut_is_any_of_these() {
        let mut disk = Disk::new(&[], Model { page: 4, any_order: true });
        disk.apply(&Event::Create { inode: 2, folder: false, parent: ROOT, name: name("a") });
        disk.apply(&Event::Write { inode: 2, offset: 0, bytes: b"abcdef"[..].into() });
        disk.apply(&Event::Sync { inode: 2 });
        assert_eq!(states(&disk), BTreeSet::from(["".into(), "a=abcdef".into()]));
        disk.apply(&Event::Sync { inode: ROOT });
        assert_eq!(states(&disk), BTreeSet::from(["a=abcdef".into()]));
        disk.apply(&Event::Write { inode: 2, offset: 2, bytes: b"CDEFGH"[..].into() });
        let expected =
            ["a=abcdef", "a=abCDef", "a=abcdEF", "a=abCDEF", "a=abcdef00", "a=abCDef00", "a=abcdEFGH"];
        let expected: BTreeSet<String> = expected.into_iter().map(Into::into).collect();
        assert!(states(&disk).is_superset(&expected), "{:?}", states(&disk));
        assert_eq!(states(&disk).len(), 8);
        disk.apply(&Event::Sync { inode: 2 });
        disk.apply(&Event::Rename { parent: ROOT, from: name("a"), to: name("b") });
        assert_eq!(states(&disk), BTreeSet::from(["a=abCDEFGH".into(), "b=abCDEFGH".into()]));
        disk.apply(&Event::Unlink { parent: ROOT, name: name("b") });
        assert_eq!(states(&disk), BTreeSet::from(["".into(), "a=abCDEFGH".into(), "b=abCDEFGH".into()]));
        disk.apply(&Event::Sync { inode: ROOT });
        assert_eq!(states(&disk), BTreeSet::from(["".into()]));
    }

    /// Catches a file that is longer than its writes, or keeps what was cut off.
    #[test]
    fn truncated_file_is_old_new_or_cut() {
        let mut disk = Disk::new(&[], Model { page: 4, any_order: true });
        disk.apply(&Event::Create { inode: 2, folder: false, parent: ROOT, name: name("a") });
        disk.apply(&Event::Write { inode: 2, offset: 0, bytes: b"abcdef"[..].into() });
        disk.apply(&Event::Sync { inode: 2 });
        disk.apply(&Event::Sync { inode: ROOT });
        disk.apply(&Event::Truncate { inode: 2, length: 0 });
        disk.apply(&Event::Write { inode: 2, offset: 0, bytes: b"XY"[..].into() });
        let found = states(&disk);
        assert!(found.contains("a=abcdef") && found.contains("a=") && found.contains("a=XY"), "{found:?}");
        assert!(!found.contains("a=XYcd"), "{found:?}");
        disk.apply(&Event::Sync { inode: 2 });
        assert_eq!(states(&disk), BTreeSet::from(["a=XY".into()]));
    }

    /// Catches a model in which a second sync saves what the first one failed to.
    #[test]
    fn failed_sync_loses_its_pages_for_good() {
        let mut disk = Disk::new(&[], Model { page: 4, any_order: true });
        disk.apply(&Event::Create { inode: 2, folder: false, parent: ROOT, name: name("a") });
        disk.apply(&Event::Sync { inode: ROOT });
        disk.apply(&Event::Write { inode: 2, offset: 0, bytes: b"abcd"[..].into() });
        disk.apply(&Event::FailedSync { inode: 2 });
        disk.apply(&Event::Write { inode: 2, offset: 4, bytes: b"efgh"[..].into() });
        disk.apply(&Event::Sync { inode: 2 });
        assert_eq!(states(&disk), BTreeSet::from(["a=0000efgh".into()]));
    }
}
