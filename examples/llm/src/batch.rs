//! Batches of sequences, their losses, and what the model says.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, TensorData};
use experiments::trace::Encoded;
use gradix::burn::{BurnError, Taps, sequence_loss, target_loss};

use crate::model::Llama;

/// Token ids as a tensor `[rows, longest]`, padded at the end with zeros, which no earlier position sees.
#[must_use]
pub fn padded(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let time = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(rows.len() * time);
    for row in rows {
        ids.extend(row.iter().map(|id| i64::from(*id)));
        ids.resize(ids.len() + time - row.len(), 0);
    }
    Tensor::from_data(TensorData::new(ids, [rows.len(), time]), device)
}

/// A sequence up to its last target, and the positions of its targets; all of the response where there are none.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Prompt and response.
    pub sequence: &'a Encoded,
    /// Some of the response's positions.
    pub targets: Option<Vec<usize>>,
}

/// The loss of each part, `[batch]`: the mean over its targets.
///
/// Only positions from which a target of the batch is predicted go through the head, which takes a
/// fifth of a small model's work.
///
/// # Errors
/// Of the loss.
pub fn losses(
    model: &Llama,
    parts: &[Part<'_>],
    device: &Device,
    taps: &mut Taps,
) -> Result<Tensor<1>, BurnError> {
    let end = |part: &Part<'_>| match &part.targets {
        None => part.sequence.ids.len(),
        Some(targets) => targets.iter().max().map_or(1, |last| (last + 1).min(part.sequence.ids.len())),
    };
    let rows: Vec<&[u32]> = parts.iter().map(|part| &part.sequence.ids[..end(part)]).collect();
    let tokens = padded(&rows, device);
    let [batch, time] = tokens.dims();
    let first = |part: &Part<'_>| match &part.targets {
        None => part.sequence.response.start,
        Some(targets) => targets.iter().min().copied().unwrap_or(1),
    };
    let from = parts.iter().map(first).min().unwrap_or(1).clamp(1, time) - 1;
    let kept = time - from;
    let hidden = model.hidden(tokens.clone(), taps).narrow(1, from, kept);
    let (logits, tokens) = (model.logits(hidden), tokens.narrow(1, from, kept));
    if parts.iter().all(|part| part.targets.is_none()) {
        let mut marks = Vec::with_capacity(batch * kept);
        for part in parts {
            marks.extend((from..time).map(|at| part.sequence.response.contains(&at)));
        }
        let marks = Tensor::<2, Bool>::from_data(TensorData::new(marks, [batch, kept]), device);
        return sequence_loss(logits, tokens, marks);
    }
    let targets: Vec<Vec<usize>> = parts
        .iter()
        .map(|part| {
            let all = || part.sequence.response.clone().collect();
            part.targets.clone().unwrap_or_else(all).into_iter().map(|at| at.wrapping_sub(from)).collect()
        })
        .collect();
    target_loss(logits, tokens, &targets)
}

/// What the model says to each prompt (greedily), the end of its turn included where it said so.
///
/// Each token takes a forward of the whole sequence: prompts are few here, and a cache of keys and values
/// would be code that nothing else needs.
///
/// # Errors
/// Of the device.
pub fn generate(
    model: &Llama,
    prompts: &[Vec<u32>],
    end: u32,
    most: usize,
    batch: usize,
) -> Result<Vec<Vec<u32>>, experiments::Failure> {
    let model = model.valid();
    let device = model.devices()[0].clone();
    let mut rows = prompts.to_vec();
    loop {
        let open: Vec<usize> = (0..rows.len())
            .filter(|row| {
                let said = &rows[*row][prompts[*row].len()..];
                said.len() < most && said.last() != Some(&end)
            })
            .collect();
        if open.is_empty() {
            break;
        }
        for open in open.chunks(batch) {
            let views: Vec<&[u32]> = open.iter().map(|row| rows[*row].as_slice()).collect();
            let tokens = padded(&views, &device);
            let [count, time] = tokens.dims();
            let hidden = model.hidden(tokens, &mut Taps::off());
            let [_, _, width] = hidden.dims();
            let last: Vec<i64> =
                views.iter().enumerate().map(|(row, ids)| (row * time + ids.len() - 1) as i64).collect();
            let last = Tensor::<1, Int>::from_data(last.as_slice(), &device);
            let hidden = hidden.reshape([count * time, width]).select(0, last).reshape([count, 1, width]);
            let best = model.logits(hidden).argmax(2).try_into_vec_as::<i64>()?;
            for (row, id) in open.iter().zip(best) {
                rows[*row].push(u32::try_from(id)?);
            }
        }
    }
    Ok(rows.iter().zip(prompts).map(|(row, prompt)| row[prompt.len()..].to_vec()).collect())
}
