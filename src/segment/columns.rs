//! The bytes of the columns other than codes: byte strings, spans, sources, numbers.

use super::MAX_SOURCE;
use crate::bytes::u32_at;

/// The source ordinal of a row without one.
pub(crate) const NO_SOURCE: u32 = u32::MAX;

/// A list of byte strings in two buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteStrings {
    /// The ends of the strings, after a leading 0.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Default for ByteStrings {
    fn default() -> Self {
        Self { ends: vec![0], bytes: Vec::new() }
    }
}

impl ByteStrings {
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.ends[i] as usize..self.ends[i + 1] as usize]
    }

    /// Bytes of all strings; the writer keeps it below 2^32.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Callers keep the sum of all lengths below 2^32 (`SegmentWriter` closes a group before).
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        debug_assert!(u32::try_from(self.bytes.len()).is_ok(), "byte strings beyond 4 GiB");
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    pub fn clear(&mut self) {
        self.ends.truncate(1);
        self.bytes.clear();
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.ends.len() * 4 + self.bytes.len());
        for end in &self.ends {
            raw.extend(end.to_le_bytes());
        }
        raw.extend(&self.bytes);
        raw
    }

    /// Parses exactly `len` strings, whose lengths are in `lengths`.
    pub fn parse(raw: &[u8], len: usize, lengths: std::ops::RangeInclusive<u32>) -> Result<Self, String> {
        let table = (len + 1) * 4;
        if raw.len() < table {
            return Err(format!("{} bytes cannot hold {len} strings", raw.len()));
        }
        let (table, bytes) = raw.split_at(table);
        let ends: Vec<u32> = table.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect();
        if ends[0] != 0 || ends[len] as usize != bytes.len() {
            return Err("the strings do not fill their bytes".into());
        }
        for (i, pair) in ends.windows(2).enumerate() {
            match pair[1].checked_sub(pair[0]) {
                Some(length) if lengths.contains(&length) => {}
                Some(length) => return Err(format!("string {i} has {length} bytes")),
                None => return Err(format!("string {i} ends before it begins")),
            }
        }
        Ok(Self { ends, bytes: bytes.to_vec() })
    }
}

/// The part of an example that a row stands for: the tokens `start..end`, or the whole example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Span {
    /// The first token.
    pub start: u32,
    /// The token after the last.
    pub end: u32,
}

impl Span {
    /// The whole example.
    pub const WHOLE: Self = Self { start: 0, end: u32::MAX };

    /// The tokens `start..end`. Appending an empty span is an error.
    #[must_use]
    pub const fn tokens(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// Whether it is [`Span::WHOLE`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::WHOLE
    }

    /// Whether it has at least one token.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.start < self.end
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_whole() { f.write_str("whole") } else { write!(f, "{}..{}", self.start, self.end) }
    }
}

pub(crate) fn spans_to_bytes(spans: &[Span]) -> Vec<u8> {
    let starts = spans.iter().map(|span| span.start);
    starts.chain(spans.iter().map(|span| span.end)).flat_map(u32::to_le_bytes).collect()
}

/// `raw` has 8 bytes for each row, as the footer's check ensures.
pub(crate) fn parse_spans(raw: &[u8]) -> Result<Vec<Span>, String> {
    let (starts, ends) = raw.split_at(raw.len() / 2);
    let pairs = starts.chunks_exact(4).zip(ends.chunks_exact(4));
    let spans: Vec<Span> =
        pairs.map(|(start, end)| Span { start: u32_at(start, 0), end: u32_at(end, 0) }).collect();
    match spans.iter().position(|span| !span.is_valid()) {
        Some(row) => Err(format!("row {row} has the empty span {}", spans[row])),
        None => Ok(spans),
    }
}

pub(crate) fn u32s_to_bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The ordinals of the rows' sources among `names` names.
pub(crate) fn parse_sources(raw: &[u8], names: usize) -> Result<Vec<u32>, String> {
    let sources: Vec<u32> = raw.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect();
    match sources.iter().position(|&source| source != NO_SOURCE && source as usize >= names) {
        Some(row) => Err(format!("row {row} has source {} of {names}", sources[row])),
        None => Ok(sources),
    }
}

pub(crate) fn source_names_to_bytes(names: &ByteStrings) -> Vec<u8> {
    let mut raw = u32::try_from(names.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    raw.extend(names.to_bytes());
    raw
}

/// Distinct names in one buffer: a segment may have a million of them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    text: String,
    /// The ends of the names, after a leading 0.
    ends: Vec<u32>,
}

impl Names {
    pub fn len(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }

    pub fn get(&self, ordinal: usize) -> Option<&str> {
        let (start, end) = (*self.ends.get(ordinal)?, *self.ends.get(ordinal + 1)?);
        self.text.get(start as usize..end as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|ordinal| self.get(ordinal))
    }
}

pub(crate) fn parse_source_names(raw: &[u8]) -> Result<Names, String> {
    if raw.len() < 8 {
        return Err("too short for a count".into());
    }
    let (count, strings) = (u32_at(raw, 0) as usize, &raw[4..]);
    let ByteStrings { ends, bytes } = ByteStrings::parse(strings, count, 1..=MAX_SOURCE)?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    let names = Names { text, ends };
    let cut = (0..count).find(|&ordinal| names.get(ordinal).is_none());
    if let Some(ordinal) = cut {
        return Err(format!("name {ordinal} is not UTF-8"));
    }
    let mut sorted: Vec<&str> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("the name {:?} occurs twice", pair[0])),
        None => Ok(names),
    }
}

/// The window size of a zstd frame of `raw` decompressed bytes (RFC 8878, section 3.1.1.1); `None` if `frame`
/// is too short to be one.
pub(crate) fn window_of_frame(frame: &[u8], raw: u64) -> Option<u64> {
    const SINGLE_SEGMENT: u8 = 0x20;
    let (descriptor, window) = (*frame.get(4)?, *frame.get(5)?);
    if descriptor & SINGLE_SEGMENT != 0 {
        return Some(raw);
    }
    let base = 1u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}

pub(crate) fn f32s_to_bytes<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(crate) fn parse_f32(raw: &[u8]) -> Vec<f32> {
    raw.chunks_exact(4).map(|entry| f32::from_bits(u32_at(entry, 0))).collect()
}
