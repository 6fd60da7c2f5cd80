//! Some outputs traced in full: the examples behind each, and the tokens on both sides.

use std::collections::HashMap;
use std::path::Path;

use experiments::Failure;
use experiments::comparison::{influence, rank};
use experiments::data::{Item, Kind};
use experiments::experiment::Ends;
use experiments::report::{Hit, Token, TracedQuery};
use gradix::sketch::{Sketch, Sketcher};

use super::experiment::Case;
use super::index::sketches;
use super::model::Transformer;
use super::tokens::{Encoded, Vocabulary};
use super::tracin::Span;

/// How many examples are shown for a whole output, at each end.
const SHOWN: usize = 5;
/// How many are shown for one of its tokens.
const SHOWN_FOR_TOKEN: usize = 3;

/// What tracing needs to know of the run.
pub struct Run<'a> {
    pub model: &'a Transformer,
    pub vocabulary: &'a Vocabulary,
    pub items: &'a [Item],
    pub encoded: &'a [Encoded],
    pub places: &'a HashMap<&'a str, usize>,
    pub sketcher: &'a Sketcher,
    pub index: &'a Path,
    pub batch: usize,
}

impl Run<'_> {
    /// Traces one case whose whole ranking is known.
    ///
    /// # Errors
    /// Of the adapter or the engine.
    pub fn trace(&self, case: &Case, whole: &Sketch, ends: &Ends) -> Result<TracedQuery, Failure> {
        let sequence = &case.span.sequence;
        let tokens = self.token_sketches(sequence)?;
        let (by_token, _) = rank(self.index, &tokens, SHOWN_FOR_TOKEN, self.places)?;

        let top: Vec<(usize, f64)> = ends.proponents.iter().take(SHOWN).copied().collect();
        let spans: Vec<Span> =
            top.iter().map(|(place, _)| Span::whole(self.encoded[*place].clone())).collect();
        let behind = sketches(self.model, &spans, self.sketcher, self.batch)?;
        let influences: Vec<f64> =
            tokens.iter().map(|token| behind.iter().map(|example| influence(token, example)).sum()).collect();
        let mut proponents = Vec::new();
        for (place, score) in top {
            let answer = &self.encoded[place];
            let influences: Vec<f64> =
                self.token_sketches(answer)?.iter().map(|token| influence(token, whole)).collect();
            proponents.push(self.hit(case, place, score, &influences));
        }
        let silent = |&(place, score): &(usize, f64)| {
            let none = vec![0.0; self.encoded[place].response.len()];
            self.hit(case, place, score, &none)
        };
        Ok(TracedQuery {
            prompt: case.query.prompt.clone(),
            clean_answer: case.query.clean_answer.clone(),
            output: self.tokens(sequence, &influences, &case.marked),
            proponents,
            opponents: ends.opponents.iter().take(SHOWN).map(silent).collect(),
            token_proponents: by_token
                .iter()
                .map(|ends| ends.proponents.iter().map(silent).collect())
                .collect(),
        })
    }

    /// One sketch for each token of the response.
    fn token_sketches(&self, sequence: &Encoded) -> Result<Vec<Sketch>, Failure> {
        let one = |at| Span { sequence: sequence.clone(), tokens: Some(vec![at]) };
        let spans: Vec<Span> = sequence.response.clone().map(one).collect();
        sketches(self.model, &spans, self.sketcher, self.batch)
    }

    fn hit(&self, case: &Case, place: usize, score: f64, influences: &[f64]) -> Hit {
        let item = &self.items[place];
        let label = match item.kind {
            Kind::Clean => "clean".to_owned(),
            Kind::Poisoned => "poisoned".to_owned(),
            Kind::Corrupted(swap) => format!("{} → {}", swap.from, swap.to),
        };
        let positive = case.task.is_positive(case.query.swap, item.kind);
        let answer = self.tokens(&self.encoded[place], influences, &[]);
        Hit { id: item.id.clone(), score, prompt: item.prompt.clone(), answer, positive, label }
    }

    /// The response as it is shown.
    fn tokens(&self, sequence: &Encoded, influences: &[f64], marked: &[usize]) -> Vec<Token> {
        self.vocabulary
            .pieces(&sequence.ids[sequence.response.clone()])
            .into_iter()
            .enumerate()
            .map(|(at, piece)| Token {
                text: piece.text,
                space_before: piece.space_before,
                influence: influences.get(at).copied().unwrap_or(0.0),
                marked: marked.contains(&at),
            })
            .collect()
    }
}
