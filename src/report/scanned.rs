//! What a scan did, for the end of the page.

use super::Report;
use crate::scan::Statistics;

impl Report {
    /// Adds the facts of a scan: its rows, path and guarantee, the curvature, and how long it took.
    pub fn scanned(self, statistics: &Statistics) -> Self {
        let mut rows = grouped(statistics.rows);
        if statistics.rows_filtered > 0 {
            rows += &format!("; {} were not selected", grouped(statistics.rows_filtered));
        }
        let guarantee = match statistics.delta {
            None => "exact".to_owned(),
            Some(delta) => format!("a row is missing with a probability of at most {delta:e}"),
        };
        let curvature = match &statistics.curvature {
            None => "none".to_owned(),
            Some(curvature) => format!(
                "{:?}, κ {}, fitted on {} of {} rows",
                curvature.name,
                curvature.kappa,
                grouped(curvature.covered.rows),
                grouped(curvature.covered.rows + curvature.covered.uncovered)
            ),
        };
        self.fact("Rows", rows)
            .fact("Path", statistics.path.to_string())
            .fact("Ranking", guarantee)
            .fact("Curvature", curvature)
            .fact("Kernel", format!("{}, threads: {}", statistics.kernel, statistics.threads))
            .fact("Time", format!("{:.3} s", statistics.elapsed.as_secs_f64()))
    }
}

/// A count with its digits in groups of three.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
