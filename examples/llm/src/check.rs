//! Logits compared with those of `reference.py`.

use std::path::Path;

use burn::Tensor;
use burn::tensor::{Device, Int};
use gradix::burn::Taps;
use serde::Deserialize;

use crate::model::Llama;
use experiments::Failure;

#[derive(Deserialize)]
struct Case {
    ids: Vec<i64>,
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    at: usize,
    /// Token and logit.
    top: Vec<(usize, f64)>,
    /// The sum of squares of all logits.
    squares: f64,
}

/// How far a model's logits are from the expected ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Difference {
    /// Positions that were compared.
    pub positions: usize,
    /// The largest difference of a logit.
    pub logit: f64,
    /// The largest relative difference of a norm of all logits of a position.
    pub norm: f64,
    /// The positions whose highest logit belongs to another token.
    pub other_first: usize,
}

impl Difference {
    /// Whether float arithmetic explains the difference: logits of a size of 10 to 30 within 0.001.
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.positions > 0 && self.logit < 1e-3 && self.norm < 1e-4 && self.other_first == 0
    }
}

/// Compares the logits of `model` with those in the file at `expected`.
///
/// # Errors
/// Of the file, or of the device.
pub fn compare(model: &Llama, expected: &Path, device: &Device) -> Result<Difference, Failure> {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(expected)?)?;
    let mut found = Difference::default();
    for case in cases {
        let tokens = Tensor::<1, Int>::from_data(case.ids.as_slice(), device).unsqueeze::<2>();
        let logits = model.logits(model.hidden(tokens, &mut Taps::off()));
        let [_, _, vocabulary] = logits.dims();
        let logits = logits.try_into_vec_as::<f32>()?;
        for position in case.positions {
            let row = &logits[position.at * vocabulary..(position.at + 1) * vocabulary];
            let squares: f64 = row.iter().map(|logit| f64::from(*logit).powi(2)).sum();
            found.norm = found.norm.max(apart((squares / position.squares).sqrt(), 1.0));
            for (token, logit) in &position.top {
                found.logit = found.logit.max(apart(f64::from(row[*token]), *logit));
            }
            let first = (0..vocabulary).max_by(|a, b| row[*a].total_cmp(&row[*b]));
            found.other_first += usize::from(first != position.top.first().map(|(token, _)| *token));
            found.positions += 1;
        }
    }
    Ok(found)
}

/// The difference of two numbers; one that is not a number is infinitely far.
fn apart(a: f64, b: f64) -> f64 {
    let difference = (a - b).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}
