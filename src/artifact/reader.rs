//! Opens an artifact file, and reads and checks its regions.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::error::ArtifactError;
use super::file_name;
use super::layout::{self, ArtifactKind, CHUNK, CONTAINER_VERSION, ENTRY, HEADER, MAGIC, Region, TAIL};
use crate::segment::Identity;
use crate::segment::storage::{Storage, StorageBytes};

/// An open artifact file.
#[derive(Debug)]
pub(crate) struct ArtifactReader {
    bytes: Arc<dyn StorageBytes>,
    name: String,
    artifact: Uuid,
    kind: ArtifactKind,
    places: Vec<Place>,
    /// The checksums of all chunks, region by region.
    crcs: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    region: Region,
    offset: u64,
    first_crc: usize,
}

impl ArtifactReader {
    /// Opens an artifact of the index, and checks header, table and tail against the file's size.
    pub fn open(storage: &dyn Storage, identity: &Identity, artifact: Uuid) -> Result<Self, ArtifactError> {
        let file = file_name(artifact);
        let name = storage.describe(&file);
        let failed = |operation| {
            let file = name.clone();
            move |source| ArtifactError::Io { file, operation, source }
        };
        let bytes = storage.open(&file).map_err(failed("open"))?;
        let length = StorageBytes::len(&*bytes);
        let damaged =
            |offset: u64, reason: String| ArtifactError::Damaged { file: name.clone(), offset, reason };
        let read = |offset: u64, buffer: &mut [u8]| {
            bytes.read_at(offset, buffer).map_err(|error| unreadable(&name, offset, &error))
        };
        let mut magic = [0; MAGIC.len()];
        if length >= MAGIC.len() as u64 {
            read(0, &mut magic)?;
        }
        if magic != MAGIC {
            return Err(ArtifactError::NotAnArtifact { file: name });
        }
        let Some(table_end) = length.checked_sub(TAIL as u64).filter(|&end| end >= HEADER as u64) else {
            return Err(damaged(length, "the file ends here, before header and tail".into()));
        };
        let mut header = [0; HEADER];
        read(0, &mut header)?;
        let header = layout::parse_header(&header).map_err(|(offset, reason)| damaged(offset, reason))?;
        if header.version > CONTAINER_VERSION {
            let (found, supported) = (header.version, CONTAINER_VERSION);
            return Err(ArtifactError::Newer { file: name, found, supported });
        }
        if header.features_read != 0 {
            return Err(ArtifactError::UnknownFeature { file: name, bits: header.features_read });
        }
        if header.index != identity.index {
            let (found, expected) = (header.index, identity.index);
            return Err(ArtifactError::Foreign { file: name, found, expected });
        }
        if header.artifact != artifact {
            return Err(ArtifactError::Misplaced { file: name, found: header.artifact });
        }
        if header.schema_digest != identity.schema_digest {
            return Err(ArtifactError::OtherSchema { file: name });
        }
        let kind = header.kind.filter(|_| header.version == CONTAINER_VERSION);
        let kind = kind.ok_or_else(|| damaged(8, "container version 0, or an unknown kind".into()))?;
        let mut tail = [0; TAIL];
        read(table_end, &mut tail)?;
        let tail =
            layout::parse_tail(&tail).map_err(|(offset, reason)| damaged(table_end + offset, reason))?;
        let is_there = tail.table_offset >= HEADER as u64
            && tail.table_offset.checked_add(tail.table_bytes) == Some(table_end);
        let entry_bytes = u64::from(tail.regions) * ENTRY as u64;
        if !is_there || entry_bytes > tail.table_bytes {
            return Err(damaged(table_end, "the table does not fit into the file".into()));
        }
        // Not longer than the file.
        let mut table = vec![0; usize::try_from(tail.table_bytes).unwrap_or(usize::MAX)];
        read(tail.table_offset, &mut table)?;
        if layout::table_crc(&table) != tail.table_crc {
            return Err(damaged(tail.table_offset, "the table's checksum does not match".into()));
        }
        let (entries, crcs) = table.split_at(usize::try_from(entry_bytes).unwrap_or(usize::MAX));
        let crcs: Vec<u32> = (0..crcs.len() / 4).map(|at| layout::crc_at(crcs, 4 * at)).collect();
        let (mut places, mut offset, mut first_crc) = (Vec::new(), HEADER as u64, 0u64);
        for (at, entry) in entries.chunks_exact(ENTRY).enumerate() {
            let fault = |reason| damaged(tail.table_offset + (at * ENTRY) as u64, reason);
            let region = layout::parse_entry(entry, kind).map_err(fault)?;
            let bytes = region.count.checked_mul(kind.width());
            let end = bytes.and_then(|bytes| offset.checked_add(bytes));
            let (Some(bytes), Some(end)) = (bytes, end.filter(|&end| end <= tail.table_offset)) else {
                return Err(fault(format!("{} numbers do not fit into the file", region.count)));
            };
            places.push(Place {
                region,
                offset,
                first_crc: usize::try_from(first_crc).unwrap_or(usize::MAX),
            });
            (offset, first_crc) = (end, first_crc + layout::chunks(bytes));
        }
        if offset != tail.table_offset || first_crc * 4 != tail.table_bytes - entry_bytes {
            return Err(damaged(table_end, "regions and checksums do not fill the file".into()));
        }
        Ok(Self { bytes, name, artifact, kind, places, crcs })
    }

    /// The file, in messages.
    pub fn file(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> ArtifactKind {
        self.kind
    }

    /// The length of the file.
    pub fn bytes(&self) -> u64 {
        StorageBytes::len(&*self.bytes)
    }

    pub fn regions(&self) -> impl ExactSizeIterator<Item = &Region> {
        self.places.iter().map(|place| &place.region)
    }

    /// The numbers of a region of sums, which are finite.
    pub fn f64s(&self, ordinal: usize) -> Result<Vec<f64>, ArtifactError> {
        let place = self.place(ordinal, ArtifactKind::Sums)?;
        let mut numbers = Vec::new();
        // The file is long enough for them.
        numbers.reserve_exact(usize::try_from(place.region.count).unwrap_or(usize::MAX));
        self.chunks(ordinal, 0..place.region.count, |bytes, _| numbers.extend(layout::f64s(bytes)))?;
        match numbers.iter().position(|number| !number.is_finite()) {
            None => Ok(numbers),
            Some(at) => Err(self.damaged(place.offset + 8 * at as u64, format!("a sum of {}", numbers[at]))),
        }
    }

    /// Some numbers of a region with a number for each row, which are finite and not negative.
    pub fn f32s(&self, ordinal: usize, rows: Range<u64>) -> Result<Vec<f32>, ArtifactError> {
        let place = self.place(ordinal, ArtifactKind::SelfInfluence)?;
        if rows.start > rows.end || rows.end > place.region.count {
            let reason = format!("rows {rows:?} of {}", place.region.count);
            return Err(self.damaged(place.offset, reason));
        }
        let mut numbers = Vec::new();
        self.chunks(ordinal, rows.clone(), |bytes, range| {
            numbers.extend(layout::f32s(&bytes[range]));
        })?;
        match numbers.iter().position(|number| !(number.is_finite() && *number >= 0.0)) {
            None => Ok(numbers),
            Some(at) => {
                let offset = place.offset + 4 * (rows.start + at as u64);
                Err(self.damaged(offset, format!("a root of {}", numbers[at])))
            }
        }
    }

    /// Checks every chunk, and reports each that is damaged.
    pub fn verify(&self, mut found: impl FnMut(ArtifactError)) {
        for (ordinal, place) in self.places.iter().enumerate() {
            let width = self.kind.width();
            for start in (0..place.region.count).step_by(CHUNK / 8) {
                let numbers = start..(start + (CHUNK / 8) as u64).min(place.region.count);
                let checked = match width {
                    4 => self.f32s(ordinal, numbers).map(drop),
                    _ => self.chunks(ordinal, numbers, |_, _| ()),
                };
                checked.unwrap_or_else(&mut found);
            }
        }
    }

    /// The digest of the whole file, as stored in the manifest.
    pub fn sha256(&self) -> Result<[u8; 32], ArtifactError> {
        let (mut digest, length) = (Sha256::new(), self.bytes());
        let mut buffer = Vec::new();
        for start in (0..length).step_by(16 * CHUNK) {
            let end = length.min(start + (16 * CHUNK) as u64);
            buffer.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
            self.read(start, &mut buffer)?;
            digest.update(&buffer);
        }
        Ok(digest.finalize().into())
    }

    /// An error of this file.
    pub fn damaged(&self, offset: u64, reason: String) -> ArtifactError {
        ArtifactError::Damaged { file: self.name.clone(), offset, reason }
    }

    fn place(&self, ordinal: usize, kind: ArtifactKind) -> Result<&Place, ArtifactError> {
        match self.places.get(ordinal) {
            Some(place) if self.kind == kind => Ok(place),
            _ => Err(self.damaged(HEADER as u64, format!("region {ordinal} of {kind:?} is not there"))),
        }
    }

    /// Reads and checks the chunks that contain some numbers of a region, one after the other. `each` gets a chunk's
    /// bytes and the range of the numbers in them.
    fn chunks(
        &self,
        ordinal: usize,
        numbers: Range<u64>,
        mut each: impl FnMut(&[u8], Range<usize>),
    ) -> Result<(), ArtifactError> {
        let place = &self.places[ordinal];
        let width = self.kind.width();
        let (start, end) = (numbers.start * width, numbers.end * width);
        let length = place.region.count * width;
        let mut buffer = Vec::new();
        for chunk in start / CHUNK as u64..layout::chunks(end) {
            let from = chunk * CHUNK as u64;
            let bytes = length.min(from + CHUNK as u64) - from;
            buffer.resize(usize::try_from(bytes).unwrap_or(CHUNK), 0);
            self.read(place.offset + from, &mut buffer)?;
            let (region, number) = (u32::try_from(ordinal), u32::try_from(chunk));
            let expected = usize::try_from(chunk).ok().and_then(|at| self.crcs.get(place.first_crc + at));
            let (Ok(region), Ok(number), Some(&expected)) = (region, number, expected) else {
                return Err(self.damaged(place.offset + from, format!("chunk {chunk} has no checksum")));
            };
            if layout::chunk_crc(self.artifact, region, number, &buffer) != expected {
                let reason = format!("the checksum of chunk {chunk} of region {ordinal} does not match");
                return Err(self.damaged(place.offset + from, reason));
            }
            let within = |at: u64| usize::try_from(at.clamp(from, from + bytes) - from).unwrap_or(CHUNK);
            each(&buffer, within(start)..within(end));
        }
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ArtifactError> {
        self.bytes.read_at(offset, buffer).map_err(|error| unreadable(&self.name, offset, &error))
    }
}

fn unreadable(file: &str, offset: u64, error: &io::Error) -> ArtifactError {
    let file = file.to_owned();
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArtifactError::Damaged { file, offset, reason: "the file ends here".into() };
    }
    let source = io::Error::new(error.kind(), format!("at offset {offset}: {error}"));
    ArtifactError::Io { file, operation: "read", source }
}
