//! gradix for Python: thin types over the Rust API. The package around them is in `gradix/`.

mod arrays;
mod batch;
mod errors;
mod index;
mod rows;
mod sketch;
mod spec;
mod values;
mod work;
mod writer;

#[pyo3::pymodule]
mod _gradix {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::batch::PyFoldBatch;
    #[pymodule_export]
    use crate::index::PyIndex;
    #[pymodule_export]
    use crate::rows::PyRow;
    #[pymodule_export]
    use crate::sketch::{PyFold, PySketch, PySketcher};
    #[pymodule_export]
    use crate::spec::{PySchema, PySketchSpec};
    #[pymodule_export]
    use crate::writer::{PyCommit, PyWriter};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::work::remember_process();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
