//! Queries made of other queries or of stored rows.

use std::sync::Arc;

use super::control::check;
use super::error::OperatorError;
use crate::index::Snapshot;
use crate::scan::CancelToken;
use crate::sketch::Sketch;

/// The mean of all stored rows of some examples, as a query: which data acts like these?
///
/// Rows count alike: an example with more rows counts more, and an id that is given twice counts twice. The
/// ids are read one after the other, so an iterator can tell the progress; memory is one example and one
/// sketch in `f64`. Sums are in `f64` in the order of the ids and rounded once at the end.
///
/// ```
/// # use gradix::{CancelToken, Encoding, Index, Schema, operators, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// writer.append("fault 1", &Sketch::dense(spec.clone(), vec![3.0, 1.0])?)?;
/// writer.append("fault 2", &Sketch::dense(spec.clone(), vec![1.0, 1.0])?)?;
/// writer.append("other", &Sketch::dense(spec.clone(), vec![0.5, 0.0])?)?;
/// writer.commit()?;
/// let snapshot = index.snapshot()?;
/// let faults = ["fault 1", "fault 2"];
/// let queries = [operators::mean_of(&snapshot, faults, &CancelToken::new())?];
/// assert_eq!(queries[0].values(), [2.0, 1.0]);
/// let ranking = snapshot.scan(&queries)?.exclude_ids(faults).top_k(1).run()?;
/// assert_eq!(ranking.proponents(0)[0].id, b"other");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`OperatorError::MissingIds`] names all ids that are not in the snapshot; a row cannot be read, or a sum
/// overflows `f32`.
pub fn mean_of<I: AsRef<[u8]>>(
    snapshot: &Snapshot,
    ids: impl IntoIterator<Item = I>,
    cancel: &CancelToken,
) -> Result<Sketch, OperatorError> {
    let (sums, rows) = sums(snapshot, ids, cancel)?;
    rounded(snapshot, sums.into_iter().map(|sum| sum / rows as f64))
}

/// The sum of all stored rows of some examples, as a query. Else as [`mean_of`].
///
/// # Errors
/// As [`mean_of`].
pub fn sum_of<I: AsRef<[u8]>>(
    snapshot: &Snapshot,
    ids: impl IntoIterator<Item = I>,
    cancel: &CancelToken,
) -> Result<Sketch, OperatorError> {
    let (sums, _) = sums(snapshot, ids, cancel)?;
    rounded(snapshot, sums.into_iter())
}

fn rounded(snapshot: &Snapshot, sums: impl Iterator<Item = f64>) -> Result<Sketch, OperatorError> {
    let spec = Arc::new(snapshot.schema().spec().clone());
    Ok(Sketch::summed(spec, sums.map(|sum| sum as f32).collect())?)
}

/// The sums of the rows' values, and the number of rows.
fn sums<I: AsRef<[u8]>>(
    snapshot: &Snapshot,
    ids: impl IntoIterator<Item = I>,
    cancel: &CancelToken,
) -> Result<(Vec<f64>, u64), OperatorError> {
    let (mut sums, mut rows) = (vec![0f64; snapshot.schema().spec().dims()], 0u64);
    let mut missing = Vec::new();
    for id in ids {
        check(cancel)?;
        let Some(example) = snapshot.get(&id)? else {
            missing.push(id.as_ref().to_vec());
            continue;
        };
        for row in &example.rows {
            rows += 1;
            add(&mut sums, row.sketch.values(), 1.0);
        }
    }
    if !missing.is_empty() {
        return Err(OperatorError::MissingIds { ids: missing });
    }
    if rows == 0 { Err(OperatorError::NoExamples) } else { Ok((sums, rows)) }
}

fn add(sums: &mut [f64], values: &[f32], weight: f64) {
    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += weight * f64::from(value));
}

/// One query from those of an output's tokens, weighted by how informative each token is: `sum of w_i q_i / sum
/// of w_i`. So a trace of an output follows the tokens that say something, rather than articles and commas.
///
/// The weights are the caller's, for example those of [`informativeness`], or 1 for the half of the tokens
/// with the greatest and 0 for the others: these are the tokens that INFO-RAG (Xu et al., arXiv:2402.18150)
/// calls informative. If the output is itself a training example, as with INFO-RAG's unsupervised tasks, leave
/// it out of the ranking with [`Scan::exclude_ids`](crate::Scan::exclude_ids).
///
/// Sums are in `f64` in the order of the queries, and rounded once at the end.
///
/// ```
/// # use gradix::{Encoding, Index, Schema, operators, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # writer.append("target", &Sketch::dense(spec.clone(), vec![5.0, 5.0])?)?;
/// # writer.append("x", &Sketch::dense(spec.clone(), vec![0.0, 1.0])?)?;
/// # writer.commit()?;
/// # let snapshot = index.snapshot()?;
/// let tokens = [Sketch::dense(spec.clone(), vec![1.0, 0.0])?, Sketch::dense(spec, vec![0.0, 1.0])?];
/// let queries = [operators::informative(&tokens, &[0.25, 0.75])?];
/// assert_eq!(queries[0].values(), [0.25, 0.75]);
/// let ranking = snapshot.scan(&queries)?.top_k(10).exclude_ids(["target"]).run()?;
/// assert_eq!(ranking.proponents(0)[0].id, b"x");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// There are not as many weights as queries, a weight is negative or not finite, or none is above 0; the
/// queries have different specs.
pub fn informative(queries: &[Sketch], weights: &[f64]) -> Result<Sketch, OperatorError> {
    if queries.len() != weights.len() {
        let (given, expected) = (weights.len(), queries.len());
        return Err(OperatorError::Lengths { what: "weights of queries", given, expected });
    }
    if let Some(position) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(OperatorError::Weight { position, weight: weights[position] });
    }
    // So that no sum of weights overflows, and none is lost.
    let greatest = weights.iter().copied().fold(0.0, f64::max);
    let Some(first) = queries.first().filter(|_| greatest > 0.0) else {
        return Err(OperatorError::NoWeight);
    };
    let spec = Arc::new(first.spec().clone());
    let (mut sums, mut total) = (vec![0f64; spec.dims()], 0f64);
    for (query, weight) in queries.iter().zip(weights) {
        first.check_same(query)?;
        let weight = weight / greatest;
        total += weight;
        add(&mut sums, query.values(), weight);
    }
    Ok(Sketch::summed(spec, sums.into_iter().map(|sum| (sum / total) as f32).collect())?)
}

/// How informative a token is, by INFO-RAG (Xu et al., arXiv:2402.18150, scenario 2): the greatest
/// Jensen-Shannon divergence between the distribution of the next token as the last layer has it, and as
/// earlier layers have it (through the same output matrix). A token that early layers know already says
/// little. From 0 to ln 2, in nats.
///
/// The paper takes the embeddings and the first half of the layers; it could as well be the distribution
/// without the retrieved text, to measure how much that changes the token.
///
/// ```
/// let last = [0.7, 0.2, 0.1];
/// let [same, other] = [[0.7f32, 0.2, 0.1], [0.0, 0.0, 1.0]];
/// assert_eq!(gradix::operators::informativeness(&last, &[&same])?, 0.0);
/// assert!(gradix::operators::informativeness(&last, &[&same, &other])? > 0.4);
/// # Ok::<(), gradix::operators::OperatorError>(())
/// ```
///
/// # Errors
/// [`OperatorError::Distribution`] if one of them is no distribution over the same tokens: finite numbers of at
/// least 0 whose sum is 1 up to 1e-3.
pub fn informativeness(last: &[f32], earlier: &[&[f32]]) -> Result<f64, OperatorError> {
    let total = super::distribution::check(last, last.len(), || "the last layer's".to_owned())?;
    let mut greatest = 0f64;
    for (layer, other) in earlier.iter().enumerate() {
        let what = || format!("that of earlier layer {layer}");
        let other_total = super::distribution::check(other, last.len(), what)?;
        let mut divergence = 0f64;
        for (&p, &q) in last.iter().zip(*other) {
            let (p, q) = (f64::from(p) / total, f64::from(q) / other_total);
            let middle = 0.5 * (p + q);
            let term = |x: f64| if x > 0.0 { x * (x / middle).ln() } else { 0.0 };
            divergence += 0.5 * (term(p) + term(q));
        }
        // Rounding can leave a little less than nothing.
        greatest = greatest.max(divergence);
    }
    Ok(greatest)
}
