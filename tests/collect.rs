//! The collector against what it promises: rows equal to those of one example at a time, in the input's order, bit
//! for bit the same on any number of devices and after any interruption; failures recorded; nothing left behind.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn::Tensor;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Gradients, Int, TensorData};
use gradix::burn::collect::{
    Cause, Checkpoint, CollectError, Collected, Collector, Example, OnFailure, Piece, Progress, Reason,
    Record, Refused, Replica, RowKind, Sink, sketch_pieces, windows,
};
use gradix::burn::{
    AdamState, BurnError, Parameters, Taps, sketch_examples, sketch_gradients, sketch_positions,
    sketch_steps, target_loss,
};
use gradix::curvature::CurvatureState;
use gradix::sketch::{Sketch, SketchError, SketchSpec, Sketcher};
use gradix::{
    AppendError, Attach, CancelToken, Curvature, Encoding, GcOptions, Index, Part, Schema, Span, Writer,
};

const VOCABULARY: usize = 11;
const WIDTH: usize = 8;

/// A causal language model: position t sees the tokens up to t.
#[derive(Module, Debug)]
struct Small {
    tokens: Embedding,
    mixing: Linear,
    head: Linear,
}

impl Small {
    fn new(seed: u64) -> Self {
        let device = Device::flex().autodiff();
        device.seed(seed);
        let model = Self {
            tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(&device),
            mixing: LinearConfig::new(WIDTH, WIDTH).init(&device),
            head: LinearConfig::new(WIDTH, VOCABULARY).with_bias(false).init(&device),
        };
        // burn makes parameters on first use: freezing a clone before would freeze them all.
        let _ = model.forward(Tensor::zeros([1, 1], &device), &mut Taps::off());
        model
    }

    fn forward(&self, tokens: Tensor<2, Int>, taps: &mut Taps) -> Tensor<3> {
        let x = taps.linear(&self.mixing, self.tokens.forward(tokens)).cumsum(1).tanh();
        taps.linear(&self.head, x)
    }
}

fn linears(path: &str) -> bool {
    !path.starts_with("tokens")
}

/// What goes wrong with an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    NaN,
    /// The gradient, not the loss, is too large.
    Steep,
    Masked,
    Panics,
    Errs,
    /// Never enough memory.
    Huge,
}

#[derive(Debug, Clone)]
struct Text {
    id: String,
    tokens: Vec<i32>,
    prompt: usize,
    spans: Vec<Span>,
    wrong: Wrong,
}

impl Example for Text {
    fn id(&self) -> &[u8] {
        self.id.as_bytes()
    }

    fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.clone()
    }

    fn observable(&self) -> Range<usize> {
        self.prompt..self.tokens.len()
    }

    fn source(&self) -> Option<&str> {
        Some(if self.tokens[0] % 2 == 0 { "even" } else { "odd" })
    }

    fn metadata(&self) -> &[u8] {
        &self.id.as_bytes()[..1]
    }
}

/// `count` examples of 4 to 12 tokens.
fn texts(count: usize) -> Vec<Text> {
    let mut state = 12345u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let text = |number| {
        let length = 4 + random(9) as usize;
        let tokens = (0..length).map(|_| random(VOCABULARY as u64) as i32).collect();
        let prompt = 1 + random(length as u64 - 2) as usize;
        let spans = vec![Span::WHOLE];
        Text { id: format!("text {number:04}"), tokens, prompt, spans, wrong: Wrong::Nothing }
    };
    (0..count).map(text).collect()
}

struct Flex {
    model: Small,
    /// Larger batches get no memory.
    memory: usize,
    /// Batches after which the device is lost.
    life: usize,
    batches: Arc<AtomicUsize>,
    select: fn(&str) -> bool,
}

impl Flex {
    fn new() -> Self {
        Self::of(3)
    }

    fn of(seed: u64) -> Self {
        let model = Small::new(seed).no_grad();
        Self { model, memory: usize::MAX, life: usize::MAX, batches: Arc::default(), select: linears }
    }
}

impl Replica<Text> for Flex {
    type Model = Small;

    fn model(&self) -> &Small {
        &self.model
    }

    fn losses(&self, batch: &[Piece<'_, Text>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        if self.batches.fetch_add(1, Ordering::Relaxed) >= self.life {
            return Err("the device is lost".into());
        }
        if batch.len() > self.memory || batch.iter().any(|it| it.example.wrong == Wrong::Huge) {
            panic!("Out of memory: {} rows", batch.len());
        }
        for piece in batch {
            assert!(piece.example.wrong != Wrong::Panics, "index out of bounds");
            if piece.example.wrong == Wrong::Errs {
                return Err("the tokenizer does not fit".into());
            }
        }
        let device = self.model.devices()[0].clone().autodiff();
        let longest = batch.iter().map(|piece| piece.tokens).max().unwrap();
        let mut ids = Vec::new();
        for piece in batch {
            ids.extend(&piece.example.tokens[..piece.tokens]);
            ids.resize(ids.len().next_multiple_of(longest), 0);
        }
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), longest]), &device);
        let targets: Vec<Vec<usize>> = batch
            .iter()
            .map(|piece| match piece.example.wrong {
                Wrong::Masked => Vec::new(),
                _ => piece.targets(piece.example.prompt..piece.example.tokens.len()),
            })
            .collect();
        let losses = target_loss(self.model.forward(tokens.clone(), taps), tokens, &targets)?;
        let factors = batch.iter().map(|piece| match piece.example.wrong {
            Wrong::NaN => f32::NAN,
            _ => 1.0,
        });
        let steep = batch.iter().map(|piece| if piece.example.wrong == Wrong::Steep { 1e38 } else { 0.0 });
        let of = |numbers: Vec<f32>| Tensor::<1>::from_floats(numbers.as_slice(), &device);
        // Zero where the loss is, but with a slope of infinity.
        let wall = (losses.clone() - losses.clone().detach()) * of(steep.collect()) * 1e38;
        Ok(losses * of(factors.collect()) + wall)
    }

    fn select(&self, path: &str) -> bool {
        (self.select)(path)
    }
}

fn sketcher() -> Sketcher {
    Sketcher::new(SketchSpec::rapid_grad(17, 64)).unwrap()
}

fn create(folder: &Path) -> Index {
    Index::create(folder, &Schema::new(sketcher().spec().clone(), Encoding::F32).unwrap()).unwrap()
}

/// Windows of 16, batches of 4, a commit for each two windows.
fn collector<'c>(devices: usize) -> Collector<'c, Flex> {
    let collector = Collector::new(&sketcher()).window_rows(16).batch_rows(4).commit_rows(32);
    (0..devices).fold(collector, |collector, _| collector.device(Flex::new()))
}

type Stored = (String, Span, Option<String>, Vec<u8>, Vec<u32>);

/// All rows, in their order, with the bits of their values.
fn rows(index: &Index) -> Vec<Stored> {
    let snapshot = index.snapshot().unwrap();
    let rows = snapshot.iter().with_sketches().map(|row| {
        let row = row.unwrap();
        let bits = row.sketch.unwrap().values().iter().map(|value| value.to_bits()).collect();
        (String::from_utf8(row.id).unwrap(), row.span, row.source, row.metadata, bits)
    });
    rows.collect()
}

fn ids(index: &Index) -> Vec<String> {
    rows(index).into_iter().map(|row| row.0).collect()
}

fn records(writer: &Writer) -> Vec<Record> {
    let payloads = (1..=writer.generation()).filter_map(|at| writer.payload(at).unwrap());
    payloads.filter_map(|payload| Record::parse(&payload).unwrap()).collect()
}

fn failures(writer: &Writer) -> BTreeMap<String, Reason> {
    let failures = records(writer).into_iter().flat_map(|record| record.failures);
    failures.map(|failure| (String::from_utf8(failure.id).unwrap(), failure.reason)).collect()
}

/// The rows of an undisturbed run on one device.
fn undisturbed(texts: &[Text]) -> Vec<Stored> {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    collector(1).run(texts.to_vec(), &mut index.writer().unwrap()).unwrap();
    rows(&index)
}

/// The sketch of the mean loss of some tokens, from a backward of its own.
fn alone(model: &Small, text: &Text, targets: Vec<usize>) -> Sketch {
    let device = model.devices()[0].clone().autodiff();
    let data = TensorData::new(text.tokens.clone(), [1, text.tokens.len()]);
    let tokens = Tensor::<2, Int>::from_data(data, &device);
    let logits = model.forward(tokens.clone(), &mut Taps::off());
    let loss = target_loss(logits, tokens, &[targets]).unwrap();
    sketch_gradients(&sketcher(), model, &mut loss.backward(), linears).unwrap()
}

fn assert_close(bits: &[u32], expected: &[f32]) {
    let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm > 0.0, "an empty gradient proves nothing");
    for (bits, expected) in bits.iter().zip(expected) {
        let value = f32::from_bits(*bits);
        assert!((value - expected).abs() < 1e-5 * norm, "{value} is not {expected}");
    }
}

/// Would catch rows that come back to the wrong example, in another order, or without what belongs to them.
#[test]
fn rows_equal_one_example_at_a_time() {
    let texts = texts(50);
    let model = Small::new(3);
    let found = undisturbed(&texts);
    assert_eq!(found.len(), texts.len());
    for (text, (id, span, source, metadata, bits)) in texts.iter().zip(&found) {
        assert_eq!((id, span, source.as_deref()), (&text.id, &Span::WHOLE, text.source()));
        assert_eq!(metadata, b"t");
        assert_close(bits, alone(&model, text, (text.prompt..text.tokens.len()).collect()).values());
    }
}

/// Would catch batches that depend on which device was free, or rows in the order in which they were computed.
#[test]
fn rows_are_bit_equal_on_any_number_of_devices() {
    let texts = texts(70);
    let expected = undisturbed(&texts);
    for (devices, queue) in [(1, 5), (2, 1), (3, 4)] {
        let folder = tempfile::tempdir().unwrap();
        let index = create(&folder.path().join("i"));
        let mut writer = index.writer().unwrap();
        collector(devices).queue(queue).commit_rows(1).run(texts.clone(), &mut writer).unwrap();
        assert!(rows(&index) == expected, "{devices} devices with a queue of {queue}");
    }
}

/// Would catch token rows of the wrong token, a whole that is not their mean, or a copy cut off too early.
#[test]
fn spans_are_the_losses_of_their_tokens() {
    let mut texts = texts(9);
    for text in &mut texts {
        text.spans = windows(text.prompt as u32..text.tokens.len() as u32, 1);
        text.spans.push(Span::WHOLE);
    }
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let done = collector(2).run(texts.clone(), &mut index.writer().unwrap()).unwrap();
    let found = rows(&index);
    let model = Small::new(3);
    let mut row = found.iter();
    let mut tokens = 0;
    for text in &texts {
        let mut mean = vec![0f32; 64];
        let count = text.tokens.len() - text.prompt;
        for target in text.prompt..text.tokens.len() {
            let (id, span, _, _, bits) = row.next().unwrap();
            assert_eq!((id, *span), (&text.id, Span::tokens(target as u32, target as u32 + 1)));
            let expected = alone(&model, text, vec![target]);
            assert_close(bits, expected.values());
            mean.iter_mut().zip(expected.values()).for_each(|(sum, value)| *sum += value / count as f32);
            tokens += target as u64 + 1;
        }
        let (_, span, _, _, bits) = row.next().unwrap();
        assert!(span.is_whole());
        assert_close(bits, &mean);
        tokens += text.tokens.len() as u64;
    }
    assert!(row.next().is_none());
    assert_eq!((done.examples, done.rows, done.tokens), (9, found.len() as u64, tokens));
}

/// Would catch position rows of another example or span, a span that is left out, and a backward for each of them.
#[test]
fn position_rows_come_from_one_backward() {
    let mut texts = texts(10);
    for text in &mut texts {
        text.spans = windows(0..text.tokens.len() as u32, 3);
        text.spans.push(Span::WHOLE);
    }
    texts[4].wrong = Wrong::Steep;
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let flex = Flex::new();
    let batches = Arc::clone(&flex.batches);
    let collector = Collector::new(&sketcher()).rows(RowKind::Positions).batch_rows(5).device(flex);
    let mut writer = index.writer().unwrap();
    let done = collector.run(texts.clone(), &mut writer).unwrap();
    // Two batches, and one of them again without the bad example.
    assert_eq!(batches.load(Ordering::Relaxed), 3);
    assert_eq!(failures(&writer), BTreeMap::from([(texts[4].id.clone(), Reason::Sketch)]));
    let found = rows(&index);
    let model = Small::new(3);
    let mut row = found.iter();
    let good = || texts.iter().filter(|text| text.wrong == Wrong::Nothing);
    for text in good() {
        let whole = alone(&model, text, (text.prompt..text.tokens.len()).collect());
        let mut sum = vec![0f32; 64];
        let device = model.devices()[0].clone().autodiff();
        let data = TensorData::new(text.tokens.clone(), [1, text.tokens.len()]);
        let tokens = Tensor::<2, Int>::from_data(data, &device);
        let mut taps = Taps::on();
        let targets: Vec<usize> = (text.prompt..text.tokens.len()).collect();
        let loss = target_loss(model.forward(tokens.clone(), &mut taps), tokens, &[targets]).unwrap();
        let ranges = [text
            .spans
            .iter()
            .map(|span| match span.is_whole() {
                true => 0..text.tokens.len(),
                false => span.start as usize..span.end as usize,
            })
            .collect()];
        let mut gradients = loss.backward();
        let expected = sketch_positions(&sketcher(), &model, taps, &mut gradients, linears, &ranges).unwrap();
        for (span, expected) in text.spans.iter().zip(&expected[0]) {
            let (id, found, _, _, bits) = row.next().unwrap();
            assert_eq!((id, found), (&text.id, span));
            let values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            if span.is_whole() {
                assert_close(bits, whole.values());
            } else if expected.values().iter().any(|value| *value != 0.0) {
                assert_close(bits, expected.values());
                sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
            }
        }
        assert_close(&sum.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), whole.values());
    }
    assert!(row.next().is_none());
    let tokens: usize = good().map(|text| text.tokens.len()).sum();
    assert_eq!((done.examples, done.rows, done.tokens), (10, found.len() as u64, tokens as u64));
}

/// The state of the curvature `tokens`, and every row's score under it for some queries.
fn curved(index: &Index) -> (CurvatureState, Vec<Vec<f64>>) {
    let model = Small::new(3);
    let queries: Vec<Sketch> =
        texts(4).iter().map(|text| alone(&model, text, vec![text.tokens.len() - 1])).collect();
    let snapshot = index.snapshot().unwrap();
    let curvature = Curvature::default().name("tokens");
    let mut scores = vec![Vec::new(); queries.len()];
    let scan = snapshot.scan(&queries).unwrap().curvature(curvature.clone());
    scan.scores(|rows| {
        scores.iter_mut().enumerate().for_each(|(query, all)| all.extend_from_slice(rows.scores(query)));
        ControlFlow::Continue(())
    })
    .unwrap();
    (snapshot.curvature(&curvature).unwrap(), scores)
}

fn assert_scores_close(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0f64, |largest, score| largest.max(score.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3 * largest, "{found} is not {expected}");
        }
    }
}

/// Would catch sums of other tokens than those of the response, of rows instead, or of a failed or refused example; and
/// for positions a backward for each of them, or an observed position that becomes a row.
#[test]
fn observed_tokens_are_summed_and_not_stored() {
    let mut texts = texts(40);
    texts[7].wrong = Wrong::NaN;
    texts[20].id = texts[3].id.clone();
    let model = Small::new(3);
    for kind in [RowKind::Losses, RowKind::Positions] {
        let folder = tempfile::tempdir().unwrap();
        let index = create(&folder.path().join("i"));
        let mut writer = index.writer().unwrap();
        let flex = Flex::new();
        let batches = Arc::clone(&flex.batches);
        let collector = Collector::new(&sketcher()).rows(kind).batch_rows(8).device(flex);
        let done = collector.observe("tokens", 100).run(texts.clone(), &mut writer).unwrap();
        let refused = [(texts[7].id.clone(), Reason::NotFinite), (texts[3].id.clone(), Reason::Refused)];
        assert_eq!(failures(&writer), BTreeMap::from(refused));
        // The bad example was computed, and not appended.
        assert_eq!((done.rows, ids(&index).len()), (39, 38));
        if kind == RowKind::Positions {
            assert_eq!(batches.load(Ordering::Relaxed), 6, "five batches, and one again");
        }

        let by_hand = create(&folder.path().join("by hand"));
        let mut expected = by_hand.writer().unwrap();
        let mut tokens = 0;
        for (_, text) in texts.iter().enumerate().filter(|(at, _)| *at != 7 && *at != 20) {
            let response: Vec<usize> = text.observable().collect();
            let sketches = match kind {
                RowKind::Positions => {
                    let device = model.devices()[0].clone().autodiff();
                    let data = TensorData::new(text.tokens.clone(), [1, text.tokens.len()]);
                    let ids = Tensor::<2, Int>::from_data(data, &device);
                    let mut taps = Taps::on();
                    let logits = model.forward(ids.clone(), &mut taps);
                    let loss = target_loss(logits, ids, std::slice::from_ref(&response)).unwrap();
                    let ranges = [response.iter().map(|&at| at..at + 1).collect()];
                    let mut gradients = loss.backward();
                    sketch_positions(&sketcher(), &model, taps, &mut gradients, linears, &ranges)
                        .unwrap()
                        .remove(0)
                }
                _ => response.iter().map(|&at| alone(&model, text, vec![at])).collect(),
            };
            tokens += sketches.len() as u64;
            expected.append(&text.id, &alone(&model, text, response)).unwrap();
            expected.observe("tokens", &text.id, &sketches).unwrap();
        }
        expected.commit().unwrap();
        let ((state, scores), (_, expected)) = (curved(&index), curved(&by_hand));
        assert_eq!((state.blocks[0].rows, state.covered.rows, state.covered.uncovered), (tokens, 38, 0));
        assert_scores_close(&scores, &expected);
    }
}

/// Would catch a sample that is another after an interruption, sums that lose or repeat what was observed before it, and a
/// collection that goes on with another sample or name.
#[test]
fn observed_sample_is_the_same_after_an_interruption() {
    let texts = texts(120);
    let folder = tempfile::tempdir().unwrap();
    let observing = || collector(2).observe("tokens", 2);
    let undisturbed = create(&folder.path().join("undisturbed"));
    observing().run(texts.clone(), &mut undisturbed.writer().unwrap()).unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let token = CancelToken::new();
    let watch = |done: &Progress| {
        if done.commits >= 2 {
            token.cancel();
        }
    };
    let outcome = observing().cancel(&token).progress(watch).run(texts.clone(), &mut writer);
    assert!(matches!(outcome, Err(CollectError::Cancelled { .. })), "{outcome:?}");
    for other in [collector(2), collector(2).observe("tokens", 3), collector(2).observe("others", 2)] {
        let error = other.run(texts.clone(), &mut writer).unwrap_err();
        assert!(matches!(error, CollectError::SettingChanged { setting: "observe", .. }), "{error:?}");
    }
    // Another response has other tokens to draw from.
    let mut changed = texts.clone();
    changed[5].prompt = texts[5].tokens.len() - 1;
    let error = observing().run(changed, &mut writer).unwrap_err();
    assert!(matches!(error, CollectError::InputChanged { first: 5, last: 5, .. }), "{error:?}");

    observing().run(texts.clone(), &mut writer).unwrap();
    let ((state, scores), (expected_state, expected)) = (curved(&index), curved(&undisturbed));
    let drawn: usize = texts.iter().map(|text| text.observable().len().min(2)).sum();
    assert_eq!((state.blocks[0].rows, state.covered.rows), (drawn as u64, 120));
    assert_eq!(state.covered, expected_state.covered);
    assert!(rows(&index) == rows(&undisturbed));
    assert_scores_close(&scores, &expected);
}

/// Would catch observations that a sink without sums drops in silence.
#[test]
fn sinks_without_sums_refuse_to_observe() {
    let (mut sink, source) = slow(usize::MAX);
    let error = collector(1).observe("tokens", 1).run(source, &mut sink).unwrap_err();
    let CollectError::Sink { operation: "observe tokens", source } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("\"tokens\""), "{source}");
    assert_eq!((sink.committed, sink.aborted), (0, true));
}

/// Would catch sums of parts that an attach loses, or that are of other tokens than in an index.
#[test]
fn parts_bring_observed_tokens_along() {
    let folder = tempfile::tempdir().unwrap();
    let together = create(&folder.path().join("together"));
    collector(1).observe("tokens", 2).run(texts(40), &mut together.writer().unwrap()).unwrap();
    let index = create(&folder.path().join("i"));
    let built = folder.path().join("built");
    let mut parts = index.detached(&built).unwrap();
    collector(1).observe("tokens", 2).run(texts(40), &mut parts).unwrap();
    drop(parts);
    let mut writer = index.writer().unwrap();
    writer.attach(&built, Attach::Link).unwrap();
    writer.commit().unwrap();
    let ((state, scores), (expected_state, expected)) = (curved(&index), curved(&together));
    assert_eq!(state.blocks[0].rows, expected_state.blocks[0].rows);
    assert_eq!((state.covered.rows, state.covered.uncovered), (40, 0));
    assert_scores_close(&scores, &expected);
}

/// Would catch a query that is not made as the rows are.
#[test]
fn pieces_are_sketched_as_rows_are() {
    let texts = texts(3);
    let pieces: Vec<_> = texts.iter().map(|text| Piece::new(text, Span::WHOLE)).collect();
    let sketches = sketch_pieces(&sketcher(), &Flex::new(), &pieces).unwrap();
    let model = Small::new(3);
    for (text, sketch) in texts.iter().zip(&sketches) {
        let expected = alone(&model, text, (text.prompt..text.tokens.len()).collect());
        let bits: Vec<u32> = sketch.values().iter().map(|value| value.to_bits()).collect();
        assert_close(&bits, expected.values());
    }
}

/// Would catch a bad example that takes its batch with it, is dropped in silence, or is recorded as another's.
#[test]
fn failures_are_recorded_and_skipped() {
    let mut texts = texts(60);
    let wrong = [
        (3, Wrong::NaN, Reason::NotFinite),
        (4, Wrong::Steep, Reason::Sketch),
        (17, Wrong::Masked, Reason::Empty),
        (18, Wrong::Panics, Reason::Panic),
        (19, Wrong::Errs, Reason::Error),
        (40, Wrong::Huge, Reason::OutOfMemory),
    ];
    for (at, wrong, _) in wrong {
        texts[at].wrong = wrong;
    }
    texts[50].tokens = vec![1; 40];
    texts[51].spans = Vec::new();
    texts[52].id = texts[2].id.clone();
    texts[53].spans = vec![Span::WHOLE, Span::tokens(2, 30)];
    let mut expected: BTreeMap<String, Reason> =
        wrong.iter().map(|&(at, _, reason)| (texts[at].id.clone(), reason)).collect();
    expected.insert(texts[50].id.clone(), Reason::TooLong);
    expected.insert(texts[51].id.clone(), Reason::Empty);
    expected.insert(texts[52].id.clone(), Reason::Refused);
    expected.insert(texts[53].id.clone(), Reason::Error);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let done = collector(2).max_tokens(20).run(texts.clone(), &mut writer).unwrap();
    assert_eq!(failures(&writer), expected);
    assert_eq!((done.examples, done.failed), (60, expected.len() as u64));
    let good = (0..60).filter(|at| *at == 2 || !expected.contains_key(&texts[*at].id));
    let good: Vec<String> = good.map(|at| texts[at].id.clone()).collect();
    assert_eq!(ids(&index), good);
    let of = |position| {
        let mut failures = records(&writer).into_iter().flat_map(|record| record.failures);
        failures.find(|failure| failure.position == position).unwrap().to_string()
    };
    assert!(of(3).contains("position 3: not_finite: the loss is NaN"), "{}", of(3));
    assert!(of(18).contains("index out of bounds"), "{}", of(18));
    assert!(of(50).contains("40 tokens; at most 20"), "{}", of(50));
    assert!(of(52).contains("in the index already"), "{}", of(52));
    // The second time nothing is left to do, and nothing is tried again.
    let again = collector(1).max_tokens(20).run(texts, &mut writer).unwrap();
    assert_eq!((again.resumed_at, again.examples, again.commits), (60, 0, 0));
}

/// Would catch a batch too large for the device's memory that is given up, or takes another's place.
#[test]
fn batches_too_large_for_the_device_are_halved() {
    let texts = texts(40);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let small = Flex { memory: 1, ..Flex::new() };
    let collector = Collector::new(&sketcher()).window_rows(16).batch_rows(8).device(small);
    let done = collector.run(texts.clone(), &mut writer).unwrap();
    assert_eq!((done.rows, done.failed), (40, 0));
    for (row, expected) in rows(&index).iter().zip(undisturbed(&texts)) {
        assert_eq!(row.0, expected.0);
        assert_close(&row.4, &expected.4.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>());
    }
}

/// Would catch a fatal failure that loses the windows before it, or is not the first in the input's order.
#[test]
fn fatal_failure_keeps_the_windows_before() {
    let mut texts = texts(60);
    texts[37].wrong = Wrong::NaN;
    texts[36].wrong = Wrong::Panics;
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let error = collector(2).on_failure(OnFailure::Fatal).run(texts.clone(), &mut writer).unwrap_err();
    let CollectError::Failed { failure } = &error else { panic!("{error:?}") };
    assert_eq!((failure.position, failure.reason), (36, Reason::Panic));
    assert_eq!(ids(&index).len(), 32);
    // Mended, it goes on.
    texts[36].wrong = Wrong::Nothing;
    texts[37].wrong = Wrong::Nothing;
    let done = collector(2).on_failure(OnFailure::Fatal).run(texts.clone(), &mut writer).unwrap();
    assert_eq!((done.resumed_at, done.examples), (32, 28));
    assert!(rows(&index) == undisturbed(&texts));
}

/// Would catch a lost device whose examples are all recorded as failures, one by one, to the end of the input.
#[test]
fn lost_device_ends_the_collection() {
    let texts = texts(200);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let dying = Flex { life: 13, ..Flex::new() };
    let error = collector(0).device(dying).run(texts.clone(), &mut writer).unwrap_err();
    let CollectError::Device { device: 0, position, source, .. } = &error else { panic!("{error:?}") };
    assert!((48..64).contains(position), "{error}");
    assert_eq!(source.to_string(), "the device is lost");
    // Three whole windows of four batches each.
    assert_eq!(ids(&index).len(), 48);
    assert!(failures(&writer).is_empty());
    collector(1).run(texts.clone(), &mut writer).unwrap();
    assert!(rows(&index) == undisturbed(&texts));
}

/// Would catch a model that does not fit the spec, or has an untapped layer, being recorded as its examples' failure.
#[test]
fn model_that_does_not_fit_ends_the_collection() {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let all = Flex { select: |_| true, ..Flex::new() };
    let error = collector(0).device(all).run(texts(3), &mut writer).unwrap_err();
    let CollectError::Device { source, .. } = &error else { panic!("{error:?}") };
    let named = source.downcast_ref::<BurnError>();
    assert!(
        matches!(named, Some(BurnError::NotTapped { parameter }) if parameter == "tokens.weight"),
        "{source:?}"
    );
    let blocks = Sketcher::new(SketchSpec::rapid_grad_blocks(17, [("mixing", 64)])).unwrap();
    let schema = Schema::new(blocks.spec().clone(), Encoding::F32).unwrap();
    let other = Index::create(folder.path().join("o"), &schema).unwrap();
    let fits_not = Collector::new(&blocks).device(Flex::new());
    let error = fits_not.run(texts(3), &mut other.writer().unwrap()).unwrap_err();
    let CollectError::Device { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("head"), "{source}");
    assert!(matches!(
        source.downcast_ref::<BurnError>(),
        Some(BurnError::Example { source: SketchError::NoBlock { .. }, .. })
    ));
    let error = Collector::new(&blocks).device(Flex::new()).run(texts(3), &mut writer).unwrap_err();
    assert!(matches!(error, CollectError::OtherSpec { .. }), "{error:?}");
    assert_eq!(writer.generation(), 0);
}

/// Would catch a run that is not ended by its token, or that commits half a window.
#[test]
fn cancelled_collection_goes_on_where_it_was() {
    let texts = texts(200);
    let expected = undisturbed(&texts);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let mut cancelled = 0;
    let mut position = 0;
    for after in [1, 30, 50, 1000] {
        let token = CancelToken::new();
        let watch = |done: &Progress| {
            if done.examples >= after {
                token.cancel();
            }
        };
        match collector(2).commit_rows(1000).cancel(&token).progress(watch).run(texts.clone(), &mut writer) {
            Ok(done) => assert_eq!(done.resumed_at, position),
            Err(CollectError::Cancelled { position: at }) => {
                assert_eq!(at % 16, 0);
                assert_eq!(ids(&index).len() as u64, at);
                position = at;
                cancelled += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(cancelled, 3);
    assert!(position > 0);
    assert!(rows(&index) == expected);
}

/// Cancels after `commits` commits.
fn interrupt(texts: &[Text], writer: &mut Writer, commits: u64) {
    let token = CancelToken::new();
    let watch = |done: &Progress| {
        if done.commits >= commits {
            token.cancel();
        }
    };
    let outcome = collector(1).cancel(&token).progress(watch).run(texts.to_vec(), writer);
    assert!(matches!(outcome, Err(CollectError::Cancelled { .. })), "{outcome:?}");
}

/// Would catch a collection that takes another's commits, or none, for its own.
#[test]
fn resume_behind_other_commits() {
    let texts = texts(120);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    interrupt(&texts, &mut writer, 1);
    let collected = ids(&index).len() as u64;
    assert!(collected < 100);
    writer.delete(&texts[5].id).unwrap();
    writer.commit().unwrap();
    writer.append("mine", &alone(&Small::new(3), &texts[0], vec![2])).unwrap();
    let mine = writer.prepare_commit().unwrap().payload("a payload of the caller's");
    mine.commit().unwrap();
    let done = collector(2).run(texts.clone(), &mut writer).unwrap();
    assert_eq!(done.resumed_at, collected);
    let mut found = rows(&index);
    found.retain(|row| row.0 != "mine");
    let mut expected = undisturbed(&texts);
    expected.remove(5);
    assert!(found == expected);
    // Another name is another collection: its ids are there, but it begins at 0.
    let other = collector(1).named("second").run(texts[..20].to_vec(), &mut writer).unwrap();
    assert_eq!((other.resumed_at, other.examples, other.failed), (0, 20, 19));
}

/// Would catch windows that are computed twice, or with other batches, where the record of them is gone.
#[test]
fn resume_without_payload() {
    let mut texts = texts(120);
    texts[7].wrong = Wrong::NaN;
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    interrupt(&texts, &mut writer, 1);
    let collected = ids(&index).len() as u64 + 1;
    writer.delete(&texts[0].id).unwrap();
    writer.commit().unwrap();
    writer.gc(GcOptions::default().grace(Duration::ZERO).keep_generations(1)).unwrap();
    assert!(records(&writer).is_empty());
    let done = collector(1).run(texts.clone(), &mut writer).unwrap();
    assert_eq!((done.resumed_at, done.failed), (collected, 0));
    assert!(rows(&index) == undisturbed(&texts)[1..]);
}

/// Would catch rows of two inputs in one index, or an error that does not say where they part.
#[test]
fn changed_input_is_named() {
    let texts = texts(120);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    interrupt(&texts, &mut writer, 2);
    let generation = writer.generation();
    type Change = fn(&mut Vec<Text>);
    let changes: [(u64, Change); 5] = [
        (9, |texts| texts[9].id = "another".into()),
        (40, |texts| texts.swap(40, 41)),
        (3, |texts| drop(texts.remove(3))),
        (33, |texts| texts[33].tokens.push(1)),
        (0, |texts| texts[0].spans.push(Span::tokens(1, 2))),
    ];
    for (at, change) in changes {
        let mut changed = texts.clone();
        change(&mut changed);
        let error = collector(1).run(changed.clone(), &mut writer).unwrap_err();
        let CollectError::InputChanged { first, last, id: Some(id) } = &error else { panic!("{error:?}") };
        assert_eq!((*first, *last, id), (at, at, &changed[at as usize].id.clone().into_bytes()));
    }
    let error = collector(1).run(texts[..20].to_vec(), &mut writer).unwrap_err();
    assert!(matches!(error, CollectError::InputChanged { first: 20, last: 20, id: None }), "{error:?}");
    assert!(error.to_string().contains("at position 20, where it ends"), "{error}");
    let error = collector(1).batch_rows(5).run(texts.clone(), &mut writer).unwrap_err();
    assert!(matches!(error, CollectError::SettingChanged { setting: "batch_rows", .. }), "{error:?}");
    // Behind what is committed anything may come.
    assert_eq!(writer.generation(), generation);
    let mut changed = texts.clone();
    changed[119].tokens.push(1);
    collector(1).run(changed, &mut writer).unwrap();
    assert_eq!(ids(&index).len(), 120);
}

/// Would catch rows of other parameters, of another kind or of other weights in one collection, and queries of other
/// parameters than the rows'.
#[test]
fn changed_parameters_are_named() {
    let texts = texts(120);
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    interrupt(&texts, &mut writer, 1);
    writer.append("mine", &alone(&Small::new(3), &texts[0], vec![2])).unwrap();
    writer.commit().unwrap();
    let generation = writer.generation();
    let head = || Flex { select: |path| path.starts_with("head"), ..Flex::new() };
    let error = collector(0).device(head()).run(texts.clone(), &mut writer).unwrap_err();
    let CollectError::OtherParameters { device: None, than: "the rows", parameter, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(parameter.as_deref(), Some("mixing.weight"));
    let shown = error.to_string();
    assert!(
        shown.ends_with("\"mixing.weight\" is not there in it, and has the shape [8, 8] there"),
        "{shown}"
    );
    let error = collector(1).device(head()).run(texts.clone(), &mut writer).unwrap_err();
    assert!(matches!(error, CollectError::OtherParameters { device: Some(1), .. }), "{error:?}");
    for (collector, name) in [
        (collector(1).weights("step 2"), "weights"),
        (collector(1).rows(RowKind::Positions), "rows"),
        (collector(0).checkpoints([Checkpoint::new("step-1", Flex::new())]), "checkpoints"),
    ] {
        let error = collector.run(texts.clone(), &mut writer).unwrap_err();
        assert!(
            matches!(error, CollectError::SettingChanged { setting, .. } if setting == name),
            "{name}: {error:?}"
        );
    }
    assert_eq!(writer.generation(), generation);

    let snapshot = index.snapshot().unwrap();
    assert_eq!(Record::last(&snapshot, "another").unwrap(), None);
    let last = Record::last(&snapshot, "").unwrap().unwrap();
    let model = Small::new(9);
    last.check_parameters("", &Parameters::of(&model, linears)).unwrap();
    let error = last.check_parameters("", &Parameters::of(&model, |_| true)).unwrap_err();
    assert!(error.to_string().contains("\"tokens.weight\" has the shape [11, 8] in it"), "{error}");
    let error = last.check_parameters("step-1", &Parameters::of(&model, linears)).unwrap_err();
    assert!(matches!(error, CollectError::OtherCheckpoint { .. }), "{error:?}");
    // With the right ones it goes on.
    let done = collector(1).run(texts, &mut writer).unwrap();
    assert_eq!(done.resumed_at, last.end);
}

/// Would catch counts that do not add up, and shares that are more than there is.
#[test]
fn progress_adds_up() {
    let mut texts = texts(100);
    texts[3].wrong = Wrong::NaN;
    let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum::<usize>() - texts[3].tokens.len();
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut seen: Vec<Progress> = Vec::new();
    let collector = collector(2).total(100).progress(|done| seen.push(*done));
    let done = collector.run(texts, &mut index.writer().unwrap()).unwrap();
    assert_eq!((done.examples, done.failed, done.rows, done.tokens), (100, 1, 99, tokens as u64));
    assert_eq!((done.committed, done.total, done.resumed_at), (100, Some(100), 0));
    // Behind 47, 79 and 99 rows.
    assert_eq!(done.commits, 3);
    assert_eq!(done.time_left(), Some(Duration::ZERO));
    assert!(seen.windows(2).all(|pair| {
        pair[0].examples <= pair[1].examples
            && pair[0].rows <= pair[1].rows
            && pair[0].tokens <= pair[1].tokens
            && pair[0].elapsed <= pair[1].elapsed
    }));
    assert!(seen.len() >= 25, "one for each batch");
    assert!(seen.iter().any(|done| done.time_left().is_some_and(|left| left > Duration::ZERO)));
    let shares = done.shares;
    let devices = shares.forward + shares.backward + shares.sketch;
    for share in [shares.forward, shares.backward, shares.sketch, shares.append] {
        assert!(share > 0.0, "{shares:?}");
    }
    assert!(devices <= 1.0 && shares.append <= 1.0, "{shares:?}");
    let rate = done.examples_per_second() * done.elapsed.as_secs_f64();
    assert!((rate - 100.0).abs() < 1e-6);
}

/// Takes rows at its leisure, and looks how far the input has been read meanwhile.
struct Slow {
    spec: SketchSpec,
    read: Rc<Cell<usize>>,
    taken: usize,
    ahead: usize,
    fails_at: usize,
    aborted: bool,
    committed: usize,
}

impl Sink for Slow {
    fn spec(&self) -> &SketchSpec {
        &self.spec
    }

    fn append(&mut self, examples: &[Collected<'_>]) -> Result<Vec<Refused>, Cause> {
        std::thread::sleep(Duration::from_millis(5));
        self.ahead = self.ahead.max(self.read.get() - self.taken);
        self.taken += examples.len();
        if self.taken > self.fails_at { Err("the disk is full".into()) } else { Ok(Vec::new()) }
    }

    fn commit(&mut self, _: Vec<u8>) -> Result<(), Cause> {
        self.committed = self.taken;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Cause> {
        self.aborted = true;
        Ok(())
    }
}

fn slow(fails_at: usize) -> (Slow, impl Iterator<Item = Text>) {
    let read = Rc::new(Cell::new(0));
    let spec = sketcher().spec().clone();
    let counted = Rc::clone(&read);
    let source = texts(400).into_iter().inspect(move |_| counted.set(counted.get() + 1));
    (Slow { spec, read, taken: 0, ahead: 0, fails_at, aborted: false, committed: 0 }, source)
}

/// Would catch an input that is read into memory while the sink cannot keep up.
#[test]
fn input_is_read_two_windows_ahead_at_most() {
    let (mut sink, source) = slow(usize::MAX);
    collector(3).queue(100).run(source, &mut sink).unwrap();
    assert_eq!((sink.taken, sink.committed, sink.aborted), (400, 400, false));
    assert!(sink.ahead <= 32, "{} examples", sink.ahead);
}

/// Would catch a failure of the sink that is passed over, or rows of half a commit that stay in it.
#[test]
fn failed_sink_ends_the_collection() {
    let (mut sink, source) = slow(100);
    let error = collector(2).run(source, &mut sink).unwrap_err();
    let CollectError::Sink { operation: "append rows", source } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the disk is full");
    assert!(sink.aborted);
    assert_eq!(sink.committed, 96);

    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::new(sketcher().spec().clone(), Encoding::F32).unwrap();
    let index = Index::options().commit_examples(20).create(folder.path().join("i"), &schema).unwrap();
    let mut writer = index.writer().unwrap();
    let error = collector(1).run(texts(60), &mut writer).unwrap_err();
    let CollectError::Sink { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source.downcast_ref(), Some(AppendError::CommitFull { limit: 20 })), "{source:?}");
    assert_eq!(gradix::Error::from(error).kind(), gradix::ErrorKind::InvalidState);
}

/// Would catch an error of the input that is taken for its end, or that loses what came before.
#[test]
fn failed_input_keeps_the_windows_before() {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let broken = texts(40).into_iter().map(Ok).chain([Err("line 41 is not JSON")]);
    let error = collector(2).try_run(broken, &mut index.writer().unwrap()).unwrap_err();
    assert!(matches!(error, CollectError::Input { position: 40, .. }), "{error:?}");
    assert_eq!(ids(&index).len(), 32);
}

/// Would catch failures that are cut off where a commit cannot hold them.
#[test]
fn failures_beyond_a_payload_are_an_error() {
    let mut texts = texts(1000);
    for text in &mut texts[100..] {
        text.id = format!("{}{}", text.id, "x".repeat(4000));
        text.wrong = Wrong::Masked;
    }
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    // Windows of 16 commit early, before their records are too large.
    let done = collector(1).commit_rows(10_000).run(texts.clone(), &mut writer).unwrap();
    assert_eq!((done.failed, failures(&writer).len()), (900, 900));
    assert!(done.commits > 3);
    let second = create(&folder.path().join("j"));
    let mut writer = second.writer().unwrap();
    let one = Collector::new(&sketcher()).window_rows(1000).device(Flex::new());
    let error = one.run(texts, &mut writer).unwrap_err();
    let CollectError::TooManyFailures { failures: 900, examples: 1000, first, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(first.position, 100);
    assert_eq!(writer.generation(), 0);
}

/// Would catch checkpoints that are folded into each other's blocks, or a sum that a weighted scan does not take apart.
#[test]
fn checkpoints_are_blocks_of_one_row() {
    let spec = SketchSpec::rapid_grad_blocks(17, [("step-1", 64), ("step-2", 64)]);
    let sketcher = Sketcher::new(spec.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::new(spec, Encoding::F32).unwrap();
    let index = Index::create(folder.path().join("i"), &schema).unwrap();
    let both = || [Checkpoint::new("step-1", Flex::of(3)), Checkpoint::new("step-2", Flex::of(4))];
    let texts = texts(20);
    let collector = Collector::new(&sketcher).batch_rows(4).checkpoints(both()).checkpoints(both());
    collector.run(texts.clone(), &mut index.writer().unwrap()).unwrap();
    let snapshot = index.snapshot().unwrap();
    for text in &texts {
        let row = snapshot.get(&text.id).unwrap().unwrap().rows.remove(0).sketch;
        for (block, seed) in [(0, 3), (1, 4)] {
            let alone = Collector::new(&sketcher)
                .checkpoints([Checkpoint::new(["step-1", "step-2"][block], Flex::of(seed))]);
            let other = Index::create(folder.path().join(format!("{block} {}", text.id)), &schema).unwrap();
            alone.run([text.clone()], &mut other.writer().unwrap()).unwrap();
            let expected = other.snapshot().unwrap().get(&text.id).unwrap().unwrap().rows.remove(0).sketch;
            let bits: Vec<u32> = row.block(block).unwrap().iter().map(|value| value.to_bits()).collect();
            assert_close(&bits, expected.block(block).unwrap());
        }
        if text.id.ends_with('3') {
            break;
        }
    }
    let query = snapshot.get(&texts[0].id).unwrap().unwrap().rows.remove(0).sketch;
    let queries = [query.clone()];
    let ranking = snapshot
        .scan(&queries)
        .unwrap()
        .weights([("step-1", 0.25), ("step-2", 2.0)])
        .top_k(20)
        .run()
        .unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for hit in ranking.proponents(0) {
        let row = snapshot.get(&hit.id).unwrap().unwrap().rows.remove(0).sketch;
        let of = |block| dot(query.block(block).unwrap(), row.block(block).unwrap());
        let expected = 0.25 * of(0) + 2.0 * of(1);
        assert!((hit.score - expected).abs() < 1e-4 * expected.abs().max(1.0), "{} {expected}", hit.score);
    }
    let one = Collector::new(&sketcher).checkpoints(both()).device(Flex::new());
    let error = one.run(texts, &mut index.writer().unwrap()).unwrap_err();
    assert!(matches!(error, CollectError::OtherCheckpoints { device: 1, .. }), "{error:?}");
}

/// Rows are Adam's steps, and queries gradients.
struct Stepping {
    flex: Flex,
    state: AdamState,
}

impl Stepping {
    fn of(seed: u64, steps: u64) -> Self {
        let flex = Flex::of(seed);
        let mut state = AdamState::new(0.9, 0.99, 1e-4);
        let device = Device::flex();
        for (path, shape) in Parameters::of(&flex.model, linears).iter() {
            let moment = |size| match *shape {
                [a] => Tensor::<1>::full([a], size, &device).unsqueeze::<2>(),
                [a, b] => Tensor::<2>::full([a, b], size, &device),
                _ => panic!("{shape:?}"),
            };
            let (first, second) = (moment(0.01), moment(0.002));
            match *shape {
                [a] => state.insert(path, steps, first.reshape([a]), second.reshape([a])),
                _ => state.insert(path, steps, first, second),
            }
            .unwrap();
        }
        Self { flex, state }
    }
}

impl Replica<Text> for Stepping {
    type Model = Small;

    fn model(&self) -> &Small {
        &self.flex.model
    }

    fn losses(&self, batch: &[Piece<'_, Text>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
        self.flex.losses(batch, taps)
    }

    fn select(&self, path: &str) -> bool {
        linears(path)
    }

    fn sketch(
        &self,
        sketcher: &Sketcher,
        taps: Taps,
        gradients: &mut Gradients,
    ) -> Result<Vec<Sketch>, BurnError> {
        match sketcher.spec().optimizer() {
            Some(_) => sketch_steps(sketcher, self.model(), taps, gradients, linears, &self.state),
            None => sketch_examples(sketcher, self.model(), taps, gradients, linears),
        }
    }
}

/// Would catch rows of an optimizer's steps that are plain gradients, or of another state than the spec says; and an index
/// of them that takes no queries.
#[test]
fn rows_of_optimizer_steps_take_plain_queries() {
    let checkpoints = || {
        let mut both = [Stepping::of(3, 10), Stepping::of(4, 20)];
        let mut states = [0, 1].map(|at| both[at].state.clone());
        AdamState::join(&mut states).unwrap();
        both.iter_mut().zip(states).for_each(|(it, state)| it.state = state);
        both
    };
    let under = |both: [Stepping; 2]| {
        let [early, late] = both;
        [Checkpoint::new("step-10", early), Checkpoint::new("step-20", late)]
    };
    let plain = SketchSpec::rapid_grad_blocks(17, [("step-10", 64), ("step-20", 64)]);
    let spec = plain.with_optimizer(checkpoints()[0].state.step());
    let sketcher = Sketcher::new(spec.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let index =
        Index::create(folder.path().join("i"), &Schema::new(spec.clone(), Encoding::F32).unwrap()).unwrap();
    let texts = texts(40);
    let mut writer = index.writer().unwrap();
    let collector =
        || Collector::new(&sketcher).window_rows(16).batch_rows(4).checkpoints(under(checkpoints()));
    collector().run(texts[..32].to_vec(), &mut writer).unwrap();
    let done = collector().checkpoints(under(checkpoints())).run(texts.clone(), &mut writer).unwrap();
    assert_eq!((done.resumed_at, done.examples), (32, 8));

    let snapshot = index.snapshot().unwrap();
    let text = &texts[35];
    let row = snapshot.get(&text.id).unwrap().unwrap().rows.remove(0).sketch;
    for (block, stepping) in checkpoints().into_iter().enumerate() {
        let own = sketcher.under(["step-10", "step-20"][block]);
        let piece = [Piece::new(text, Span::WHOLE)];
        let expected = sketch_pieces(&own, &stepping, &piece).unwrap();
        let bits: Vec<u32> = row.block(block).unwrap().iter().map(|value| value.to_bits()).collect();
        assert_close(&bits, expected[0].block(block).unwrap());
        let queries = Sketcher::new(spec.for_queries()).unwrap().under(["step-10", "step-20"][block]);
        let gradient = sketch_pieces(&queries, &stepping, &piece).unwrap().remove(0);
        let (step, plain) = (row.block(block).unwrap(), gradient.block(block).unwrap());
        let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
        let difference: Vec<f32> = step.iter().zip(plain).map(|(step, plain)| step - plain).collect();
        assert!(norm(plain) > 0.0 && norm(&difference) > 0.1 * norm(step), "the row is a plain gradient");
        let ranking = snapshot.scan(&[gradient]).unwrap().top_k(40).run().unwrap();
        assert_eq!(ranking.proponents(0).len(), 40);
    }

    let other = Index::create(folder.path().join("o"), &Schema::new(spec, Encoding::F32).unwrap()).unwrap();
    let mut writer = other.writer().unwrap();
    let [_, late] = checkpoints();
    let alone = Collector::new(&sketcher).checkpoints(under([Stepping::of(3, 11), late]));
    let error = alone.run(texts.clone(), &mut writer).unwrap_err();
    let CollectError::Device { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source.downcast_ref(), Some(BurnError::OtherState { .. })), "{source:?}");
    let positions = Collector::new(&sketcher).rows(RowKind::Positions).checkpoints(under(checkpoints()));
    let error = positions.run(texts, &mut writer).unwrap_err();
    let CollectError::Device { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source.downcast_ref(), Some(BurnError::PlainGradients { .. })), "{source:?}");
    assert_eq!(writer.generation(), 0);
}

/// Would catch a setting that cannot work, and ends in a division by zero or a run without an end.
#[test]
fn impossible_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let mut refused = |collector: Collector<'_, Flex>, name: &str| {
        let error = collector.run(texts(3), &mut writer).unwrap_err();
        assert!(matches!(error, CollectError::Setting { setting, .. } if setting == name), "{error:?}");
    };
    refused(collector(0), "device");
    refused(collector(1).window_rows(0), "window_rows");
    refused(collector(1).window_rows(65_537), "window_rows");
    refused(collector(1).batch_rows(0), "batch_rows");
    refused(collector(1).batch_tokens(0), "batch_tokens");
    refused(collector(1).max_tokens(0), "max_tokens");
    refused(collector(1).queue(0), "queue");
    refused(collector(1).observe("tokens", 0), "observe");
    refused(collector(1).named("x".repeat(256)), "named");
    refused(collector(1).weights("x".repeat(256)), "weights");
}

/// Would catch checkpoints that a scan cannot weight one by one.
#[test]
fn checkpoints_that_share_a_prefix_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |blocks: [(&'static str, u32); 2], prefixes: [&str; 2]| {
        let spec = SketchSpec::rapid_grad_blocks(17, blocks);
        let schema = Schema::new(spec.clone(), Encoding::F32).unwrap();
        let index = Index::create(folder.path().join(blocks[1].0), &schema).unwrap();
        let both = prefixes.map(|prefix| Checkpoint::new(prefix, Flex::new()));
        let collector = Collector::new(&Sketcher::new(spec).unwrap()).checkpoints(both);
        match collector.run(texts(3), &mut index.writer().unwrap()).unwrap_err() {
            CollectError::Setting { setting: "checkpoints", reason } => reason,
            error => panic!("{error:?}"),
        }
    };
    let reason = refused([("step-1", 64), ("step-1.head", 64)], ["step-1", "step-2"]);
    assert!(reason.contains("a weight would be of the first alone"), "{reason}");
    let reason = refused([("step-1", 64), ("step-2", 64)], ["step-1", "step-1.late"]);
    assert!(reason.contains("a weight would be of both"), "{reason}");
    let reason = refused([("step-1", 64), ("step-3", 64)], ["step-1", "step-1"]);
    assert!(reason.contains("occurs twice"), "{reason}");
}

/// Would catch an empty input that makes a commit, or waits for rows that do not come.
#[test]
fn empty_input_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let mut writer = index.writer().unwrap();
    let done = collector(2).run(Vec::new(), &mut writer).unwrap();
    assert_eq!((done.examples, writer.generation()), (0, 0));
    let mut empty = texts(20);
    empty.iter_mut().for_each(|text| text.spans.clear());
    let done = collector(2).run(empty, &mut writer).unwrap();
    assert_eq!((done.failed, done.commits, ids(&index).len()), (20, 1, 0));
}

/// Would catch a batch with more padding than allowed.
#[test]
fn batches_are_bounded_by_padded_tokens() {
    struct Checked(Flex);
    impl Replica<Text> for Checked {
        type Model = Small;
        fn model(&self) -> &Small {
            &self.0.model
        }
        fn losses(&self, batch: &[Piece<'_, Text>], taps: &mut Taps) -> Result<Tensor<1>, Cause> {
            let longest = batch.iter().map(|piece| piece.tokens).max().unwrap();
            assert!(batch.len() == 1 || batch.len() * longest <= 20, "{} x {longest}", batch.len());
            self.0.losses(batch, taps)
        }
        fn sketch(
            &self,
            sketcher: &Sketcher,
            taps: Taps,
            gradients: &mut Gradients,
        ) -> Result<Vec<Sketch>, BurnError> {
            self.0.sketch(sketcher, taps, gradients)
        }
    }
    let mut texts = texts(60);
    texts[9].tokens = vec![1; 30];
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let flex = Flex::new();
    let batches = Arc::clone(&flex.batches);
    let bounded = Collector::new(&sketcher()).batch_tokens(20).device(Checked(flex));
    let done = bounded.run(texts, &mut index.writer().unwrap()).unwrap();
    assert_eq!((done.rows, done.failed), (60, 0));
    assert!(batches.load(Ordering::Relaxed) < 50, "short ones share batches");
}

const PATH: &str = "GRADIX_TEST_COLLECT";
const DEVICES: &str = "GRADIX_TEST_COLLECT_DEVICES";
/// Where parts are built; without it rows go into the index.
const BUILT: &str = "GRADIX_TEST_COLLECT_BUILT";
/// Set if a token of each example is observed.
const OBSERVED: &str = "GRADIX_TEST_COLLECT_OBSERVED";
const MANY: usize = 4000;

/// Not a test by itself: the collection that is killed.
#[test]
fn child() {
    let Ok(path) = std::env::var(PATH) else { return };
    let devices = std::env::var(DEVICES).unwrap().parse().unwrap();
    if let Ok(built) = std::env::var(BUILT) {
        let description = Path::new(&path).join("INDEX");
        let mut parts = Index::options().detached(description, built).unwrap();
        collector(devices).run(texts(MANY), &mut parts).unwrap();
        return;
    }
    let index = Index::open(path).unwrap();
    let mut writer = index.writer().unwrap();
    let collector = collector(devices);
    let observed = std::env::var(OBSERVED).is_ok();
    let collector = if observed { collector.observe("tokens", 1) } else { collector };
    collector.run(texts(MANY), &mut writer).unwrap();
}

/// Starts the collection again and again and kills it, from before the first commit to behind the last one; returns
/// how often it was killed between these two, as `rows` of what is durable tell. `extra` is in the child's environment.
fn kill_until_done(
    index: &Index,
    devices: usize,
    extra: Option<(&str, &Path)>,
    rows: impl Fn() -> usize,
) -> usize {
    let (mut kills, mut between) = (0, 0);
    let mut delay = Duration::from_millis(30);
    loop {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact"]).env(PATH, index.path()).env(DEVICES, devices.to_string());
        command.envs(extra);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            assert!(kills > 2 && between > 0, "{kills} kills, {between} between first and last commit");
            return between;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let found = rows();
        // With an observed token for each row, a window has half as many.
        let window = if extra.is_some_and(|(name, _)| name == OBSERVED) { 8 } else { 16 };
        assert!(found.is_multiple_of(window) || found == MANY, "half a window");
        between += usize::from(found > 0 && found < MANY);
        delay = delay * 5 / 4;
    }
}

/// Would catch a moment at which a kill loses rows, computes them twice, or leaves an index that does not go on.
#[test]
fn killed_collection_ends_with_the_rows_of_an_undisturbed_one() {
    let expected = undisturbed(&texts(MANY));
    for devices in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let index = create(&folder.path().join("i"));
        kill_until_done(&index, devices, None, || ids(&index).len());
        assert!(rows(&index) == expected, "{devices} devices");
        assert!(index.verify().unwrap().findings.is_empty());
    }
}

/// Would catch a kill between rows and sums, after which a row is not in the sums, or is twice.
#[test]
fn killed_collection_observes_every_example_once() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = create(&folder.path().join("undisturbed"));
    let mut writer = undisturbed.writer().unwrap();
    collector(1).observe("tokens", 1).run(texts(MANY), &mut writer).unwrap();
    let index = create(&folder.path().join("i"));
    kill_until_done(&index, 1, Some((OBSERVED, Path::new("1"))), || ids(&index).len());
    let ((state, scores), (_, expected)) = (curved(&index), curved(&undisturbed));
    let many = MANY as u64;
    assert_eq!((state.blocks[0].rows, state.covered.rows, state.covered.uncovered), (many, many, 0));
    assert_scores_close(&scores, &expected);
}

/// Would catch a detached collection that begins anew after a kill, or parts that do not add up to the input.
#[test]
fn killed_detached_collection_goes_on_behind_its_last_part() {
    let folder = tempfile::tempdir().unwrap();
    let index = create(&folder.path().join("i"));
    let built = folder.path().join("built");
    let parts = || {
        let parts = std::fs::read_dir(&built).into_iter().flatten().map(|entry| entry.unwrap().path());
        let examples = parts.filter_map(|path| Some(Part::read(path).ok()?.examples()));
        examples.sum::<u64>() as usize
    };
    kill_until_done(&index, 1, Some((BUILT, &built)), parts);
    let mut writer = index.writer().unwrap();
    let attached = writer.attach(&built, Attach::Move).unwrap();
    let ends: Vec<u64> =
        attached.parts.iter().map(|part| Record::parse(&part.payload).unwrap().unwrap().end).collect();
    assert!(ends.len() > 2 && ends.is_sorted() && ends.last() == Some(&(MANY as u64)), "{ends:?}");
    writer.commit().unwrap();
    // The parts of one commit have no order among each other.
    let mut found = rows(&index);
    found.sort();
    assert!(found == undisturbed(&texts(MANY)), "the ids are in the order of the input");
    // The parts have been moved, and what they recorded has stayed.
    let mut again = index.detached(&built).unwrap();
    let done = collector(1).run(texts(MANY), &mut again).unwrap();
    assert_eq!((done.resumed_at, done.examples, done.commits), (MANY as u64, 0, 0));
}
