//! Greedy selection of a small set that keeps the influence of all.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

use super::control::every_score;
use super::error::OperatorError;
use super::selection::order;
use crate::scan::{Scan, ScanError};

/// Chooses a small set of examples that keeps the influence which all of them have on the queries.
///
/// In2Core (San Joaquin et al., arXiv:2408.03560) keeps the examples with the greatest influence on a validation
/// set, which is [`Selection`](super::Selection) with one task; they may all help the same few queries. This
/// operator maximises an [`Objective`] over sets that is monotone and submodular, by the greedy rule: always
/// add the example that raises it most, ties by id. So the set reaches at least `1 - 1/e` (63%) of what the best
/// set of its size reaches (Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing
/// submodular set functions", 1978).
///
/// It is the set that an evaluation of all examples in each step would give, exactly, in a few passes over the
/// rows: each pass keeps the [`candidates`](Coreset::candidates) with the greatest gains and their scores, and
/// chooses among them by the lazy greedy algorithm (Minoux, "Accelerated greedy algorithms", 1978) while the best
/// of them beats the gain that any other had at the pass, which can only have fallen since. Memory: 8 bytes for
/// each candidate and query, an id for each candidate and each chosen example. Each pass chooses at least one.
///
/// Only positive scores count. The rows of one example add up, or as the scan's
/// [`Grouping`](crate::Grouping) has it.
///
/// ```
/// # use gradix::{Encoding, Index, Schema, operators::{Coreset, Objective}, sketch::{Sketch, SketchSpec}};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// # let sketch = |values: [f32; 2]| Sketch::dense(spec.clone(), values.to_vec());
/// writer.append("best", &sketch([1.0, 0.0])?)?;
/// writer.append("nearly the same", &sketch([0.9, 0.0])?)?;
/// writer.append("another", &sketch([0.0, 0.5])?)?;
/// writer.commit()?;
/// let (snapshot, queries) = (index.snapshot()?, [sketch([1.0, 0.0])?, sketch([0.0, 1.0])?]);
/// // A scan for each pass.
/// let chosen = Coreset::new(2).objective(Objective::FacilityLocation).choose(|| snapshot.scan(&queries))?;
/// let ids: Vec<_> = chosen.examples.iter().map(|example| &example.id[..]).collect();
/// assert_eq!(ids, [&b"best"[..], b"another"]);
/// assert_eq!(chosen.kept, [1.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing until it is run"]
pub struct Coreset {
    count: usize,
    objective: Objective,
    candidates: usize,
}

/// What a [`Coreset`] keeps. `s(q, x)` is the score of example x for query q, or 0 if it is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Objective {
    /// Saturated coverage (Lin and Bilmes, "A class of submodular functions for document summarization", 2011):
    /// the sum over the queries of `min(sum over the set of s(q, x), share * P(q)) / P(q)`, where `P(q)` is the sum
    /// over all examples. Each query counts alike, and no longer once the set has this share of its positive
    /// influence. With a share of 1 it is the ranking by the mean of `s(q, x) / P(q)`. One pass more.
    Coverage {
        /// Above 0 and at most 1.
        share: f64,
    },
    /// Facility location (as in CRAIG, Mirzasoleiman et al., arXiv:1906.01827, which covers examples where this
    /// covers queries): the sum over the queries of the greatest `s(q, x)` of the set. Each query is explained by
    /// one example. Queries with greater scores count more.
    FacilityLocation,
}

/// A set that a [`Coreset`] has chosen.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Chosen {
    /// The examples, in the order in which they were chosen. Fewer than asked for if no other raises the
    /// objective.
    pub examples: Vec<ChosenExample>,
    /// The objective of the set: the sum of the gains.
    pub value: f64,
    /// For each query, what the set has of what all examples have: of the positive influence, or (by facility
    /// location) of the greatest score. From 0 to 1; 1 for a query without a positive score.
    pub kept: Vec<f64>,
    /// The number of scans.
    pub passes: usize,
}

/// An example of a [`Chosen`] set.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChosenExample {
    /// The example's id. Serialised as text if it is UTF-8, otherwise as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::scan::text_or_bytes"))]
    pub id: Vec<u8>,
    /// By how much it raised the objective.
    pub gain: f64,
}

impl Coreset {
    /// At most this many examples, by [`Objective::Coverage`] of a tenth, with 4,096 candidates.
    pub fn new(count: usize) -> Self {
        Self { count, objective: Objective::Coverage { share: 0.1 }, candidates: 4096 }
    }

    /// What the set keeps.
    pub fn objective(mut self, objective: Objective) -> Self {
        self.objective = objective;
        self
    }

    /// The number of examples that are kept in memory from a pass, at least 1. The set does not depend on it,
    /// only the number of passes.
    pub fn candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }

    /// Chooses the set. `scan` is called for each pass, and returns the same scan each time, of the same snapshot.
    /// Progress and cancellation are the scans'.
    ///
    /// # Errors
    /// A setting is impossible, sums overflow, or a scan fails or is cancelled.
    pub fn choose<'a>(
        self,
        mut scan: impl FnMut() -> Result<Scan<'a>, ScanError>,
    ) -> Result<Chosen, OperatorError> {
        if self.candidates == 0 {
            let (setting, expected) = ("candidates", "at least 1");
            return Err(OperatorError::Setting { setting, given: 0.0, expected });
        }
        let first = scan()?;
        let queries = first.query_count();
        let (mut state, mut next, mut passes) = match self.objective {
            Objective::Coverage { share } if !(share > 0.0 && share <= 1.0) => {
                let (setting, expected) = ("share", "above 0 and at most 1");
                return Err(OperatorError::Setting { setting, given: share, expected });
            }
            Objective::Coverage { share } => {
                (State::coverage(positive_sums(first, queries)?, share), None, 1)
            }
            Objective::FacilityLocation => (State::facility(queries), Some(first), 0),
        };
        let (mut examples, mut ids) = (Vec::new(), BTreeSet::new());
        while examples.len() < self.count {
            let scan = match next.take() {
                Some(scan) => scan,
                None => scan()?,
            };
            let mut pool = self.pass(scan, &mut state, &ids)?;
            passes += 1;
            let before = examples.len();
            while examples.len() < self.count
                && let Some(candidate) = pool.best(&state, examples.len() == before)
            {
                state.add(&candidate.scores);
                ids.insert(candidate.id.clone());
                examples.push(ChosenExample { id: candidate.id, gain: candidate.gain });
            }
            if examples.len() == before || pool.outside <= 0.0 {
                break;
            }
        }
        let value = examples.iter().map(|example| example.gain).sum();
        Ok(Chosen { examples, value, kept: state.kept(), passes })
    }

    /// Gathers the candidates with the greatest gains.
    fn pass(
        &self,
        scan: Scan<'_>,
        state: &mut State,
        chosen: &BTreeSet<Vec<u8>>,
    ) -> Result<Pool, OperatorError> {
        check_queries(&scan, state.has.len())?;
        let mut kept: BinaryHeap<Worst> = BinaryHeap::new();
        let mut outside = 0f64;
        let mut scores = vec![0f64; state.has.len()];
        every_score(scan.by_example(), |rows| {
            for row in 0..rows.len() {
                for (query, score) in scores.iter_mut().enumerate() {
                    *score = rows.scores(query)[row].max(0.0);
                }
                state.see(&scores);
                let gain = state.gain(&scores);
                if !gain.is_finite() {
                    return Err(OperatorError::Overflow);
                }
                // One without a gain will never have one.
                if gain <= 0.0 {
                    continue;
                }
                let full = kept.len() == self.candidates;
                let id = rows.id(row)?;
                let admits =
                    kept.peek().is_none_or(|worst| order((gain, id), worst.0.key()) == Ordering::Less);
                if (full && !admits) || chosen.contains(id) {
                    outside = outside.max(if chosen.contains(id) { 0.0 } else { gain });
                    continue;
                }
                if full && let Some(dropped) = kept.pop() {
                    outside = outside.max(dropped.0.gain);
                }
                kept.push(Worst(Candidate { id: id.to_vec(), gain, scores: scores.clone() }));
            }
            Ok(())
        })?;
        let heap = kept.into_iter().map(|worst| Best(worst.0)).collect();
        Ok(Pool { heap, outside })
    }
}

fn check_queries(scan: &Scan<'_>, expected: usize) -> Result<(), OperatorError> {
    match scan.query_count() {
        given if given == expected => Ok(()),
        given => Err(OperatorError::Lengths { what: "queries of a later scan", given, expected }),
    }
}

/// For each query: the sum of its positive scores.
fn positive_sums(scan: Scan<'_>, queries: usize) -> Result<Vec<f64>, OperatorError> {
    let mut sums = vec![0f64; queries];
    every_score(scan.by_example(), |rows| {
        for (query, sum) in sums.iter_mut().enumerate() {
            rows.scores(query).iter().for_each(|score| *sum += score.max(0.0));
        }
        Ok(())
    })?;
    if sums.iter().all(|sum| sum.is_finite()) { Ok(sums) } else { Err(OperatorError::Overflow) }
}

/// What the set has, for each query.
struct State {
    kind: Kind,
    /// Coverage: the sum of the scores. Facility location: the greatest score.
    has: Vec<f64>,
    /// The same of all examples.
    all: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Coverage { share: f64 },
    Facility,
}

impl State {
    fn coverage(all: Vec<f64>, share: f64) -> Self {
        Self { kind: Kind::Coverage { share }, has: vec![0.0; all.len()], all }
    }

    fn facility(queries: usize) -> Self {
        Self { kind: Kind::Facility, has: vec![0.0; queries], all: vec![0.0; queries] }
    }

    /// Takes note of an example that a pass has met.
    fn see(&mut self, scores: &[f64]) {
        if let Kind::Facility = self.kind {
            self.all.iter_mut().zip(scores).for_each(|(all, score)| *all = all.max(*score));
        }
    }

    /// What an example with these scores would add. In floating point, too, it never rises as `has` does: each
    /// operation is monotone and so is its rounding.
    fn gain(&self, scores: &[f64]) -> f64 {
        let queries = scores.iter().zip(&self.has).zip(&self.all);
        match self.kind {
            Kind::Coverage { share } => queries
                .map(|((score, has), all)| {
                    let part = score.min((share * all - has).max(0.0));
                    if part > 0.0 { part / all } else { 0.0 }
                })
                .sum(),
            Kind::Facility => queries.map(|((score, has), _)| (score - has).max(0.0)).sum(),
        }
    }

    fn add(&mut self, scores: &[f64]) {
        for (has, score) in self.has.iter_mut().zip(scores) {
            *has = match self.kind {
                Kind::Coverage { .. } => *has + score,
                Kind::Facility => has.max(*score),
            };
        }
    }

    fn kept(&self) -> Vec<f64> {
        let share = |(has, all): (&f64, &f64)| if *all > 0.0 { (has / all).min(1.0) } else { 1.0 };
        self.has.iter().zip(&self.all).map(share).collect()
    }
}

struct Candidate {
    id: Vec<u8>,
    /// Its gain when it was last computed.
    gain: f64,
    scores: Vec<f64>,
}

impl Candidate {
    fn key(&self) -> (f64, &[u8]) {
        (self.gain, &self.id)
    }
}

/// The candidates of a pass.
struct Pool {
    heap: BinaryHeap<Best>,
    /// No example that is not a candidate has a greater gain.
    outside: f64,
}

impl Pool {
    /// Takes the example with the greatest gain of all, ties by id; `None` if only another pass could tell which
    /// it is, or if none has a gain. `fresh`: nothing was chosen since the pass.
    fn best(&mut self, state: &State, fresh: bool) -> Option<Candidate> {
        if fresh {
            return self.heap.pop().map(|best| best.0);
        }
        while let Some(Best(mut candidate)) = self.heap.pop() {
            candidate.gain = state.gain(&candidate.scores);
            let is_best =
                self.heap.peek().is_none_or(|next| order(candidate.key(), next.0.key()) == Ordering::Less);
            if candidate.gain <= 0.0 {
                continue;
            }
            if is_best {
                // At an equal gain, one that is no candidate may have the lesser id.
                return (candidate.gain > self.outside).then_some(candidate);
            }
            self.heap.push(Best(candidate));
        }
        None
    }
}

/// A candidate in a heap with the worst on top.
struct Worst(Candidate);

/// A candidate in a heap with the best on top.
struct Best(Candidate);

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.0.key(), other.0.key())
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

impl Ord for Best {
    fn cmp(&self, other: &Self) -> Ordering {
        order(other.0.key(), self.0.key())
    }
}

impl PartialOrd for Best {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Best {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Best {}
