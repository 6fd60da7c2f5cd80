//! Sketches of gradients: the spec, the sketcher, and the sketch. `format-spec/sketch.md` specifies the bits.

// Of the crate, depends only on four parts of `codec`: `lanes` (the order of sums), `mix` (the hash), `seed`
// (seeds in JSON) and the macro `listed`.

mod error;
mod fold;
mod kronecker;
mod optimizer;
mod routes;
mod sketcher;
mod spec;

pub use error::SketchError;
pub use fold::FoldKernel;
#[cfg(feature = "cubecl")]
pub(crate) use fold::Gather;
pub use kronecker::{Projections, Side};
pub use optimizer::OptimizerStep;
pub use sketcher::{Fold, Sketcher};
pub use spec::{
    Block, MAX_BLOCK_DIMS, MAX_DIMS, MAX_SIDE, MIN_FOLD_DIMS, Normalisation, Routing, SketchSpec,
    SketcherKind, WHOLE,
};

use std::sync::Arc;

/// The maximum number of elements of a parameter: 2^31 tiles of 16.
const MAX_ELEMENTS: u64 = 1 << 35;

/// A compressed gradient: `dims` finite values, block after block, and their spec.
///
/// ```
/// use gradix::sketch::{Sketch, SketchSpec};
/// let spec = SketchSpec::dense("logra", "rank 64, sha256:1f...", [("layers.0", 3), ("layers.1", 2)]);
/// let sketch = Sketch::dense(spec, vec![1.0, 2.0, 3.0, 4.0, 5.0])?;
/// assert_eq!(sketch.block(1), Some(&[4.0, 5.0][..]));
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    spec: Arc<SketchSpec>,
    values: Vec<f32>,
}

impl Sketch {
    /// A sketch of values that the caller has computed, block after block. The spec can be of any kind.
    ///
    /// # Errors
    /// The spec is invalid, the number of values is not its number of dims, or a value is NaN or infinite.
    pub fn dense(spec: impl Into<Arc<SketchSpec>>, values: Vec<f32>) -> Result<Self, SketchError> {
        let spec = spec.into();
        spec.check()?;
        if values.len() != spec.dims() {
            let (given, expected) = (values.len(), spec.dims());
            return Err(SketchError::Width { given, expected, spec: (*spec).clone() });
        }
        for (block, range) in spec.blocks().iter().zip(spec.ranges()) {
            if let Some(position) = values[range.clone()].iter().position(|x| !x.is_finite()) {
                let value = values[range.start + position];
                let block = block.name.clone();
                return Err(SketchError::NotFiniteValue { block, position, value });
            }
        }
        Ok(Self { spec, values })
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    /// All values, block after block.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of block `ordinal`; `None` if there is no such block.
    #[must_use]
    pub fn block(&self, ordinal: usize) -> Option<&[f32]> {
        self.spec.ranges().nth(ordinal).map(|range| &self.values[range])
    }

    /// Reduces the number of buckets of each block by `factor`, by adding neighbouring buckets.
    ///
    /// Up to rounding, the result is the sketch of the same gradient under the nested spec. Rounding differs
    /// because elements are added in another order.
    ///
    /// # Errors
    /// [`SketchError::NotNested`] if the spec is not `RapidGrad`, `factor` is not a power of two, or a block
    /// would have fewer than 16 dims; [`SketchError::Overflow`] if a sum overflows `f32`.
    pub fn nested(&self, factor: u32) -> Result<Self, SketchError> {
        let spec = self.spec.nested(factor)?;
        let mut values = self.values.clone();
        // Blocks have even dims until the last halving, so no pair spans two blocks.
        for _ in 0..factor.trailing_zeros() {
            values = values.as_chunks().0.iter().map(|[left, right]| left + right).collect();
        }
        Self::summed(Arc::new(spec), values)
    }

    /// The sum of two sketches of one spec, value by value: the sketch of the two gradients together, as of
    /// two checkpoints ([`Sketcher::under`]).
    ///
    /// # Errors
    /// [`SketchError::OtherSpec`] if the specs differ; [`SketchError::Overflow`] if a sum overflows `f32`.
    pub fn plus(&self, other: &Self) -> Result<Self, SketchError> {
        self.combined(other, |left, right| left + right)
    }

    /// The difference of two sketches of one spec, value by value: the sketch of the first gradient minus the
    /// second, as of a good answer and a bad one. Its proponents are those of the first rather than the second.
    ///
    /// ```
    /// # use gradix::sketch::{Sketch, SketchSpec};
    /// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    /// let good = Sketch::dense(spec.clone(), vec![3.0, 1.0])?;
    /// let bad = Sketch::dense(spec, vec![1.0, 1.0])?;
    /// assert_eq!(good.minus(&bad.scaled(0.5)?)?.values(), [2.5, 0.5]);
    /// # Ok::<(), gradix::sketch::SketchError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sketch::plus`].
    pub fn minus(&self, other: &Self) -> Result<Self, SketchError> {
        self.combined(other, |left, right| left - right)
    }

    /// The sketch times a number, value by value, each product rounded once.
    ///
    /// # Errors
    /// [`SketchError::Overflow`] if a product is not finite, as it is with a factor that is not.
    pub fn scaled(&self, factor: f32) -> Result<Self, SketchError> {
        Self::summed(Arc::clone(&self.spec), self.values.iter().map(|value| value * factor).collect())
    }

    fn combined(&self, other: &Self, combine: impl Fn(f32, f32) -> f32) -> Result<Self, SketchError> {
        self.check_same(other)?;
        let values =
            self.values.iter().zip(&other.values).map(|(left, right)| combine(*left, *right)).collect();
        Self::summed(Arc::clone(&self.spec), values)
    }

    /// Returns an error if the other sketch is of another spec.
    pub(crate) fn check_same(&self, other: &Self) -> Result<(), SketchError> {
        if self.spec != other.spec {
            let (given, expected) = (Box::new(other.spec().clone()), Box::new(self.spec().clone()));
            return Err(SketchError::OtherSpec { given, expected });
        }
        Ok(())
    }

    /// A sketch of sums, each of which must be finite.
    pub(crate) fn summed(spec: Arc<SketchSpec>, values: Vec<f32>) -> Result<Self, SketchError> {
        for (block, range) in spec.blocks().iter().zip(spec.ranges()) {
            let values = &values[range];
            // Checks whole runs without a branch per value, which vectorises; then finds the value.
            let all_finite = |run: &[f32]| run.iter().fold(true, |all, sum| all & sum.is_finite());
            if !values.chunks(256).all(all_finite) {
                let bucket = values.iter().position(|sum| !sum.is_finite()).unwrap_or(0);
                return Err(SketchError::Overflow { block: block.name.clone(), bucket });
            }
        }
        Ok(Self { spec, values })
    }

    /// Returns the values without the spec.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}
