//! An index whose segment files a test can change at will, and what must then be seen.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use gradix::segment::storage::{Storage, StorageBytes, StorageFile};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Example, Finding, Index, Row, Schema, Span, Tier};

type Files = Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>;

/// Files in memory that a test can replace behind the engine's back.
#[derive(Debug, Clone, Default)]
pub struct OpenStorage(Files);

struct OpenFile {
    name: String,
    bytes: Vec<u8>,
    files: Files,
}

#[derive(Debug)]
struct Bytes(Arc<Vec<u8>>);

impl Storage for OpenStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenFile { name: name.into(), bytes: Vec::new(), files: Arc::clone(&self.0) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageBytes>> {
        let files = self.0.lock().unwrap();
        let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Bytes(Arc::clone(bytes))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
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
        self.files.lock().unwrap().insert(self.name.clone(), Arc::new(std::mem::take(&mut self.bytes)));
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

/// Two committed segments of all encodings, columns and tiers.
pub struct Bench {
    _folder: tempfile::TempDir,
    pub index: Index,
    storage: OpenStorage,
    /// The name and the sound bytes of each segment.
    pub segments: Vec<(String, Vec<u8>)>,
    /// What is in it.
    examples: Vec<(usize, Example)>,
}

pub const ROWS: usize = 40;

/// What was seen of a changed file.
#[derive(Debug)]
pub struct Seen {
    /// The error of the snapshot, or of a get, if there was one.
    pub errors: Vec<String>,
    pub findings: Vec<Finding>,
}

impl Seen {
    pub fn all(&self) -> String {
        let findings = self.findings.iter().map(|finding| &finding.message);
        self.errors.iter().chain(findings).cloned().collect::<Vec<_>>().join("\n")
    }
}

fn told(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}

impl Bench {
    pub fn new() -> Self {
        let blocks = [("a", 20, Encoding::F32), ("b", 24, Encoding::F16), ("c", 40, Encoding::I8)];
        Self::with(&blocks, &[Tier::Sign { seed: 7 }, Tier::I8], ROWS)
    }

    pub fn with(blocks: &[(&str, u32, Encoding)], tiers: &[Tier], rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec = SketchSpec::dense("test", "v1", blocks.iter().map(|block| (block.0, block.1)));
        let encodings = blocks.iter().map(|block| block.2).collect();
        let schema = Schema::with_encodings(spec.clone(), encodings).unwrap();
        let schema = schema.with_tiers(tiers.iter().copied()).unwrap();
        let storage = OpenStorage::default();
        let options = Index::options().storage(Arc::new(storage.clone()));
        let index = options.create(folder.path().join("x.gradix"), &schema).unwrap();
        let mut writer = index.writer().unwrap();
        let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
        let mut examples = Vec::new();
        for segment in 0..2usize {
            for i in 0..rows / 2 {
                let values = |k: usize| {
                    (0..spec.dims())
                        .map(move |d| ((segment * 977 + i * 31 + d * 7 + k) % 101) as f32 / 8.0 - 6.0)
                };
                let sketches = [0, 1].map(|k| Sketch::dense(spec.clone(), values(k).collect()).unwrap());
                let metadata = format!("metadata of {i} in segment {segment}, compressible, compressible");
                let sources = ["wiki", "news", "books"];
                let tag = |row| Row::new(row).source(sources[i % 3]).metadata(metadata.as_bytes());
                let rows = [tag(&sketches[0]).span(Span::tokens(0, 5)), tag(&sketches[1])];
                writer.append_rows(format!("example {segment}-{i}"), &rows).unwrap();
            }
            writer.commit().unwrap();
            let new = storage.0.lock().unwrap();
            let known: Vec<&String> = segments.iter().map(|(name, _)| name).collect();
            let (name, bytes) = new.iter().find(|(name, _)| !known.contains(name)).unwrap();
            let (name, bytes) = (name.clone(), bytes.to_vec());
            segments.push((name, bytes));
        }
        let snapshot = index.snapshot().unwrap();
        for segment in 0..2 {
            for i in 0..rows / 2 {
                let example = snapshot.get(format!("example {segment}-{i}")).unwrap().unwrap();
                examples.push((segment, example));
            }
        }
        drop(snapshot);
        drop(writer);
        let bench = Self { _folder: folder, index, storage, segments, examples };
        assert!(bench.see().all().is_empty());
        bench
    }

    pub fn sound(&self) -> &[u8] {
        &self.segments[0].1
    }

    pub fn set(&self, segment: usize, bytes: Vec<u8>) {
        let mut files = self.storage.0.lock().unwrap();
        files.insert(self.segments[segment].0.clone(), Arc::new(bytes));
    }

    pub fn mend(&self) {
        for (segment, (_, bytes)) in self.segments.iter().enumerate() {
            self.set(segment, bytes.clone());
        }
    }

    /// Reads everything. An example that comes back must be what was stored.
    pub fn see(&self) -> Seen {
        let mut errors = Vec::new();
        match self.index.snapshot() {
            Err(error) => errors.push(told(&error)),
            Ok(snapshot) => {
                for (_, example) in &self.examples {
                    match snapshot.get(&example.id) {
                        Ok(Some(found)) if found == *example => {}
                        Ok(found) => panic!("wrong in silence: {found:?} for {example:?}"),
                        Err(error) => errors.push(told(&error)),
                    }
                }
            }
        }
        let findings = match self.index.verify() {
            Ok(report) => report.findings,
            Err(error) => panic!("verify failed instead of reporting: {}", told(&error)),
        };
        Seen { errors, findings }
    }

    /// Damage to the first segment must be seen by a read or by verification, with its file.
    pub fn assert_seen(&self, bytes: Vec<u8>, what: &str) -> Seen {
        self.set(0, bytes);
        let seen = self.see();
        assert!(!seen.findings.is_empty(), "{what}: verification found nothing; {:?}", seen.errors);
        let name = &self.segments[0].0;
        for error in &seen.errors {
            assert!(error.contains(name.trim_end_matches(".seg")), "{what}: {error} does not name {name}");
        }
        for finding in &seen.findings {
            assert_eq!(&finding.file, name, "{what}: {finding:?}");
        }
        seen
    }

    /// As above, and some message must contain `expected`.
    pub fn assert_refused(&self, bytes: Vec<u8>, what: &str, expected: &str) {
        let seen = self.assert_seen(bytes, what);
        assert!(seen.all().contains(expected), "{what}: no {expected:?} in\n{}", seen.all());
    }
}
