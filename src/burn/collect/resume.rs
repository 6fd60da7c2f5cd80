//! Where a collection goes on: behind the last commit that records it.

use super::Cause;
use super::error::CollectError;
use super::example::Example;
use super::plan::{Bounds, Window};
use super::record::{Record, empty_digest, extended};
use super::sink::Sink;
use crate::burn::Parameters;

/// Where to go on.
pub(super) struct Start<E> {
    pub position: u64,
    /// The digest of the input up to there.
    pub digest: String,
    /// Examples behind it that have been read already.
    pub read: Vec<E>,
}

/// What the sink's commits say of the collection.
enum Found {
    /// Nothing, and all commits are known.
    Nothing,
    /// Nothing, but commits are missing in which it may have been.
    Unknown,
    /// These records, the earliest first.
    Records(Vec<Record>),
}

/// Reads what has been collected from the input, and checks that it is that.
pub(super) fn start<E: Example>(
    input: &mut impl Iterator<Item = Result<E, Cause>>,
    sink: &impl Sink,
    bounds: &Bounds,
    given: &Record,
    parameters: &[(String, Parameters)],
) -> Result<Start<E>, CollectError> {
    match find(sink, &given.name)? {
        Found::Nothing => Ok(Start { position: 0, digest: empty_digest(), read: Vec::new() }),
        // What those commits said of settings and parameters is not known.
        Found::Unknown => behind_known_ids(input, sink, bounds),
        Found::Records(records) => behind_records(input, &records, given, parameters, bounds),
    }
}

fn find(sink: &impl Sink, name: &str) -> Result<Found, CollectError> {
    let mut records: Vec<Record> = Vec::new();
    let mut is_whole = true;
    for generation in (1..=sink.generation()).rev() {
        let payload = sink.payload(generation);
        let payload = payload
            .map_err(|source| CollectError::Sink { operation: "read the payload of a commit", source })?;
        let Some(payload) = payload else {
            is_whole = false;
            break;
        };
        let record = Record::parse(&payload).map_err(|reason| CollectError::Record { generation, reason })?;
        let Some(record) = record.filter(|record| record.name == name) else { continue };
        let begins = record.start == 0;
        if records.last().is_some_and(|later| later.start != record.end) {
            let reason = format!("it ends at position {}, where no later one goes on", record.end);
            return Err(CollectError::Record { generation, reason });
        }
        records.push(record);
        if begins {
            break;
        }
    }
    records.reverse();
    Ok(match records.is_empty() {
        false => Found::Records(records),
        true if is_whole => Found::Nothing,
        true => Found::Unknown,
    })
}

/// Reads the input up to the end of the last record.
fn behind_records<E: Example>(
    input: &mut impl Iterator<Item = Result<E, Cause>>,
    records: &[Record],
    given: &Record,
    parameters: &[(String, Parameters)],
    bounds: &Bounds,
) -> Result<Start<E>, CollectError> {
    let Some(last) = records.last() else {
        return Ok(Start { position: 0, digest: empty_digest(), read: Vec::new() });
    };
    check_settings(last, given)?;
    for (checkpoint, parameters) in parameters {
        last.check_parameters(checkpoint, parameters)?;
    }
    let mut digest = empty_digest();
    // The first position that no equal digest has covered.
    let mut sure = 0;
    let mut records = records.iter().peekable();
    for position in 0..last.end {
        let example = input.next().transpose().map_err(|source| CollectError::Input { position, source })?;
        let Some(example) = example else {
            return Err(CollectError::InputChanged { first: position, last: position, id: None });
        };
        let id = || Some(example.id().to_owned());
        let Some(record) = records.peek() else { break };
        if record.start == position && record.digest_before != digest {
            return Err(CollectError::InputChanged {
                first: sure,
                last: position.saturating_sub(1),
                id: None,
            });
        }
        let (next, tag) = extended(&digest, &example, bounds);
        if record.tag(position).is_some_and(|recorded| recorded != tag) {
            return Err(CollectError::InputChanged { first: position, last: position, id: id() });
        }
        digest = next;
        if position + 1 == record.end {
            if record.digest != digest {
                return Err(CollectError::InputChanged { first: sure, last: position, id: id() });
            }
            sure = position + 1;
            records.next();
        }
    }
    Ok(Start { position: last.end, digest, read: Vec::new() })
}

/// Whether the batches of another run would be made as those of the record, and from such models.
fn check_settings(last: &Record, given: &Record) -> Result<(), CollectError> {
    let limit = |tokens: Option<u64>| tokens.map_or("no limit".to_owned(), |tokens| tokens.to_string());
    let of = |record: &Record| {
        let settings = &record.settings;
        let observe = settings.observe.as_ref();
        let observe = observe.map(|it| format!("{} tokens for {:?}", it.tokens, it.curvature));
        [
            ("rows", settings.rows.name().to_owned()),
            ("window_rows", settings.window_rows.to_string()),
            ("batch_rows", settings.batch_rows.to_string()),
            ("batch_tokens", settings.batch_tokens.to_string()),
            ("max_tokens", limit(settings.max_tokens)),
            ("observe", observe.unwrap_or_else(|| "nothing".to_owned())),
            ("checkpoints", format!("{:?}", record.checkpoints())),
            ("weights", format!("{:?}", record.weights)),
        ]
    };
    if let Some(((setting, recorded), (_, given))) = of(last).into_iter().zip(of(given)).find(|(a, b)| a != b)
    {
        return Err(CollectError::SettingChanged { setting, recorded, given });
    }
    Ok(())
}

/// Reads windows as long as one of their examples is there: whole windows were committed, so the others of them have
/// failed, or were deleted.
fn behind_known_ids<E: Example>(
    input: &mut impl Iterator<Item = Result<E, Cause>>,
    sink: &impl Sink,
    bounds: &Bounds,
) -> Result<Start<E>, CollectError> {
    let mut start = Start { position: 0, digest: empty_digest(), read: Vec::new() };
    loop {
        let mut window = Window::new(start.position);
        while !window.is_complete(bounds) {
            let position = start.position + window.examples.len() as u64;
            match input.next().transpose().map_err(|source| CollectError::Input { position, source })? {
                Some(example) => window.push(example, bounds),
                None => break,
            }
        }
        let mut is_there = false;
        for example in &window.examples {
            let found = sink.contains(example.id());
            is_there |=
                found.map_err(|source| CollectError::Sink { operation: "look up an example", source })?;
        }
        if !is_there {
            start.read = window.examples;
            return Ok(start);
        }
        for example in &window.examples {
            start.digest = extended(&start.digest, example, bounds).0;
        }
        start.position += window.examples.len() as u64;
    }
}
