//! The queries of a scan: rows of files, or of examples in the index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use gradix::formats::{self, Batch, ReadOptions, RowSource};
use gradix::operators::sum_of;
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{CancelToken, Snapshot};

use crate::failure::{Failure, Result};
use crate::id::{self, Id};

/// The bytes of queries that are in memory at a time, where a command can go on with the next ones.
const BATCH_BYTES: usize = 64 << 20;
/// The bytes of queries that a command takes that needs all of them at a time.
const ALL_BYTES: usize = 256 << 20;
/// The queries of one pass.
const BATCH: usize = 256;

/// What is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queries")]
pub struct QueryArgs {
    /// Files of vectors: .safetensors, .npy, .npz, Arrow or Parquet; - is stdin. Each row is a query
    queries: Vec<PathBuf>,
    /// An example of the index: the sum of its rows is a query; repeatable
    #[arg(long, value_name = "ID")]
    id: Vec<Id>,
    /// Subtract the rows of this file from the queries: one from all, or each from its own
    #[arg(long, value_name = "FILE")]
    minus: Option<PathBuf>,
    /// Subtract an example of the index from all queries
    #[arg(long, value_name = "ID", conflicts_with = "minus")]
    minus_id: Option<Id>,
}

/// Queries with their names.
#[derive(Debug, Default)]
pub struct Queries {
    pub names: Vec<String>,
    pub sketches: Vec<Sketch>,
    /// Of each file, or of all ids: the range of its queries.
    pub files: Vec<std::ops::Range<usize>>,
}

/// What is left to read.
pub struct Reader<'a> {
    args: &'a QueryArgs,
    snapshot: &'a Snapshot,
    spec: Arc<SketchSpec>,
    cancel: CancelToken,
    files: std::slice::Iter<'a, PathBuf>,
    open: Option<(Box<dyn RowSource>, &'a Path, u64)>,
    ids: std::slice::Iter<'a, Id>,
    minus: Minus,
    batch: Batch,
}

/// What is subtracted.
enum Minus {
    Nothing,
    /// From all.
    One(Sketch),
    /// Row after row, from one query after the other.
    Rows(Box<Rows>),
}

/// A file of which one row is taken at a time.
struct Rows {
    source: Box<dyn RowSource>,
    path: PathBuf,
    spec: Arc<SketchSpec>,
    batch: Batch,
}

impl QueryArgs {
    /// Reads queries in batches.
    pub fn reader<'a>(&'a self, snapshot: &'a Snapshot, cancel: &CancelToken) -> Result<Reader<'a>> {
        if self.queries.is_empty() && self.id.is_empty() {
            return Err(Failure::Usage(
                "there is no query: give a file of vectors, or --id with the id of an example in the index"
                    .into(),
            ));
        }
        let spec = Arc::new(snapshot.schema().spec().for_queries());
        let minus = match (&self.minus, &self.minus_id) {
            (Some(path), _) => Minus::of_file(path, &spec)?,
            (None, Some(Id(id))) => Minus::One(sum_of(snapshot, [id], cancel)?),
            (None, None) => Minus::Nothing,
        };
        Ok(Reader {
            args: self,
            snapshot,
            spec,
            cancel: cancel.clone(),
            files: self.queries.iter(),
            open: None,
            ids: self.id.iter(),
            minus,
            batch: Batch::default(),
        })
    }

    /// Reads all queries; too many for the memory are an error.
    pub fn all(&self, snapshot: &Snapshot, cancel: &CancelToken) -> Result<Queries> {
        let mut reader = self.reader(snapshot, cancel)?;
        let mut all = Queries::default();
        let dims = reader.spec.dims();
        while reader.read(usize::MAX, &mut all)? {
            if all.sketches.len().saturating_mul(dims) * size_of::<f32>() > ALL_BYTES {
                return Err(Failure::Usage(format!(
                    "the queries take more than {} MiB, and this command needs all of them at a time: give it fewer",
                    ALL_BYTES >> 20
                )));
            }
        }
        reader.finish()?;
        Ok(all)
    }
}

impl Reader<'_> {
    /// The next queries; `None` behind the last.
    pub fn next_batch(&mut self) -> Result<Option<Queries>> {
        let row = self.spec.dims().max(1) * size_of::<f32>();
        let most = (BATCH_BYTES / row).clamp(1, BATCH);
        let mut batch = Queries::default();
        while batch.sketches.len() < most && self.read(most, &mut batch)? {}
        if batch.sketches.is_empty() {
            self.finish()?;
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// Reads some more, until there are at most so many. `false` if there are no more.
    fn read(&mut self, most: usize, queries: &mut Queries) -> Result<bool> {
        loop {
            crate::interrupt::check(&self.cancel)?;
            if let Some((source, path, first)) = &mut self.open {
                let row = self.spec.dims().max(1) * size_of::<f32>();
                let space =
                    most.saturating_sub(queries.sketches.len()).min((BATCH_BYTES / row).clamp(1, BATCH));
                source.read(space, &mut self.batch)?;
                if self.batch.rows == 0 {
                    self.open = None;
                    continue;
                }
                let values = self.batch.values.chunks_exact(self.spec.dims().max(1));
                for (row, values) in values.take(self.batch.rows).enumerate() {
                    let mut sketch =
                        Sketch::dense(Arc::clone(&self.spec), values.to_vec()).map_err(|error| {
                            Failure::from(error).at(format!(
                                "{}, row {}",
                                path.display(),
                                *first + row as u64
                            ))
                        })?;
                    self.minus.subtract(&mut sketch)?;
                    queries.names.push(match self.batch.ids.get(row) {
                        Some(id) => id::shown(id),
                        None => format!("{}#{}", path.display(), *first + row as u64),
                    });
                    queries.sketches.push(sketch);
                }
                *first += self.batch.rows as u64;
                if let Some(file) = queries.files.last_mut() {
                    file.end = queries.sketches.len();
                }
                return Ok(true);
            }
            let here = queries.sketches.len();
            if let Some(path) = self.files.next() {
                self.open = Some((open(path, &self.spec)?, path, 0));
                queries.files.push(here..here);
                continue;
            }
            let Some(Id(id)) = self.ids.next() else { return Ok(false) };
            let mut sketch = sum_of(self.snapshot, [id], &self.cancel)?;
            self.minus.subtract(&mut sketch)?;
            queries.names.push(id::shown(id));
            queries.sketches.push(sketch);
            // The ids are one group, behind the files.
            match queries.files.get_mut(self.args.queries.len()) {
                Some(ids) => ids.end += 1,
                None => queries.files.push(here..here + 1),
            }
            return Ok(true);
        }
    }

    /// Fails if more was to be subtracted than there were queries.
    fn finish(&mut self) -> Result {
        self.minus.finish()
    }
}

impl Minus {
    fn of_file(path: &Path, spec: &Arc<SketchSpec>) -> Result<Self> {
        let mut rows = Rows::open(path, spec)?;
        let first = rows.next()?.ok_or_else(|| Failure::Wrong(format!("{} has no rows", path.display())))?;
        match rows.next()? {
            None => Ok(Self::One(first)),
            // Again from the beginning.
            Some(_) => Ok(Self::Rows(Box::new(Rows::open(path, spec)?))),
        }
    }

    fn subtract(&mut self, query: &mut Sketch) -> Result {
        match self {
            Self::Nothing => {}
            Self::One(minus) => *query = query.minus(minus)?,
            Self::Rows(rows) => {
                let Some(minus) = rows.next()? else {
                    return Err(Failure::Wrong(format!(
                        "{} has fewer rows than there are queries",
                        rows.path.display()
                    )));
                };
                *query = query.minus(&minus)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result {
        if let Self::Rows(rows) = self {
            rows.source.read(1, &mut rows.batch)?;
            if rows.batch.rows > 0 {
                return Err(Failure::Wrong(format!(
                    "{} has more rows than there are queries",
                    rows.path.display()
                )));
            }
        }
        Ok(())
    }
}

impl Rows {
    fn open(path: &Path, spec: &Arc<SketchSpec>) -> Result<Self> {
        let (source, spec) = (open(path, spec)?, Arc::clone(spec));
        Ok(Self { source, path: path.to_owned(), spec, batch: Batch::default() })
    }

    fn next(&mut self) -> Result<Option<Sketch>> {
        self.source.read(1, &mut self.batch)?;
        if self.batch.rows == 0 {
            return Ok(None);
        }
        Ok(Some(Sketch::dense(Arc::clone(&self.spec), self.batch.values.clone())?))
    }
}

/// Opens a file whose rows are of the spec's blocks, in any order, or of one block that stands for all.
fn open(path: &Path, spec: &SketchSpec) -> Result<Box<dyn RowSource>> {
    let options = ReadOptions::default().optional_ids();
    let source = formats::open(path, &options)?;
    let given = source.spec().blocks();
    if given == spec.blocks() || (given.len() == 1 && source.spec().dims() == spec.dims()) {
        return Ok(source);
    }
    let names: Vec<&str> = spec.blocks().iter().map(|block| block.name.as_str()).collect();
    if path != Path::new("-") && spec.blocks().iter().all(|block| given.contains(block)) {
        return Ok(formats::open(path, &options.blocks(names))?);
    }
    Err(Failure::Wrong(format!(
        "{} has rows of other blocks than the index, of {} dims in all, where the index has {}: `gradix schema` shows its blocks",
        path.display(),
        source.spec().dims(),
        spec.dims()
    )))
}
