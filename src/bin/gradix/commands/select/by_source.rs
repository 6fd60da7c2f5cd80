//! `gradix select by-source`

use clap::Args;
use gradix::operators::BySource as Sums;

use super::ScanArgs;
use crate::failure::Result;
use crate::output::Output;
use crate::records::{Cell, Kind};
use crate::sheet::SheetArgs;

/// Which source the influence comes from
///
/// For each query and source: the sum and the mean of the scores of its examples, and its share of the positive influence, each
/// with an interval of confidence over the choice of examples (bootstrap).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select by-source my.gradix output.npy
    gradix select by-source my.gradix tokens.npy --mean --confidence 0.99 --json")]
pub struct BySource {
    #[command(flatten)]
    scan: ScanArgs,
    /// One result for the mean over all queries
    #[arg(long)]
    mean: bool,
    /// Replicates of the bootstrap
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    replicates: usize,
    /// The confidence of the intervals, above 0 and below 1
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
    /// The seed of the bootstrap
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sheet: SheetArgs,
}

impl BySource {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let asked = self.scan.asked()?;
        let sums = Sums::new()
            .mean_over_queries(self.mean)
            .replicates(self.replicates)
            .confidence(self.confidence)
            .seed(self.seed);
        let mut progress = output.progress("scan", "rows", None);
        let queries = sums.run(asked.scan(&mut progress)?)?;
        drop(progress);
        let columns = [
            ("query", Kind::Count),
            ("source", Kind::Text),
            ("examples", Kind::Count),
            ("share", Kind::Number),
            ("share_low", Kind::Number),
            ("share_high", Kind::Number),
            ("mean", Kind::Number),
            ("mean_low", Kind::Number),
            ("mean_high", Kind::Number),
            ("sum", Kind::Number),
            ("sum_low", Kind::Number),
            ("sum_high", Kind::Number),
        ];
        let rows = (0..).zip(&queries).flat_map(|(query, sources)| {
            sources.iter().map(move |found| {
                let mean = found.mean_interval;
                vec![
                    Cell::Count(query),
                    Cell::text(found.source.as_deref()),
                    Cell::Count(found.examples),
                    Cell::Number(found.share),
                    Cell::Number(found.share_interval.low),
                    Cell::Number(found.share_interval.high),
                    Cell::Number(found.mean),
                    mean.map_or(Cell::Nothing, |mean| Cell::Number(mean.low)),
                    mean.map_or(Cell::Nothing, |mean| Cell::Number(mean.high)),
                    Cell::Number(found.sum),
                    Cell::Number(found.sum_interval.low),
                    Cell::Number(found.sum_interval.high),
                ]
            })
        });
        self.sheet.print(&columns, rows, output)
    }
}
