//! What the fuzz targets share: an index over a storage whose one segment can be replaced, and
//! checksums made right again, so that mutations reach what lies behind them.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use gradix::segment::storage::{Storage, StorageBytes, StorageFile};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Row, Schema, Span, Tier, Writer};

#[path = "../../tests/damage/craft.rs"]
pub mod craft;

const PAGE: usize = 4096;
const CHUNK: usize = 65_536;
const TAIL: usize = 64;

type Files = Arc<Mutex<HashMap<String, Arc<Vec<u8>>>>>;

#[derive(Debug, Clone, Default)]
struct OpenStorage(Files);

struct OpenFile {
    name: String,
    bytes: Vec<u8>,
    storage: OpenStorage,
}

#[derive(Debug)]
struct Bytes(Arc<Vec<u8>>);

impl OpenStorage {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Arc<Vec<u8>>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for OpenStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenFile { name: name.into(), bytes: Vec::new(), storage: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let bytes = self.with(|files| files.get(name).cloned());
        Ok(Arc::new(Bytes(bytes.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl StorageFile for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let bytes = Arc::new(std::mem::take(&mut self.bytes));
        self.storage.with(|files| files.insert(self.name.clone(), bytes));
        Ok(())
    }
}

impl StorageBytes for Bytes {
    fn len(&self) -> u64 {
        StorageBytes::len(&*self.0)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn mapped(&self, range: Range<u64>) -> Option<&[u8]> {
        self.0.mapped(range)
    }
}

/// A folder for indexes. One that lives as long as the process stays behind; `scripts/fuzz.sh` says where
/// they are made, and removes them.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gradix-fuzz-").tempdir().unwrap()
}

/// An index with one segment of all encodings, columns and tiers.
pub struct Bench {
    _folder: tempfile::TempDir,
    /// Kept open, so that the manifest is read from memory.
    _writer: Mutex<Writer>,
    pub index: Index,
    storage: OpenStorage,
    name: String,
    pub sound: Vec<u8>,
    pub ids: Vec<String>,
    pub query: Sketch,
}

impl Bench {
    pub fn new() -> Self {
        let folder = folder();
        let spec = SketchSpec::dense("fuzz", "v1", [("a", 3), ("b", 20), ("c", 5)]);
        // A block of each.
        let schema = Schema::with_encodings(spec.clone(), Encoding::ALL.to_vec()).unwrap();
        let schema = schema.with_tiers([Tier::Sign { seed: 7 }, Tier::I8]).unwrap();
        let storage = OpenStorage::default();
        let options = Index::options().storage(Arc::new(storage.clone()));
        let index = options.create(folder.path().join("x.gradix"), &schema).unwrap();
        let mut writer = index.writer().unwrap();
        let sketch = |i: usize| {
            Sketch::dense(spec.clone(), (0..28).map(|d| (i * 5 + d) as f32 / 4.0 - 3.0).collect()).unwrap()
        };
        let mut ids = Vec::new();
        for i in 0..6 {
            let sketches = [sketch(i), sketch(i + 9)];
            let rows = sketches.each_ref().map(|sketch| {
                Row::new(sketch)
                    .span(Span::tokens(1, 4))
                    .source(["x", "y"][i % 2])
                    .metadata(b"metadata metadata")
            });
            ids.push(format!("example {i}"));
            writer.append_rows(&ids[i], &rows[..1 + i % 2]).unwrap();
        }
        writer.delete(&ids[5]).unwrap();
        writer.commit().unwrap();
        let (name, sound) = storage.with(|files| {
            let (name, bytes) = files.iter().next().unwrap();
            (name.clone(), bytes.to_vec())
        });
        let query = sketch(3);
        Self { _folder: folder, _writer: Mutex::new(writer), index, storage, name, sound, ids, query }
    }

    pub fn set(&self, bytes: Vec<u8>) {
        self.storage.with(|files| files.insert(self.name.clone(), Arc::new(bytes)));
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// Makes magics and checksums of a segment right again, as far as its tables can be followed.
pub fn mend_segment(bytes: &mut [u8], sound: &[u8]) {
    if bytes.len() < 2 * PAGE + TAIL {
        return;
    }
    put(bytes, 0, &sound[..8]);
    put(bytes, 40, &sound[40..116]);
    let crc = crc32fast::hash(&bytes[..124]).to_le_bytes();
    put(bytes, 124, &crc);
    let tail = bytes.len() - TAIL;
    put(bytes, tail + 24, &sound[56..72]);
    put(bytes, tail + 56, &sound[sound.len() - 8..]);
    if let Some(start) = usize_at(bytes, tail).filter(|&start| start < tail) {
        put(bytes, tail + 8, &((tail - start) as u64).to_le_bytes());
        mend_chunks(bytes, start, tail);
        let crc = crc32fast::hash(&bytes[start..tail]).to_le_bytes();
        put(bytes, tail + 16, &crc);
    }
    let crc = crc32fast::hash(&bytes[tail..tail + 52]).to_le_bytes();
    put(bytes, tail + 52, &crc);
}

fn mend_chunks(bytes: &mut [u8], start: usize, tail: usize) -> Option<()> {
    let groups = u32_at(bytes, start + 8)? as usize;
    let regions = u32_at(bytes, start + 16)? as usize;
    let table = start + 32 + 8 * groups;
    let mut checksum = table + 64 * regions;
    for ordinal in 0..regions {
        let entry = table + 64 * ordinal;
        let offset = usize_at(bytes, entry + 24)?;
        let end = offset.checked_add(usize_at(bytes, entry + 32)?)?;
        for (chunk, from) in (offset..end).step_by(CHUNK).enumerate() {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&bytes[56..72]);
            hasher.update(&u32::try_from(ordinal).ok()?.to_le_bytes());
            hasher.update(&(chunk as u64).to_le_bytes());
            hasher.update(bytes.get(from..end.min(from + CHUNK))?);
            if checksum + 4 > tail {
                return None;
            }
            put(bytes, checksum, &hasher.finalize().to_le_bytes());
            checksum += 4;
        }
    }
    Some(())
}
