//! What a scan asks of the index whose snapshot it reads.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::control::CancelToken;
use super::error::ScanError;
use super::filter::ExampleRows;
use crate::curvature::{Conditioner, Curvature};

/// The snapshot of an index.
pub(crate) trait Lookup: Send + Sync {
    /// Looks up an id.
    fn find(&self, id: &[u8]) -> Result<Option<ExampleRows>, ScanError>;

    /// The factors of a curvature for some blocks.
    fn conditioner(
        &self,
        curvature: &Curvature,
        blocks: &[usize],
        cancel: &CancelToken,
    ) -> Result<Conditioner, ScanError>;

    /// The roots of the self-influence of the rows under a curvature, computed with these sums.
    fn self_influence(&self, curvature: &Curvature, sums: Uuid) -> Result<Arc<dyn RowLengths>, ScanError>;
}

/// A length of each row and block that is not its norm.
pub(crate) trait RowLengths: fmt::Debug + Send + Sync {
    /// The lengths of some rows of a segment in a block.
    fn lengths(&self, segment: Uuid, block: usize, rows: Range<u32>) -> Result<Vec<f32>, ScanError>;
}
