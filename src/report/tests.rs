use serde_json::Value;

use super::*;

/// The data of a page, as its script reads it.
fn data(report: &Report) -> Value {
    let html = report.to_html();
    let start = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let end = start + html[start..].find("</script>").unwrap();
    serde_json::from_str(&html[start..end]).unwrap()
}

fn hits(scores: &[f64]) -> Vec<Hit> {
    scores.iter().enumerate().map(|(at, &score)| Hit::new(format!("example-{at}"), score)).collect()
}

/// The first output's data, for tokens with these proponents and opponents.
fn output(tokens: &[(&[f64], &[f64])]) -> Value {
    let token = |(up, down): &(&[f64], &[f64])| Token::new("word", hits(up), hits(down));
    let output = tokens.iter().map(token).fold(Output::new("words"), Output::token);
    data(&Report::new("").output(output))["sections"][0]["outputs"][0].clone()
}

/// Catches text of the data that ends the element it stands in, and one that the page no longer holds as it was.
#[test]
fn data_stays_within_its_element() {
    let hostile = "</script><!-- <script> & \u{2028}\u{2029} \"'\\ </title>";
    let report = Report::new(hostile)
        .lead(hostile)
        .output(Output::new(hostile).token(Token::new(hostile, [Hit::new(hostile, 1.0).source(hostile)], [])))
        .example(hostile, Example::new(hostile))
        .note(hostile);
    let html = report.to_html();
    assert_eq!(html.matches("</script>").count(), 2);
    assert_eq!(html.matches("</title>").count(), 1);
    assert!(!html.contains("<!--"));
    assert!(!html.contains('\u{2028}'));
    assert_eq!(
        data(&report)["examples"][0]["text"],
        "</script><!-- <script> & [U+2028][U+2029] \"'\\ </title>"
    );
}

/// Catches a policy whose hashes are not those of the page's own script and style, which then do not run.
#[test]
fn policy_names_the_pages_own_script_and_style() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let html = Report::new("").to_html();
    for (policy, open, close) in
        [("script-src", "<script>", "</script>"), ("style-src", "<style>", "</style>")]
    {
        let start = html.find(open).unwrap() + open.len();
        let text = &html[start..start + html[start..].find(close).unwrap()];
        let hash = base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(text));
        assert!(html.contains(&format!("{policy} 'sha256-{hash}'")), "{policy}");
    }
    assert!(html.contains("default-src 'none'"));
}

/// Catches control characters that reach the page, and blanks and letters that do not.
#[test]
fn signs_that_are_not_seen_become_visible() {
    for (given, seen) in [
        ("a\tb\nc", "a\tb\nc"),
        ("line\r\nline\rend", "line\nline␍end"),
        ("\0\u{1b}[0m\u{7f}\u{85}", "␀␛[0m␡[U+0085]"),
        ("\u{202e}exe\u{2066}", "[U+202E]exe[U+2066]"),
        ("👩‍🔬 ليما\u{200f}", "👩‍🔬 ليما\u{200f}"),
    ] {
        assert_eq!(text::shown(given), seen);
    }
    assert_eq!(text::shown_bytes(b"id-\xff\xfe<\xe2\x82"), "id-\\xff\\xfe<\\xe2\\x82");
}

/// Catches two ids that are mixed up because they look alike once their invalid bytes are replaced.
#[test]
fn ids_of_invalid_bytes_stay_apart() {
    let report = Report::new("")
        .output(Output::new("").ranking([Hit::new([0xff], 1.0), Hit::new([0xfe], 0.5)], []))
        .example([0xff], Example::new("first"))
        .example([0xfe], Example::new("second"));
    let examples = &data(&report)["examples"];
    assert_eq!((&examples[0]["id"], &examples[0]["text"]), (&"\\xff".into(), &"first".into()));
    assert_eq!((&examples[1]["id"], &examples[1]["text"]), (&"\\xfe".into(), &"second".into()));
}

/// Catches a colour that is not of the strongest influence, has the wrong sign, or is not a share of the output's
/// strongest.
#[test]
fn tokens_have_the_colour_of_their_strongest_influence() {
    let output = output(&[(&[0.5, 0.25], &[-0.125]), (&[0.5], &[-2.0]), (&[0.1], &[]), (&[], &[-1.0])]);
    assert_eq!(output["scale"], 2.0);
    let levels: Vec<_> = (0..4).map(|at| output["tokens"][at]["level"].as_f64().unwrap()).collect();
    assert_eq!(levels, [0.25, -1.0, 0.05, -0.5]);
    assert_eq!(output["tokens"][1]["influence"], -2.0);
}

/// Catches a division by zero, a colour from nothing, and a tie between both ends that depends on their order.
#[test]
fn colours_of_ties_zeros_and_no_numbers() {
    let level = |up: &[f64], down: &[f64]| output(&[(up, down)])["tokens"][0]["level"].clone();
    assert_eq!(level(&[0.5], &[-0.5]), 1.0);
    assert_eq!(level(&[-0.5], &[0.5]), 1.0);
    assert_eq!(level(&[0.0], &[]), 0.0);
    assert_eq!(level(&[f64::NAN], &[f64::NEG_INFINITY]), 0.0);
    assert_eq!(level(&[f64::INFINITY, 0.5], &[]), 1.0);
    assert_eq!(level(&[f64::MAX], &[-f64::MIN_POSITIVE]), 1.0);
}

/// Catches an output, a token or a report without anything in it that does not make a page.
#[test]
fn nothing_ranked_is_no_ranking() {
    assert!(data(&Report::new(""))["sections"].as_array().unwrap().is_empty());
    let output = output(&[(&[], &[])]);
    assert!(output["ranking"].is_null());
    assert!(output["tokens"][0]["ranking"].is_null());
    assert_eq!(output["scale"], 0.0);
}

/// Catches texts that are repeated for each ranking, or kept though nothing names them.
#[test]
fn text_of_an_example_is_there_once_and_only_if_named() {
    let token = || Token::new("word", [Hit::new("a", 1.0), Hit::new("no text", 0.5)], []);
    let report = Report::new("")
        .output(Output::new("").token(token()).token(token()).ranking([Hit::new("a", 1.0)], []))
        .example("a", Example::new("the text"))
        .example("b", Example::new("of no ranking"));
    let html = report.to_html();
    assert_eq!(html.matches("the text").count(), 1);
    assert!(!html.contains("of no ranking"));
    assert!(data(&report)["examples"][1]["text"].is_null());
}

/// Catches shares that do not sum to one for each sign, count a row twice, or take an example's source where the row has
/// one.
#[test]
fn shares_of_sources_sum_to_one() {
    let report = Report::new("")
        .output(Output::new("").ranking(
            [
                Hit::new("a", 3.0).source("wiki"),
                Hit::new("b", 1.0),
                Hit::new("c", 0.0),
                Hit::new("d", -2.0).tokens(0, 4),
            ],
            // Of a small index, both ends have the same rows.
            [Hit::new("d", -2.0).tokens(0, 4), Hit::new("d", -6.0).tokens(4, 8), Hit::new("b", 1.0)],
        ))
        .example("a", Example::new("").source("not this"))
        .example("d", Example::new("").source("news"));
    let data = data(&report);
    assert_eq!(data["sources"], serde_json::json!(["wiki", "news"]));
    let shares = &data["sections"][0]["outputs"][0]["ranking"]["shares"];
    let expected = serde_json::json!([
        {"source": 1, "raises": {"rows": 0, "share": 0.0}, "lowers": {"rows": 2, "share": 1.0}},
        {"source": 0, "raises": {"rows": 1, "share": 0.75}, "lowers": {"rows": 0, "share": 0.0}},
        {"source": null, "raises": {"rows": 1, "share": 0.25}, "lowers": {"rows": 0, "share": 0.0}},
    ]);
    assert_eq!(*shares, expected);
}

/// Catches a row of this crate's rankings that loses its span, its source or bytes of its id.
#[test]
fn hit_of_a_scan_keeps_what_it_says() {
    let hit = |span| crate::Hit {
        id: vec![0xff, 1],
        score: -0.5,
        span,
        source: Some("wiki".to_owned()),
        metadata: None,
    };
    let part = Hit::from(&hit(crate::Span::tokens(3, 9)));
    assert_eq!(part, Hit::new([0xff, 1], -0.5).tokens(3, 9).source("wiki"));
    let whole = Hit::from(&hit(crate::Span::WHOLE));
    assert_eq!(whole, Hit::new([0xff, 1], -0.5).source("wiki"));
}

/// Catches a page that says of a scan what another did, or leaves out what was asked of it.
#[test]
fn scan_is_named_at_the_end() {
    use crate::sketch::{Sketch, SketchSpec};
    let folder = tempfile::tempdir().unwrap();
    let spec = SketchSpec::dense("mine", "v1", [("all", 2)]);
    let schema = crate::Schema::new(spec.clone(), crate::Encoding::F32).unwrap();
    let index = crate::Index::create(folder.path().join("index"), &schema).unwrap();
    let sketch = Sketch::dense(spec, vec![1.0, 2.0]).unwrap();
    let mut writer = index.writer().unwrap();
    for number in 0..1234 {
        writer.append_rows(number.to_string(), &[crate::Row::new(&sketch).source("wiki")]).unwrap();
    }
    writer.append("other", &sketch).unwrap();
    writer.commit().unwrap();
    let snapshot = index.snapshot().unwrap();
    let queries = [sketch];
    let ranking = snapshot.scan(&queries).unwrap().top_k(1).sources(["wiki"]).run().unwrap();
    let facts = data(&Report::new("").scanned(ranking.statistics()))["facts"].clone();
    let fact = |name: &str| {
        let facts = facts.as_array().unwrap();
        facts.iter().find(|fact| fact[0] == name).unwrap()[1].as_str().unwrap().to_owned()
    };
    assert_eq!(fact("Rows"), "1,234; 1 were not selected");
    assert_eq!(fact("Path"), ranking.statistics().path.to_string());
    assert_eq!((fact("Ranking"), fact("Curvature")), ("exact".to_owned(), "none".to_owned()));
    assert!(fact("Kernel").starts_with(ranking.statistics().kernel));
}

fn counts(histogram: &Histogram) -> Vec<(f64, u64)> {
    let json = histogram.to_json();
    let number = |name: &str| json[name].as_f64().unwrap();
    let counts = json["counts"].as_array().unwrap().iter().enumerate();
    let bin = |(at, count): (usize, &Value)| {
        (number("first") + at as f64 * number("width"), count.as_u64().unwrap())
    };
    counts.map(bin).filter(|bin| bin.1 > 0).collect()
}

/// Catches a bin that holds scores of both signs, and scores at the edges that fall out of all bins.
#[test]
fn histogram_parts_the_signs_and_keeps_the_ends() {
    for (low, high) in
        [(-1.0, 2.0), (-0.3, 0.7), (-1e-9, 1.0), (0.0, 38.0), (-7.0, -0.1), (1e-300, 3e-300), (-8e307, 8e307)]
    {
        let mut histogram = Histogram::between(low, high);
        let json = histogram.to_json();
        let bins = json["counts"].as_array().unwrap().len();
        assert!((2..=40).contains(&bins), "{bins} bins from {low} to {high}");
        let (first, width) = (json["first"].as_f64().unwrap(), json["width"].as_f64().unwrap());
        let zero = -first / width;
        assert!((zero - zero.round()).abs() < 1e-9, "0 within a bin from {low} to {high}");
        for score in [low, high, low / 2.0 + high / 2.0] {
            histogram.add(score);
        }
        assert_eq!(histogram.count(), 3);
        for (edge, _) in counts(&histogram) {
            assert!(edge <= high && edge + width >= low, "{edge}");
        }
    }
    let mut histogram = Histogram::between(2.0, -1.0);
    for score in [-1e-12, 0.0, 1e-12] {
        histogram.add(score);
    }
    let width = 3.0 / 38.0;
    let counted = counts(&histogram);
    assert_eq!(counted.iter().map(|bin| bin.1).collect::<Vec<_>>(), [1, 2]);
    assert!((counted[0].0 + width).abs() < 1e-12 && counted[1].0.abs() < 1e-12, "{counted:?}");
}

/// Catches ties, no scores and no numbers that make bins without a width, or are counted where they are not.
#[test]
fn histogram_of_ties_and_of_nothing() {
    assert_eq!(counts(&Histogram::of(&[0.25; 3])), [(0.25, 3)]);
    assert_eq!(counts(&Histogram::of(&[])), []);
    let odd = Histogram::of(&[f64::NAN, f64::INFINITY, 1.0]);
    assert_eq!(counts(&odd), [(1.0, 1)]);
    assert_eq!(odd.to_json()["leftOut"], 2);
    // Beyond what was said to be the range.
    let mut histogram = Histogram::between(0.0, 1.0);
    for score in [-5.0, 1e300] {
        histogram.add(score);
    }
    let ends = counts(&histogram);
    assert_eq!((ends[0].0, ends.len(), histogram.count()), (0.0, 2, 2));
}

/// Catches bars of a few rows that vanish beside those of very many, and heights above the frame.
#[test]
fn histogram_of_very_many_is_logarithmic() {
    let of = |many: usize| {
        let scores: Vec<f64> = std::iter::repeat_n(0.0, many).chain([1.0]).collect();
        Histogram::of(&scores).to_json()
    };
    assert_eq!((&of(100)["logarithmic"], &of(101)["logarithmic"]), (&false.into(), &true.into()));
    let heights: Vec<f64> = serde_json::from_value(of(100_000)["heights"].clone()).unwrap();
    assert_eq!(heights[0], 1.0);
    assert!((0.05..0.1).contains(heights.last().unwrap()), "{heights:?}");
}

/// Catches a best value that is none, and bars outside of their cells.
#[test]
fn table_marks_the_highest_bar_of_each_column() {
    let table = Table::new("t", ["Method", "P@5", "Size"])
        .row([Cell::from("a"), Cell::bar("0.5", 0.5), "9 KiB".into()])
        .row([Cell::from("b"), Cell::bar("1.5", 1.5), "1 KiB".into()]);
    let json = table.to_json();
    let best =
        |row: usize| (0..3).map(|column| json["rows"][row][column]["best"] == true).collect::<Vec<_>>();
    assert_eq!((best(0), best(1)), (vec![false; 3], vec![false, true, false]));
    assert_eq!(json["rows"][1][1]["fill"], 1.0);
    assert!(json["rows"][0][2]["fill"].is_null());
}
