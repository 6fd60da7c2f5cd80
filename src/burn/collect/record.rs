//! What a commit's payload says of a collection. `format-spec/collect.md` specifies the JSON.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::example::Example;
use super::failure::{Failure, Reason};
use super::plan::Bounds;

const KEY: &str = "gradix_collect";
const VERSION: u64 = 1;

/// The digest of the empty input, as hexadecimal digits.
pub(super) fn empty_digest() -> String {
    hex(&[0; 32])
}

/// The digest of the input up to an example, from that up to the one before it; and the example's tag.
pub(super) fn extended<E: Example>(digest: &str, example: &E) -> (String, String) {
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
    let own = hex(&hash.finalize());
    let mut tag = own.clone();
    tag.truncate(TAG);
    (hex(&Sha256::digest(format!("{digest}{own}"))), tag)
}

/// Digits of a tag.
pub(super) const TAG: usize = 8;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

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
}

/// What decides which pieces share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub window_rows: u64,
    pub batch_rows: u64,
    pub batch_tokens: u64,
    /// `None` for no limit.
    pub max_tokens: Option<u64>,
}

impl Settings {
    pub fn new(bounds: &Bounds) -> Self {
        let number = |number: usize| number as u64;
        let limit = (bounds.max_tokens != usize::MAX).then_some(number(bounds.max_tokens));
        Self {
            window_rows: number(bounds.window_rows),
            batch_rows: number(bounds.batch_rows),
            batch_tokens: number(bounds.batch_tokens),
            max_tokens: limit,
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
    pub(super) fn new(name: &str, start: u64, digest: String, settings: Settings) -> Self {
        Self {
            name: name.to_owned(),
            start,
            end: start,
            rows: 0,
            failures: Vec::new(),
            digest_before: digest.clone(),
            digest,
            tags: String::new(),
            settings,
        }
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
        }))
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
            settings: self.settings,
            failures: self.failures.iter().map(JsonFailure::from).collect(),
        })
    }

    /// Adds an example of the input.
    pub(super) fn push<E: Example>(&mut self, example: &E) {
        let (digest, tag) = extended(&self.digest, example);
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
