//! The order of training, its rate, and how it is shown.

use indicatif::{ProgressBar, ProgressStyle};

use crate::draws::Draws;

/// The rate of a step: it rises to the highest over the first twentieth of the steps, and then falls to zero along
/// a cosine.
#[must_use]
pub fn rate(highest: f64, step: usize, steps: usize) -> f64 {
    let warm = (steps / 20).max(1);
    if step < warm {
        return highest * (step + 1) as f64 / warm as f64;
    }
    let done = (step - warm) as f64 / (steps - warm).max(1) as f64;
    highest * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// An epoch's batches: in a random order, but with examples of about the same length together. `group` batches are
/// sorted by length at a time.
pub fn batches<T>(
    examples: &[T],
    length: impl Fn(&T) -> usize,
    batch: usize,
    group: usize,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<&T>> {
    let mut draws = Draws(seed ^ epoch.wrapping_mul(0xd134_2543_de82_ef95));
    let mut order: Vec<&T> = examples.iter().collect();
    draws.shuffle(&mut order);
    for group in order.chunks_mut(group * batch) {
        group.sort_by_key(|example| length(example));
    }
    let mut batches: Vec<Vec<&T>> = order.chunks(batch).map(<[&T]>::to_vec).collect();
    draws.shuffle(&mut batches);
    batches
}

/// A progress bar with a name, for a terminal.
#[must_use]
pub fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::new(length).with_prefix(what);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
