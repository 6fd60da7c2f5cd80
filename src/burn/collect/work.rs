//! A batch on a device: forward, backward, sketches; and in halves where that fails.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::RowKind;
use super::example::{Example, Piece};
use super::failure::{Fault, Reason};
use super::plan::Window;
use super::replica::Replica;
use super::{Cause, Checkpoint};
use crate::burn::{BurnError, Taps};
use crate::sketch::{Sketch, SketchError, Sketcher};

/// How many other pieces are tried when a device is in doubt and has computed nothing yet.
const PROBES: usize = 3;

/// What a device's time went into.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub forward: Duration,
    pub backward: Duration,
    pub sketch: Duration,
}

impl Times {
    pub fn add(&mut self, other: Self) {
        self.forward += other.forward;
        self.backward += other.backward;
        self.sketch += other.sketch;
    }
}

/// Why a batch has no sketches.
enum Trouble {
    /// These pieces are at fault, and the others may be tried without them.
    Pieces(Vec<(usize, Fault)>),
    /// It is not known which piece is.
    Batch(Fault, Cause),
    /// No piece is: the model, its taps and the spec do not fit together.
    Model(Cause),
}

/// Why a device is given no more batches.
#[derive(Debug)]
pub(super) struct Lost {
    /// The piece on which it failed.
    pub piece: usize,
    pub source: Cause,
}

/// The replicas of one device: one for each checkpoint.
pub(super) struct Device<R> {
    kind: RowKind,
    checkpoints: Vec<(Sketcher, R)>,
}

/// What became of a batch: an outcome for each of its pieces, a sketch for each of the piece's rows and then of what is
/// observed.
pub(super) struct Solved {
    pub outcomes: Vec<(usize, Result<Vec<Sketch>, Fault>)>,
    pub times: Times,
    pub lost: Option<Lost>,
}

impl<R> Device<R> {
    pub fn new(sketcher: &Sketcher, kind: RowKind, checkpoints: Vec<Checkpoint<R>>) -> Self {
        let under = |checkpoint: Checkpoint<R>| (checkpoint.sketcher(sketcher), checkpoint.replica);
        Self { kind, checkpoints: checkpoints.into_iter().map(under).collect() }
    }

    /// Computes the sketches of the pieces of a window. Stops between attempts once `stop` is set; the outcomes are
    /// incomplete then.
    pub fn solve<E: Example>(&self, window: &Window<E>, pieces: Vec<usize>, stop: &AtomicBool) -> Solved
    where
        R: Replica<E>,
    {
        let mut solved =
            Solved { outcomes: Vec::with_capacity(pieces.len()), times: Times::default(), lost: None };
        let all = pieces.clone();
        // The last cause of a failure that may be the device's.
        let mut doubt: Option<(usize, Cause)> = None;
        let mut open = vec![pieces];
        while let Some(pieces) = open.pop() {
            if pieces.is_empty() || stop.load(Ordering::Relaxed) {
                continue;
            }
            match self.attempt(window, &pieces, &mut solved.times) {
                Ok(sketches) => {
                    doubt = None;
                    solved.outcomes.extend(pieces.into_iter().zip(sketches.into_iter().map(Ok)));
                }
                Err(Trouble::Pieces(faults)) => {
                    let is_at_fault = |place: usize| faults.iter().any(|(at, _)| *at == place);
                    let rest = (0..pieces.len()).filter(|&place| !is_at_fault(place));
                    open.push(rest.map(|place| pieces[place]).collect());
                    solved.outcomes.extend(faults.into_iter().map(|(at, fault)| (pieces[at], Err(fault))));
                }
                Err(Trouble::Model(source)) => {
                    solved.lost = Some(Lost { piece: pieces[0], source });
                    return solved;
                }
                Err(Trouble::Batch(fault, source)) => match pieces.split_at(pieces.len() / 2) {
                    ([], [only]) => {
                        doubt = Some((*only, source));
                        solved.outcomes.push((*only, Err(fault)));
                    }
                    (left, right) => open.extend([right.to_vec(), left.to_vec()]),
                },
            }
        }
        if let Some((piece, source)) = doubt
            && !stop.load(Ordering::Relaxed)
            && !self.is_sound(window, &all, &solved.outcomes, &mut solved.times)
        {
            solved.lost = Some(Lost { piece, source });
        }
        solved
    }

    /// Whether the device still computes something after a failure that no piece of the batch has disproved.
    fn is_sound<E: Example>(
        &self,
        window: &Window<E>,
        batch: &[usize],
        outcomes: &[(usize, Result<Vec<Sketch>, Fault>)],
        times: &mut Times,
    ) -> bool
    where
        R: Replica<E>,
    {
        let failed: Vec<usize> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.as_ref().is_err_and(|fault| fault.reason.may_be_the_device()))
            .map(|(piece, _)| *piece)
            .collect();
        // The shortest pieces, of this batch and of the others.
        let mut candidates: Vec<usize> = (0..window.pieces.len()).filter(|at| !failed.contains(at)).collect();
        candidates.sort_by_key(|&at| (batch.contains(&at), window.piece(at, self.kind).tokens));
        let mut failures = 0;
        for at in candidates {
            match self.attempt(window, &[at], times) {
                Ok(_) => return true,
                // A piece that is at fault itself says nothing about the device.
                Err(Trouble::Pieces(_)) => {}
                Err(Trouble::Batch(..) | Trouble::Model(_)) => failures += 1,
            }
            if failures == PROBES {
                break;
            }
        }
        failures == 0
    }

    /// One forward and backward for each checkpoint.
    fn attempt<E: Example>(
        &self,
        window: &Window<E>,
        pieces: &[usize],
        times: &mut Times,
    ) -> Result<Vec<Vec<Sketch>>, Trouble>
    where
        R: Replica<E>,
    {
        let batch: Vec<Piece<'_, E>> = pieces.iter().map(|&at| window.piece(at, self.kind)).collect();
        let spans: Option<Vec<_>> = (self.kind == RowKind::Positions).then(|| {
            pieces.iter().zip(&batch).map(|(&at, piece)| ranges(window, at, piece.tokens)).collect()
        });
        let mut sum: Option<Vec<Vec<Sketch>>> = None;
        for (sketcher, replica) in &self.checkpoints {
            let computed = catch_unwind(AssertUnwindSafe(|| {
                sketched(replica, sketcher, &batch, spans.as_deref(), times)
            }));
            let sketches = computed.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))?;
            sum = Some(match sum {
                None => sketches,
                Some(before) => added(&before, &sketches)?,
            });
        }
        Ok(sum.unwrap_or_default())
    }
}

/// The spans of a piece as ranges of positions.
fn ranges<E>(window: &Window<E>, piece: usize, tokens: usize) -> Vec<Range<usize>> {
    let spans = window.pieces[piece].all();
    spans
        .map(|span| if span.is_whole() { 0..tokens } else { span.start as usize..span.end as usize })
        .collect()
}

fn added(before: &[Vec<Sketch>], sketches: &[Vec<Sketch>]) -> Result<Vec<Vec<Sketch>>, Trouble> {
    let pairs = before.iter().zip(sketches).enumerate();
    let add = |(place, (a, b)): (usize, (&Vec<Sketch>, &Vec<Sketch>))| {
        let sums = a.iter().zip(b).map(|(a, b)| a.plus(b));
        sums.collect::<Result<_, _>>().map_err(|error| refused(place, &error))
    };
    pairs.map(add).collect()
}

/// What the sketcher's refusal of one piece says.
fn refused(place: usize, error: &SketchError) -> Trouble {
    Trouble::Pieces(vec![(place, Fault::new(Reason::Sketch, error.to_string()))])
}

fn sketched<E, R: Replica<E>>(
    replica: &R,
    sketcher: &Sketcher,
    batch: &[Piece<'_, E>],
    // For rows of positions, those of each piece.
    spans: Option<&[Vec<Range<usize>>]>,
    times: &mut Times,
) -> Result<Vec<Vec<Sketch>>, Trouble> {
    let mut clock = Instant::now();
    let mut lap = |time: &mut Duration| {
        *time += clock.elapsed();
        clock = Instant::now();
    };
    let mut taps = Taps::on();
    let losses = replica.losses(batch, &mut taps).map_err(failed)?;
    if losses.dims() != [batch.len()] {
        let (given, expected) = (losses.dims().to_vec(), vec![batch.len()]);
        return Err(failed(BurnError::Shape { what: "losses", given, expected }.into()));
    }
    // Waits for the forward.
    let values = losses
        .clone()
        .try_into_vec_as::<f32>()
        .map_err(|source| failed(BurnError::Read { tensor: "losses".into(), source }.into()))?;
    lap(&mut times.forward);
    let bad = |(place, loss): (usize, &f32)| {
        (!loss.is_finite()).then(|| (place, Fault::new(Reason::NotFinite, format!("the loss is {loss}"))))
    };
    let bad: Vec<_> = values.iter().enumerate().filter_map(bad).collect();
    if !bad.is_empty() {
        return Err(Trouble::Pieces(bad));
    }
    let device = losses.device();
    let mut gradients = losses.sum().backward();
    device.sync().map_err(|source| failed(source.into()))?;
    lap(&mut times.backward);
    // Waits for the sketches, which come to the host.
    let sketches: Vec<Vec<Sketch>> = match spans {
        None => {
            let sketches = replica.sketch(sketcher, taps, &mut gradients);
            let sketches = sketches.map_err(|error| of_sketching(error, &vec![1; batch.len()]))?;
            sketches.into_iter().map(|sketch| vec![sketch]).collect()
        }
        Some(spans) => {
            let counts: Vec<usize> = spans.iter().map(Vec::len).collect();
            let sketches = replica.sketch_positions(sketcher, taps, &mut gradients, spans);
            sketches.map_err(|error| of_sketching(error, &counts))?
        }
    };
    lap(&mut times.sketch);
    let given: Vec<usize> = sketches.iter().map(Vec::len).collect();
    let expected = spans.map_or(vec![1; batch.len()], |spans| spans.iter().map(Vec::len).collect());
    if given != expected {
        return Err(failed(BurnError::Shape { what: "sketches", given, expected }.into()));
    }
    Ok(sketches)
}

/// The sketches of one batch, or the first error.
pub(super) fn sketch_pieces<E, R: Replica<E>>(
    sketcher: &Sketcher,
    replica: &R,
    pieces: &[Piece<'_, E>],
) -> Result<Vec<Sketch>, Cause> {
    let sketches = sketched(replica, sketcher, pieces, None, &mut Times::default());
    sketches.map(|sketches| sketches.into_iter().flatten().collect()).map_err(|trouble| match trouble {
        Trouble::Batch(_, source) | Trouble::Model(source) => source,
        Trouble::Pieces(faults) => {
            let each = faults.iter().map(|(place, fault)| format!("piece {place}: {}", fault.detail));
            each.collect::<Vec<_>>().join("; ").into()
        }
    })
}

/// `rows` is the number of rows of each piece of the batch.
fn of_sketching(error: BurnError, rows: &[usize]) -> Trouble {
    let is_of_the_numbers = |error: &SketchError| {
        matches!(
            error,
            SketchError::NotFinite { .. } | SketchError::Overflow { .. } | SketchError::NotFiniteValue { .. }
        )
    };
    let piece_of = |row: usize| {
        let ends = rows.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        ends.zip(0..).find_map(|(end, piece)| (row < end).then_some(piece))
    };
    let piece = match &error {
        BurnError::Example { example, source } if is_of_the_numbers(source) => piece_of(*example),
        BurnError::Sketch(source) if rows.len() == 1 && is_of_the_numbers(source) => Some(0),
        _ => None,
    };
    match (piece, error) {
        (Some(piece), BurnError::Example { source, .. } | BurnError::Sketch(source)) => {
            refused(piece, &source)
        }
        (_, other) => failed(other.into()),
    }
}

/// What an error of the replica's says.
fn failed(source: Cause) -> Trouble {
    let mut detail = source.to_string();
    let mut below = source.source();
    while let Some(error) = below {
        detail = format!("{detail}: {error}");
        below = error.source();
    }
    if is_out_of_memory(&detail) {
        return Trouble::Batch(Fault::new(Reason::OutOfMemory, detail), source);
    }
    match source.downcast_ref::<BurnError>() {
        Some(BurnError::FullyMasked { example }) => {
            Trouble::Pieces(vec![(*example, Fault::new(Reason::Empty, detail))])
        }
        Some(BurnError::Target { example, .. }) => {
            Trouble::Pieces(vec![(*example, Fault::new(Reason::Error, detail))])
        }
        // Smaller batches may still do.
        Some(BurnError::Read { .. } | BurnError::Device { .. } | BurnError::DeviceLimit { .. }) | None => {
            Trouble::Batch(Fault::new(Reason::Error, detail), source)
        }
        Some(_) => Trouble::Model(source),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Trouble {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let detail = text.unwrap_or_else(|| "a panic without a message".to_owned());
    let reason = if is_out_of_memory(&detail) { Reason::OutOfMemory } else { Reason::Panic };
    let source = format!("the replica panicked: {detail}").into();
    Trouble::Batch(Fault::new(reason, detail), source)
}

/// burn passes on what drivers and allocators say in words alone.
fn is_out_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    ["out of memory", "outofmemory", "out_of_memory", "memory allocation", "not enough memory"]
        .iter()
        .any(|words| text.contains(words))
}
