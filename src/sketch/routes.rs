//! Which block takes a parameter.

use std::collections::HashMap;

use super::{Routing, SketchError, SketchSpec};

/// The blocks of a spec by name; `None` if its only block takes every parameter.
pub(super) struct Routes(Option<HashMap<String, usize>>);

impl Routes {
    pub(super) fn new(spec: &SketchSpec, routing: Routing) -> Self {
        Self(match routing {
            Routing::Global => None,
            Routing::Prefix => {
                let names = spec.blocks().iter().map(|block| block.name.clone());
                Some(names.zip(0..).collect())
            }
        })
    }

    /// The block whose name is the parameter's, or the longest prefix of it that ends before a `.`.
    pub(super) fn block_of(&self, spec: &SketchSpec, parameter: &str) -> Result<usize, SketchError> {
        let Some(routes) = &self.0 else { return Ok(0) };
        let prefixes = parameter.rmatch_indices('.').map(|(end, _)| &parameter[..end]);
        let mut names = std::iter::once(parameter).chain(prefixes);
        names
            .find_map(|name| routes.get(name).copied())
            .ok_or_else(|| SketchError::NoBlock { parameter: parameter.to_owned(), spec: spec.clone() })
    }
}
