//! gradix for Python: thin types over the Rust API. The package around them is in `gradix/`.

#[pyo3::pymodule]
mod _gradix {}
