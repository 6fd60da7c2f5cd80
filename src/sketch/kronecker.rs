//! The `Kronecker` sketcher: projects the gradient of a matrix parameter from both sides, by signs that are
//! drawn by a hash. `format-spec/kronecker.md` specifies the result bit for bit.
//!
//! The method is that of LoGra (Choe et al. 2024, arXiv:2405.13954) and bergson. The host works on whole
//! matrices; where the factors of a gradient are at hand, [`Projections`] are what they are multiplied by.
//!
//! Signs are never kept: a word of 32 takes two mixes, and is used for every column or row of the matrix.

mod keys;

#[cfg(test)]
mod tests;

#[cfg(feature = "burn")]
use std::any::Any;
use std::collections::HashMap;
#[cfg(feature = "burn")]
use std::sync::OnceLock;
use std::sync::{PoisonError, RwLock};

use keys::{Keys, WORD};

use super::fold::{FoldKernel, Product};
use super::routes::Routes;
use super::{MAX_ELEMENTS, Routing, SketchError, SketchSpec};

/// The maximum number of parameters of a sketcher, since it remembers the shape of each.
const MAX_PARAMETERS: usize = 1 << 16;

/// The number of columns of a matrix that are projected at once: with 64 rows they are 128 KiB.
const COLUMNS: usize = 512;

/// State shared by all folds of a sketcher.
pub(super) struct Kronecker {
    seed: u64,
    routes: Routes,
    /// `[p_in, p_out]` of each block.
    sides: Vec<[u32; 2]>,
    /// The first value of each block in a sketch.
    starts: Vec<usize>,
    parameters: RwLock<HashMap<Box<str>, Parameter>>,
    #[cfg(feature = "burn")]
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

#[derive(Clone, Copy)]
struct Parameter {
    block: usize,
    keys: Keys,
    shape: [usize; 2],
}

/// Both projections of a matrix parameter. Made by [`Sketcher::projections`](super::Sketcher::projections).
///
/// The parameter's part of its block is `inputs.matrix() G outputs.matrix()^T`, where `G` is its gradient of
/// shape `[n_in, n_out]`; or, if `G` is a sum of outer products `a g^T`, the sum of `(inputs.matrix() a)
/// (outputs.matrix() g)^T`.
///
/// ```
/// use gradix::sketch::{SketchSpec, Sketcher};
/// let sketcher = Sketcher::new(SketchSpec::kronecker(7, [("head", 4, 2)]))?;
/// let projections = sketcher.projections("head.weight", 100, 2)?;
/// assert_eq!((projections.inputs.rows(), projections.inputs.columns()), (4, 100));
/// assert!(projections.inputs.matrix().iter().all(|x| x.abs() == 0.5));
/// // Two outputs fit into two: each keeps its place, with a sign.
/// let outputs = projections.outputs.matrix();
/// assert_eq!(outputs.iter().map(|x| x.abs()).collect::<Vec<f32>>(), [1.0, 0.0, 0.0, 1.0]);
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Projections {
    /// The ordinal of the block that takes the parameter.
    pub block: usize,
    /// The projection of the inputs: `[p_in, n_in]`.
    pub inputs: Side,
    /// The projection of the outputs: `[p_out, n_out]`.
    pub outputs: Side,
}

/// The projection of one side of a matrix parameter: a matrix `[p, n]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    keys: [u32; 4],
    rows: usize,
    columns: usize,
}

impl Side {
    /// The number of rows, p: the length of the side in the sketch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns, n: the length of the side in the parameter.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The `p * n` entries, row-major, with the scale: a sign times `1 / sqrt(p)`, rounded once. If n is at
    /// most p, they are signs on the diagonal and zero elsewhere.
    #[must_use]
    pub fn matrix(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.rows * self.columns];
        if self.columns == 0 {
            return matrix;
        }
        let scale = to_f32(1.0 / self.length().sqrt());
        for (row, entries) in matrix.chunks_exact_mut(self.columns).enumerate() {
            if self.is_whole() {
                if let Some(entry) = entries.get_mut(row) {
                    *entry = self.sign_on_diagonal(row);
                }
                continue;
            }
            let signs = keys::Row::new(&self.keys, row);
            for (chunk, entries) in entries.chunks_mut(WORD).enumerate() {
                let word = signs.word(chunk);
                for (bit, entry) in entries.iter_mut().enumerate() {
                    *entry = signed(scale, word >> bit);
                }
            }
        }
        matrix
    }

    /// Whether each element keeps its own place.
    fn is_whole(&self) -> bool {
        self.columns <= self.rows
    }

    /// The number that the product is divided by the root of.
    fn length(&self) -> f64 {
        if self.is_whole() { 1.0 } else { self.rows as f64 }
    }

    fn sign_on_diagonal(&self, at: usize) -> f32 {
        signed(1.0, keys::Row::new(&self.keys, at).word(at / WORD) >> (at % WORD))
    }

    fn row_keys(&self) -> Vec<keys::Row> {
        (0..self.rows).map(|row| keys::Row::new(&self.keys, row)).collect()
    }
}

/// The signs of some columns from a multiple of 32, at most a word of them, as `[columns][rows]`.
fn fill_signs(rows: &[keys::Row], first: usize, columns: usize, signs: &mut Vec<f32>) {
    let words: Vec<u32> = rows.iter().map(|row| row.word(first / WORD)).collect();
    signs.clear();
    for column in 0..columns {
        signs.extend(words.iter().map(|word| signed(1.0, word >> column)));
    }
}

/// `value`, negated if the lowest bit is set.
#[inline(always)]
fn signed(value: f32, bit: u32) -> f32 {
    f32::from_bits(value.to_bits() ^ bit << 31)
}

#[expect(clippy::cast_possible_truncation, reason = "scales are rounded to f32, as fixed")]
fn to_f32(scale: f64) -> f32 {
    scale as f32
}

impl Kronecker {
    pub(super) fn new(spec: &SketchSpec, seed: u64, sides: &[[u32; 2]]) -> Self {
        let starts = spec.ranges().map(|range| range.start).collect();
        let routes = Routes::new(spec, Routing::Prefix);
        Self {
            seed,
            routes,
            sides: sides.to_vec(),
            starts,
            parameters: RwLock::default(),
            #[cfg(feature = "burn")]
            kept: OnceLock::new(),
        }
    }

    /// What an adapter keeps for all clones of a sketcher; of one type, as there is one adapter.
    #[cfg(feature = "burn")]
    pub(super) fn kept<T: Any + Default + Send + Sync>(&self) -> Option<&T> {
        self.kept.get_or_init(|| Box::new(T::default())).downcast_ref()
    }

    fn parameter(&self, spec: &SketchSpec, name: &str, shape: [usize; 2]) -> Result<Parameter, SketchError> {
        // A poisoned lock is safe to use: nothing here panics between two writes.
        let known = self.parameters.read().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        let parameter = match known {
            Some(parameter) => parameter,
            None => {
                let block = self.routes.block_of(spec, name)?;
                let new = Parameter { block, keys: Keys::new(self.seed, name), shape };
                let mut known = self.parameters.write().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= MAX_PARAMETERS && !known.contains_key(name) {
                    return Err(SketchError::TooManyParameters { parameter: name.to_owned() });
                }
                *known.entry(name.into()).or_insert(new)
            }
        };
        if parameter.shape != shape {
            let (given, before) = (shape, parameter.shape);
            return Err(SketchError::OtherShape { parameter: name.to_owned(), given, before });
        }
        Ok(parameter)
    }

    pub(super) fn projections(
        &self,
        spec: &SketchSpec,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Projections, SketchError> {
        // A side is limited too, for a parameter whose other side is empty.
        let elements = shape[0].saturating_mul(shape[1]).max(shape[0]).max(shape[1]);
        if elements as u64 > MAX_ELEMENTS {
            return Err(SketchError::TooLong { parameter: name.to_owned(), elements });
        }
        let Parameter { block, keys, shape } = self.parameter(spec, name, shape)?;
        let [p_in, p_out] = self.sides[block].map(|side| side as usize);
        let inputs = Side { keys: keys.inputs(), rows: p_in, columns: shape[0] };
        let outputs = Side { keys: keys.outputs(), rows: p_out, columns: shape[1] };
        Ok(Projections { block, inputs, outputs })
    }

    /// Adds the gradient of a matrix, whose elements are as many as its shape says.
    pub(super) fn add(
        &self,
        spec: &SketchSpec,
        kernel: FoldKernel,
        values: &mut [f32],
        name: &str,
        shape: [usize; 2],
        gradient: &[f32],
    ) -> Result<(), SketchError> {
        let projections = self.projections(spec, name, shape)?;
        let all_finite = |run: &[f32]| run.iter().fold(true, |all, x| all & x.is_finite());
        if !gradient.chunks(256).all(all_finite) {
            return Err(SketchError::not_finite(name, gradient));
        }
        if gradient.is_empty() {
            return Ok(());
        }
        let Projections { block, inputs, outputs } = projections;
        let products = products(kernel, &inputs, &outputs, gradient);
        let scale = to_f32(1.0 / (inputs.length() * outputs.length()).sqrt());
        let values = &mut values[self.starts[block]..][..products.len()];
        for (value, product) in values.iter_mut().zip(products) {
            *value += product * scale;
        }
        Ok(())
    }
}

/// `P_in G P_out^T` of the signs alone, `[p_in][p_out]`: columns of `P_in G` first, some at a time, each of
/// which is then multiplied by the signs of its output.
fn products(kernel: FoldKernel, inputs: &Side, outputs: &Side, gradient: &[f32]) -> Vec<f32> {
    let (p_in, p_out, n_out) = (inputs.rows, outputs.rows, outputs.columns);
    let mut products = vec![0.0; p_in * p_out];
    let (in_keys, out_keys) = (inputs.row_keys(), outputs.row_keys());
    let (mut signs, mut columns, mut turned) = (Vec::new(), Vec::new(), Vec::new());
    for first in (0..n_out).step_by(COLUMNS) {
        let width = COLUMNS.min(n_out - first);
        columns.clear();
        columns.resize(p_in * width, 0.0);
        if inputs.is_whole() {
            for (row, columns) in columns.chunks_exact_mut(width).take(inputs.columns).enumerate() {
                let sign = inputs.sign_on_diagonal(row);
                for (column, x) in columns.iter_mut().zip(&gradient[row * n_out + first..]) {
                    *column = x * sign;
                }
            }
        } else {
            for row in (0..inputs.columns).step_by(WORD) {
                fill_signs(&in_keys, row, WORD.min(inputs.columns - row), &mut signs);
                let right = &gradient[row * n_out + first..];
                kernel.add_products(
                    &Product { left: &signs, rows: p_in, right, stride: n_out, width },
                    &mut columns,
                );
            }
        }
        if outputs.is_whole() {
            for column in 0..width {
                let sign = outputs.sign_on_diagonal(first + column);
                for row in 0..p_in {
                    products[row * p_out + first + column] = columns[row * width + column] * sign;
                }
            }
            continue;
        }
        for start in (0..width).step_by(WORD) {
            let count = WORD.min(width - start);
            fill_signs(&out_keys, first + start, count, &mut signs);
            turned.clear();
            for column in start..start + count {
                turned.extend((0..p_in).map(|row| columns[row * width + column]));
            }
            let product = Product { left: &turned, rows: p_in, right: &signs, stride: p_out, width: p_out };
            kernel.add_products(&product, &mut products);
        }
    }
    products
}
