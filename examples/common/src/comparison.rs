//! The indexes that are compared: the same sketches, each time at another width and in another encoding; and the ways to
//! score their rows.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gradix::burn::collect::{Cause, Collected, Refused, Sink};
use gradix::curvature::CurvatureState;
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{
    Curvature, Encoding, FitOptions, Hit, Index, Metric, Row, Schema, SelfInfluenceOptions, Span, Writer,
};

use crate::Failure;
use crate::data::Item;
use crate::experiment::{Built, Cost, ENDS, Ends, Place, Ranked, Ranking, joined, sorted};
use crate::report::Fact;

/// The wide sketches' numbers, and the narrow ones'.
pub const DIMS: [u32; 2] = [1 << 16, 1 << 12];

/// What rows are scored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// The gradient of the output.
    Output,
    /// That minus the gradient of the right answer: why this, and not that?
    Contrast,
    /// The gradients of the output's tokens, each of length 1; a row has the highest of their scores.
    BestToken,
    /// The gradients of the output's tokens, weighted by how informative they are
    /// ([`informative`](gradix::operators::informative)).
    Informative,
}

/// Sketches of what the model said, all of the widest spec or all of the narrowest.
#[derive(Debug, Default)]
pub struct Queries {
    /// One for each output.
    pub outputs: Vec<Sketch>,
    /// [`Asking::Contrast`] for each output; empty if that is not asked.
    pub contrasts: Vec<Sketch>,
    /// The sketches of each output's tokens, with the narrowest spec; empty if that is not asked.
    pub tokens: Vec<Vec<Sketch>>,
    /// [`Asking::Informative`] for each output, with the narrowest spec; empty if that is not asked.
    pub informative: Vec<Sketch>,
}

/// A way to score rows.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// The method's name in the tables.
    pub name: &'static str,
    /// The queries.
    pub asking: Asking,
    /// The scan's metric.
    pub metric: Metric,
    /// The scan's curvature.
    pub curvature: Option<Curvature>,
    /// Whether its sums are those of [`OBSERVED`] tokens, which the collection has made, rather than of the rows.
    pub observed: bool,
}

/// The curvature to whose sums a collection adds tokens that it does not store.
pub const OBSERVED: &str = "tokens";

impl Scoring {
    /// The inner product of the stored gradients.
    #[must_use]
    pub fn inner() -> Self {
        let (asking, metric) = (Asking::Output, Metric::InnerProduct);
        Self { name: "gradix", asking, metric, curvature: None, observed: false }
    }

    /// Their cosine.
    #[must_use]
    pub fn cosine() -> Self {
        Self { name: "gradix, cosine", metric: Metric::Cosine, ..Self::inner() }
    }

    /// The cosine with the difference to the right answer.
    #[must_use]
    pub fn contrast() -> Self {
        Self { name: "gradix, contrast, cosine", asking: Asking::Contrast, ..Self::cosine() }
    }

    /// The cosine with the output's tokens, weighted by how informative they are.
    #[must_use]
    pub fn informative() -> Self {
        Self { name: "gradix, informative, cosine", asking: Asking::Informative, ..Self::cosine() }
    }

    /// The highest inner product with one of the output's tokens.
    #[must_use]
    pub fn best_token() -> Self {
        Self { name: "gradix, best token", asking: Asking::BestToken, ..Self::inner() }
    }

    /// The inner product with the query that was divided by the curvature.
    #[must_use]
    pub fn curved() -> Self {
        Self { name: "gradix, curvature", curvature: Some(Curvature::default()), ..Self::inner() }
    }

    /// The same with a curvature of observed tokens.
    #[must_use]
    pub fn observed() -> Self {
        let curvature = Some(Curvature::default().name(OBSERVED));
        Self { name: "gradix, curvature of tokens", curvature, observed: true, ..Self::inner() }
    }

    /// The inner product over curvature, divided by the root of the row's self-influence.
    #[must_use]
    pub fn relative() -> Self {
        Self { name: "gradix, l-relative", metric: Metric::Relative, ..Self::curved() }
    }
}

/// One index that is compared.
#[derive(Debug)]
pub struct Method {
    /// Numbers in a sketch.
    pub dims: usize,
    /// How they are stored.
    pub encoding: Encoding,
    /// The index's folder.
    pub path: PathBuf,
    /// How its rows are scored.
    pub scorings: Vec<Scoring>,
}

/// The four indexes, in the folder `out`. The first one is `index.gradix`, which stays.
///
/// All are scored by inner product, all but the largest with their curvature, and the smallest in other ways too.
#[must_use]
pub fn methods(out: &Path) -> Vec<Method> {
    let mut methods = Vec::new();
    for dims in DIMS {
        for encoding in [Encoding::I8, Encoding::F16] {
            let folder = if methods.is_empty() {
                "index.gradix".to_owned()
            } else {
                format!("compared-{dims}-{encoding}.gradix")
            };
            let mut scorings = vec![Scoring::inner()];
            if (dims, encoding) != (DIMS[0], Encoding::F16) {
                scorings.push(Scoring::curved());
            }
            if (dims, encoding) == (DIMS[1], Encoding::I8) {
                scorings.extend([
                    Scoring::relative(),
                    Scoring::cosine(),
                    Scoring::contrast(),
                    Scoring::informative(),
                    Scoring::best_token(),
                ]);
            }
            methods.push(Method { dims: dims as usize, encoding, path: out.join(folder), scorings });
        }
    }
    methods
}

/// The sketch with `dims` numbers that this wider one holds.
fn narrowed(sketch: &Sketch, dims: usize) -> Result<Sketch, Failure> {
    let factor = sketch.spec().dims() / dims;
    Ok(sketch.nested(u32::try_from(factor)?)?)
}

/// A sink that gives every sketch to all indexes, each at its own width. They are begun anew.
pub struct Compared<'a> {
    spec: &'a SketchSpec,
    methods: &'a [Method],
    writers: Vec<Writer>,
    built: Vec<Built>,
}

impl<'a> Compared<'a> {
    /// Creates the indexes, in place of those that are there. `spec` is that of the wide sketches.
    ///
    /// # Errors
    /// Of the engine.
    pub fn create(spec: &'a SketchSpec, methods: &'a [Method]) -> Result<Self, Failure> {
        let mut built = vec![Built::default(); methods.len()];
        let mut writers = Vec::new();
        for (method, built) in methods.iter().zip(&mut built) {
            if method.path.exists() {
                fs::remove_dir_all(&method.path)?;
            }
            let factor = u32::try_from(spec.dims() / method.dims)?;
            let schema = Schema::new(spec.nested(factor)?, method.encoding)?;
            built.row_bytes = schema.row_bytes();
            writers.push(Index::options().create(&method.path, &schema)?.writer()?);
        }
        Ok(Self { spec, methods, writers, built })
    }

    /// Closes the indexes, and says what building each took and made.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn finish(self) -> Result<Vec<Built>, Failure> {
        let Self { methods, mut built, writers, .. } = self;
        drop(writers);
        for (method, built) in methods.iter().zip(&mut built) {
            built.index_bytes = folder_bytes(&method.path)?;
        }
        Ok(built)
    }
}

impl Sink for Compared<'_> {
    fn spec(&self) -> &SketchSpec {
        self.spec
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        for ((method, writer), built) in self.methods.iter().zip(&mut self.writers).zip(&mut self.built) {
            let began = Instant::now();
            for example in examples {
                let narrow: Vec<(Span, Sketch)> = example
                    .rows
                    .iter()
                    .map(|(span, sketch)| Ok((*span, narrowed(sketch, method.dims)?)))
                    .collect::<Result<_, Failure>>()?;
                let mut rows = Vec::with_capacity(narrow.len());
                for (span, sketch) in &narrow {
                    let row = Row::new(sketch).span(*span).metadata(example.metadata);
                    rows.push(match example.source {
                        Some(source) => row.source(source),
                        None => row,
                    });
                }
                writer.append_rows(example.id, &rows)?;
            }
            built.append_seconds += began.elapsed().as_secs_f64();
        }
        Ok(Vec::new())
    }

    fn commit(&mut self, payload: Vec<u8>) -> Result<(), Cause> {
        for (writer, built) in self.writers.iter_mut().zip(&mut self.built) {
            let began = Instant::now();
            writer.prepare_commit()?.payload(payload.clone()).commit()?;
            built.append_seconds += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    fn observe(&mut self, name: &str, id: &[u8], sketches: &[Sketch]) -> Result<(), Cause> {
        for ((method, writer), built) in self.methods.iter().zip(&mut self.writers).zip(&mut self.built) {
            if method.scorings.iter().any(|scoring| scoring.observed) {
                let began = Instant::now();
                let narrow = sketches.iter().map(|sketch| narrowed(sketch, method.dims));
                writer.observe(name, id, &narrow.collect::<Result<Vec<_>, _>>()?)?;
                built.observe_seconds += began.elapsed().as_secs_f64();
            }
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Cause> {
        for writer in &mut self.writers {
            writer.abort()?;
        }
        Ok(())
    }
}

/// What fitting the curvature of an index, as one of its scorings needs it, took and made.
#[derive(Debug, Clone, Copy)]
pub struct Fitted {
    /// Seconds of summing up the rows, and where they are needed of the rows' self-influence.
    pub seconds: f64,
    /// Bytes of the sums, and of the self-influence.
    pub bytes: u64,
}

/// Fits what the scorings of an index need: for each of them, nothing or what that took. `built` is what building the
/// index took.
///
/// # Errors
/// Of the engine.
pub fn fit(method: &Method, built: &Built) -> Result<Vec<Option<Fitted>>, Failure> {
    let index = Index::options().open(&method.path)?;
    let mut writer = index.writer()?;
    let mut sums: Option<Fitted> = None;
    let mut fitted = Vec::new();
    for scoring in &method.scorings {
        let Some(curvature) = &scoring.curvature else {
            fitted.push(None);
            continue;
        };
        if scoring.observed {
            let artifacts = index.snapshot()?.stats()?.artifacts;
            let bytes = artifacts.iter().find(|artifact| artifact.name == OBSERVED).map(|it| it.bytes);
            fitted.push(bytes.map(|bytes| Fitted { seconds: built.observe_seconds, bytes }));
            continue;
        }
        let began = Instant::now();
        let mut fit = match sums {
            Some(sums) => sums,
            None => {
                let bytes = writer.fit_curvature(FitOptions::default())?.bytes;
                *sums.insert(Fitted { seconds: began.elapsed().as_secs_f64(), bytes })
            }
        };
        if scoring.metric == Metric::Relative {
            let began = Instant::now();
            let options = SelfInfluenceOptions::default().curvature(curvature.clone());
            fit.bytes += writer.fit_self_influence(options)?.bytes;
            fit.seconds += began.elapsed().as_secs_f64();
        }
        fitted.push(Some(fit));
    }
    Ok(fitted)
}

/// The rankings of an index for some queries, and what they cost.
#[derive(Debug)]
pub struct Scanned {
    /// The first and the last examples for each query.
    pub ends: Vec<Ends>,
    /// Seconds that opening and scanning the index took.
    pub seconds: f64,
    /// Seconds of factoring the curvature, before that.
    pub factoring: f64,
    /// The curvature, where there is one.
    pub curvature: Option<CurvatureState>,
}

/// The `k` first and `k` last examples for each query, from an index on disk. `places` gives an id's place in the
/// training set.
///
/// # Errors
/// Of the engine, or an id that is not in the training set.
pub fn rank(
    path: &Path,
    scoring: &Scoring,
    queries: &[Sketch],
    k: usize,
    places: &HashMap<&str, usize>,
) -> Result<Scanned, Failure> {
    let start = Instant::now();
    let snapshot = Index::options().open(path)?.snapshot()?;
    // A scan would factor it too; the snapshot keeps the factors.
    let began = Instant::now();
    let state = scoring.curvature.as_ref().map(|curvature| snapshot.curvature(curvature)).transpose()?;
    let factoring = began.elapsed().as_secs_f64();
    let mut scan = snapshot.scan(queries)?.top_k(k).bottom_k(k).metric(scoring.metric);
    if let Some(curvature) = &scoring.curvature {
        scan = scan.curvature(curvature.clone());
    }
    let ranking = scan.run()?;
    let seconds = start.elapsed().as_secs_f64() - factoring;
    let place = |hit: &Hit| -> Result<Place, Failure> {
        let id = std::str::from_utf8(&hit.id)?;
        let place = places.get(id).ok_or_else(|| format!("unknown id {id:?}"))?;
        Ok((*place, hit.score))
    };
    let ends = (0..queries.len())
        .map(|query| {
            Ok(Ends {
                proponents: ranking.proponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
                opponents: ranking.opponents(query).iter().map(place).collect::<Result<_, Failure>>()?,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Scanned { ends, seconds, factoring, curvature: state })
}

/// The highest score of each example for one of the tokens of each output, scaled to length 1, from an index on disk; and
/// the seconds that opening and scanning it took.
fn best_tokens(
    path: &Path,
    tokens: &[Vec<Sketch>],
    items: &[Item],
    places: &HashMap<&str, usize>,
) -> Result<(Vec<Ranking>, f64), Failure> {
    let unit = |sketch: &Sketch| {
        let norm = influence(sketch, sketch).sqrt();
        // A gradient of zero stays as it is.
        sketch.scaled(if norm > 0.0 { (1.0 / norm) as f32 } else { 1.0 })
    };
    let start = Instant::now();
    let snapshot = Index::options().open(path)?.snapshot()?;
    let mut rankings = Vec::new();
    for tokens in tokens {
        let queries: Vec<Sketch> = tokens.iter().map(unit).collect::<Result<_, _>>()?;
        let mut best = vec![f64::NEG_INFINITY; items.len()];
        let mut unknown = None;
        snapshot.scan(&queries)?.scores(|rows| {
            for row in 0..rows.len() {
                let place = rows.id(row).ok().and_then(|id| places.get(std::str::from_utf8(id).ok()?));
                let Some(&place) = place else {
                    unknown = Some(row);
                    return ControlFlow::Break(());
                };
                let scores = (0..queries.len()).map(|query| rows.scores(query)[row]);
                best[place] = scores.fold(best[place], f64::max);
            }
            ControlFlow::Continue(())
        })?;
        if unknown.is_some() {
            return Err("a row is of no training example".into());
        }
        rankings.push(sorted(&best, items));
    }
    Ok((rankings, start.elapsed().as_secs_f64()))
}

/// The rankings of every index and scoring, with what they cost; the ends of the first one's; and what is to be said of
/// curvatures. `sketching` are the seconds of making the sketches, which all share. Scorings whose queries are not there
/// are left out.
///
/// # Errors
/// As [`fit`] and [`rank`].
pub fn rank_all(
    methods: &[Method],
    built: &[Built],
    queries: &Queries,
    sketching: f64,
    items: &[Item],
) -> Result<(Ranked, Vec<Ends>, Vec<Fact>), Failure> {
    let places: HashMap<&str, usize> = items.iter().map(|item| item.id.as_str()).zip(0..).collect();
    let (mut shown, mut ranked, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for (method, built) in methods.iter().zip(built) {
        let narrow = |wide: &[Sketch]| -> Result<Vec<Sketch>, Failure> {
            wide.iter().map(|sketch| narrowed(sketch, method.dims)).collect()
        };
        let (outputs, contrasts) = (narrow(&queries.outputs)?, narrow(&queries.contrasts)?);
        for (scoring, fitted) in method.scorings.iter().zip(fit(method, built)?) {
            let cost = |seconds: f64| {
                let each = seconds / outputs.len().max(1) as f64;
                let cost = Cost::of_index(method.dims, method.encoding.name(), built, sketching, each);
                Cost { method: scoring.name.to_owned(), ..cost }
            };
            let asked = match scoring.asking {
                Asking::Output => &outputs,
                Asking::Contrast => &contrasts,
                Asking::Informative => &queries.informative,
                Asking::BestToken if !queries.tokens.is_empty() => {
                    let (rankings, seconds) = best_tokens(&method.path, &queries.tokens, items, &places)?;
                    ranked.push((cost(seconds), rankings));
                    continue;
                }
                Asking::BestToken => continue,
            };
            if asked.is_empty() {
                continue;
            }
            let scanned = rank(&method.path, scoring, asked, ENDS, &places)?;
            let mut cost = cost(scanned.seconds);
            cost.fit_seconds = fitted.map(|fitted| fitted.seconds + scanned.factoring);
            cost.fit_bytes = fitted.map(|fitted| fitted.bytes);
            ranked.push((cost, scanned.ends.iter().map(joined).collect()));
            if let (Some(state), Some(fitted)) = (&scanned.curvature, fitted) {
                let name = format!("{}, K = {}, {}", scoring.name, method.dims, method.encoding);
                facts.push(Fact::new(&name, described(state, &fitted, scanned.factoring)));
            }
            if shown.is_empty() {
                shown = scanned.ends;
            }
        }
    }
    Ok((ranked, shown, facts))
}

/// A curvature in words.
fn described(state: &CurvatureState, fitted: &Fitted, factoring: f64) -> String {
    let blocks = state.blocks.iter().map(|block| {
        format!("λ {:.3e}, {:.0} effective dims of {} rows", block.lambda, block.effective_dims, block.rows)
    });
    let blocks: Vec<String> = blocks.collect();
    format!("{}; fit {:.1} s, factors {factoring:.1} s", blocks.join("; "), fitted.seconds)
}

/// The inner product of two sketches of one spec.
#[must_use]
pub fn influence(a: &Sketch, b: &Sketch) -> f64 {
    a.values().iter().zip(b.values()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { folder_bytes(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}
