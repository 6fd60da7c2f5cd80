//! How rows are scored, and what is kept of the scores.
//!
//! - What is a score? `tile` multiplies some rows of a row group with queries of the batch.
//! - Which rows need none? `screen`, and the norms (`prune`).
//! - What counts as good? `best` holds the best of each query, `thresholds` what all workers know of them.
//! - What becomes of a piece? `rank` keeps the best, `every` passes all scores on; both add up the rows of
//!   `examples` where these are grouped.
//!
//! Takes a plan and the codes of pieces; knows nothing of threads.

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
