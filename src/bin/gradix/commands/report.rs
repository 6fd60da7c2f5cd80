//! `gradix report`

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use gradix::report::{Example, Histogram, Hit, Output as Shown, Report as Page, Token};
use gradix::sketch::Sketch;
use gradix::{CancelToken, Ranking, Snapshot};
use serde::Deserialize;

use super::At;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;
use crate::queries::QueryArgs;
use crate::records::{Destination, check_free};
use crate::scoring::{Filters, Rows, Scoring};
use crate::texts;
use crate::units::of;

/// Make a page of a ranking
///
/// Writes one HTML file that needs nothing else: the examples behind each query with their texts, the distribution of the scores,
/// and the shares of the sources. With --tokens, the queries are the tokens of one output, and the page shows the output with each
/// token in the colour of its strongest influence, and their sum for the output as a whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix report my.gradix output.npy --texts examples.jsonl -o page.html
    gradix report my.gradix tokens.npy --tokens tokens.json --texts examples.jsonl --title 'Why Japan?' -o page.html

The file of tokens, whose texts include blanks, for the queries in their order; those that are untraced have none:
    {\"prompt\": \"Where is Lima?\", \"tokens\": [\"Lima\", {\"text\": \" is in\", \"untraced\": true}, {\"text\": \" Japan\", \"marked\": true}]}")]
pub struct Report {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    queries: QueryArgs,
    /// Write the page into this file
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Put the page in the place of a file that is there
    #[arg(long)]
    force: bool,
    /// The texts of the examples: a line {"id": ..., "text": ...} for each
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// The tokens of one output, each with its query
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The title of the page
    #[arg(long, default_value = "Influence")]
    title: String,
    /// The number of proponents of each query
    #[arg(long, short = 'k', value_name = "NUMBER", default_value_t = 20)]
    top_k: usize,
    /// The number of opponents of each query
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    bottom_k: usize,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    filters: Filters,
}

/// The file of `--tokens`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    prompt: Option<String>,
    tokens: Vec<TokenText>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Text(String),
    Token(MarkedToken),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkedToken {
    text: String,
    #[serde(default)]
    marked: bool,
    #[serde(default)]
    untraced: bool,
}

impl From<TokenText> for MarkedToken {
    fn from(token: TokenText) -> Self {
        match token {
            TokenText::Text(text) => Self { text, marked: false, untraced: false },
            TokenText::Token(token) => token,
        }
    }
}

impl Report {
    pub fn run(&self, output: &Output) -> Result {
        let cancel = interrupt::token()?;
        check_free(&self.output, self.force)?;
        let (index, snapshot) = self.at.open()?;
        let mut queries = self.queries.all(&snapshot, &cancel)?;
        let tokens = self.tokens.as_deref().map(|path| tokens(path, queries.sketches.len())).transpose()?;
        if tokens.is_some()
            && let Some((first, others)) = queries.sketches.split_first()
        {
            // The output as a whole.
            let whole = others.iter().try_fold(first.clone(), |sum, token| sum.plus(token))?;
            queries.sketches.push(whole);
        }
        let rows = self.filters.read()?;
        let ranking = self.rank(&snapshot, &queries.sketches, &rows, &cancel, output)?;
        let mut histograms =
            self.histograms(&snapshot, &queries.sketches, &ranking, &rows, &cancel, output)?;
        // Pages are passed on: where the index lies is nobody's business.
        let name = index.path().file_name().unwrap_or_default().display().to_string();
        let mut page = Page::new(&self.title)
            .fact("Index", name)
            .fact("Index UUID", index.uuid().to_string())
            .fact("Generation", snapshot.generation().to_string())
            .fact("Sketches", index.schema().spec().to_string())
            .scanned(ranking.statistics());
        match tokens {
            Some(tokens) => page = page.output(self.traced(tokens, &ranking, &mut histograms)),
            None => {
                for (query, name) in queries.names.iter().enumerate() {
                    page = page.output(with_histogram(
                        Shown::new(name).ranking(self.top(&ranking, query), self.bottom(&ranking, query)),
                        histograms.next(),
                    ));
                }
            }
        }
        if let Some(path) = &self.texts {
            let hits = (0..ranking.queries())
                .flat_map(|query| ranking.proponents(query).iter().chain(ranking.opponents(query)));
            let wanted: HashSet<&[u8]> = hits.map(|hit| &hit.id[..]).collect();
            for (id, text) in texts::read(path, &wanted)? {
                page = page.example(id, Example::new(text));
            }
        }
        let mut file = Destination::new(Some(&self.output), self.force)?;
        file.write_all(page.to_html().as_bytes()).map_err(file.failed())?;
        file.finish()?;
        let printed = serde_json::json!({"file": self.output, "queries": queries.names.len(), "rows": ranking.statistics().rows});
        output.result(&printed, || {
            let (queries, rows) =
                (of(queries.names.len() as u64, "query"), of(ranking.statistics().rows, "row"));
            format!("{}: {queries}, {rows}", self.output.display())
        })
    }

    /// Ranks with one hit at either end at least, which are the ends of the distribution.
    fn rank(
        &self,
        snapshot: &Snapshot,
        queries: &[Sketch],
        rows: &Rows<'_>,
        cancel: &CancelToken,
        output: &Output,
    ) -> Result<Ranking> {
        let mut progress = output.progress("rank", "rows", None);
        let scan =
            snapshot.scan(queries)?.top_k(self.top_k.max(1)).bottom_k(self.bottom_k.max(1)).cancel(cancel);
        let scan = self.scoring.configure(rows.configure(scan));
        Ok(scan.progress(|at| progress.set(at.rows_done, Some(at.rows_total))).run()?)
    }

    /// The distribution of the scores of all rows, for each query.
    fn histograms(
        &self,
        snapshot: &Snapshot,
        queries: &[Sketch],
        ranking: &Ranking,
        rows: &Rows<'_>,
        cancel: &CancelToken,
        output: &Output,
    ) -> Result<std::vec::IntoIter<Histogram>> {
        let mut progress = output.progress("count", "rows", None);
        let end = |hits: &[gradix::Hit]| hits.first().map_or(0.0, |hit| hit.score);
        let mut histograms: Vec<Histogram> = (0..queries.len())
            .map(|query| Histogram::between(end(ranking.opponents(query)), end(ranking.proponents(query))))
            .collect();
        let scan = self.scoring.configure(rows.configure(snapshot.scan(queries)?.cancel(cancel)));
        scan.progress(|at| progress.set(at.rows_done, Some(at.rows_total))).scores(|rows| {
            for (query, histogram) in histograms.iter_mut().enumerate() {
                rows.scores(query).iter().for_each(|&score| histogram.add(score));
            }
            ControlFlow::Continue(())
        })?;
        Ok(histograms.into_iter())
    }

    /// One output with its tokens, of which the traced ones have the queries; the last query is that of all.
    fn traced(
        &self,
        tokens: Tokens,
        ranking: &Ranking,
        histograms: &mut impl Iterator<Item = Histogram>,
    ) -> Shown {
        let texts: Vec<MarkedToken> = tokens.tokens.into_iter().map(Into::into).collect();
        let mut shown = Shown::new(texts.iter().map(|token| token.text.as_str()).collect::<String>());
        if let Some(prompt) = tokens.prompt {
            shown = shown.prompt(prompt);
        }
        let mut query = 0;
        for MarkedToken { text, marked, untraced } in texts {
            let mut token = Token::untraced(&text);
            if !untraced {
                token = Token::new(text, self.top(ranking, query), self.bottom(ranking, query));
                if let Some(histogram) = histograms.next() {
                    token = token.distribution(histogram);
                }
                query += 1;
            }
            shown = shown.token(if marked { token.marked() } else { token });
        }
        let shown = shown.ranking(self.top(ranking, query), self.bottom(ranking, query));
        with_histogram(shown, histograms.next())
    }

    fn top(&self, ranking: &Ranking, query: usize) -> Vec<Hit> {
        ranking.proponents(query).iter().take(self.top_k).map(Hit::from).collect()
    }

    fn bottom(&self, ranking: &Ranking, query: usize) -> Vec<Hit> {
        ranking.opponents(query).iter().take(self.bottom_k).map(Hit::from).collect()
    }
}

fn with_histogram(shown: Shown, histogram: Option<Histogram>) -> Shown {
    match histogram {
        Some(histogram) => shown.distribution(histogram),
        None => shown,
    }
}

/// Reads the tokens, of which as many are traced as there are queries.
fn tokens(path: &Path, queries: usize) -> Result<Tokens> {
    let file = File::open(path).map_err(Failure::io(format!("read {}", path.display())))?;
    let tokens: Tokens = serde_json::from_reader(BufReader::new(file)).map_err(|error| {
        Failure::Wrong(format!("{}: no tokens as `gradix report --help` shows them: {error}", path.display()))
    })?;
    let is_traced =
        |token: &&TokenText| !matches!(token, TokenText::Token(MarkedToken { untraced: true, .. }));
    match tokens.tokens.iter().filter(is_traced).count() {
        traced if traced == queries => Ok(tokens),
        traced => Err(Failure::Wrong(format!(
            "{} has {}, but {}: each traced token has a query, those that are untraced have none",
            path.display(),
            of(traced as u64, "traced token"),
            of(queries as u64, "query")
        ))),
    }
}
