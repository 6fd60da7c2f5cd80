//! `gradix fit`

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use gradix::curvature::Estimate;
use gradix::{Curvature, CurvatureError, Fit as Fitted, FitError, FitOptions, SelfInfluenceOptions, Writer};
use serde::Serialize;

use super::{open, open_to_write};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Output;
use crate::units::{bytes, of};

/// Fit the curvature, or the self-influence of the rows
///
/// Sums up the rows for `gradix query --curvature`: in one pass, and after the next append over the new rows only. With
/// --self-influence, also computes how much each row influences itself, which `gradix select self-influence` and --metric relative
/// read. Each is a commit of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix fit my.gradix
    gradix fit my.gradix --self-influence --kappa 2
    gradix fit my.gradix --name coarse --estimate nystrom:256 --estimate head=full
    gradix fit my.gradix --drop coarse --dry-run")]
pub struct Fit {
    /// The index
    index: PathBuf,
    /// The name of the curvature: an index can have several
    #[arg(long, default_value = "curvature")]
    name: String,
    /// What is kept of all blocks, or of those below a prefix of their names: full, or nystrom:WIDTH [default: full up to 4,096
    /// dims, nystrom:512 above]
    #[arg(long, value_name = "[BLOCK=]ESTIMATE")]
    estimate: Vec<BlockEstimate>,
    /// Sum all rows again
    #[arg(long)]
    refit: bool,
    /// Compute the self-influence of the rows too
    #[arg(long)]
    self_influence: bool,
    /// The damping of the self-influence [default: 2]
    #[arg(long, requires = "self_influence")]
    kappa: Option<f64>,
    /// Only this many eigenvalues of each block for the self-influence
    #[arg(long, requires = "self_influence")]
    rank: Option<u32>,
    /// Remove a curvature, and the self-influence that belongs to it, instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "estimate", "refit", "self_influence"])]
    drop: Option<String>,
    /// Say what --drop would remove, and change nothing
    #[arg(long, requires = "drop")]
    dry_run: bool,
}

/// An estimate of a block, or of all.
#[derive(Debug, Clone)]
struct BlockEstimate(Option<String>, Estimate);

impl FromStr for BlockEstimate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (block, estimate) = match text.rsplit_once('=') {
            Some((block, estimate)) => (Some(block.to_owned()), estimate),
            None => (None, text),
        };
        let estimate = match estimate.strip_prefix("nystrom:") {
            None if estimate == "full" => Estimate::Full,
            None => return Err("write full, or nystrom:WIDTH".into()),
            Some(width) => {
                Estimate::Nystrom { width: width.parse().map_err(|_| format!("{width:?} is no width"))? }
            }
        };
        Ok(Self(block, estimate))
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    curvature: Fitted,
    self_influence: Option<Fitted>,
}

/// What `--json` prints of a curvature that is removed.
#[derive(Serialize)]
struct Dropped {
    dry_run: bool,
    artifacts: Vec<String>,
    bytes: u64,
}

impl Fit {
    pub fn run(&self, output: &Output) -> Result {
        if let Some(name) = &self.drop {
            return self.remove(name, output);
        }
        let index = open_to_write(&self.index)?;
        let mut writer = index.writer()?;
        let curvature = self.curvature(&mut writer, output)?;
        let self_influence = match self.self_influence {
            true => Some(self.self_influence(&mut writer, curvature.generation, output)?),
            false => None,
        };
        output.result(&Printed { curvature, self_influence }, || {
            let covered = &curvature.covered;
            let mut text = match (curvature.refitted, curvature.added, curvature.subtracted) {
                (_, 0, 0) => format!("{} is up to date: {}", self.name, of(covered.rows, "row")),
                (true, added, _) => format!("fitted {}: {}", self.name, of(added, "row")),
                (false, added, subtracted) => {
                    let (added, subtracted) = (of(added, "row"), of(subtracted, "row"));
                    format!(
                        "fitted {}: {added} added, {subtracted} subtracted, {} in all",
                        self.name,
                        of(covered.rows, "row")
                    )
                }
            };
            text.push_str(&format!(", {}; generation {}", bytes(curvature.bytes), curvature.generation));
            if let Some(fit) = &self_influence {
                let rows = of(fit.covered.rows, "row");
                text.push_str(&format!(
                    "\nself-influence of {rows}, {}; generation {}",
                    bytes(fit.bytes),
                    fit.generation
                ));
            }
            text
        })
    }

    fn curvature(&self, writer: &mut Writer, output: &Output) -> Result<Fitted> {
        let mut progress = output.progress("fit", "rows", None);
        let mut options =
            FitOptions::default().name(&self.name).refit(self.refit).cancel(&interrupt::token()?);
        let blocks: Vec<String> =
            writer.schema().spec().blocks().iter().map(|block| block.name.clone()).collect();
        for BlockEstimate(block, estimate) in &self.estimate {
            let named = block.as_ref().map_or(&blocks[..], std::slice::from_ref);
            options = named.iter().fold(options, |options, block| options.estimate(block, *estimate));
        }
        let options = options.progress(|at| progress.set(at.rows_done, Some(at.rows_total)));
        writer.fit_curvature(options).map_err(|error| match error {
            FitError::Cancelled => Failure::Interrupted("interrupted; the index is as it was".into()),
            other => other.into(),
        })
    }

    fn self_influence(&self, writer: &mut Writer, generation: u64, output: &Output) -> Result<Fitted> {
        let mut curvature = Curvature::default().name(&self.name);
        if let Some(kappa) = self.kappa {
            curvature = curvature.kappa(kappa);
        }
        if let Some(rank) = self.rank {
            curvature = curvature.rank(rank);
        }
        let mut progress = output.progress("self-influence", "rows", None);
        let options = SelfInfluenceOptions::default().curvature(curvature).cancel(&interrupt::token()?);
        let options = options.progress(|at| progress.set(at.rows_done, Some(at.rows_total)));
        writer.fit_self_influence(options).map_err(|error| match error {
            FitError::Cancelled => Failure::Interrupted(format!(
                "interrupted; the curvature is committed, as generation {generation}"
            )),
            other => other.into(),
        })
    }

    fn remove(&self, name: &str, output: &Output) -> Result {
        let stats = open(&self.index)?.stats()?;
        let belongs = |artifact: &str| {
            artifact.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let gone: Vec<_> = stats.artifacts.iter().filter(|artifact| belongs(&artifact.name)).collect();
        let printed = Dropped {
            dry_run: self.dry_run,
            artifacts: gone.iter().map(|artifact| artifact.name.clone()).collect(),
            bytes: gone.iter().map(|artifact| artifact.bytes).sum(),
        };
        let is_there = match self.dry_run {
            true => !gone.is_empty(),
            false => open_to_write(&self.index)?.writer()?.drop_curvature(name)?,
        };
        if !is_there {
            return Err(CurvatureError::NotFitted { name: name.to_owned() }.into());
        }
        output.result(&printed, || {
            let would = if self.dry_run { "would remove" } else { "removed" };
            format!(
                "{would} {}, {}, which `gradix gc` frees",
                printed.artifacts.join(" and "),
                bytes(printed.bytes)
            )
        })
    }
}
