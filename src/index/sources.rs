//! Counts the rows and examples of each source.

use std::collections::BTreeMap;

use super::error::GetError;
use super::snapshot::Snapshot;
use crate::segment::{LiveSegment, SegmentError};

/// The rows and examples of a snapshot that have one source label, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SourceCount {
    /// The label; `None` for the rows without one.
    pub source: Option<String>,
    /// Live rows.
    pub rows: u64,
    /// Examples with at least one such row. An example whose rows have several labels counts for each label.
    pub examples: u64,
}

/// Rows, and the examples that they belong to.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    rows: u64,
    examples: u64,
}

impl Snapshot {
    /// Counts the live rows and examples of each source: first those without a label, then in the order of
    /// the labels. Reads the ids and sources of all rows, and no codes.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Row, Schema, sketch::{Sketch, SketchSpec}};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 1)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// # let sketch = Sketch::dense(spec, vec![1.0])?;
    /// writer.append_rows("a", &[Row::new(&sketch).source("wiki"), Row::new(&sketch).source("wiki")])?;
    /// writer.append("b", &sketch)?;
    /// writer.commit()?;
    /// let sources = index.snapshot()?.sources()?;
    /// assert_eq!((&sources[0].source, sources[0].rows, sources[0].examples), (&None, 1, 1));
    /// assert_eq!((sources[1].source.as_deref(), sources[1].rows, sources[1].examples), (Some("wiki"), 2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A segment cannot be read or is damaged.
    pub fn sources(&self) -> Result<Vec<SourceCount>, GetError> {
        let mut all: BTreeMap<Option<&str>, Count> = BTreeMap::new();
        for segment in self.segments() {
            let names = segment.reader.source_names().iter().map(Some);
            for (name, found) in names.chain([None]).zip(count(segment)?) {
                if found.rows > 0 {
                    let count = all.entry(name).or_default();
                    count.rows += found.rows;
                    count.examples += found.examples;
                }
            }
        }
        let counted = all.into_iter().map(|(source, Count { rows, examples })| SourceCount {
            source: source.map(str::to_owned),
            rows,
            examples,
        });
        Ok(counted.collect())
    }
}

/// For each source name of a segment, and last for no source.
fn count(segment: &LiveSegment) -> Result<Vec<Count>, SegmentError> {
    let reader = &segment.reader;
    let none = reader.source_names().len();
    let mut counts = vec![Count::default(); none + 1];
    // The number of the example in which each source occurred last. The rows of an example are adjacent
    // in one row group.
    let (mut examples, mut last_example) = (0u64, vec![0u64; none + 1]);
    for (ordinal, group) in reader.groups().iter().enumerate() {
        let mut alive = group.range().filter(|row| !segment.dead.contains(*row)).peekable();
        if alive.peek().is_none() {
            continue;
        }
        let (ids, sources) = (reader.ids(ordinal)?, reader.sources(ordinal)?);
        let mut before = None;
        for row in alive.map(|row| (row - group.first_row) as usize) {
            let id = Some(ids.get(row));
            if id != before {
                (examples, before) = (examples + 1, id);
            }
            // An ordinal past the last name means no source.
            let source = (sources[row] as usize).min(none);
            counts[source].rows += 1;
            if last_example[source] != examples {
                (counts[source].examples, last_example[source]) = (counts[source].examples + 1, examples);
            }
        }
    }
    Ok(counts)
}
