//! The mixture fit.

use std::sync::Mutex;

use rayon::prelude::*;

use super::bootstrap::{Bootstrap, Interval};
use super::control::check;
use super::distribution;
use super::error::OperatorError;
use super::simplex::{Points, Symmetric, descend, project};
use crate::lock::lock;
use crate::scan::CancelToken;

/// Fits how much each source contributed to a model's outputs, from the outputs alone: the context mixture
/// factorisation of Fotouhi et al., "Fast training dataset attribution via in-context learning"
/// (arXiv:2408.11852, equations 4 to 7). The same question as [`BySource`](super::BySource), without gradients.
///
/// For each of several prompts the caller brings the model's distribution over the outputs without context,
/// `p`, and with context from each source k, `p_k`. The model is
///
/// ```text
/// p   = π₀ h₀ + Σ π_k h_k                π ≥ 0, Σ π = 1
/// p_k = π₀ h₀ + (1 − π₀) h_k             each h a distribution that nobody sees
/// ```
///
/// with `h₀` what the model knows from elsewhere, and `h_k` from source k. The shares π and the distributions
/// h are found by alternating projected least squares: for given π the h of each prompt, for given h the π, each
/// by accelerated gradients projected onto the simplex (Duchi et al. 2008), with [`ridge`](Mixture::ridge) times
/// the squared distance from equal numbers added (in place of the paper's entropy of π, so that both steps are
/// least squares). The bootstrap's replicates start from the fit of the data.
///
/// **What the data determine.** Putting the second line into the first leaves `p = Σ ρ_k p_k` with `ρ_k = π_k /
/// (1 − π₀)`. So the [relative shares](MixtureShare::relative) ρ follow from the data by one least-squares fit
/// over the simplex, without a ridge, and `π₀` does not: any `π₀` up to [`base_bound`](MixtureFit::base_bound)
/// explains the same outputs, and the ridge chooses. Report ρ, and π₀ with its bound.
///
/// Intervals are percentiles of a Poisson bootstrap over the prompts. The fits run on rayon's current threads;
/// the result depends on the seed alone. Memory: four times 8 bytes for each prompt, source and output, for each
/// thread, and 8 bytes for each prompt and replicate; time: for each replicate the same times [`iterations`](Mixture::iterations) at the most. So outputs
/// should be few: the answers of a question, or the most probable tokens and one for the rest. Prompts may have
/// different outputs.
///
/// ```
/// use gradix::operators::Mixture;
/// // Two prompts with the answers yes and no; two sources. The first explains what the model says.
/// let prompts = [
///     vec![[0.9f32, 0.1], [0.9, 0.1], [0.2, 0.8]],
///     vec![[0.2, 0.8], [0.2, 0.8], [0.6, 0.4]],
/// ];
/// let fit = Mixture::new().replicates(50).fit(&prompts)?;
/// assert!(fit.sources[0].relative > 0.99 && fit.sources[0].share > fit.sources[1].share);
/// # Ok::<(), gradix::operators::OperatorError>(())
/// ```
#[must_use = "an operator does nothing until it is run"]
pub struct Mixture<'a> {
    bootstrap: Bootstrap,
    ridge: f64,
    iterations: usize,
    cancel: CancelToken,
    progress: Option<Progress<'a>>,
}

type Progress<'a> = Box<dyn FnMut(usize, usize) + Send + 'a>;

/// A fitted mixture. Made by [`Mixture::fit`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MixtureFit {
    /// The share π₀ of what the model knows from elsewhere.
    pub base: f64,
    /// Its interval; `None` if no replicate has a prompt.
    pub base_interval: Option<Interval>,
    /// The greatest π₀ that the outputs allow: the least over the prompts of `Σ_y min_k p_k(y)`.
    pub base_bound: f64,
    /// The sources, in the order given.
    pub sources: Vec<MixtureShare>,
    /// How far the relative shares are from explaining the outputs: the root of the mean over the prompts of
    /// `‖p − Σ ρ_k p_k‖²`. From 0 to √2.
    pub residual: f64,
    /// How often the alternation went on.
    pub iterations: usize,
    /// Whether π then changed by less than 1e-8; if not, allow more iterations or a greater ridge.
    pub converged: bool,
    /// The replicates whose alternation did not converge.
    pub replicates_not_converged: usize,
}

/// The share of one source in a [`MixtureFit`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MixtureShare {
    /// π_k.
    pub share: f64,
    /// Its interval; `None` if no replicate has a prompt.
    pub share_interval: Option<Interval>,
    /// ρ_k, the share of what comes from the sources, by least squares alone.
    pub relative: f64,
    /// Its interval; `None` if no replicate has a prompt.
    pub relative_interval: Option<Interval>,
}

impl Default for Mixture<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The change of π below which the alternation has converged.
const TOLERANCE: f64 = 1e-8;
/// Gradient steps for the distributions of a prompt in each iteration, and for the shares.
const STEPS: (usize, usize) = (10, 200);
/// Gradient steps for the relative shares.
const RELATIVE_STEPS: usize = 3000;

impl<'a> Mixture<'a> {
    /// 1,000 replicates, 95% confidence, seed 0, a ridge of 1e-3, at most 2,000 iterations.
    pub fn new() -> Self {
        let (cancel, progress) = (CancelToken::new(), None);
        Self { bootstrap: Bootstrap::DEFAULT, ridge: 1e-3, iterations: 2000, cancel, progress }
    }

    /// The number of bootstrap replicates, from 1 to 1,000,000.
    pub fn replicates(mut self, replicates: usize) -> Self {
        self.bootstrap.replicates = replicates;
        self
    }

    /// The confidence of the intervals, above 0 and below 1.
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.bootstrap.confidence = confidence;
        self
    }

    /// The seed of the replicates.
    pub fn seed(mut self, seed: u64) -> Self {
        self.bootstrap.seed = seed;
        self
    }

    /// The weight of the squared distances from equal shares and from uniform distributions, above 0. A greater
    /// one draws π towards equal shares; without one there would be many solutions.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = ridge;
        self
    }

    /// The maximum number of iterations, at least 1. [`MixtureFit::converged`] tells whether they sufficed.
    pub fn iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// A token that cancels the fit, from another thread or from the progress callback.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Sets a callback for progress, called with the fits that are done, of the data and of the replicates, and
    /// their number.
    pub fn progress(mut self, progress: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Fits the shares. For each prompt: the distribution without context, then that with the context of each
    /// source, over the same outputs. A sum may differ from 1 by 1e-3, and is divided out.
    ///
    /// # Errors
    /// A setting is impossible; there is no prompt or no source, prompts have different numbers of sources, or
    /// something is no distribution; the fit was cancelled.
    pub fn fit<D: AsRef<[f32]>>(self, prompts: &[Vec<D>]) -> Result<MixtureFit, OperatorError> {
        self.check()?;
        let data = Data::new(prompts)?;
        let total = self.bootstrap.replicates + 1;
        let progress = Mutex::new((self.progress, 0));
        let done = || {
            let (progress, done) = &mut *lock(&progress);
            *done += 1;
            if let Some(progress) = progress {
                progress(*done, total);
            }
        };
        let solver =
            Solver { data: &data, ridge: self.ridge, iterations: self.iterations, cancel: &self.cancel };
        let of_data = solver.solve(&vec![1.0; prompts.len()], None)?;
        done();
        let mut times: Vec<Vec<f64>> = vec![vec![0.0; prompts.len()]; self.bootstrap.replicates];
        let mut of_prompt = Vec::new();
        for prompt in 0..prompts.len() {
            self.bootstrap.times(format!("prompt {prompt}").as_bytes(), &mut of_prompt);
            times.iter_mut().zip(&of_prompt).for_each(|(times, &count)| times[prompt] = f64::from(count));
        }
        let replicate = |times: &Vec<f64>| -> Result<Option<Solution>, OperatorError> {
            let solve = || {
                solver
                    .solve(times, Some(&of_data))
                    .map(|solution| Solution { hidden: Vec::new(), ..solution })
            };
            let solution = times.iter().any(|times| *times > 0.0).then(solve).transpose()?;
            done();
            Ok(solution)
        };
        let replicates = times.par_iter().map(replicate).collect::<Result<Vec<_>, _>>()?;
        let replicates: Vec<_> = replicates.into_iter().flatten().collect();
        let interval =
            |of: &dyn Fn(&Solution) -> f64| self.bootstrap.interval(replicates.iter().map(of).collect());
        let sources = (0..data.sources).map(|source| MixtureShare {
            share: of_data.shares[source + 1],
            share_interval: interval(&|solution| solution.shares[source + 1]),
            relative: of_data.relative[source],
            relative_interval: interval(&|solution| solution.relative[source]),
        });
        Ok(MixtureFit {
            base: of_data.shares[0],
            base_interval: interval(&|solution| solution.shares[0]),
            base_bound: data.base_bound(),
            sources: sources.collect(),
            residual: data.residual(&of_data.relative),
            iterations: of_data.iterations,
            converged: of_data.converged,
            replicates_not_converged: replicates.iter().filter(|solution| !solution.converged).count(),
        })
    }

    fn check(&self) -> Result<(), OperatorError> {
        self.bootstrap.check()?;
        if !(self.ridge > 0.0 && self.ridge.is_finite()) {
            let (setting, given) = ("ridge", self.ridge);
            return Err(OperatorError::Setting { setting, given, expected: "finite and above 0" });
        }
        if self.iterations == 0 {
            let setting = "iterations";
            return Err(OperatorError::Setting { setting, given: 0.0, expected: "at least 1" });
        }
        check(&self.cancel)
    }
}

impl std::fmt::Debug for Mixture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bootstrap, ridge, iterations, .. } = self;
        let mut debug = f.debug_struct("Mixture");
        debug.field("bootstrap", bootstrap).field("ridge", ridge).field("iterations", iterations);
        debug.finish_non_exhaustive()
    }
}

/// The distributions, normalised.
struct Data {
    sources: usize,
    prompts: Vec<Prompt>,
}

struct Prompt {
    outputs: usize,
    /// For no context and each source: a number for each output.
    seen: Vec<f64>,
}

struct Solution {
    /// π₀, π₁, ...
    shares: Vec<f64>,
    /// h₀, h₁, ... of each prompt.
    hidden: Vec<Vec<f64>>,
    relative: Vec<f64>,
    iterations: usize,
    converged: bool,
}

impl Data {
    fn new<D: AsRef<[f32]>>(prompts: &[Vec<D>]) -> Result<Self, OperatorError> {
        let Some(first) = prompts.first() else {
            return Err(OperatorError::Lengths { what: "prompts", given: 0, expected: 1 });
        };
        let expected = first.len().max(2);
        let of_prompt = |(at, prompt): (usize, &Vec<D>)| {
            if prompt.len() != expected {
                let (what, given) = ("distributions of a prompt", prompt.len());
                return Err(OperatorError::Lengths { what, given, expected });
            }
            let outputs = prompt[0].as_ref().len();
            let mut seen = Vec::with_capacity(outputs * prompt.len());
            for (source, numbers) in prompt.iter().enumerate() {
                let what = || match source {
                    0 => format!("that of prompt {at} without context"),
                    source => format!("that of prompt {at} with context from source {}", source - 1),
                };
                let sum = distribution::check(numbers.as_ref(), outputs, what)?;
                seen.extend(numbers.as_ref().iter().map(|number| f64::from(*number) / sum));
            }
            Ok(Prompt { outputs, seen })
        };
        let prompts = prompts.iter().enumerate().map(of_prompt).collect::<Result<_, _>>()?;
        Ok(Self { sources: expected - 1, prompts })
    }

    fn base_bound(&self) -> f64 {
        let of_prompt = |prompt: &Prompt| -> f64 {
            let of_output =
                |output: usize| prompt.rows().skip(1).map(|with| with[output]).fold(f64::INFINITY, f64::min);
            (0..prompt.outputs).map(of_output).sum()
        };
        // A sum of rounded numbers may be a little above 1.
        self.prompts.iter().map(of_prompt).fold(1.0, f64::min)
    }

    fn residual(&self, relative: &[f64]) -> f64 {
        let of_prompt = |prompt: &Prompt| -> f64 {
            let of_output = |output: usize| {
                let explained: f64 =
                    prompt.rows().skip(1).zip(relative).map(|(with, share)| share * with[output]).sum();
                (prompt.seen[output] - explained).powi(2)
            };
            (0..prompt.outputs).map(of_output).sum()
        };
        (self.prompts.iter().map(of_prompt).sum::<f64>() / self.prompts.len() as f64).sqrt()
    }
}

impl Prompt {
    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.seen.chunks_exact(self.outputs)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

struct Solver<'s> {
    data: &'s Data,
    ridge: f64,
    iterations: usize,
    cancel: &'s CancelToken,
}

impl Solver<'_> {
    /// Alternates from a solution, or from equal shares and uniform distributions. `weights` has a number for each
    /// prompt, one of them above 0.
    ///
    /// The shares are extrapolated from iteration to iteration (Nesterov's momentum), and the momentum starts again
    /// when it points back (O'Donoghue and Candès, "Adaptive restart for accelerated gradient schemes", 2015): a
    /// fifth of the iterations for the same solution.
    fn solve(&self, weights: &[f64], from: Option<&Solution>) -> Result<Solution, OperatorError> {
        let total: f64 = weights.iter().sum();
        let size = self.data.sources + 1;
        let uniform = |prompt: &Prompt| vec![1.0 / prompt.outputs as f64; prompt.seen.len()];
        let (mut prompts, mut hidden) = (Vec::new(), Vec::new());
        for (at, (prompt, weight)) in self.data.prompts.iter().zip(weights).enumerate() {
            if *weight > 0.0 {
                prompts.push((prompt, weight / total));
                hidden.push(from.map_or_else(|| uniform(prompt), |from| from.hidden[at].clone()));
            }
        }
        let mut shares = from.map_or_else(|| vec![1.0 / size as f64; size], |from| from.shares.clone());
        let (mut ahead, mut pace, mut rest) = (shares.clone(), 1f64, Vec::new());
        let (mut iterations, mut converged) = (0, false);
        while iterations < self.iterations && !converged {
            check(self.cancel)?;
            iterations += 1;
            self.improve_hidden(&prompts, &ahead, &mut hidden);
            let mut next = ahead.clone();
            self.improve_shares(&prompts, &hidden, &mut next);
            converged = next.iter().zip(&ahead).all(|(next, ahead)| (next - ahead).abs() < TOLERANCE);
            let turned: f64 = next
                .iter()
                .zip(&ahead)
                .zip(&shares)
                .map(|((next, ahead), shares)| (next - ahead) * (next - shares))
                .sum();
            let faster = if turned < 0.0 { 1.0 } else { 0.5 * (1.0 + (1.0 + 4.0 * pace * pace).sqrt()) };
            let momentum = if turned < 0.0 { 0.0 } else { (pace - 1.0) / faster };
            pace = faster;
            let steps = next.iter().zip(&shares).map(|(next, shares)| next + momentum * (next - shares));
            ahead = steps.collect();
            project(&mut ahead, &mut rest);
            shares = next;
        }
        Ok(Solution { shares, hidden, relative: self.relative(&prompts), iterations, converged })
    }

    /// With the shares, `P = Π H` for each prompt: the first row of Π is π, row k has π₀ at 0 and 1 - π₀ at k.
    fn improve_hidden(&self, prompts: &[(&Prompt, f64)], shares: &[f64], hidden: &mut [Vec<f64>]) {
        let (size, base, own) = (shares.len(), shares[0], 1.0 - shares[0]);
        let entry = |row: usize, column: usize| match (row, column) {
            (0, column) => shares[column],
            (_, 0) => base,
            (row, column) => f64::from(u8::from(row == column)) * own,
        };
        let mut a = Symmetric::zeros(size);
        for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
            let products: f64 = (0..size).map(|row| entry(row, i) * entry(row, j)).sum();
            *a.at(i, j) = products + if i == j { self.ridge } else { 0.0 };
        }
        for ((prompt, _), hidden) in prompts.iter().zip(hidden) {
            let mut b = vec![self.ridge / prompt.outputs as f64; prompt.seen.len()];
            for (column, b) in b.chunks_exact_mut(prompt.outputs).enumerate() {
                for (row, seen) in prompt.rows().enumerate() {
                    let factor = entry(row, column);
                    b.iter_mut().zip(seen).for_each(|(b, seen)| *b += factor * seen);
                }
            }
            descend(&a, &b, hidden, Points::Rows, STEPS.0);
        }
    }

    /// With the distributions, `p = Σ π_k h_k` and `p_k - h_k = π₀ (h₀ - h_k)`.
    fn improve_shares(&self, prompts: &[(&Prompt, f64)], hidden: &[Vec<f64>], shares: &mut [f64]) {
        let size = shares.len();
        let mut a = Symmetric::zeros(size);
        let mut b = vec![self.ridge / size as f64; size];
        (0..size).for_each(|i| *a.at(i, i) = self.ridge);
        for ((prompt, weight), hidden) in prompts.iter().zip(hidden) {
            let rows: Vec<&[f64]> = hidden.chunks_exact(prompt.outputs).collect();
            let seen: Vec<&[f64]> = prompt.rows().collect();
            for (i, row) in rows.iter().enumerate() {
                b[i] += weight * dot(row, seen[0]);
                for (j, other) in rows.iter().enumerate() {
                    *a.at(i, j) += weight * dot(row, other);
                }
            }
            for (hidden, seen) in rows.iter().zip(&seen).skip(1) {
                let terms = rows[0].iter().zip(*hidden).zip(*seen);
                let (square, product) = terms.fold((0.0, 0.0), |(square, product), ((base, own), seen)| {
                    let difference = base - own;
                    (square + difference * difference, product + difference * (seen - own))
                });
                *a.at(0, 0) += weight * square;
                b[0] += weight * product;
            }
        }
        descend(&a, &b, shares, Points::Column, STEPS.1);
    }

    /// The least-squares fit of `p = Σ ρ_k p_k`.
    fn relative(&self, prompts: &[(&Prompt, f64)]) -> Vec<f64> {
        let sources = self.data.sources;
        let (mut a, mut b) = (Symmetric::zeros(sources), vec![0.0; sources]);
        for (prompt, weight) in prompts {
            let seen: Vec<&[f64]> = prompt.rows().collect();
            for (i, row) in seen.iter().skip(1).enumerate() {
                b[i] += weight * dot(row, seen[0]);
                for (j, other) in seen.iter().skip(1).enumerate() {
                    *a.at(i, j) += weight * dot(row, other);
                }
            }
        }
        let mut relative = vec![1.0 / sources as f64; sources];
        descend(&a, &b, &mut relative, Points::Column, RELATIVE_STEPS);
        relative
    }
}
