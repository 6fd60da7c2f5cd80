//! Copies what lives into fewer segments.

use uuid::Uuid;

use super::error::MaintenanceError;
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::codec::Factors;
use crate::schema::Schema;
use crate::segment::{
    Codes, EncodedRow, EncodedTier, LiveSegment, NO_SOURCE, RowTags, SegmentError, SegmentReader,
};

/// Which segments to compact.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct CompactOptions {
    dead: f64,
    small: f64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { dead: 0.2, small: 0.5 }
    }
}

impl CompactOptions {
    /// Every segment.
    pub fn all() -> Self {
        Self { dead: 0.0, small: f64::INFINITY }
    }

    /// Segments of whose rows at least this fraction is dead; 0.2 unless given.
    pub fn dead_fraction(mut self, fraction: f64) -> Self {
        self.dead = fraction;
        self
    }

    /// And segments smaller than this fraction of the index's segment size, if there are at least
    /// two of them; 0.5 unless given.
    pub fn small_fraction(mut self, fraction: f64) -> Self {
        self.small = fraction;
        self
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Compaction {
    /// Segments that were read.
    pub segments_removed: u64,
    /// Segments that were written in their place.
    pub segments_added: u64,
    /// Rows that were copied.
    pub rows_copied: u64,
    /// Dead rows that were left behind.
    pub rows_dropped: u64,
}

impl Writer {
    /// Copies the living rows of old segments into new ones, codes verbatim, and publishes each
    /// batch of about one new segment as a generation of its own. The old files stay for the
    /// snapshots that see them, until [`Writer::gc`].
    ///
    /// # Errors
    /// There are uncommitted changes; or storage or manifest fail, after which what was published
    /// stands and the rest is as before.
    pub fn compact(&mut self, options: CompactOptions) -> Result<Compaction, MaintenanceError> {
        if self.poisoned {
            return Err(MaintenanceError::Poisoned);
        }
        if !self.pending.is_empty() {
            return Err(MaintenanceError::Uncommitted);
        }
        let snapshot = Snapshot::take(&self.shared, None)?;
        let limit = self.shared.segment_bytes;
        let mut done = Compaction::default();
        let mut inputs: Vec<&LiveSegment> = Vec::new();
        let mut bytes = 0;
        for segment in choose(&snapshot, options, limit) {
            let share = u128::from(living(segment)) * u128::from(segment.reader.bytes());
            let alive = u64::try_from(share / u128::from(segment.reader.rows().max(1))).unwrap_or(u64::MAX);
            if !inputs.is_empty() && bytes + alive > limit {
                self.compact_into_one(&snapshot, &inputs, &mut done)?;
                inputs.clear();
                bytes = 0;
            }
            inputs.push(segment);
            bytes += alive;
        }
        if !inputs.is_empty() {
            self.compact_into_one(&snapshot, &inputs, &mut done)?;
        }
        Ok(done)
    }

    fn compact_into_one(
        &mut self,
        snapshot: &Snapshot,
        inputs: &[&LiveSegment],
        done: &mut Compaction,
    ) -> Result<(), MaintenanceError> {
        let copied = inputs.iter().try_for_each(|segment| self.copy(snapshot.schema(), segment, done));
        if let Err(error) = copied {
            // The copies are of no use; the originals are untouched.
            if !self.poisoned {
                self.abort()?;
            }
            return Err(error);
        }
        self.seal()?;
        done.segments_added += self.sealed.len() as u64;
        done.segments_removed += inputs.len() as u64;
        let removed: Vec<Uuid> = inputs.iter().map(|segment| segment.reader.segment()).collect();
        self.publish(Vec::new(), &removed)?;
        Ok(())
    }

    fn copy(
        &mut self,
        schema: &Schema,
        segment: &LiveSegment,
        done: &mut Compaction,
    ) -> Result<(), MaintenanceError> {
        let reader = &segment.reader;
        reader.check_copyable()?;
        for (ordinal, group) in reader.groups().iter().enumerate() {
            let (ids, metadata) = (reader.ids(ordinal)?, reader.metadata(ordinal)?);
            let (spans, sources) = (reader.spans(ordinal)?, reader.sources(ordinal)?);
            let columns = Columns::read(reader, schema, ordinal)?;
            let mut row = 0;
            while row < ids.len() {
                let id = ids.get(row);
                let same = (row..ids.len()).take_while(|&next| ids.get(next) == id).count();
                let rows = row..row + same;
                row = rows.end;
                // An id can stand here twice, if it was deleted and appended again: deletes take
                // whole runs, so the living rows are one example's.
                let alive: Vec<usize> =
                    rows.filter(|&row| !segment.dead.contains(group.first_row + to_u32(row))).collect();
                done.rows_dropped += (same - alive.len()) as u64;
                if alive.is_empty() {
                    continue;
                }
                let encoded: Vec<EncodedRow> = alive.iter().map(|&row| columns.row(row)).collect();
                let tags = alive.iter().map(|&row| RowTags {
                    span: spans[row],
                    source: match sources[row] {
                        NO_SOURCE => None,
                        source => reader.source_names().get(source as usize).map(String::as_str),
                    },
                    metadata: metadata.get(row),
                });
                let location = self.write(id, encoded.iter().zip(tags))?;
                self.pending.relocate(id, location);
                done.rows_copied += alive.len() as u64;
            }
        }
        Ok(())
    }
}

/// The numeric columns of a row group.
pub(super) struct Columns<'a> {
    codes: Vec<Codes<'a>>,
    scales: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
    /// For each tier: the columns of each block that has it.
    tiers: Vec<Vec<TierColumns<'a>>>,
}

struct TierColumns<'a> {
    codes: Codes<'a>,
    factors: (Vec<f32>, Vec<f32>),
}

impl<'a> Columns<'a> {
    pub fn read(reader: &'a SegmentReader, schema: &Schema, group: usize) -> Result<Self, SegmentError> {
        let blocks = 0..schema.encodings().len();
        let rows = 0..reader.groups()[group].rows as usize;
        let tiers = schema.tiers().iter().map(|tier| {
            let columns = schema.tier_blocks(*tier).map(|(block, _)| {
                let codes = reader.tier_codes_of(group, *tier, block, rows.clone())?;
                Ok(TierColumns { codes, factors: reader.factors(group, *tier, block)? })
            });
            columns.collect()
        });
        Ok(Self {
            tiers: tiers.collect::<Result<_, SegmentError>>()?,
            codes: blocks.clone().map(|block| reader.codes(group, block)).collect::<Result<_, _>>()?,
            scales: blocks.clone().map(|block| reader.scales(group, block)).collect::<Result<_, _>>()?,
            norms: blocks.map(|block| reader.norms(group, block)).collect::<Result<_, _>>()?,
        })
    }

    pub fn row(&self, row: usize) -> EncodedRow {
        EncodedRow {
            codes: self.codes.iter().flat_map(|codes| codes.row(row)).copied().collect(),
            scales: self.scales.iter().map(|scales| scales.get(row).copied().unwrap_or(1.0)).collect(),
            norms: self.norms.iter().map(|norms| norms[row]).collect(),
            tiers: self.tiers.iter().map(|columns| tier_row(columns, row)).collect(),
        }
    }
}

fn tier_row(columns: &[TierColumns<'_>], row: usize) -> EncodedTier {
    let factors =
        |column: &TierColumns<'_>| Factors { first: column.factors.0[row], second: column.factors.1[row] };
    EncodedTier {
        codes: columns.iter().flat_map(|column| column.codes.row(row)).copied().collect(),
        factors: columns.iter().map(factors).collect(),
    }
}

fn living(segment: &LiveSegment) -> u64 {
    u64::from(segment.reader.rows()) - segment.dead.len()
}

/// The segments to compact, in the order of appending.
fn choose(snapshot: &Snapshot, options: CompactOptions, limit: u64) -> Vec<&LiveSegment> {
    let small = |segment: &LiveSegment| (segment.reader.bytes() as f64) < options.small * limit as f64;
    let gappy =
        |segment: &LiveSegment| segment.dead.len() as f64 >= options.dead * f64::from(segment.reader.rows());
    let several = snapshot.segments().iter().filter(|segment| small(segment)).count() > 1;
    snapshot.segments().iter().filter(|segment| gappy(segment) || (several && small(segment))).collect()
}

fn to_u32(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
