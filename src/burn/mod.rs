//! Sketches of the gradients of a burn model.
//!
//! Works on every device of burn, chosen at run time. The caller provides the model, the loss and the
//! training. This module removes the gradients from the result of `backward()` and folds them one parameter
//! tensor at a time, so that no copy of the whole gradient exists.
//!
//! Two functions compute the same sketches:
//! - [`sketch_gradients`]: one example, one backward, the model's own gradients, of layers of any kind;
//! - [`sketch_examples`]: a batch of examples, one backward. The model's forward calls its layers through
//!   [`Taps`], which record the factors of each example's gradient.
//!
//! Under a `RapidGrad` spec, [`sketch_examples`] multiplies the factors out, a run of examples at a time, and
//! folds every element. Under a `Kronecker` spec it projects the factors instead, and no example's matrix ever
//! exists; such a spec takes matrices only.
//!
//! From the same backward, [`sketch_positions`] gives a sketch for each position of each example, or for spans
//! of positions, and [`sketch_steps`] one of what an Adam optimizer in a given state ([`AdamState`]) would do with each
//! example. [`Parameters`] tells whether rows and queries are of the same parameters.
//!
//! # Where the sums are made
//! `RapidGrad` sketches are summed where the gradients lie. On a device of wgpu or CUDA (features `wgpu`,
//! `cuda`) one kernel reads each gradient once, and the sums of the batch, 4 bytes a dimension and example, come to
//! the host in one transfer. On flex, the CPU device, the host folds. Host and devices have a fixed order of
//! sums each, so that their sketches differ by the rounding of `f32` additions only.
//!
//! A spec with [`PerTensor`](crate::sketch::Normalisation::PerTensor) is summed on the host on every device:
//! whole gradients are read from it, 4 bytes an element. Use `Normalisation::None` on a GPU.
//!
//! At the first sketch on a wgpu or CUDA device the kernels must give known answers (`check_device`), else the
//! sketch is refused with [`BurnError::DeviceCheck`]. A panic of the device's runtime during a fold is
//! [`BurnError::Device`].
//!
//! A parameter's name is its path in the module (`layers.0.attention.query.weight`), and the
//! parameters are folded in the order in which the module declares them.
//!
//! ```
//! use burn::{Tensor, module::Module, nn::{Linear, LinearConfig}, tensor::Device};
//! use gradix::burn::{Taps, sketch_examples, sketch_gradients};
//! use gradix::sketch::{SketchSpec, Sketcher};
//!
//! #[derive(Module, Debug)]
//! struct Model { hidden: Linear, head: Linear }
//!
//! impl Model {
//!     fn forward(&self, x: Tensor<2>, taps: &mut Taps) -> Tensor<2> {
//!         let hidden = taps.linear(&self.hidden, x).tanh();
//!         taps.linear(&self.head, hidden)
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let model = Model {
//!     hidden: LinearConfig::new(4, 8).init(&device),
//!     head: LinearConfig::new(8, 2).init(&device),
//! };
//! let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 64))?;
//! let x = Tensor::<2>::ones([3, 4], &device);
//!
//! // One example.
//! let loss = model.forward(x.clone().narrow(0, 0, 1), &mut Taps::off()).square().sum();
//! let one = sketch_gradients(&sketcher, &model, &mut loss.backward(), |_| true)?;
//!
//! // A batch of three: sum the losses, do not average them.
//! let mut taps = Taps::on();
//! let loss = model.forward(x, &mut taps).square().sum();
//! let three = sketch_examples(&sketcher, &model, taps, &mut loss.backward(), |_| true)?;
//! assert_eq!((one.values().len(), three.len()), (64, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod collect;
#[cfg(feature = "cubecl")]
mod device;
mod error;
mod examples;
mod factors;
mod folds;
mod gradients;
mod kronecker;
mod loss;
mod optimizer;
mod parameters;
mod positions;
mod spans;
mod taps;

#[cfg(feature = "cubecl")]
pub use device::check_device;
pub use error::BurnError;
pub use examples::sketch_examples;
pub use factors::for_each_example_gradient;
pub use gradients::{for_each_gradient, sketch_gradients};
pub use loss::{sequence_loss, target_loss};
pub use optimizer::{AdamState, sketch_steps};
pub use parameters::{Parameters, parameter_paths};
pub use positions::{sketch_positions, windows};
pub use taps::Taps;
