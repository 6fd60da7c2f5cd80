//! How good a ranking is: what retraining says of it, and whether it finds what is known to be there.
//!
//! Everything here takes plain numbers, so that it judges any method, not only this crate's.
//!
//! | question | answer |
//! |---|---|
//! | Do influences predict what training on other data would do? | [`Retrainings::lds`] |
//! | How well could anything predict it? | [`Retrainings::ceiling`] |
//! | How early does the first relevant row come? | [`reciprocal_rank`], averaged by [`mean`]: MRR |
//! | How many of the first k are relevant, how many of the relevant are among them? | [`precision_at`], [`recall_at`] |
//! | Do marked rows outrank the others? | [`roc_auc`], [`average_precision`] |
//! | Do two lists have the same order? | [`spearman`] |
//! | How sure is a mean? | [`Bootstrap::mean`] |
//!
//! The same input gives the same bits on every machine: sums have a fixed order, and resampling a fixed
//! generator.
//!
//! ```
//! use gradix::eval::{Bootstrap, Retrainings, roc_auc};
//!
//! // Four rows; a model was trained twice on each of three subsets, and one query's loss was measured, negated.
//! let subsets = vec![vec![0, 1], vec![1, 2], vec![2, 3]];
//! let first = vec![vec![-0.1], vec![-0.5], vec![-0.9]]; // [subset][query]
//! let second = vec![vec![-0.2], vec![-0.4], vec![-0.8]];
//! let truth = Retrainings::new(4, subsets, &[first, second])?;
//!
//! // The influence of each row on the query: subset sums 5, 3 and 1 have the order of what was measured.
//! let influences = [vec![3.0, 2.0, 1.0, 0.0]];
//! let lds = truth.lds(&influences)?;
//! assert_eq!(lds.per_query, [Some(1.0)]);
//! assert_eq!(lds.interval(&Bootstrap::default())?.mean, 1.0);
//! assert_eq!(truth.ceiling()?, Some(1.0));
//!
//! // Rows 2 and 3 were mislabelled.
//! let auc = roc_auc(&[0.1, 0.3, 0.9, 0.3], &[false, false, true, true])?;
//! assert_eq!(auc, Some(0.875)); // a tie counts one half
//! # Ok::<(), gradix::eval::EvalError>(())
//! ```

mod bootstrap;
mod correlation;
mod error;
mod retraining;
mod retrieval;

#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, Interval};
pub use correlation::{average_ranks, spearman};
pub use error::EvalError;
pub use retraining::{Lds, Retrainings};
pub use retrieval::{average_precision, mean, precision_at, recall_at, reciprocal_rank, roc_auc};
