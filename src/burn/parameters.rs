use super::BurnError;
use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param, ParamId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The visitor's position in the tree of modules.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    pub(super) fn name(&self) -> String {
        self.0.join(".")
    }
}

/// The paths of a module's floating-point parameters, in the order in which they are folded: the order of
/// the fields' declaration.
///
/// burn draws a parameter's identifier at random for each model; its path is stable.
#[must_use]
pub fn parameter_paths<M: Module>(model: &M) -> Vec<String> {
    places(model, |_| false).into_iter().map(|place| place.path).collect()
}

/// The paths and shapes of selected parameters, in their order.
///
/// Sketches can be compared only if they are of the same parameters, which a sketch cannot tell: a parameter
/// of another name is folded into other buckets, and the inner products are noise. So keep this beside the
/// rows (it is `Serialize`; or its [`digest`](Parameters::digest), which is short) and
/// [`check`](Parameters::check) it before a collection goes on and before a query.
///
/// Whether a parameter is frozen makes no difference.
///
/// ```
/// use burn::{nn::LinearConfig, tensor::Device};
/// use gradix::burn::Parameters;
/// let rows = Parameters::of(&LinearConfig::new(4, 8).init(&Device::flex()), |_| true);
/// let queries = Parameters::of(&LinearConfig::new(4, 2).init(&Device::flex()), |_| true);
/// assert_ne!(rows.digest(), queries.digest());
/// assert!(rows.check(&queries).unwrap_err().to_string().contains("weight"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(Vec<(String, Vec<usize>)>);

impl Parameters {
    /// The floating-point parameters of the model whose path `select` accepts.
    #[must_use]
    pub fn of<M: Module>(model: &M, select: impl Fn(&str) -> bool) -> Self {
        let selected = places(model, select).into_iter();
        Self(selected.filter_map(|place| Some((place.path, place.selected?))).collect())
    }

    /// The paths and shapes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.0.iter().map(|(path, shape)| (path.as_str(), shape.as_slice()))
    }

    /// `sha256:` and 64 hexadecimal digits: the SHA-256 of one line for each parameter, `path shape`, where
    /// the shape is like `4x8` and each line ends with a line feed.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, shape) in self.iter() {
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            hash.update(format!("{path} {}\n", sizes.join("x")));
        }
        hexadecimal(hash)
    }

    /// Checks that these, the parameters of rows, are those of `queries`.
    ///
    /// # Errors
    /// [`BurnError::OtherParameters`] names the first parameter that is missing, new, or of another shape;
    /// [`BurnError::OtherOrder`] the first at another place.
    pub fn check(&self, queries: &Self) -> Result<(), BurnError> {
        let find = |list: &Self, path: &str| {
            list.iter().find(|(name, _)| *name == path).map(|(_, shape)| shape.to_vec())
        };
        for (path, _) in self.iter().chain(queries.iter()) {
            let (rows, queries) = (find(self, path), find(queries, path));
            if rows != queries {
                return Err(BurnError::OtherParameters { parameter: path.to_owned(), rows, queries });
            }
        }
        match self.0.iter().zip(&queries.0).find(|(row, query)| row != query) {
            Some(((path, _), _)) => Err(BurnError::OtherOrder { parameter: path.clone() }),
            None => Ok(()),
        }
    }
}

/// `sha256:` and the digits.
pub(super) fn hexadecimal(hash: Sha256) -> String {
    format!("sha256:{}", hex(&hash.finalize()))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A floating-point parameter of a module.
pub(super) struct Place {
    pub(super) path: String,
    pub(super) id: ParamId,
    /// Its shape, if it is selected.
    pub(super) selected: Option<Vec<usize>>,
}

/// A module's floating-point parameters, in the order of declaration. Those that `select` accepts are initialised.
pub(super) fn places<M: Module>(model: &M, select: impl Fn(&str) -> bool) -> Vec<Place> {
    let mut visitor = Visitor { path: Path::default(), select, found: Vec::new() };
    model.visit(&mut visitor);
    visitor.found
}

struct Visitor<S> {
    path: Path,
    select: S,
    found: Vec<Place>,
}

impl<S: Fn(&str) -> bool> ModuleVisitor for Visitor<S> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let path = self.path.name();
        // Of a parameter that is not initialised, burn knows the shape before it may be transposed.
        let selected = (self.select)(&path).then(|| parameter.base().dims().to_vec());
        self.found.push(Place { path, id: parameter.id, selected });
    }
}
