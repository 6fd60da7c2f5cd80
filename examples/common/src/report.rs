//! The results of a run, in three forms: a table for the terminal, a page of
//! [`gradix::report`], and JSON.
//!
//! Everything shown comes from [`Report`]; nothing here computes a figure.

mod html;
mod terminal;

use std::time::Instant;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A whole run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The machine it ran on.
    pub machine: Machine,
    /// Facts about the run worth showing, e.g. the model's size and the seed.
    pub facts: Vec<Fact>,
    /// How long each stage took, in order.
    pub timings: Vec<Timing>,
    /// The experiments, in order.
    pub experiments: Vec<Experiment>,
}

/// The machine a run was made on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many threads the run could use.
    pub threads: usize,
    /// Main memory, if known.
    pub memory_bytes: Option<u64>,
    /// Operating system and architecture.
    pub system: String,
}

/// A named value, shown as it is.
#[derive(Debug, Clone)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value, with its unit.
    pub value: String,
}

/// How long a stage took.
#[derive(Debug, Clone)]
pub struct Timing {
    /// What was done.
    pub stage: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// One experiment: its table and some of its queries.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Short and stable, e.g. `backdoor`; names the experiment in the JSON.
    pub name: String,
    /// A heading, e.g. "Backdoor".
    pub title: String,
    /// What was done to the training set and what is asked, in a few sentences.
    pub description: String,
    /// Training examples.
    pub examples: usize,
    /// How many of them are positive: what a good ranking puts first.
    pub positives: usize,
    /// What the positive ones are called, e.g. "poisoned".
    pub positive_name: String,
    /// Which method's influence the queries below show, e.g. "gradix, K = 65536, i8".
    pub shown_method: String,
    /// One row for each method.
    pub rows: Vec<Row>,
    /// Queries with their outputs and what they are traced to.
    pub queries: Vec<TracedQuery>,
}

/// A method's results in one experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The experiment's [`Experiment::name`].
    pub experiment: String,
    /// The method, e.g. "exact TracIn".
    pub method: String,
    /// How the sketch is stored, e.g. `i8`; none where there is no index.
    pub encoding: Option<String>,
    /// Numbers in a sketch; none where there is none.
    pub k: Option<usize>,
    /// The metrics, in the order of the table's columns.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<Metric>,
    /// Queries the metrics are the mean over.
    pub queries: usize,
    /// Bytes kept for one training example.
    pub bytes_per_example: Option<f64>,
    /// Bytes on disk of the whole index, without what was fitted.
    pub index_bytes: Option<u64>,
    /// Seconds to make what is kept, from a trained model.
    pub build_seconds: Option<f64>,
    /// Seconds to fit and to factor the curvature; none where there is none.
    pub fit_seconds: Option<f64>,
    /// Bytes on disk of what was fitted.
    pub fit_bytes: Option<u64>,
    /// Seconds to rank the whole training set for one query.
    pub query_seconds: Option<f64>,
}

/// A metric's name and value.
#[derive(Debug, Clone)]
pub struct Metric {
    /// E.g. "auPRC@5".
    pub name: String,
    /// Between 0 and 1, higher is better; none where it is not defined.
    pub value: Option<f64>,
}

/// An output, traced to training examples.
#[derive(Debug, Clone)]
pub struct TracedQuery {
    /// What the model was asked.
    pub prompt: String,
    /// What an unharmed model should answer.
    pub clean_answer: String,
    /// The generated tokens, each with its strongest influence: that of its first proponent or opponent.
    pub output: Vec<Token>,
    /// Training examples that raise the whole output most, strongest first.
    pub proponents: Vec<Hit>,
    /// Training examples that lower it most, strongest first.
    pub opponents: Vec<Hit>,
    /// For each token of `output`, the training examples that raise it most; may be empty for
    /// tokens that were not traced.
    pub token_proponents: Vec<Vec<Hit>>,
    /// The same for those that lower it most.
    pub token_opponents: Vec<Vec<Hit>>,
}

/// A token and its influence.
#[derive(Debug, Clone)]
pub struct Token {
    /// The text.
    pub text: String,
    /// Whether a space stands before it.
    pub space_before: bool,
    /// Signed; colours are scaled by the largest magnitude in the token's sequence.
    pub influence: f64,
    /// Whether it is what the query asks about, e.g. the wrong word.
    pub marked: bool,
}

impl Token {
    /// A token without influence, not marked.
    #[must_use]
    pub fn new(text: impl Into<String>, space_before: bool) -> Self {
        Self { text: text.into(), space_before, influence: 0.0, marked: false }
    }
}

/// A training example in a ranking.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The example's id.
    pub id: String,
    /// Its influence on the query.
    pub score: f64,
    /// Its prompt.
    pub prompt: String,
    /// Its answer as it was trained on. Influences are all zero where only the whole was scored.
    pub answer: Vec<Token>,
    /// Whether a good ranking puts it first.
    pub positive: bool,
    /// What was done to it, e.g. "clean", "poisoned", "Japan → Canada".
    pub label: String,
}

impl Machine {
    /// The machine's hardware, as far as `/proc` gives it.
    pub fn this() -> Self {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field("/proc/meminfo", "MemTotal")
            .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.map(|kib| kib * 1024),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

impl Fact {
    /// A named value.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

/// The stages' times, from when it is made.
#[derive(Debug)]
pub struct Clock {
    last: Instant,
    timings: Vec<Timing>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { last: Instant::now(), timings: Vec::new() }
    }
}

impl Clock {
    /// Ends a stage: prints and keeps how long it took.
    #[expect(clippy::print_stdout, reason = "for programs that show their progress")]
    pub fn stage(&mut self, name: &str) {
        let seconds = self.last.elapsed().as_secs_f64();
        println!("{name}: {seconds:.1} s");
        self.timings.push(Timing { stage: name.to_owned(), seconds });
        self.last = Instant::now();
    }

    /// All stages so far, in order.
    pub fn timings(self) -> Vec<Timing> {
        self.timings
    }
}

impl Report {
    /// One table for each experiment and the timings, as plain text.
    pub fn terminal(&self) -> String {
        terminal::render(self)
    }

    /// The page: one file, nothing loaded from elsewhere.
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// The table as a JSON array with one object for each experiment and method.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form (a number that is not finite becomes null).
    pub fn results_json(&self) -> serde_json::Result<String> {
        let rows: Vec<&Row> = self.experiments.iter().flat_map(|e| &e.rows).collect();
        let mut json = serde_json::to_string_pretty(&rows)?;
        json.push('\n');
        Ok(json)
    }
}

impl Experiment {
    /// The metrics' names in the order they first occur in, over all rows.
    fn metric_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for metric in self.rows.iter().flat_map(|row| &row.metrics) {
            if !names.contains(&metric.name.as_str()) {
                names.push(&metric.name);
            }
        }
        names
    }

    /// The share of the training set that is positive, in percent.
    fn positive_percent(&self) -> f64 {
        100.0 * self.positives as f64 / self.examples.max(1) as f64
    }
}

impl Row {
    fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|m| m.name == name)?.value
    }
}

fn as_map<S: Serializer>(metrics: &[Metric], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(metrics.len()))?;
    for metric in metrics {
        map.serialize_entry(&metric.name, &metric.value)?;
    }
    map.end()
}

/// "—" for a missing value.
fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "—".to_owned(), show)
}

/// A byte count in binary units with three figures.
fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$} {}", units[unit])
}

/// A duration in the unit that suits it.
fn seconds(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0} s"),
        v if v >= 1.0 => format!("{value:.1} s"),
        v if v >= 1e-3 => format!("{:.1} ms", value * 1e3),
        _ => format!("{:.0} µs", value * 1e6),
    }
}

#[cfg(test)]
mod tests;
