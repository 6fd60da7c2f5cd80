//! Iterates over the ids of a snapshot, read from the manifest in byte order.

use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

use super::error::GetError;
use super::snapshot::Snapshot;

/// Ids are read from the manifest in pages: the maximum number of ids in a page,
const PAGE_IDS: usize = 1024;
/// and the number of bytes at which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// Iterator over the ids of a snapshot, each once, in byte order. Made by [`Snapshot::ids`],
/// [`Snapshot::ids_with_prefix`] and [`Snapshot::ids_in`].
///
/// An item is an error if the manifest cannot be read, or if another process has collected the snapshot's
/// generation. Iteration ends after an error.
///
/// Memory: one page of at most 1024 ids or about 256 KiB.
#[derive(Debug, Clone)]
#[must_use = "iterators do nothing until they are consumed"]
pub struct Ids {
    snapshot: Snapshot,
    page: std::vec::IntoIter<Vec<u8>>,
    /// The lower bound of the next page; `None` after the last page.
    next: Option<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl Ids {
    fn new(snapshot: Snapshot, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) -> Self {
        let first = match start {
            Bound::Included(id) => id,
            Bound::Excluded(id) => successor(id),
            Bound::Unbounded => Vec::new(),
        };
        Self { snapshot, page: Vec::new().into_iter(), next: Some(first), end }
    }

    /// Reads the page that begins with `first`.
    ///
    /// No RocksDB iterator outlives this call, since it would keep a writer of this process from closing.
    /// The pages are still consistent, since each is read as of the snapshot's generation.
    fn read_page(&mut self, first: &[u8]) -> Result<(), GetError> {
        let generation = self.snapshot.generation();
        let manifest = self.snapshot.manifest()?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        manifest.for_each_example_from(first, |id, history| {
            let within = match &self.end {
                Bound::Included(end) => id <= &end[..],
                Bound::Excluded(end) => id < &end[..],
                Bound::Unbounded => true,
            };
            if !within {
                return Ok(false);
            }
            if page.len() == PAGE_IDS || bytes >= PAGE_BYTES {
                self.next = Some(id.to_vec());
                return Ok(false);
            }
            if history.at(generation).is_some() {
                bytes += id.len();
                page.push(id.to_vec());
            }
            Ok(true)
        })?;
        // Checked last: ids that were collected meanwhile may be missing from the page.
        let oldest = manifest.state()?.oldest;
        if oldest > generation {
            return Err(GetError::Expired { generation, oldest });
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Ids {
    type Item = Result<Vec<u8>, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(id) = self.page.next() {
                return Some(Ok(id));
            }
            let first = self.next.take()?;
            if let Err(error) = self.read_page(&first) {
                self.next = None;
                return Some(Err(error));
            }
        }
    }
}

impl FusedIterator for Ids {}

/// The least id greater than `id`.
fn successor(mut id: Vec<u8>) -> Vec<u8> {
    id.push(0);
    id
}

/// The end of the range of ids with `prefix`: the least id greater than all of them.
fn end_of_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

impl Snapshot {
    /// All ids, in byte order. Reads the manifest only.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # for id in ["news/2", "wiki/1", "news/1"] {
    /// #     writer.append(id, &Sketch::dense(spec.clone(), vec![1.0])?)?;
    /// # }
    /// # writer.commit()?;
    /// let snapshot = index.snapshot()?;
    /// let ids = snapshot.ids().collect::<gradix::Result<Vec<_>, _>>()?;
    /// assert_eq!(ids, [b"news/1", b"news/2", b"wiki/1"]);
    /// assert_eq!(snapshot.ids_with_prefix("news/").count(), 2);
    /// assert_eq!(snapshot.ids_in("news/2"..).count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ids(&self) -> Ids {
        Ids::new(self.clone(), Bound::Unbounded, Bound::Unbounded)
    }

    /// The ids that begin with `prefix`, in byte order. All ids begin with the empty prefix.
    pub fn ids_with_prefix(&self, prefix: impl AsRef<[u8]>) -> Ids {
        let prefix = prefix.as_ref();
        Ids::new(self.clone(), Bound::Included(prefix.to_vec()), end_of_prefix(prefix))
    }

    /// The ids within a range, in byte order. A range that ends before it starts is empty.
    pub fn ids_in<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Ids {
        let owned = |bound: Bound<&K>| bound.map(|id| id.as_ref().to_vec());
        Ids::new(self.clone(), owned(range.start_bound()), owned(range.end_bound()))
    }
}
