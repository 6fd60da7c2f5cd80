//! The demo's use of the engine: gradients to sketches, sketches to indexes on disk.

use std::fs;
use std::ops::Range;
use std::path::Path;

use burn::Tensor;
use burn::module::Module;
use experiments::Failure;
use experiments::comparison::{Compared, DIMS, Method, OBSERVED, Queries};
use experiments::data::Item;
use experiments::experiment::Built;
use experiments::trace::Encoded;
use gradix::burn::Taps;
use gradix::burn::collect::{Cause, Collector, Example, OnFailure, Piece, Replica, RowKind, sketch_pieces};
use gradix::operators::{informative, informativeness};
use gradix::sketch::{Sketch, Sketcher};
use gradix::{Encoding, Index, Schema};

use super::Observed;
use super::experiment::Case;
use super::model::{Transformer, is_kept};
use super::tokens::{BOS, SEP, Vocabulary};
use super::tracin::{Span, by_length, losses};
use super::train::distributions;

/// Examples in one backward when gradients are made.
pub const BATCH: usize = 64;
/// Tokens of each answer that are observed, at most.
const TOKENS: usize = 4;

/// A training example or a query, as the collector takes it.
struct Text<'a> {
    item: Option<&'a Item>,
    span: &'a Span,
}

impl Example for Text<'_> {
    fn id(&self) -> &[u8] {
        self.item.map_or(b"query", |item| item.id.as_bytes())
    }

    fn tokens(&self) -> usize {
        self.span.sequence.ids.len()
    }

    fn observable(&self) -> Range<usize> {
        self.span.sequence.response.clone()
    }

    fn source(&self) -> Option<&str> {
        self.item.map(|item| item.source.as_str())
    }

    fn metadata(&self) -> &[u8] {
        self.item.map_or(&[], |item| item.answer.as_bytes())
    }
}

/// The model on its device, without gradients of its own.
struct Frozen(Transformer);

impl Replica<Text<'_>> for Frozen {
    type Model = Transformer;

    fn model(&self) -> &Transformer {
        &self.0
    }

    fn losses(&self, batch: &[Piece<'_, Text<'_>>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        if batch.iter().all(|piece| piece.span.is_whole()) {
            let spans: Vec<&Span> = batch.iter().map(|piece| piece.example.span).collect();
            return Ok(losses(&self.0, &spans, taps)?);
        }
        // Some are single tokens, which are observed.
        let of_piece = |piece: &Piece<'_, Text<'_>>| {
            let sequence = piece.example.span.sequence.clone();
            let tokens = (!piece.span.is_whole()).then(|| piece.targets(0..0));
            Span { sequence, tokens }
        };
        let spans: Vec<Span> = batch.iter().map(of_piece).collect();
        Ok(losses(&self.0, &spans.iter().collect::<Vec<_>>(), taps)?)
    }

    fn select(&self, path: &str) -> bool {
        is_kept(path)
    }
}

/// The sketches of a few spans, in their order.
///
/// # Errors
/// Of the adapter.
pub fn sketches(model: &Transformer, spans: &[Span], sketcher: &Sketcher) -> Result<Vec<Sketch>, Failure> {
    let frozen = Frozen(model.clone().no_grad());
    let texts: Vec<Text<'_>> = spans.iter().map(|span| Text { item: None, span }).collect();
    let mut found: Vec<Option<Sketch>> = vec![None; spans.len()];
    for places in by_length(spans).chunks(BATCH) {
        let pieces: Vec<_> = places.iter().map(|at| Piece::new(&texts[*at], gradix::Span::WHOLE)).collect();
        for (place, sketch) in places.iter().zip(sketch_pieces(sketcher, &frozen, &pieces)?) {
            found[*place] = Some(sketch);
        }
    }
    found.into_iter().map(|sketch| sketch.ok_or_else(|| "a span without a sketch".into())).collect()
}

/// What is asked about the cases.
///
/// # Errors
/// Of the adapter or the engine.
pub fn queries(
    model: &Transformer,
    vocabulary: &Vocabulary,
    cases: &[Case],
    sketcher: &Sketcher,
) -> Result<Queries, Failure> {
    let asked: Vec<Span> = cases.iter().map(|case| case.span.clone()).collect();
    let outputs = sketches(model, &asked, sketcher)?;
    let answer = |case: &Case| Span::whole(vocabulary.encode(&case.query.prompt, &case.query.clean_answer));
    let right = sketches(model, &cases.iter().map(answer).collect::<Vec<_>>(), sketcher)?;
    let contrasts = outputs.iter().zip(&right).map(|(output, right)| output.minus(right));
    let narrow = Sketcher::new(sketcher.spec().nested(DIMS[0] / DIMS[1])?)?;
    let of_tokens = |case: &Case| -> Vec<Span> {
        let sequence = &case.span.sequence;
        let all = || sequence.response.clone().collect();
        let tokens = case.span.tokens.clone().unwrap_or_else(all).into_iter();
        tokens.map(|at| Span { sequence: sequence.clone(), tokens: Some(vec![at]) }).collect()
    };
    let tokens: Vec<Vec<Span>> = cases.iter().map(of_tokens).collect();
    let mut all = sketches(model, &tokens.concat(), &narrow)?.into_iter();
    let tokens: Vec<Vec<Sketch>> =
        tokens.iter().map(|tokens| all.by_ref().take(tokens.len()).collect()).collect();
    let of_case = |(case, tokens): (&Case, &Vec<Sketch>)| -> Result<Sketch, Failure> {
        Ok(informative(tokens, &weights(model, &case.span)?)?)
    };
    let informative = cases.iter().zip(&tokens).map(of_case).collect::<Result<_, _>>()?;
    Ok(Queries { contrasts: contrasts.collect::<Result<_, _>>()?, outputs, tokens, informative })
}

/// How informative the tokens of an output that count are: how far the prompt moves the distribution of each.
fn weights(model: &Transformer, span: &Span) -> Result<Vec<f64>, Failure> {
    let sequence = &span.sequence;
    let ids = [&[BOS, SEP], &sequence.ids[sequence.response.clone()]].concat();
    let without = Encoded { response: 2..ids.len(), ids };
    let (with, without) = (distributions(model, sequence)?, distributions(model, &without)?);
    let counts = |at: usize| span.tokens.as_ref().is_none_or(|tokens| tokens.contains(&at));
    let counted = sequence.response.clone().zip(with.iter().zip(&without)).filter(|(at, _)| counts(*at));
    counted.map(|(_, (with, without))| Ok(informativeness(with, &[without])?)).collect()
}

/// Builds one index for each method from the sketches of `spans`, one for each of `items`. The
/// sketches are made once, at the sketcher's width, and narrowed. Returns the seconds of sketching too;
/// `progress` gets how many examples are done.
///
/// # Errors
/// Of the collector or the engine. An example that fails is an error, too.
pub fn build(
    model: &Transformer,
    spans: &[Span],
    items: &[Item],
    sketcher: &Sketcher,
    methods: &[Method],
    observed: Option<Observed>,
    mut progress: impl FnMut(u64),
) -> Result<(f64, Vec<Built>), Failure> {
    let mut compared = Compared::create(sketcher.spec(), methods)?;
    let texts = items.iter().zip(spans).map(|(item, span)| Text { item: Some(item), span });
    let mut collector =
        Collector::new(sketcher).device(Frozen(model.clone().no_grad())).window_rows(512).batch_rows(BATCH);
    if let Some(observed) = observed {
        let rows = match observed {
            Observed::Losses => RowKind::Losses,
            Observed::Positions => RowKind::Positions,
        };
        collector = collector.rows(rows).observe(OBSERVED, TOKENS);
    }
    let done = collector
        .on_failure(OnFailure::Fatal)
        .progress(|done| progress(done.examples))
        .run(texts, &mut compared)?;
    let sketching = done.elapsed.as_secs_f64() * (1.0 - done.shares.append);
    Ok((sketching, compared.finish()?))
}

/// Keeps the queries' sketches in an index of their own, in their order and at full precision.
///
/// # Errors
/// Of the engine.
pub fn keep_queries(path: &Path, queries: &[Sketch]) -> Result<(), Failure> {
    let Some(first) = queries.first() else { return Ok(()) };
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    let schema = Schema::new(first.spec().clone(), Encoding::F32)?;
    let mut writer = Index::options().create(path, &schema)?.writer()?;
    for (query, sketch) in queries.iter().enumerate() {
        writer.append(format!("query {query:04}"), sketch)?;
    }
    writer.commit()?;
    Ok(())
}
