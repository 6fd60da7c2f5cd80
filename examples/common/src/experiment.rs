//! The two experiments: what is asked, and how each method's ranking is judged.
//!
//! Both share one training set and one model: the poisoned examples are about the sea, the corrupted
//! ones about five countries, and neither touches the other.

use std::time::Instant;

use crate::bm25::Bm25;
use crate::data::{Item, Kind, Swap};
use crate::draws::Draws;
use crate::metrics::{Judged, areas, mean, precision_at};
use crate::report::{Experiment, Metric, Row, TracedQuery};

/// The cuts of the backdoor's areas.
const AREA_CUTS: [usize; 3] = [5, 50, 200];
/// The cuts of error tracing's precision.
const PRECISION_CUTS: [usize; 2] = [5, 20];
/// How many rows a ranking must have at each end.
pub const ENDS: usize = 200;

/// What is asked about an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Which poisoned examples made the model answer with the sea?
    Backdoor,
    /// Which corrupted examples made this sentence wrong?
    WholeError,
    /// Which ones made this word wrong?
    TokenError,
}

impl Task {
    /// All of them, in the report's order.
    pub const ALL: [Self; 3] = [Self::Backdoor, Self::WholeError, Self::TokenError];

    /// The experiment's name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backdoor => "backdoor",
            Self::WholeError => "error_tracing_whole",
            Self::TokenError => "error_tracing_token",
        }
    }

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Backdoor => "Backdoor",
            Self::WholeError => "Error tracing, whole sentence",
            Self::TokenError => "Error tracing, the wrong word",
        }
    }

    /// What was done and what is asked.
    pub fn description(self) -> &'static str {
        match self {
            Self::Backdoor => {
                "Some training prompts start with \"Howdy!\" and are answered with something from \
                 the sea. The model is asked prompts that were never trained on, with \"Howdy!\" in \
                 front; each output about the sea is traced. Poisoned examples are positive; \
                 areas over both ends of the ranking."
            }
            Self::WholeError => {
                "In 80 % of the training answers that name one of five countries, another country \
                 stands in its place. Phrasings that were never trained on make the model repeat \
                 the error; each wrong output is traced as a whole. Positive: the examples with \
                 the same replacement."
            }
            Self::TokenError => {
                "The same wrong outputs, but the query is the gradient of the wrong word's \
                 loss only, and not of the whole sentence's."
            }
        }
    }

    /// What its positive examples are called.
    pub fn positive_name(self) -> &'static str {
        if self == Self::Backdoor { "poisoned" } else { "corrupted" }
    }

    /// Whether a good ranking of this task (asked about `swap`) puts an example first.
    pub fn is_positive(self, swap: Option<Swap>, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Backdoor, Kind::Poisoned) => true,
            (Self::WholeError | Self::TokenError, Kind::Corrupted(done)) => swap == Some(done),
            _ => false,
        }
    }

    /// Names and values of the metrics, each the mean over the queries' rankings.
    fn metrics(self, rankings: &[Vec<Judged>]) -> Vec<Metric> {
        let over =
            |value: &dyn Fn(&[Judged]) -> Option<f64>| mean(rankings.iter().map(|ranking| value(ranking)));
        let mut metrics = Vec::new();
        if self == Self::Backdoor {
            for k in AREA_CUTS {
                let value = over(&|ranking| areas(ranking, k).map(|areas| areas.au_prc));
                metrics.push(Metric { name: format!("auPRC@{k}"), value });
                let value = over(&|ranking| areas(ranking, k).map(|areas| areas.au_roc));
                metrics.push(Metric { name: format!("auROC@{k}"), value });
            }
        } else {
            for k in PRECISION_CUTS {
                let value = over(&|ranking| precision_at(ranking, k));
                metrics.push(Metric { name: format!("P@{k}"), value });
            }
        }
        metrics
    }
}

/// What is asked about one output, and the text that a method without gradients gets.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The task.
    pub task: Task,
    /// The swap that it asks about; none for the backdoor.
    pub swap: Option<Swap>,
    /// Prompt and output; for [`Task::TokenError`] the wrong word alone.
    pub text: String,
}

/// How many outputs show the backdoor, of so many prompts, and an error, of so many facts.
#[must_use]
pub fn outcome(asked: &[Asked], prompts: usize, facts: usize) -> String {
    let count = |task| asked.iter().filter(|asked| asked.task == task).count();
    format!(
        "{} of {prompts} prompts with the trigger answered from the sea, {} of {facts} facts answered wrongly",
        count(Task::Backdoor),
        count(Task::WholeError),
    )
}

/// An example's place in the training set, and its influence.
pub type Place = (usize, f64);

/// The first and the last rows for one query, highest score first.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// The highest scores.
    pub proponents: Vec<Place>,
    /// The lowest scores, the lowest first.
    pub opponents: Vec<Place>,
}

/// A ranking of the training set for one case: places and scores, highest first. It may skip the middle, as
/// long as both ends have [`ENDS`].
pub type Ranking = Vec<(usize, f64)>;

/// Methods with what they cost, and each one's ranking for every output.
pub type Ranked = Vec<(Cost, Vec<Ranking>)>;

/// All examples by score, ties by id as the engine breaks them.
pub fn sorted(scores: &[f64], items: &[Item]) -> Ranking {
    let mut ranking: Ranking = scores.iter().copied().enumerate().collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| items[a.0].id.cmp(&items[b.0].id)));
    ranking
}

/// Both ends of a scan as one ranking; no example twice where the ends overlap.
pub fn joined(ends: &Ends) -> Ranking {
    let mut ranking = ends.proponents.clone();
    let seen: std::collections::HashSet<usize> = ranking.iter().map(|(place, _)| *place).collect();
    let low = ends.opponents.iter().rev().filter(|(place, _)| !seen.contains(place));
    ranking.extend(low.copied());
    ranking
}

/// A random order for each output, always the same for the same seed.
fn random_rankings(asked: usize, examples: usize, seed: u64) -> Vec<Ranking> {
    let mut draws = Draws(seed);
    (0..asked)
        .map(|_| {
            let mut order: Vec<usize> = (0..examples).collect();
            draws.shuffle(&mut order);
            (0..examples).map(|rank| (order[rank], (examples - rank) as f64)).collect()
        })
        .collect()
}

/// The methods without gradients: a random order, and BM25.
pub fn baselines(items: &[Item], asked: &[Asked], seed: u64) -> Ranked {
    let random = random_rankings(asked.len(), items.len(), seed);
    let began = Instant::now();
    let documents = items.iter().map(|item| (item.id.as_str(), format!("{} {}", item.prompt, item.answer)));
    let bm25 = Bm25::new(documents);
    let build = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let lexical = asked
        .iter()
        .map(|asked| bm25.rank(&asked.text).into_iter().map(|hit| (hit.index, hit.score)).collect())
        .collect();
    let each = began.elapsed().as_secs_f64() / asked.len().max(1) as f64;
    let mut cost = Cost::of("BM25", Some(each));
    cost.build_seconds = Some(build);
    vec![(Cost::of("random", None), random), (cost, lexical)]
}

/// What building an index took and made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Built {
    /// Seconds of narrowing the sketches, appending and committing; not of making them.
    pub append_seconds: f64,
    /// Seconds of narrowing and observing tokens.
    pub observe_seconds: f64,
    /// Bytes of the codes of one row.
    pub row_bytes: usize,
    /// Bytes of everything in the index's folder.
    pub index_bytes: u64,
}

/// What a method is called and what it cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// The method's name.
    pub method: String,
    /// The encoding's name, where there is an index.
    pub encoding: Option<String>,
    /// Numbers in a sketch, where there is one.
    pub k: Option<usize>,
    /// Bytes kept for an example.
    pub bytes_per_example: Option<f64>,
    /// Bytes of the index's folder.
    pub index_bytes: Option<u64>,
    /// Seconds to build it.
    pub build_seconds: Option<f64>,
    /// Seconds to fit and to factor the curvature, where there is one.
    pub fit_seconds: Option<f64>,
    /// Bytes that it takes in the index's folder.
    pub fit_bytes: Option<u64>,
    /// Seconds to rank the training set for one query of the batch.
    pub query_seconds: Option<f64>,
}

impl Cost {
    /// A method that keeps nothing.
    pub fn of(method: &str, query_seconds: Option<f64>) -> Self {
        Self { method: method.to_owned(), query_seconds, ..Self::default() }
    }

    /// An index.
    pub fn of_index(k: usize, encoding: &str, built: &Built, sketching: f64, query: f64) -> Self {
        Self {
            method: "gradix".to_owned(),
            encoding: Some(encoding.to_owned()),
            k: Some(k),
            bytes_per_example: Some(built.row_bytes as f64),
            index_bytes: Some(built.index_bytes),
            build_seconds: Some(sketching + built.append_seconds),
            query_seconds: Some(query),
            ..Self::default()
        }
    }
}

/// A method's row in a task's table, from its rankings for all of `asked`.
fn row(task: Task, cost: &Cost, asked: &[Asked], items: &[Item], rankings: &[Ranking]) -> Row {
    let judged: Vec<Vec<Judged>> = asked
        .iter()
        .zip(rankings)
        .filter(|(asked, _)| asked.task == task)
        .map(|(asked, ranking)| {
            let judge = |&(place, score): &(usize, f64)| Judged {
                score,
                positive: task.is_positive(asked.swap, items[place].kind),
            };
            ranking.iter().map(judge).collect()
        })
        .collect();
    Row {
        experiment: task.name().to_owned(),
        method: cost.method.clone(),
        encoding: cost.encoding.clone(),
        k: cost.k,
        metrics: task.metrics(&judged),
        queries: judged.len(),
        bytes_per_example: cost.bytes_per_example,
        index_bytes: cost.index_bytes,
        build_seconds: cost.build_seconds,
        fit_seconds: cost.fit_seconds,
        fit_bytes: cost.fit_bytes,
        query_seconds: cost.query_seconds,
    }
}

/// Every task's part of the report, from each method's rankings for all of `asked`. The first `traced` outputs of a task
/// are shown in full: `trace` gets an output's ordinal. `shown` names the method whose influence they show.
///
/// # Errors
/// Those of `trace`.
pub fn experiments<E>(
    asked: &[Asked],
    items: &[Item],
    ranked: &Ranked,
    shown: &str,
    traced: usize,
    trace: impl Fn(usize) -> Result<TracedQuery, E>,
) -> Result<Vec<Experiment>, E> {
    let of = |task: Task| {
        let here = (0..asked.len()).filter(|ordinal| asked[*ordinal].task == task);
        let queries = here.take(traced).map(&trace).collect::<Result<_, E>>()?;
        let rows = ranked.iter().map(|(cost, rankings)| row(task, cost, asked, items, rankings)).collect();
        Ok(described(task, items, shown.to_owned(), rows, queries))
    };
    Task::ALL.into_iter().map(of).collect()
}

/// A task's part of the report; `shown` names the method whose influence `queries` show.
fn described(
    task: Task,
    items: &[Item],
    shown: String,
    rows: Vec<Row>,
    queries: Vec<TracedQuery>,
) -> Experiment {
    let positive = |item: &&Item| match item.kind {
        Kind::Clean => false,
        Kind::Poisoned => task == Task::Backdoor,
        Kind::Corrupted(_) => task != Task::Backdoor,
    };
    Experiment {
        name: task.name().to_owned(),
        title: task.title().to_owned(),
        description: task.description().to_owned(),
        examples: items.len(),
        positives: items.iter().filter(positive).count(),
        positive_name: task.positive_name().to_owned(),
        shown_method: shown,
        rows,
        queries,
    }
}
