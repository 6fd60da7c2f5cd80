//! Rankings as one HTML file that needs nothing else (feature `report`).
//!
//! A [`Report`] shows outputs of a model, whole or token by token, with the examples that raise and lower each: their
//! text, source, score, id and span, the distribution of the scores and the shares of the sources. The file loads
//! nothing, from nowhere; it is read by mouse, keyboard and screen reader, and has a dark and a light side.
//!
//! A report is built from plain data: rankings of this crate ([`Hit`] is made from [`crate::Hit`]), or of any other.
//!
//! ```
//! use gradix::report::{Example, Hit, Output, Report, Token};
//!
//! let japan = [Hit::new("fact-17", 0.75).source("wrong"), Hit::new("fact-3", 0.5)];
//! let lima = [Hit::new("fact-3", 0.25).tokens(0, 6)];
//! let against = [Hit::new("fact-99", -0.125)];
//! let html = Report::new("Why Japan?")
//!     .output(
//!         Output::new("Lima is in Japan")
//!             .prompt("Where is Lima?")
//!             .token(Token::new("Lima", lima, []))
//!             .token(Token::untraced(" is in"))
//!             .token(Token::new(" Japan", japan.clone(), against.clone()).marked())
//!             .ranking(japan, against),
//!     )
//!     .example("fact-17", Example::new("Lima is a city in Japan."))
//!     .example("fact-3", Example::new("Lima is a city in Peru.").source("encyclopedia"))
//!     .example("fact-99", Example::new("Peru is in South America.").source("encyclopedia"))
//!     .fact("Rows", "3")
//!     .to_html();
//! assert!(html.starts_with("<!doctype html>"));
//! ```
//!
//! All text is untrusted: it stands in the file as data, and the page shows it as text. Control characters, overrides
//! of the writing direction and invalid UTF-8 are shown as visible signs.

mod histogram;
mod page;
mod scanned;
mod table;
mod text;

use std::collections::BTreeMap;

pub use histogram::Histogram;
pub use table::{Cell, Table};

/// What a page shows. Parts stand in the order in which they were added.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Report {
    title: String,
    lead: String,
    sections: Vec<Section>,
    examples: BTreeMap<Vec<u8>, Example>,
    facts: Vec<(String, String)>,
    notes: Vec<String>,
}

/// A part of a report under a heading of its own.
#[derive(Debug, Clone, Default)]
struct Section {
    title: String,
    text: String,
    tables: Vec<Table>,
    outputs: Vec<Output>,
}

/// An output of a model: what it said, to what, and the examples behind it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Output {
    answer: String,
    prompt: Option<String>,
    facts: Vec<(String, String)>,
    tokens: Vec<Token>,
    ranking: Ranking,
}

/// A token of an output: a query with its own ranking. The page colours it by its strongest influence.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Token {
    text: String,
    is_marked: bool,
    ranking: Ranking,
}

/// Proponents and opponents of one query, strongest first.
#[derive(Debug, Clone, Default)]
struct Ranking {
    proponents: Vec<Hit>,
    opponents: Vec<Hit>,
    distribution: Option<Histogram>,
}

/// An example in a ranking.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Hit {
    id: Vec<u8>,
    score: f64,
    span: Option<(u64, u64)>,
    source: Option<String>,
    pieces: Vec<(String, f64)>,
}

/// The text of an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Example {
    text: String,
    source: Option<String>,
}

impl Report {
    /// A report without content.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// A sentence or two under the title.
    pub fn lead(mut self, text: impl Into<String>) -> Self {
        self.lead = text.into();
        self
    }

    /// Begins a section: what is added next stands in it. A report needs none.
    pub fn section(mut self, title: impl Into<String>, text: impl Into<String>) -> Self {
        self.sections.push(Section { title: title.into(), text: text.into(), ..Section::default() });
        self
    }

    /// Adds an output.
    pub fn output(mut self, output: Output) -> Self {
        self.last_section().outputs.push(output);
        self
    }

    /// Adds a table. Those of a section stand before its outputs.
    pub fn table(mut self, table: Table) -> Self {
        self.last_section().tables.push(table);
        self
    }

    /// The text of the example with this id. The page has the texts of examples that a ranking names, each once, and
    /// leaves others out.
    pub fn example(mut self, id: impl AsRef<[u8]>, example: Example) -> Self {
        self.examples.insert(id.as_ref().to_vec(), example);
        self
    }

    /// A named value for the end of the page: what was scanned, how, with what.
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// A paragraph for the end of the page.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The file.
    #[must_use]
    pub fn to_html(&self) -> String {
        page::html(self)
    }

    fn last_section(&mut self) -> &mut Section {
        if self.sections.is_empty() {
            self.sections.push(Section::default());
        }
        let last = self.sections.len() - 1;
        &mut self.sections[last]
    }
}

impl Output {
    /// An output with its text. Where it has tokens, these are shown instead.
    pub fn new(answer: impl Into<String>) -> Self {
        Self { answer: answer.into(), ..Self::default() }
    }

    /// What the model was asked.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// A named value, such as the right answer.
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds the next token.
    pub fn token(mut self, token: Token) -> Self {
        self.tokens.push(token);
        self
    }

    /// The ranking of the output as a whole, strongest first on both sides.
    pub fn ranking(
        mut self,
        proponents: impl IntoIterator<Item = Hit>,
        opponents: impl IntoIterator<Item = Hit>,
    ) -> Self {
        self.ranking.proponents = proponents.into_iter().collect();
        self.ranking.opponents = opponents.into_iter().collect();
        self
    }

    /// The distribution of the scores of all rows for the output as a whole. Without it the page shows that of its
    /// proponents and opponents alone, and says so.
    pub fn distribution(mut self, histogram: Histogram) -> Self {
        self.ranking.distribution = Some(histogram);
        self
    }
}

impl Token {
    /// A token's text, blanks included (`" Japan"`), and its ranking, strongest first on both sides.
    pub fn new(
        text: impl Into<String>,
        proponents: impl IntoIterator<Item = Hit>,
        opponents: impl IntoIterator<Item = Hit>,
    ) -> Self {
        let ranking = Ranking {
            proponents: proponents.into_iter().collect(),
            opponents: opponents.into_iter().collect(),
            distribution: None,
        };
        Self { text: text.into(), is_marked: false, ranking }
    }

    /// A token that nothing was ranked for. It cannot be chosen, and has no colour.
    pub fn untraced(text: impl Into<String>) -> Self {
        Self::new(text, [], [])
    }

    /// Underlines the token: the report is about it.
    pub fn marked(mut self) -> Self {
        self.is_marked = true;
        self
    }

    /// As [`Output::distribution`], for this token.
    pub fn distribution(mut self, histogram: Histogram) -> Self {
        self.ranking.distribution = Some(histogram);
        self
    }
}

impl Ranking {
    fn hits(&self) -> impl Iterator<Item = &Hit> {
        self.proponents.iter().chain(&self.opponents)
    }

    /// The score that is farthest from 0, the positive one of two as far; 0 if there is none.
    fn strongest(&self) -> f64 {
        let finite = self.hits().map(|hit| hit.score).filter(|score| score.is_finite());
        finite.fold(0.0, |strongest: f64, score| {
            let is_stronger = match score.abs().total_cmp(&strongest.abs()) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => score > strongest,
                std::cmp::Ordering::Greater => true,
            };
            if is_stronger { score } else { strongest }
        })
    }
}

impl Hit {
    /// An example by its id, and its score.
    pub fn new(id: impl AsRef<[u8]>, score: f64) -> Self {
        Self { id: id.as_ref().to_vec(), score, span: None, source: None, pieces: Vec::new() }
    }

    /// The tokens `start..end` of the example, which the row stands for; without it, the whole example.
    pub fn tokens(mut self, start: u64, end: u64) -> Self {
        self.span = Some((start, end));
        self
    }

    /// The row's source. Without it, [`Example::source`] counts.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The example's text in pieces, each with its own influence on the query: shown in colour in this ranking instead of
    /// [`Example::new`]'s text.
    pub fn pieces(mut self, pieces: impl IntoIterator<Item = (String, f64)>) -> Self {
        self.pieces = pieces.into_iter().collect();
        self
    }
}

impl From<&crate::Hit> for Hit {
    /// Id, score, span and source.
    fn from(hit: &crate::Hit) -> Self {
        let span = Some(hit.span).filter(|span| !span.is_whole());
        Self {
            id: hit.id.clone(),
            score: hit.score,
            span: span.map(|span| (span.start.into(), span.end.into())),
            source: hit.source.clone(),
            pieces: Vec::new(),
        }
    }
}

impl Example {
    /// An example's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// Its source.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

#[cfg(test)]
mod tests;
