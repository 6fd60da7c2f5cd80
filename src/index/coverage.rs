//! Which rows an artifact covers, and what a compaction does to it.

use roaring::RoaringBitmap;
use uuid::Uuid;

use super::error::MaintenanceError;
use super::writer::Writer;
use crate::curvature::Covered;
use crate::manifest::{ArtifactRecord, Coverage, Manifest, ManifestError, SELF_INFLUENCE};
use crate::segment::LiveSegment;

/// How the rows of a snapshot's segments and the covered rows meet; `gone` are covered rows that no segment has any
/// more.
pub(super) fn covered(coverage: &Coverage, segments: &[LiveSegment], gone: u64) -> Covered {
    let (mut rows, mut uncovered, mut dead, mut known) = (0, 0, 0, 0);
    for segment in segments {
        let live = u64::from(segment.reader.rows()) - segment.dead.len();
        let Some(covered) = coverage.get(&segment.reader.segment()) else {
            uncovered += live;
            continue;
        };
        let covered_dead = covered.intersection_len(&segment.dead);
        rows += covered.len() - covered_dead;
        uncovered += live.saturating_sub(covered.len() - covered_dead);
        dead += covered_dead;
        known += covered.len();
    }
    // Of segments that the snapshot does not have.
    let elsewhere = coverage.values().map(RoaringBitmap::len).sum::<u64>() - known;
    Covered { rows, uncovered, stale: gone + dead + elsewhere }
}

/// The coverage of all artifacts, while a compaction moves rows.
pub(super) struct Carried {
    artifacts: Vec<Carry>,
}

struct Carry {
    name: String,
    record: ArtifactRecord,
    /// The rows of the segments that are compacted.
    before: Coverage,
    /// The rows of the others, and those that have moved.
    after: Coverage,
    moved: u64,
}

impl Carried {
    /// For the compaction of `segments`.
    pub fn new(
        manifest: &Manifest,
        generation: u64,
        segments: &[&LiveSegment],
    ) -> Result<Self, ManifestError> {
        let mut artifacts = Vec::new();
        for (name, record) in manifest.artifacts_at(generation)? {
            let mut after = manifest.coverage(&name, &record)?;
            let taken = |segment: &&LiveSegment| after.remove_entry(&segment.reader.segment());
            let before: Coverage = segments.iter().filter_map(taken).collect();
            if !before.is_empty() {
                artifacts.push(Carry { name, record, before, after, moved: 0 });
            }
        }
        Ok(Self { artifacts })
    }

    /// A live row has moved.
    pub fn moved(&mut self, from: Uuid, row: u32, to: Uuid, new_row: u32) {
        for artifact in &mut self.artifacts {
            // Its numbers are listed by segment; those of a new segment are computed again.
            if artifact.record.kind == SELF_INFLUENCE {
                continue;
            }
            if artifact.before.get(&from).is_some_and(|rows| rows.contains(row)) {
                artifact.after.entry(to).or_default().insert(new_row);
                artifact.moved += 1;
            }
        }
    }

    /// What the artifacts become when the segments are replaced.
    pub fn finish(self, writer: &mut Writer) -> Result<(), MaintenanceError> {
        for Carry { name, record, before, after, moved } in self.artifacts {
            let Some(file) = record.file else { continue };
            let all: u64 = before.values().map(RoaringBitmap::len).sum();
            let gone = if record.kind == SELF_INFLUENCE { 0 } else { record.gone + (all - moved) };
            let record = ArtifactRecord::new(file, record.kind, gone, &after)
                .map_err(|source| writer.manifest.unencodable(source))?;
            writer.artifacts.push((name, record));
        }
        Ok(())
    }
}
