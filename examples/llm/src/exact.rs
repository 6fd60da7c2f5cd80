//! The baseline that everything is measured against: exact inner products of whole gradients.
//!
//! Nothing is approximated: each batch's gradients are formed one parameter at a time and multiplied by the queries'
//! whole gradients of that parameter.

use std::collections::HashMap;

use burn::Tensor;
use experiments::Failure;
use experiments::trace::Encoded;
use gradix::burn::{BurnError, Taps, for_each_example_gradient};

use crate::batch::{Part, losses};
use crate::index::{Asking, Frozen};
use crate::model::is_adapter;

/// Scores of the sample for all queries.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Inner products of the whole gradients, `[query][example]`: `TracIn` with one checkpoint, up to
    /// the constant factor of learning rate and epochs.
    pub inner: Vec<Vec<f64>>,
    /// The same with each parameter's gradient divided by its own norm, on both sides.
    pub per_tensor: Vec<Vec<f64>>,
}

/// A parameter's whole gradients of all queries: `[elements, queries]`, and each one's norm.
struct Side {
    gradients: Tensor<2>,
    norms: Vec<f64>,
}

/// Exact influences of `sample` on `asked`, in batches of `batch`; `progress` gets how many examples are done.
///
/// # Errors
/// Whatever the gradients' computation reports.
pub fn scores(
    frozen: &Frozen,
    sample: &[Encoded],
    asked: &[Asking],
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Result<Scores, Failure> {
    let mut parts: HashMap<String, Vec<Tensor<2>>> = HashMap::new();
    for asked in asked.chunks(batch) {
        let asked: Vec<Part<'_>> = asked.iter().map(Asking::part).collect();
        gradients(frozen, &asked, |path, _, rows| {
            parts.entry(path.to_owned()).or_default().push(rows);
            Ok(())
        })?;
    }
    let mut sides = HashMap::new();
    for (path, parts) in parts {
        let gradients = Tensor::cat(parts, 0);
        let norms = norms(gradients.clone(), &path)?;
        sides.insert(path, Side { gradients: gradients.transpose(), norms });
    }
    let zeros = vec![vec![0.0f64; sample.len()]; asked.len()];
    let mut scores = Scores { inner: zeros.clone(), per_tensor: zeros };
    let mut order: Vec<usize> = (0..sample.len()).collect();
    order.sort_by_key(|place| sample[*place].ids.len());
    for (chunk, places) in order.chunks(batch).enumerate() {
        let parts: Vec<Part<'_>> =
            places.iter().map(|place| Part { sequence: &sample[*place], targets: None }).collect();
        gradients(frozen, &parts, |path, first, rows| {
            let Some(side) = sides.get(path) else {
                return Err(BurnError::MissingGradient { parameter: path.to_owned() });
            };
            let norms = norms(rows.clone(), path)?;
            let products = read(rows.matmul(side.gradients.clone()), path)?;
            for (row, products) in products.chunks(asked.len()).enumerate() {
                for (query, product) in products.iter().enumerate() {
                    let product = f64::from(*product);
                    let place = places[first + row];
                    scores.inner[query][place] += product;
                    let norm = norms[row] * side.norms[query];
                    if norm > 0.0 {
                        scores.per_tensor[query][place] += product / norm;
                    }
                }
            }
            Ok(())
        })?;
        progress(((chunk + 1) * batch).min(sample.len()));
    }
    Ok(scores)
}

fn gradients(
    frozen: &Frozen,
    parts: &[Part<'_>],
    visit: impl FnMut(&str, usize, Tensor<2>) -> Result<(), BurnError>,
) -> Result<(), BurnError> {
    let mut taps = Taps::on();
    let loss = losses(frozen.model(), parts, frozen.device(), &mut taps)?;
    let mut gradients = loss.sum().backward();
    for_each_example_gradient(frozen.model(), taps, &mut gradients, is_adapter, visit)
}

fn norms(rows: Tensor<2>, path: &str) -> Result<Vec<f64>, BurnError> {
    let squares = read(rows.square().sum_dim(1), path)?;
    Ok(squares.into_iter().map(|square| f64::from(square).sqrt()).collect())
}

fn read(tensor: Tensor<2>, path: &str) -> Result<Vec<f32>, BurnError> {
    tensor.try_into_vec_as::<f32>().map_err(|source| BurnError::Read { tensor: path.to_owned(), source })
}
