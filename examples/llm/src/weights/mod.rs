//! A model's tensors by name, as f32, from safetensors files or from a GGUF file.

pub mod gguf;
pub mod quantised;
pub mod safetensors;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{LoadError, Result};

/// The tensors of one model.
#[derive(Debug)]
pub enum Weights {
    /// `*.safetensors`, in one file or several.
    Safetensors(safetensors::Files),
    /// One GGUF file.
    Gguf(gguf::File),
}

impl Weights {
    /// The tensor's numbers, row-major.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`], [`LoadError::Shape`] if the shape (outer axis first) is not `shape`,
    /// [`LoadError::UnknownType`] for numbers of an unknown type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self {
            Self::Safetensors(files) => files.tensor(name, shape),
            Self::Gguf(file) => file.tensor(name, shape),
        }
    }

    /// The names of all tensors.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Safetensors(files) => files.names(),
            Self::Gguf(file) => file.names(),
        }
    }

    /// Where the tensors are from, for errors.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(files) => files.path(),
            Self::Gguf(file) => file.path(),
        }
    }
}

/// The number of elements of a shape, or a reason why there is none.
fn elements(path: &Path, tensor: &str, offset: u64, shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis)).ok_or_else(|| {
        LoadError::Malformed {
            path: path.to_owned(),
            offset,
            what: format!("the shape {shape:?} of tensor {tensor:?}"),
            reason: "has more elements than a computer can address".to_owned(),
        }
    })
}

/// A file that is read in pieces.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    len: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let metadata =
            std::fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), len: metadata.len() })
    }

    /// The bytes from `start`; `what` is named if they are not there.
    fn read(&self, what: &str, start: u64, bytes: u64) -> Result<Vec<u8>> {
        let end = start.checked_add(bytes).filter(|end| *end <= self.len);
        let (Some(_), Ok(size)) = (end, usize::try_from(bytes)) else {
            let (path, what, len) = (self.path.clone(), what.to_owned(), self.len);
            return Err(LoadError::Truncated { path, what, start, end: start.saturating_add(bytes), len });
        };
        let mut buffer = vec![0; size];
        let mut read = || {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut buffer)?;
            Ok(())
        };
        read().map_err(|source| LoadError::Read { path: self.path.clone(), source })?;
        Ok(buffer)
    }
}
