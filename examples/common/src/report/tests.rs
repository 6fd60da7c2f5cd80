use super::*;

fn token(text: &str, influence: f64) -> Token {
    Token { text: text.to_owned(), space_before: true, influence, marked: influence > 0.5 }
}

fn hit(id: &str) -> Hit {
    Hit {
        id: id.to_owned(),
        score: 0.5,
        prompt: "<b>Where</b> is \"Lima\" & co?".to_owned(),
        answer: vec![token("Lima", 0.25), token("<script>", -0.5)],
        positive: true,
        label: "Peru → Thailand".to_owned(),
    }
}

fn row(method: &str, k: Option<usize>, value: Option<f64>) -> Row {
    Row {
        experiment: "error-tracing".to_owned(),
        method: method.to_owned(),
        encoding: k.map(|_| "i8".to_owned()),
        k,
        metrics: vec![
            Metric { name: "P@5".to_owned(), value },
            Metric { name: "P@20".to_owned(), value: Some(0.25) },
        ],
        queries: 10,
        bytes_per_example: Some(4100.0),
        index_bytes: k.map(|_| 20_000_000),
        build_seconds: Some(12.5),
        fit_seconds: k.map(|_| 1.5),
        fit_bytes: k.map(|_| 67_000_000),
        query_seconds: Some(0.0021),
    }
}

fn sample() -> Report {
    Report {
        machine: Machine {
            processor: "A <fast> one".to_owned(),
            threads: 2,
            memory_bytes: Some(8 << 30),
            system: "linux x86_64".to_owned(),
        },
        facts: vec![Fact { name: "Parameters".to_owned(), value: "500,000".to_owned() }],
        timings: vec![Timing { stage: "Training".to_owned(), seconds: 61.25 }],
        experiments: vec![Experiment {
            name: "error-tracing".to_owned(),
            title: "Error tracing".to_owned(),
            description: "Peru & Thailand".to_owned(),
            examples: 4500,
            positives: 150,
            positive_name: "corrupted".to_owned(),
            shown_method: "gradix".to_owned(),
            rows: vec![row("random", None, None), row("gradix", Some(4096), Some(0.9))],
            queries: vec![TracedQuery {
                prompt: "Where is <i>Lima</i>?".to_owned(),
                clean_answer: "Lima is in Peru.".to_owned(),
                output: vec![token("Lima", 0.0), token("Thailand", 0.75), token("</p>", -0.1)],
                proponents: vec![hit("a'b")],
                opponents: Vec::new(),
                token_proponents: vec![Vec::new(), vec![hit("c")], Vec::new()],
                token_opponents: vec![Vec::new(), vec![hit("d")], Vec::new()],
            }],
        }],
    }
}

// Would catch an experiment, a method, an output or an example that the page leaves out.
#[test]
fn page_has_what_the_report_has() {
    let page = sample().html();
    for part in ["Error tracing", "auPRC and auROC", "61.2 s", "8.0 GiB"] {
        assert!(page.contains(part), "{part}");
    }
    let data =
        page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let section = &data["sections"][0];
    assert_eq!(section["tables"][0]["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(section["tables"][0]["rows"][1][3]["text"], "0.900");
    let output = &section["outputs"][0];
    let words: Vec<&str> = (0..3).filter_map(|at| output["tokens"][at]["text"].as_str()).collect();
    assert_eq!(words, ["Lima", " Thailand", " </p>"]);
    assert!(output["tokens"][0]["ranking"].is_null());
    assert_eq!(output["tokens"][1]["ranking"]["opponents"][0]["score"], 0.5);
    assert_eq!(output["facts"][0], serde_json::json!(["Right", "Lima is in Peru."]));
    let texts: Vec<&str> = (0..3).filter_map(|at| data["examples"][at]["id"].as_str()).collect();
    assert_eq!(texts, ["a'b", "c", "d"]);
    assert_eq!(data["examples"][0]["text"], "<b>Where</b> is \"Lima\" & co?\nLima <script>");
    assert_eq!(data["sources"], serde_json::json!(["Peru → Thailand"]));
}

// Would catch a missing method, a lost metric, or a name that programs do not expect.
#[test]
fn json_has_an_object_for_each_method() {
    let json = sample().results_json().expect("JSON");
    let rows: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    assert_eq!(rows[1]["metrics"]["P@5"], 0.9);
    assert_eq!(rows[0]["metrics"]["P@5"], serde_json::Value::Null);
    assert_eq!(rows[1]["k"], 4096);
    assert_eq!(rows[1]["index_bytes"], 20_000_000);
    assert_eq!(rows[1]["fit_bytes"], 67_000_000);
    assert_eq!(rows[0]["fit_bytes"], serde_json::Value::Null);
}

// Would catch columns that do not line up, or a missing value shown as a number.
#[test]
fn terminal_table_lines_up() {
    let text = sample().terminal();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("4500 training examples, 150 corrupted (3.3 %)"));
    let width = lines[1].chars().count();
    assert!(lines[2..5].iter().all(|line| line.chars().count() == width), "{text}");
    assert!(lines[3].contains('—') && lines[4].contains("0.900"));
}

// Would catch a unit that jumps at the wrong place.
#[test]
fn units_at_their_borders() {
    assert_eq!(bytes(1023.0), "1023 B");
    assert_eq!(bytes(1024.0), "1.0 KiB");
    assert_eq!(bytes(131_072.0), "128 KiB");
    assert_eq!(bytes(1_048_500.0), "1.0 MiB");
    assert_eq!(seconds(0.000_5), "500 µs");
    assert_eq!(seconds(0.25), "250.0 ms");
    assert_eq!(seconds(61.25), "61.2 s");
    assert_eq!(seconds(120.4), "120 s");
}
