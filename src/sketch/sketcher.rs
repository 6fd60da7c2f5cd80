//! The sketcher and the sketch under construction, of every kind of spec that gradix computes itself.

#[cfg(feature = "burn")]
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "cubecl")]
use super::Normalisation;
#[cfg(feature = "cubecl")]
use super::fold::Gather;
use super::fold::{self, FoldKernel, RapidGrad};
use super::kronecker::{Kronecker, Projections};
use super::{Sketch, SketchError, SketchSpec, SketcherKind};

/// Computes the sketches of gradients under a `RapidGrad` or `Kronecker` spec.
///
/// Cheap to clone; many threads can use one at once, each for another example. A sketch depends only on the
/// spec, the tensors and their order, never on the machine or the thread.
///
/// ```
/// use gradix::sketch::{SketchSpec, Sketcher};
/// let sketcher = Sketcher::new(SketchSpec::rapid_grad(7, 16))?;
/// let mut fold = sketcher.start();
/// fold.add("layers.0.weight", &[0.5, -1.0, 2.0])?;
/// fold.add("layers.0.bias", &[4.0])?;
/// let sketch = fold.finish()?;
/// assert_eq!(sketch.values().len(), 16);
/// # Ok::<(), gradix::sketch::SketchError>(())
/// ```
#[derive(Clone)]
pub struct Sketcher {
    spec: Arc<SketchSpec>,
    method: Method,
    kernel: FoldKernel,
    /// Stands before each parameter's name; ends with a `.` unless it is empty.
    prefix: Arc<str>,
}

#[derive(Clone)]
enum Method {
    RapidGrad(Arc<RapidGrad>),
    Kronecker(Arc<Kronecker>),
}

impl Sketcher {
    /// A sketcher for this spec, on the fastest kernel that the machine supports.
    ///
    /// # Errors
    /// [`SketchError::InvalidSpec`], or [`SketchError::NoSketcher`] for a `Dense` spec.
    pub fn new(spec: impl Into<Arc<SketchSpec>>) -> Result<Self, SketchError> {
        let spec = spec.into();
        spec.check()?;
        let method = match spec.sketcher() {
            &SketcherKind::RapidGrad { seed, normalisation, routing, .. } => {
                Method::RapidGrad(Arc::new(RapidGrad::new(&spec, seed, normalisation, routing)))
            }
            SketcherKind::Kronecker { seed, sides, .. } => {
                Method::Kronecker(Arc::new(Kronecker::new(&spec, *seed, sides)))
            }
            SketcherKind::Dense { .. } => return Err(SketchError::NoSketcher { spec: (*spec).clone() }),
        };
        Ok(Self { spec, method, kernel: FoldKernel::fastest(), prefix: "".into() })
    }

    /// Selects another kernel. All kernels give the same sketches, at different speeds.
    ///
    /// # Errors
    /// [`SketchError::NoKernel`] if the machine does not support it.
    pub fn on_kernel(mut self, kernel: FoldKernel) -> Result<Self, SketchError> {
        if !kernel.is_available() {
            return Err(SketchError::NoKernel { kernel });
        }
        self.kernel = kernel;
        Ok(self)
    }

    /// The kernel in use.
    #[must_use]
    pub fn kernel(&self) -> FoldKernel {
        self.kernel
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    /// The same sketcher, to which every parameter is called `prefix.name`: in the choice of its block, in what
    /// is hashed, and in errors. An empty prefix changes nothing.
    ///
    /// This is how checkpoints share a row: the spec has a group of blocks for each, the gradients of each are
    /// sketched under its name, and [`Sketch::plus`] puts them together. [`Scan::weights`](crate::Scan::weights)
    /// then weights the checkpoints, which gives `sum over c of w_c <g_c, g'_c>` (TracIn, Pruthi et al. 2020,
    /// arXiv:2002.08484).
    ///
    /// ```
    /// use gradix::sketch::{SketchSpec, Sketcher};
    /// let spec = SketchSpec::rapid_grad_blocks(7, [("step-100", 64), ("step-200", 64)]);
    /// let sketcher = Sketcher::new(spec)?;
    /// let early = sketcher.under("step-100").sketch([("head.weight", &[0.5, 2.0][..])])?;
    /// let late = sketcher.under("step-200").sketch([("head.weight", &[0.25, 1.0][..])])?;
    /// let both = early.plus(&late)?;
    /// assert_eq!((both.block(0), both.block(1)), (early.block(0), late.block(1)));
    /// # Ok::<(), gradix::sketch::SketchError>(())
    /// ```
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        if prefix.is_empty() {
            return self.clone();
        }
        Self { prefix: format!("{}{prefix}.", self.prefix).into(), ..self.clone() }
    }

    /// The projections of a matrix parameter of `n_in` rows and `n_out` columns, under a `Kronecker` spec.
    ///
    /// They are computed each time, and nothing but the shape is kept.
    ///
    /// # Errors
    /// - [`SketchError::NoProjections`] if the spec is not `Kronecker`;
    /// - [`SketchError::NoBlock`] if no block takes the parameter;
    /// - [`SketchError::OtherShape`] if this sketcher has seen the parameter in another shape;
    /// - [`SketchError::TooLong`] for more than 2^35 elements;
    /// - [`SketchError::TooManyParameters`] for more than 65,536 parameters.
    pub fn projections(
        &self,
        parameter: &str,
        n_in: usize,
        n_out: usize,
    ) -> Result<Projections, SketchError> {
        match &self.method {
            Method::RapidGrad(_) => Err(SketchError::NoProjections { spec: (*self.spec).clone() }),
            Method::Kronecker(method) => {
                method.projections(&self.spec, &self.named(parameter), [n_in, n_out])
            }
        }
    }

    /// What an adapter keeps for as long as the sketcher or a clone of it lives: projections on devices, of whose types
    /// nothing is known here. `None` unless the spec is `Kronecker`.
    #[cfg(feature = "burn")]
    pub(crate) fn kept<T: Any + Default + Send + Sync>(&self) -> Option<&T> {
        match &self.method {
            Method::RapidGrad(_) => None,
            Method::Kronecker(method) => method.kept(),
        }
    }

    /// The parameter's whole name, where its block starts in a row of sums, in tiles, and the block's tiles by
    /// base.
    #[cfg(feature = "cubecl")]
    pub(crate) fn gather(
        &self,
        parameter: &str,
        elements: usize,
    ) -> Result<(String, usize, Gather), SketchError> {
        let Method::RapidGrad(method) = &self.method else {
            return Err(SketchError::NotAMatrix {
                parameter: parameter.to_owned(),
                spec: (*self.spec).clone(),
            });
        };
        let name = self.named(parameter);
        let (start, gather) = method.gather(&self.spec, &name, elements)?;
        Ok((name.into_owned(), start, gather))
    }

    /// Whether [`gather`](Self::gather) and [`finish_row`](Self::finish_row) give what [`Fold`] gives.
    #[cfg(feature = "cubecl")]
    pub(crate) fn sums_on_devices(&self) -> bool {
        matches!(self.spec.sketcher(), SketcherKind::RapidGrad { normalisation: Normalisation::None, .. })
    }

    /// The sketch whose sums a device has made: those of the bases, block after block, with 16 lanes each.
    #[cfg(feature = "cubecl")]
    pub(crate) fn finish_row(&self, row: &[f32]) -> Result<Sketch, SketchError> {
        let values = match &self.method {
            Method::RapidGrad(method) => method.finish_row(row),
            Method::Kronecker(_) => row.to_vec(),
        };
        Sketch::summed(Arc::clone(&self.spec), values)
    }

    /// Starts the sketch of one gradient.
    pub fn start(&self) -> Fold {
        let sums = match &self.method {
            Method::RapidGrad(method) => Sums::RapidGrad(Arc::clone(method), method.start()),
            Method::Kronecker(method) => Sums::Kronecker(Arc::clone(method), vec![0.0; self.spec.dims()]),
        };
        Fold { sketcher: self.clone(), sums, failed: None }
    }

    /// Computes the sketch of a gradient given as pairs of parameter name and row-major elements.
    ///
    /// # Errors
    /// As [`Fold::add`] and [`Fold::finish`].
    pub fn sketch<'a>(
        &self,
        tensors: impl IntoIterator<Item = (&'a str, &'a [f32])>,
    ) -> Result<Sketch, SketchError> {
        let mut fold = self.start();
        for (parameter, gradient) in tensors {
            fold.add(parameter, gradient)?;
        }
        fold.finish()
    }

    fn named<'a>(&self, parameter: &'a str) -> Cow<'a, str> {
        if self.prefix.is_empty() { parameter.into() } else { format!("{}{parameter}", self.prefix).into() }
    }
}

impl fmt::Debug for Sketcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketcher")
            .field("spec", &self.spec)
            .field("kernel", &self.kernel)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The sketch of one gradient under construction. Made by [`Sketcher::start`].
///
/// After an error, every later [`Fold::add`] and [`Fold::finish`] returns the same error, since the sums
/// are incomplete.
#[derive(Debug, Clone)]
#[must_use = "a fold gives its sketch by `finish`"]
pub struct Fold {
    sketcher: Sketcher,
    sums: Sums,
    failed: Option<SketchError>,
}

#[derive(Clone)]
enum Sums {
    RapidGrad(Arc<RapidGrad>, fold::Sums),
    /// The values, block after block.
    Kronecker(Arc<Kronecker>, Vec<f32>),
}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RapidGrad(_, sums) => sums.fmt(f),
            Self::Kronecker(_, sums) => sums.fmt(f),
        }
    }
}

impl Fold {
    /// Adds the gradient of one whole parameter tensor: its elements in row-major order.
    ///
    /// Add tensors in the same order for all gradients; another order changes the sums by rounding. A tensor
    /// without elements adds nothing.
    ///
    /// # Errors
    /// - [`SketchError::NoBlock`] if no block takes the parameter;
    /// - [`SketchError::NotFinite`] if an element is NaN or infinite;
    /// - [`SketchError::TooLong`] for more than 2^35 elements;
    /// - [`SketchError::NotAMatrix`] under a `Kronecker` spec, which needs [`Fold::add_matrix`].
    pub fn add(&mut self, parameter: &str, gradient: &[f32]) -> Result<(), SketchError> {
        self.unless_failed(parameter, |sketcher, sums, name| match sums {
            Sums::RapidGrad(method, sums) => {
                method.add(&sketcher.spec, sketcher.kernel, sums, name, gradient)
            }
            Sums::Kronecker(..) => {
                Err(SketchError::NotAMatrix { parameter: name.to_owned(), spec: (*sketcher.spec).clone() })
            }
        })
    }

    /// Adds the gradient of one whole parameter of shape `[n_in, n_out]`: its elements in row-major order, row
    /// `i` being those of input `i`. Under a `RapidGrad` spec this is [`Fold::add`].
    ///
    /// # Errors
    /// As [`Fold::add`] and [`Sketcher::projections`]; [`SketchError::Elements`] if the number of elements is
    /// not that of the shape.
    pub fn add_matrix(
        &mut self,
        parameter: &str,
        shape: [usize; 2],
        gradient: &[f32],
    ) -> Result<(), SketchError> {
        self.unless_failed(parameter, |sketcher, sums, name| {
            if shape[0].checked_mul(shape[1]) != Some(gradient.len()) {
                let (parameter, elements) = (name.to_owned(), gradient.len());
                return Err(SketchError::Elements { parameter, shape, elements });
            }
            let Sketcher { spec, kernel, .. } = sketcher;
            match sums {
                Sums::RapidGrad(method, sums) => method.add(spec, *kernel, sums, name, gradient),
                Sums::Kronecker(method, sums) => method.add(spec, *kernel, sums, name, shape, gradient),
            }
        })
    }

    /// Calls `add` with the parameter's whole name, and keeps its error.
    fn unless_failed(
        &mut self,
        parameter: &str,
        add: impl FnOnce(&Sketcher, &mut Sums, &str) -> Result<(), SketchError>,
    ) -> Result<(), SketchError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let name = self.sketcher.named(parameter);
        add(&self.sketcher, &mut self.sums, &name).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Returns the sketch: `dims` values, block after block.
    ///
    /// # Errors
    /// The error that an [`add`](Fold::add) returned, or [`SketchError::Overflow`].
    pub fn finish(self) -> Result<Sketch, SketchError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let values = match self.sums {
            Sums::RapidGrad(method, sums) => method.finish(&sums),
            Sums::Kronecker(_, sums) => sums,
        };
        Sketch::summed(self.sketcher.spec, values)
    }
}
