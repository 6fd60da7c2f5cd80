//! Scores rows, and keeps the best.
//!
//! - How is a score computed? `tile` multiplies some rows of a row group with queries of the batch.
//! - Which rows are pruned? `screen` prunes by intervals, `prune` by norms.
//! - What must a score reach? `best` holds the best rows of each query, `thresholds` shares their thresholds
//!   among the workers.
//! - What happens with a piece? `rank` keeps the best rows, `every` returns all scores; both group rows by
//!   `examples` if requested.
//!
//! Depends on the plan and the codes of pieces, not on threads.

mod best;
mod every;
mod examples;
mod prune;
mod rank;
mod screen;
mod thresholds;
mod tile;

pub(super) use best::{Best, Entry};
pub(super) use every::{EveryWorker, PieceScores};
pub(super) use rank::{Counts, Found, RankWorker};
pub(super) use screen::Screen;
pub(super) use thresholds::Thresholds;
