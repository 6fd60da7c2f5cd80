//! Fits the curvature: sums over the live rows, kept as an artifact and published by a commit.

use roaring::RoaringBitmap;
use uuid::Uuid;

use super::artifacts::{block_sums, region_of, sync};
use super::coverage::covered;
use super::curvature::self_influence_name;
use super::error::FitError;
use super::snapshot::Snapshot;
use super::writer::Writer;
use crate::artifact::{ArtifactKind, ArtifactReader, ArtifactWriter, Region, SealedArtifact};
use crate::curvature::{BlockSums, Covered, DEFAULT_NAME, Estimate, Sign, check_name, panel_rows};
use crate::manifest::{ArtifactRecord, Coverage, SUMS_OF_ROWS};
use crate::scan::CancelToken;
use crate::segment::storage::Storage;
use crate::segment::{CodeColumn, Identity, LiveSegment};
use crate::sketch::SketchSpec;

/// Options of [`Writer::fit_curvature`].
///
/// ```
/// use gradix::FitOptions;
/// use gradix::curvature::Estimate;
/// let options = FitOptions::default()
///     .estimate("head", Estimate::Nystrom { width: 256 })
///     .progress(|progress| println!("{} of {} rows", progress.rows_done, progress.rows_total));
/// ```
#[must_use = "options do nothing until they are given to `Writer::fit_curvature`"]
pub struct FitOptions<'a> {
    name: String,
    estimates: Vec<(String, Estimate)>,
    refit: bool,
    progress: Option<Box<dyn FnMut(FitProgress) + 'a>>,
    cancel: CancelToken,
}

/// The progress of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FitProgress {
    /// Rows that were added to, or subtracted from, the sums of a block, over all blocks.
    pub rows_done: u64,
    /// All rows that will be, over all blocks.
    pub rows_total: u64,
}

impl Default for FitOptions<'_> {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.into(),
            estimates: Vec::new(),
            refit: false,
            progress: None,
            cancel: CancelToken::new(),
        }
    }
}

impl std::fmt::Debug for FitOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FitOptions")
            .field("name", &self.name)
            .field("estimates", &self.estimates)
            .field("refit", &self.refit)
            .finish_non_exhaustive()
    }
}

impl<'a> FitOptions<'a> {
    /// The name of the curvature, 1 to 64 bytes without control characters and slashes: an index can have several. Default:
    /// `curvature`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What is kept of a block, or of the blocks under a prefix, as in [`Scan::blocks`](crate::Scan::blocks). The last one
    /// given for a block applies. Another estimate than that of the sums that are there sums all rows again. Default: what
    /// the sums that are there have, and [`Estimate::auto`] of the block's dims where there are none.
    pub fn estimate(mut self, blocks: impl Into<String>, estimate: Estimate) -> Self {
        self.estimates.push((blocks.into(), estimate));
        self
    }

    /// Whether all rows are summed again, where there are sums already. Default: `false`: new rows are added and
    /// deleted ones subtracted, unless more than half of the rows have to be subtracted, or rows that were summed are in
    /// no segment any more because a compaction has dropped them. A block that loses more than half of its sum of squared
    /// norms is summed again by itself. Where the sums that are there are damaged, this is the way to new ones.
    pub fn refit(mut self, refit: bool) -> Self {
        self.refit = refit;
        self
    }

    /// Sets a callback for progress.
    pub fn progress(mut self, progress: impl FnMut(FitProgress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// A token that cancels the fit, from another thread or from the progress callback.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }
}

/// The result of [`Writer::fit_curvature`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Fit {
    /// The index's generation afterwards. A fit that has nothing to do makes none.
    pub generation: u64,
    /// Rows that were added.
    pub added: u64,
    /// Rows that were subtracted.
    pub subtracted: u64,
    /// Whether all rows were summed anew.
    pub refitted: bool,
    /// Bytes of the artifact.
    pub bytes: u64,
    /// What the sums cover now.
    pub covered: Covered,
}

/// The rows of a segment that are added and subtracted.
pub(super) struct Change<'s> {
    segment: &'s LiveSegment,
    add: RoaringBitmap,
    subtract: RoaringBitmap,
}

/// Where a fit starts from.
pub(super) struct Start<'s> {
    reader: Option<ArtifactReader>,
    changes: Vec<Change<'s>>,
}

impl<'s> Start<'s> {
    /// From nothing, with all live rows.
    pub fn anew(segments: &'s [LiveSegment]) -> Self {
        let change = |segment| {
            let (_, add) = live_rows(segment);
            Change { segment, add, subtract: RoaringBitmap::new() }
        };
        Self { reader: None, changes: segments.iter().map(change).collect() }
    }
}

impl Writer {
    /// Fits the curvature: streams the live rows and sums them up, block by block, into an artifact that a commit of its
    /// own publishes. If there are sums of this name already, only rows that were appended since are added, and deleted
    /// ones subtracted. [`Scan::curvature`](crate::Scan::curvature) uses them.
    ///
    /// Memory: the sums of one block (8 bytes times dims · (dims + 1) / 2 for [`Estimate::Full`], dims · width for
    /// [`Estimate::Nystrom`]), and twice 64 MiB of decoded rows at most. Uses rayon's global thread pool; the sums do not depend
    /// on the number of threads. Time: about dims² (or 2 · dims · width) floating-point operations for each row.
    ///
    /// ```
    /// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
    /// use gradix::{Curvature, FitOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
    /// # let mut writer = index.writer()?;
    /// for (id, values) in [("a", [3.0, 0.0]), ("b", [3.0, 1.0]), ("c", [3.0, -1.0])] {
    ///     writer.append(id, &Sketch::dense(spec.clone(), values.to_vec())?)?;
    /// }
    /// writer.commit()?;
    /// let fit = writer.fit_curvature(FitOptions::default())?;
    /// assert_eq!((fit.added, fit.covered.rows), (3, 3));
    ///
    /// // What all examples have in common counts for less.
    /// let queries = [Sketch::dense(spec, vec![1.0, 1.0])?];
    /// let snapshot = index.snapshot()?;
    /// let ranking = snapshot.scan(&queries)?.top_k(3).curvature(Curvature::default()).run()?;
    /// assert_eq!(ranking.proponents(0)[0].id, b"b");
    /// // Without it, the last would score half as much as the first.
    /// assert!(ranking.proponents(0)[2].score < 0.2 * ranking.proponents(0)[0].score);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There are uncommitted changes; the name, a block or an estimate is invalid; the name is that of sums that were
    /// not made from rows; a sum overflows; the fit was cancelled. In these cases nothing has changed. Or a segment or the
    /// sums that are there cannot be read; or the storage or the manifest fails, which poisons the writer.
    pub fn fit_curvature(&mut self, mut options: FitOptions<'_>) -> Result<Fit, FitError> {
        self.check_committed()?;
        check_name(&options.name).map_err(|name| FitError::InvalidName { name })?;
        let snapshot = Snapshot::take(&self.shared, None)?;
        let before = self.sums_record(&options.name, SUMS_OF_ROWS)?;
        let there = match before {
            Some((file, _)) if !options.refit => Some(self.shared.open_sums(file.artifact())?),
            _ => None,
        };
        let estimates = estimates(self.schema().spec(), there.as_ref(), &options.estimates)?;
        let start =
            self.start(&snapshot, before.as_ref().map(|(_, record)| record), there, &estimates, &options)?;
        let count = |rows: fn(&Change<'_>) -> u64| start.changes.iter().map(rows).sum::<u64>();
        let (added, subtracted) = (count(|change| change.add.len()), count(|change| change.subtract.len()));
        let coverage: Coverage = snapshot.segments().iter().map(live_rows).collect();
        let covered = covered(&coverage, snapshot.segments(), 0);
        if let (Some(_), Some((file, _)), 0, 0) = (&start.reader, before, added, subtracted) {
            let (generation, bytes) = (self.state.generation, file.bytes);
            return Ok(Fit { generation, added, subtracted, refitted: false, bytes, covered });
        }
        let artifact = self.begin_artifact()?;
        let (storage, identity) = (self.shared.artifacts.as_ref(), &self.shared.identity);
        let sealed = match sum(storage, identity, artifact, &start, &estimates, &mut options) {
            Ok(sealed) => sealed,
            Err(error) => return Err(self.give_up(artifact, error)),
        };
        self.keep_artifact(options.name, SUMS_OF_ROWS, &sealed, 0, &coverage)?;
        let commit = self.publish(Vec::new(), &[])?;
        let (generation, refitted) = (commit.generation, start.reader.is_none());
        Ok(Fit { generation, added, subtracted, refitted, bytes: sealed.bytes, covered })
    }

    /// Drops what was fitted or observed under a name, and the self-influence of rows under it, with a commit of its own.
    /// Returns whether there was something. Earlier generations have it until they are collected.
    ///
    /// # Errors
    /// There are uncommitted changes, or the manifest fails, which poisons the writer.
    pub fn drop_curvature(&mut self, name: &str) -> Result<bool, FitError> {
        self.check_committed()?;
        if check_name(name).is_err() || self.manifest.artifact(name, self.state.generation)?.is_none() {
            return Ok(false);
        }
        self.artifacts.push((name.to_owned(), ArtifactRecord::default()));
        let follows = self_influence_name(name);
        if self.manifest.artifact(&follows, self.state.generation)?.is_some() {
            self.artifacts.push((follows, ArtifactRecord::default()));
        }
        self.publish(Vec::new(), &[])?;
        Ok(true)
    }

    /// Whether the sums that are there can be changed, and how.
    fn start<'s>(
        &self,
        snapshot: &'s Snapshot,
        record: Option<&ArtifactRecord>,
        there: Option<ArtifactReader>,
        estimates: &[Estimate],
        options: &FitOptions<'_>,
    ) -> Result<Start<'s>, FitError> {
        let segments = snapshot.segments();
        let all = || Start::anew(segments);
        let (Some(record), Some(reader)) = (record, there) else { return Ok(all()) };
        if record.gone > 0 {
            return Ok(all());
        }
        let mut coverage = self.manifest.coverage(&options.name, record)?;
        let (mut changes, mut summed, mut subtracted) = (Vec::new(), 0, 0);
        for segment in segments {
            let (uuid, live) = live_rows(segment);
            let covered = coverage.remove(&uuid).unwrap_or_default();
            summed += covered.len();
            let change = Change { segment, add: &live - &covered, subtract: covered - live };
            subtracted += change.subtract.len();
            changes.push(change);
        }
        if !coverage.is_empty() || 2 * subtracted > summed {
            return Ok(all());
        }
        let same = |(region, estimate): (&Region, &Estimate)| region.width == estimate.width();
        if !reader.regions().zip(estimates).all(same) {
            return Ok(all());
        }
        Ok(Start { reader: Some(reader), changes })
    }
}

/// The estimate of each block: what was asked for, or else what the sums that are there have.
pub(super) fn estimates(
    spec: &SketchSpec,
    there: Option<&ArtifactReader>,
    asked: &[(String, Estimate)],
) -> Result<Vec<Estimate>, FitError> {
    let mut estimates: Vec<_> = match there {
        Some(reader) => reader.regions().map(|region| Estimate::of_width(region.width)).collect(),
        None => spec.ranges().map(|range| Estimate::auto(range.len())).collect(),
    };
    for (name, estimate) in asked {
        let blocks = spec.blocks_under(name);
        if blocks.is_empty() {
            return Err(FitError::UnknownBlock { name: name.clone() });
        }
        for block in blocks {
            let dims = spec.blocks()[block].dims as usize;
            if !estimate.fits(dims) {
                let (block, estimate) = (spec.blocks()[block].name.clone(), *estimate);
                return Err(FitError::InvalidEstimate { block, dims, estimate });
            }
            estimates[block] = *estimate;
        }
    }
    Ok(estimates)
}

/// Writes the artifact, block by block.
pub(super) fn sum(
    storage: &dyn Storage,
    identity: &Identity,
    artifact: Uuid,
    start: &Start<'_>,
    estimates: &[Estimate],
    options: &mut FitOptions<'_>,
) -> Result<SealedArtifact, FitError> {
    let mut writer = ArtifactWriter::create(storage, identity, artifact, ArtifactKind::Sums)?;
    let rows = |change: &Change<'_>| change.add.len() + change.subtract.len();
    let rows_total = start.changes.iter().map(rows).sum::<u64>() * estimates.len() as u64;
    let mut rows_done = 0;
    let FitOptions { cancel, progress, .. } = options;
    for ((block, range), &estimate) in identity.schema.spec().ranges().enumerate().zip(estimates) {
        let mut add = |sums: &mut BlockSums, segment: &LiveSegment, rows: &RoaringBitmap, sign| {
            for_each_panel(segment, block, rows, |panel| {
                if cancel.is_cancelled() {
                    return Err(FitError::Cancelled);
                }
                sums.add(panel, sign);
                rows_done += (panel.len() / range.len()) as u64;
                if let Some(progress) = progress {
                    progress(FitProgress { rows_done: rows_done.min(rows_total), rows_total });
                }
                Ok(())
            })
        };
        let mut sums = match &start.reader {
            Some(reader) => block_sums(reader, block)?,
            None => BlockSums::new(range.len(), estimate),
        };
        let mut subtracted = 0.0;
        for Change { segment, add: new, subtract: old } in &start.changes {
            add(&mut sums, segment, new, Sign::Plus)?;
            let before = sums.power;
            add(&mut sums, segment, old, Sign::Minus)?;
            subtracted += before - sums.power;
        }
        // What is left would drown in the rounding of what was subtracted.
        if subtracted > 0.0 && subtracted >= sums.power {
            sums = BlockSums::new(range.len(), estimate);
            for Change { segment, .. } in &start.changes {
                add(&mut sums, segment, &live_rows(segment).1, Sign::Plus)?;
            }
        }
        if !sums.is_finite() {
            let block = identity.schema.spec().blocks()[block].name.clone();
            return Err(FitError::Overflow { block });
        }
        writer.push_f64(&region_of(block, &sums), &sums.values)?;
    }
    let sealed = writer.seal()?;
    sync(storage)?;
    Ok(sealed)
}

pub(super) fn live_rows(segment: &LiveSegment) -> (Uuid, RoaringBitmap) {
    let mut rows = RoaringBitmap::new();
    rows.insert_range(0..segment.reader.rows());
    rows -= &*segment.dead;
    (segment.reader.segment(), rows)
}

/// Calls `each` with the decoded values of some rows of a block, in the panels of format-spec/curvature.md: the selected
/// ones among [`panel_rows`] rows of a row group.
pub(super) fn for_each_panel(
    segment: &LiveSegment,
    block: usize,
    rows: &RoaringBitmap,
    mut each: impl FnMut(&[f32]) -> Result<(), FitError>,
) -> Result<(), FitError> {
    let reader = &segment.reader;
    let schema = reader.schema();
    let (encoding, dims) = (schema.encodings()[block], schema.spec().blocks()[block].dims as usize);
    let at_once = u32::try_from(panel_rows(dims)).unwrap_or(u32::MAX).max(1);
    let mut panel = Vec::new();
    for (ordinal, group) in reader.groups().iter().enumerate() {
        if rows.range_cardinality(group.range()) == 0 {
            continue;
        }
        let column = CodeColumn { group: ordinal, tier: None, block };
        let scales = reader.scales(ordinal, block)?;
        for start in (0..group.rows).step_by(at_once as usize) {
            let end = group.rows.min(start.saturating_add(at_once));
            let selected = rows.range(group.first_row + start..group.first_row + end);
            let selected: Vec<usize> = selected.map(|row| (row - group.first_row) as usize).collect();
            let (Some(&first), Some(&last)) = (selected.first(), selected.last()) else { continue };
            let codes = reader.codes(column, first..last + 1)?;
            panel.resize(selected.len() * dims, 0.0);
            for (&row, values) in selected.iter().zip(panel.chunks_exact_mut(dims)) {
                let scale = scales.get(row).copied().unwrap_or(1.0);
                encoding.decode(codes.row(row - first), scale, values);
            }
            each(&panel)?;
        }
    }
    Ok(())
}
