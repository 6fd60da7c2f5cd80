//! `gradix export`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clap::Args;
use gradix::formats::{self, Batch, FileFormat, Number, RowSink};
use gradix::scan::CancelToken;
use gradix::{Rows, Snapshot, StoredRow};
use serde_json::json;

use super::{At, check};
use crate::failure::{Failure, Result};
use crate::id::Id;
use crate::inputs::parse_number;
use crate::interrupt;
use crate::output::Output;
use crate::records::{Cell, Destination, Format, Kind, Records, check_free};
use crate::scoring;
use crate::units::of;

/// The bytes of a batch between reading and writing.
const BATCH_BYTES: usize = 8 << 20;
/// The most rows of a batch.
const BATCH_ROWS: usize = 8192;

/// Write rows into a file
///
/// Writes vectors, with ids, spans, sources and metadata as far as the format has a place for them, in the order in which
/// the rows were appended. With --metadata-only, everything but the vectors is written, with the norm of each block, as
/// Parquet. The file has its name only when it is whole. Ids of an npy file lie beside it: those of `x.npy` in `x.ids.txt`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix export my.gradix all.safetensors
    gradix export my.gradix wiki.arrow --prefix wiki/ --number f16
    gradix export my.gradix some.npz --ids-from ids.txt --missing-ok
    gradix export my.gradix before.parquet --generation 41
    gradix export my.gradix rows.parquet --metadata-only
    gradix export my.gradix - --format arrow | python3 -c 'import pyarrow as pa; ...'")]
pub struct Export {
    #[command(flatten)]
    at: At,
    /// The file; - is stdout, for Arrow
    out: PathBuf,
    /// The format [default: what the name ends in]
    #[arg(long, value_name = "FORMAT", conflicts_with = "metadata_only")]
    format: Option<FileFormat>,
    /// The type of the numbers: f32, or f16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_number, conflicts_with = "metadata_only")]
    number: Number,
    /// Write ids, spans, sources, metadata and norms, and no vectors, as Parquet
    #[arg(long)]
    metadata_only: bool,
    /// Only this example; repeatable
    #[arg(long, value_name = "ID")]
    id: Vec<Id>,
    /// Only the examples whose ids the file has, one on a line, as `gradix ls` prints them
    #[arg(long, value_name = "FILE")]
    ids_from: Option<PathBuf>,
    /// Only examples whose ids begin with this
    #[arg(long, value_name = "ID")]
    prefix: Option<Id>,
    /// Only rows with this source label; repeatable
    #[arg(long, value_name = "LABEL")]
    source: Vec<String>,
    /// Pass over ids that are not there
    #[arg(long)]
    missing_ok: bool,
    /// Overwrite a file that is there; for npy, that of the ids too
    #[arg(long)]
    force: bool,
}

impl Export {
    pub fn run(self, output: &Output) -> Result {
        let token = interrupt::token()?;
        let is_stdout = self.out == Path::new("-");
        if !is_stdout {
            check_free(&self.out, self.force)?;
            let format = self.format.or(FileFormat::of_path(&self.out));
            if format == Some(FileFormat::Npy) && !self.metadata_only {
                check_free(&self.out.with_extension("ids.txt"), self.force)?;
            }
        }
        let snapshot = self.at.snapshot()?;
        let ids = self.ids(&snapshot)?;
        let rows = self.rows(&snapshot, ids.as_ref());
        let mut progress = output.progress("exporting", "rows", Some(snapshot.rows()));
        let mut written = 0;
        let mut count = |rows: u64| {
            written += rows;
            progress.set(written, None);
        };
        match self.metadata_only {
            true => self.metadata(&snapshot, rows, &token, &mut count)?,
            false => self.vectors(&snapshot, rows.with_sketches(), &token, &mut count)?,
        }
        drop(progress);
        if is_stdout {
            output.note(&format!("wrote {}", of(written, "row")));
            return Ok(());
        }
        let told = json!({"out": self.out, "rows": written, "generation": snapshot.generation()});
        output.result(&told, || {
            format!(
                "wrote {} of generation {} to {}",
                of(written, "row"),
                snapshot.generation(),
                self.out.display()
            )
        })
    }

    /// The ids that were named, if any were.
    fn ids(&self, snapshot: &Snapshot) -> Result<Option<HashSet<Vec<u8>>>> {
        if self.id.is_empty() && self.ids_from.is_none() {
            return Ok(None);
        }
        let mut ids: HashSet<_> = self.id.iter().map(|id| id.0.clone()).collect();
        if let Some(path) = &self.ids_from {
            ids.extend(scoring::ids(path)?);
        }
        if !self.missing_ok {
            for id in &ids {
                if !snapshot.contains(id)? {
                    let error = gradix::AppendError::NotFound { id: id.clone() };
                    return Err(
                        Failure::from(error).and("--missing-ok passes over ids that are not there".into())
                    );
                }
            }
        }
        Ok(Some(ids))
    }

    fn rows<'s>(&'s self, snapshot: &'s Snapshot, ids: Option<&'s HashSet<Vec<u8>>>) -> Rows<'s> {
        let rows = snapshot.iter();
        if ids.is_none() && self.prefix.is_none() && self.source.is_empty() {
            return rows;
        }
        rows.only(move |id, _, source| {
            ids.is_none_or(|ids| ids.contains(id))
                && self.prefix.as_ref().is_none_or(|prefix| id.starts_with(&prefix.0))
                && (self.source.is_empty()
                    || source.is_some_and(|label| self.source.iter().any(|it| it == label)))
        })
    }

    /// Writes all but the vectors.
    fn metadata(
        &self,
        snapshot: &Snapshot,
        rows: Rows<'_>,
        token: &CancelToken,
        count: &mut impl FnMut(u64),
    ) -> Result {
        let mut columns = vec![
            ("id".to_owned(), Kind::Id),
            ("span_start".to_owned(), Kind::Count),
            ("span_end".to_owned(), Kind::Count),
            ("source".to_owned(), Kind::Text),
            ("metadata".to_owned(), Kind::Bytes),
        ];
        let blocks = snapshot.schema().spec().blocks();
        columns.extend(blocks.iter().map(|block| (format!("norm.{}", block.name), Kind::Number)));
        let path = (self.out != Path::new("-")).then_some(&*self.out);
        let destination = Destination::new(path, self.force)?;
        let mut records = Records::create(Format::Parquet, destination, columns)?;
        for row in rows {
            check(token)?;
            let row = row?;
            let end =
                |number: u32| if row.span.is_whole() { Cell::Nothing } else { Cell::Count(number.into()) };
            let mut cells = vec![
                Cell::Bytes(&row.id),
                end(row.span.start),
                end(row.span.end),
                Cell::text(row.source.as_deref()),
                Cell::Bytes(&row.metadata),
            ];
            cells.extend(row.norms.iter().map(|&norm| Cell::Number(norm.into())));
            records.write(&cells)?;
            count(1);
        }
        records.finish()
    }

    /// Writes vectors: one thread reads and decodes, this one writes.
    fn vectors(
        &self,
        snapshot: &Snapshot,
        rows: Rows<'_>,
        token: &CancelToken,
        count: &mut impl FnMut(u64),
    ) -> Result {
        let format = self.format.or(FileFormat::of_path(&self.out)).ok_or_else(|| {
            let names = FileFormat::ALL.map(FileFormat::name).join(", ");
            Failure::Usage(format!("--format says what to write: {names}"))
        })?;
        if !matches!(self.number, Number::F16 | Number::F32) {
            return Err(Failure::Usage("--number is f16 or f32".into()));
        }
        let spec = snapshot.schema().spec();
        let sink = formats::create(&self.out, format, spec, self.number)?;
        let row_bytes = spec.dims() * size_of::<f32>();
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(2);
            let (back, returned) = std::sync::mpsc::channel();
            let reader = scope.spawn(move || read(rows, row_bytes, token, &sender, &returned));
            let written = write(sink, &receiver, &back, count);
            // A reader that waits ends when nobody receives.
            drop((receiver, back));
            let read = reader.join().unwrap_or_else(|_| {
                let source = std::io::Error::other("the reading thread has ended");
                Err(Failure::Io { what: "read the index".into(), source })
            });
            let sink = written?;
            read?;
            Ok(sink.finish()?)
        })
    }
}

/// Reads rows into batches, and sends each when its values, ids and metadata are enough.
fn read(
    rows: Rows<'_>,
    row_bytes: usize,
    token: &CancelToken,
    sender: &SyncSender<Batch>,
    returned: &Receiver<Batch>,
) -> Result {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    for row in rows {
        check(token)?;
        let row = row?;
        bytes += row_bytes + row.id.len() + row.metadata.len();
        push(&mut batch, row);
        if bytes >= BATCH_BYTES || batch.rows == BATCH_ROWS {
            let next = returned.try_recv().unwrap_or_default();
            if sender.send(std::mem::replace(&mut batch, next)).is_err() {
                return Ok(());
            }
            batch.clear();
            bytes = 0;
        }
    }
    if batch.rows > 0 {
        // Whoever receives it says what failed.
        let _ = sender.send(batch);
    }
    Ok(())
}

fn push(batch: &mut Batch, row: StoredRow) {
    batch.rows += 1;
    if let Some(sketch) = &row.sketch {
        batch.values.extend_from_slice(sketch.values());
    }
    batch.ids.push(row.id);
    batch.spans.push(row.span);
    batch.sources.push(row.source);
    batch.metadata.push(row.metadata);
}

fn write(
    mut sink: Box<dyn RowSink>,
    receiver: &Receiver<Batch>,
    back: &std::sync::mpsc::Sender<Batch>,
    count: &mut impl FnMut(u64),
) -> Result<Box<dyn RowSink>> {
    while let Ok(batch) = receiver.recv() {
        sink.write(&batch)?;
        count(batch.rows as u64);
        // The reader may have ended.
        let _ = back.send(batch);
    }
    Ok(sink)
}
