//! gradix for Python: thin types over the Rust API. The package around them is in `gradix/`.

#![expect(clippy::needless_pass_by_value, reason = "what a call converts from Python it owns")]
#![expect(clippy::type_complexity, reason = "tuples are values of Python")]

mod arrays;
mod batch;
mod detached;
mod errors;
mod formats;
mod index;
mod operators;
mod ranking;
mod report;
mod rows;
mod scan;
mod sketch;
mod snapshot;
mod spec;
mod stream;
mod values;
mod work;
mod writer;

#[pyo3::pymodule]
mod _gradix {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::batch::PyFoldBatch;
    #[pymodule_export]
    use crate::detached::{PyDetachedWriter, PyPart};
    #[pymodule_export]
    use crate::formats::{PyFileBatch, PySource, open_file, open_store};
    #[pymodule_export]
    use crate::index::PyIndex;
    #[pymodule_export]
    use crate::operators::{
        PyPairs, by_source, coreset, duplicate_clusters, duplicates, highest_self_influence, informative,
        mean_of, select, sum_of,
    };
    #[pymodule_export]
    use crate::ranking::{PyHit, PyRanking};
    #[pymodule_export]
    use crate::report::{PyReport, report};
    #[pymodule_export]
    use crate::rows::PyRow;
    #[pymodule_export]
    use crate::scan::PyCurvature;
    #[pymodule_export]
    use crate::sketch::{PyFold, PySketch, PySketcher};
    #[pymodule_export]
    use crate::snapshot::{PyIds, PyRows, PyScoredRows, PyScores, PySnapshot, PyStoredRow};
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
