//! The best `k` of many scores, in the total order of rankings.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::segment::Span;

/// A row or an example that is among the best so far.
#[derive(Debug, Clone)]
pub(in crate::scan) struct Entry {
    /// The score, negated for opponents: greater is better.
    pub key: f64,
    pub id: Box<[u8]>,
    pub segment: usize,
    /// Its ordinal in the segment.
    pub row: u32,
    pub span: Span,
    /// Ordinal in the segment's source names.
    pub source: u32,
}

impl Entry {
    /// The order of rankings: by key, descending, then id, then row order.
    fn rank(&self, other: &Self) -> Ordering {
        by_key(self.key, other.key)
            .then_with(|| self.id.cmp(&other.id))
            .then_with(|| (self.segment, self.row).cmp(&(other.segment, other.row)))
    }
}

/// Total, since keys are finite; zeros of both signs are equal.
fn by_key(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.rank(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank(other)
    }
}

/// The best `k` entries, with the worst of them on top of the heap. Allocates on first use.
#[derive(Debug, Clone)]
pub(in crate::scan) struct Best {
    k: usize,
    /// The least key of an entry.
    least: f64,
    heap: BinaryHeap<Entry>,
}

impl Best {
    pub fn new(k: usize, least: f64) -> Self {
        Self { k, least, heap: BinaryHeap::new() }
    }

    /// The threshold: a key below it is not among the best. An equal key may be, by its id.
    pub fn threshold(&self) -> f64 {
        match self.heap.peek() {
            _ if self.k == 0 => f64::INFINITY,
            Some(worst) if self.heap.len() >= self.k => worst.key,
            _ => self.least,
        }
    }

    /// Whether an entry with this key, id and place (segment and row) is among the best.
    pub fn admits(&self, key: f64, id: &[u8], place: (usize, u32)) -> bool {
        match self.heap.peek() {
            _ if self.k == 0 => false,
            Some(worst) if self.heap.len() >= self.k => {
                let order = by_key(key, worst.key).then_with(|| id.cmp(&worst.id));
                order.then_with(|| place.cmp(&(worst.segment, worst.row))) == Ordering::Less
            }
            _ => key >= self.least,
        }
    }

    pub fn push(&mut self, entry: Entry) {
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    pub fn merge(&mut self, other: Self) {
        for entry in other.heap {
            self.push(entry);
        }
    }

    pub fn into_ranked(self) -> Vec<Entry> {
        self.heap.into_sorted_vec()
    }
}
