//! How well a ranking finds what was put into the training set.
//!
//! RapidIn (arXiv:2405.11724) scores a backdoor ranking by the areas under the precision-recall and
//! the ROC curve over the `k` examples with the highest and the `k` with the lowest influence,
//! poisoned ones being positive; and error tracing by the precision among the `k` highest.

/// One training example of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Its influence; higher ranks first.
    pub score: f64,
    /// Whether it was poisoned (or corrupted).
    pub positive: bool,
}

/// Two areas under curves, each between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Areas {
    /// Under the precision-recall curve: the average precision.
    pub au_prc: f64,
    /// Under the ROC curve: the chance that a positive example outranks a negative one.
    pub au_roc: f64,
}

/// Both areas over the first `k` and the last `k` of a ranking (highest score first); over the
/// whole ranking where it has fewer than `2 k` examples.
///
/// Average precision is `Σ (R_n - R_(n-1)) · P_n` over the distinct scores from the top; a tie in
/// ROC counts one half (the Mann-Whitney statistic), so the order among equal scores has no effect.
///
/// Without a positive example both areas are 0: there was something to find and none of it came up
/// (as in the paper, whose figure for random at k = 5 is .2968; skipping such
/// rankings out would give about .5). Without a negative one both are 1.
/// An empty cut (`k` is 0, or nothing is ranked) has none.
pub fn areas(ranking: &[Judged], k: usize) -> Option<Areas> {
    let mut ends: Vec<Judged> = if ranking.len() <= k.saturating_mul(2) {
        ranking.to_vec()
    } else {
        [&ranking[..k], &ranking[ranking.len() - k..]].concat()
    };
    ends.sort_by(|a, b| b.score.total_cmp(&a.score));
    if ends.is_empty() {
        return None;
    }
    let positives = ends.iter().filter(|judged| judged.positive).count();
    let negatives = ends.len() - positives;
    if positives == 0 || negatives == 0 {
        let area = if positives == 0 { 0.0 } else { 1.0 };
        return Some(Areas { au_prc: area, au_roc: area });
    }
    let (mut found, mut passed) = (0, 0);
    let (mut au_prc, mut outranked) = (0.0, 0.0);
    for tied in ends.chunk_by(|a, b| a.score == b.score) {
        let hits = tied.iter().filter(|judged| judged.positive).count();
        let misses = tied.len() - hits;
        outranked += misses as f64 * (found as f64 + 0.5 * hits as f64);
        found += hits;
        passed += tied.len();
        au_prc += hits as f64 / positives as f64 * (found as f64 / passed as f64);
    }
    Some(Areas { au_prc, au_roc: outranked / (positives as f64 * negatives as f64) })
}

/// The share of positive examples among the first `k` of a ranking (among all, where it has fewer);
/// none for an empty cut. Equal scores keep the order given.
pub fn precision_at(ranking: &[Judged], k: usize) -> Option<f64> {
    let top = &ranking[..k.min(ranking.len())];
    let hits = top.iter().filter(|judged| judged.positive).count();
    (!top.is_empty()).then(|| hits as f64 / top.len() as f64)
}

/// The mean over queries, of those that have a value; none where none has.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(marks: &[(f64, bool)]) -> Vec<Judged> {
        marks.iter().map(|&(score, positive)| Judged { score, positive }).collect()
    }

    fn close(got: Option<Areas>, au_prc: f64, au_roc: f64) {
        let got = got.expect("areas");
        assert!((got.au_prc - au_prc).abs() < 1e-12, "{got:?}");
        assert!((got.au_roc - au_roc).abs() < 1e-12, "{got:?}");
    }

    // Would catch a wrong precision-recall step or a wrong count of ordered pairs.
    #[test]
    fn areas_of_a_mixed_ranking() {
        // Positives at ranks 1 and 3 of 4: AP = (1/1 + 2/3) / 2; of 4 pairs 3 are in order.
        let mixed = ranking(&[(4.0, true), (3.0, false), (2.0, true), (1.0, false)]);
        close(areas(&mixed, 2), 5.0 / 6.0, 0.75);
        let worst = ranking(&[(4.0, false), (3.0, false), (2.0, true), (1.0, true)]);
        close(areas(&worst, 2), (1.0 / 3.0 + 0.5) / 2.0, 0.0);
    }

    // Would catch a cut that keeps the middle, or only the top.
    #[test]
    fn areas_take_both_ends() {
        let long = ranking(&[(6.0, true), (5.0, false), (4.0, true), (3.0, true), (2.0, false), (1.0, true)]);
        // The ends of k = 2: + - - +.
        close(areas(&long, 2), (1.0 + 0.5) / 2.0, 0.5);
        // k = 1: + +, no negative.
        close(areas(&long, 1), 1.0, 1.0);
    }

    // Would catch a result that depends on how equal scores happen to be ordered.
    #[test]
    fn areas_with_ties() {
        let one = ranking(&[(2.0, true), (1.0, true), (1.0, false), (0.0, false)]);
        let other = ranking(&[(2.0, true), (1.0, false), (1.0, true), (0.0, false)]);
        // AP = 1/2 · 1 + 1/2 · 2/3; ROC = (1 + 1 + 1/2 + 1) / 4.
        close(areas(&one, 2), 5.0 / 6.0, 0.875);
        close(areas(&other, 2), 5.0 / 6.0, 0.875);
        let flat = ranking(&[(0.0, true), (0.0, false), (0.0, false), (0.0, false)]);
        close(areas(&flat, 5), 0.25, 0.5);
    }

    // Would catch a NaN or a silent perfect score where nothing was found.
    #[test]
    fn areas_of_one_class() {
        close(areas(&ranking(&[(2.0, false), (1.0, false)]), 5), 0.0, 0.0);
        close(areas(&ranking(&[(2.0, true), (1.0, true)]), 5), 1.0, 1.0);
        assert_eq!(areas(&[], 5), None);
        assert_eq!(areas(&ranking(&[(1.0, true)]), 0), None);
        close(areas(&ranking(&[(1.0, true)]), usize::MAX), 1.0, 1.0);
    }

    // Would catch a division by k where fewer are ranked.
    #[test]
    fn precision_at_several_cuts() {
        let mixed = ranking(&[(4.0, true), (3.0, false), (2.0, true)]);
        assert_eq!(precision_at(&mixed, 1), Some(1.0));
        assert_eq!(precision_at(&mixed, 2), Some(0.5));
        assert_eq!(precision_at(&mixed, 20), Some(2.0 / 3.0));
        assert_eq!(precision_at(&mixed, 0), None);
        assert_eq!(precision_at(&[], 5), None);
    }

    // Would catch a mean that counts missing values as zero.
    #[test]
    fn mean_skips_missing() {
        assert_eq!(mean([Some(1.0), None, Some(0.5)]), Some(0.75));
        assert_eq!(mean([None]), None);
    }
}
