//! The demo's tasks, as `make demo` wrote them to its results.json.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::Line;

/// A method on a task, as the demo reports it. Other fields do not concern us.
#[derive(Deserialize)]
struct Measured {
    experiment: String,
    method: String,
    encoding: Option<String>,
    k: Option<usize>,
    metrics: BTreeMap<String, Option<f64>>,
    queries: usize,
    bytes_per_example: Option<f64>,
    build_seconds: Option<f64>,
    query_seconds: Option<f64>,
}

/// A line for each metric, the metrics of a task one after the other.
pub fn lines(results: &str) -> Result<Vec<Line>, serde_json::Error> {
    let measured: Vec<Measured> = serde_json::from_str(results)?;
    let mut lines = Vec::new();
    for task in measured.chunk_by(|a, b| a.experiment == b.experiment) {
        for metric in task[0].metrics.keys() {
            lines.extend(task.iter().filter(|measured| measured.metrics.contains_key(metric)).map(
                |measured| {
                    let scan = measured.query_seconds.map(|seconds| seconds * measured.queries as f64);
                    Line {
                        task: format!("demo {}", measured.experiment.replace('_', " ")),
                        method: measured.method.clone(),
                        dims: measured.k,
                        encoding: measured.encoding.clone(),
                        metric: metric.clone(),
                        value: measured.metrics[metric],
                        interval: None,
                        bytes_per_example: measured.bytes_per_example,
                        seconds: scan.map(|scan| scan + measured.build_seconds.unwrap_or_default()),
                    }
                },
            ));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch a field of the demo's report that is renamed there, and seconds of one query for those of all.
    #[test]
    fn results_become_lines() {
        let results = r#"[{"experiment": "backdoor", "method": "gradix", "encoding": "i8", "k": 4096,
            "metrics": {"auROC@5": 0.5, "auPRC@5": null}, "queries": 3, "bytes_per_example": 4096.0,
            "index_bytes": 975390, "build_seconds": 2.0, "query_seconds": 0.5}]"#;
        let lines = lines(results).unwrap();
        let line = &lines[1];
        assert_eq!((line.task.as_str(), line.metric.as_str()), ("demo backdoor", "auROC@5"));
        assert_eq!((line.dims, line.value, line.seconds), (Some(4096), Some(0.5), Some(3.5)));
        assert_eq!((lines[0].metric.as_str(), lines[0].value), ("auPRC@5", None));
    }
}
