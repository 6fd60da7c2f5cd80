//! Where the rows of a collection go.

use super::Cause;
use crate::index::{AppendError, DetachedWriter, Row, Writer};
use crate::segment::Span;
use crate::sketch::{Sketch, SketchSpec};

/// An example with its sketches, on its way to a sink.
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected<'a> {
    /// The id.
    pub id: &'a [u8],
    /// The source label of the rows.
    pub source: Option<&'a str>,
    /// The metadata of each of the rows.
    pub metadata: &'a [u8],
    /// Spans and sketches of the rows, in the order of [`Example::spans`](super::Example::spans).
    pub rows: Vec<(Span, Sketch)>,
}

impl Collected<'_> {
    /// The rows as a [`Writer`] or a [`DetachedWriter`] takes them.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.rows.iter().map(|(span, sketch)| self.row(*span, sketch)).collect()
    }

    fn row<'a>(&'a self, span: Span, sketch: &'a Sketch) -> Row<'a> {
        let row = Row::new(sketch).span(span).metadata(self.metadata);
        match self.source {
            Some(source) => row.source(source),
            None => row,
        }
    }
}

/// An example that a sink did not take.
#[derive(Debug)]
pub struct Refused {
    /// Its place among those that were given.
    pub place: usize,
    /// Why.
    pub source: Cause,
}

/// Takes the rows of a collection: a [`Writer`], a [`DetachedWriter`], or what the caller puts in its place.
///
/// A detached writer makes a part of each commit. A collection goes on behind the last part of its folder, also where
/// parts were attached by [`Attach::Link`](crate::Attach::Link) or [`Attach::Move`](crate::Attach::Move); with another
/// sink, such as the index that the parts were attached to, it would begin anew.
///
/// A collection goes on behind what the sink's earlier commits record; a sink without these, which leaves
/// the last three methods as they are, is always begun anew.
pub trait Sink {
    /// The spec of the rows that it takes.
    fn spec(&self) -> &SketchSpec;

    /// Takes some examples, in their order. Returns those that it refuses for what they are themselves, and takes
    /// the others.
    ///
    /// # Errors
    /// The sink cannot go on.
    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause>;

    /// Makes durable what was taken since the last call, together with the payload.
    ///
    /// # Errors
    /// The sink cannot go on.
    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause>;

    /// Adds sketches of an example that was taken since the last commit, which are not rows, to the sums of a curvature,
    /// which the next commit publishes: see [`Collector::observe`](super::Collector::observe). Default: an error that says
    /// so.
    ///
    /// # Errors
    /// The sink cannot go on, or has no sums.
    fn observe(&mut self, name: &str, id: &[u8], sketches: &[Sketch]) -> Result<(), Cause> {
        let _ = (id, sketches);
        Err(format!("the sink keeps no sums, so that nothing can be observed for curvature {name:?}").into())
    }

    /// Discards what was taken since the last commit. Called when the collection cannot commit it.
    ///
    /// # Errors
    /// The sink cannot go on.
    fn abort(&mut self) -> Result<(), Cause>;

    /// The number of the last commit; 0 if there is none.
    fn generation(&self) -> u64 {
        0
    }

    /// The payload of a commit, 1 to [`Sink::generation`]; `None` if it is not kept any more.
    ///
    /// # Errors
    /// It cannot be read.
    fn payload(&self, generation: u64) -> Result<Option<Vec<u8>>, Cause> {
        let _ = generation;
        Ok(None)
    }

    /// Whether an example is there.
    ///
    /// # Errors
    /// It cannot be looked up.
    fn contains(&self, id: &[u8]) -> Result<bool, Cause> {
        let _ = id;
        Ok(false)
    }
}

impl Sink for Writer {
    fn spec(&self) -> &SketchSpec {
        Self::schema(self).spec()
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        append(self, examples)
    }

    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause> {
        self.prepare_commit()?.payload(payload).commit()?;
        Ok(())
    }

    fn observe(&mut self, name: &str, id: &[u8], sketches: &[Sketch]) -> Result<(), Cause> {
        Ok(Self::observe(self, name, id, sketches)?)
    }

    fn abort(&mut self) -> Result<(), Cause> {
        Ok(Self::abort(self)?)
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }

    fn payload(&self, generation: u64) -> Result<Option<Vec<u8>>, Cause> {
        Ok(Self::payload(self, generation)?)
    }

    fn contains(&self, id: &[u8]) -> Result<bool, Cause> {
        Ok(Self::contains(self, id)?)
    }
}

impl Sink for DetachedWriter {
    fn spec(&self) -> &SketchSpec {
        Self::schema(self).spec()
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        append(self, examples)
    }

    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause> {
        self.finish(payload)?;
        Ok(())
    }

    fn observe(&mut self, name: &str, id: &[u8], sketches: &[Sketch]) -> Result<(), Cause> {
        Ok(Self::observe(self, name, id, sketches)?)
    }

    fn abort(&mut self) -> Result<(), Cause> {
        Ok(Self::abort(self)?)
    }

    fn generation(&self) -> u64 {
        self.finished()
    }

    fn payload(&self, generation: u64) -> Result<Option<Vec<u8>>, Cause> {
        Ok(Self::payload(self, generation)?)
    }

    /// An error: it is asked only where a part is gone, and the ids of that are not known.
    fn contains(&self, _: &[u8]) -> Result<bool, Cause> {
        let folder = self.folder().display();
        Err(format!("parts of {folder} are gone, and with them what is known of the collection").into())
    }
}

/// The two ways in which writers take rows.
trait Append {
    fn batch(&mut self, batch: &[(&[u8], Row<'_>)]) -> Result<(), AppendError>;
    fn rows(&mut self, id: &[u8], rows: &[Row<'_>]) -> Result<(), AppendError>;
}

impl Append for Writer {
    fn batch(&mut self, batch: &[(&[u8], Row<'_>)]) -> Result<(), AppendError> {
        self.append_batch(batch)
    }

    fn rows(&mut self, id: &[u8], rows: &[Row<'_>]) -> Result<(), AppendError> {
        self.append_rows(id, rows)
    }
}

impl Append for DetachedWriter {
    fn batch(&mut self, batch: &[(&[u8], Row<'_>)]) -> Result<(), AppendError> {
        self.append_batch(batch)
    }

    fn rows(&mut self, id: &[u8], rows: &[Row<'_>]) -> Result<(), AppendError> {
        self.append_rows(id, rows)
    }
}

fn append(sink: &mut impl Append, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
    // A batch is encoded on all cores, but takes one row of each example.
    let one = |example: &'_ Collected<'_>| example.rows.len() == 1;
    if examples.iter().all(one) {
        let rows: Vec<_> =
            examples.iter().flat_map(|it| it.rows().into_iter().map(|row| (it.id, row))).collect();
        match sink.batch(&rows) {
            Ok(()) => return Ok(Vec::new()),
            // None has been appended.
            Err(error) if is_of_the_example(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut refused = Vec::new();
    for (place, example) in examples.iter().enumerate() {
        match sink.rows(example.id, &example.rows()) {
            Ok(()) => {}
            Err(error) if is_of_the_example(&error) => {
                refused.push(Refused { place, source: error.into() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(refused)
}

/// Whether other examples can still be appended.
fn is_of_the_example(error: &AppendError) -> bool {
    match error {
        AppendError::DuplicateId { .. }
        | AppendError::IdLength { .. }
        | AppendError::Encode { .. }
        | AppendError::NoRows { .. }
        | AppendError::TooLarge { .. }
        | AppendError::EmptySpan { .. }
        | AppendError::SourceLength { .. }
        | AppendError::MetadataLength { .. } => true,
        AppendError::OtherSpec { .. }
        | AppendError::Width { .. }
        | AppendError::NotFound { .. }
        | AppendError::CommitFull { .. }
        | AppendError::Segment(_)
        | AppendError::Manifest(_)
        | AppendError::Poisoned
        | AppendError::Forked => false,
    }
}
