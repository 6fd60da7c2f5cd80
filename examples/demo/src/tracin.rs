//! The baseline that everything is measured against: exact inner products of whole gradients.
//!
//! Nothing is approximated: each batch's gradients are formed one parameter at a time and
//! multiplied by the queries' whole gradients of that parameter.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::{Bool, Device, TensorData};
use experiments::trace::Encoded;
use gradix::burn::{BurnError, Taps, for_each_example_gradient, sequence_loss, target_loss};

use super::model::{Transformer, is_kept};
use super::train::padded;

/// One gradient to compute: a sequence, and which of its tokens' losses count.
#[derive(Debug, Clone)]
pub struct Span {
    /// Prompt and response.
    pub sequence: Encoded,
    /// Positions of the tokens; `None` for the whole response.
    pub tokens: Option<Vec<usize>>,
}

impl Span {
    /// The whole response.
    pub fn whole(sequence: Encoded) -> Self {
        Self { sequence, tokens: None }
    }

    /// The positions that count.
    fn targets(&self) -> Vec<usize> {
        self.tokens.clone().unwrap_or_else(|| self.sequence.response.clone().collect())
    }
}

/// The loss of each span, from a forward through a frozen model and the taps.
///
/// # Errors
/// Of the loss.
pub fn losses(frozen: &Transformer, spans: &[&Span], taps: &mut Taps) -> Result<Tensor<1>, BurnError> {
    let device = frozen.devices()[0].clone().autodiff();
    let rows: Vec<&[u32]> = spans.iter().map(|span| span.sequence.ids.as_slice()).collect();
    let tokens = padded(&rows, &device);
    let logits = frozen.logits(frozen.hidden(tokens.clone(), taps));
    if spans.iter().all(|span| span.tokens.is_none()) {
        let response = response_mask(spans, tokens.dims(), &device);
        sequence_loss(logits, tokens, response)
    } else {
        let targets: Vec<Vec<usize>> = spans.iter().map(|span| span.targets()).collect();
        target_loss(logits, tokens, &targets)
    }
}

/// Runs spans through a frozen model and one backward: the taps, and the gradients of their zeros.
fn backward(frozen: &Transformer, spans: &[&Span]) -> Result<(Taps, burn::tensor::Gradients), BurnError> {
    let mut taps = Taps::on();
    let loss = losses(frozen, spans, &mut taps)?;
    Ok((taps, loss.sum().backward()))
}

fn response_mask(spans: &[&Span], shape: [usize; 2], device: &Device) -> Tensor<2, Bool> {
    let [_, time] = shape;
    let mut marks = Vec::with_capacity(spans.len() * time);
    for span in spans {
        marks.extend((0..time).map(|at| span.sequence.response.contains(&at)));
    }
    Tensor::from_data(TensorData::new(marks, shape), device)
}

/// Scores of all examples for all queries.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Inner products of the whole gradients, `[query][example]`: `TracIn` with one checkpoint, up to
    /// the constant factor of learning rate and epochs.
    pub inner: Vec<Vec<f64>>,
    /// The same with each parameter's gradient divided by its own norm, on both sides.
    pub per_tensor: Vec<Vec<f64>>,
    /// The cosine of the whole gradients.
    pub cosine: Vec<Vec<f64>>,
}

/// A parameter's whole gradients of all queries.
struct Side {
    path: String,
    /// `[elements, queries]`.
    gradients: Tensor<2>,
    /// Each query's norm.
    norms: Vec<f64>,
}

/// Exact influences of `examples` on `queries`, in batches of `batch`; `progress` gets how many
/// examples are done.
///
/// # Errors
/// Whatever the gradients' computation reports.
pub fn scores(
    model: &Transformer,
    examples: &[Span],
    queries: &[Span],
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Result<Scores, BurnError> {
    let frozen = model.clone().no_grad();
    let sides = query_sides(&frozen, queries, batch)?;
    let zeros = || vec![vec![0.0f64; examples.len()]; queries.len()];
    let mut scores = Scores { inner: zeros(), per_tensor: zeros(), cosine: zeros() };
    let mut squares = vec![0.0f64; examples.len()];
    // Sorting by length keeps padding small; the scores go to the example's own place.
    let order = by_length(examples);
    for (chunk, places) in order.chunks(batch).enumerate() {
        let spans: Vec<&Span> = places.iter().map(|place| &examples[*place]).collect();
        let (taps, mut gradients) = backward(&frozen, &spans)?;
        let mut side = sides.iter();
        for_each_example_gradient(&frozen, taps, &mut gradients, is_kept, |path, first, rows| {
            let side = if first == 0 { side.next() } else { sides.iter().find(|s| s.path == path) };
            let Some(side) = side.filter(|side| side.path == path) else {
                return Err(BurnError::MissingGradient { parameter: path.to_owned() });
            };
            let norms = read(rows.clone().square().sum_dim(1), path)?;
            let products = read(rows.matmul(side.gradients.clone()), path)?;
            for (row, products) in products.chunks(queries.len()).enumerate() {
                let place = places[first + row];
                let square = f64::from(norms[row]);
                squares[place] += square;
                for (query, product) in products.iter().enumerate() {
                    let product = f64::from(*product);
                    scores.inner[query][place] += product;
                    let norm = square.sqrt() * side.norms[query];
                    if norm > 0.0 {
                        scores.per_tensor[query][place] += product / norm;
                    }
                }
            }
            Ok(())
        })?;
        progress((chunk + 1) * batch);
    }
    for (query, row) in scores.cosine.iter_mut().enumerate() {
        let length = sides.iter().map(|side| side.norms[query].powi(2)).sum::<f64>().sqrt();
        for (place, cosine) in row.iter_mut().enumerate() {
            let norm = length * squares[place].sqrt();
            *cosine = if norm > 0.0 { scores.inner[query][place] / norm } else { 0.0 };
        }
    }
    Ok(scores)
}

/// Places of the spans, short sequences first.
pub fn by_length(spans: &[Span]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|place| spans[*place].sequence.ids.len());
    order
}

fn query_sides(frozen: &Transformer, queries: &[Span], batch: usize) -> Result<Vec<Side>, BurnError> {
    let mut parts: Vec<(String, Vec<Tensor<2>>)> = Vec::new();
    for chunk in queries.chunks(batch) {
        let spans: Vec<&Span> = chunk.iter().collect();
        let (taps, mut gradients) = backward(frozen, &spans)?;
        for_each_example_gradient(frozen, taps, &mut gradients, is_kept, |path, _, rows| {
            match parts.iter_mut().find(|(name, _)| name == path) {
                Some((_, rest)) => rest.push(rows),
                None => parts.push((path.to_owned(), vec![rows])),
            }
            Ok::<(), BurnError>(())
        })?;
    }
    parts
        .into_iter()
        .map(|(path, parts)| {
            let gradients = Tensor::cat(parts, 0);
            let squares = read(gradients.clone().square().sum_dim(1), &path)?;
            let norms = squares.into_iter().map(|square| f64::from(square).sqrt()).collect();
            Ok(Side { path, gradients: gradients.transpose(), norms })
        })
        .collect()
}

fn read(tensor: Tensor<2>, path: &str) -> Result<Vec<f32>, BurnError> {
    tensor.try_into_vec_as::<f32>().map_err(|source| BurnError::Read { tensor: path.to_owned(), source })
}
