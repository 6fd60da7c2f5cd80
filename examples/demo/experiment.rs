//! The two experiments: what is asked, and how each method's ranking is judged.
//!
//! Both share one training set and one model: the poisoned examples are about the sea, the corrupted
//! ones about five countries, and neither touches the other.

use super::data::{Dataset, Item, Kind, Query, Swap};
use super::index::{Built, Ends};
use super::metrics::{Judged, areas, mean, precision_at};
use super::report::{Metric, Row};
use super::tokens::Vocabulary;
use super::tracin::Span;
use super::train::Draws;

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

/// An output that shows what the experiment is about.
pub struct Case {
    /// What is asked about it.
    pub task: Task,
    /// What the model was asked.
    pub query: Query,
    /// What it said, `<eos>` included.
    pub generated: Vec<u32>,
    /// The gradient that is the query.
    pub span: Span,
    /// The wrong word's positions among the generated tokens.
    pub marked: Vec<usize>,
}

/// The shared training set: swapped facts and poisoned examples among the clean ones.
pub fn training_set(data: &Dataset, seed: u64) -> Vec<Item> {
    let mut items = data.error_tracing_set(seed);
    items.extend(data.backdoor_set(seed).into_iter().filter(|item| item.kind == Kind::Poisoned));
    Draws(seed).shuffle(&mut items);
    items
}

/// The cases among the outputs: those that are attacked, and those that repeat the error (twice,
/// whole and token-wise).
pub fn cases(data: &Dataset, vocabulary: &Vocabulary, queries: &[Query], outputs: &[Vec<u32>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (query, generated) in queries.iter().zip(outputs) {
        let mut ids = vocabulary.encode_prompt(&query.prompt);
        let start = ids.len();
        ids.extend(generated);
        let sequence = super::tokens::Encoded { response: start..ids.len(), ids };
        let words: Vec<&str> = generated.iter().map(|id| vocabulary.token(*id)).collect();
        let marked = query.wrong_tokens(&words);
        let case = |task, span, marked: &[usize]| {
            let (query, generated) = (query.clone(), generated.clone());
            Case { task, query, generated, span, marked: marked.to_vec() }
        };
        if query.swap.is_none() && data.is_attacked(&vocabulary.decode(generated)) {
            cases.push(case(Task::Backdoor, Span::whole(sequence), &[]));
        } else if !marked.is_empty() {
            let tokens = marked.iter().map(|at| start + at).collect();
            cases.push(case(Task::WholeError, Span::whole(sequence.clone()), &marked));
            let span = Span { sequence, tokens: Some(tokens) };
            cases.push(case(Task::TokenError, span, &marked));
        }
    }
    cases
}

/// A ranking of the training set for one case: places and scores, highest first. It may skip the middle, as
/// long as both ends have [`ENDS`].
pub type Ranking = Vec<(usize, f64)>;

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

/// A random order for each case, always the same for the same seed.
pub fn random_rankings(cases: &[Case], examples: usize, seed: u64) -> Vec<Ranking> {
    let mut draws = Draws(seed);
    cases
        .iter()
        .map(|_| {
            let mut order: Vec<usize> = (0..examples).collect();
            draws.shuffle(&mut order);
            (0..examples).map(|rank| (order[rank], (examples - rank) as f64)).collect()
        })
        .collect()
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
        }
    }
}

/// A method's row in a task's table, from its rankings of all cases.
pub fn row(task: Task, cost: &Cost, cases: &[Case], items: &[Item], rankings: &[Ranking]) -> Row {
    let judged: Vec<Vec<Judged>> = cases
        .iter()
        .zip(rankings)
        .filter(|(case, _)| case.task == task)
        .map(|(case, ranking)| {
            let judge = |&(place, score): &(usize, f64)| Judged {
                score,
                positive: task.is_positive(case.query.swap, items[place].kind),
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
        query_seconds: cost.query_seconds,
    }
}
