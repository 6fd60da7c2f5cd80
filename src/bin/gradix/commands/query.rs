//! `gradix query`

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use clap::Args;
use gradix::scan::Guarantee;
use gradix::sketch::Sketch;
use gradix::{CancelToken, Hit, Ranking, Scan, Snapshot};
use serde::Serialize;

use super::At;
use crate::failure::{Failure, Result};
use crate::id;
use crate::interrupt;
use crate::output::Output;
use crate::queries::{Queries, QueryArgs};
use crate::records::{self, Cell, Kind, Records};
use crate::scoring::{Filters, GuaranteeName, Rows, Scoring};
use crate::sheet::{SheetArgs, score};
use crate::table::{Column, Table};
use crate::texts;
use crate::units::of;

/// Rank the examples by their influence on outputs
///
/// Prints the proponents of each query, which have the highest scores, and the opponents, which have the lowest. Scores are
/// those of the stored codes: exact, unless --guarantee says otherwise.
///
/// With --json, prints the ranking as the library serialises it, on one line for each batch of queries that is ranked in one
/// pass over the rows: up to 256, or 64 MiB.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix query my.gradix output.npy --top-k 20 --bottom-k 5
    gradix query my.gradix tokens.safetensors --metric cosine --format parquet -o ranking.parquet
    gradix query my.gradix --id 'page 7' --exclude 'page 7' --source wiki --group max
    gradix query my.gradix good.npy --minus bad.npy --blocks layers.0,layers.1 --weight layers.1=0.5
    gradix query my.gradix output.npy --curvature --kappa 2 --texts examples.jsonl
    gradix query my.gradix output.npy --json | jq -r .proponents[0][].id")]
pub struct Query {
    #[command(flatten)]
    asked: Asked,
    /// Print the metadata of the rows too
    #[arg(long)]
    metadata: bool,
    /// The texts of the examples: a line {"id": ..., "text": ...} for each
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// What `--json` prints of a batch.
#[derive(Serialize)]
struct Printed<'a> {
    queries: &'a [String],
    #[serde(flatten)]
    ranking: &'a Ranking,
}

/// What is ranked, and how. `gradix explain` says how this would be answered.
#[derive(Debug, Args)]
pub struct Asked {
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub queries: QueryArgs,
    /// The number of proponents of each query
    #[arg(long, short = 'k', value_name = "NUMBER", default_value_t = 10)]
    top_k: usize,
    /// The number of opponents of each query
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    bottom_k: usize,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    pub filters: Filters,
    /// exact, or the probability with which rows may be missing: needs the sign tier
    #[arg(long, value_name = "exact|DELTA", default_value = "exact")]
    pub guarantee: GuaranteeName,
}

impl Asked {
    /// A scan of `rows`, which are those of the filters.
    pub fn scan<'a>(
        &self,
        snapshot: &'a Snapshot,
        queries: &'a [Sketch],
        rows: &Rows<'_>,
    ) -> Result<Scan<'a>> {
        let scan = snapshot.scan(queries)?.top_k(self.top_k).bottom_k(self.bottom_k);
        Ok(self.scoring.configure(rows.configure(scan)).guarantee(self.guarantee.0))
    }
}

impl Query {
    pub fn run(&self, output: &Output) -> Result {
        let cancel = interrupt::token()?;
        let (_, snapshot) = self.asked.at.open()?;
        match self.sheet.records(self.columns())? {
            Some(mut records) => {
                self.rank(&snapshot, &cancel, output, |queries, first, ranking, texts| {
                    self.record(queries, first, ranking, texts, &mut records)
                })?;
                records.finish()
            }
            None => output.stream(|out| {
                self.rank(&snapshot, &cancel, output, |queries, _, ranking, texts| {
                    if output.is_json() {
                        return output.line(out, &Printed { queries: &queries.names, ranking });
                    }
                    self.table(queries, ranking, texts, out).map_err(Failure::stdout)
                })
            }),
        }
    }

    /// Ranks batch after batch; `each` gets the number of queries before the batch.
    fn rank(
        &self,
        snapshot: &Snapshot,
        cancel: &CancelToken,
        output: &Output,
        mut each: impl FnMut(&Queries, usize, &Ranking, &Texts) -> Result,
    ) -> Result {
        let mut reader = self.asked.queries.reader(snapshot, cancel)?;
        let rows = self.asked.filters.read()?;
        let mut first = 0;
        while let Some(queries) = reader.next_batch()? {
            let mut progress = output.progress("scan", "rows", None);
            let scan = self.asked.scan(snapshot, &queries.sketches, &rows)?;
            let scan = scan.metadata(self.metadata).cancel(cancel);
            let ranking = scan.progress(|at| progress.set(at.rows_done, Some(at.rows_total))).run()?;
            drop(progress);
            let texts = match &self.texts {
                Some(path) => texts::read(path, &ids(&ranking))?,
                None => Texts::new(),
            };
            each(&queries, first, &ranking, &texts)?;
            note(&ranking, self.asked.guarantee.0, output);
            first += queries.sketches.len();
        }
        Ok(())
    }

    fn columns(&self) -> Vec<records::Column> {
        let mut columns = vec![
            ("query", Kind::Count),
            ("name", Kind::Text),
            ("end", Kind::Text),
            ("rank", Kind::Count),
            ("id", Kind::Id),
            ("score", Kind::Number),
            ("span_start", Kind::Count),
            ("span_end", Kind::Count),
            ("source", Kind::Text),
        ];
        if self.metadata {
            columns.push(("metadata", Kind::Bytes));
        }
        if self.texts.is_some() {
            columns.push(("text", Kind::Text));
        }
        columns.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect()
    }

    fn record(
        &self,
        queries: &Queries,
        first: usize,
        ranking: &Ranking,
        texts: &Texts,
        records: &mut Records,
    ) -> Result {
        for (query, name) in queries.names.iter().enumerate() {
            for (end, hits) in ends(ranking, query) {
                for (rank, hit) in (1..).zip(hits) {
                    let (start, stop) = super::span_cells(hit.span);
                    let mut cells = vec![
                        Cell::Count((first + query) as u64),
                        Cell::Text(name),
                        Cell::Text(end),
                        Cell::Count(rank),
                        Cell::Bytes(&hit.id),
                        Cell::Number(hit.score),
                        start,
                        stop,
                        Cell::text(hit.source.as_deref()),
                    ];
                    if self.metadata {
                        cells.push(hit.metadata.as_deref().map_or(Cell::Nothing, Cell::Bytes));
                    }
                    if self.texts.is_some() {
                        cells.push(Cell::text(texts.get(&hit.id).map(String::as_str)));
                    }
                    records.write(&cells)?;
                }
            }
        }
        Ok(())
    }

    fn table(
        &self,
        queries: &Queries,
        ranking: &Ranking,
        texts: &Texts,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        for (query, name) in queries.names.iter().enumerate() {
            for (end, hits) in ends(ranking, query) {
                if hits.is_empty() {
                    continue;
                }
                writeln!(out, "{end}s of {name}")?;
                self.hits(hits, texts, out)?;
                writeln!(out)?;
            }
        }
        Ok(())
    }

    /// Columns that say nothing of any hit are left out.
    fn hits(&self, hits: &[Hit], texts: &Texts, out: &mut dyn io::Write) -> io::Result<()> {
        let has_spans = hits.iter().any(|hit| !hit.span.is_whole());
        let has_sources = hits.iter().any(|hit| hit.source.is_some());
        let mut columns = vec![Column::number("rank"), Column::number("score"), Column::text("id")];
        columns.extend(has_spans.then(|| Column::text("span")));
        columns.extend(has_sources.then(|| Column::text("source")));
        columns.extend(self.metadata.then(|| Column::text("metadata")));
        columns.extend(self.texts.is_some().then(|| Column::text("text")));
        let mut table = Table::new(columns);
        for (rank, hit) in (1..).zip(hits) {
            let mut cells = vec![rank.to_string(), score(hit.score), id::shown(&hit.id)];
            cells.extend(has_spans.then(|| hit.span.to_string()));
            cells.extend(has_sources.then(|| id::shown(hit.source.as_deref().unwrap_or("-").as_bytes())));
            cells.extend(self.metadata.then(|| id::shown(hit.metadata.as_deref().unwrap_or_default())));
            let text = || texts.get(&hit.id).map_or_else(String::new, |text| first_words(text));
            cells.extend(self.texts.is_some().then(text));
            table.row(out, cells)?;
        }
        table.flush(out)
    }
}

type Texts = HashMap<Vec<u8>, String>;

fn ids(ranking: &Ranking) -> HashSet<&[u8]> {
    let hits = (0..ranking.queries()).flat_map(|query| ends(ranking, query)).flat_map(|(_, hits)| hits);
    hits.map(|hit| &hit.id[..]).collect()
}

fn ends(ranking: &Ranking, query: usize) -> [(&'static str, &[Hit]); 2] {
    [("proponent", ranking.proponents(query)), ("opponent", ranking.opponents(query))]
}

/// The beginning of a text, on one line.
fn first_words(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut line = words.next().unwrap_or_default().to_owned();
    for word in words {
        if line.len() > 400 {
            break;
        }
        line.push(' ');
        line.push_str(word);
    }
    line
}

/// Says how the ranking was found.
fn note(ranking: &Ranking, guarantee: Guarantee, output: &Output) {
    let found = ranking.statistics();
    let how = match guarantee {
        Guarantee::Exact => "exactly".to_owned(),
        _ => format!("by the {} path", found.path),
    };
    let took = found.elapsed.as_secs_f64() * 1e3;
    output.note(&format!("ranked {} {how} in {took:.0} ms", of(found.rows, "row")));
    if found.ids_missing > 0 {
        output.note(&format!("{} of the filters not in the index", of(found.ids_missing, "id")));
    }
}
