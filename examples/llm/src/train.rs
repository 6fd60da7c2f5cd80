//! Fine-tuning: `AdamW` on the adapters, the loss of the responses alone.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use experiments::Failure;
use experiments::trace::Encoded;
use experiments::training::{batches, rate};
use gradix::burn::Taps;

use crate::batch::{Part, losses};
use crate::model::Llama;

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
    /// Seed of the order of the examples.
    pub seed: u64,
}

/// Trains the adapters; `progress` gets the step, the number of steps, the step's mean loss and its tokens.
///
/// # Errors
/// Of the loss or the device.
pub fn train(
    mut model: Llama,
    examples: &[Encoded],
    schedule: &Schedule,
    mut progress: impl FnMut(usize, usize, f32, usize),
) -> Result<Llama, Failure> {
    let device = model.devices()[0].clone().autodiff();
    let mut optimiser = AdamWConfig::new().with_weight_decay(0.0).init();
    let steps = schedule.epochs * examples.len().div_ceil(schedule.batch);
    let mut step = 0;
    for epoch in 0..schedule.epochs {
        let of_length = |example: &Encoded| example.ids.len();
        for batch in batches(examples, of_length, schedule.batch, 8, schedule.seed, epoch as u64) {
            let parts: Vec<Part<'_>> =
                batch.iter().map(|sequence| Part { sequence, targets: None }).collect();
            let loss = losses(&model, &parts, &device, &mut Taps::off())?.mean();
            let value = loss.clone().into_scalar::<f32>();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimiser.step(rate(schedule.rate, step, steps), model, gradients);
            step += 1;
            progress(step, steps, value, batch.iter().map(|example| example.ids.len()).sum());
        }
    }
    Ok(model)
}
