//! The `RapidGrad` sketcher: folds parameter tensors one after the other, in one pass, into the buckets of
//! their blocks. `format-spec/sketch.md` specifies the result bit for bit.
//!
//! The method is that of RapidIn (Lin et al. 2024, arXiv:2405.11724): random signs, a shuffle, and a fold.
//! Here sign and bucket are computed by a hash of the element's index, so that no table of the gradient's
//! length exists.

#[cfg(feature = "cubecl")]
mod gather;
mod kernel;
mod product;
mod scalar;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

#[cfg(feature = "cubecl")]
pub(crate) use gather::Gather;
pub use kernel::FoldKernel;
pub(super) use product::Product;
use tiling::{Keys, TILE, Tile, Tiling};

use super::routes::Routes;
use super::{MAX_ELEMENTS, Normalisation, Routing, SketchError, SketchSpec};

/// The maximum number of parameters whose keys are cached; those of others are computed each time.
const CACHED: usize = 1 << 16;

/// State shared by all folds of a sketcher.
pub(super) struct RapidGrad {
    seed: u64,
    normalisation: Normalisation,
    routes: Routes,
    /// The tiles of sums of each block: start and count.
    places: Vec<(usize, usize)>,
    parameters: RwLock<HashMap<Box<str>, Parameter>>,
}

/// Bucket `lane * (dims / 16) + base` of a block is `sums[start + base].0[lane]`: the sixteen elements of a
/// tile are added to one cache line.
#[derive(Debug, Clone)]
pub(super) struct Sums(Vec<Tile>);

/// What the fold derives from a parameter's name.
#[derive(Clone, Copy)]
struct Parameter {
    block: usize,
    keys: Keys,
}

impl RapidGrad {
    pub(super) fn new(spec: &SketchSpec, seed: u64, normalisation: Normalisation, routing: Routing) -> Self {
        let places = spec.ranges().map(|range| (range.start / TILE, range.len() / TILE)).collect();
        Self {
            seed,
            normalisation,
            routes: Routes::new(spec, routing),
            places,
            parameters: RwLock::default(),
        }
    }

    pub(super) fn start(&self) -> Sums {
        Sums(vec![Tile::ZERO; self.places.iter().map(|(_, tiles)| tiles).sum()])
    }

    fn parameter(&self, spec: &SketchSpec, name: &str) -> Result<Parameter, SketchError> {
        // A poisoned lock is safe to use: nothing here panics between two writes.
        let known = self.parameters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(parameter) = known.get(name) {
            return Ok(*parameter);
        }
        drop(known);
        let block = self.routes.block_of(spec, name)?;
        let parameter = Parameter { block, keys: Keys::new(self.seed, name) };
        let mut known = self.parameters.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < CACHED {
            known.insert(name.into(), parameter);
        }
        Ok(parameter)
    }

    pub(super) fn add(
        &self,
        spec: &SketchSpec,
        kernel: FoldKernel,
        sums: &mut Sums,
        name: &str,
        gradient: &[f32],
    ) -> Result<(), SketchError> {
        let Parameter { block, keys } = self.parameter(spec, name)?;
        let elements = gradient.len();
        if elements as u64 > MAX_ELEMENTS {
            return Err(SketchError::TooLong { parameter: name.to_owned(), elements });
        }
        if elements == 0 {
            return Ok(());
        }
        let scale = match self.normalisation {
            Normalisation::None => 1.0,
            Normalisation::PerTensor => {
                // Squares of finite elements cannot overflow f64, so this also checks the elements.
                let squares = kernel.sum_of_squares(gradient);
                if !squares.is_finite() {
                    return Err(SketchError::not_finite(name, gradient));
                }
                match inverse_norm(squares) {
                    Some(scale) => scale,
                    None => return Ok(()),
                }
            }
        };
        let (start, tiles) = self.places[block];
        let sums = &mut sums.0[start..start + tiles];
        let tiling = Tiling::new(&keys, elements, tiles);
        if kernel.fold(&tiling, gradient, scale, sums) >= f32::INFINITY.to_bits() {
            return Err(SketchError::not_finite(name, gradient));
        }
        Ok(())
    }

    /// Where a device finds the tiles of a parameter's elements, at least one, and adds them: the first of the
    /// block's bases, and the tiles by base.
    #[cfg(feature = "cubecl")]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a tensor has at most 2^31 tiles, a block fewer bases"
    )]
    pub(super) fn gather(
        &self,
        spec: &SketchSpec,
        name: &str,
        elements: usize,
    ) -> Result<(usize, Gather), SketchError> {
        let Parameter { block, keys } = self.parameter(spec, name)?;
        if elements as u64 > MAX_ELEMENTS {
            return Err(SketchError::TooLong { parameter: name.to_owned(), elements });
        }
        let (start, bases) = self.places[block];
        let tiling = Tiling::new(&keys, elements, bases);
        Ok((start, Gather::new(&tiling, elements.div_ceil(TILE) as u32, bases as u32)))
    }

    /// The values that a device has summed in the order of [`Sums`].
    #[cfg(feature = "cubecl")]
    pub(super) fn finish_row(&self, row: &[f32]) -> Vec<f32> {
        self.finish(&Sums(row.as_chunks().0.iter().copied().map(Tile).collect()))
    }

    /// The values, block after block.
    pub(super) fn finish(&self, sums: &Sums) -> Vec<f32> {
        let mut values = vec![0.0f32; sums.0.len() * TILE];
        for &(start, tiles) in &self.places {
            let block = start * TILE..(start + tiles) * TILE;
            to_buckets(&sums.0[start..start + tiles], &mut values[block]);
        }
        values
    }
}

/// `f32(1 / N)`; `None` if the norm N is so small that the tensor contributes nothing.
#[expect(clippy::cast_possible_truncation, reason = "the inverse norm is rounded to f32, as fixed")]
fn inverse_norm(sum_of_squares: f64) -> Option<f32> {
    let norm = sum_of_squares.sqrt();
    (norm >= f64::from(f32::MIN_POSITIVE)).then(|| (1.0 / norm) as f32)
}

/// Transposes `[base][lane]` to `[lane][base]`, sixteen bases at a time, so that whole cache lines are
/// written although the lanes of a base are a power of two apart.
fn to_buckets(sums: &[Tile], buckets: &mut [f32]) {
    let width = sums.len();
    for (group, sums) in sums.chunks(TILE).enumerate() {
        for lane in 0..TILE {
            let first = lane * width + group * TILE;
            for (bucket, sum) in buckets[first..].iter_mut().zip(sums) {
                *bucket = sum.0[lane];
            }
        }
    }
}
