//! The bytes of an artifact file: header, table and tail, and the checksums of chunks.

use uuid::Uuid;

use crate::bytes::{array_at, u32_at, u64_at, uuid_at};
use crate::segment::Identity;

pub(super) const MAGIC: [u8; 8] = *b"\x89GDR\r\n\x1a\n";
pub(super) const CONTAINER_VERSION: u32 = 1;
pub(super) const HEADER: usize = 128;
pub(super) const ENTRY: usize = 96;
pub(super) const TAIL: usize = 64;
/// The bytes of a region that one checksum covers.
pub(super) const CHUNK: usize = 1 << 16;

/// What an artifact holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArtifactKind {
    /// Sums over rows, one region for each block.
    Sums,
    /// The roots of the self-influence of rows, one region for each segment and block.
    SelfInfluence,
}

impl ArtifactKind {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Sums => 1,
            Self::SelfInfluence => 2,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        [Self::Sums, Self::SelfInfluence].into_iter().find(|kind| kind.code() == code)
    }

    /// The bytes of one number.
    pub(super) const fn width(self) -> u64 {
        match self {
            Self::Sums => 8,
            Self::SelfInfluence => 4,
        }
    }
}

/// The description of a region: what its numbers are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Region {
    /// The segment of the rows; nil for sums.
    pub segment: Uuid,
    /// The block's ordinal in the schema.
    pub block: u32,
    pub dims: u32,
    /// Sums: columns of the test matrix; 0: the full Gram matrix.
    pub width: u32,
    /// Self-influence: the rank; 0: none was asked for.
    pub rank: u32,
    /// The rows that were summed, or of the segment.
    pub rows: u64,
    /// Sums: the sum of squared norms.
    pub power: f64,
    /// Self-influence: the damping.
    pub kappa: f64,
    /// Self-influence: the sums that it was computed with.
    pub sums: Uuid,
    /// The number of its numbers.
    pub count: u64,
}

pub(super) fn header(identity: &Identity, artifact: Uuid, kind: ArtifactKind) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&CONTAINER_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&kind.code().to_le_bytes());
    bytes[40..56].copy_from_slice(identity.index.as_bytes());
    bytes[56..72].copy_from_slice(artifact.as_bytes());
    bytes[72..104].copy_from_slice(&identity.schema_digest);
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A header whose checksum and magic are right.
pub(super) struct Header {
    pub version: u32,
    pub features_read: u64,
    pub index: Uuid,
    pub artifact: Uuid,
    pub schema_digest: [u8; 32],
    /// `None`: a kind that this version does not know.
    pub kind: Option<ArtifactKind>,
}

/// `Err`: the offset and the fault. The magic has been compared.
pub(super) fn parse_header(bytes: &[u8; HEADER]) -> Result<Header, (u64, String)> {
    if crc32fast::hash(&bytes[..124]) != u32_at(bytes, 124) {
        return Err((124, "the header's checksum does not match".into()));
    }
    if bytes[104..124] != [0; 20] {
        return Err((104, "reserved bytes that are not zero".into()));
    }
    Ok(Header {
        version: u32_at(bytes, 8),
        features_read: u64_at(bytes, 16),
        index: uuid_at(bytes, 40),
        artifact: uuid_at(bytes, 56),
        schema_digest: array_at(bytes, 72),
        kind: ArtifactKind::from_code(u32_at(bytes, 12)),
    })
}

pub(super) fn entry(region: &Region) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..16].copy_from_slice(region.segment.as_bytes());
    let small = [region.block, region.dims, region.width, region.rank];
    for (at, number) in (16..).step_by(4).zip(small) {
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    bytes[32..40].copy_from_slice(&region.rows.to_le_bytes());
    bytes[40..48].copy_from_slice(&region.power.to_le_bytes());
    bytes[48..56].copy_from_slice(&region.kappa.to_le_bytes());
    bytes[56..72].copy_from_slice(region.sums.as_bytes());
    bytes[72..80].copy_from_slice(&region.count.to_le_bytes());
    bytes
}

pub(super) fn parse_entry(bytes: &[u8], kind: ArtifactKind) -> Result<Region, String> {
    // What the other kind has there.
    let unused = match kind {
        ArtifactKind::Sums => [0..16, 28..32, 48..72, 80..ENTRY],
        ArtifactKind::SelfInfluence => [20..28, 40..48, 80..80, 80..ENTRY],
    };
    if unused.into_iter().any(|part| bytes[part].iter().any(|&byte| byte != 0)) {
        return Err("reserved bytes that are not zero".into());
    }
    let float = |at| f64::from_le_bytes(array_at(bytes, at));
    let (power, kappa) = (float(40), float(48));
    if !(power.is_finite() && power >= 0.0 && kappa.is_finite() && kappa >= 0.0) {
        return Err(format!("a sum of squared norms of {power}, or a damping of {kappa}"));
    }
    Ok(Region {
        segment: uuid_at(bytes, 0),
        block: u32_at(bytes, 16),
        dims: u32_at(bytes, 20),
        width: u32_at(bytes, 24),
        rank: u32_at(bytes, 28),
        rows: u64_at(bytes, 32),
        power,
        kappa,
        sums: uuid_at(bytes, 56),
        count: u64_at(bytes, 72),
    })
}

pub(super) fn tail(table_offset: u64, table_bytes: u64, regions: u32, table_crc: u32) -> [u8; TAIL] {
    let mut bytes = [0; TAIL];
    bytes[..8].copy_from_slice(&table_offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&table_bytes.to_le_bytes());
    bytes[16..20].copy_from_slice(&regions.to_le_bytes());
    bytes[20..24].copy_from_slice(&table_crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    bytes[56..].copy_from_slice(&MAGIC);
    bytes
}

pub(super) struct Tail {
    pub table_offset: u64,
    pub table_bytes: u64,
    pub regions: u32,
    pub table_crc: u32,
}

/// `Err`: the offset in the tail and the fault.
pub(super) fn parse_tail(bytes: &[u8; TAIL]) -> Result<Tail, (u64, String)> {
    if bytes[56..] != MAGIC {
        return Err((56, "the file does not end with an artifact's magic".into()));
    }
    if crc32fast::hash(&bytes[..52]) != u32_at(bytes, 52) {
        return Err((52, "the tail's checksum does not match".into()));
    }
    if bytes[24..52] != [0; 28] {
        return Err((24, "reserved bytes that are not zero".into()));
    }
    Ok(Tail {
        table_offset: u64_at(bytes, 0),
        table_bytes: u64_at(bytes, 8),
        regions: u32_at(bytes, 16),
        table_crc: u32_at(bytes, 20),
    })
}

/// The number of chunks of a region of `bytes` bytes.
pub(super) fn chunks(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK as u64)
}

/// The checksum of a chunk, which a chunk of another place or file does not have.
pub(super) fn chunk_crc(artifact: Uuid, region: u32, chunk: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(artifact.as_bytes());
    hasher.update(&region.to_le_bytes());
    hasher.update(&chunk.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

pub(super) fn table_crc(table: &[u8]) -> u32 {
    crc32fast::hash(table)
}

pub(super) fn crc_bytes(crc: u32) -> [u8; 4] {
    crc.to_le_bytes()
}

pub(super) fn crc_at(table: &[u8], at: usize) -> u32 {
    u32_at(table, at)
}

/// The bytes of some numbers.
pub(super) fn f64_bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(super) fn f32_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(super) fn f64s(bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.as_chunks().0.iter().map(|number| f64::from_le_bytes(*number))
}

pub(super) fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number))
}
