//! How rows are scored and which: the options of all commands that scan.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use gradix::scan::Guarantee;
use gradix::{Curvature, Grouping, Metric, Scan, Span, SpanFilter};

use crate::failure::{Failure, Result};
use crate::id::Id;

/// How a row is scored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scores")]
pub struct Scoring {
    /// Only these blocks, or all below a prefix of their names that ends before a dot
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    blocks: Vec<String>,
    /// Weight a block, or all below a prefix; repeatable, the last one counts
    #[arg(long, value_name = "BLOCK=NUMBER")]
    weight: Vec<Weight>,
    /// What is made of the inner product
    #[arg(long, default_value = "inner")]
    metric: MetricName,
    #[command(flatten)]
    curvature: CurvatureArgs,
    /// Rank examples: by the greatest score of their rows, or by the sum
    #[arg(long, value_name = "HOW")]
    group: Option<Group>,
}

/// Which curvature.
#[derive(Debug, Args)]
pub struct CurvatureArgs {
    /// Precondition the queries with a curvature that `gradix fit` made, by its name
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "curvature")]
    curvature: Option<String>,
    /// The damping of the curvature: greater is more cautious [default: 2]
    #[arg(long, requires = "curvature")]
    kappa: Option<f64>,
    /// Only this many eigenvalues of each block
    #[arg(long, requires = "curvature")]
    rank: Option<u32>,
    /// The fraction of rows that may be missing from the fit, or be deleted since; all of them, without a number
    /// [default: 0.05]
    #[arg(long, requires = "curvature", value_name = "FRACTION", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    allow_uncovered: Option<f64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetricName {
    /// The inner product itself
    Inner,
    /// Divided by the lengths of row and query
    Cosine,
    /// Divided by the length of the row
    UnitRows,
    /// Divided by the root of the row's self-influence; needs a curvature and `fit --self-influence`
    Relative,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Group {
    Max,
    Sum,
}

/// `BLOCK=NUMBER`
#[derive(Debug, Clone)]
struct Weight(String, f64);

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (block, number) = text.rsplit_once('=').ok_or("write BLOCK=NUMBER")?;
        Ok(Self(block.to_owned(), number.parse().map_err(|_| format!("{number:?} is not a number"))?))
    }
}

impl CurvatureArgs {
    pub fn get(&self) -> Option<Curvature> {
        let mut curvature = Curvature::default().name(self.curvature.as_ref()?);
        if let Some(kappa) = self.kappa {
            curvature = curvature.kappa(kappa);
        }
        if let Some(rank) = self.rank {
            curvature = curvature.rank(rank);
        }
        if let Some(fraction) = self.allow_uncovered {
            curvature = curvature.allow_missing(fraction);
        }
        Some(curvature)
    }
}

impl Scoring {
    pub fn configure<'a>(&self, mut scan: Scan<'a>) -> Scan<'a> {
        if !self.blocks.is_empty() {
            scan = scan.blocks(self.blocks.clone());
        }
        scan = scan.weights(self.weight.iter().map(|Weight(block, weight)| (block.as_str(), *weight)));
        scan = scan.metric(match self.metric {
            MetricName::Inner => Metric::InnerProduct,
            MetricName::Cosine => Metric::Cosine,
            MetricName::UnitRows => Metric::UnitRows,
            MetricName::Relative => Metric::Relative,
        });
        if let Some(curvature) = self.curvature.get() {
            scan = scan.curvature(curvature);
        }
        match self.group {
            None => scan,
            Some(Group::Max) => scan.grouping(Grouping::Max),
            Some(Group::Sum) => scan.grouping(Grouping::Sum),
        }
    }
}

/// Which rows are scored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rows")]
pub struct Filters {
    /// Only rows with this source; repeatable
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only the examples whose ids the file has, one on a line; - is stdin
    #[arg(long, value_name = "FILE")]
    ids_from: Option<PathBuf>,
    /// Only examples whose ids begin with this
    #[arg(long, value_name = "ID")]
    prefix: Option<Id>,
    /// Without this example; repeatable
    #[arg(long, value_name = "ID")]
    exclude: Vec<Id>,
    /// Without the examples whose ids the file has
    #[arg(long, value_name = "FILE")]
    exclude_from: Option<PathBuf>,
    /// Only rows with such spans: all, whole (examples), tokens (parts of examples), or those that meet a range: 0..128
    #[arg(long, value_name = "SPANS", default_value = "all")]
    spans: Spans,
}

/// Which spans.
#[derive(Debug, Clone, Copy)]
pub struct Spans(pub SpanFilter);

impl FromStr for Spans {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "all" => SpanFilter::All,
            "whole" => SpanFilter::Whole,
            "tokens" => SpanFilter::Tokens,
            range => {
                let ends = range
                    .split_once("..")
                    .and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
                let span = ends.map(|(start, end)| Span::tokens(start, end)).filter(Span::is_valid);
                SpanFilter::Overlapping(
                    span.ok_or("write all, whole, tokens, or a range of tokens like 0..128")?,
                )
            }
        }))
    }
}

/// The same, with the ids of the files.
#[derive(Debug)]
pub struct Rows<'a> {
    filters: &'a Filters,
    ids: Option<Vec<Vec<u8>>>,
    excluded: Vec<Vec<u8>>,
}

impl Filters {
    /// Reads the ids.
    pub fn read(&self) -> Result<Rows<'_>> {
        let mut excluded: Vec<Vec<u8>> = self.exclude.iter().map(|id| id.0.clone()).collect();
        if let Some(path) = &self.exclude_from {
            excluded.append(&mut ids(path)?);
        }
        Ok(Rows { filters: self, ids: self.ids_from.as_deref().map(ids).transpose()?, excluded })
    }
}

impl Rows<'_> {
    pub fn configure<'a>(&self, mut scan: Scan<'a>) -> Scan<'a> {
        if !self.filters.source.is_empty() {
            scan = scan.sources(self.filters.source.clone());
        }
        if let Some(ids) = &self.ids {
            scan = scan.ids(ids.iter().cloned());
        }
        if let Some(Id(prefix)) = &self.filters.prefix {
            scan = scan.id_prefix(prefix.clone());
        }
        scan.exclude_ids(self.excluded.iter().cloned()).spans(self.filters.spans.0)
    }
}

/// The ids of a file, one on a line, as `gradix ls` prints them.
pub fn ids(path: &Path) -> Result<Vec<Vec<u8>>> {
    let failed = || Failure::io(format!("read {}", path.display()));
    let lines: Box<dyn std::io::BufRead> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(BufReader::new(File::open(path).map_err(failed())?)),
    };
    let mut ids = Vec::new();
    for (line, text) in lines.lines().enumerate() {
        let text = text.map_err(failed())?;
        if !text.is_empty() {
            let id: Id = text
                .parse()
                .map_err(|error| Failure::Wrong(format!("{}, line {}: {error}", path.display(), line + 1)))?;
            ids.push(id.0);
        }
    }
    Ok(ids)
}

/// `exact`, or the probability that a row is missing.
#[derive(Debug, Clone, Copy)]
pub struct GuaranteeName(pub Guarantee);

impl FromStr for GuaranteeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "exact" {
            return Ok(Self(Guarantee::Exact));
        }
        let delta = text.parse().map_err(|_| "write exact, or a failure probability like 1e-6")?;
        Ok(Self(Guarantee::Probable { delta }))
    }
}
