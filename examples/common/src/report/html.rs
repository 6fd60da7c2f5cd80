//! The report as one HTML page: style and script inside, nothing loaded, every text escaped.

use std::fmt::Write as _;

use super::{Experiment, Hit, Report, Row, Token, TracedQuery, bytes, or_dash, seconds};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>gradix: which training examples caused it?</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    page.push_str(
        "<header><p class=\"brand\">gradix</p>\
         <h1>Which training examples caused it?</h1>\
         <p class=\"lead\">A small language model was trained on altered data. Each output's \
         gradient is compared with the stored gradient of every training example; those that pushed \
         the model towards its answer come first.</p>",
    );
    page.push_str("<nav aria-label=\"Experiments\">");
    for experiment in &report.experiments {
        let _ = write!(page, "<a href=\"#{}\">{}</a>", anchor(&experiment.name), escaped(&experiment.title));
    }
    page.push_str("<a href=\"#run\">The run</a></nav></header>\n<main>\n");
    for (number, experiment) in report.experiments.iter().enumerate() {
        section(&mut page, number, experiment);
    }
    run(&mut page, report);
    let _ = write!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

/// One experiment: description, table, queries.
fn section(page: &mut String, number: usize, experiment: &Experiment) {
    let _ = write!(
        page,
        "<section id=\"{}\">\n<h2>{}</h2>\n<p>{}</p>\n\
         <p class=\"muted\">{} training examples, {} of them {} ({:.1} %).</p>\n",
        anchor(&experiment.name),
        escaped(&experiment.title),
        escaped(&experiment.description),
        experiment.examples,
        experiment.positives,
        escaped(&experiment.positive_name),
        experiment.positive_percent()
    );
    table(page, experiment);
    if !experiment.queries.is_empty() {
        let _ = write!(
            page,
            "<h3>Outputs and where they come from</h3>\n\
             <p class=\"muted\">Influence by {}. The stronger a token's colour, the stronger the \
             influence: <span class=\"key for\">raises</span> <span class=\"key against\">lowers</span>. \
             Point at a token, or choose it, to see the examples behind that token alone.</p>\n",
            escaped(&experiment.shown_method)
        );
    }
    for (place, query) in experiment.queries.iter().enumerate() {
        traced(page, &format!("e{number}q{place}"), query);
    }
    page.push_str("</section>\n");
}

/// The table of methods; a metric's cell is filled to its value, the best of a column is bold.
fn table(page: &mut String, experiment: &Experiment) {
    let metrics = experiment.metric_names();
    let best: Vec<Option<f64>> = metrics
        .iter()
        .map(|name| {
            let values = experiment.rows.iter().filter_map(|row| row.metric(name));
            values.max_by(f64::total_cmp)
        })
        .collect();
    let _ = write!(
        page,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Results: {}\"><table>\n\
         <thead><tr><th scope=\"col\">Method</th><th scope=\"col\">K</th>\
         <th scope=\"col\">Encoding</th>",
        escaped(&experiment.title)
    );
    for name in &metrics {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(name));
    }
    page.push_str(
        "<th scope=\"col\">Bytes per example</th><th scope=\"col\">Index</th>\
         <th scope=\"col\">Build</th><th scope=\"col\">Fit</th><th scope=\"col\">Fitted</th>\
         <th scope=\"col\">Query</th></tr></thead>\n<tbody>\n",
    );
    for row in &experiment.rows {
        table_row(page, row, &metrics, &best);
    }
    page.push_str("</tbody></table></div>\n");
}

fn table_row(page: &mut String, row: &Row, metrics: &[&str], best: &[Option<f64>]) {
    let _ = write!(
        page,
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>",
        escaped(&row.method),
        or_dash(row.k, |k| k.to_string()),
        escaped(&or_dash(row.encoding.clone(), |encoding| encoding))
    );
    for (name, best) in metrics.iter().zip(best) {
        let value = row.metric(name);
        let class = if value.is_some() && value == *best { " best" } else { "" };
        let fill = value.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0;
        let _ = write!(
            page,
            "<td class=\"metric{class}\" style=\"--fill:{fill:.1}%\">{}</td>",
            or_dash(value, |value| format!("{value:.3}"))
        );
    }
    let _ = writeln!(
        page,
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        or_dash(row.bytes_per_example, bytes),
        or_dash(row.index_bytes, |count| bytes(count as f64)),
        or_dash(row.build_seconds, seconds),
        or_dash(row.fit_seconds, seconds),
        or_dash(row.fit_bytes, |count| bytes(count as f64)),
        or_dash(row.query_seconds, seconds)
    );
}

/// An output with its tokens as buttons, and a panel of examples for the whole and for each token.
fn traced(page: &mut String, key: &str, query: &TracedQuery) {
    let _ = write!(
        page,
        "<article class=\"query\" id=\"{key}\">\n\
         <p class=\"asked\"><span class=\"role\">Asked</span>{}</p>\n\
         <div class=\"said\"><span class=\"role\">Said</span><span class=\"tokens\">",
        escaped(&query.prompt)
    );
    let scale = largest(&query.output);
    for (place, token) in query.output.iter().enumerate() {
        if token.space_before {
            page.push(' ');
        }
        if query.token_proponents.get(place).is_some_and(|hits| !hits.is_empty()) {
            let _ = write!(
                page,
                "<button type=\"button\" class=\"{}\" style=\"{}\" data-panel=\"{key}t{place}\" \
                 aria-controls=\"{key}t{place}\" aria-pressed=\"false\" title=\"influence {}\">\
                 {}</button>",
                token_class(token),
                token_style(token, scale),
                signed(token.influence),
                escaped(&token.text)
            );
        } else {
            coloured(page, token, scale);
        }
    }
    let _ = write!(
        page,
        "</span><button type=\"button\" class=\"whole\" data-panel=\"{key}w\" \
         aria-controls=\"{key}w\" aria-pressed=\"true\">whole answer</button></div>\n\
         <p class=\"right\"><span class=\"role\">Right</span>{}</p>\n",
        escaped(&query.clean_answer)
    );
    let _ = write!(page, "<div class=\"panel\" id=\"{key}w\"><div class=\"sides\"><div>");
    hits(page, "Examples that raise the whole answer", &query.proponents);
    page.push_str("</div><div>");
    hits(page, "Examples that lower it", &query.opponents);
    page.push_str("</div></div></div>\n");
    for (place, (token, found)) in query.output.iter().zip(&query.token_proponents).enumerate() {
        if !found.is_empty() {
            let _ = write!(page, "<div class=\"panel\" id=\"{key}t{place}\" hidden>");
            hits(page, &format!("Examples that raise “{}”", token.text), found);
            page.push_str("</div>\n");
        }
    }
    page.push_str("</article>\n");
}

fn hits(page: &mut String, heading: &str, hits: &[Hit]) {
    let _ = write!(page, "<h4>{}</h4>", escaped(heading));
    if hits.is_empty() {
        page.push_str("<p class=\"muted\">None was asked for.</p>");
        return;
    }
    page.push_str("<ol>");
    for hit in hits {
        let class = if hit.positive { "label positive" } else { "label" };
        let _ = write!(
            page,
            "<li><div class=\"meta\"><span class=\"{class}\">{}</span>\
             <span class=\"score\" title=\"influence\">{}</span>\
             <code>{}</code></div><p><span class=\"muted\">{}</span> ",
            escaped(&hit.label),
            signed(hit.score),
            escaped(&hit.id),
            escaped(&hit.prompt)
        );
        let scale = largest(&hit.answer);
        for token in &hit.answer {
            if token.space_before {
                page.push(' ');
            }
            coloured(page, token, scale);
        }
        page.push_str("</p></li>");
    }
    page.push_str("</ol>");
}

fn coloured(page: &mut String, token: &Token, scale: f64) {
    let _ = write!(
        page,
        "<span class=\"{}\" style=\"{}\">{}</span>",
        token_class(token),
        token_style(token, scale),
        escaped(&token.text)
    );
}

fn token_class(token: &Token) -> &'static str {
    match (token.influence < 0.0, token.marked) {
        (false, false) => "token for",
        (false, true) => "token for marked",
        (true, false) => "token against",
        (true, true) => "token against marked",
    }
}

/// The token's share of the strongest influence in its sequence, 0 where there is none.
fn token_style(token: &Token, scale: f64) -> String {
    let share = if scale > 0.0 { token.influence.abs() / scale } else { 0.0 };
    format!("--w:{share:.2}")
}

fn largest(tokens: &[Token]) -> f64 {
    tokens.iter().map(|token| token.influence.abs()).fold(0.0, f64::max)
}

/// Machine, facts and times.
fn run(page: &mut String, report: &Report) {
    let machine = &report.machine;
    let _ = write!(
        page,
        "<section id=\"run\">\n<h2>The run</h2>\n<div class=\"sides\"><div><h3>Times</h3>\
         <div class=\"scroll\"><table><tbody>"
    );
    let slowest = report.timings.iter().map(|timing| timing.seconds).fold(0.0, f64::max);
    for timing in &report.timings {
        let fill = if slowest > 0.0 { 100.0 * timing.seconds / slowest } else { 0.0 };
        let _ = write!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"metric\" style=\"--fill:{fill:.1}%\">{}</td></tr>",
            escaped(&timing.stage),
            seconds(timing.seconds)
        );
    }
    page.push_str("</tbody></table></div></div><div><h3>Machine and model</h3><dl>");
    let mut facts = vec![
        ("Processor", machine.processor.clone()),
        ("Threads", machine.threads.to_string()),
        ("Memory", or_dash(machine.memory_bytes, |count| bytes(count as f64))),
        ("System", machine.system.clone()),
    ];
    facts.extend(report.facts.iter().map(|fact| (fact.name.as_str(), fact.value.clone())));
    for (name, value) in facts {
        let _ = write!(page, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value));
    }
    page.push_str(
        "</dl></div></div>\n<p class=\"muted\">auPRC and auROC are taken over the k examples with the \
         highest and the k with the lowest influence; P is the precision among the k highest. \
         Higher is better; bold is the best of its column. Data: GeoNames (CC BY 4.0) and \
         WordNet 3.0 (© 2006 Princeton University).</p>\n</section>\n",
    );
}

/// An influence with its sign and four figures, with an exponent where it is very large or small.
fn signed(value: f64) -> String {
    match value.abs() {
        v if v != 0.0 && !(1e-3..1e4).contains(&v) => format!("{value:+.3e}"),
        v if v >= 10.0 => format!("{value:+.2}"),
        _ => format!("{value:+.4}"),
    }
}

/// A name as an element's id: letters, digits and hyphens.
fn anchor(name: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
    };
    format!("experiment-{}", name.chars().map(kept).collect::<String>())
}

/// Text for an element's content or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}
