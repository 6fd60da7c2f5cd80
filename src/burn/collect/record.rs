//! What a commit's payload says of a collection. `format-spec/collect.md` specifies the JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::RowKind;
use super::error::CollectError;
use super::example::Example;
use super::failure::{Failure, Reason};
use super::plan::{Bounds, Observe, drawn};
use crate::burn::parameters::hex;
use crate::burn::{BurnError, Parameters};
use crate::index::Snapshot;

const KEY: &str = "gradix_collect";
const VERSION: u64 = 1;
/// The length of the JSON of all lists of parameters up to which they are recorded, besides their digests.
const MAX_LISTS: usize = 128 << 10;

/// The digest of the empty input, as hexadecimal digits.
pub(super) fn empty_digest() -> String {
    hex(&[0; 32])
}

/// The digest of the input up to an example, from that up to the one before it; and the example's tag.
pub(super) fn extended<E: Example>(digest: &str, example: &E, bounds: &Bounds) -> (String, String) {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update(bytes.len().to_string());
        hash.update(":");
        hash.update(bytes);
    };
    field(example.id());
    field(example.tokens().to_string().as_bytes());
    field(example.source().unwrap_or_default().as_bytes());
    field(example.metadata());
    for span in example.spans() {
        field(span.to_string().as_bytes());
    }
    for token in drawn(example, bounds) {
        field(format!("observed {token}").as_bytes());
    }
    let own = hex(&hash.finalize());
    let mut tag = own.clone();
    tag.truncate(TAG);
    (hex(&Sha256::digest(format!("{digest}{own}"))), tag)
}

/// Digits of a tag.
pub(super) const TAG: usize = 8;

/// What a commit records of a collection: the examples between two positions of the input, and those among them
/// that have no rows. A collector writes it as the commit's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The collection's [name](super::Collector::named).
    pub name: String,
    /// The position of the commit's first example.
    pub start: u64,
    /// The position behind its last one.
    pub end: u64,
    /// Its rows.
    pub rows: u64,
    /// The examples without rows, in the order of the input.
    pub failures: Vec<Failure>,
    pub(super) digest_before: String,
    pub(super) digest: String,
    /// [`TAG`] digits for each example.
    pub(super) tags: String,
    pub(super) settings: Settings,
    /// What the collector was told of the weights: [`Collector::weights`](super::Collector::weights).
    pub weights: String,
    pub(super) parameters: Vec<Recorded>,
}

/// The parameters of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded {
    /// The checkpoint's prefix, or nothing.
    pub checkpoint: String,
    pub digest: String,
    /// `None` if another checkpoint with the same digest has it, or if the lists are too long.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    list: Option<Parameters>,
}

/// What a commit records of each checkpoint's parameters.
pub(super) fn recorded(checkpoints: Vec<(String, Parameters)>) -> Result<Vec<Recorded>, serde_json::Error> {
    let mut all: Vec<Recorded> = Vec::new();
    let mut bytes = 0;
    for (checkpoint, parameters) in checkpoints {
        let digest = parameters.digest();
        let is_new = all.iter().all(|other| other.digest != digest);
        let list = is_new.then_some(parameters);
        bytes += serde_json::to_vec(&list)?.len();
        all.push(Recorded { checkpoint, digest, list });
    }
    if bytes > MAX_LISTS {
        all.iter_mut().for_each(|it| it.list = None);
    }
    Ok(all)
}

/// How the parameters of rows differ from others: the parameter at which they part, and what is different.
pub(super) fn difference(rows: &Parameters, given: &Parameters) -> Option<(String, String)> {
    let shape =
        |shape: Option<Vec<usize>>| shape.map_or("is not there".into(), |it| format!("has the shape {it:?}"));
    match rows.check(given) {
        Ok(()) => None,
        Err(BurnError::OtherParameters { parameter, rows, queries }) => {
            let reason = format!("{parameter:?} {} in it, and {} there", shape(queries), shape(rows));
            Some((parameter, reason))
        }
        Err(BurnError::OtherOrder { parameter }) => {
            let reason = format!("{parameter:?} is at another place among them");
            Some((parameter, reason))
        }
        Err(other) => Some((String::new(), other.to_string())),
    }
}

/// What decides which pieces share a batch, and what a row is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub rows: RowKind,
    pub window_rows: u64,
    pub batch_rows: u64,
    pub batch_tokens: u64,
    /// `None` for no limit.
    pub max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observe: Option<Observe>,
}

impl Settings {
    pub fn new(bounds: &Bounds) -> Self {
        let number = |number: usize| number as u64;
        let limit = (bounds.max_tokens != usize::MAX).then_some(number(bounds.max_tokens));
        Self {
            rows: bounds.rows,
            window_rows: number(bounds.window_rows),
            batch_rows: number(bounds.batch_rows),
            batch_tokens: number(bounds.batch_tokens),
            max_tokens: limit,
            observe: bounds.observe.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    gradix_collect: u64,
    name: String,
    start: u64,
    end: u64,
    rows: u64,
    digest_before: String,
    digest: String,
    tags: String,
    settings: Settings,
    weights: String,
    parameters: Vec<Recorded>,
    failures: Vec<JsonFailure>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFailure {
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    id: Option<String>,
    /// In place of `id` where that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    id_hex: Option<String>,
    reason: Reason,
    detail: String,
}

impl Record {
    /// The record of nothing yet.
    pub(super) fn new(name: &str, settings: Settings, weights: &str, parameters: Vec<Recorded>) -> Self {
        Self {
            name: name.to_owned(),
            start: 0,
            end: 0,
            rows: 0,
            failures: Vec::new(),
            digest_before: empty_digest(),
            digest: empty_digest(),
            tags: String::new(),
            settings,
            weights: weights.to_owned(),
            parameters,
        }
    }

    /// The same where the collection goes on at a position.
    pub(super) fn from(self, position: u64, digest: String) -> Self {
        Self { start: position, end: position, digest_before: digest.clone(), digest, ..self }
    }

    /// The record of what comes behind this one, as long as nothing does.
    pub(super) fn next(&self) -> Self {
        Self {
            start: self.end,
            rows: 0,
            failures: Vec::new(),
            digest_before: self.digest.clone(),
            tags: String::new(),
            ..self.clone()
        }
    }

    /// The last record of the collection with this name in the commits up to a snapshot's; `None` if there is none, or
    /// none that has been kept. Records of parts that were [attached](crate::Writer::attach) are not in the index: they
    /// are payloads of the [parts](crate::Part).
    ///
    /// # Errors
    /// The index cannot be read, or a payload is not as a collector writes it.
    pub fn last(snapshot: &Snapshot, name: &str) -> Result<Option<Self>, CollectError> {
        for generation in (1..=snapshot.generation()).rev() {
            let payload = snapshot.payload_of(generation).map_err(|source| CollectError::Sink {
                operation: "read the payload of a commit",
                source: source.into(),
            })?;
            let Some(payload) = payload else { return Ok(None) };
            let record =
                Self::parse(&payload).map_err(|reason| CollectError::Record { generation, reason })?;
            if let Some(record) = record.filter(|record| record.name == name) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Checks that these parameters, those of a model that makes queries, are those of a checkpoint of the rows: the same
    /// names, shapes and order. The checkpoint is its prefix, or empty if there are no prefixes. It says nothing of their
    /// values; compare [`Record::weights`] for that.
    ///
    /// # Errors
    /// [`CollectError::OtherCheckpoint`] if the rows have no such checkpoint, [`CollectError::OtherParameters`] otherwise.
    pub fn check_parameters(&self, checkpoint: &str, parameters: &Parameters) -> Result<(), CollectError> {
        let Some(recorded) = self.parameters.iter().find(|it| it.checkpoint == checkpoint) else {
            let expected = self.checkpoints().iter().map(|&it| it.to_owned()).collect();
            return Err(CollectError::OtherCheckpoint { given: checkpoint.to_owned(), expected });
        };
        let digest = parameters.digest();
        if recorded.digest == digest {
            return Ok(());
        }
        let same = self.parameters.iter().filter(|it| it.digest == recorded.digest);
        let list = same.filter_map(|it| it.list.as_ref()).next();
        let (parameter, reason) = match list.and_then(|list| difference(list, parameters)) {
            Some((parameter, reason)) => (Some(parameter), reason),
            None => (None, format!("their digest is {digest}, and {} there", recorded.digest)),
        };
        let (checkpoint, than) = (checkpoint.to_owned(), "the rows");
        Err(CollectError::OtherParameters { device: None, checkpoint, than, parameter, reason })
    }

    /// The record in a commit's payload; `None` if the payload is something else. See
    /// [`Snapshot::payload`](crate::Snapshot::payload).
    ///
    /// # Errors
    /// The payload is a record, but of another version, or not as `format-spec/collect.md` has it: what is wrong.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, String> {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return Ok(None) };
        let Some(version) = value.get(KEY) else { return Ok(None) };
        if version.as_u64() != Some(VERSION) {
            return Err(format!("it has version {version}; this version of gradix reads {VERSION}"));
        }
        let json: Json = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let examples = json.end.checked_sub(json.start).ok_or("it ends before it starts")?;
        let is_hex =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !(is_hex(&json.tags) && is_hex(&json.digest) && is_hex(&json.digest_before)) {
            return Err("a digest is not hexadecimal".into());
        }
        if json.tags.len() as u64 != examples.saturating_mul(TAG as u64) {
            return Err(format!("{} digits of tags for {examples} examples", json.tags.len()));
        }
        let failures = json.failures.into_iter().map(Failure::try_from).collect::<Result<_, _>>()?;
        Ok(Some(Self {
            name: json.name,
            start: json.start,
            end: json.end,
            rows: json.rows,
            failures,
            digest_before: json.digest_before,
            digest: json.digest,
            tags: json.tags,
            settings: json.settings,
            weights: json.weights,
            parameters: json.parameters,
        }))
    }

    /// The prefixes of the checkpoints of which the rows are.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<&str> {
        self.parameters.iter().map(|it| it.checkpoint.as_str()).collect()
    }

    pub(super) fn to_payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Json {
            gradix_collect: VERSION,
            name: self.name.clone(),
            start: self.start,
            end: self.end,
            rows: self.rows,
            digest_before: self.digest_before.clone(),
            digest: self.digest.clone(),
            tags: self.tags.clone(),
            settings: self.settings.clone(),
            weights: self.weights.clone(),
            parameters: self.parameters.clone(),
            failures: self.failures.iter().map(JsonFailure::from).collect(),
        })
    }

    /// Adds an example of the input.
    pub(super) fn push<E: Example>(&mut self, example: &E, bounds: &Bounds) {
        let (digest, tag) = extended(&self.digest, example, bounds);
        self.digest = digest;
        self.tags.push_str(&tag);
        self.end += 1;
    }

    /// The tag of the example at a position; `None` if the commit does not have it.
    pub(super) fn tag(&self, position: u64) -> Option<&str> {
        let start = usize::try_from(position.checked_sub(self.start)?).ok()?.checked_mul(TAG)?;
        self.tags.get(start..start + TAG)
    }
}

impl From<&Failure> for JsonFailure {
    fn from(failure: &Failure) -> Self {
        let id = str::from_utf8(&failure.id).ok().map(str::to_owned);
        let id_hex = id.is_none().then(|| hex(&failure.id));
        let (position, reason, detail) = (failure.position, failure.reason, failure.detail.clone());
        Self { position, id, id_hex, reason, detail }
    }
}

impl TryFrom<JsonFailure> for Failure {
    type Error = String;

    fn try_from(json: JsonFailure) -> Result<Self, String> {
        let id = match (json.id, json.id_hex) {
            (Some(id), None) => id.into_bytes(),
            (None, Some(digits)) => unhex(&digits).ok_or("an id_hex is not hexadecimal")?,
            _ => return Err("a failure has one of id and id_hex".into()),
        };
        Ok(Self { position: json.position, id, reason: json.reason, detail: json.detail })
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burn::collect::plan::Bounds;

    fn parameters(count: usize) -> Parameters {
        let list: Vec<_> =
            (0..count).map(|layer| (format!("layers.{layer}.query.weight"), [64, 64])).collect();
        serde_json::from_value(serde_json::to_value(list).unwrap()).unwrap()
    }

    fn record(checkpoints: Vec<(String, Parameters)>) -> Record {
        let bounds = Bounds {
            rows: RowKind::Losses,
            window_rows: 1,
            batch_rows: 1,
            batch_tokens: 1,
            max_tokens: usize::MAX,
            observe: None,
        };
        Record::new("", Settings::new(&bounds), "", recorded(checkpoints).unwrap())
    }

    /// Would catch lists of parameters that leave no room for tags, and a difference that is missed without them.
    #[test]
    fn lists_of_parameters_are_bounded() {
        let record = |count| record(["a", "b"].map(|it| (it.to_owned(), parameters(count))).into());
        let small = record(100);
        let bytes = small.to_payload().unwrap();
        assert_eq!(Record::parse(&bytes).unwrap().unwrap(), small);
        assert!(bytes.len() < 5000, "{} bytes: the second checkpoint needs no list of its own", bytes.len());
        let error = small.check_parameters("b", &parameters(99)).unwrap_err().to_string();
        assert!(error.contains("\"layers.99.query.weight\" is not there in it"), "{error}");
        let large = record(10_000);
        assert!(large.to_payload().unwrap().len() < 1000);
        large.check_parameters("b", &parameters(10_000)).unwrap();
        let error = large.check_parameters("b", &parameters(9999)).unwrap_err();
        assert!(matches!(error, CollectError::OtherParameters { parameter: None, .. }), "{error:?}");
    }
}
