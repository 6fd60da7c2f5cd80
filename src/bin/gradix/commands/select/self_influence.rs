//! `gradix select self-influence`

use clap::Args;
use gradix::operators::highest_self_influence;

use crate::commands::{At, span_cells};
use crate::failure::Result;
use crate::interrupt;
use crate::output::Output;
use crate::records::{Cell, Kind};
use crate::scoring::CurvatureArgs;
use crate::sheet::SheetArgs;

/// Rows that influence themselves most: mislabelled ones and outliers
///
/// Reads what `gradix fit --self-influence` has computed, with the same damping and rank.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select self-influence my.gradix --count 100
    gradix select self-influence my.gradix --count 100 --curvature=coarse --format csv")]
pub struct SelfInfluence {
    #[command(flatten)]
    at: At,
    /// So many rows
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    curvature: CurvatureArgs,
    #[command(flatten)]
    sheet: SheetArgs,
}

impl SelfInfluence {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let snapshot = self.at.snapshot()?;
        let curvature = self.curvature.get().unwrap_or_default();
        let highest = highest_self_influence(&snapshot, &curvature, self.count, &interrupt::token()?)?;
        let columns = [
            ("rank", Kind::Count),
            ("self_influence", Kind::Number),
            ("id", Kind::Id),
            ("span_start", Kind::Count),
            ("span_end", Kind::Count),
            ("source", Kind::Text),
        ];
        let rows = (1..).zip(&highest).map(|(rank, row)| {
            let (start, end) = span_cells(row.span);
            let source = Cell::text(row.source.as_deref());
            vec![Cell::Count(rank), Cell::Number(row.value), Cell::Bytes(&row.id), start, end, source]
        });
        self.sheet.print(&columns, rows, output)
    }
}
