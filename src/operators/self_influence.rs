//! Rows by their self-influence.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::control::check;
use super::error::OperatorError;
use crate::curvature::Curvature;
use crate::index::Snapshot;
use crate::scan::CancelToken;
use crate::segment::Span;

/// A row and its self-influence.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RowSelfInfluence {
    /// The example's id. Serialised as text if it is UTF-8, otherwise as a list of bytes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::scan::text_or_bytes"))]
    pub id: Vec<u8>,
    /// The part of the example that the row stands for.
    pub span: Span,
    /// The source label, if the row has one.
    pub source: Option<String>,
    /// `gᵀ(F + λI)⁻¹g`, the sum over the blocks.
    pub value: f64,
}

/// The `count` rows with the highest self-influence, highest first, ties by id and span: mislabelled and outlying
/// examples. What is wrong in one example only moves the model for no other, so that it has much influence on itself (Koh
/// and Liang 2017, arXiv:1703.04730, section 5.4).
///
/// [`Writer::fit_self_influence`](crate::Writer::fit_self_influence) must have computed it with this curvature, κ and rank. One
/// pass over ids and small columns, no codes; memory is that of the result and of a row group's columns.
///
/// ```
/// # use gradix::{Encoding, Index, Schema, sketch::{Sketch, SketchSpec}};
/// use gradix::operators::highest_self_influence;
/// use gradix::scan::CancelToken;
/// use gradix::{Curvature, FitOptions, SelfInfluenceOptions};
/// # let folder = tempfile::tempdir()?;
/// # let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
/// # let index = Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32)?)?;
/// # let mut writer = index.writer()?;
/// for (id, values) in [("a", [3.0, 0.0]), ("b", [3.1, 0.1]), ("odd", [0.0, 3.0]), ("c", [2.9, 0.0])] {
///     writer.append(id, &Sketch::dense(spec.clone(), values.to_vec())?)?;
/// }
/// writer.commit()?;
/// writer.fit_curvature(FitOptions::default())?;
/// writer.fit_self_influence(SelfInfluenceOptions::default())?;
/// let highest = highest_self_influence(&index.snapshot()?, &Curvature::default(), 1, &CancelToken::new())?;
/// assert_eq!(highest[0].id, b"odd");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// It was not computed with this curvature, or not for all rows; the snapshot cannot be read; or `cancel` was cancelled.
pub fn highest_self_influence(
    snapshot: &Snapshot,
    curvature: &Curvature,
    count: usize,
    cancel: &CancelToken,
) -> Result<Vec<RowSelfInfluence>, OperatorError> {
    let mut kept: BinaryHeap<Kept> = BinaryHeap::new();
    for row in snapshot.iter().with_self_influence(curvature)? {
        check(cancel)?;
        let row = row?;
        let value = row.self_influence.unwrap_or_default();
        let row = RowSelfInfluence { id: row.id, span: row.span, source: row.source, value };
        kept.push(Kept(row));
        if kept.len() > count {
            kept.pop();
        }
    }
    Ok(kept.into_sorted_vec().into_iter().map(|kept| kept.0).collect())
}

/// Ordered from the best to the worst, so that the heap's greatest goes first.
#[derive(Debug, PartialEq)]
struct Kept(RowSelfInfluence);

impl Eq for Kept {}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        let place = |row: &RowSelfInfluence| (row.span.start, row.span.end);
        b.value.total_cmp(&a.value).then_with(|| a.id.cmp(&b.id)).then_with(|| place(a).cmp(&place(b)))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
