//! `gradix explain`

use clap::Args;

use super::At;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;
use crate::queries::QueryArgs;
use crate::scoring::{Filters, GuaranteeName, Scoring};

/// Say how a query would be answered
///
/// Prints the scan path that `gradix query` would take with the same options, and what each path would cost: bytes to read, and
/// time. Reads no rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix explain my.gradix output.npy
    gradix explain my.gradix output.npy --guarantee 1e-6 --json | jq .chosen")]
pub struct Explain {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    queries: QueryArgs,
    /// The number of proponents of each query
    #[arg(long, short = 'k', value_name = "NUMBER", default_value_t = 10)]
    top_k: usize,
    /// The number of opponents of each query
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    bottom_k: usize,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    filters: Filters,
    /// exact, or the probability with which rows may be missing: needs the sign tier
    #[arg(long, value_name = "exact|DELTA", default_value = "exact")]
    guarantee: GuaranteeName,
}

impl Explain {
    pub fn run(&self, output: &Output) -> Result {
        let cancel = interrupt::token()?;
        let (_, snapshot) = self.at.open()?;
        let mut reader = self.queries.reader(&snapshot, &cancel)?;
        // All batches cost the same, but for the last.
        let queries = reader.next_batch()?.ok_or_else(|| Failure::Usage("the files have no rows".into()))?;
        let scan = snapshot.scan(&queries.sketches)?.top_k(self.top_k).bottom_k(self.bottom_k);
        let scan = self
            .scoring
            .configure(self.filters.read()?.configure(scan))
            .guarantee(self.guarantee.0)
            .cancel(&cancel);
        let explanation = scan.explain()?;
        output.result(&explanation, || explanation.to_string())
    }
}
