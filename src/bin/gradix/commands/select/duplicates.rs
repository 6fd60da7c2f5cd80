//! `gradix select duplicates`

use std::ops::ControlFlow;

use clap::Args;
use gradix::operators::Duplicates as Join;

use crate::commands::At;
use crate::failure::Result;
use crate::interrupt;
use crate::output::Output;
use crate::records::{Cell, Kind};
use crate::scoring::Spans;
use crate::sheet::SheetArgs;

/// Examples with nearly the same gradient
///
/// Lists all pairs of examples whose rows have at least this cosine, each once, the lesser id first; or the clusters that pairs
/// connect. Exact. Compares all rows with all: twice the rows, four times as long.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select duplicates my.gradix --cosine 0.99
    gradix select duplicates my.gradix --cosine 0.95 --clusters --json | jq -r 'select(.member > 0).id' > drop.txt
    gradix select duplicates my.gradix --cosine 0.999 --source wiki --blocks layers.0")]
pub struct Duplicates {
    #[command(flatten)]
    at: At,
    /// The least cosine, above 0 and at most 1
    #[arg(long)]
    cosine: f64,
    /// List clusters: the examples of each, with the number of the cluster, and that of the member in it, from 0
    #[arg(long)]
    clusters: bool,
    /// Only these blocks, or all below a prefix
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    blocks: Vec<String>,
    /// Only rows with this source; repeatable
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only rows with such spans: all, whole, tokens, or those that meet a range: 0..128
    #[arg(long, value_name = "SPANS", default_value = "all")]
    spans: Spans,
    #[command(flatten)]
    sheet: SheetArgs,
}

impl Duplicates {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let snapshot = self.at.snapshot()?;
        let mut progress = output.progress("join", "rows", None);
        let blocks = &self.blocks;
        let mut join = Join::new(self.cosine).spans(self.spans.0).cancel(&interrupt::token()?);
        if !self.source.is_empty() {
            join = join.sources(self.source.clone());
        }
        if !blocks.is_empty() {
            join = join.configure(|scan| scan.blocks(blocks.clone()));
        }
        let join = join.progress(|at| progress.set(at.rows_done, Some(at.rows_total)));
        if self.clusters {
            let clusters = join.clusters(&snapshot)?;
            drop(progress);
            let columns = [("cluster", Kind::Count), ("member", Kind::Count), ("id", Kind::Id)];
            let rows = (0..).zip(&clusters).flat_map(|(cluster, members)| {
                let row =
                    move |(member, id)| vec![Cell::Count(cluster), Cell::Count(member), Cell::Bytes(id)];
                (0..).zip(members.iter().map(Vec::as_slice)).map(row)
            });
            return self.sheet.print(&columns, rows, output);
        }
        let columns = [("cosine", Kind::Number), ("first", Kind::Id), ("second", Kind::Id)];
        let mut pairs = self.sheet.begin(&columns, output)?;
        let mut failure = None;
        join.run(&snapshot, |pair| {
            let cells = vec![Cell::Number(pair.cosine), Cell::Bytes(&pair.first), Cell::Bytes(&pair.second)];
            match pairs.row(&cells) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        drop(progress);
        match failure {
            Some(failure) => Err(failure),
            None => pairs.finish(),
        }
    }
}
