//! The rows and queries of a case, generated row by row, never all in memory.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Index, Row, Writer};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use half::vec::HalfFloatVecExt as _;
use rayon::prelude::*;

use super::Failure;
use super::numbers::{gaussian, uniform};
use super::truth::Truth;

/// How many queries there are.
pub const QUERIES: usize = 100;
/// The norm of the noise on a repeated gradient, relative to the row's norm: drawn for each row.
pub const NOISE: [f64; 2] = [0.1, 0.3];
/// Seeds: of rows, of queries, and of how much noise a row gets.
const ROWS: u64 = 1;
const ASKED: u64 = 2;
const LEVELS: u64 = 3;
/// Bytes of numbers that are in memory at once.
const CHUNK: usize = 64 << 20;

/// Where rows come from.
pub enum Source {
    /// Independent Gaussian numbers: the worst case, since no row stands out.
    Gaussian,
    /// Real gradients in turn, with noise.
    Gradients(Gradients),
}

/// The sketches of the demo's examples and of its model's outputs, scaled by one power of two so
/// that their numbers are about 1.
pub struct Gradients {
    rows: Vec<Vec<f16>>,
    queries: Vec<Vec<f32>>,
}

impl Source {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Gradients(_) => "gradients",
        }
    }

    /// The numbers of row `row`.
    fn row(&self, row: usize, dims: usize) -> Vec<f32> {
        let mut numbers = vec![0.0; dims];
        gaussian(ROWS, row as u64, &mut numbers);
        if let Self::Gradients(Gradients { rows, .. }) = self {
            let level = NOISE[0] + (NOISE[1] - NOISE[0]) * uniform(LEVELS, row as u64);
            with_noise(&rows[row % rows.len()].to_f32_vec(), level, &mut numbers);
        }
        numbers
    }

    /// The queries. If there are fewer real ones, they are repeated with noise.
    pub fn queries(&self, dims: usize) -> Vec<Vec<f32>> {
        let query = |query: usize| {
            let mut numbers = vec![0.0; dims];
            gaussian(ASKED, query as u64, &mut numbers);
            if let Self::Gradients(Gradients { queries, .. }) = self {
                let level = if query < queries.len() { 0.0 } else { NOISE[1] };
                with_noise(&queries[query % queries.len()], level, &mut numbers);
            }
            numbers
        };
        (0..QUERIES).map(query).collect()
    }
}

/// Makes `base` plus noise of `level` times its norm out of Gaussian numbers.
fn with_noise(base: &[f32], level: f64, numbers: &mut [f32]) {
    let square: f64 = base.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let factor = (level * (square / base.len() as f64).sqrt()) as f32;
    numbers.iter_mut().zip(base).for_each(|(number, base)| *number = *number * factor + base);
}

impl Gradients {
    /// Reads what the demo left in its folder, narrowed to `dims`.
    pub fn load(demo: &Path, dims: usize) -> Result<Self, Failure> {
        let (mut rows, mut queries) = (Vec::new(), Vec::new());
        each_sketch(&demo.join("index.gradix"), dims, |values| rows.push(values))?;
        each_sketch(&demo.join("queries.gradix"), dims, |values| queries.push(values))?;
        queries.truncate(QUERIES);
        let squares: f64 = rows.iter().flatten().map(|x: &f32| f64::from(*x) * f64::from(*x)).sum();
        let size = (squares / (rows.len() * dims) as f64).sqrt();
        let scale = 2f32.powi(-size.log2().round() as i32);
        let scaled = |values: &Vec<f32>| values.iter().map(|x| x * scale).collect::<Vec<f32>>();
        Ok(Self {
            rows: rows.iter().map(|row| Vec::from_f32_slice(&scaled(row))).collect(),
            queries: queries.iter().map(scaled).collect(),
        })
    }

    /// How many real rows and real queries there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.rows.len(), self.queries.len())
    }
}

/// The sketches of an index in the order of their ids.
fn each_sketch(path: &Path, dims: usize, mut each: impl FnMut(Vec<f32>)) -> Result<(), Failure> {
    let index = Index::options().read_only(true).open(path);
    let index = index.map_err(|error| format!("{error}; `make demo` makes it"))?;
    let snapshot = index.snapshot()?;
    let spec = snapshot.schema().spec().clone();
    let factor = u32::try_from(spec.dims() / dims)?;
    let any = Sketch::dense(spec.clone(), vec![1.0; spec.dims()])?;
    let ranking = snapshot.scan(&[any])?.top_k(usize::try_from(snapshot.rows())?).run()?;
    let mut ids: Vec<&[u8]> = ranking.proponents(0).iter().map(|hit| &hit.id[..]).collect();
    ids.sort_unstable();
    for id in ids {
        let example = snapshot.get(id)?.ok_or("an id without an example")?;
        let sketch = &example.rows[0].sketch;
        each(if factor == 1 { sketch.values().to_vec() } else { sketch.nested(factor)?.into_values() });
    }
    Ok(())
}

/// Streams the rows of a case into a file of f16, into the indexes, and past the queries. The
/// indexes are committed after each number of rows in `commits`, of which the last is all rows.
pub fn make(
    source: &Source,
    spec: &Arc<SketchSpec>,
    commits: &[usize],
    vectors: &Path,
    writers: &mut [Writer],
    truth: &mut Truth,
) -> Result<(), Failure> {
    let dims = spec.dims();
    let started = Instant::now();
    let mut file = BufWriter::new(File::create(vectors)?);
    let chunk = (CHUNK / 4 / dims).max(1);
    let mut first = 0;
    for &commit in commits {
        while first < commit {
            let range = first..commit.min(first + chunk);
            let rows: Vec<Vec<f32>> =
                range.clone().into_par_iter().map(|row| source.row(row, dims)).collect();
            truth.add(first, &rows);
            let halves: Vec<Vec<f16>> = rows.par_iter().map(|row| Vec::from_f32_slice(row)).collect();
            for half in &halves {
                file.write_all(as_bytes(half))?;
            }
            drop(halves);
            let sketches: Vec<Sketch> = rows
                .into_par_iter()
                .map(|values| Sketch::dense(Arc::clone(spec), values))
                .collect::<Result<_, _>>()?;
            let named: Vec<(String, Row<'_>)> =
                range.clone().map(|row| row.to_string()).zip(sketches.iter().map(Row::new)).collect();
            for writer in &mut *writers {
                writer.append_batch(&named)?;
            }
            first = range.end;
        }
        for writer in &mut *writers {
            writer.commit()?;
        }
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    eprintln!("made {first} rows of {dims} dims in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Writes the queries as f32 and the true ranking as u32, query by query, for the peers.
pub fn write_queries(folder: &Path, queries: &[Vec<f32>], best: &[Vec<u32>]) -> Result<(), Failure> {
    let numbers = queries.iter().flatten().flat_map(|number| number.to_le_bytes());
    std::fs::write(folder.join("queries.f32"), numbers.collect::<Vec<u8>>())?;
    let rows = best.iter().flatten().flat_map(|row| row.to_le_bytes());
    std::fs::write(folder.join("truth.u32"), rows.collect::<Vec<u8>>())?;
    Ok(())
}

/// The halves' bytes; the format here is little-endian, as are the machines that run this.
fn as_bytes(halves: &[f16]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: a half is two bytes of any value, and the slice covers just them.
    unsafe { std::slice::from_raw_parts(halves.as_ptr().cast(), halves.len() * 2) }
}
