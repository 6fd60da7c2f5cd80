use ::burn::Tensor;
use ::burn::module::{Module, ModuleVisitor, Param};

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
