//! What a commit's payload says of an append, so that it can go on where it was killed. Specified by
//! `format-spec/append.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::inputs::{self, TAG};

const VERSION: u64 = 1;
/// The most inputs of one append, so that a record, with 24 digits for each, fits into the 1 MiB of a payload.
pub const MAX_INPUTS: usize = 40_000;

/// The record of an append in a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    gradix_append: u64,
    /// What each input is known again by, one after the other.
    pub tags: String,
    /// What the file of ids of each input is known again by; empty if written before there was this.
    #[serde(default)]
    pub ids: String,
    /// The flags that decide what rows are.
    pub settings: BTreeMap<String, String>,
    /// The input that was reached, from 0, and its rows that are dealt with.
    #[serde(flatten)]
    pub at: Position,
    /// Its path.
    pub path: String,
    /// The digits of the id of the last row before that position; none at the beginning of an input.
    pub last: Option<String>,
    /// The digits of that row's values; records that were written before there were any have none.
    #[serde(default)]
    pub values: Option<String>,
    /// The rows of this commit, and of all commits of the append up to it.
    pub rows: u64,
    pub rows_in_all: u64,
    /// Whether all inputs are dealt with.
    pub done: bool,
    /// What the caller wants to be said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<String>,
}

/// A place in the inputs, between two examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub input: usize,
    pub row: u64,
}

/// How a recorded append and a new one are related.
enum Relation {
    /// They have no input in common.
    Others,
    /// The same inputs and flags.
    Same,
    /// The same, and more inputs behind them.
    Longer,
    /// The same append, but something has changed.
    Changed(String),
}

impl Record {
    /// The record of nothing yet.
    pub fn new(
        paths: &[PathBuf],
        settings: BTreeMap<String, String>,
        payload: Option<String>,
    ) -> Result<Self> {
        if paths.len() > MAX_INPUTS {
            let given = paths.len();
            return Err(Failure::Usage(format!(
                "{given} inputs; one append takes at most {MAX_INPUTS}: append them in several"
            )));
        }
        // A pattern has a brace.
        let ids = settings.get("ids").filter(|ids| !ids.contains('{')).map(Path::new);
        let tags = paths.iter().map(|path| inputs::tag(path)).collect::<Result<Vec<_>>>()?;
        let ids = paths.iter().map(|path| inputs::ids_tag(path, ids)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            gradix_append: VERSION,
            tags: tags.concat(),
            ids: ids.concat(),
            settings,
            at: Position::default(),
            path: String::new(),
            last: None,
            values: None,
            rows: 0,
            rows_in_all: 0,
            done: false,
            payload,
        })
    }

    /// Goes on where an earlier run was.
    pub fn go_on(&mut self, earlier: Self) {
        (self.at, self.path) = (earlier.at, earlier.path);
        (self.last, self.values) = (earlier.last, earlier.values);
        self.rows_in_all = earlier.rows_in_all;
    }

    pub fn to_payload(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Failure::Io {
            what: "write the record of the append".into(),
            source: error.into(),
        })
    }

    /// The record in a payload; `None` if that is something else.
    fn parse(payload: &[u8]) -> Result<Option<Self>, String> {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) else { return Ok(None) };
        let Some(version) = value.get("gradix_append") else { return Ok(None) };
        if version.as_u64() != Some(VERSION) {
            return Err(format!("a record of version {version}; this gradix reads {VERSION}"));
        }
        let record: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if !record.tags.len().is_multiple_of(2 * TAG) || !record.tags.is_ascii() {
            return Err("tags that are cut off".into());
        }
        Ok(Some(record))
    }

    /// Whether one of its inputs can be read only once: the next one of that name is another.
    fn has_stream(&self) -> bool {
        self.tags().any(inputs::is_tag_of_stream)
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.as_bytes().chunks(2 * TAG).map(|tag| str::from_utf8(tag).unwrap_or_default())
    }

    /// How a recorded append is related to this one.
    fn relation(&self, recorded: &Self, paths: &[PathBuf]) -> Relation {
        let path_of = |tag: &str| tag.get(..TAG).unwrap_or_default().to_owned();
        let known: std::collections::HashSet<_> = recorded.tags().map(path_of).collect();
        if !self.tags().any(|tag| known.contains(&path_of(tag))) {
            return Relation::Others;
        }
        let place = |at: usize| paths.get(at).map_or_else(String::new, |path| path.display().to_string());
        let (own, theirs) = (self.tags().count(), recorded.tags().count());
        for (at, (given, then)) in self.tags().zip(recorded.tags()).enumerate() {
            let number = at + 1;
            if path_of(given) != path_of(then) {
                return Relation::Changed(format!(
                    "input {number} is {}; it was another file then",
                    place(at)
                ));
            }
            if given != then {
                return Relation::Changed(format!("input {number}, {}, was changed since", place(at)));
            }
        }
        if own < theirs {
            return Relation::Changed(format!("there are {own} inputs; there were {theirs} then"));
        }
        let mut flags = self.settings.keys().chain(recorded.settings.keys());
        if let Some(flag) = flags.find(|&flag| self.settings.get(flag) != recorded.settings.get(flag)) {
            let said = |settings: &BTreeMap<String, String>| match settings.get(flag) {
                Some(value) => format!("--{flag} {value}"),
                None => format!("no --{flag}"),
            };
            let (now, then) = (said(&self.settings), said(&recorded.settings));
            return Relation::Changed(format!("{now} is given; it was {then} then"));
        }
        // In a list of ids that was not read to its end, what is behind may be put right: the last id that was is compared.
        if recorded.done && !self.ids.starts_with(&recorded.ids) {
            return Relation::Changed("a file of ids was changed since".into());
        }
        if own > theirs { Relation::Longer } else { Relation::Same }
    }
}

/// Where the commits of an index or the parts of a detached writer say how far appends were.
pub trait Payloads {
    /// The number of the last.
    fn last(&self) -> u64;
    /// The payload of one, from 1 on; `None` if there is none any more.
    fn payload(&self, number: u64) -> Result<Option<Vec<u8>>>;
}

/// What earlier commits say of an append.
pub enum Found {
    /// Nothing of it.
    Nothing,
    /// It was not finished; or it was, of fewer inputs, behind which there are more.
    Unfinished(Box<Record>),
    /// It was, by the commit of this number.
    Finished(Box<Record>, u64),
}

/// Looks for the record of this append: the newest of the same inputs, or else the one that has most of the first of them.
/// The newest that shares an input is an error, if it was not finished and an input or a flag has changed since.
pub fn find(payloads: &dyn Payloads, own: &Record, paths: &[PathBuf]) -> Result<Found> {
    let mut shorter: Option<Box<Record>> = None;
    // Whether there is a later append of these inputs, so that an older one need not be finished.
    let mut is_past = false;
    for number in (1..=payloads.last()).rev() {
        // Older ones have been collected too.
        let Some(payload) = payloads.payload(number)? else { break };
        let recorded = Record::parse(&payload).map_err(|reason| Failure::Io {
            what: format!("read the record of commit {number}"),
            source: std::io::Error::other(reason),
        })?;
        let Some(recorded) = recorded else { continue };
        match own.relation(&recorded, paths) {
            Relation::Others => {}
            Relation::Same | Relation::Longer if recorded.done && recorded.has_stream() => break,
            Relation::Same if recorded.done => return Ok(Found::Finished(Box::new(recorded), number)),
            Relation::Same => return Ok(Found::Unfinished(Box::new(recorded))),
            Relation::Longer => {
                let reached = |record: &Record| (record.at.input, record.at.row);
                if shorter.as_deref().is_none_or(|known| reached(known) < reached(&recorded)) {
                    let path = paths.get(recorded.at.input).map_or_else(String::new, |path| path_text(path));
                    shorter = Some(Box::new(Record { path, ..recorded }));
                }
            }
            // Files of the same names with other rows, as of the night after. These may have been appended before.
            Relation::Changed(_) if recorded.done || is_past || shorter.is_some() => is_past = true,
            Relation::Changed(what) => {
                return Err(Failure::Wrong(format!(
                    "cannot go on with the append that reached row {} of {}: {what}; give the same inputs and flags, or leave \
                     --resume out to append these from their beginning",
                    recorded.at.row, recorded.path
                )));
            }
        }
    }
    Ok(shorter.map_or(Found::Nothing, Found::Unfinished))
}

/// The digits by which an id is known again.
pub fn id_digits(id: &[u8]) -> String {
    inputs::digits(id)
}

/// The digits by which the values of a row are known again.
pub fn value_digits(values: &[f32]) -> String {
    inputs::digits_of_values(values)
}

/// A path as a record has it.
pub fn path_text(path: &Path) -> String {
    path.display().to_string()
}
