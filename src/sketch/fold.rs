//! The `RapidGrad` sketcher: parameter tensors are folded one after the other, in one pass, into
//! the buckets of their blocks. `format-spec/sketch.md` says what it computes, bit for bit.
//!
//! The method is that of RapidIn (Lin et al. 2024, arXiv:2405.11724): random signs, a shuffle, and
//! a fold; here sign and bucket are formulas, so that nothing as long as the gradient is kept.

mod kernel;
mod scalar;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

pub use kernel::FoldKernel;
use tiling::{Keys, TILE, Tile, Tiling};

use super::{Normalisation, Routing, Sketch, SketchError, SketchSpec, SketcherKind};

/// A tensor may have at most this many elements: 2^31 tiles of 16.
const MAX_ELEMENTS: u64 = 1 << 35;

/// Keys of at most this many parameters are remembered; those of others are computed each time.
const REMEMBERED: usize = 1 << 16;

/// Turns gradients into sketches by one `RapidGrad` spec.
///
/// It is cheap to clone and can be used by many threads at once, an example to each. The sketch
/// depends on the spec, the tensors and their order alone: never on the machine or on threads.
///
/// ```
/// use gradix::sketch::{SketchSpec, Sketcher};
/// let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16))?;
/// let mut fold = sketcher.start();
/// fold.add("layers.0.weight", &[0.5, -1.0, 2.0])?;
/// fold.add("layers.0.bias", &[4.0])?;
/// let sketch = fold.finish()?;
/// assert_eq!(sketch.values().len(), 16);
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Clone)]
pub struct Sketcher {
    plan: Arc<Plan>,
    kernel: FoldKernel,
}

/// What all folds of a sketcher share.
struct Plan {
    spec: Arc<SketchSpec>,
    seed: u64,
    normalisation: Normalisation,
    /// For routing by prefix: block names and their ordinals.
    routes: Option<HashMap<String, usize>>,
    /// Tiles of sums of each block: where they start, and how many there are.
    places: Vec<(usize, usize)>,
    parameters: RwLock<HashMap<Box<str>, Parameter>>,
}

/// What is known of a parameter by its name alone.
#[derive(Clone, Copy)]
struct Parameter {
    block: usize,
    keys: Keys,
}

impl Sketcher {
    /// A sketcher by this spec, on the fastest kernel that the machine has.
    ///
    /// # Errors
    /// [`SketchError::InvalidSpec`], or [`SketchError::NoSketcher`] for a `Dense` spec.
    pub fn new(spec: impl Into<Arc<SketchSpec>>) -> Result<Self, SketchError> {
        let spec = spec.into();
        spec.check()?;
        let &SketcherKind::RapidGrad { seed, normalisation, routing, .. } = spec.sketcher() else {
            return Err(SketchError::NoSketcher { spec: (*spec).clone() });
        };
        let routes = (routing == Routing::Prefix).then(|| {
            let names = spec.blocks().iter().map(|block| block.name.clone());
            names.zip(0..).collect()
        });
        let places = spec.ranges().map(|range| (range.start / TILE, range.len() / TILE)).collect();
        let parameters = RwLock::default();
        let plan = Plan { spec, seed, normalisation, routes, places, parameters };
        Ok(Self { plan: Arc::new(plan), kernel: FoldKernel::fastest() })
    }

    /// The same sketcher on another kernel. Sketches do not change by it, only their speed.
    ///
    /// # Errors
    /// [`SketchError::NoKernel`] if the machine has not the instructions.
    pub fn on_kernel(mut self, kernel: FoldKernel) -> Result<Self, SketchError> {
        if !kernel.is_available() {
            return Err(SketchError::NoKernel { kernel });
        }
        self.kernel = kernel;
        Ok(self)
    }

    /// The kernel in use.
    #[must_use]
    pub fn kernel(&self) -> FoldKernel {
        self.kernel
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &SketchSpec {
        &self.plan.spec
    }

    /// Begins the sketch of one gradient.
    pub fn start(&self) -> Fold {
        let sums = vec![Tile::ZERO; self.plan.spec.dims() / TILE];
        Fold { sketcher: self.clone(), sums, failed: None }
    }

    /// The sketch of a gradient whose tensors are all at hand: name and elements of each.
    ///
    /// # Errors
    /// Those of [`Fold::add`] and [`Fold::finish`].
    pub fn sketch<'a>(
        &self,
        tensors: impl IntoIterator<Item = (&'a str, &'a [f32])>,
    ) -> Result<Sketch, SketchError> {
        let mut fold = self.start();
        for (parameter, gradient) in tensors {
            fold.add(parameter, gradient)?;
        }
        fold.finish()
    }
}

impl fmt::Debug for Sketcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketcher")
            .field("spec", &self.plan.spec)
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}

impl Plan {
    fn parameter(&self, name: &str) -> Result<Parameter, SketchError> {
        // A poisoned lock is as good as another: nothing in here panics between two writes.
        let known = self.parameters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(parameter) = known.get(name) {
            return Ok(*parameter);
        }
        drop(known);
        let block = self.block_of(name)?;
        let parameter = Parameter { block, keys: Keys::new(self.seed, name) };
        let mut known = self.parameters.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED {
            known.insert(name.into(), parameter);
        }
        Ok(parameter)
    }

    fn block_of(&self, parameter: &str) -> Result<usize, SketchError> {
        let Some(routes) = &self.routes else { return Ok(0) };
        let prefixes = parameter.rmatch_indices('.').map(|(end, _)| &parameter[..end]);
        let mut names = std::iter::once(parameter).chain(prefixes);
        names.find_map(|name| routes.get(name).copied()).ok_or_else(|| SketchError::NoBlock {
            parameter: parameter.to_owned(),
            spec: (*self.spec).clone(),
        })
    }
}

/// One gradient on its way to become a sketch.
///
/// After an error it is of no more use: as part of the gradient is missing, or was added and cannot
/// be taken out again, every later [`Fold::add`] and [`Fold::finish`] returns that same error.
#[derive(Debug, Clone)]
#[must_use = "a fold becomes a sketch by `finish`"]
pub struct Fold {
    sketcher: Sketcher,
    /// Bucket `lane * (dims / 16) + base` of a block is `sums[start + base].0[lane]`, so that the
    /// sixteen elements of a tile are added to one cache line.
    sums: Vec<Tile>,
    failed: Option<SketchError>,
}

impl Fold {
    /// Adds the gradient of one whole parameter tensor: its elements in row-major order.
    ///
    /// Tensors are added in the order that the caller keeps for all its gradients; another order
    /// changes the sums by rounding only. A tensor without elements adds nothing.
    ///
    /// # Errors
    /// No block takes the parameter, an element is NaN or infinite, or there are too many elements.
    pub fn add(&mut self, parameter: &str, gradient: &[f32]) -> Result<(), SketchError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.try_add(parameter, gradient).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn try_add(&mut self, name: &str, gradient: &[f32]) -> Result<(), SketchError> {
        let Sketcher { plan, kernel } = &self.sketcher;
        let Parameter { block, keys } = plan.parameter(name)?;
        let not_finite = || {
            let bad = gradient.iter().copied().enumerate().find(|(_, x)| !x.is_finite());
            let (element, value) = bad.unwrap_or((0, f32::NAN));
            SketchError::NotFinite { parameter: name.to_owned(), element, value }
        };
        let elements = gradient.len();
        if elements as u64 > MAX_ELEMENTS {
            return Err(SketchError::TooLong { parameter: name.to_owned(), elements });
        }
        if elements == 0 {
            return Ok(());
        }
        let scale = match plan.normalisation {
            Normalisation::None => 1.0,
            Normalisation::PerTensor => {
                // Squares of finite elements cannot overflow f64, so this is also the check.
                let squares = kernel.sum_of_squares(gradient);
                if !squares.is_finite() {
                    return Err(not_finite());
                }
                match inverse_norm(squares) {
                    Some(scale) => scale,
                    None => return Ok(()),
                }
            }
        };
        let (start, tiles) = plan.places[block];
        let sums = &mut self.sums[start..start + tiles];
        let tiling = Tiling::new(&keys, elements, tiles);
        if kernel.fold(&tiling, gradient, scale, sums) >= f32::INFINITY.to_bits() {
            return Err(not_finite());
        }
        Ok(())
    }

    /// The sketch.
    ///
    /// # Errors
    /// The error that an [`add`](Fold::add) returned, or [`SketchError::Overflow`].
    pub fn finish(self) -> Result<Sketch, SketchError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let plan = &self.sketcher.plan;
        let mut values = vec![0.0f32; self.sums.len() * TILE];
        for &(start, tiles) in &plan.places {
            let block = start * TILE..(start + tiles) * TILE;
            to_buckets(&self.sums[start..start + tiles], &mut values[block]);
        }
        finite(&plan.spec, &values)?;
        Ok(Sketch { spec: Arc::clone(&plan.spec), values })
    }
}

/// `f32(1 / N)`, or none if the norm N is so small that the tensor contributes nothing.
#[expect(clippy::cast_possible_truncation, reason = "the inverse norm is rounded to f32, as fixed")]
fn inverse_norm(sum_of_squares: f64) -> Option<f32> {
    let norm = sum_of_squares.sqrt();
    (norm >= f64::from(f32::MIN_POSITIVE)).then(|| (1.0 / norm) as f32)
}

/// From `[base][lane]` to `[lane][base]`, sixteen bases at a time, so that whole cache lines are
/// written though all lanes of a base lie a power of two apart.
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

/// Refuses sums that became infinite.
pub(super) fn finite(spec: &SketchSpec, values: &[f32]) -> Result<(), SketchError> {
    for (block, range) in spec.blocks().iter().zip(spec.ranges()) {
        let values = &values[range];
        // Whole runs without a branch for each number, which vectorises; then the one that it is.
        let all_finite = |run: &[f32]| run.iter().fold(true, |all, sum| all & sum.is_finite());
        if !values.chunks(256).all(all_finite) {
            let bucket = values.iter().position(|sum| !sum.is_finite()).unwrap_or(0);
            return Err(SketchError::Overflow { block: block.name.clone(), bucket });
        }
    }
    Ok(())
}
