//! `SketchSpec` and `Schema`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use gradix::sketch::{Normalisation, OptimizerStep, SketchSpec, SketcherKind};
use gradix::{Encoding, Schema, Tier};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{OrRaise as _, invalid_input};

/// How gradients become sketches: the sketcher, its seed, and the blocks.
///
/// Two sketches can be compared only if their specs are equal.
///
/// >>> import gradix
/// >>> spec = gradix.SketchSpec.rapid_grad(7, 4096)
/// >>> spec.dims, spec == gradix.SketchSpec.from_json(spec.to_json())
/// (4096, True)
#[pyclass(frozen, eq, module = "gradix", name = "SketchSpec")]
#[derive(Clone, PartialEq)]
pub struct PySketchSpec(pub SketchSpec);

fn checked(spec: SketchSpec) -> PyResult<PySketchSpec> {
    spec.check().or_raise()?;
    Ok(PySketchSpec(spec))
}

fn normalised(spec: SketchSpec, normalisation: &str) -> PyResult<PySketchSpec> {
    match normalisation {
        "none" => checked(spec),
        "per_tensor" => checked(spec.normalised(Normalisation::PerTensor)),
        other => Err(invalid_input(&format!("normalisation is none or per_tensor, and not {other:?}"))),
    }
}

#[pymethods]
impl PySketchSpec {
    /// The count-sketch RapidGrad of `dims` buckets, a power of two of at least 16, for all parameters together.
    ///
    /// `normalisation` is "none", or "per_tensor": each tensor is divided by its norm before it is folded.
    #[staticmethod]
    #[pyo3(signature = (seed, dims, *, normalisation = "none"))]
    fn rapid_grad(seed: u64, dims: u32, normalisation: &str) -> PyResult<Self> {
        normalised(SketchSpec::rapid_grad(seed, dims), normalisation)
    }

    /// RapidGrad by block: pairs of name and dims. A parameter goes to the block whose name is its longest prefix that
    /// ends before a ".".
    #[staticmethod]
    #[pyo3(signature = (seed, blocks, *, normalisation = "none"))]
    fn rapid_grad_blocks(seed: u64, blocks: Vec<(String, u32)>, normalisation: &str) -> PyResult<Self> {
        normalised(SketchSpec::rapid_grad_blocks(seed, blocks), normalisation)
    }

    /// Random projections of both sides of matrices: triples of name, inputs and outputs. A block has inputs times
    /// outputs dims.
    #[staticmethod]
    fn kronecker(seed: u64, blocks: Vec<(String, u32, u32)>) -> PyResult<Self> {
        checked(SketchSpec::kronecker(seed, blocks))
    }

    /// Numbers made elsewhere: the name and digest of what makes them, and pairs of a block's name and dims.
    #[staticmethod]
    fn dense(name: String, digest: String, blocks: Vec<(String, u32)>) -> PyResult<Self> {
        checked(SketchSpec::dense(name, digest, blocks))
    }

    /// A spec from its JSON.
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let spec = serde_json::from_str(text);
        checked(spec.map_err(|error| invalid_input(&format!("not the JSON of a spec: {error}")))?)
    }

    /// The spec as JSON, in the form of the index's file.
    fn to_json(&self) -> PyResult<String> {
        serde_json::to_string(&self.0).map_err(|error| invalid_input(&error.to_string()))
    }

    /// The same spec for rows that went through Adam's step, as in LESS. `state` says which state of the optimizer.
    /// Sketches of plain gradients then query them.
    fn with_adam(&self, beta_1: f32, beta_2: f32, epsilon: f32, state: String) -> PyResult<Self> {
        checked(self.0.clone().with_optimizer(OptimizerStep::adam(beta_1, beta_2, epsilon, state)))
    }

    /// The spec of the queries: this one without the optimizer.
    fn for_queries(&self) -> Self {
        Self(self.0.for_queries())
    }

    /// The spec with `factor` times fewer buckets in each block; only RapidGrad has one.
    fn nested(&self, factor: u32) -> PyResult<Self> {
        Ok(Self(self.0.nested(factor).or_raise()?))
    }

    /// "rapid_grad", "kronecker" or "dense".
    #[getter]
    fn kind(&self) -> PyResult<&'static str> {
        match self.0.sketcher() {
            SketcherKind::RapidGrad { .. } => Ok("rapid_grad"),
            SketcherKind::Kronecker { .. } => Ok("kronecker"),
            SketcherKind::Dense { .. } => Ok("dense"),
            other => Err(invalid_input(&format!("this version of the package does not know {other:?}"))),
        }
    }

    /// The seed; `None` for a dense spec.
    #[getter]
    fn seed(&self) -> Option<u64> {
        match self.0.sketcher() {
            SketcherKind::RapidGrad { seed, .. } | SketcherKind::Kronecker { seed, .. } => Some(*seed),
            _ => None,
        }
    }

    /// "none" or "per_tensor"; `None` unless the kind is "rapid_grad".
    #[getter]
    fn normalisation(&self) -> Option<&'static str> {
        match self.0.sketcher() {
            SketcherKind::RapidGrad { normalisation: Normalisation::PerTensor, .. } => Some("per_tensor"),
            SketcherKind::RapidGrad { .. } => Some("none"),
            _ => None,
        }
    }

    /// Pairs of name and dims, in order.
    #[getter]
    fn blocks(&self) -> Vec<(String, u32)> {
        self.0.blocks().iter().map(|block| (block.name.clone(), block.dims)).collect()
    }

    /// Inputs and outputs of each block; empty unless the kind is "kronecker".
    #[getter]
    fn sides(&self) -> Vec<(u32, u32)> {
        match self.0.sketcher() {
            SketcherKind::Kronecker { sides, .. } => {
                sides.iter().map(|&[p_in, p_out]| (p_in, p_out)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The number of values of a sketch, over all blocks.
    #[getter]
    fn dims(&self) -> usize {
        self.0.dims()
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("<SketchSpec {}>", self.0)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("from_json")?, (self.to_json()?,)))
    }
}

/// What an index holds: the spec of its sketches, the encoding of each block, and the tiers.
///
/// >>> import gradix
/// >>> spec = gradix.SketchSpec.rapid_grad(7, 4096)
/// >>> schema = gradix.Schema(spec, "f16", tiers=["i8", ("sign", 1)])
/// >>> schema.row_bytes, schema.tiers
/// (8192, [('sign', 1), 'i8'])
#[pyclass(frozen, eq, module = "gradix", name = "Schema")]
#[derive(Clone, PartialEq)]
pub struct PySchema(pub Schema);

/// A tier: its name, or its name and seed.
#[derive(FromPyObject, IntoPyObject)]
pub enum TierName {
    /// Of a tier without a seed.
    Name(String),
    /// Of a tier with one.
    Seeded(String, u64),
}

impl TierName {
    fn tier(self) -> PyResult<Tier> {
        match self {
            Self::Name(name) if name == "i8" => Ok(Tier::I8),
            Self::Seeded(name, seed) if name == "sign" => Ok(Tier::Sign { seed }),
            Self::Name(name) | Self::Seeded(name, _) => {
                Err(invalid_input(&format!("a tier is \"i8\" or (\"sign\", seed), and not {name:?}")))
            }
        }
    }
}

/// One encoding for all blocks, or the one of each.
#[derive(FromPyObject)]
pub enum Encodings {
    /// For all blocks.
    One(String),
    /// In the spec's order.
    Each(Vec<String>),
}

fn encoding(name: &str) -> PyResult<Encoding> {
    let known = [Encoding::F32, Encoding::F16, Encoding::I8];
    let found = known.into_iter().find(|encoding| encoding.name() == name);
    found.ok_or_else(|| invalid_input(&format!("an encoding is f32, f16 or i8, and not {name:?}")))
}

#[pymethods]
impl PySchema {
    /// `encoding` is "f32", "f16" or "i8", or a list with one for each block; `tiers` are "i8" and ("sign", seed).
    #[new]
    #[pyo3(signature = (spec, encoding, *, tiers = Vec::new()))]
    fn new(spec: &PySketchSpec, encoding: Encodings, tiers: Vec<TierName>) -> PyResult<Self> {
        let spec = spec.0.clone();
        let schema = match encoding {
            Encodings::One(name) => Schema::new(spec, self::encoding(&name)?),
            Encodings::Each(names) => {
                let encodings = names.iter().map(|name| self::encoding(name)).collect::<PyResult<_>>()?;
                Schema::with_encodings(spec, encodings)
            }
        };
        let tiers = tiers.into_iter().map(TierName::tier).collect::<PyResult<Vec<Tier>>>()?;
        Ok(Self(schema.and_then(|schema| schema.with_tiers(tiers)).or_raise()?))
    }

    /// The spec of its sketches.
    #[getter]
    fn spec(&self) -> PySketchSpec {
        PySketchSpec(self.0.spec().clone())
    }

    /// The encoding of each block, in order.
    #[getter]
    fn encodings(&self) -> Vec<&'static str> {
        self.0.encodings().iter().map(|encoding| encoding.name()).collect()
    }

    /// The tiers, in the order of the file.
    #[getter]
    fn tiers(&self) -> Vec<TierName> {
        let tiers = self.0.tiers().iter().map(|tier| match tier {
            Tier::Sign { seed } => TierName::Seeded(tier.name().to_owned(), *seed),
            _ => TierName::Name(tier.name().to_owned()),
        });
        tiers.collect()
    }

    /// Bytes of one row's codes, padding included, tiers not.
    #[getter]
    fn row_bytes(&self) -> usize {
        self.0.row_bytes()
    }

    fn __repr__(&self) -> String {
        let tiers: Vec<_> = self.0.tiers().iter().map(|tier| tier.name()).collect();
        format!("<Schema {}; {}; tiers: [{}]>", self.0.spec(), self.encodings().join(", "), tiers.join(", "))
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((PySketchSpec, Vec<&'static str>), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("tiers", self.tiers())?;
        Ok(((self.spec(), self.encodings()), named))
    }
}
