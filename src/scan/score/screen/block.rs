//! One block of a screen: computes intervals of the score from products of the pass's codes.

use rayon::prelude::*;

use crate::codec::mix::splitmix;
use crate::codec::{Rotation, Tier};
use crate::scan::batch::{Batch, BlockQueries};
use crate::scan::bounds::{ABOVE, EPSILON, norm, rounding, underflow};
use crate::scan::control::CancelToken;
use crate::scan::error::ScanError;
use crate::scan::kernel::{ByteQueries, IntegerQueries, Narrow, PlaneQueries};
use crate::scan::options::ScanPath;
use crate::scan::plan::Pass;
use crate::scan::read::GroupColumns;

/// The queries, packed for the screen's pass.
#[derive(Debug)]
pub(super) enum Queries {
    /// For signed bytes and many queries.
    Bytes(ByteQueries),
    /// For signed bytes and few queries.
    Integers(IntegerQueries),
    /// For the sign tier.
    Planes(PlaneQueries),
}

/// The coefficients of a block's intervals. All vectors have one number for each query, multiplied by the
/// block's weight.
#[derive(Debug)]
pub(super) struct BlockScreen {
    pub pass: Pass,
    pub queries: Queries,
    /// The factor of a product, before the row's scale.
    steps: Vec<f64>,
    /// The sum of the query's numbers, which is subtracted from twice the sum over set bits. Signs only.
    sums: Vec<f64>,
    /// The width per row norm.
    by_norm: Vec<f64>,
    /// The width per residual (bytes) or gain (signs).
    by_rest: Vec<f64>,
    /// The width by underflow of products, before the row's scale.
    underflow: f64,
    /// The width by underflow of the rotation. Signs only.
    floors: Vec<f64>,
    /// The variance per square of the spread, and of the gain. Signs only.
    by_spread: Vec<f64>,
    by_gain: Vec<f64>,
}

/// The factors of each selected row in a block.
#[derive(Debug, Default)]
pub(super) struct RowFactors {
    /// The scale of its bytes, or the gain.
    scales: Vec<f64>,
    norms: Vec<f64>,
    /// The residual of its bytes, or the gain.
    rests: Vec<f64>,
    /// The spread.
    spreads: Vec<f64>,
    /// The width by underflow.
    tiny: Vec<f64>,
}

impl BlockScreen {
    /// The screen of a block, for a path that screens. Prepares the queries on all threads of the pool.
    pub fn new(
        pass: Pass,
        path: ScanPath,
        block: &BlockQueries,
        queries: usize,
        cancel: &CancelToken,
    ) -> Result<Self, ScanError> {
        match (pass, path) {
            (Pass::Tier(tier @ Tier::Sign { seed }), _) => {
                let ordinal = u32::try_from(block.block).unwrap_or(u32::MAX);
                let rotation = Rotation::new(seed, ordinal, block.dims);
                let sign = |query| Signs::new(tier, &rotation, block, query);
                Ok(Self::signs(pass, block, &each(queries, cancel, sign)?))
            }
            (Pass::Codes | Pass::Narrowed | Pass::Tier(Tier::I8), ScanPath::Bytes) => {
                let rounded = each(queries, cancel, |query| Rounded::new(block, query, 127.0))?;
                // Within -127..=127, by the choice of the step.
                let bytes = |rounded: &Rounded| rounded.codes.iter().map(|&code| code as i8).collect();
                let bytes: Vec<Vec<i8>> = rounded.iter().map(bytes).collect();
                Ok(Self::rounded(pass, block, &rounded, Queries::Bytes(ByteQueries::new(block.dims, &bytes))))
            }
            (
                Pass::Codes | Pass::Narrowed | Pass::Tier(Tier::I8),
                ScanPath::Auto | ScanPath::Full | ScanPath::I8Tier | ScanPath::SignTier,
            ) => {
                let most = f64::from(IntegerQueries::LARGEST);
                let rounded = each(queries, cancel, |query| Rounded::new(block, query, most))?;
                let mut integers = IntegerQueries::new(block.dims);
                rounded.iter().for_each(|rounded| integers.push(&rounded.codes));
                Ok(Self::rounded(pass, block, &rounded, Queries::Integers(integers)))
            }
        }
    }

    /// For rows in signed bytes.
    fn rounded(pass: Pass, block: &BlockQueries, rounded: &[Rounded], queries: Queries) -> Self {
        let (weight, rounding) = (block.weight.abs(), rounding(block.dims, block.encoding) + EPSILON);
        let of = |f: &dyn Fn(&Rounded) -> f64| rounded.iter().map(f).collect();
        Self {
            pass,
            queries,
            steps: of(&|query| block.weight * query.step),
            sums: Vec::new(),
            by_norm: of(&|query| weight * (query.lost + rounding * query.length) * ABOVE),
            by_rest: of(&|query| weight * (query.length + query.lost) * ABOVE),
            underflow: block.tiny(),
            floors: Vec::new(),
            by_spread: Vec::new(),
            by_gain: Vec::new(),
        }
    }

    /// For rows of one bit per dim.
    fn signs(pass: Pass, block: &BlockQueries, signs: &[Signs]) -> Self {
        let (weight, dims) = (block.weight.abs(), block.dims as f64);
        let mut planes = PlaneQueries::new(block.dims);
        signs.iter().for_each(|query| planes.push(&query.codes));
        let rounding = rounding(block.dims, block.encoding) + EPSILON + ROTATION;
        let of = |f: &dyn Fn(&Signs) -> f64| signs.iter().map(f).collect();
        Self {
            pass,
            queries: Queries::Planes(planes),
            steps: of(&|query| block.weight * query.step),
            sums: of(&|query| query.codes.iter().map(|&code| f64::from(code)).sum()),
            // The rotation's error is at most 2^-16 of the norm, for the row and for the query.
            by_norm: of(&|query| weight * rounding * query.length * ABOVE),
            by_rest: of(&|query| weight * dims.sqrt() * ROTATION * query.length * ABOVE),
            underflow: block.tiny(),
            floors: of(&|query| weight * dims.sqrt() * f64::from(f32::from_bits(1)) * query.length * ABOVE),
            by_spread: of(&|query| (weight * query.length).powi(2) * ABOVE / (dims - 1.0).max(1.0)),
            by_gain: of(&|query| (weight * query.step).powi(2) * ABOVE * dims / 4.0),
        }
    }

    /// Bytes of a row in the pass's codes, without padding.
    pub fn row_bytes(&self, block: &BlockQueries) -> usize {
        match self.pass {
            Pass::Codes | Pass::Narrowed => block.dims * block.encoding.code_bytes(),
            Pass::Tier(Tier::I8) => block.dims,
            Pass::Tier(Tier::Sign { .. }) => block.dims.div_ceil(8),
        }
    }

    /// `estimate += product * step * scale`, row by row.
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

    /// `width += this block's deterministic error bound`, row by row.
    pub fn widen(&self, query: usize, rows: &RowFactors, to: &mut [f64]) {
        let (by_norm, by_rest) = (self.by_norm[query], self.by_rest[query]);
        let floor = self.floors.get(query).unwrap_or(&0.0);
        if rows.rests.is_empty() && rows.tiny.is_empty() {
            for (to, norm) in to.iter_mut().zip(&rows.norms) {
                *to += norm * by_norm + floor;
            }
        } else {
            for (i, to) in to.iter_mut().enumerate() {
                let rest = rows.rests.get(i).map_or(0.0, |rest| rest * by_rest);
                *to += rows.norms[i] * by_norm + floor + rest + rows.tiny.get(i).unwrap_or(&0.0);
            }
        }
    }

    /// `variance += this block's variance`, row by row.
    pub fn spread(&self, query: usize, rows: &RowFactors, to: &mut [f64]) {
        let (by_spread, by_gain) = (self.by_spread[query], self.by_gain[query]);
        for ((to, spread), gain) in to.iter_mut().zip(&rows.spreads).zip(&rows.scales) {
            *to += spread * spread * by_spread + gain * gain * by_gain;
        }
    }
}

/// Calls `prepare` for each query, on all threads of the pool. A large batch takes a while, so cancellation
/// is checked before each query.
fn each<T: Send>(
    queries: usize,
    cancel: &CancelToken,
    prepare: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, ScanError> {
    (0..queries).into_par_iter().map(|query| cancel.check().map(|()| prepare(query))).collect()
}

/// A query rounded to integers.
struct Rounded {
    codes: Vec<i16>,
    step: f64,
    /// The query's norm.
    length: f64,
    /// The norm of the rounding error.
    lost: f64,
}

impl Rounded {
    /// Rounds to integers of at most `most` in absolute value.
    fn new(block: &BlockQueries, query: usize, most: f64) -> Self {
        let target = block.target(query);
        let step = target.iter().fold(0f64, |most, x| most.max(x.abs())) / most;
        let round = |x: &f64| if step > 0.0 { (x / step).round_ties_even() as i16 } else { 0 };
        let codes: Vec<i16> = target.iter().map(round).collect();
        let lost = norm(target.iter().zip(&codes).map(|(x, &code)| x - f64::from(code) * step));
        Self { codes, step, length: norm(target.into_iter()), lost }
    }
}

/// A query, rotated and randomly rounded to four bits.
struct Signs {
    codes: Vec<i8>,
    step: f64,
    length: f64,
}

impl Signs {
    fn new(tier: Tier, rotation: &Rotation, block: &BlockQueries, query: usize) -> Self {
        let target = block.target(query);
        // Scaled so that squares and sums in f32 neither overflow nor underflow.
        let largest = target.iter().fold(0f64, |most, x| most.max(x.abs()));
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let mut rotated: Vec<f32> = target.iter().map(|x| (x / unit) as f32).collect();
        rotation.apply(&mut rotated);
        let limit = f64::from(PlaneQueries::LARGEST);
        let step = rotated.iter().fold(0f64, |most, &x| most.max(f64::from(x).abs())) / limit;
        let mut coin = Coin::new(tier, block.block, query);
        let round = |&x: &f32| {
            let exact = if step > 0.0 { f64::from(x) / step } else { 0.0 };
            (exact + coin.fraction()).floor().clamp(-limit, limit) as i8
        };
        Self {
            codes: rotated.iter().map(round).collect(),
            step: step * unit,
            length: norm(target.into_iter()),
        }
    }
}

/// 2^-15: an upper bound of the rotation's rounding error of row and query.
const ROTATION: f64 = 1.0 / 32_768.0;

/// A kernel's integer product.
pub(super) trait Product: Copy {
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
    /// Gathers the factors of some rows of a row group.
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
        let encoding = batch.blocks[block].encoding;
        match screen.pass {
            Pass::Tier(tier) => self.gather_tier(columns, batch, block, tier, selected)?,
            Pass::Codes | Pass::Narrowed => {
                let scales = &columns.scales(batch.ordinals())?[block];
                if encoding.has_scale() {
                    take(&mut self.scales, scales, selected);
                } else {
                    self.scales.clear();
                    self.scales.resize(selected.len(), 1.0);
                }
            }
        }
        if underflow(batch.blocks[block].dims, encoding) > 0.0 {
            match screen.pass {
                // An `f16` row's scale is at most its norm, or less than 1.
                Pass::Tier(_) => {
                    self.tiny.extend(self.norms.iter().map(|norm| screen.underflow * norm.max(1.0)));
                }
                Pass::Codes | Pass::Narrowed => {
                    self.tiny.extend(self.scales.iter().map(|scale| screen.underflow * scale));
                }
            }
        }
        if screen.pass == Pass::Narrowed {
            let residuals = self.scales.iter().zip(narrow.residuals());
            self.rests.extend(residuals.map(|(scale, &residual)| scale * f64::from(residual)));
            for (scale, &narrowed) in self.scales.iter_mut().zip(narrow.scales()) {
                *scale *= f64::from(narrowed);
            }
        }
        Ok(())
    }

    fn gather_tier(
        &mut self,
        columns: &GroupColumns<'_>,
        batch: &Batch,
        block: usize,
        tier: Tier,
        selected: &[u32],
    ) -> Result<(), ScanError> {
        let blocks = batch.blocks.iter();
        let blocks = blocks.map(|block| tier.covers(block.encoding).then_some(block.block));
        let (first, second) = &columns.factors(tier, blocks)?[block];
        take(&mut self.scales, first, selected);
        match tier {
            Tier::I8 => take(&mut self.rests, second, selected),
            Tier::Sign { .. } => {
                self.rests.clone_from(&self.scales);
                take(&mut self.spreads, second, selected);
            }
        }
        Ok(())
    }
}

/// Copies the numbers of the selected rows.
fn take(to: &mut Vec<f64>, from: &[f32], selected: &[u32]) {
    to.clear();
    let (first, last) = (selected[0] as usize, selected[selected.len() - 1] as usize);
    if last + 1 - first == selected.len() {
        to.extend(from[first..=last].iter().map(|&number| f64::from(number)));
    } else {
        to.extend(selected.iter().map(|&row| f64::from(from[row as usize])));
    }
}

/// Uniform random fractions for randomised rounding: splitmix64, one stream per block and query.
struct Coin(u64);

impl Coin {
    fn new(tier: Tier, block: usize, query: usize) -> Self {
        let seed = match tier {
            Tier::Sign { seed } => seed,
            Tier::I8 => 0,
        };
        // Each stream starts at a hash of its block and query, so that streams are far apart.
        let mut coin = Self(seed ^ (block as u64) << 32 ^ query as u64);
        Self(coin.next())
    }

    fn next(&mut self) -> u64 {
        splitmix(&mut self.0)
    }

    /// A fraction in [0, 1).
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches queries that are rounded by the same coins, so that their errors add up instead of
    /// averaging out, and coins that favour a side.
    #[test]
    fn coins_of_queries_are_fair_and_unlike() {
        let fractions = |block, query| {
            let mut coin = Coin::new(Tier::Sign { seed: 7 }, block, query);
            (0..4096).map(|_| coin.fraction()).collect::<Vec<_>>()
        };
        let streams: Vec<_> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(block, query)| fractions(block, query)).to_vec();
        for (i, a) in streams.iter().enumerate() {
            let mean = a.iter().sum::<f64>() / 4096.0;
            assert!((mean - 0.5).abs() < 0.03, "{mean}");
            for b in &streams[..i] {
                let product: f64 = a.iter().zip(b).map(|(a, b)| (a - 0.5) * (b - 0.5)).sum();
                assert!(product.abs() / 4096.0 < 1.0 / 12.0 * 0.1, "{product}");
            }
        }
    }
}
