//! Some outputs traced in full: the examples behind each, and the tokens on both sides.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use gradix::sketch::Sketch;

use crate::Failure;
use crate::comparison::{Scoring, influence, rank};
use crate::data::{Item, Kind, Query};
use crate::experiment::{Ends, Place, Task};
use crate::report::{Hit, Token, TracedQuery};

/// How many examples are shown for one token of an output.
const SHOWN_FOR_TOKEN: usize = 10;

/// A prompt and its answer as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// All token ids.
    pub ids: Vec<u32>,
    /// Positions in `ids` of the response: the answer's tokens, and the one that ends it.
    ///
    /// These are the targets of the loss. With the one-token shift, the logits at position `i - 1` predict the token at
    /// position `i`, so `response.start` is at least 1.
    pub response: Range<usize>,
}

/// A gradient to sketch: of a whole response, or of the loss of one of its tokens, by its position in `ids`.
pub type Gradient<'a> = (&'a Encoded, Option<usize>);

/// An output that is traced.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// What is asked about it.
    pub task: Task,
    /// What the model was asked.
    pub query: &'a Query,
    /// That and what it said.
    pub sequence: &'a Encoded,
    /// Positions among the response's tokens of what the task is about.
    pub marked: &'a [usize],
}

/// What tracing needs to know of the run.
pub struct Tracer<'a, S, T> {
    /// The training set.
    pub items: &'a [Item],
    /// Its sequences.
    pub encoded: &'a [Encoded],
    /// Places in the training set by id.
    pub places: &'a HashMap<&'a str, usize>,
    /// The folder of the index that ranks the tokens.
    pub index: &'a Path,
    /// For how many proponents of a whole output the influence of each of their tokens is computed.
    pub shown: usize,
    /// Sketches of gradients, in their order, of the index's spec.
    pub sketches: S,
    /// The tokens of a response as they are shown, without influences.
    pub tokens: T,
}

impl<S, T> Tracer<'_, S, T>
where
    S: Fn(&[Gradient<'_>]) -> Result<Vec<Sketch>, Failure>,
    T: Fn(&[u32]) -> Result<Vec<Token>, Failure>,
{
    /// Traces one output whose whole sketch and ranking are known. Influences are inner products.
    ///
    /// # Errors
    /// Of the sketches, the tokens or the engine.
    pub fn trace(&self, output: Output<'_>, whole: &Sketch, ends: &Ends) -> Result<TracedQuery, Failure> {
        let tokens = self.token_sketches(output.sequence)?;
        let by_token = rank(self.index, &Scoring::inner(), &tokens, SHOWN_FOR_TOKEN, self.places)?.ends;
        let strongest = |ends: &Ends| {
            let either = ends.proponents.first().into_iter().chain(ends.opponents.first());
            either.map(|place| place.1).max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0)
        };
        let influences: Vec<f64> = by_token.iter().map(strongest).collect();
        let mut proponents = Vec::new();
        for (at, &place) in ends.proponents.iter().enumerate() {
            let tokens =
                if at < self.shown { self.token_sketches(&self.encoded[place.0])? } else { Vec::new() };
            let influences: Vec<f64> = tokens.iter().map(|token| influence(token, whole)).collect();
            proponents.push(self.hit(output, place, &influences)?);
        }
        let silent = |places: &[Place]| {
            places.iter().map(|&place| self.hit(output, place, &[])).collect::<Result<Vec<_>, Failure>>()
        };
        Ok(TracedQuery {
            prompt: output.query.prompt.clone(),
            clean_answer: output.query.clean_answer.clone(),
            output: self.shown_tokens(output.sequence, &influences, output.marked)?,
            proponents,
            opponents: silent(&ends.opponents)?,
            token_proponents: by_token
                .iter()
                .map(|ends| silent(&ends.proponents))
                .collect::<Result<_, _>>()?,
            token_opponents: by_token.iter().map(|ends| silent(&ends.opponents)).collect::<Result<_, _>>()?,
        })
    }

    /// One sketch for each token of the response.
    fn token_sketches(&self, sequence: &Encoded) -> Result<Vec<Sketch>, Failure> {
        let asked: Vec<Gradient<'_>> = sequence.response.clone().map(|at| (sequence, Some(at))).collect();
        (self.sketches)(&asked)
    }

    fn hit(&self, output: Output<'_>, (place, score): Place, influences: &[f64]) -> Result<Hit, Failure> {
        let item = &self.items[place];
        let label = match item.kind {
            Kind::Clean => "clean".to_owned(),
            Kind::Poisoned => "poisoned".to_owned(),
            Kind::Corrupted(swap) => format!("{} → {}", swap.from, swap.to),
        };
        let positive = output.task.is_positive(output.query.swap, item.kind);
        let answer = self.shown_tokens(&self.encoded[place], influences, &[])?;
        Ok(Hit { id: item.id.clone(), score, prompt: item.prompt.clone(), answer, positive, label })
    }

    /// The response as it is shown; without influences they are 0.
    fn shown_tokens(
        &self,
        sequence: &Encoded,
        influences: &[f64],
        marked: &[usize],
    ) -> Result<Vec<Token>, Failure> {
        let mut tokens = (self.tokens)(&sequence.ids[sequence.response.clone()])?;
        for (at, token) in tokens.iter_mut().enumerate() {
            token.influence = influences.get(at).copied().unwrap_or(0.0);
            token.marked = marked.contains(&at);
        }
        Ok(tokens)
    }
}
