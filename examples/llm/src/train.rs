//! Fine-tuning: `AdamW` on the adapters, the loss of the responses alone.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use experiments::draws::Draws;
use gradix::burn::Taps;

use crate::Failure;
use crate::batch::{Part, losses};
use crate::model::Llama;
use crate::tokens::Encoded;

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
        for batch in batches(examples, schedule, epoch as u64) {
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

fn rate(highest: f64, step: usize, steps: usize) -> f64 {
    let warm = (steps / 20).max(1);
    if step < warm {
        return highest * (step + 1) as f64 / warm as f64;
    }
    let done = (step - warm) as f64 / (steps - warm).max(1) as f64;
    highest * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// The epoch's batches: in a random order, but with examples of about the same length together.
fn batches<'a>(examples: &'a [Encoded], schedule: &Schedule, epoch: u64) -> Vec<Vec<&'a Encoded>> {
    let mut draws = Draws(schedule.seed ^ epoch.wrapping_mul(0xd134_2543_de82_ef95));
    let mut order: Vec<&Encoded> = examples.iter().collect();
    draws.shuffle(&mut order);
    for group in order.chunks_mut(8 * schedule.batch) {
        group.sort_by_key(|example| example.ids.len());
    }
    let mut batches: Vec<Vec<&Encoded>> = order.chunks(schedule.batch).map(<[&Encoded]>::to_vec).collect();
    draws.shuffle(&mut batches);
    batches
}
