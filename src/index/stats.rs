//! Counts and sizes of a generation.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::error::SnapshotError;
use super::snapshot::Snapshot;
use crate::curvature::Covered;
use crate::segment::Column;

/// Counts and sizes of one generation. `Serialize` with the feature `serde`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The generation.
    pub generation: u64,
    /// Live rows.
    pub rows: u64,
    /// Rows that are deleted but not yet compacted.
    pub dead_rows: u64,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Bytes of each column over all segments, including padding, in file order.
    pub columns: Vec<ColumnStats>,
    /// Each artifact, by name.
    pub artifacts: Vec<ArtifactStats>,
    /// Each segment, in the order of appending.
    pub segments: Vec<SegmentStats>,
}

/// An artifact: what was fitted, and of which rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArtifactStats {
    /// Its name: that of a curvature, with `/self-influence` behind it for the self-influence of the rows.
    pub name: String,
    /// Its UUID, in text form.
    pub artifact: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Which rows of this generation it covers.
    pub covered: Covered,
}

/// The size of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ColumnStats {
    /// Its kind: `codes`, `scales`, `norms`, `ids`, `spans`, `sources`, `metadata`, `factors`,
    /// `source names`.
    pub name: String,
    /// The tier's name, for the `codes` and `factors` of a tier.
    pub tier: Option<String>,
    /// The block's name, for `codes`.
    pub block: Option<String>,
    /// Bytes, including padding.
    pub bytes: u64,
}

/// Counts and sizes of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its UUID, in text form.
    pub segment: String,
    /// Rows, including dead ones.
    pub rows: u64,
    /// Dead rows.
    pub dead_rows: u64,
    /// Examples that were appended to it.
    pub examples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Row groups.
    pub row_groups: u64,
    /// The generation that added it.
    pub added: u64,
}

impl Snapshot {
    /// Counts and sizes of this generation. Reads no rows.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn stats(&self) -> Result<Stats, SnapshotError> {
        let mut columns: BTreeMap<(usize, Column), u64> = BTreeMap::new();
        let mut segments = Vec::new();
        for (live, record) in self.segments().iter().zip(self.records()) {
            let mut order = BTreeMap::new();
            for (column, bytes) in live.reader.column_bytes() {
                let next = order.len();
                let place = *order.entry(column).or_insert(next);
                *columns.entry((place, column)).or_insert(0) += bytes;
            }
            segments.push(SegmentStats {
                segment: Uuid::to_string(&live.reader.segment()),
                rows: record.rows,
                dead_rows: live.dead.len(),
                examples: record.examples,
                bytes: record.bytes,
                row_groups: live.reader.groups().len() as u64,
                added: record.added,
            });
        }
        let blocks = self.schema().spec().blocks();
        let columns = columns.into_iter().map(|((_, column), bytes)| ColumnStats {
            name: column.name.to_owned(),
            tier: column.tier.map(str::to_owned),
            block: column.block.and_then(|block| blocks.get(block)).map(|block| block.name.clone()),
            bytes,
        });
        let mut artifacts = Vec::new();
        for (name, record) in self.artifacts()? {
            let covered = self.covered(&name, &record)?;
            if let Some(file) = record.file {
                let artifact = file.artifact().to_string();
                artifacts.push(ArtifactStats { name, artifact, bytes: file.bytes, covered });
            }
        }
        Ok(Stats {
            generation: self.generation(),
            rows: self.rows(),
            dead_rows: segments.iter().map(|segment| segment.dead_rows).sum(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            columns: columns.collect(),
            artifacts,
            segments,
        })
    }
}
