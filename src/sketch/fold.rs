//! The `RapidGrad` sketcher: folds parameter tensors one after the other, in one pass, into the buckets of
//! their blocks. `format-spec/sketch.md` specifies the result bit for bit.
//!
//! The method is that of RapidIn (Lin et al. 2024, arXiv:2405.11724): random signs, a shuffle, and a fold.
//! Here sign and bucket are computed by a hash of the element's index, so that no table of the gradient's
//! length exists.

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

/// The maximum number of elements of a tensor: 2^31 tiles of 16.
const MAX_ELEMENTS: u64 = 1 << 35;

/// The maximum number of parameters whose keys are cached; those of others are computed each time.
const CACHED: usize = 1 << 16;

/// Computes the sketches of gradients under a `RapidGrad` spec.
///
/// Cheap to clone; many threads can use one at once, each for another example. A sketch depends only on the
/// spec, the tensors and their order, never on the machine or the thread.
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

/// State shared by all folds of a sketcher.
struct Plan {
    spec: Arc<SketchSpec>,
    seed: u64,
    normalisation: Normalisation,
    /// For routing by prefix: block names and their ordinals.
    routes: Option<HashMap<String, usize>>,
    /// The tiles of sums of each block: start and count.
    places: Vec<(usize, usize)>,
    parameters: RwLock<HashMap<Box<str>, Parameter>>,
}

/// What the fold derives from a parameter's name.
#[derive(Clone, Copy)]
struct Parameter {
    block: usize,
    keys: Keys,
}

impl Sketcher {
    /// A sketcher for this spec, on the fastest kernel that the machine supports.
    ///
    /// # Errors
    /// [`SketchError::InvalidSpec`], or [`SketchError::NoSketcher`] for a `Dense` spec.
    pub fn new(spec: impl Into<Arc<SketchSpec>>) -> Result<Self, SketchError> {
        let spec = spec.into();
        spec.check()?;
        let &SketcherKind::RapidGrad { seed, normalisation, routing, .. } = spec.sketcher() else {
            return Err(SketchError::NoSketcher { spec: (*spec).clone() });
        };
        let routes = match routing {
            Routing::Global => None,
            Routing::Prefix => {
                let names = spec.blocks().iter().map(|block| block.name.clone());
                Some(names.zip(0..).collect())
            }
        };
        let places = spec.ranges().map(|range| (range.start / TILE, range.len() / TILE)).collect();
        let parameters = RwLock::default();
        let plan = Plan { spec, seed, normalisation, routes, places, parameters };
        Ok(Self { plan: Arc::new(plan), kernel: FoldKernel::fastest() })
    }

    /// Selects another kernel. All kernels give the same sketches, at different speeds.
    ///
    /// # Errors
    /// [`SketchError::NoKernel`] if the machine does not support it.
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

    /// Starts the sketch of one gradient.
    pub fn start(&self) -> Fold {
        let sums = vec![Tile::ZERO; self.plan.spec.dims() / TILE];
        Fold { sketcher: self.clone(), sums, failed: None }
    }

    /// Computes the sketch of a gradient given as pairs of parameter name and row-major elements.
    ///
    /// # Errors
    /// As [`Fold::add`] and [`Fold::finish`].
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
        // A poisoned lock is safe to use: nothing here panics between two writes.
        let known = self.parameters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(parameter) = known.get(name) {
            return Ok(*parameter);
        }
        drop(known);
        let block = self.block_of(name)?;
        let parameter = Parameter { block, keys: Keys::new(self.seed, name) };
        let mut known = self.parameters.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < CACHED {
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

/// The sketch of one gradient under construction. Made by [`Sketcher::start`].
///
/// After an error, every later [`Fold::add`] and [`Fold::finish`] returns the same error, since the sums
/// are incomplete.
#[derive(Debug, Clone)]
#[must_use = "a fold gives its sketch by `finish`"]
pub struct Fold {
    sketcher: Sketcher,
    /// Bucket `lane * (dims / 16) + base` of a block is `sums[start + base].0[lane]`: the sixteen elements of
    /// a tile are added to one cache line.
    sums: Vec<Tile>,
    failed: Option<SketchError>,
}

impl Fold {
    /// Adds the gradient of one whole parameter tensor: its elements in row-major order.
    ///
    /// Add tensors in the same order for all gradients; another order changes the sums by rounding. A tensor
    /// without elements adds nothing.
    ///
    /// # Errors
    /// No block matches the parameter, an element is NaN or infinite, or there are more than 2^35 elements.
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
                // Squares of finite elements cannot overflow f64, so this also checks the elements.
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

    /// Returns the sketch: `dims` values, block after block.
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

/// Checks that no sum is infinite.
pub(super) fn finite(spec: &SketchSpec, values: &[f32]) -> Result<(), SketchError> {
    for (block, range) in spec.blocks().iter().zip(spec.ranges()) {
        let values = &values[range];
        // Checks whole runs without a branch per value, which vectorises; then finds the value.
        let all_finite = |run: &[f32]| run.iter().fold(true, |all, sum| all & sum.is_finite());
        if !values.chunks(256).all(all_finite) {
            let bucket = values.iter().position(|sum| !sum.is_finite()).unwrap_or(0);
            return Err(SketchError::Overflow { block: block.name.clone(), bucket });
        }
    }
    Ok(())
}
