//! Spans of positions in the rows of a batch, as tensors that gather them.

use std::ops::Range;

use super::BurnError;
use ::burn::Tensor;
use ::burn::tensor::{Device, Int, TensorData};

/// Spans of the examples' positions. Each becomes a row as long as the longest, filled up by positions that a
/// mask takes out again.
pub(super) struct Spans {
    rows: usize,
    longest: usize,
    /// `[rows * longest]`, into `[batch * time]`.
    index: Tensor<1, Int>,
    /// `[rows, longest, 1]`: 1 in the span, 0 past its end.
    mask: Tensor<3>,
}

impl Spans {
    pub(super) fn of(
        spans: &[Vec<Range<usize>>],
        positions: [usize; 2],
        device: &Device,
    ) -> Result<Self, BurnError> {
        let [batch, time] = positions;
        if spans.len() != batch {
            return Err(BurnError::Shape { what: "spans", given: vec![spans.len()], expected: vec![batch] });
        }
        for (example, spans) in spans.iter().enumerate() {
            if let Some(span) = spans.iter().find(|span| span.is_empty() || span.end > time) {
                let (start, end) = (span.start, span.end);
                return Err(BurnError::Span { example, start, end, positions: time });
            }
        }
        let rows = spans.iter().map(Vec::len).sum();
        let longest = spans.iter().flatten().map(Range::len).max().unwrap_or(0);
        let (mut index, mut mask) = (Vec::new(), Vec::new());
        for (example, spans) in spans.iter().enumerate() {
            for span in spans {
                for at in 0..longest {
                    let inside = at < span.len();
                    // Past the end, any position will do.
                    index.push((example * time + span.start + if inside { at } else { 0 }) as i64);
                    mask.push(if inside { 1.0f32 } else { 0.0 });
                }
            }
        }
        let index = Tensor::from_data(TensorData::new(index, [rows * longest]), device);
        let mask = Tensor::from_data(TensorData::new(mask, [rows, longest, 1]), device);
        Ok(Self { rows, longest, index, mask })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// What a tensor `[batch, time, width]` has in `count` spans from `start`: `[count, longest, width]`. The
    /// positions past the end of a span are to be masked.
    pub(super) fn gather(&self, x: &Tensor<3>, start: usize, count: usize) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let flat = x.clone().reshape([batch * time, width]);
        flat.select(0, self.run(start, count)).reshape([count, self.longest, width])
    }

    /// As [`gather`](Self::gather), of tokens `[batch, time]`.
    pub(super) fn gather_tokens(&self, x: &Tensor<2, Int>, start: usize, count: usize) -> Tensor<2, Int> {
        let [batch, time] = x.dims();
        let flat = x.clone().reshape([batch * time]);
        flat.select(0, self.run(start, count)).reshape([count, self.longest])
    }

    /// As [`gather`](Self::gather), with zeros past the end of a span.
    pub(super) fn gather_masked(&self, x: &Tensor<3>, start: usize, count: usize) -> Tensor<3> {
        let mask = self.mask.clone().narrow(0, start, count).cast(x.dtype());
        self.gather(x, start, count) * mask
    }

    fn run(&self, start: usize, count: usize) -> Tensor<1, Int> {
        self.index.clone().narrow(0, start * self.longest, count * self.longest)
    }
}
