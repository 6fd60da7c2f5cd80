//! What researchers compute from scans and rows, beside rankings.
//!
//! | question | operator |
//! |---|---|
//! | Why this answer rather than that one? | a contrastive query: [`Sketch::minus`](crate::sketch::Sketch::minus), [`scaled`](crate::sketch::Sketch::scaled) |
//! | Which data acts like these examples? | [`mean_of`] or [`sum_of`] stored rows, as a query |
//! | Which data is behind what an output says, rather than its grammar? | [`informative`]: token queries weighted by [`informativeness`] |
//! | Which corpus made the model do this? | [`BySource`]: sums, means and shares with intervals of confidence; [`Mixture`]: the same from outputs alone |
//! | Which data should the model be trained on for these tasks? | [`Selection`]: the best fraction, as LESS and In2Core choose it |
//! | Which few examples keep the influence of all? | [`Coreset`]: the greedy choice, with a bound |
//! | Which examples are mislabelled, or like no other? | [`highest_self_influence`] |
//! | Which data does the model see as the same? | [`Duplicates`]: all pairs above a cosine, and their clusters |
//!
//! Operators take a configured [`Scan`](crate::Scan), with its blocks, weights, filters, threads, progress and
//! cancellation, or (where they need many) a function that makes or configures one. They read rows in streams; the
//! page of each says what bounds its memory. Results have the same bits for any number of threads and kernel.
//! Those with the feature `serde` are `Serialize`.
//!
//! ```
//! # use gradix::{Encoding, Grouping, Index, Row, Schema, sketch::{Sketch, SketchSpec}};
//! use gradix::operators::{BySource, Coreset, Selection};
//! # let folder = tempfile::tempdir()?;
//! # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
//! # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F16)?)?;
//! # let mut writer = index.writer()?;
//! # let sketch = |values: [f32; 2]| Sketch::dense(spec.clone(), values.to_vec());
//! # for (id, values) in [("a", [3.0, 4.0]), ("b", [1.0, 0.0]), ("c", [0.0, 2.0])] {
//! #     writer.append_rows(id, &[Row::new(&sketch(values)?).source("wiki")])?;
//! # }
//! # writer.commit()?;
//! # let (good, bad) = (sketch([1.0, 1.0])?, sketch([0.0, 1.0])?);
//! let snapshot = index.snapshot()?;
//! let queries = [good.minus(&bad)?, good];
//! let scan = || snapshot.scan(&queries).map(|scan| scan.threads(1));
//!
//! let sources = BySource::new().replicates(100).run(scan()?)?;
//! assert_eq!((sources[0][0].sum, sources[1][0].sum), (4.0, 10.0));
//! let selected = Selection::count(2).task(0..2).run(scan()?)?;
//! assert_eq!(selected[0].id, b"a");
//! let chosen = Coreset::new(1).choose(scan)?;
//! assert_eq!(chosen.examples[0].id, b"a");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Over the API of `index`, `scan` and `sketch`.

mod bootstrap;
mod control;
mod coreset;
mod distribution;
mod duplicates;
mod error;
mod mixture;
mod queries;
mod selection;
mod self_influence;
mod simplex;
mod sources;

pub use bootstrap::Interval;
pub use coreset::{Chosen, ChosenExample, Coreset, Objective};
pub use duplicates::{Duplicates, Pair};
pub use error::OperatorError;
pub use mixture::{Mixture, MixtureFit, MixtureShare};
pub use queries::{informative, informativeness, mean_of, sum_of};
pub use selection::{Selected, Selection};
pub use self_influence::{RowSelfInfluence, highest_self_influence};
pub use sources::{BySource, SourceScores};
