//! One block of a screen: which of its bytes are multiplied, and what the products tell of the score.

use super::super::columns::GroupColumns;
use super::super::control::CancelToken;
use super::super::error::ScanError;
use super::super::kernel::{ByteQueries, IntegerQueries, Narrow, PlaneQueries};
use super::super::planner::ScanPath;
use super::super::query::{Batch, BlockQueries};
use super::super::stream::PieceCodes;
use crate::codec::Tier;
use crate::codec::{Encoding, Rotation, quantise_query};
use crate::schema::Schema;
use crate::segment::{CodeColumn, Codes};

/// The queries as the screen has them.
#[derive(Debug)]
pub(in super::super) enum Queries {
    /// For signed bytes, many queries.
    Bytes(ByteQueries),
    /// For signed bytes, few queries.
    Integers(IntegerQueries),
    /// For the sign tier.
    Planes(PlaneQueries),
}

/// Which bytes of a row are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// The codes of an `i8` block.
    Codes,
    /// A tier.
    Tier(Tier),
    /// `f16` and `f32` codes, narrowed to bytes tile by tile.
    Narrowed,
}

/// How a block's products become intervals. All vectors have one number for each query, the block's
/// weight included.
#[derive(Debug)]
pub(in super::super) struct BlockScreen {
    source: Source,
    pub queries: Queries,
    /// What a product counts, times the row's scale.
    steps: Vec<f64>,
    /// What is taken from twice a sum over set bits: the sum of the query's numbers. Signs only.
    sums: Vec<f64>,
    /// The width's share of the row's norm,
    by_norm: Vec<f64>,
    /// and of its residual (bytes) or gain (signs).
    by_rest: Vec<f64>,
    /// The width's share of numbers below what f32 can round to: of products, times the row's scale,
    underflow: f64,
    /// and of the rotation. Signs only.
    floors: Vec<f64>,
    /// The variance's shares of the squares of spread and gain. Signs only.
    by_spread: Vec<f64>,
    by_gain: Vec<f64>,
}

/// What is known of each selected row in a block.
#[derive(Debug, Default)]
pub(in super::super) struct RowFactors {
    /// The scale of its bytes, or the gain.
    scales: Vec<f64>,
    norms: Vec<f64>,
    /// The residual of its bytes, or the gain.
    rests: Vec<f64>,
    /// The squares of spread and gain.
    spreads: Vec<f64>,
    /// What underflow may add.
    tiny: Vec<f64>,
}

/// Norms, factors and sums of squares are off by less than this, relatively.
pub(super) const ABOVE: f64 = 1.0 + 1.0 / (1u64 << 20) as f64;

/// What products below the least f32 may add up to in a score, times the row's scale.
pub(super) fn underflow(dims: usize, encoding: Encoding) -> f64 {
    match encoding {
        Encoding::I8 => 0.0,
        Encoding::F16 | Encoding::F32 => dims as f64 * f64::from(f32::from_bits(1)),
    }
}

/// The L2 norm.
pub(super) fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

/// The query as the score takes it, and how far a computed score may be from the exact product with
/// it: relatively to the product of the norms.
pub(super) fn target(query: &[f32], encoding: Encoding) -> (Vec<f64>, f64) {
    match encoding {
        Encoding::F32 | Encoding::F16 => {
            let roundings = query.len() as f64 / 16.0 + 4.0;
            let query = query.iter().map(|&x| f64::from(x)).collect();
            (query, 2.0 * roundings * f64::from(f32::EPSILON))
        }
        Encoding::I8 => {
            let quantised = quantise_query(query);
            let scale = f64::from(quantised.scale);
            (quantised.codes.iter().map(|&code| f64::from(code) * scale).collect(), super::EPSILON)
        }
    }
}

impl BlockScreen {
    /// The screen of a block under a path that the schema has the tiers for; not the full pass.
    pub fn new<'q>(
        schema: &Schema,
        block: &BlockQueries,
        queries: impl Iterator<Item = &'q [f32]>,
        path: ScanPath,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let sign = schema.tiers().iter().find(|tier| matches!(tier, Tier::Sign { .. }));
        if path == ScanPath::SignTier
            && let Some(&tier @ Tier::Sign { seed }) = sign
        {
            let ordinal = u32::try_from(block.block).unwrap_or(u32::MAX);
            return Self::signs(
                block,
                queries,
                tier,
                &Rotation::new(seed, ordinal, block.dims),
                seed,
                cancel,
            );
        }
        let source = match block.encoding {
            Encoding::I8 => Source::Codes,
            Encoding::F16 | Encoding::F32 if schema.tiers().contains(&Tier::I8) => Source::Tier(Tier::I8),
            Encoding::F16 | Encoding::F32 => Source::Narrowed,
        };
        Self::bytes(block, queries, source, path == ScanPath::Bytes, cancel)
    }

    /// The queries in signed bytes, or in 16-bit integers, for rows in signed bytes.
    fn bytes<'q>(
        block: &BlockQueries,
        queries: impl Iterator<Item = &'q [f32]>,
        source: Source,
        many: bool,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let mut screen = Self::empty(block, source);
        let (mut bytes, mut integers) = (Vec::new(), IntegerQueries::new(block.dims));
        for query in queries {
            cancel.check()?;
            let (target, rounding) = target(query, block.encoding);
            let largest = target.iter().fold(0f64, |most, x| most.max(x.abs()));
            let most = if many { 127.0 } else { f64::from(IntegerQueries::LARGEST) };
            let step = largest / most;
            let codes: Vec<i16> = target
                .iter()
                .map(|x| if step > 0.0 { (x / step).round_ties_even() as i16 } else { 0 })
                .collect();
            let length = norm(target.iter().copied());
            let lost = norm(target.iter().zip(&codes).map(|(x, &code)| x - f64::from(code) * step));
            let weight = block.weight.abs();
            screen.steps.push(block.weight * step);
            screen.by_norm.push(weight * (lost + (rounding + super::EPSILON) * length) * ABOVE);
            screen.by_rest.push(weight * (length + lost) * ABOVE);
            if many {
                // Within -127..=127 by the step.
                bytes.push(codes.iter().map(|&code| code as i8).collect());
            } else {
                integers.push(&codes);
            }
        }
        screen.queries = if many {
            Queries::Bytes(ByteQueries::new(block.dims, &bytes))
        } else {
            Queries::Integers(integers)
        };
        Ok(screen)
    }

    /// The queries rotated and in bit planes, for rows of one bit a dim.
    fn signs<'q>(
        block: &BlockQueries,
        queries: impl Iterator<Item = &'q [f32]>,
        tier: Tier,
        rotation: &Rotation,
        seed: u64,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        let mut screen = Self::empty(block, Source::Tier(tier));
        let mut planes = PlaneQueries::new(block.dims);
        let dims = block.dims as f64;
        let mut coin = Coin::new(seed ^ block.block as u64);
        for query in queries {
            cancel.check()?;
            let (target, rounding) = target(query, block.encoding);
            // So that squares and sums in f32 neither overflow nor vanish.
            let largest = target.iter().fold(0f64, |most, x| most.max(x.abs()));
            let unit = if largest > 0.0 { largest } else { 1.0 };
            let mut rotated: Vec<f32> = target.iter().map(|x| (x / unit) as f32).collect();
            rotation.apply(&mut rotated);
            let most = rotated.iter().fold(0f64, |most, &x| most.max(f64::from(x).abs()));
            let step = most / f64::from(PlaneQueries::LARGEST);
            let limit = f64::from(PlaneQueries::LARGEST);
            let codes: Vec<i8> = rotated
                .iter()
                .map(|&x| {
                    let exact = if step > 0.0 { f64::from(x) / step } else { 0.0 };
                    (exact + coin.fraction()).floor().clamp(-limit, limit) as i8
                })
                .collect();
            planes.push(&codes);
            let length = norm(target.iter().copied());
            let (weight, step) = (block.weight.abs(), step * unit);
            screen.steps.push(block.weight * step);
            screen.sums.push(codes.iter().map(|&code| f64::from(code)).sum());
            // Rotations are off by 2^-16 of the norm, of the row and of the query.
            screen.by_norm.push(weight * (rounding + super::EPSILON + ROTATION) * length * ABOVE);
            screen.by_rest.push(weight * dims.sqrt() * ROTATION * length * ABOVE);
            screen.floors.push(weight * dims.sqrt() * f64::from(f32::from_bits(1)) * length * ABOVE);
            screen.by_spread.push((weight * length).powi(2) * ABOVE / (dims - 1.0).max(1.0));
            screen.by_gain.push((weight * step).powi(2) * ABOVE * dims / 4.0);
        }
        screen.queries = Queries::Planes(planes);
        Ok(screen)
    }

    fn empty(block: &BlockQueries, source: Source) -> Self {
        let underflow = block.weight.abs() * underflow(block.dims, block.encoding);
        Self {
            source,
            queries: Queries::Planes(PlaneQueries::new(block.dims)),
            steps: Vec::new(),
            sums: Vec::new(),
            by_norm: Vec::new(),
            by_rest: Vec::new(),
            underflow,
            floors: Vec::new(),
            by_spread: Vec::new(),
            by_gain: Vec::new(),
        }
    }

    /// The bytes that are multiplied, before any narrowing.
    pub fn codes<'c>(
        &self,
        columns: &GroupColumns<'c>,
        block: &BlockQueries,
        selected: &[u32],
        codes: &'c mut PieceCodes,
    ) -> Result<Codes<'c>, ScanError> {
        let (reader, group) = (&columns.live().reader, columns.group());
        Ok(match self.source {
            Source::Codes | Source::Narrowed => codes.checked(reader, group, block.block, selected)?,
            Source::Tier(tier) => {
                let rows = selected[0] as usize..selected[selected.len() - 1] as usize + 1;
                reader.codes(CodeColumn { group, tier: Some(tier), block: block.block }, rows)?
            }
        })
    }

    /// The tier that is read.
    pub fn tier(&self) -> Option<Tier> {
        match self.source {
            Source::Tier(tier) => Some(tier),
            Source::Codes | Source::Narrowed => None,
        }
    }

    /// Bytes of a row in [`BlockScreen::codes`], without padding.
    pub fn row_bytes(&self, block: &BlockQueries) -> usize {
        match self.source {
            Source::Codes | Source::Tier(Tier::I8) => block.dims,
            Source::Tier(Tier::Sign { .. }) => block.dims.div_ceil(8),
            Source::Narrowed => block.dims * block.encoding.code_bytes(),
        }
    }

    pub fn narrows(&self) -> bool {
        self.source == Source::Narrowed
    }

    /// `estimate += product as a number`, row by row.
    pub fn estimate<P: Product>(&self, query: usize, rows: &RowFactors, products: &[P], to: &mut [f64]) {
        let step = self.steps[query];
        if let Some(&sum) = self.sums.get(query) {
            for ((to, product), scale) in to.iter_mut().zip(products).zip(&rows.scales) {
                *to += step * scale * (2.0 * product.number() - sum);
            }
        } else {
            for ((to, product), scale) in to.iter_mut().zip(products).zip(&rows.scales) {
                *to += step * scale * product.number();
            }
        }
    }

    /// `width += what always holds`, row by row.
    pub fn widen(&self, query: usize, rows: &RowFactors, to: &mut [f64]) {
        let (by_norm, by_rest) = (self.by_norm[query], self.by_rest[query]);
        let floor = self.floors.get(query).unwrap_or(&0.0);
        if rows.rests.is_empty() && rows.tiny.is_empty() {
            for (to, norm) in to.iter_mut().zip(&rows.norms) {
                *to += norm * by_norm + floor;
            }
        } else {
            for (i, to) in to.iter_mut().enumerate() {
                let (rest, tiny) = (rows.rests.get(i), rows.tiny.get(i));
                *to +=
                    rows.norms[i] * by_norm + rest.map_or(0.0, |rest| rest * by_rest) + tiny.unwrap_or(&0.0);
            }
        }
    }

    /// `variance += this block's`, row by row.
    pub fn spread(&self, query: usize, rows: &RowFactors, to: &mut [f64]) {
        let (by_spread, by_gain) = (self.by_spread[query], self.by_gain[query]);
        for ((to, spread), gain) in to.iter_mut().zip(&rows.spreads).zip(&rows.scales) {
            *to += spread * spread * by_spread + gain * gain * by_gain;
        }
    }
}

/// 2^-15: the rotation's rounding, with room.
const ROTATION: f64 = 1.0 / 32_768.0;

/// An integer that a kernel gives.
pub(in super::super) trait Product: Copy {
    fn number(self) -> f64;
}

impl Product for i32 {
    fn number(self) -> f64 {
        f64::from(self)
    }
}

impl Product for i64 {
    /// Exact: below 2^50.
    fn number(self) -> f64 {
        self as f64
    }
}

impl RowFactors {
    /// Collects them for some rows of a row group.
    pub fn gather(
        &mut self,
        columns: &GroupColumns<'_>,
        batch: &Batch,
        block: usize,
        screen: &BlockScreen,
        selected: &[u32],
        narrow: &Narrow,
    ) -> Result<(), ScanError> {
        let norms = &columns.norms(batch.ordinals())?[block];
        take(&mut self.norms, norms, selected);
        self.rests.clear();
        self.spreads.clear();
        self.tiny.clear();
        if let Source::Tier(tier) = screen.source {
            let blocks = batch.blocks.iter();
            let blocks = blocks.map(|block| tier.covers(block.encoding).then_some(block.block));
            let (first, second) = &columns.factors(tier, blocks)?[block];
            take(&mut self.scales, first, selected);
            if tier == Tier::I8 {
                take(&mut self.rests, second, selected);
            } else {
                self.rests.clone_from(&self.scales);
                take(&mut self.spreads, second, selected);
            }
            if screen.underflow > 0.0 {
                // An `f16` row's scale is at most its norm, or less than 1.
                self.tiny.extend(self.norms.iter().map(|norm| screen.underflow * norm.max(1.0)));
            }
            return Ok(());
        }
        let scales = &columns.scales(batch.ordinals())?[block];
        if scales.is_empty() {
            self.scales.clear();
            self.scales.resize(selected.len(), 1.0);
        } else {
            take(&mut self.scales, scales, selected);
        }
        if screen.underflow > 0.0 {
            self.tiny.extend(self.scales.iter().map(|scale| screen.underflow * scale));
        }
        if screen.source == Source::Narrowed {
            let residuals = self.scales.iter().zip(narrow.residuals());
            self.rests.extend(residuals.map(|(scale, &residual)| scale * f64::from(residual)));
            for (scale, &narrowed) in self.scales.iter_mut().zip(narrow.scales()) {
                *scale *= f64::from(narrowed);
            }
        }
        Ok(())
    }
}

/// The numbers of the selected rows.
fn take(to: &mut Vec<f64>, from: &[f32], selected: &[u32]) {
    to.clear();
    let (first, last) = (selected[0] as usize, selected[selected.len() - 1] as usize);
    if last + 1 - first == selected.len() {
        to.extend(from[first..=last].iter().map(|&number| f64::from(number)));
    } else {
        to.extend(selected.iter().map(|&row| f64::from(from[row as usize])));
    }
}

/// Uniform fractions for rounding at random: splitmix64.
struct Coin(u64);

impl Coin {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
