//! `gradix select less`, `gradix select in2core`

use std::ops::Range;

use clap::Args;
use gradix::operators::Selection;

use super::{Asked, ScanArgs};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::records::{Cell, Kind};
use crate::sheet::SheetArgs;

/// The examples that help one of several tasks most
///
/// Each file of queries is a task (all --id together are one), for example the gradients of its validation examples. The score of
/// an example is the greatest over the tasks of its mean over the task's queries; its rows add up. LESS: Xia et al.,
/// arXiv:2402.04333.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select less my.gradix sums.npy verse.npy --fraction 0.05 -o chosen.csv
    gradix select less my.gradix sums.npy --count 1000 --weight step-100=0.002,step-200=0.001 --json | jq -r .id")]
pub struct Less {
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// The examples that help all queries most
///
/// The score of an example is its mean over all queries; its rows add up. In2Core keeps the best half: San Joaquin et al.,
/// arXiv:2408.03560. `gradix select coreset` avoids that many of them help the same queries.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select in2core my.gradix validation.npy --fraction 0.5 -o kept.jsonl")]
pub struct In2core {
    #[command(flatten)]
    scan: ScanArgs,
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// How many.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Size {
    /// So many examples
    #[arg(long, value_name = "NUMBER")]
    count: Option<usize>,
    /// This fraction of the examples, above 0 and at most 1
    #[arg(long)]
    fraction: Option<f64>,
}

impl Less {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let asked = self.scan.asked()?;
        let tasks = asked.queries.files.clone();
        select(&asked, &self.size, tasks, &self.sheet, output)
    }
}

impl In2core {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let asked = self.scan.asked()?;
        let all = 0..asked.queries.sketches.len();
        select(&asked, &self.size, vec![all], &self.sheet, output)
    }
}

fn select(
    asked: &Asked<'_>,
    size: &Size,
    tasks: Vec<Range<usize>>,
    sheet: &SheetArgs,
    output: &Output,
) -> Result {
    let selection = match (size.count, size.fraction) {
        (Some(count), _) => Selection::count(count),
        (None, Some(fraction)) => Selection::fraction(fraction),
        (None, None) => return Err(Failure::Usage("say --count or --fraction".into())),
    };
    let selection = tasks.into_iter().fold(selection, Selection::task);
    let mut progress = output.progress("scan", "rows", None);
    let selected = selection.run(asked.scan(&mut progress)?)?;
    drop(progress);
    let columns = [("rank", Kind::Count), ("score", Kind::Number), ("task", Kind::Count), ("id", Kind::Id)];
    let rows = (1..).zip(&selected).map(|(rank, found)| {
        vec![
            Cell::Count(rank),
            Cell::Number(found.score),
            Cell::Count(found.task as u64),
            Cell::Bytes(&found.id),
        ]
    });
    sheet.print(&columns, rows, output)
}
