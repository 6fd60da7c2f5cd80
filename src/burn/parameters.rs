use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param};

/// Where a visitor stands in the tree of modules.
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

/// The paths of a module's floating-point parameters, in the order in which they are folded.
///
/// The order is that of the fields' declaration. Identifiers of burn's parameters are drawn at
/// random for each model; the path is what stays the same.
#[must_use]
pub fn parameter_paths<M: Module>(model: &M) -> Vec<String> {
    let mut visitor = Paths::default();
    model.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct Paths {
    path: Path,
    found: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, _parameter: &Param<Tensor<D>>) {
        self.found.push(self.path.name());
    }
}
