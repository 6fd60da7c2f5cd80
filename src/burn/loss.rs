//! Losses whose gradients are sketched.

use super::BurnError;
use ::burn::Tensor;
use ::burn::tensor::{Bool, Int, activation::log_softmax};

/// Next-token cross-entropy of each example, averaged over its response tokens: `[batch]`.
///
/// `logits` is `[batch, time, vocabulary]`, `tokens` and `response` are `[batch, time]`. The logits
/// at position t predict the token at t + 1; `response` says which *tokens* count (neither the
/// prompt nor the padding). The first token of a row never counts, since nothing precedes it.
///
/// For per-example gradients of a batch, sum the result; the mean would scale each
/// gradient by the size of the batch.
///
/// # Errors
/// [`BurnError::Shape`] if the shapes do not match, [`BurnError::FullyMasked`] if an example has no token
/// that counts (its loss would be 0 / 0), [`BurnError::Read`] if the device fails.
pub fn sequence_loss(
    logits: Tensor<3>,
    tokens: Tensor<2, Int>,
    response: Tensor<2, Bool>,
) -> Result<Tensor<1>, BurnError> {
    let [batch, time, _] = logits.dims();
    expect("tokens", tokens.dims(), [batch, time])?;
    expect("response", response.dims(), [batch, time])?;
    let marks = response
        .int()
        .try_into_vec_as::<i64>()
        .map_err(|source| BurnError::Read { tensor: "response".into(), source })?;
    let mut weights = Vec::with_capacity(marks.len());
    for (example, row) in marks.chunks(time.max(1)).enumerate() {
        let count = row.iter().skip(1).filter(|mark| **mark != 0).count();
        if count == 0 {
            return Err(BurnError::FullyMasked { example });
        }
        let share = 1.0 / count as f32;
        weights.extend(row.iter().map(|mark| if *mark == 0 { 0.0 } else { share }));
    }
    Ok(weighted(logits, tokens, &weights))
}

/// Next-token cross-entropy of chosen tokens, averaged over the chosen tokens of each example: `[batch]`.
///
/// This is the loss of a token-wise query: `targets[b]` lists positions in row b of `tokens`, for
/// example those of one wrong word. `logits` is `[batch, time, vocabulary]`, `tokens` is
/// `[batch, time]`. A position that is listed twice counts twice.
///
/// # Errors
/// [`BurnError::Shape`] if the shapes do not match, [`BurnError::FullyMasked`] for an example without a
/// target, [`BurnError::Target`] for position 0 or a position past the end of the row.
pub fn target_loss<P: AsRef<[usize]>>(
    logits: Tensor<3>,
    tokens: Tensor<2, Int>,
    targets: &[P],
) -> Result<Tensor<1>, BurnError> {
    let [batch, time, _] = logits.dims();
    expect("tokens", tokens.dims(), [batch, time])?;
    expect("targets", [targets.len()], [batch])?;
    let mut weights = vec![0.0; batch * time];
    for (example, chosen) in targets.iter().enumerate() {
        let chosen = chosen.as_ref();
        if chosen.is_empty() {
            return Err(BurnError::FullyMasked { example });
        }
        for &token in chosen {
            if token == 0 || token >= time {
                let last = time.saturating_sub(1);
                return Err(BurnError::Target { example, token, last });
            }
            weights[example * time + token] += 1.0 / chosen.len() as f32;
        }
    }
    Ok(weighted(logits, tokens, &weights))
}

/// Σ over t of `weights[t]` times the cross-entropy of token t under the logits at t - 1.
///
/// `weights` is row-major, one for each token; the weights of first tokens are ignored.
fn weighted(logits: Tensor<3>, tokens: Tensor<2, Int>, weights: &[f32]) -> Tensor<1> {
    let [batch, time, vocabulary] = logits.dims();
    let device = logits.device();
    let weights = Tensor::<1>::from_floats(weights, &device).reshape([batch, time]).narrow(1, 1, time - 1);
    let next = tokens.narrow(1, 1, time - 1).unsqueeze_dim::<3>(2);
    let logits = logits.narrow(1, 0, time - 1).reshape([batch, time - 1, vocabulary]);
    let taken = log_softmax(logits, 2).gather(2, next).reshape([batch, time - 1]);
    (taken * weights).sum_dim(1).reshape([batch]).neg()
}

fn expect<const D: usize>(
    what: &'static str,
    given: [usize; D],
    expected: [usize; D],
) -> Result<(), BurnError> {
    if given == expected {
        return Ok(());
    }
    Err(BurnError::Shape { what, given: given.to_vec(), expected: expected.to_vec() })
}
