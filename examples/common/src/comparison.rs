//! The indexes that are compared: the same sketches, each time at another width and in another encoding.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gradix::burn::collect::{Cause, Collected, Refused, Sink};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Hit, Index, Row, Schema, Span, Writer};

use crate::Failure;
use crate::experiment::{Built, Cost, ENDS, Ends, Place, Ranked, joined};

/// The wide sketches' numbers, and the narrow ones'.
pub const DIMS: [u32; 2] = [1 << 16, 1 << 12];

/// One index that is compared.
#[derive(Debug)]
pub struct Method {
    /// Numbers in a sketch.
    pub dims: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// The index's folder.
    pub path: PathBuf,
}

/// The four indexes, in the folder `out`. The first one is `index.gradix`, which stays.
#[must_use]
pub fn methods(out: &Path) -> Vec<Method> {
    let mut methods = Vec::new();
    for dims in DIMS {
        for encoding in [Encoding::I8, Encoding::F16] {
            let folder = if methods.is_empty() {
                "index.gradix".to_owned()
            } else {
                format!("compared-{dims}-{encoding}.gradix")
            };
            methods.push(Method { dims: dims as usize, encoding, path: out.join(folder) });
        }
    }
    methods
}

/// The sketch with `dims` numbers that this wider one holds.
fn narrowed(sketch: &Sketch, dims: usize) -> Result<Sketch, Failure> {
    let factor = sketch.spec().dims() / dims;
    Ok(sketch.nested(u32::try_from(factor)?)?)
}

/// A sink that gives every sketch to all indexes, each at its own width. They are begun anew.
pub struct Compared<'a> {
    spec: &'a SketchSpec,
    methods: &'a [Method],
    writers: Vec<Writer>,
    built: Vec<Built>,
}

impl<'a> Compared<'a> {
    /// Creates the indexes, in place of those that are there. `spec` is that of the wide sketches.
    ///
    /// # Errors
    /// Of the engine.
    pub fn create(spec: &'a SketchSpec, methods: &'a [Method]) -> Result<Self, Failure> {
        let mut built = vec![Built::default(); methods.len()];
        let mut writers = Vec::new();
        for (method, built) in methods.iter().zip(&mut built) {
            if method.path.exists() {
                fs::remove_dir_all(&method.path)?;
            }
            let factor = u32::try_from(spec.dims() / method.dims)?;
            let schema = Schema::new(spec.nested(factor)?, method.encoding)?;
            built.row_bytes = schema.row_bytes();
            writers.push(Index::options().create(&method.path, &schema)?.writer()?);
        }
        Ok(Self { spec, methods, writers, built })
    }

    /// Closes the indexes, and says what building each took and made.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn finish(self) -> Result<Vec<Built>, Failure> {
        let Self { methods, mut built, writers, .. } = self;
        drop(writers);
        for (method, built) in methods.iter().zip(&mut built) {
            built.index_bytes = folder_bytes(&method.path)?;
        }
        Ok(built)
    }
}

impl Sink for Compared<'_> {
    fn spec(&self) -> &SketchSpec {
        self.spec
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        for ((method, writer), built) in self.methods.iter().zip(&mut self.writers).zip(&mut self.built) {
            let began = Instant::now();
            for example in examples {
                let narrow: Vec<(Span, Sketch)> = example
                    .rows
                    .iter()
                    .map(|(span, sketch)| Ok((*span, narrowed(sketch, method.dims)?)))
                    .collect::<Result<_, Failure>>()?;
                let mut rows = Vec::with_capacity(narrow.len());
                for (span, sketch) in &narrow {
                    let row = Row::new(sketch).span(*span).metadata(example.metadata);
                    rows.push(match example.source {
                        Some(source) => row.source(source),
                        None => row,
                    });
                }
                writer.append_rows(example.id, &rows)?;
            }
            built.append_seconds += began.elapsed().as_secs_f64();
        }
        Ok(Vec::new())
    }

    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause> {
        for (writer, built) in self.writers.iter_mut().zip(&mut self.built) {
            let began = Instant::now();
            writer.prepare_commit()?.payload(payload.clone()).commit()?;
            built.append_seconds += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Cause> {
        for writer in &mut self.writers {
            writer.abort()?;
        }
        Ok(())
    }
}

/// The `k` first and `k` last examples for each query, from an index on disk, and the seconds that
/// opening and scanning it took. `places` gives an id's place in the training set.
///
/// # Errors
/// Of the engine, or an id that is not in the training set.
pub fn rank(
    path: &Path,
    queries: &[Sketch],
    k: usize,
    places: &HashMap<&str, usize>,
) -> Result<(Vec<Ends>, f64), Failure> {
    let start = Instant::now();
    let snapshot = Index::options().open(path)?.snapshot()?;
    let ranking = snapshot.scan(queries)?.top_k(k).bottom_k(k).run()?;
    let seconds = start.elapsed().as_secs_f64();
    let place = |hit: &Hit| -> Result<Place, Failure> {
        let id = std::str::from_utf8(&hit.id)?;
        let place = places.get(id).ok_or_else(|| format!("unknown id {id:?}"))?;
        Ok((*place, hit.score))
    };
    let ends = (0..queries.len())
        .map(|query| {
            Ok(Ends {
                proponents: ranking.proponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
                opponents: ranking.opponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok((ends, seconds))
}

/// The rankings of every index for wide queries, with what they cost; and the ends of the first one's. `sketching` are
/// the seconds of making the sketches, which all share.
///
/// # Errors
/// As [`rank`].
pub fn rank_all(
    methods: &[Method],
    built: &[Built],
    wide: &[Sketch],
    sketching: f64,
    places: &HashMap<&str, usize>,
) -> Result<(Ranked, Vec<Ends>), Failure> {
    let mut shown: Vec<Ends> = Vec::new();
    let mut ranked = Vec::new();
    for (method, built) in methods.iter().zip(built) {
        let narrow: Vec<Sketch> =
            wide.iter().map(|sketch| narrowed(sketch, method.dims)).collect::<Result<_, _>>()?;
        let (ends, seconds) = rank(&method.path, &narrow, ENDS, places)?;
        let each = seconds / narrow.len().max(1) as f64;
        let cost = Cost::of_index(method.dims, method.encoding.name(), built, sketching, each);
        ranked.push((cost, ends.iter().map(joined).collect()));
        if shown.is_empty() {
            shown = ends;
        }
    }
    Ok((ranked, shown))
}

/// The inner product of two sketches of one spec.
#[must_use]
pub fn influence(a: &Sketch, b: &Sketch) -> f64 {
    a.values().iter().zip(b.values()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { folder_bytes(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}
