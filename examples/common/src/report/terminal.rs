//! The report as plain text.

use std::fmt::Write as _;

use super::{Experiment, Hit, Report, Token, TracedQuery, bytes, or_dash, seconds};

/// How many outputs of an experiment, and examples of an output, are shown here; the page has
/// them all.
const SHOWN_QUERIES: usize = 2;
const SHOWN_HITS: usize = 3;

/// Some outputs with their most influential examples, every experiment's table, then the timings.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    for experiment in &report.experiments {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {} training examples, {} {} ({:.1} %)",
            experiment.title,
            experiment.examples,
            experiment.positives,
            experiment.positive_name,
            experiment.positive_percent()
        );
        text.push_str(&aligned(&cells(experiment)));
        text.push('\n');
        for query in experiment.queries.iter().take(SHOWN_QUERIES) {
            trace(&mut text, query, &experiment.shown_method);
        }
    }
    let timings: Vec<String> =
        report.timings.iter().map(|timing| format!("{} {}", timing.stage, seconds(timing.seconds))).collect();
    let _ = writeln!(text, "Times: {}", timings.join(", "));
    let _ = writeln!(
        text,
        "Machine: {}, {} threads, {}",
        report.machine.processor, report.machine.threads, report.machine.system
    );
    text
}

/// An output, the examples that raise the whole of it, and for each token the one that raises it most.
fn trace(text: &mut String, query: &TracedQuery, method: &str) {
    let _ = writeln!(text, "  asked   {}", query.prompt);
    let _ = writeln!(text, "  said    {}", sentence(&query.output));
    let _ = writeln!(text, "  because of ({method})");
    for hit in query.proponents.iter().take(SHOWN_HITS) {
        let _ = writeln!(text, "    {}", example(hit));
    }
    for (token, hits) in query.output.iter().zip(&query.token_proponents) {
        if let Some(hit) = hits.first() {
            let mark = if token.marked { "*" } else { " " };
            let _ = writeln!(text, "   {mark}{:<14} {}", token.text, example(hit));
        }
    }
    text.push('\n');
}

fn example(hit: &Hit) -> String {
    format!("{:>+9.4}  [{}] {} {}", hit.score, hit.label, hit.prompt, sentence(&hit.answer))
}

fn sentence(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        if token.space_before && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&token.text);
    }
    text
}

/// The table of an experiment with its heading, cell by cell.
fn cells(experiment: &Experiment) -> Vec<Vec<String>> {
    let metrics = experiment.metric_names();
    let mut heading = vec!["method".to_owned(), "K".to_owned(), "encoding".to_owned()];
    heading.extend(metrics.iter().map(|&name| name.to_owned()));
    heading.extend(["bytes/example", "index", "build", "fit", "fitted", "query"].map(str::to_owned));
    let rows = experiment.rows.iter().map(|row| {
        let mut cells = vec![
            row.method.clone(),
            or_dash(row.k, |k| k.to_string()),
            or_dash(row.encoding.clone(), |encoding| encoding),
        ];
        cells.extend(metrics.iter().map(|name| or_dash(row.metric(name), |value| format!("{value:.3}"))));
        cells.push(or_dash(row.bytes_per_example, bytes));
        cells.push(or_dash(row.index_bytes, |count| bytes(count as f64)));
        cells.push(or_dash(row.build_seconds, seconds));
        cells.push(or_dash(row.fit_seconds, seconds));
        cells.push(or_dash(row.fit_bytes, |count| bytes(count as f64)));
        cells.push(or_dash(row.query_seconds, seconds));
        cells
    });
    std::iter::once(heading).chain(rows).collect()
}

/// Columns of even width, the first one to the left, the rest to the right; a rule under the heading.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                text.push_str(&format!("  {cell}{space}"));
            } else {
                text.push_str(&format!("  {space}{cell}"));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
        if number == 0 {
            let rule = widths.iter().map(|width| width + 2).sum::<usize>();
            let _ = writeln!(text, "  {}", "─".repeat(rule.saturating_sub(2)));
        }
    }
    text
}
