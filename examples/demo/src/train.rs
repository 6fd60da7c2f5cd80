//! Training, and what the trained model says.

use burn::Tensor;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, TensorData};
use experiments::Failure;
use experiments::trace::Encoded;
use experiments::training::{batches, rate};
use gradix::burn::Taps;

use super::model::{CONTEXT, Transformer};
use super::tokens::EOS;

/// How to train.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples in a step.
    pub batch: usize,
    /// The highest learning rate; it rises over the first twentieth of the steps and then falls to
    /// zero along a cosine.
    pub rate: f64,
    /// The optimiser's weight decay.
    pub decay: f32,
    /// Seed of the order of the examples.
    pub seed: u64,
}

/// Token ids as a tensor `[rows, longest]`, padded with `<eos>` at the end.
pub fn padded(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let time = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(rows.len() * time);
    for row in rows {
        ids.extend(row.iter().map(|id| *id as i32));
        ids.resize(ids.len() + time - row.len(), EOS as i32);
    }
    Tensor::from_data(TensorData::new(ids, [rows.len(), time]), device)
}

/// Trains on the responses of all examples; `progress` gets the step, the number of steps and the
/// step's mean loss for a token.
pub fn train(
    mut model: Transformer,
    examples: &[Encoded],
    schedule: &Schedule,
    mut progress: impl FnMut(usize, usize, f32),
) -> Transformer {
    let device = model.devices()[0].clone().autodiff();
    let mut optimiser = AdamWConfig::new().with_weight_decay(schedule.decay).with_beta_2(0.98).init();
    let steps = schedule.epochs * examples.len().div_ceil(schedule.batch);
    let mut step = 0;
    for epoch in 0..schedule.epochs {
        let of_length = |example: &Encoded| example.ids.len();
        for batch in batches(examples, of_length, schedule.batch, 16, schedule.seed, epoch as u64) {
            let loss = response_loss(&model, &batch, &device);
            let value = if step % 10 == 0 { loss.clone().into_scalar::<f32>() } else { f32::NAN };
            if value.is_finite() {
                progress(step, steps, value);
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimiser.step(rate(schedule.rate, step, steps), model, gradients);
            step += 1;
        }
    }
    model
}

/// Mean cross-entropy of all response tokens of a batch.
///
/// The same shift and mask as `gradix::burn::sequence_loss`, but only the positions that count go
/// through the head, which is where most of the work of a model this small is.
fn response_loss(model: &Transformer, batch: &[&Encoded], device: &Device) -> Tensor<1> {
    let rows: Vec<&[u32]> = batch.iter().map(|example| example.ids.as_slice()).collect();
    let tokens = padded(&rows, device);
    let [_, time] = tokens.dims();
    let (mut before, mut next) = (Vec::new(), Vec::new());
    for (row, example) in batch.iter().enumerate() {
        for at in example.response.clone() {
            before.push((row * time + at - 1) as i32);
            next.push(example.ids[at] as i32);
        }
    }
    let count = next.len();
    let before = Tensor::<1, Int>::from_ints(before.as_slice(), device);
    let next = Tensor::<1, Int>::from_ints(next.as_slice(), device).reshape([count, 1]);
    let hidden = model.hidden(tokens, &mut Taps::off()).flatten::<2>(0, 1).select(0, before);
    log_softmax(model.logits(hidden), 1).gather(1, next).mean().neg()
}

/// For each token of the response, the probabilities of all tokens in its place.
///
/// # Errors
/// The device cannot be read.
pub fn distributions(model: &Transformer, sequence: &Encoded) -> Result<Vec<Vec<f32>>, Failure> {
    let model = model.valid();
    let device = model.devices()[0].clone();
    let before: Vec<i32> = sequence.response.clone().map(|at| at as i32 - 1).collect();
    let before = Tensor::<1, Int>::from_ints(before.as_slice(), &device);
    let tokens = padded(&[&sequence.ids], &device);
    let hidden = model.hidden(tokens, &mut Taps::off()).flatten::<2>(0, 1).select(0, before);
    let probabilities = softmax(model.logits(hidden), 1);
    let [_, size] = probabilities.dims();
    Ok(probabilities.try_into_vec_as::<f32>()?.chunks(size).map(<[f32]>::to_vec).collect())
}

/// What the model says to each prompt (greedily), `<eos>` included where it said so.
pub fn generate(model: &Transformer, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let model = model.valid();
    let device = model.devices()[0].clone();
    let mut rows = prompts.to_vec();
    loop {
        let open: Vec<usize> =
            (0..rows.len()).filter(|row| !is_done(&rows[*row], prompts[*row].len())).collect();
        if open.is_empty() {
            break;
        }
        let views: Vec<&[u32]> = open.iter().map(|row| rows[*row].as_slice()).collect();
        let tokens = padded(&views, &device);
        let [_, time] = tokens.dims();
        let last: Vec<i32> =
            views.iter().enumerate().map(|(row, ids)| (row * time + ids.len() - 1) as i32).collect();
        let last = Tensor::<1, Int>::from_ints(last.as_slice(), &device);
        let hidden = model.hidden(tokens, &mut Taps::off()).flatten::<2>(0, 1).select(0, last);
        let best = model.logits(hidden).argmax(1).into_data().iter::<i64>().collect::<Vec<_>>();
        for (row, id) in open.into_iter().zip(best) {
            rows[row].push(id as u32);
        }
    }
    rows.iter().zip(prompts).map(|(row, prompt)| row[prompt.len()..].to_vec()).collect()
}

fn is_done(row: &[u32], prompt: usize) -> bool {
    row.len() >= CONTEXT || (row.len() > prompt && row.last() == Some(&EOS))
}
