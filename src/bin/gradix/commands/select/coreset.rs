//! `gradix select coreset`

use clap::{Args, ValueEnum};
use gradix::operators::{Coreset as Chooser, Objective};

use super::ScanArgs;
use crate::failure::Result;
use crate::output::Output;
use crate::records::{Cell, Kind};
use crate::sheet::SheetArgs;
use crate::units::of;

/// Few examples that keep the influence of all on the queries
///
/// Chooses greedily, so that the set reaches at least 63% of what the best set of its size reaches (Nemhauser, Wolsey and Fisher,
/// 1978). Examples come in the order in which they were chosen, with what each adds. Takes a few passes over the rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix select coreset my.gradix validation.npy --count 500
    gradix select coreset my.gradix validation.npy --count 500 --objective facility-location --json")]
pub struct Coreset {
    #[command(flatten)]
    scan: ScanArgs,
    /// At most so many examples
    #[arg(long, value_name = "NUMBER")]
    count: usize,
    /// What the set keeps
    #[arg(long, default_value = "coverage")]
    objective: ObjectiveName,
    /// The share of the influence on a query at which it counts no longer (coverage)
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    #[command(flatten)]
    sheet: SheetArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ObjectiveName {
    /// A share of the positive influence on each query
    Coverage,
    /// For each query, an example with a high score
    FacilityLocation,
}

impl Coreset {
    pub fn run(&self, output: &Output) -> Result {
        self.sheet.check()?;
        let asked = self.scan.asked()?;
        let objective = match self.objective {
            ObjectiveName::Coverage => Objective::Coverage { share: self.share },
            ObjectiveName::FacilityLocation => Objective::FacilityLocation,
        };
        let filters = self.scan.filters.read()?;
        let scan = || asked.bare().map(|scan| filters.configure(scan));
        let chosen = Chooser::new(self.count).objective(objective).choose(scan)?;
        let columns = [("rank", Kind::Count), ("gain", Kind::Number), ("id", Kind::Id)];
        let rows = (1..).zip(&chosen.examples).map(|(rank, example)| {
            vec![Cell::Count(rank), Cell::Number(example.gain), Cell::Bytes(&example.id)]
        });
        self.sheet.print(&columns, rows, output)?;
        let kept = chosen.kept.iter().sum::<f64>() / chosen.kept.len().max(1) as f64;
        let scans = of(chosen.passes as u64, "scan");
        output.note(&format!(
            "kept {:.1}% of the influence, as the mean over the queries, in {scans}",
            100.0 * kept
        ));
        Ok(())
    }
}
