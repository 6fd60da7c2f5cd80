//! The linear datamodelling score: do influences predict what training on parts of the data does?

use super::correlation::{average_ranks, rank_correlation};
use super::error::{finite, same_length};
use super::{Bootstrap, EvalError, Interval};

/// What a model said of each query after training on subsets of the rows, several times on each.
///
/// It is the truth that influences are compared with, as TRAK does it (Park et al. 2023, arXiv:2303.14186).
/// Memory: 8 bytes for each subset and query, and for each of a subset's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrainings {
    rows: usize,
    subsets: Vec<Vec<usize>>,
    /// `[repeat][query][subset]`.
    outputs: Vec<Vec<Vec<f64>>>,
    /// For each query the ranks of its mean outputs, `[query][subset]`.
    ranks: Vec<Vec<f64>>,
}

/// A linear datamodelling score.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Lds {
    /// The correlation for each query. None if nothing was there to predict: all subsets gave the same output.
    pub per_query: Vec<Option<f64>>,
}

impl Lds {
    /// The mean over the queries that have a correlation; none where none has.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        super::mean(self.per_query.iter().copied())
    }

    /// The mean with an interval, by resampling the queries that have a correlation.
    ///
    /// # Errors
    /// As [`Bootstrap::mean`]; [`EvalError::Empty`] if no query has one.
    pub fn interval(&self, bootstrap: &Bootstrap) -> Result<Interval, EvalError> {
        let values: Vec<f64> = self.per_query.iter().copied().flatten().collect();
        bootstrap.mean(&values)
    }
}

impl Retrainings {
    /// What was measured.
    ///
    /// - `rows`: how many training rows there are;
    /// - `subsets`: the rows of each subset, by their place in the whole;
    /// - `outputs`: `[repeat][subset][query]`, higher where a query was learned better: a margin, or a loss
    ///   negated. Each repeat trains on every subset once, from its own start.
    ///
    /// # Errors
    /// [`EvalError::Empty`] with fewer than two subsets, or without repeats or queries; [`EvalError::Length`] if
    /// lists differ in length; [`EvalError::UnknownRow`]; [`EvalError::NotFinite`].
    pub fn new(rows: usize, subsets: Vec<Vec<usize>>, outputs: &[Vec<Vec<f64>>]) -> Result<Self, EvalError> {
        if subsets.len() < 2 {
            return Err(EvalError::Empty { what: "two subsets" });
        }
        for (subset, chosen) in subsets.iter().enumerate() {
            if let Some(&row) = chosen.iter().find(|&&row| row >= rows) {
                return Err(EvalError::UnknownRow { subset, row, rows });
            }
        }
        let queries = outputs.first().and_then(|repeat| repeat.first()).map_or(0, Vec::len);
        if queries == 0 {
            return Err(EvalError::Empty { what: "outputs" });
        }
        let mut by_query = Vec::with_capacity(outputs.len());
        for repeat in outputs {
            same_length(subsets.len(), repeat.len())?;
            let mut columns = vec![Vec::with_capacity(subsets.len()); queries];
            for measured in repeat {
                same_length(queries, measured.len())?;
                finite(measured)?;
                for (column, &output) in columns.iter_mut().zip(measured) {
                    column.push(output);
                }
            }
            by_query.push(columns);
        }
        let mut truth = Self { rows, subsets, outputs: by_query, ranks: Vec::new() };
        truth.ranks = truth.ranks_of_repeats(0, truth.repeats())?;
        Ok(truth)
    }

    /// The number of training rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.ranks.len()
    }

    /// How often each subset was trained on.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.outputs.len()
    }

    /// The score of these influences, `[query][row]`, positive where a row helps: for each query, Spearman's
    /// correlation over the subsets between the sum of the influences of a subset's rows and the mean of the
    /// measured outputs (TRAK, section 2, definition 2).
    ///
    /// Predictions that are equal for all subsets have a correlation of 0: they say nothing.
    ///
    /// # Errors
    /// [`EvalError::Length`] if there is not one list for each query with one number for each row,
    /// [`EvalError::NotFinite`].
    pub fn lds(&self, influences: &[Vec<f64>]) -> Result<Lds, EvalError> {
        same_length(self.queries(), influences.len())?;
        let per_query = self.ranks.iter().zip(influences).map(|(ranks, influences)| {
            same_length(self.rows, influences.len())?;
            finite(influences)?;
            if ranks.iter().all(|rank| ranks.first() == Some(rank)) {
                return Ok(None);
            }
            let predicted: Vec<f64> = self
                .subsets
                .iter()
                .map(|subset| subset.iter().filter_map(|&row| influences.get(row)).sum())
                .collect();
            Ok(Some(rank_correlation(&average_ranks(&predicted)?, ranks).unwrap_or(0.0)))
        });
        Ok(Lds { per_query: per_query.collect::<Result<_, _>>()? })
    }

    /// How well the measurement agrees with itself, between 0 and 1: the correlation of this mean over repeats
    /// with one of as many others. None with fewer than two repeats, or if nothing varies.
    ///
    /// The repeats stand in a circle. Each run of half of them (rounded down) is correlated with the run behind
    /// it, query by query, as in [`Retrainings::lds`]; the mean over runs and queries is that of two halves, and
    /// the formula of Spearman (1910) and Brown (1910) makes it that of the whole.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`] if a sum of outputs overflows.
    pub fn reliability(&self) -> Result<Option<f64>, EvalError> {
        let (repeats, half) = (self.repeats(), self.repeats() / 2);
        if half == 0 {
            return Ok(None);
        }
        let runs: Vec<_> =
            (0..repeats).map(|first| self.ranks_of_repeats(first, half)).collect::<Result<_, _>>()?;
        let behind = runs.iter().cycle().skip(half);
        let pairs = runs.iter().zip(behind).flat_map(|(run, behind)| run.iter().zip(behind));
        let halves = super::mean(pairs.map(|(left, right)| rank_correlation(left, right)));
        let longer = repeats as f64 / half as f64;
        // Halves that disagree are noise; the formula has a pole there.
        let whole = |halves: f64| longer * halves / (1.0 + (longer - 1.0) * halves);
        Ok(halves.map(|halves| if halves > 0.0 { whole(halves).min(1.0) } else { 0.0 }))
    }

    /// The score that true influences would be expected to get, since the measurement is noisy: the root of the
    /// [reliability](Retrainings::reliability), by the correction for attenuation (Spearman 1904).
    ///
    /// # Errors
    /// As [`Retrainings::reliability`].
    pub fn ceiling(&self) -> Result<Option<f64>, EvalError> {
        Ok(self.reliability()?.map(f64::sqrt))
    }

    /// For each query the ranks over subsets of the summed outputs of `count` repeats from `first` on, in a circle.
    fn ranks_of_repeats(&self, first: usize, count: usize) -> Result<Vec<Vec<f64>>, EvalError> {
        let queries = self.outputs.first().map_or(0, Vec::len);
        let mut sums = vec![vec![0.0; self.subsets.len()]; queries];
        for repeat in self.outputs.iter().cycle().skip(first).take(count) {
            for (sums, outputs) in sums.iter_mut().zip(repeat) {
                for (sum, output) in sums.iter_mut().zip(outputs) {
                    *sum += output;
                }
            }
        }
        sums.iter()
            .map(|sums| {
                finite(sums)?;
                average_ranks(sums)
            })
            .collect()
    }
}
