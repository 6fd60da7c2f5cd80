//! What was measured, as lines of a table.

use std::fmt::Write;

/// One method's value of one metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    pub task: String,
    pub method: String,
    /// Of the index's rows, over all blocks.
    pub dims: Option<usize>,
    pub encoding: Option<String>,
    pub metric: String,
    /// None if the task gives the method none.
    pub value: Option<f64>,
    /// The ends of the interval over queries at a level of .95.
    pub interval: Option<[f64; 2]>,
    /// What is kept for each training example.
    pub bytes_per_example: Option<f64>,
    /// From gradients to the scores of all queries.
    pub seconds: Option<f64>,
}

/// A number for a CSV file, which has nothing for none.
fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A text for a CSV file: RFC 4180.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

pub fn csv(lines: &[Line]) -> String {
    let mut csv = "task,method,dims,encoding,metric,value,bytes_per_example,seconds\n".to_owned();
    for line in lines {
        let fields = [
            field(&line.task),
            field(&line.method),
            line.dims.map_or_else(String::new, |dims| dims.to_string()),
            field(line.encoding.as_deref().unwrap_or_default()),
            field(&line.metric),
            number(line.value),
            number(line.bytes_per_example),
            number(line.seconds),
        ];
        csv += &fields.join(",");
        csv.push('\n');
    }
    csv
}

/// The table for people.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for group in lines.chunk_by(|a, b| (&a.task, &a.metric) == (&b.task, &b.metric)) {
        let (task, metric) = (&group[0].task, &group[0].metric);
        let head = format!("{task}: {metric}");
        let _ = writeln!(
            text,
            "\n{head:<44}{:>7} {:>5} {:>7}  {:<16}{:>10} {:>9}",
            "dims", "code", "value", "95% over queries", "B/example", "seconds"
        );
        for line in group {
            let dims = line.dims.map_or_else(String::new, |dims| dims.to_string());
            let value = line.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
            let interval =
                line.interval.map_or_else(String::new, |[low, high]| format!("[{low:.3}, {high:.3}]"));
            let bytes = line.bytes_per_example.map_or_else(String::new, |bytes| format!("{bytes:.0}"));
            let seconds = line.seconds.map_or_else(String::new, |seconds| format!("{seconds:.4}"));
            let encoding = line.encoding.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "{:<44}{dims:>7} {encoding:>5} {value:>7}  {interval:<16}{bytes:>10} {seconds:>9}",
                line.method
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch a method whose name has a comma and moves the columns, and a missing number that becomes 0.
    #[test]
    fn csv_quotes_and_leaves_out() {
        let line = Line {
            task: "digits".into(),
            method: "exact TracIn, \"5\"".into(),
            metric: "LDS".into(),
            value: Some(0.5),
            ..Line::default()
        };
        let csv = csv(&[line]);
        assert_eq!(csv.lines().nth(1), Some("digits,\"exact TracIn, \"\"5\"\"\",,,LDS,0.5,,"));
    }
}
