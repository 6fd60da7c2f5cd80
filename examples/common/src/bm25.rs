//! Okapi BM25, the lexical baseline.
//!
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", Foundations
//! and Trends in Information Retrieval 3(4), 2009, section 3:
//!
//! `score(d, q) = Σ_t qtf(t) · idf(t) · tf(t, d) / (tf(t, d) + k1 · (1 - b + b · |d| / avg|d|))`
//!
//! with `idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5))`: one is added inside the logarithm, as is
//! common, so that a word in more than half of the documents does not count against one. Words are
//! compared in lower case; marks do not count.

use std::collections::HashMap;

use crate::words::split;

/// How fast a repeated word saturates.
const K1: f64 = 1.2;
/// How far a document's length is evened out.
const B: f64 = 0.75;

/// One document's place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document's position in the order given to [`Bm25::new`].
    pub index: usize,
    /// Its BM25 score; 0 when it shares no word with the query.
    pub score: f64,
}

/// An inverted index over a fixed list of documents.
#[derive(Debug)]
pub struct Bm25 {
    /// Word to (document, times in it), by document.
    postings: HashMap<String, Vec<(usize, f64)>>,
    /// `k1 · (1 - b + b · |d| / avg|d|)` of each document.
    saturation: Vec<f64>,
    /// Each document's place when all are ordered by id, for ties.
    id_order: Vec<usize>,
}

impl Bm25 {
    /// Indexes documents of an id and a text (an example's prompt and answer).
    pub fn new<'a, T: AsRef<str>>(documents: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut ids = Vec::new();
        let mut lengths = Vec::new();
        for (index, (id, text)) in documents.into_iter().enumerate() {
            let counts = word_counts(text.as_ref());
            ids.push(id);
            lengths.push(counts.values().sum::<f64>());
            for (word, count) in counts {
                postings.entry(word).or_default().push((index, count));
            }
        }
        let average = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        let saturation = lengths
            .iter()
            // Where every document is empty there is nothing to even out (and no posting).
            .map(|length| if average > 0.0 { K1 * (1.0 - B + B * length / average) } else { K1 })
            .collect();
        let mut by_id: Vec<usize> = (0..ids.len()).collect();
        by_id.sort_by_key(|&index| ids[index]);
        let mut id_order = vec![0; ids.len()];
        for (place, index) in by_id.into_iter().enumerate() {
            id_order[index] = place;
        }
        Self { postings, saturation, id_order }
    }

    /// Every document, best first; equal scores in the order of their ids.
    pub fn rank(&self, query: &str) -> Vec<Ranked> {
        let documents = self.saturation.len() as f64;
        let mut scores = vec![0.0; self.saturation.len()];
        let mut words: Vec<(String, f64)> = word_counts(query).into_iter().collect();
        // A fixed order of summing, so that scores do not depend on the hash.
        words.sort_by(|a, b| a.0.cmp(&b.0));
        for (word, times) in words {
            let Some(postings) = self.postings.get(&word) else {
                continue;
            };
            let holding = postings.len() as f64;
            let idf = (1.0 + (documents - holding + 0.5) / (holding + 0.5)).ln();
            for &(index, count) in postings {
                scores[index] += times * idf * count / (count + self.saturation[index]);
            }
        }
        let mut ranking: Vec<Ranked> =
            scores.into_iter().enumerate().map(|(index, score)| Ranked { index, score }).collect();
        ranking.sort_by(|a, b| {
            b.score.total_cmp(&a.score).then(self.id_order[a.index].cmp(&self.id_order[b.index]))
        });
        ranking
    }
}

fn word_counts(text: &str) -> HashMap<String, f64> {
    let mut counts = HashMap::new();
    for token in split(text) {
        if token.starts_with(char::is_alphanumeric) {
            *counts.entry(token.to_lowercase()).or_insert(0.0) += 1.0;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch any slip in the formula: the expected scores are worked out by hand.
    #[test]
    fn rank_three_documents() {
        let bm25 = Bm25::new([("a", "Cat sat."), ("b", "cat cat dog bird"), ("c", "dog ran")]);
        let ranking = bm25.rank("cat, the CAT");
        // N = 3, n(cat) = 2: idf = ln(1 + 1.5 / 2.5) = ln 1.6; lengths 2, 4, 2; average 8/3.
        let idf = 1.6f64.ln();
        let a = 2.0 * idf * 1.0 / (1.0 + 1.2 * (0.25 + 0.75 * 2.0 / (8.0 / 3.0)));
        let b = 2.0 * idf * 2.0 / (2.0 + 1.2 * (0.25 + 0.75 * 4.0 / (8.0 / 3.0)));
        assert_eq!(ranking.iter().map(|hit| hit.index).collect::<Vec<_>>(), [1, 0, 2]);
        assert!((ranking[0].score - b).abs() < 1e-12);
        assert!((ranking[1].score - a).abs() < 1e-12);
        assert_eq!(ranking[2].score, 0.0);
    }

    // Would catch ties that follow the insertion order or the hash.
    #[test]
    fn rank_ties_by_id() {
        let bm25 = Bm25::new([("z", "dog"), ("m", "dog"), ("a", "cat")]);
        let order: Vec<_> = bm25.rank("dog").iter().map(|hit| hit.index).collect();
        assert_eq!(order, [1, 0, 2]);
        let order: Vec<_> = bm25.rank("nothing").iter().map(|hit| hit.index).collect();
        assert_eq!(order, [2, 1, 0]);
    }

    // Would catch a division by zero.
    #[test]
    fn rank_empty_documents() {
        assert!(Bm25::new::<&str>([]).rank("dog").is_empty());
        assert_eq!(Bm25::new([("a", ""), ("b", "!")]).rank("dog")[0].score, 0.0);
    }
}
