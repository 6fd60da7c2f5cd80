//! The run: reads windows, hands out batches, takes back rows, appends, commits.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::error::CollectError;
use super::example::Example;
use super::failure::{Failure, Fault, Reason};
use super::plan::{Bounds, Window};
use super::progress::Progress;
use super::record::{Record, Settings, difference, recorded};
use super::replica::Replica;
use super::resume;
use super::sink::{Collected, Sink};
use super::work::{Device, Solved, Times};
use super::{Callback, Cause, Checkpoint, Collector, OnFailure};
use crate::burn::Parameters;
use crate::lock::lock;
use crate::scan::CancelToken;
use crate::sketch::Sketch;

/// The windows that are in memory: of the first one rows are missing, of the second one batches are handed out.
const WINDOWS: usize = 2;
/// How often cancellation is looked for while devices compute.
const PATIENCE: Duration = Duration::from_millis(20);
/// The maximum length of a commit's payload.
const MAX_PAYLOAD: usize = 1 << 20;
/// The length of tags and failures from which on a record is committed: lists of parameters take an eighth of a payload at
/// most, and a window's tags half of it.
const FULL_RECORD: usize = MAX_PAYLOAD / 4;
/// Bytes of a failure's JSON besides its id, at most, unless its detail is full of what JSON escapes.
const FAILURE_BYTES: usize = 400;

/// A batch for any device.
struct Job<E> {
    window: Arc<Window<E>>,
    pieces: Vec<usize>,
}

struct Answer {
    device: usize,
    /// The start of the batch's window.
    window: u64,
    solved: Result<Solved, Cause>,
}

/// A window of which batches wait, or rows are missing.
struct Open<E> {
    window: Arc<Window<E>>,
    waiting: VecDeque<Vec<usize>>,
    /// For each piece.
    outcomes: Vec<Option<Result<Vec<Sketch>, Fault>>>,
    /// How many of them are missing; and how many of each example.
    missing: usize,
    missing_of: Vec<usize>,
}

/// Tells the devices to stop, also when the caller's code panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Run<'a, 'c, E, I, S> {
    input: I,
    /// The place of the next example that is read.
    position: u64,
    /// Why the input ended, if that is no reason to be glad.
    ended: Option<Result<(), CollectError>>,
    windows: VecDeque<Open<E>>,
    sink: &'a mut S,
    record: Record,
    last_commit: Instant,
    began: Instant,
    devices: usize,
    times: Times,
    append: Duration,
    progress: Progress,
    bounds: Bounds,
    commit_rows: u64,
    commit_time: Duration,
    on_failure: OnFailure,
    cancel: CancelToken,
    callback: Option<Callback<'c>>,
}

pub(super) fn run<E, R, I, S>(
    collector: Collector<'_, R>,
    mut input: I,
    sink: &mut S,
) -> Result<Progress, CollectError>
where
    E: Example,
    R: Replica<E>,
    I: Iterator<Item = Result<E, Cause>>,
    S: Sink,
{
    let bounds = collector.bounds;
    let kind = bounds.rows;
    let parameters = parameters(&collector.devices)?;
    let lists =
        recorded(parameters.clone()).map_err(|error| of_sink("record the parameters")(error.into()))?;
    let record = Record::new(&collector.name, Settings::new(&bounds), &collector.weights, lists);
    let start = resume::start(&mut input, sink, &bounds, &record, &parameters)?;
    let devices = collector.devices.len();
    let (jobs, queue) = mpsc::sync_channel::<Job<E>>(collector.queue.saturating_mul(devices));
    let (answers, inbox) = mpsc::channel();
    let queue = Mutex::new(queue);
    let stop = AtomicBool::new(false);
    let now = Instant::now();
    let mut run = Run {
        input: start.read.into_iter().map(Ok).chain(input),
        position: start.position,
        ended: None,
        windows: VecDeque::new(),
        sink,
        record: record.from(start.position, start.digest),
        last_commit: now,
        began: now,
        devices,
        times: Times::default(),
        append: Duration::ZERO,
        progress: Progress::new(start.position, collector.total),
        bounds,
        commit_rows: collector.commit_rows,
        commit_time: collector.commit_time,
        on_failure: collector.on_failure,
        cancel: collector.cancel,
        callback: collector.progress,
    };
    let sketcher = &collector.sketcher;
    let made = collector.devices.into_iter().map(|checkpoints| Device::new(sketcher, kind, checkpoints));
    thread::scope(|scope| {
        // Dropped behind `jobs`' last use: what is still queued then is not computed.
        let stopping = Stop(&stop);
        let jobs = jobs;
        for (ordinal, device) in made.enumerate() {
            let (queue, answers, stop) = (&queue, answers.clone(), &stop);
            let work = move || serve(&device, ordinal, queue, &answers, stop);
            let spawned = thread::Builder::new().name(format!("device {ordinal}")).spawn_scoped(scope, work);
            if let Err(source) = spawned {
                return Err(CollectError::Thread { device: ordinal, source: source.into() });
            }
        }
        drop(answers);
        let outcome = run.drive(&jobs, &inbox);
        drop(stopping);
        run.finish(outcome)
    })
}

/// The parameters of each checkpoint, which must be the same on every device.
fn parameters<E, R: Replica<E>>(
    devices: &[Vec<Checkpoint<R>>],
) -> Result<Vec<(String, Parameters)>, CollectError> {
    let of = |checkpoint: &Checkpoint<R>| {
        let replica = &checkpoint.replica;
        let parameters = Parameters::of(replica.model(), |path| replica.select(path));
        (checkpoint.prefix.clone().unwrap_or_default(), parameters)
    };
    let mut devices = devices.iter().map(|device| device.iter().map(of).collect::<Vec<_>>());
    let first = devices.next().unwrap_or_default();
    for (device, other) in (1..).zip(devices) {
        for ((checkpoint, expected), (_, given)) in first.iter().zip(&other) {
            if let Some((parameter, reason)) = difference(expected, given) {
                let (checkpoint, parameter) = (checkpoint.clone(), Some(parameter));
                let (device, than) = (Some(device), "the first device");
                return Err(CollectError::OtherParameters { device, checkpoint, than, parameter, reason });
            }
        }
    }
    Ok(first)
}

/// A device's thread.
fn serve<E: Example, R: Replica<E>>(
    device: &Device<R>,
    ordinal: usize,
    queue: &Mutex<Receiver<Job<E>>>,
    answers: &Sender<Answer>,
    stop: &AtomicBool,
) {
    loop {
        // The lock is held while it waits: the others wait for the lock then.
        let Ok(job) = lock(queue).recv() else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let window = job.window.start;
        let solved = catch_unwind(AssertUnwindSafe(|| device.solve(&job.window, job.pieces, stop)));
        let solved = solved.map_err(|_| Cause::from("its thread panicked"));
        if answers.send(Answer { device: ordinal, window, solved }).is_err() {
            return;
        }
    }
}

fn of_sink(operation: &'static str) -> impl FnOnce(Cause) -> CollectError {
    move |source| CollectError::Sink { operation, source }
}

impl<E, I, S> Run<'_, '_, E, I, S>
where
    E: Example,
    I: Iterator<Item = Result<E, Cause>>,
    S: Sink,
{
    fn drive(&mut self, jobs: &SyncSender<Job<E>>, inbox: &Receiver<Answer>) -> Result<(), CollectError> {
        loop {
            self.hand_out(jobs)?;
            while self.windows.front().is_some_and(|open| open.missing == 0) {
                self.close_window()?;
                self.report();
                self.hand_out(jobs)?;
            }
            if self.windows.is_empty() {
                return self.ended.take().unwrap_or(Ok(()));
            }
            if self.cancel.is_cancelled() {
                return Err(CollectError::Cancelled { position: self.progress.committed });
            }
            match inbox.recv_timeout(PATIENCE) {
                Ok(answer) => {
                    self.take(answer)?;
                    self.report();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CollectError::Thread { device: 0, source: "it has ended".into() });
                }
            }
        }
    }

    /// Hands out batches until the queue is full, and reads windows for it.
    fn hand_out(&mut self, jobs: &SyncSender<Job<E>>) -> Result<(), CollectError> {
        loop {
            let Some(open) = self.windows.iter_mut().find(|open| !open.waiting.is_empty()) else {
                if self.ended.is_some() || self.windows.len() == WINDOWS {
                    return Ok(());
                }
                self.read_window();
                continue;
            };
            let Some(pieces) = open.waiting.pop_front() else { continue };
            match jobs.try_send(Job { window: Arc::clone(&open.window), pieces }) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    open.waiting.push_front(job.pieces);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => {
                    return Err(CollectError::Thread { device: 0, source: "it has ended".into() });
                }
            }
        }
    }

    fn read_window(&mut self) {
        let mut window = Window::new(self.position);
        while !window.is_complete(&self.bounds) {
            match self.input.next() {
                Some(Ok(example)) => window.push(example, &self.bounds),
                Some(Err(source)) => {
                    // The windows before it are finished; this one is not begun.
                    let position = self.position + window.examples.len() as u64;
                    self.ended = Some(Err(CollectError::Input { position, source }));
                    return;
                }
                None => {
                    self.ended = Some(Ok(()));
                    break;
                }
            }
        }
        if window.examples.is_empty() {
            return;
        }
        self.position += window.examples.len() as u64;
        let mut missing_of = vec![0; window.examples.len()];
        for piece in &window.pieces {
            missing_of[piece.place] += 1;
        }
        self.progress.examples += window.faults.len() as u64;
        let missing = window.pieces.len();
        self.windows.push_back(Open {
            waiting: window.batches(&self.bounds).into(),
            outcomes: (0..missing).map(|_| None).collect(),
            missing,
            missing_of,
            window: Arc::new(window),
        });
    }

    /// Takes what a device has computed.
    fn take(&mut self, answer: Answer) -> Result<(), CollectError> {
        let Answer { device, window, solved } = answer;
        let solved = solved.map_err(|source| CollectError::Thread { device, source })?;
        self.times.add(solved.times);
        let Some(open) = self.windows.iter_mut().find(|open| open.window.start == window) else {
            return Ok(());
        };
        if let Some(lost) = solved.lost {
            let place = open.window.pieces[lost.piece].place;
            let (position, id) = (window + place as u64, open.window.examples[place].id().to_owned());
            return Err(CollectError::Device { device, position, id, source: lost.source });
        }
        for (ordinal, outcome) in solved.outcomes {
            if let Ok(sketches) = &outcome {
                let rows = sketches.len().min(open.window.pieces[ordinal].spans.len());
                self.progress.rows += rows as u64;
                self.progress.tokens += open.window.piece(ordinal, self.bounds.rows).tokens as u64;
            }
            let place = open.window.pieces[ordinal].place;
            open.missing_of[place] -= 1;
            self.progress.examples += u64::from(open.missing_of[place] == 0);
            open.missing -= 1;
            open.outcomes[ordinal] = Some(outcome);
        }
        Ok(())
    }

    /// Appends the rows of the first window, which is complete, and commits if that is due.
    fn close_window(&mut self) -> Result<(), CollectError> {
        let Some(open) = self.windows.pop_front() else { return Ok(()) };
        let window = open.window;
        let mut faults: Vec<Option<Fault>> = vec![None; window.examples.len()];
        for (place, fault) in &window.faults {
            faults[*place] = Some(fault.clone());
        }
        let mut rows: Vec<(Vec<_>, Vec<_>)> = window.examples.iter().map(|_| Default::default()).collect();
        for (piece, outcome) in window.pieces.iter().zip(open.outcomes) {
            let place = piece.place;
            match outcome {
                Some(Ok(sketches)) => {
                    let (of_rows, observed) = &mut rows[place];
                    let mut sketches = sketches.into_iter();
                    // Not `zip`, which takes a sketch too many.
                    of_rows.extend(piece.spans.iter().filter_map(|span| Some((*span, sketches.next()?))));
                    observed.extend(sketches);
                }
                Some(Err(fault)) if faults[place].is_none() => {
                    let detail = match (piece.spans.as_slice(), piece.observed.as_slice()) {
                        ([span], []) if !span.is_whole() => format!("span {span}: {}", fault.detail),
                        ([], [token]) => format!("observed {token}: {}", fault.detail),
                        _ => fault.detail,
                    };
                    faults[place] = Some(Fault::new(fault.reason, detail));
                }
                Some(Err(_)) | None => {}
            }
        }
        let (mut places, mut collected, mut observed) = (Vec::new(), Vec::new(), Vec::new());
        let sound = rows.into_iter().enumerate().filter(|(place, _)| faults[*place].is_none());
        for (place, (rows, sketches)) in sound {
            let example = &window.examples[place];
            let (id, source, metadata) = (example.id(), example.source(), example.metadata());
            places.push(place);
            collected.push(Collected { id, source, metadata, rows });
            observed.push(sketches);
        }
        self.check_fatal(&window, &faults)?;
        let began = Instant::now();
        let refused = self.sink.append(&collected).map_err(of_sink("append rows"))?;
        self.append += began.elapsed();
        let mut appended: u64 = collected.iter().map(|example| example.rows.len() as u64).sum();
        for refused in refused {
            let Some(example) = collected.get(refused.place) else { continue };
            appended -= example.rows.len() as u64;
            let fault = Fault::new(Reason::Refused, refused.source.to_string());
            if self.on_failure == OnFailure::Fatal {
                return Err(of_sink("append rows")(refused.source));
            }
            faults[places[refused.place]] = Some(fault);
        }
        let began = Instant::now();
        if let Some(observe) = &self.bounds.observe {
            let observed = places.iter().zip(&collected).zip(&observed);
            for ((place, example), sketches) in observed {
                if faults[*place].is_none() {
                    let done = self.sink.observe(&observe.curvature, example.id, sketches);
                    done.map_err(of_sink("observe tokens"))?;
                }
            }
        }
        self.append += began.elapsed();
        for example in &window.examples {
            self.record.push(example, &self.bounds);
        }
        self.record.rows += appended;
        for (place, fault) in faults.into_iter().enumerate() {
            if let Some(fault) = fault {
                self.progress.failed += 1;
                self.record.failures.push(failure(&window, place, fault));
            }
        }
        let bytes = self.record.tags.len()
            + self.record.failures.iter().map(|it| 2 * it.id.len() + FAILURE_BYTES).sum::<usize>();
        if self.record.rows >= self.commit_rows
            || self.last_commit.elapsed() >= self.commit_time
            || bytes >= FULL_RECORD
        {
            self.commit()?;
        }
        Ok(())
    }

    fn check_fatal(&self, window: &Window<E>, faults: &[Option<Fault>]) -> Result<(), CollectError> {
        if self.on_failure == OnFailure::Skip {
            return Ok(());
        }
        let first = faults.iter().enumerate().find_map(|(place, fault)| Some((place, fault.clone()?)));
        match first {
            Some((place, fault)) => {
                Err(CollectError::Failed { failure: Box::new(failure(window, place, fault)) })
            }
            None => Ok(()),
        }
    }

    fn commit(&mut self) -> Result<(), CollectError> {
        let payload = self.record.to_payload().map_err(|error| of_sink("record a commit")(error.into()))?;
        if payload.len() > MAX_PAYLOAD
            && let Some(first) = self.record.failures.first()
        {
            return Err(CollectError::TooManyFailures {
                position: self.record.start,
                examples: self.record.end - self.record.start,
                failures: self.record.failures.len(),
                bytes: payload.len(),
                first: Box::new(first.clone()),
            });
        }
        let began = Instant::now();
        self.sink.commit(payload).map_err(of_sink("commit"))?;
        self.append += began.elapsed();
        self.last_commit = Instant::now();
        self.progress.commits += 1;
        self.progress.committed = self.record.end;
        self.record = self.record.next();
        Ok(())
    }

    fn report(&mut self) {
        self.progress.time(self.began.elapsed(), self.devices, &self.times, self.append);
        if let Some(callback) = &mut self.callback {
            callback(&self.progress);
        }
    }

    /// Commits the windows that are complete, whatever the outcome; only after a failure of the sink they are given up.
    fn finish(&mut self, outcome: Result<(), CollectError>) -> Result<Progress, CollectError> {
        let is_of_sink =
            matches!(outcome, Err(CollectError::Sink { .. } | CollectError::TooManyFailures { .. }));
        let committed = match () {
            () if is_of_sink => Err(None),
            () if self.record.end > self.record.start => self.commit().map_err(Some),
            () => Ok(()),
        };
        if committed.is_err()
            && let Err(error) = self.sink.abort()
        {
            tracing::warn!(%error, "cannot discard what was appended since the last commit");
        }
        match (outcome, committed) {
            (Ok(()), Err(Some(error))) => Err(error),
            (Err(CollectError::Cancelled { .. }), committed) => match committed {
                Err(Some(error)) => Err(error),
                _ => Err(CollectError::Cancelled { position: self.progress.committed }),
            },
            (Err(error), committed) => {
                if let Err(Some(second)) = committed {
                    tracing::warn!(%second, "cannot commit the windows before the error");
                }
                Err(error)
            }
            (Ok(()), _) => {
                self.report();
                Ok(self.progress)
            }
        }
    }
}

fn failure<E: Example>(window: &Window<E>, place: usize, fault: Fault) -> Failure {
    Failure {
        position: window.start + place as u64,
        id: window.examples[place].id().to_owned(),
        reason: fault.reason,
        detail: fault.detail,
    }
}
