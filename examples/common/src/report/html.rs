//! The report as a page of [`gradix::report`].

use gradix::report::{Cell, Example, Output, Report as Page, Table, Token as Traced};

use super::{Experiment, Hit, Report, Row, Token, TracedQuery, bytes, or_dash, seconds};

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let mut page = Page::new("Which training examples caused it?").lead(
        "A small language model was trained on altered data. Each output's gradient is compared with the stored \
         gradient of every training example; those that pushed the model towards its answer come first.",
    );
    for experiment in &report.experiments {
        page = section(page, experiment);
    }
    let slowest = report.timings.iter().map(|timing| timing.seconds).fold(f64::MIN_POSITIVE, f64::max);
    let mut times = Table::new("How long each stage took", ["Stage", "Time"]);
    for timing in &report.timings {
        let time = Cell::bar(seconds(timing.seconds), timing.seconds / slowest);
        times = times.row([Cell::from(&timing.stage), time]);
    }
    let machine = &report.machine;
    page = page
        .section("The run", "")
        .table(times)
        .fact("processor", &machine.processor)
        .fact("threads", machine.threads.to_string())
        .fact("memory", or_dash(machine.memory_bytes, |count| bytes(count as f64)))
        .fact("system", &machine.system);
    for fact in &report.facts {
        page = page.fact(&fact.name, &fact.value);
    }
    page.note(
        "auPRC and auROC are taken over the k examples with the highest and the k with the lowest influence; P is the \
         precision among the k highest. Higher is better; bold is the best of its column.",
    )
    .note("Data: GeoNames (CC BY 4.0) and WordNet 3.0 (© 2006 Princeton University).")
    .to_html()
}

/// One experiment: description, table, queries.
fn section(page: Page, experiment: &Experiment) -> Page {
    let text = format!(
        "{} {} training examples, {} of them {} ({:.1} %). The outputs below show influence by {}.",
        experiment.description,
        experiment.examples,
        experiment.positives,
        experiment.positive_name,
        experiment.positive_percent(),
        experiment.shown_method
    );
    let mut page = page.section(&experiment.title, text).table(table(experiment));
    for query in &experiment.queries {
        page = page.output(output(query));
        let of_tokens = query.token_proponents.iter().chain(&query.token_opponents).flatten();
        for hit in query.proponents.iter().chain(&query.opponents).chain(of_tokens) {
            let text: String = pieces(hit).into_iter().map(|(text, _)| text).collect();
            page = page.example(&hit.id, Example::new(text).source(&hit.label));
        }
    }
    page
}

fn table(experiment: &Experiment) -> Table {
    let metrics = experiment.metric_names();
    let costs = ["Bytes per example", "Index", "Build", "Fit", "Fitted", "Query"];
    let columns = ["Method", "K", "Encoding"].into_iter().chain(metrics.iter().copied()).chain(costs);
    let table = Table::new(format!("How each method ranks: {}", experiment.title), columns);
    experiment.rows.iter().fold(table, |table, row| table.row(cells(row, &metrics)))
}

fn cells(row: &Row, metrics: &[&str]) -> Vec<Cell> {
    let metric = |name: &&str| {
        row.metric(name).map_or_else(|| Cell::from("—"), |value| Cell::bar(format!("{value:.3}"), value))
    };
    let mut cells = vec![
        Cell::from(&row.method),
        or_dash(row.k, |k| k.to_string()).into(),
        or_dash(row.encoding.clone(), |encoding| encoding).into(),
    ];
    cells.extend(metrics.iter().map(metric));
    cells.extend(
        [
            or_dash(row.bytes_per_example, bytes),
            or_dash(row.index_bytes, |count| bytes(count as f64)),
            or_dash(row.build_seconds, seconds),
            or_dash(row.fit_seconds, seconds),
            or_dash(row.fit_bytes, |count| bytes(count as f64)),
            or_dash(row.query_seconds, seconds),
        ]
        .map(Cell::from),
    );
    cells
}

fn output(query: &TracedQuery) -> Output {
    let output = Output::new("")
        .prompt(&query.prompt)
        .fact("Right", &query.clean_answer)
        .ranking(query.proponents.iter().map(hit), query.opponents.iter().map(hit));
    let sides = query.token_proponents.iter().zip(&query.token_opponents);
    query.output.iter().zip(sides).enumerate().fold(output, |output, (at, (token, (up, down)))| {
        let traced = Traced::new(text(token, at == 0), up.iter().map(hit), down.iter().map(hit));
        output.token(if token.marked { traced.marked() } else { traced })
    })
}

fn hit(hit: &Hit) -> gradix::report::Hit {
    let shown = gradix::report::Hit::new(&hit.id, hit.score);
    // Where only the whole was scored, the example's text is shown.
    if hit.answer.iter().all(|token| token.influence == 0.0) { shown } else { shown.pieces(pieces(hit)) }
}

/// Prompt and answer of an example, with the influence of each of the answer's tokens.
fn pieces(hit: &Hit) -> Vec<(String, f64)> {
    let answer = hit.answer.iter().enumerate().map(|(at, token)| (text(token, at == 0), token.influence));
    std::iter::once((format!("{}\n", hit.prompt), 0.0)).chain(answer).collect()
}

fn text(token: &Token, is_first: bool) -> String {
    let blank = if token.space_before && !is_first { " " } else { "" };
    format!("{blank}{}", token.text)
}
