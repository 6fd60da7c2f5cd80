//! How well a ranking finds what was put into the training set.
//!
//! RapidIn (arXiv:2405.11724) scores a backdoor ranking by the areas under the precision-recall and
//! the ROC curve over the `k` examples with the highest and the `k` with the lowest influence,
//! poisoned ones being positive; and error tracing by the precision among the `k` highest.

pub use gradix::eval::mean;

use gradix::eval;

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
/// whole ranking where it has fewer than `2 k` examples. [`gradix::eval`] says how they are computed.
///
/// Without a positive example both areas are 0: there was something to find and none of it came up
/// (as in the paper, whose figure for random at k = 5 is .2968; skipping such
/// rankings out would give about .5). Without a negative one both are 1.
/// An empty cut (`k` is 0, or nothing is ranked) has none.
///
/// # Panics
/// If a score is NaN, which no scan gives.
pub fn areas(ranking: &[Judged], k: usize) -> Option<Areas> {
    let ends: Vec<Judged> = if ranking.len() <= k.saturating_mul(2) {
        ranking.to_vec()
    } else {
        [&ranking[..k], &ranking[ranking.len() - k..]].concat()
    };
    if ends.is_empty() {
        return None;
    }
    let (scores, positive): (Vec<f64>, Vec<bool>) =
        ends.iter().map(|judged| (judged.score, judged.positive)).unzip();
    let au_roc = eval::roc_auc(&scores, &positive).expect("scores are numbers");
    let au_prc = eval::average_precision(&scores, &positive).expect("scores are numbers");
    let of_one_class = if positive[0] { 1.0 } else { 0.0 };
    Some(match (au_prc, au_roc) {
        (Some(au_prc), Some(au_roc)) => Areas { au_prc, au_roc },
        _ => Areas { au_prc: of_one_class, au_roc: of_one_class },
    })
}

/// The share of positive examples among the first `k` of a ranking (among all, where it has fewer);
/// none for an empty cut. Equal scores keep the order given.
pub fn precision_at(ranking: &[Judged], k: usize) -> Option<f64> {
    eval::precision_at(ranking.iter().map(|judged| judged.positive), k)
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
}
