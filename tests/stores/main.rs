//! Stores of other packages, read and imported: `tests/fixtures/stores/README.md` says what made them.

#[path = "../fixtures/mod.rs"]
mod fixtures;

mod bergson;
mod less;
mod logix;
mod rapidin;
mod torch;

use std::fs;
use std::path::{Path, PathBuf};

use gradix::formats::stores::{Store, StoreOptions, open_store};
use gradix::formats::{Batch, FormatError, RowSource};
use gradix::sketch::{Sketch, SketchSpec, SketcherKind};
use gradix::{Encoding, Hit, Index, Row, Schema};
use serde::Deserialize;
use tempfile::TempDir;

use fixtures::indexes::{copy_folder, create};

/// A folder or file of the fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores").join(name)
}

fn json<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

/// A copy of a folder of the fixture, to be damaged.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    copy_folder(&fixture(name), &path);
    (folder, path)
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn cut_off(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

/// All rows of a store, read a few at a time.
struct Rows {
    spec: SketchSpec,
    batch: Batch,
}

impl Rows {
    fn values(&self, row: usize) -> &[f32] {
        let dims = self.spec.dims();
        &self.batch.values[row * dims..(row + 1) * dims]
    }

    fn ids(&self) -> Vec<String> {
        self.batch.ids.iter().map(|id| String::from_utf8(id.clone()).unwrap()).collect()
    }

    fn sketches(&self) -> Vec<Sketch> {
        let sketch = |row| Sketch::dense(self.spec.clone(), self.values(row).to_vec()).unwrap();
        (0..self.batch.rows).map(sketch).collect()
    }
}

fn drain(source: &mut dyn RowSource, at_once: usize) -> Result<Batch, FormatError> {
    let (mut all, mut batch) = (Batch::default(), Batch::default());
    loop {
        source.read(at_once, &mut batch)?;
        if batch.rows == 0 {
            return Ok(all);
        }
        assert!(batch.rows <= at_once);
        all.rows += batch.rows;
        all.values.append(&mut batch.values);
        all.ids.append(&mut batch.ids);
        all.spans.append(&mut batch.spans);
    }
}

fn read(store: Store, path: &Path, options: &StoreOptions) -> Result<Rows, FormatError> {
    let mut source = open_store(store, path, options)?;
    let batch = drain(&mut *source, 5)?;
    assert_eq!(batch.values.len(), batch.rows * source.spec().dims());
    if let Some(rows) = source.rows() {
        assert_eq!(batch.rows as u64, rows);
    }
    // Passing over rows leads to the same ones.
    for skipped in [1, batch.rows / 2] {
        let mut source = open_store(store, path, options)?;
        source.skip(skipped as u64)?;
        let rest = drain(&mut *source, 3)?;
        assert_eq!(rest.values, batch.values[skipped * source.spec().dims()..]);
        assert_eq!(rest.ids, batch.ids[skipped..]);
        assert_eq!(rest.spans, batch.spans.get(skipped..).unwrap_or_default());
    }
    let mut past = open_store(store, path, options)?;
    assert!(past.skip(batch.rows as u64 + 1).and_then(|()| past.read(1, &mut Batch::default())).is_err());
    Ok(Rows { spec: source.spec().clone(), batch })
}

/// The error of a store that cannot be read to its end, with the causes of it.
fn refused(store: Store, path: &Path, options: &StoreOptions) -> String {
    let error = match open_store(store, path, options) {
        Err(error) => error,
        Ok(mut source) => drain(&mut *source, 5).expect_err("the store is read to its end"),
    };
    fixtures::told(&error)
}

fn import(rows: &Rows, encoding: Encoding) -> (TempDir, Index) {
    let (folder, index) = create(&Schema::new(rows.spec.clone(), encoding).unwrap());
    let mut writer = index.writer().unwrap();
    let row = |(row, id): (usize, &Vec<u8>)| (id.clone(), Row::of_values(rows.values(row)));
    let batch: Vec<_> = rows.batch.ids.iter().enumerate().map(row).collect();
    writer.append_batch(&batch).unwrap();
    writer.commit().unwrap();
    (folder, index)
}

/// The rows of a file of `np.save`, as sketches of a spec.
fn queries(name: &str, spec: &SketchSpec) -> Vec<Sketch> {
    let bytes = fs::read(fixture(name)).unwrap();
    let values = npyz::NpyFile::new(&bytes[..]).unwrap().into_vec::<f32>().unwrap();
    values.chunks(spec.dims()).map(|row| Sketch::dense(spec.clone(), row.to_vec()).unwrap()).collect()
}

/// The name and the digest of a dense spec.
fn described(spec: &SketchSpec) -> (&str, &str) {
    match spec.sketcher() {
        SketcherKind::Dense { name, digest } => (name, digest),
        other => panic!("{other:?}"),
    }
}

/// Both ends of what a package ranks.
#[derive(Debug, Deserialize)]
struct Ends {
    proponents: Ranked,
    opponents: Ranked,
}

/// What a package ranks for some queries, best first: ids and scores.
#[derive(Debug, Deserialize)]
struct Ranked {
    ids: Vec<Vec<String>>,
    scores: Vec<Vec<f64>>,
}

/// Ranks queries in an index of the rows, and compares with what the package says of both ends. Scores may differ by
/// the rounding of codes, and of sums in `f32`.
fn assert_ranks_like(rows: &Rows, queries: &[Sketch], ends: &Ends) {
    let longest = (0..rows.batch.rows).map(|row| length(rows.values(row))).fold(0.0, f64::max);
    for (encoding, rounding) in [(Encoding::F32, 0.0), (Encoding::F16, 2f64.powi(-11))] {
        let (_folder, index) = import(rows, encoding);
        let top = ends.proponents.ids[0].len();
        let ranking =
            index.snapshot().unwrap().scan(queries).unwrap().top_k(top).bottom_k(top).run().unwrap();
        for (query, sketch) in queries.iter().enumerate() {
            let allowed = (rounding + 1e-6) * longest * length(sketch.values());
            let compare = |hits: &[Hit], expected: &Ranked| {
                let ids: Vec<_> = hits.iter().map(|hit| hit.id_lossy().into_owned()).collect();
                assert_eq!(ids, expected.ids[query], "{encoding:?}, query {query}");
                for (hit, score) in hits.iter().zip(&expected.scores[query]) {
                    let difference = (hit.score - score).abs();
                    assert!(
                        difference <= allowed,
                        "{encoding:?}: {} and {score} for {}",
                        hit.score,
                        hit.id_lossy()
                    );
                }
            };
            compare(ranking.proponents(query), &ends.proponents);
            compare(ranking.opponents(query), &ends.opponents);
        }
    }
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}
