//! Keys and values as bytes, and the only use of bincode. `format-spec/manifest.md` specifies the bytes;
//! `tests::record_bytes_are_those_of_the_specification` pins them.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The version of all records.
pub(crate) const RECORD_VERSION: u8 = 1;

/// The maximum length in a value, in bytes.
const LIMIT: usize = 1 << 30;

fn config() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<LIMIT>()
}

/// 16 bytes without a length prefix.
type UuidBytes = [u8; 16];

/// `meta` / `index`: the identity of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexRecord {
    pub index: UuidBytes,
    pub schema_digest: [u8; 32],
    pub container_version: u32,
    pub features_read: u64,
    pub features_write: u64,
    pub features_info: u64,
}

/// `meta` / `state`: the newest and the oldest readable generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub generation: u64,
    pub oldest: u64,
}

/// `segments`: one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub rows: u64,
    pub examples: u64,
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub added: u64,
    /// The number of the segment among those that this generation added, in the order of appending.
    pub ordinal: u32,
    pub removed: Option<u64>,
    pub removed_ms: Option<u64>,
}

impl SegmentRecord {
    pub fn is_visible(&self, generation: u64) -> bool {
        self.added <= generation && self.removed.is_none_or(|removed| generation < removed)
    }
}

/// The location of an example's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Location {
    segment: UuidBytes,
    pub first_row: u32,
    pub rows: u32,
}

impl Location {
    pub fn new(segment: Uuid, first_row: u32, rows: u32) -> Self {
        Self { segment: segment.into_bytes(), first_row, rows }
    }

    pub fn segment(&self) -> Uuid {
        Uuid::from_bytes(self.segment)
    }

    /// The row after the last.
    pub fn end(&self) -> u64 {
        u64::from(self.first_row) + u64::from(self.rows)
    }
}

/// The state of an example from a generation on; without a location it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExampleVersion {
    pub generation: u64,
    pub location: Option<Location>,
}

/// `examples`: the versions of one example, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExampleHistory(pub Vec<ExampleVersion>);

impl ExampleHistory {
    pub fn at(&self, generation: u64) -> Option<Location> {
        self.0.iter().rev().find(|version| version.generation <= generation)?.location
    }

    /// Adds a version, and drops those that no readable generation needs.
    pub fn push(&mut self, version: ExampleVersion, oldest: u64) {
        self.0.push(version);
        self.prune(oldest);
    }

    /// Drops the versions that no generation from `oldest` on needs. Returns whether any was dropped.
    pub fn prune(&mut self, oldest: u64) -> bool {
        let before = self.0.len();
        let last_old = self.0.iter().rposition(|version| version.generation <= oldest);
        if let Some(first) = last_old {
            self.0.drain(..first);
            if self.0[0].location.is_none() {
                self.0.remove(0);
            }
        }
        self.0.len() < before
    }
}

/// `commits`: one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitRecord {
    pub time_ms: u64,
    pub payload: Vec<u8>,
    pub appended: u64,
    pub deleted: u64,
    pub segments_added: u32,
    pub segments_removed: u32,
}

/// `deletes`: the dead rows of a segment, a Roaring bitmap in the portable format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeletesRecord(pub Vec<u8>);

/// `intents`: the time at which a file was about to be created or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntentRecord {
    pub time_ms: u64,
}

/// `superseded`: nothing but the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupersededRecord;

/// The file of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactFile {
    artifact: UuidBytes,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

impl ArtifactFile {
    pub fn new(artifact: Uuid, bytes: u64, sha256: [u8; 32]) -> Self {
        Self { artifact: artifact.into_bytes(), bytes, sha256 }
    }

    pub fn artifact(&self) -> Uuid {
        Uuid::from_bytes(self.artifact)
    }
}

/// The rows of a segment that an artifact covers: a Roaring bitmap in the portable format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoverRecord {
    segment: UuidBytes,
    rows: Vec<u8>,
}

/// `artifacts`: what an artifact is from a generation on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactRecord {
    /// Without a file it is dropped.
    pub file: Option<ArtifactFile>,
    /// What it holds: sums of rows (0), sums of sketches that are not stored (1), self-influence of rows (2).
    pub kind: u8,
    /// Rows in the numbers that no segment has any more.
    pub gone: u64,
    covered: Vec<CoverRecord>,
}

/// The kind of an [`ArtifactRecord`]: sums of stored rows.
pub(crate) const SUMS_OF_ROWS: u8 = 0;
/// The kind of an [`ArtifactRecord`]: sums of sketches that are not stored.
pub(crate) const SUMS_OF_OBSERVED: u8 = 1;
/// The kind of an [`ArtifactRecord`]: the self-influence of rows.
pub(crate) const SELF_INFLUENCE: u8 = 2;

impl ArtifactRecord {
    pub fn new(file: ArtifactFile, kind: u8, gone: u64, covered: &Coverage) -> Result<Self, std::io::Error> {
        let cover = |(segment, rows): (&Uuid, &RoaringBitmap)| {
            let mut bytes = Vec::with_capacity(rows.serialized_size());
            rows.serialize_into(&mut bytes)?;
            Ok(CoverRecord { segment: segment.into_bytes(), rows: bytes })
        };
        let covered = covered.iter().filter(|(_, rows)| !rows.is_empty()).map(cover);
        Ok(Self { file: Some(file), kind, gone, covered: covered.collect::<Result<_, std::io::Error>>()? })
    }

    /// The rows that it covers; segments come in the order of their UUIDs.
    pub fn coverage(&self) -> Result<Coverage, String> {
        let mut covered = Coverage::new();
        for CoverRecord { segment, rows } in &self.covered {
            let bitmap = RoaringBitmap::deserialize_from(&rows[..]).map_err(|error| error.to_string())?;
            let segment = Uuid::from_bytes(*segment);
            let is_last = covered.last_key_value().is_none_or(|(last, _)| *last < segment);
            if bitmap.is_empty() || bitmap.serialized_size() != rows.len() || !is_last {
                return Err(format!(
                    "the covered rows of segment {segment} are out of order, empty or too long"
                ));
            }
            covered.insert(segment, bitmap);
        }
        Ok(covered)
    }
}

/// Rows by segment.
pub(crate) type Coverage = BTreeMap<Uuid, RoaringBitmap>;

/// A key of `artifacts`: all generations of a name are adjacent, in order. A name has no byte 0.
pub(crate) fn artifact_key(name: &str, generation: u64) -> Vec<u8> {
    [name.as_bytes(), &[0], &generation.to_be_bytes()].concat()
}

pub(crate) fn parse_artifact_key(key: &[u8]) -> Option<(&str, u64)> {
    let (rest, generation) = key.split_last_chunk()?;
    let (&0, name) = rest.split_last()? else { return None };
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains('\0'))?;
    Some((name, u64::from_be_bytes(*generation)))
}

/// Why a value could not be decoded.
pub(crate) enum Undecoded {
    Newer(u8),
    Damaged(String),
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, bincode::error::EncodeError> {
    let mut bytes = vec![RECORD_VERSION];
    bytes.extend(bincode::serde::encode_to_vec(record, config())?);
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecoded> {
    let Some((&version, body)) = bytes.split_first() else {
        return Err(Undecoded::Damaged("empty value".into()));
    };
    match version {
        RECORD_VERSION => {}
        0 => return Err(Undecoded::Damaged("record version 0".into())),
        newer => return Err(Undecoded::Newer(newer)),
    }
    match bincode::serde::decode_from_slice(body, config()) {
        Ok((record, used)) if used == body.len() => Ok(record),
        Ok((_, used)) => Err(Undecoded::Damaged(format!("{} bytes after the record", body.len() - used))),
        Err(error) => Err(Undecoded::Damaged(error.to_string())),
    }
}

/// A key of `deletes`: all generations of a segment are adjacent, in order.
pub(crate) fn deletes_key(segment: Uuid, generation: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(segment.as_bytes());
    key[16..].copy_from_slice(&generation.to_be_bytes());
    key
}

pub(crate) fn parse_deletes_key(key: &[u8]) -> Option<(Uuid, u64)> {
    let (segment, generation) = key.split_at_checked(16)?;
    Some((Uuid::from_slice(segment).ok()?, u64::from_be_bytes(generation.try_into().ok()?)))
}

/// A key of `superseded`: in the order of generations.
pub(crate) fn superseded_key(generation: u64, id: &[u8]) -> Vec<u8> {
    [&generation.to_be_bytes(), id].concat()
}

pub(crate) fn parse_superseded_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (generation, id) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*generation), id))
}

/// Decodes arbitrary bytes as a value or a key. A decoded record must encode to the same bytes, so that the
/// encoding is canonical and no byte is ignored.
#[cfg(fuzzing)]
pub(crate) fn fuzz_record(kind: u8, bytes: &[u8]) {
    fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
        if let Ok(record) = decode::<T>(bytes) {
            assert_eq!(encode(&record).ok().as_deref(), Some(bytes));
        }
    }
    match kind % 12 {
        0 => check::<IndexRecord>(bytes),
        1 => check::<StateRecord>(bytes),
        2 => check::<SegmentRecord>(bytes),
        3 => check::<ExampleHistory>(bytes),
        4 => check::<CommitRecord>(bytes),
        5 => check::<DeletesRecord>(bytes),
        6 => check::<IntentRecord>(bytes),
        7 => check::<SupersededRecord>(bytes),
        8 => {
            if let Some((generation, id)) = parse_superseded_key(bytes) {
                assert_eq!(superseded_key(generation, id), bytes);
            }
        }
        9 => {
            check::<ArtifactRecord>(bytes);
            if let Ok(record) = decode::<ArtifactRecord>(bytes)
                && let (Some(file), Ok(covered)) = (record.file, record.coverage())
            {
                let again = ArtifactRecord::new(file, record.kind, record.gone, &covered);
                assert_eq!(again.ok().as_ref(), Some(&record));
            }
        }
        10 => {
            if let Some((name, generation)) = parse_artifact_key(bytes) {
                assert_eq!(artifact_key(name, generation), bytes);
            }
        }
        _ => {
            if let Some((segment, generation)) = parse_deletes_key(bytes) {
                assert_eq!(deletes_key(segment, generation), bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Catches an encoder (or a new bincode) whose bytes are not those of format-spec/manifest.md.
    #[test]
    fn record_bytes_are_those_of_the_specification() {
        let state = StateRecord { generation: 258, oldest: 1 };
        assert_eq!(hex(&encode(&state).unwrap()), "0102010000000000000100000000000000");
        let location = Location::new(Uuid::from_bytes([7; 16]), 3, 2);
        let history = ExampleHistory(vec![
            ExampleVersion { generation: 1, location: Some(location) },
            ExampleVersion { generation: 2, location: None },
        ]);
        let expected = format!(
            "01{}{}01{}{}{}{}00",
            "0200000000000000",
            "0100000000000000",
            "07".repeat(16),
            "03000000",
            "02000000",
            "0200000000000000"
        );
        assert_eq!(hex(&encode(&history).unwrap()), expected);
        let commit =
            CommitRecord { time_ms: 5, payload: b"ab".to_vec(), appended: 1, ..CommitRecord::default() };
        let expected =
            "01050000000000000002000000000000006162010000000000000000000000000000000000000000000000";
        assert_eq!(hex(&encode(&commit).unwrap()), expected);
        let segment = SegmentRecord {
            rows: 1,
            examples: 1,
            bytes: 2,
            sha256: [9; 32],
            added: 3,
            ordinal: 5,
            removed: Some(4),
            removed_ms: None,
        };
        let expected = format!(
            "01{}{}{}{}{}{}01{}00",
            "0100000000000000",
            "0100000000000000",
            "0200000000000000",
            "09".repeat(32),
            "0300000000000000",
            "05000000",
            "0400000000000000"
        );
        assert_eq!(hex(&encode(&segment).unwrap()), expected);
    }

    /// Catches keys that do not sort by generation, which a collection reads up to the oldest one.
    #[test]
    fn superseded_keys_sort_by_generation() {
        let (one, two) = (superseded_key(255, b"z"), superseded_key(256, b"a"));
        assert!(one < two);
        assert_eq!(hex(&two), "000000000000010061");
        assert_eq!(hex(&encode(&SupersededRecord).unwrap()), "01");
        assert_eq!(parse_superseded_key(&two), Some((256, &b"a"[..])));
        assert_eq!(parse_superseded_key(&two[..7]), None);
    }

    /// Catches an encoder whose bytes are not those of format-spec/manifest.md, and coverage that does not come back.
    #[test]
    fn artifact_bytes_are_those_of_the_specification() {
        let covered = Coverage::from([(Uuid::from_bytes([7; 16]), RoaringBitmap::from_iter([3, 4]))]);
        let file = ArtifactFile::new(Uuid::from_bytes([5; 16]), 258, [9; 32]);
        let record = ArtifactRecord::new(file, SUMS_OF_OBSERVED, 2, &covered).unwrap();
        let bitmap = "3a300000010000000000010010000000030004 00".replace(' ', "");
        let expected = format!(
            "0101{}{}{}01{}{}{}{}{bitmap}",
            "05".repeat(16),
            "0201000000000000",
            "09".repeat(32),
            "0200000000000000",
            "0100000000000000",
            "07".repeat(16),
            "1400000000000000"
        );
        assert_eq!(hex(&encode(&record).unwrap()), expected);
        assert_eq!(record.coverage(), Ok(covered));
        let dropped = ArtifactRecord::default();
        assert_eq!(hex(&encode(&dropped).unwrap()), format!("0100{}", "00".repeat(17)));
        assert_eq!(hex(&artifact_key("ab", 258)), "6162000000000000000102");
        assert_eq!(parse_artifact_key(&artifact_key("ab", 258)), Some(("ab", 258)));
        assert_eq!(parse_artifact_key(&artifact_key("", 258)), None);
        assert!(artifact_key("ab", 255) < artifact_key("ab", 256));
    }

    /// Catches covered rows of a crafted record that are taken without a look.
    #[test]
    fn coverage_refuses_crafted_bitmaps() {
        let rows = RoaringBitmap::from_iter([3, 4]);
        let file = ArtifactFile::new(Uuid::nil(), 0, [0; 32]);
        let covered = Coverage::from([(Uuid::nil(), rows)]);
        let sound = ArtifactRecord::new(file, SUMS_OF_ROWS, 0, &covered).unwrap();
        let mut cut = sound.clone();
        cut.covered[0].rows.pop();
        assert!(cut.coverage().is_err());
        let mut twice = sound.clone();
        twice.covered.push(sound.covered[0].clone());
        assert!(twice.coverage().is_err());
        let mut longer = sound;
        longer.covered[0].rows.push(0);
        assert!(longer.coverage().is_err());
    }

    /// Catches a decoder that allocates what a crafted length asks for, or ignores what follows.
    #[test]
    fn decode_refuses_crafted_values() {
        let mut huge = vec![1];
        huge.extend(u64::MAX.to_le_bytes());
        assert!(matches!(decode::<ExampleHistory>(&huge), Err(Undecoded::Damaged(_))));
        let mut longer = encode(&StateRecord::default()).unwrap();
        longer.push(0);
        assert!(matches!(decode::<StateRecord>(&longer), Err(Undecoded::Damaged(_))));
        assert!(matches!(decode::<StateRecord>(&[2, 0]), Err(Undecoded::Newer(2))));
        assert!(matches!(decode::<StateRecord>(&[]), Err(Undecoded::Damaged(_))));
    }

    /// Catches history that forgets what an old snapshot still needs, or grows without end.
    #[test]
    fn history_prunes_only_what_nobody_sees() {
        let at = |row| Some(Location::new(Uuid::nil(), row, 1));
        let mut history = ExampleHistory::default();
        history.push(ExampleVersion { generation: 1, location: at(1) }, 0);
        history.push(ExampleVersion { generation: 4, location: None }, 0);
        history.push(ExampleVersion { generation: 5, location: at(5) }, 0);
        let seen = |history: &ExampleHistory| [0, 1, 3, 4, 5, 9].map(|g| history.at(g).map(|l| l.first_row));
        assert_eq!(seen(&history), [None, Some(1), Some(1), None, Some(5), Some(5)]);
        assert!(!history.prune(3));
        assert_eq!(seen(&history), [None, Some(1), Some(1), None, Some(5), Some(5)]);
        assert!(history.prune(4));
        assert_eq!(seen(&history), [None, None, None, None, Some(5), Some(5)]);
        assert_eq!(history.0.len(), 1);
    }
}
