//! RapidIn's store: a file of one tensor for each example, whose number in the training file is in its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::input::unsupported;
use super::super::{Batch, FormatError, Number, RowSource};
use super::ids::Names;
use super::numbers::check_finite;
use super::torch::TensorFile;
use super::{StoreOptions, files};
use crate::sketch::SketchSpec;

/// A store that is read.
pub(super) struct RapidIn {
    spec: SketchSpec,
    number: Number,
    folder: PathBuf,
    /// What stands between `train_grad_` and the number of the example.
    infix: String,
    /// The numbers of the examples, rising.
    examples: Vec<u64>,
    next: usize,
    names: Names,
}

impl RapidIn {
    pub fn open(folder: &Path, options: &StoreOptions) -> Result<Self, FormatError> {
        let mut parts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut matrices = Vec::new();
        files::each_name(folder, |name| {
            if let Some((infix, example)) = parse(&name) {
                parts.entry(infix).or_default().push(example);
            } else if name.starts_with("RapidGrad_D") && name.ends_with(".obj") {
                matrices.push(name);
            }
        })?;
        let listed = parts.keys().map(|infix| part(infix).to_owned()).collect();
        let chosen = files::choose(folder, options.part.as_deref(), listed, "train_grad_*.pt")?;
        let Some((infix, mut examples)) = parts.into_iter().find(|(infix, _)| part(infix) == chosen) else {
            return Err(unsupported(folder, "no gradients of training examples"));
        };
        examples.sort_unstable();
        matrices.sort_unstable();

        let path = folder.join(file_name(&infix, examples.first().copied().unwrap_or_default()));
        let first = TensorFile::open(&path)?;
        let dims = u32::try_from(count(&first)).unwrap_or(u32::MAX);
        // The seed, and with it the shuffles, follow from the names of RapidIn's matrices.
        let digest = format!("{chosen} {}", matrices.join(" "));
        let spec = SketchSpec::dense("rapidin", digest.trim_end(), [("all", dims)]);
        spec.check().map_err(|error| unsupported(&path, error.to_string()))?;
        let names = Names::open(&options.ids, folder, None)?;
        let (number, folder) = (first.number(), folder.to_owned());
        Ok(Self { spec, number, folder, infix, examples, next: 0, names })
    }
}

/// What stands before the number of the example (`K65536_`, or nothing), and the number.
fn parse(name: &str) -> Option<(String, u64)> {
    let rest = name.strip_prefix("train_grad_")?.strip_suffix(".pt")?;
    let (infix, example) = rest.split_at(rest.rfind('_').map_or(0, |at| at + 1));
    let example = example.parse().ok()?;
    let is_dims = infix
        .strip_prefix('K')
        .and_then(|dims| dims.strip_suffix('_'))
        .is_some_and(|dims| dims.parse::<u64>().is_ok());
    // As RapidIn writes it: so that no two names mean one example.
    ((infix.is_empty() || is_dims) && file_name(infix, example) == name).then(|| (infix.to_owned(), example))
}

/// What a part is called.
fn part(infix: &str) -> &str {
    if infix.is_empty() { "full" } else { infix.trim_end_matches('_') }
}

fn file_name(infix: &str, example: u64) -> String {
    format!("train_grad_{infix}{example:08}.pt")
}

fn count(file: &TensorFile) -> u64 {
    file.shape().iter().product()
}

impl RowSource for RapidIn {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn number(&self) -> Number {
        self.number
    }

    fn rows(&self) -> Option<u64> {
        Some(self.examples.len() as u64)
    }

    fn skip(&mut self, rows: u64) -> Result<(), FormatError> {
        let all = self.examples.len() as u64;
        self.next = files::pass(&self.folder, self.next as u64, rows, all)? as usize;
        Ok(())
    }

    fn read(&mut self, rows: usize, batch: &mut Batch) -> Result<(), FormatError> {
        batch.clear();
        for example in self.examples.iter().copied().skip(self.next).take(rows) {
            let path = self.folder.join(file_name(&self.infix, example));
            let mut file = TensorFile::open(&path)?;
            if file.number() != self.number || count(&file) != self.spec.dims() as u64 {
                let (found, shape) = (file.number().name(), file.shape());
                let (number, dims) = (self.number.name(), self.spec.dims());
                let what = format!("{found} of shape {shape:?}, where the first file has {dims} of {number}");
                return Err(unsupported(&path, what));
            }
            let start = batch.values.len();
            file.read(&mut batch.values)?;
            let row = batch.values.get(start..).unwrap_or_default();
            check_finite(&path, &self.spec, (self.next + batch.rows) as u64, row)?;
            batch.ids.push(self.names.of(example, example.to_string().as_bytes())?.to_vec());
            batch.rows += 1;
        }
        self.next += batch.rows;
        Ok(())
    }
}
