//! Numbers of Python as `f32`: those of numpy and of PyTorch's CPU tensors where they lie, others converted.

use half::{bf16, f16};
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// An array of `f32`, in row-major order.
pub enum Array<'py> {
    /// The caller's memory.
    Borrowed(PyReadonlyArrayDyn<'py, f32>),
    /// What was converted, or copied because it lay in another order.
    Owned { values: Vec<f32>, shape: Vec<usize> },
}

impl<'py> Array<'py> {
    /// Takes a numpy array or a tensor.
    pub fn of(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = value.cast::<PyArrayDyn<f32>>() {
            let is_aligned = (array.data() as usize).is_multiple_of(align_of::<f32>());
            let array = match array.is_c_contiguous() && is_aligned {
                true => array.clone(),
                false => row_major(array)?.cast_into::<PyArrayDyn<f32>>()?,
            };
            return Ok(Self::Borrowed(array.try_readonly().map_err(busy)?));
        }
        if let Ok(array) = value.cast::<PyArrayDyn<f16>>() {
            return converted(array, f16::to_f32);
        }
        if let Ok(array) = value.cast::<PyUntypedArray>() {
            // A type of numpy's own for it does not exist; ml_dtypes and others register one of this name.
            return match array.dtype().getattr("name")?.extract::<String>()?.as_str() {
                "bfloat16" => of_bf16(&row_major(array)?),
                other => Err(other_type(other)),
            };
        }
        if value.hasattr("detach")? && value.hasattr("device")? {
            return of_tensor(value);
        }
        if value.hasattr("__array__")? {
            return Self::of(&value.py().import("numpy")?.call_method1("asarray", (value,))?);
        }
        let found = value.get_type().fully_qualified_name()?;
        Err(PyTypeError::new_err(format!(
            "an array of numpy or a tensor of PyTorch is expected, of float32, float16 or bfloat16, and not {found}"
        )))
    }

    /// The numbers.
    pub fn values(&self) -> PyResult<&[f32]> {
        match self {
            Self::Borrowed(array) => Ok(array.as_slice()?),
            Self::Owned { values, .. } => Ok(values),
        }
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Borrowed(array) => array.shape(),
            Self::Owned { shape, .. } => shape,
        }
    }

    /// The rows of a matrix whose rows have `dims` numbers, or the one row that a vector is.
    pub fn rows(&self, dims: usize) -> PyResult<Vec<&[f32]>> {
        match *self.shape() {
            [columns] | [_, columns] if columns == dims && dims > 0 => {
                Ok(self.values()?.chunks_exact(dims).collect())
            }
            _ => Err(PyValueError::new_err(format!(
                "an array of shape [rows, {dims}] is expected, and not of {:?}",
                self.shape()
            ))),
        }
    }
}

fn of_tensor<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let mut tensor = tensor.call_method0("detach")?;
    if tensor.getattr("device")?.getattr("type")?.extract::<String>()? != "cpu" {
        tensor = tensor.call_method0("cpu")?;
    }
    let number = tensor.getattr("dtype")?.str()?.to_string();
    match number.as_str() {
        // numpy has no such type: the bits pass as another one of the same width.
        "torch.bfloat16" => {
            let bits = tensor.py().import("torch")?.getattr("int16")?;
            let bits = tensor.call_method0("contiguous")?.call_method1("view", (bits,))?;
            of_bf16(&bits.call_method0("numpy")?)
        }
        "torch.float32" | "torch.float16" => Array::of(&tensor.call_method0("numpy")?),
        other => Err(other_type(other)),
    }
}

/// Of an array whose elements have the bits of bfloat16.
fn of_bf16<'py>(array: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let bits = array.call_method1("view", ("uint16",))?.cast_into::<PyArrayDyn<u16>>()?;
    converted(&bits, |bits| bf16::from_bits(bits).to_f32())
}

fn converted<'py, T: numpy::Element + Copy + Sync>(
    array: &Bound<'py, PyArrayDyn<T>>,
    convert: impl Fn(T) -> f32 + Sync,
) -> PyResult<Array<'py>> {
    let shape = array.shape().to_vec();
    let array = row_major(array)?.cast_into::<PyArrayDyn<T>>()?.try_readonly().map_err(busy)?;
    let numbers = array.as_slice()?;
    let values = array.py().detach(|| numbers.iter().map(|&number| convert(number)).collect());
    Ok(Array::Owned { values, shape })
}

/// The array itself if its elements are adjacent, aligned and in row-major order, or else a copy.
fn row_major<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    array.py().import("numpy")?.call_method1("require", (array, array.py().None(), ["C", "A"]))
}

fn other_type(found: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "numbers are float32, float16 or bfloat16, and not {found}: convert them, for example by \
         array.astype(numpy.float32) or tensor.float()"
    ))
}

fn busy(error: numpy::BorrowError) -> PyErr {
    error.into()
}
