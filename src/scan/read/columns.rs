//! The columns of a row group except its codes, decoded on first use.

use std::sync::OnceLock;

use crate::codec::Tier;
use crate::scan::batch::RowLength;
use crate::scan::error::ScanError;
use crate::segment::{ByteStrings, LiveSegment, SegmentError, Span};

/// The columns of a row group. Shared by the workers that score its pieces, and dropped with the last of
/// them.
#[derive(Debug)]
pub(in crate::scan) struct GroupColumns<'a> {
    live: &'a LiveSegment,
    segment: usize,
    group: usize,
    scales: OnceLock<Vec<Vec<f32>>>,
    norms: OnceLock<Vec<Vec<f32>>>,
    lengths: OnceLock<Vec<Vec<f32>>>,
    norm_range: OnceLock<(Vec<f32>, Vec<f32>)>,
    factors: OnceLock<Vec<Factors>>,
    ids: OnceLock<ByteStrings>,
    spans: OnceLock<Vec<Span>>,
    sources: OnceLock<Vec<u32>>,
}

/// The two factors of each row in a tier: gains and spreads, or scales and residuals.
type Factors = (Vec<f32>, Vec<f32>);

impl<'a> GroupColumns<'a> {
    /// For row group `group` of segment `segment`.
    pub fn new(live: &'a LiveSegment, segment: usize, group: usize) -> Self {
        Self {
            live,
            segment,
            group,
            scales: OnceLock::new(),
            norms: OnceLock::new(),
            lengths: OnceLock::new(),
            norm_range: OnceLock::new(),
            factors: OnceLock::new(),
            ids: OnceLock::new(),
            spans: OnceLock::new(),
            sources: OnceLock::new(),
        }
    }

    /// The segment's ordinal in the snapshot.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// The row group's ordinal in the segment.
    pub fn group(&self) -> usize {
        self.group
    }

    pub fn live(&self) -> &'a LiveSegment {
        self.live
    }

    /// The ordinal in the segment of its first row.
    pub fn first_row(&self) -> u32 {
        self.live.reader.groups()[self.group].first_row
    }

    /// For each of `blocks`, which must be the same in every call: the scale of each row; empty if there are
    /// none.
    pub fn scales(&self, blocks: impl Iterator<Item = usize>) -> Result<&[Vec<f32>], SegmentError> {
        let read = || blocks.map(|block| self.live.reader.scales(self.group, block)).collect();
        once(&self.scales, read).map(Vec::as_slice)
    }

    /// For each of `blocks`, which must be the same in every call: the norm of each row.
    pub fn norms(&self, blocks: impl Iterator<Item = usize>) -> Result<&[Vec<f32>], SegmentError> {
        let read = || blocks.map(|block| self.live.reader.norms(self.group, block)).collect();
        once(&self.norms, read).map(Vec::as_slice)
    }

    /// For each of `blocks`, which must be the same in every call, as must `lengths`: the length of each row.
    pub fn lengths(
        &self,
        blocks: impl Iterator<Item = usize>,
        lengths: &RowLength,
    ) -> Result<&[Vec<f32>], ScanError> {
        let source = match lengths {
            RowLength::Norms => return Ok(self.norms(blocks)?),
            RowLength::SelfInfluence(source) => source,
        };
        let (reader, rows) = (&self.live.reader, self.live.reader.groups()[self.group].range());
        let read = || blocks.map(|block| source.lengths(reader.segment(), block, rows.clone())).collect();
        once(&self.lengths, read).map(Vec::as_slice)
    }

    /// The least and the greatest norm of [`GroupColumns::norms`] in each block.
    pub fn norm_range(&self, blocks: impl Iterator<Item = usize>) -> Result<(&[f32], &[f32]), SegmentError> {
        let (least, greatest) = once(&self.norm_range, || {
            let norms = self.norms(blocks)?;
            // Norms are not negative, so their bits have the same order, and integers compare faster.
            let bits = |norms: &Vec<f32>, fold: fn(i32, i32) -> i32, from: f32| {
                let norms = norms.iter().map(|norm| norm.to_bits().cast_signed());
                f32::from_bits(norms.fold(from.to_bits().cast_signed(), fold).cast_unsigned())
            };
            let least = norms.iter().map(|norms| bits(norms, i32::min, f32::INFINITY)).collect();
            Ok((least, norms.iter().map(|norms| bits(norms, i32::max, 0.0)).collect()))
        })?;
        Ok((least, greatest))
    }

    /// For each of `blocks`, which must be the same in every call, as must `tier`: the factors of each row;
    /// empty for a block without the tier.
    pub fn factors(
        &self,
        tier: Tier,
        blocks: impl Iterator<Item = Option<usize>>,
    ) -> Result<&[Factors], SegmentError> {
        let factors = |block| self.live.reader.factors(self.group, tier, block);
        let read = || blocks.map(|block| block.map_or(Ok(Factors::default()), factors)).collect();
        once(&self.factors, read).map(Vec::as_slice)
    }

    pub fn ids(&self) -> Result<&ByteStrings, SegmentError> {
        once(&self.ids, || self.live.reader.ids(self.group))
    }

    pub fn spans(&self) -> Result<&[Span], SegmentError> {
        once(&self.spans, || self.live.reader.spans(self.group)).map(Vec::as_slice)
    }

    pub fn sources(&self) -> Result<&[u32], SegmentError> {
        once(&self.sources, || self.live.reader.sources(self.group)).map(Vec::as_slice)
    }
}

/// Two workers may read at the same time; one result is kept.
fn once<T, E>(cell: &OnceLock<T>, read: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = read()?;
    Ok(cell.get_or_init(|| value))
}
