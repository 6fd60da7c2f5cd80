//! A report as a file: its data as JSON, in a page that shows it.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::text::{escaped, json_in_script, shown, shown_bytes};
use super::{Histogram, Hit, Output, Ranking, Report, Section, Token};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole file.
pub(super) fn html(report: &Report) -> String {
    let data = Names::of(report).data().to_string();
    format!(
        include_str!("page.html"),
        title = escaped(&shown(&report.title)),
        lead = escaped(&shown(&report.lead)),
        // Nothing is loaded, and no other script or style runs than these two.
        style_hash = hash(STYLE),
        script_hash = hash(SCRIPT),
        style = STYLE,
        script = SCRIPT,
        data = json_in_script(&data),
    )
}

fn hash(text: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(text))
}

/// The examples and sources that rankings name, numbered in the order in which they are met.
struct Names<'a> {
    report: &'a Report,
    examples: Vec<&'a [u8]>,
    numbers: HashMap<&'a [u8], usize>,
    sources: Vec<&'a str>,
    source_numbers: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(report: &'a Report) -> Self {
        let mut names = Self {
            report,
            examples: Vec::new(),
            numbers: HashMap::new(),
            sources: Vec::new(),
            source_numbers: HashMap::new(),
        };
        for output in report.sections.iter().flat_map(|section| &section.outputs) {
            let of_tokens = output.tokens.iter().flat_map(|token| token.ranking.hits());
            for hit in output.ranking.hits().chain(of_tokens) {
                names.add(hit);
            }
        }
        names
    }

    fn add(&mut self, hit: &'a Hit) {
        self.numbers.entry(&hit.id).or_insert_with(|| {
            self.examples.push(&hit.id);
            self.examples.len() - 1
        });
        if let Some(source) = self.source(hit) {
            self.source_numbers.entry(source).or_insert_with(|| {
                self.sources.push(source);
                self.sources.len() - 1
            });
        }
    }

    /// The source of a row, or else of its example.
    fn source(&self, hit: &'a Hit) -> Option<&'a str> {
        let of_example = || self.report.examples.get(&hit.id)?.source.as_deref();
        hit.source.as_deref().or_else(of_example)
    }

    fn source_number(&self, hit: &'a Hit) -> Option<usize> {
        self.source_numbers.get(self.source(hit)?).copied()
    }

    fn data(&self) -> Value {
        let sections: Vec<Value> = self.report.sections.iter().map(|section| self.section(section)).collect();
        let example = |id: &&[u8]| {
            let text = self.report.examples.get(*id).map(|example| shown(&example.text));
            json!({"id": shown_bytes(id), "text": text})
        };
        json!({
            "sections": sections,
            "examples": self.examples.iter().map(example).collect::<Vec<_>>(),
            "sources": self.sources.iter().map(|source| shown(source)).collect::<Vec<_>>(),
            "facts": pairs(&self.report.facts),
            "notes": self.report.notes.iter().map(|note| shown(note)).collect::<Vec<_>>(),
        })
    }

    fn section(&self, section: &'a Section) -> Value {
        json!({
            "title": shown(&section.title),
            "text": shown(&section.text),
            "tables": section.tables.iter().map(super::Table::to_json).collect::<Vec<_>>(),
            "outputs": section.outputs.iter().map(|output| self.output(output)).collect::<Vec<_>>(),
        })
    }

    fn output(&self, output: &'a Output) -> Value {
        let scale = output.tokens.iter().map(|token| token.ranking.strongest().abs()).fold(0.0, f64::max);
        json!({
            "prompt": output.prompt.as_deref().map(shown),
            "answer": shown(&output.answer),
            "facts": pairs(&output.facts),
            "scale": scale,
            "tokens": output.tokens.iter().map(|token| self.token(token, scale)).collect::<Vec<_>>(),
            "ranking": self.ranking(&output.ranking),
        })
    }

    fn token(&self, token: &'a Token, scale: f64) -> Value {
        let strongest = token.ranking.strongest();
        json!({
            "text": shown(&token.text),
            "marked": token.is_marked,
            "influence": strongest,
            "level": level(strongest, scale),
            "ranking": self.ranking(&token.ranking),
        })
    }

    /// Null if nothing was ranked.
    fn ranking(&self, ranking: &'a Ranking) -> Value {
        if ranking.hits().next().is_none() {
            return Value::Null;
        }
        // Of a small index, a row may be on both sides.
        let mut seen = HashSet::new();
        let rows: Vec<&Hit> = ranking.hits().filter(|hit| seen.insert((&hit.id, hit.span))).collect();
        let scores = || rows.iter().map(|hit| hit.score).collect::<Vec<f64>>();
        let histogram = ranking.distribution.clone().unwrap_or_else(|| Histogram::of(&scores()));
        let side = |hits: &'a [Hit]| hits.iter().map(|hit| self.hit(hit)).collect::<Vec<_>>();
        json!({
            "proponents": side(&ranking.proponents),
            "opponents": side(&ranking.opponents),
            "strongest": ranking.strongest().abs(),
            "histogram": histogram.to_json(),
            "ofAllRows": ranking.distribution.is_some(),
            "shares": self.shares(&rows),
        })
    }

    fn hit(&self, hit: &'a Hit) -> Value {
        let mut value = json!({"example": self.numbers.get(hit.id.as_slice()), "score": hit.score});
        if let Some(source) = self.source_number(hit) {
            value["source"] = source.into();
        }
        if let Some((start, end)) = hit.span {
            value["span"] = json!([start, end]);
        }
        if !hit.pieces.is_empty() {
            let scale = hit.pieces.iter().map(|piece| piece.1.abs()).filter(|size| size.is_finite());
            let scale = scale.fold(0.0, f64::max);
            let piece = |(text, influence): &(String, f64)| json!({"text": shown(text), "influence": influence, "level": level(*influence, scale)});
            value["pieces"] = hit.pieces.iter().map(piece).collect();
        }
        value
    }

    /// For each source, its share of all positive and of all negative scores, and of how many rows; largest first.
    fn shares(&self, rows: &[&'a Hit]) -> Value {
        let mut sources: BTreeMap<Option<usize>, [(u64, f64); 2]> = BTreeMap::new();
        let mut totals = [0.0; 2];
        for hit in rows.iter().filter(|hit| hit.score.is_finite() && hit.score != 0.0) {
            let side = usize::from(hit.score < 0.0);
            let sums = sources.entry(self.source_number(hit)).or_default();
            sums[side].0 += 1;
            sums[side].1 += hit.score.abs();
            totals[side] += hit.score.abs();
        }
        let mut sources: Vec<_> = sources.into_iter().collect();
        let size = |sums: &[(u64, f64); 2]| sums[0].1 + sums[1].1;
        sources.sort_by(|a, b| size(&b.1).total_cmp(&size(&a.1)));
        let share = |side: usize, sums: &[(u64, f64); 2]| json!({"rows": sums[side].0, "share": if totals[side] > 0.0 { sums[side].1 / totals[side] } else { 0.0 }});
        let row = |(source, sums): &(Option<usize>, _)| json!({"source": source, "raises": share(0, sums), "lowers": share(1, sums)});
        sources.iter().map(row).collect()
    }
}

/// An influence as a share of the strongest, from -1 to 1: how deep its colour is. 0 where there is no influence, or it is
/// not finite.
fn level(influence: f64, scale: f64) -> f64 {
    if scale > 0.0 && influence.is_finite() {
        // To three digits, which are more than a colour shows.
        ((influence / scale).clamp(-1.0, 1.0) * 1e3).round() / 1e3
    } else {
        0.0
    }
}

fn pairs(pairs: &[(String, String)]) -> Vec<[String; 2]> {
    pairs.iter().map(|(name, value)| [shown(name), shown(value)]).collect()
}
