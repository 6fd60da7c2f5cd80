//! A plot of the table: bars, one panel for each task and metric.

use std::fmt::Write;

use crate::table::Line;

const WIDTH: usize = 860;
/// Where bars begin.
const START: usize = 330;
/// How long the bar of 1 is.
const UNIT: f64 = 420.0;
/// From a bar to the next.
const STEP: usize = 18;
/// Above the bars of a panel: its title.
const TITLE: usize = 34;

/// An SVG image with a bar for each line that has a value.
pub fn svg(lines: &[Line]) -> String {
    let shown: Vec<&Line> = lines.iter().filter(|line| line.value.is_some()).collect();
    let mut panels = String::new();
    let mut top = 10;
    for panel in shown.chunk_by(|a, b| (&a.task, &a.metric) == (&b.task, &b.metric)) {
        let bottom = top + TITLE + panel.len() * STEP;
        let title = escaped(&format!("{}: {}", panel[0].task, panel[0].metric));
        let _ = writeln!(panels, r#"<text class="title" x="{START}" y="{}">{title}</text>"#, top + 20);
        for tenths in (0..=10).step_by(2) {
            let (x, y) = (at(f64::from(tenths) / 10.0), top + TITLE - 4);
            let _ = writeln!(panels, r#"<line x1="{x:.1}" x2="{x:.1}" y1="{y}" y2="{bottom}"/>"#);
        }
        for (place, line) in panel.iter().enumerate() {
            bar(&mut panels, line, top + TITLE + place * STEP);
        }
        top = bottom + 12;
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">
<style>text {{ font: 12px sans-serif; fill: black }} .title {{ font-weight: bold; font-size: 14px }} line {{ stroke: lightgrey }}
.label {{ text-anchor: end }} .interval {{ stroke: black }}</style>
<rect width="{WIDTH}" height="{top}" fill="white"/>
{panels}</svg>
"#
    )
}

fn bar(panels: &mut String, line: &Line, top: usize) {
    let value = line.value.unwrap_or_default();
    let (left, right) = (at(value.min(0.0)), at(value.max(0.0)));
    let details = [line.dims.map(|dims| dims.to_string()), line.encoding.clone()];
    let details = details.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let name = escaped(&format!("{} {details}", line.method));
    let (middle, color) = (top + STEP / 2, color(&line.method));
    let _ = writeln!(
        panels,
        r#"<text class="label" x="{}" y="{}">{}</text><rect x="{left:.1}" y="{}" width="{:.1}" height="{}" fill="{color}"/>"#,
        START - 6,
        middle + 4,
        name.trim_end(),
        top + 2,
        right - left,
        STEP - 4,
    );
    let mut end = right;
    if let Some([low, high]) = line.interval {
        let (low, high) = (at(low), at(high));
        let _ = writeln!(
            panels,
            r#"<line class="interval" x1="{low:.1}" x2="{high:.1}" y1="{middle}" y2="{middle}"/>"#
        );
        end = end.max(high);
    }
    let _ = writeln!(panels, r#"<text x="{:.1}" y="{}">{value:.3}</text>"#, end + 5.0, middle + 4);
}

/// Where a value lies on the horizontal axis.
fn at(value: f64) -> f64 {
    START as f64 + value * UNIT
}

fn color(method: &str) -> &'static str {
    let has = |word| method.contains(word);
    match method {
        "ceiling" => "#bbb",
        _ if has("gradix") && has("curvature") => "#d9622b",
        _ if has("gradix") => "#3b76af",
        _ if has("exact") => "#7aa87a",
        _ if has("TRAK") => "#9a7ab0",
        _ => "#999",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Would catch a bar below 0 that gets a negative width, which no viewer draws, and a name that breaks the XML.
    #[test]
    fn bars_are_well_formed() {
        let line = |method: &str, value| Line {
            task: "digits".into(),
            metric: "LDS".into(),
            method: method.into(),
            value,
            ..Line::default()
        };
        let svg = svg(&[line("a < b", Some(-0.1)), line("without", None), line("gradix", Some(0.5))]);
        assert!(svg.contains("a &lt; b") && !svg.contains("without"), "{svg}");
        assert!(svg.contains(r#"<rect x="288.0" y="46" width="42.0""#), "{svg}");
        assert!(svg.contains(r#"<rect x="330.0" y="64" width="210.0""#), "{svg}");
    }
}
