//! Takes a segment apart and puts it together again with right checksums, written from the
//! specification, so that what lies behind the checksums is reached.

pub const PAGE: usize = 4096;
const CHUNK: usize = 65_536;
pub const TAIL: usize = 64;
pub const ENTRY: usize = 64;

pub const CODES: u16 = 1;
pub const SCALES: u16 = 2;
pub const NORMS: u16 = 3;
pub const IDS: u16 = 4;
pub const SPANS: u16 = 5;
pub const SOURCES: u16 = 6;
pub const METADATA: u16 = 7;
pub const NAMES: u16 = 8;
pub const FACTORS: u16 = 9;

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

#[derive(Clone)]
pub struct Part {
    /// The entry of the region table; offset, lengths and compression are set when it is built.
    pub entry: [u8; ENTRY],
    /// The used bytes.
    pub used: Vec<u8>,
    pub raw_len: u64,
    /// Bytes after the used ones, if they are not zeros.
    pub padding: u8,
}

impl Part {
    pub fn kind(&self) -> u16 {
        u16_at(&self.entry, 0)
    }

    pub fn is_compressed(&self) -> bool {
        u16_at(&self.entry, 16) == 1
    }

    /// The contents, decompressed.
    pub fn raw(&self) -> Vec<u8> {
        if self.is_compressed() {
            zstd::bulk::decompress(&self.used, usize::try_from(self.raw_len).unwrap()).unwrap()
        } else {
            self.used.clone()
        }
    }

    pub fn set_raw(&mut self, raw: Vec<u8>) {
        put(&mut self.entry, 16, &0u16.to_le_bytes());
        self.raw_len = raw.len() as u64;
        self.used = raw;
    }

    pub fn set_frame(&mut self, frame: Vec<u8>, raw_len: u64) {
        put(&mut self.entry, 16, &1u16.to_le_bytes());
        self.raw_len = raw_len;
        self.used = frame;
    }
}

/// A segment in parts.
#[derive(Clone)]
pub struct Craft {
    header: Vec<u8>,
    pub rows: u64,
    pub blocks: u32,
    pub groups: Vec<u32>,
    pub parts: Vec<Part>,
}

/// Where the footer begins.
pub fn footer_start(file: &[u8]) -> usize {
    usize::try_from(u64_at(file, file.len() - TAIL)).unwrap()
}

impl Craft {
    pub fn new(file: &[u8]) -> Self {
        let footer = &file[footer_start(file)..file.len() - TAIL];
        let (groups, regions) = (u32_at(footer, 8) as usize, u32_at(footer, 16) as usize);
        let table = 32 + 8 * groups;
        let parts = (0..regions).map(|i| {
            let entry: [u8; ENTRY] = footer[table + i * ENTRY..][..ENTRY].try_into().unwrap();
            let offset = usize::try_from(u64_at(&entry, 24)).unwrap();
            let used = usize::try_from(u64_at(&entry, 40)).unwrap();
            let raw_len = u64_at(&entry, 48);
            Part { entry, used: file[offset..offset + used].to_vec(), raw_len, padding: 0 }
        });
        Self {
            header: file[..PAGE].to_vec(),
            rows: u64_at(footer, 0),
            blocks: u32_at(footer, 12),
            groups: (0..groups).map(|g| u32_at(footer, 32 + g * 8)).collect(),
            parts: parts.collect(),
        }
    }

    /// The codes of a block in a tier, or its factors with those of the other blocks.
    pub fn tier_part(&mut self, kind: u16, tier: u16, block: u32) -> &mut Part {
        let is_it = |part: &Part| {
            part.kind() == kind && u16_at(&part.entry, 2) == tier && u32_at(&part.entry, 4) == block
        };
        self.parts.iter_mut().find(|part| is_it(part)).unwrap()
    }

    /// Other bits in a word of features of the header.
    pub fn set_features(&mut self, at: usize, bits: u64) {
        put(&mut self.header, at, &bits.to_le_bytes());
        let crc = crc32fast::hash(&self.header[..124]).to_le_bytes();
        put(&mut self.header, 124, &crc);
    }

    pub fn part(&mut self, kind: u16) -> &mut Part {
        self.parts.iter_mut().find(|part| part.kind() == kind).unwrap()
    }

    pub fn build(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        let segment = self.header[56..72].to_vec();
        let (mut table, mut checksums) = (Vec::new(), Vec::new());
        for (ordinal, part) in self.parts.iter().enumerate() {
            let (offset, stored) = (file.len(), part.used.len().next_multiple_of(PAGE).max(PAGE));
            let mut stored_bytes = part.used.clone();
            stored_bytes.resize(stored, part.padding);
            for (chunk, bytes) in stored_bytes.chunks(CHUNK).enumerate() {
                let mut covered = segment.clone();
                covered.extend(u32::try_from(ordinal).unwrap().to_le_bytes());
                covered.extend((chunk as u64).to_le_bytes());
                covered.extend(bytes);
                checksums.extend(crc32fast::hash(&covered).to_le_bytes());
            }
            file.extend(stored_bytes);
            let mut entry = part.entry;
            put(&mut entry, 24, &(offset as u64).to_le_bytes());
            put(&mut entry, 32, &(stored as u64).to_le_bytes());
            put(&mut entry, 40, &(part.used.len() as u64).to_le_bytes());
            put(&mut entry, 48, &part.raw_len.to_le_bytes());
            table.extend(entry);
        }
        let mut footer = self.rows.to_le_bytes().to_vec();
        footer.extend(u32::try_from(self.groups.len()).unwrap().to_le_bytes());
        footer.extend(self.blocks.to_le_bytes());
        footer.extend(u32::try_from(self.parts.len()).unwrap().to_le_bytes());
        footer.extend(65_536u32.to_le_bytes());
        footer.extend([0; 8]);
        for rows in &self.groups {
            footer.extend(u64::from(*rows).to_le_bytes());
        }
        footer.extend(table);
        footer.extend(checksums);
        seal(&mut file, &footer);
        file
    }
}

/// Appends a footer and a tail with right checksums.
fn seal(file: &mut Vec<u8>, footer: &[u8]) {
    let segment = file[56..72].to_vec();
    let mut tail = (file.len() as u64).to_le_bytes().to_vec();
    tail.extend((footer.len() as u64).to_le_bytes());
    tail.extend(crc32fast::hash(footer).to_le_bytes());
    tail.extend(1u32.to_le_bytes());
    tail.extend(segment);
    tail.extend([0; 12]);
    tail.extend(crc32fast::hash(&tail).to_le_bytes());
    tail.extend(b"\n\x1a\r\nXDG\x89");
    file.extend(footer);
    file.extend(tail);
}

/// The same file with another footer.
pub fn with_footer(file: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let start = footer_start(file);
    let mut footer = file[start..file.len() - TAIL].to_vec();
    edit(&mut footer);
    let mut edited = file[..start].to_vec();
    seal(&mut edited, &footer);
    edited
}

/// Byte strings as the format lays them out.
pub fn byte_strings<S: AsRef<[u8]>>(strings: &[S]) -> Vec<u8> {
    let mut raw = 0u32.to_le_bytes().to_vec();
    let mut end = 0;
    for string in strings {
        end += u32::try_from(string.as_ref().len()).unwrap();
        raw.extend(end.to_le_bytes());
    }
    raw.extend(strings.iter().flat_map(AsRef::as_ref));
    raw
}
