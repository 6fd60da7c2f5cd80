//! LESS's store: a tensor of `[examples, dims]` in one file, `all_orig.pt` with rows of unit length or `all_unormalized.pt`
//! with rows as they were projected, in a folder `dim<dims>` for each dims.

use std::path::{Path, PathBuf};

use super::super::input::unsupported;
use super::super::{Batch, FormatError, Number, RowSource};
use super::ids::Names;
use super::numbers::check_finite;
use super::torch::TensorFile;
use super::{StoreOptions, files};
use crate::sketch::SketchSpec;

/// What LESS itself reads, in a folder.
const UNIT: &str = "all_orig";

/// The same rows before they were divided by their lengths.
const RAW: &str = "all_unormalized";

/// A store that is read.
pub(super) struct Less {
    spec: SketchSpec,
    file: TensorFile,
    rows: u64,
    next: u64,
    names: Names,
}

impl Less {
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, FormatError> {
        let path = find(path, options.part.as_deref())?;
        let file = TensorFile::open(&path)?;
        let &[rows, dims] = file.shape() else {
            let what = format!("a tensor of shape {:?}, where rows of vectors are expected", file.shape());
            return Err(unsupported(&path, what));
        };
        let digest = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some(UNIT) => "rows of unit length",
            Some(RAW) => "rows as projected",
            _ => "rows of unknown treatment",
        };
        let dims = u32::try_from(dims).unwrap_or(u32::MAX);
        let spec = SketchSpec::dense("less", digest, [("all", dims)]);
        spec.check().map_err(|error| unsupported(&path, error.to_string()))?;
        let names = Names::open(&options.ids, &path, None)?;
        Ok(Self { spec, file, rows, next: 0, names })
    }
}

/// The file at `path` or below it.
fn find(path: &Path, part: Option<&str>) -> Result<PathBuf, FormatError> {
    if path.is_file() {
        return Ok(path.into());
    }
    let mut parts = Vec::new();
    let mut add = |folder: &str| {
        for name in [UNIT, RAW].map(|stem| format!("{folder}{stem}")) {
            if path.join(format!("{name}.pt")).exists() {
                parts.push(name);
            }
        }
    };
    add("");
    files::each_name(path, |name| add(&format!("{name}/")))?;
    parts.sort_unstable();
    // A part is a folder, a file's name, or both.
    if let Some(part) = part {
        let is_asked = |name: &String| {
            name == part || name.split_once('/').is_some_and(|(folder, stem)| folder == part || stem == part)
        };
        if parts.iter().any(is_asked) {
            parts.retain(is_asked);
        } else {
            return files::choose(path, Some(part), parts, "all_orig.pt").map(PathBuf::from);
        }
    }
    // In one folder LESS takes this one.
    if parts.len() == 2 && parts.iter().filter(|name| name.ends_with(UNIT)).count() == 1 {
        parts.retain(|name| name.ends_with(UNIT));
    }
    files::choose(path, None, parts, "all_orig.pt").map(|part| path.join(format!("{part}.pt")))
}

impl RowSource for Less {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.file.number()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        self.next = files::pass(self.file.path(), self.next, rows, self.rows)?;
        Ok(())
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        batch.clear();
        let rows = (rows as u64).min(self.rows - self.next);
        if self.next == self.rows {
            return self.names.finish(self.rows);
        }
        self.file.read_range(self.next, rows, &mut batch.values)?;
        check_finite(self.file.path(), &self.spec, self.next, &batch.values)?;
        for row in self.next..self.next + rows {
            batch.ids.push(self.names.of(row, row.to_string().as_bytes())?.to_vec());
        }
        self.next += rows;
        batch.rows = rows as usize;
        Ok(())
    }
}
