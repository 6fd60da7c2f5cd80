//! An index whose segment files a test can change at will, and what must then be seen.

use std::sync::Arc;

use gradix::segment::storage::{MemoryStorage, Storage as _};
use gradix::sketch::SketchSpec;
use gradix::{Encoding, Example, Finding, Index, Row, Schema, Span, Tier};

use crate::fixtures::sketches::sketch_of;
use crate::fixtures::{indexes, told};

/// Two committed segments of all encodings, columns and tiers.
pub struct Bench {
    _folder: tempfile::TempDir,
    pub index: Index,
    storage: Arc<MemoryStorage>,
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

impl Bench {
    pub fn new() -> Self {
        let blocks = [("a", 20, Encoding::F32), ("b", 24, Encoding::F16), ("c", 40, Encoding::I8)];
        assert!(Encoding::ALL.iter().all(|wanted| blocks.iter().any(|(_, _, encoding)| encoding == wanted)));
        Self::with(&blocks, &[Tier::Sign { seed: 7 }, Tier::I8], ROWS)
    }

    pub fn with(blocks: &[(&str, u32, Encoding)], tiers: &[Tier], rows: usize) -> Self {
        let spec = SketchSpec::dense("test", "v1", blocks.iter().map(|block| (block.0, block.1)));
        let encodings = blocks.iter().map(|block| block.2).collect();
        let schema = Schema::with_encodings(spec.clone(), encodings).unwrap();
        let schema = schema.with_tiers(tiers.iter().copied()).unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let options = Index::options().storage(Arc::<MemoryStorage>::clone(&storage));
        let (folder, index) = indexes::create_with(options, &schema);
        let mut writer = index.writer().unwrap();
        let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
        let mut examples = Vec::new();
        for segment in 0..2usize {
            for i in 0..rows / 2 {
                let sketches = [0, 1].map(|k| sketch_of(&spec, (segment * 1000 + i * 2 + k) as u64));
                let metadata = format!("metadata of {i} in segment {segment}, compressible, compressible");
                let sources = ["wiki", "news", "books"];
                let tag = |row| Row::new(row).source(sources[i % 3]).metadata(metadata.as_bytes());
                let rows = [tag(&sketches[0]).span(Span::tokens(0, 5)), tag(&sketches[1])];
                writer.append_rows(format!("example {segment}-{i}"), &rows).unwrap();
            }
            writer.commit().unwrap();
            let mut names = storage.list().unwrap();
            names.retain(|name| !segments.iter().any(|(known, _)| known == name));
            let file = storage.open(&names[0]).unwrap();
            segments.push((names.remove(0), file.mapped(0..file.len()).unwrap().to_vec()));
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

    /// What findings call the first segment.
    pub fn file(&self) -> String {
        self.storage.describe(&self.segments[0].0)
    }

    /// Other bytes for a segment, behind the engine's back.
    pub fn set(&self, segment: usize, bytes: &[u8]) {
        let name = &self.segments[segment].0;
        self.storage.remove(name).unwrap();
        let mut file = self.storage.create(name).unwrap();
        file.write(bytes).unwrap();
        file.sync().unwrap();
    }

    pub fn mend(&self) {
        for (segment, (_, bytes)) in self.segments.iter().enumerate() {
            self.set(segment, bytes);
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
    pub fn assert_seen(&self, bytes: &[u8], what: &str) -> Seen {
        self.set(0, bytes);
        let seen = self.see();
        assert!(!seen.findings.is_empty(), "{what}: verification found nothing; {:?}", seen.errors);
        let name = self.segments[0].0.trim_end_matches(".seg");
        for error in &seen.errors {
            assert!(error.contains(name), "{what}: {error} does not name {name}");
        }
        for finding in &seen.findings {
            assert_eq!(finding.file, self.file(), "{what}: {finding:?}");
        }
        seen
    }

    /// As above, and some message must contain `expected`.
    pub fn assert_refused(&self, bytes: &[u8], what: &str, expected: &str) {
        let seen = self.assert_seen(bytes, what);
        assert!(seen.all().contains(expected), "{what}: no {expected:?} in\n{}", seen.all());
    }
}
