//! Adam's normalised step of each example's gradient, instead of the gradient.

use std::collections::{BTreeMap, HashMap};

use super::BurnError;
use super::factors::Factors;
use super::folds::Folds;
use super::kronecker::Sums;
use super::parameters::hexadecimal;
use super::taps::Taps;
use crate::sketch::{OptimizerStep, Sketch, Sketcher, SketcherKind};
use ::burn::Tensor;
use ::burn::module::Module;
use ::burn::optim::OptimizerRecord;
use ::burn::store::RecordError;
use ::burn::tensor::{DType, Device, Gradients, TensorData};
use sha2::{Digest as _, Sha256};

/// Adam's settings and its moments of each parameter, as they were at some step of a training run.
///
/// [`sketch_steps`] computes from it what Adam would do next, were one example the whole batch. For the
/// gradient g of a parameter whose moments m and v have seen t steps, the step is (Kingma and Ba 2014,
/// arXiv:1412.6980, algorithm 1)
///
/// ```text
/// m' = β1 m + (1 - β1) g
/// v' = β2 v + (1 - β2) g²
/// step = m' / (1 - β1^(t+1)) / (√(v' / (1 - β2^(t+1))) + ε)
/// ```
///
/// element by element in f32, of which LESS (Xia et al. 2024, arXiv:2402.04333) ranks the inner products with
/// plain gradients of queries. It is what burn's `Adam` and `AdamW` subtract, times the learning rate, when they
/// decay no weights and clip no gradients. Weight decay is no part of it: it is no function of the example.
/// (The program that LESS published leaves out both corrections and has ε within the root: `m' / √(v' + ε)`.)
///
/// The state is of one optimizer with one set of settings. Use [`AdamState::from_record`] for burn's own
/// optimizers; [`AdamState::insert`] for moments from anywhere else.
///
/// ```
/// use burn::module::{AutodiffModule, Module};
/// use burn::{Tensor, nn::LinearConfig, optim::{AdamWConfig, GradientsParams}, tensor::Device};
/// use gradix::burn::{AdamState, Taps, sketch_steps};
/// use gradix::sketch::{SketchSpec, Sketcher};
///
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(4, 2).init(&device);
/// let x = Tensor::<2>::ones([3, 4], &device);
/// let mut optimizer = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8).init();
/// let gradients = GradientsParams::from_grads(model.forward(x.clone()).mean().backward(), &model);
/// let model = optimizer.step(1e-3, model, gradients);
///
/// let state = AdamState::from_record(optimizer.to_record(), 0.9, 0.999, 1e-8)?;
/// let spec = SketchSpec::rapid_grad(7, 64).with_optimizer(state.step());
/// let rows = Sketcher::new(spec)?;
/// let mut taps = Taps::on();
/// let loss = taps.linear(&model, x).square().sum();
/// let sketches = sketch_steps(&rows, &model, taps, &mut loss.backward(), |_| true, &state)?;
/// assert_eq!(sketches.len(), 3);
/// // Queries are plain gradients.
/// let queries = Sketcher::new(rows.spec().for_queries())?;
/// assert!(rows.spec().takes_queries_of(queries.spec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AdamState {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    moments: BTreeMap<String, Moments>,
    /// The digest of several states, of which this is one.
    together: Option<String>,
}

/// The moments of one parameter.
#[derive(Debug, Clone)]
struct Moments {
    steps: u64,
    shape: Vec<usize>,
    /// `[1, elements]`, f32.
    first: Tensor<2>,
    /// The same.
    second: Tensor<2>,
    digest: String,
}

impl AdamState {
    /// Settings alone, without the moments of any parameter.
    #[must_use]
    pub fn new(beta_1: f32, beta_2: f32, epsilon: f32) -> Self {
        Self { beta_1, beta_2, epsilon, moments: BTreeMap::new(), together: None }
    }

    /// Adds the moments of the parameter at this path after `steps` steps, both of the parameter's shape. Others of
    /// the same path are replaced. Moments of another type than f32 are converted.
    ///
    /// # Errors
    /// [`BurnError::InvalidState`] if the shapes differ, if `steps` is 0, for a number that is not finite, or a
    /// negative second moment; [`BurnError::Read`] if the device fails.
    pub fn insert<const D: usize>(
        &mut self,
        path: impl Into<String>,
        steps: u64,
        first: Tensor<D>,
        second: Tensor<D>,
    ) -> Result<(), BurnError> {
        let path = path.into();
        let shapes = [first.dims().to_vec(), second.dims().to_vec()];
        let read = |tensor: Tensor<D>| {
            let values = tensor.try_into_vec_as::<f32>();
            values.map_err(|source| BurnError::Read { tensor: path.clone(), source })
        };
        let values = [read(first)?, read(second)?];
        self.insert_values(path, steps, shapes, values)
    }

    /// The state of burn's `Adam` or `AdamW`, of `optimizer.to_record()` or `OptimizerRecord::load(file)`.
    ///
    /// The record has no settings: give those of the optimizer's configuration. Parameters go by their paths in
    /// the module that was trained. The host holds the whole state, and a copy while it is read.
    ///
    /// # Errors
    /// - [`BurnError::Record`] if burn cannot write the record out;
    /// - [`BurnError::InvalidState`] names a parameter whose state is not that of these optimizers, has been
    ///   recorded without a path, or is of the variant AMSGrad, whose step is another; and as
    ///   [`AdamState::insert`].
    pub fn from_record(
        record: OptimizerRecord,
        beta_1: f32,
        beta_2: f32,
        epsilon: f32,
    ) -> Result<Self, BurnError> {
        let of_pack = |error| BurnError::Record { source: RecordError::from(error) };
        // The bytes are the only way to what a record holds.
        let bytes = record.into_bytes().map_err(|source| BurnError::Record { source })?;
        let pack = burn_pack::Reader::from_bytes(bytes).map_err(of_pack)?;
        let paths = pack.metadata().clone();
        let scalars = pack.scalars().clone();
        let mut tensors: HashMap<String, TensorData> = HashMap::new();
        for tensor in pack.into_tensors().map_err(of_pack)? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(of_pack)?;
            let data = TensorData::try_from_bytes(bytes, shape, dtype)
                .map_err(|source| invalid(&name, source.to_string()))?;
            tensors.insert(name, data);
        }
        let mut state = Self::new(beta_1, beta_2, epsilon);
        // Every parameter with a state has this number, whatever the optimizer.
        for id in scalars.keys().filter_map(|name| name.strip_suffix(".__rank")) {
            let path = paths.get(id).ok_or_else(|| invalid(id, "the record has no path for it"))?;
            let steps =
                scalars.get(&format!("{id}.momentum.time")).and_then(|&time| u64::try_from(time).ok());
            let mut moment = |name: &str| tensors.remove(&format!("{id}.momentum.{name}"));
            if moment("max_moment_2").is_some() {
                return Err(invalid(path, "it is of AMSGrad, which divides by another moment"));
            }
            let (Some(steps), Some(first), Some(second)) = (steps, moment("moment_1"), moment("moment_2"))
            else {
                return Err(invalid(path, "it is not that of Adam or AdamW"));
            };
            let shapes = [first.shape().to_vec(), second.shape().to_vec()];
            let read = |data: TensorData| {
                data.try_into_vec_as::<f32>().map_err(|source| invalid(path, source.to_string()))
            };
            let values = [read(first)?, read(second)?];
            state.insert_values(path.clone(), steps, shapes, values)?;
        }
        Ok(state)
    }

    fn insert_values(
        &mut self,
        path: String,
        steps: u64,
        [shape, other]: [Vec<usize>; 2],
        [first, second]: [Vec<f32>; 2],
    ) -> Result<(), BurnError> {
        if shape != other {
            return Err(invalid(&path, format!("its moments have the shapes {shape:?} and {other:?}")));
        }
        if steps == 0 {
            return Err(invalid(&path, "moments after 0 steps do not exist"));
        }
        if let Some(at) = first.iter().position(|value| !value.is_finite()) {
            return Err(invalid(&path, format!("element {at} of its first moment is {}", first[at])));
        }
        // The root of a negative number is none.
        if let Some(at) = second.iter().position(|value| !value.is_finite() || *value < 0.0) {
            return Err(invalid(&path, format!("element {at} of its second moment is {}", second[at])));
        }
        let mut hash = Sha256::new();
        for value in first.iter().chain(&second) {
            hash.update(value.to_le_bytes());
        }
        let device = Device::flex();
        let tensor = |values: Vec<f32>| {
            let dims = [1, values.len()];
            Tensor::from_data(TensorData::new(values, dims), (&device, DType::F32))
        };
        let (first, second, digest) = (tensor(first), tensor(second), hexadecimal(hash));
        self.moments.insert(path, Moments { steps, shape, first, second, digest });
        // What was joined is not this state any more.
        self.together = None;
        Ok(())
    }

    /// The same state with its moments on a device, where [`sketch_steps`] needs them. Without it, they are moved
    /// there for every batch.
    ///
    /// # Errors
    /// [`BurnError::Read`] if a device fails.
    pub fn on(mut self, device: &Device) -> Result<Self, BurnError> {
        for (path, moments) in &mut self.moments {
            moments.first = moved(path, &moments.first, device)?;
            moments.second = moved(path, &moments.second, device)?;
        }
        Ok(self)
    }

    /// Gives the states of several checkpoints a common digest, so that all have the same [`AdamState::step`] and a
    /// spec can record it. A row is then the sum of the checkpoints' sketches, as
    /// [`Collector::checkpoints`](super::collect::Collector::checkpoints) makes it.
    ///
    /// # Errors
    /// [`BurnError::OtherState`] if settings differ.
    pub fn join(states: &mut [Self]) -> Result<(), BurnError> {
        if let [first, others @ ..] = &*states {
            let is_other =
                |state: &&Self| state.settings().map(f32::to_bits) != first.settings().map(f32::to_bits);
            if let Some(other) = others.iter().find(is_other) {
                let (spec, state) = (Some(Box::new(first.step())), Box::new(other.step()));
                return Err(BurnError::OtherState { spec, state });
            }
        }
        let mut hash = Sha256::new();
        for state in &*states {
            hash.update(format!("{}\n", state.digest()));
        }
        let together = hexadecimal(hash);
        for state in states {
            state.together = Some(together.clone());
        }
        Ok(())
    }

    /// What a spec records ([`SketchSpec::with_optimizer`](crate::sketch::SketchSpec::with_optimizer)): the settings
    /// and the digest of this state, or of those that it was [joined](AdamState::join) with.
    #[must_use]
    pub fn step(&self) -> OptimizerStep {
        let digest = self.together.clone().unwrap_or_else(|| self.digest());
        OptimizerStep::adam(self.beta_1, self.beta_2, self.epsilon, digest)
    }

    /// The digest of the moments: the SHA-256, as `sha256:` and 64 hexadecimal digits, of one line for each parameter
    /// in the order of their paths, `path shape steps digest`, where the shape is like `4x8`, the digest is that of
    /// the first and then the second moment as little-endian f32 in row-major order, and each line ends with a line
    /// feed.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, Moments { steps, shape, digest, .. }) in &self.moments {
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            hash.update(format!("{path} {} {steps} {digest}\n", sizes.join("x")));
        }
        hexadecimal(hash)
    }

    /// The paths of the parameters that have moments.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.moments.keys().map(String::as_str)
    }

    fn settings(&self) -> [f32; 3] {
        [self.beta_1, self.beta_2, self.epsilon]
    }

    /// The moments of a parameter.
    fn find(&self, path: &str, shape: &[usize]) -> Result<&Moments, BurnError> {
        let parameter = || path.to_owned();
        let Some(moments) = self.moments.get(path) else {
            return Err(BurnError::NoState { parameter: parameter() });
        };
        if moments.shape != shape {
            let (state, expected) = (moments.shape.clone(), shape.to_vec());
            return Err(BurnError::StateShape { parameter: parameter(), state, expected });
        }
        Ok(moments)
    }

    /// The steps of gradients `[rows, elements]`.
    fn steps(&self, path: &str, moments: &Moments, gradients: Tensor<2>) -> Result<Tensor<2>, BurnError> {
        let gradients = gradients.cast(DType::F32);
        let device = gradients.device();
        let first = moved(path, &moments.first, &device)?;
        let second = moved(path, &moments.second, &device)?;
        let time = (moments.steps + 1) as f64;
        // What multiplies gradient and moment: the decay's weights, over the correction.
        let weights = |beta: f32| {
            let beta = f64::from(beta);
            let correction = 1.0 - beta.powf(time);
            ((1.0 - beta) / correction, beta / correction)
        };
        let ((new_1, old_1), (new_2, old_2)) = (weights(self.beta_1), weights(self.beta_2));
        let root = (gradients.clone().square().mul_scalar(new_2) + second.mul_scalar(old_2)).sqrt();
        Ok((gradients.mul_scalar(new_1) + first.mul_scalar(old_1)) / root.add_scalar(self.epsilon))
    }
}

/// The tensor on another device.
fn moved(path: &str, tensor: &Tensor<2>, device: &Device) -> Result<Tensor<2>, BurnError> {
    if tensor.device() == *device {
        return Ok(tensor.clone());
    }
    let dims = tensor.dims();
    let values = tensor
        .clone()
        .try_into_vec_as::<f32>()
        .map_err(|source| BurnError::Read { tensor: path.to_owned(), source })?;
    let moved = Tensor::<2>::from_data(TensorData::new(values, dims), (device, DType::F32));
    Ok(moved.without_autodiff())
}

fn invalid(parameter: &str, reason: impl Into<String>) -> BurnError {
    BurnError::InvalidState { parameter: parameter.to_owned(), reason: reason.into() }
}

/// Computes the sketches of Adam's steps of all examples of a batch, in the order of the batch: what each example
/// alone would make the optimizer do. See [`AdamState`] for the formula.
///
/// The other arguments are those of [`sketch_examples`](super::sketch_examples), and the losses are summed, not
/// averaged. The sketcher's spec must record exactly this state ([`AdamState::step`]); queries are sketches of plain
/// gradients under its [`for_queries`](crate::sketch::SketchSpec::for_queries).
///
/// A step is no linear function of the gradient, so it needs each example's whole gradient, under a `Kronecker` spec
/// too: there it is multiplied out, at most 2^24 elements or one example at a time, and then projected. For the same
/// reason, there are no steps of positions. An element above 1.8e19, whose square is no f32, has the step 0, as in burn.
///
/// # Errors
/// - [`BurnError::OtherState`] if the spec records another step, or none;
/// - [`BurnError::NoState`] for a selected parameter without moments, [`BurnError::StateShape`] if they have another
///   shape;
/// - the others of [`sketch_examples`](super::sketch_examples).
pub fn sketch_steps<M: Module>(
    sketcher: &Sketcher,
    model: &M,
    taps: Taps,
    gradients: &mut Gradients,
    select: impl Fn(&str) -> bool,
    state: &AdamState,
) -> Result<Vec<Sketch>, BurnError> {
    let step = state.step();
    if sketcher.spec().optimizer() != Some(&step) {
        let spec = sketcher.spec().optimizer().cloned().map(Box::new);
        return Err(BurnError::OtherState { spec, state: Box::new(step) });
    }
    let factors = Factors::of(model, taps, gradients, select)?;
    // Before anything is computed.
    for parameter in factors.selected() {
        state.find(&parameter.path, &parameter.shape)?;
    }
    let is_kronecker = matches!(sketcher.spec().sketcher(), SketcherKind::Kronecker { .. });
    let rows = factors.rows();
    let mut folds = Folds::start(sketcher, rows);
    let mut sums = Sums::new(sketcher);
    for parameter in factors.selected() {
        let moments = state.find(&parameter.path, &parameter.shape)?;
        let mut parts = Vec::new();
        factors.for_each_gradient_of(parameter, |first, gradients| {
            let steps = state.steps(&parameter.path, moments, gradients)?;
            if is_kronecker {
                parts.push(sums.project(&parameter.path, &parameter.shape, steps)?);
                return Ok(());
            }
            folds.add(&parameter.path, first, steps)
        })?;
        sums.add_parts(parts);
    }
    if is_kronecker { sums.finish(rows) } else { folds.finish() }
}
