//! Safetensors: eight bytes with the length of a JSON header, the header, the numbers. A model in several files
//! has an index that names each tensor's file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::quantised::Kind;
use super::{Source, elements};
use crate::error::{LoadError, Result};

/// The name of a model's only file, and of the index of several.
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longer headers are taken for damage, as the format's own reader does.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a folder.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    sources: Vec<Source>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
struct Tensor {
    source: usize,
    kind: String,
    shape: Vec<usize>,
    /// In the file.
    start: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Files {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// Names the file, and the tensor that is damaged, truncated or not where the index says.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut files = Self { path: folder.to_owned(), sources: Vec::new(), tensors: BTreeMap::new() };
        let index = folder.join(INDEX);
        if !index.exists() {
            files.add(&folder.join(SINGLE))?;
            return Ok(files);
        }
        let text = read(&index)?;
        let Index { weight_map } = serde_json::from_slice(&text)
            .map_err(|source| LoadError::Json { path: index.clone(), source })?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            // A name with a separator would read files elsewhere.
            if Path::new(name).components().count() != 1 || name.starts_with('.') {
                return Err(LoadError::Setting {
                    path: index,
                    setting: "weight_map".to_owned(),
                    given: format!("{name:?}"),
                    reason: "a file's name in the same folder is needed".to_owned(),
                });
            }
            files.add(&folder.join(name))?;
        }
        for (tensor, file) in &weight_map {
            let path = folder.join(file);
            let there =
                files.tensors.get(tensor).is_some_and(|found| files.sources[found.source].path == path);
            if !there {
                return Err(LoadError::MissingTensor { path, tensor: tensor.clone() });
            }
        }
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let source = Source::open(path)?;
        let malformed = |offset, what: &str, reason: String| LoadError::Malformed {
            path: path.to_owned(),
            offset,
            what: what.to_owned(),
            reason,
        };
        let length = source.read("the header's length", 0, 8)?;
        let length = length.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if length > MAX_HEADER {
            return Err(malformed(0, "the header's length", format!("{length} is more than {MAX_HEADER}")));
        }
        let header = source.read("the header", 8, length)?;
        let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|source| LoadError::Json { path: path.to_owned(), source })?;
        let data = 8 + length;
        for (name, entry) in entries {
            if name == "__metadata__" {
                continue;
            }
            let entry: Entry = serde_json::from_value(entry)
                .map_err(|error| malformed(8, &format!("the header's entry {name:?}"), error.to_string()))?;
            let [start, end] = entry.data_offsets;
            let offset = data.saturating_add(start);
            if end < start {
                return Err(malformed(
                    offset,
                    &format!("tensor {name:?}"),
                    format!("ends at {end}, before its start"),
                ));
            }
            if data.saturating_add(end) > source.len {
                return Err(LoadError::Truncated {
                    path: path.to_owned(),
                    what: format!("tensor {name:?}"),
                    start: offset,
                    end: data.saturating_add(end),
                    len: source.len,
                });
            }
            let tensor = Tensor {
                source: self.sources.len(),
                kind: entry.dtype,
                shape: entry.shape,
                start: offset,
                bytes: end - start,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(malformed(
                    offset,
                    &format!("tensor {name:?}"),
                    "is in another file too".to_owned(),
                ));
            }
        }
        self.sources.push(source);
        Ok(())
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(LoadError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() });
        };
        let source = &self.sources[tensor.source];
        let path = source.path.clone();
        if tensor.shape != shape {
            let (tensor, given) = (name.to_owned(), tensor.shape.clone());
            return Err(LoadError::Shape { path, tensor, given, expected: shape.to_vec() });
        }
        let Some(kind) = Kind::from_safetensors(&tensor.kind) else {
            let (offset, kind) = (tensor.start, tensor.kind.clone());
            return Err(LoadError::UnknownType { path, tensor: name.to_owned(), offset, kind });
        };
        let bytes = elements(&path, name, tensor.start, shape)?.saturating_mul(kind.block().1) as u64;
        if bytes != tensor.bytes {
            return Err(LoadError::Malformed {
                path,
                offset: tensor.start,
                what: format!("tensor {name:?}"),
                reason: format!("has {} bytes, its shape needs {bytes}", tensor.bytes),
            });
        }
        Ok(kind.decode(&source.read(&format!("tensor {name:?}"), tensor.start, bytes)?))
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}
