//! Arrow IPC: a stream of messages, which a file has between its marks.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, Endianness, Message, MessageHeader, root_as_message};
use arrow_schema::SchemaRef;

use super::input::{From, Input, Section, malformed, unsupported};
use super::numbers::{i32_of, i64_of};
use super::tables::{TableRows, Tables, guarded};
use super::{FormatError, ReadOptions};

const MARK: &[u8] = b"ARROW1";
/// In front of a length, in all but the oldest streams.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The mark in front of a file is padded to eight bytes, or by some writers to 64.
const FILE_START: u64 = 8;
const LATEST_START: u64 = 64;
/// Zstandard's blocks become no more than this many times as long.
const LARGEST_RATIO: u64 = 1 << 16;

pub(super) fn open(input: Input, options: &ReadOptions) -> Result<TableRows<Messages>, FormatError> {
    let path = input.path.clone();
    let is_file = input.first.starts_with(MARK);
    if is_file && let From::File(file) = &input.from {
        let mut end = [0; MARK.len()];
        let at = file.length.saturating_sub(MARK.len() as u64);
        file.read_at(&mut end, at)?;
        if end != MARK {
            return Err(malformed(&path, at, "an Arrow file that does not end with its mark: it is cut off"));
        }
    }
    let mut again = match &input.from {
        From::File(file) => Some(file.section()?),
        From::Stream(_) => None,
    };
    let mut section = input.into_section();
    if is_file {
        section.skip(FILE_START)?;
    }
    let schema = read_schema(&mut section, is_file)?;
    let start = section.offset();
    TableRows::new(&path, &schema, options, |projection| {
        let mut rows = None;
        if let Some(section) = &mut again {
            section.skip(start)?;
            rows = Some(count_rows(section)?);
        }
        let decoder = FileDecoder::new(schema.clone(), arrow_ipc::MetadataVersion::V1)
            .with_projection(projection.to_vec());
        Ok((Messages { section, decoder, next: None, ended: false }, rows))
    })
}

/// One message without its body.
struct Head {
    /// With the length in front.
    bytes: Vec<u8>,
    offset: u64,
    body: u64,
    kind: MessageHeader,
    rows: u64,
}

impl Head {
    /// Reads the next message's head; `None` at the mark of the end. Without it tables may have been cut off.
    fn read(section: &mut Section) -> Result<Option<Self>, FormatError> {
        let offset = section.offset();
        let mut prefix = [0; 4];
        section.read(&mut prefix)?;
        let mut bytes = prefix.to_vec();
        if prefix == CONTINUATION {
            section.read(&mut prefix)?;
            bytes.extend(prefix);
        }
        let length = i32_of(prefix);
        if length == 0 {
            return Ok(None);
        }
        let wrong = |what: String| malformed(section.path(), offset, what);
        let length = u64::try_from(length).map_err(|_| wrong(format!("a message of {length} bytes")))?;
        section.append(length, &mut bytes)?;
        let wrong = |what: &str| malformed(section.path(), offset, what);
        let message = message(section, offset, &bytes)?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| wrong("a body of less than no bytes"))?;
        let rows = message.header_as_record_batch().map_or(0, |batch| batch.length());
        let rows = u64::try_from(rows).map_err(|_| wrong("a table of less than no rows"))?;
        let kind = message.header_type();
        Ok(Some(Self { offset, body, kind, rows, bytes }))
    }
}

/// The message in the bytes of a head.
fn message<'a>(section: &Section, offset: u64, bytes: &'a [u8]) -> Result<Message<'a>, FormatError> {
    let start = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    guarded(section.path(), offset, || root_as_message(bytes.get(start..).unwrap_or_default()))
}

fn read_schema(section: &mut Section, is_file: bool) -> Result<SchemaRef, FormatError> {
    let none = |section: &Section| malformed(section.path(), section.offset(), "a stream without a schema");
    let mut head = Head::read(section)?;
    // What pads the mark looks like an end.
    while head.is_none() && is_file && section.offset() <= LATEST_START {
        head = Head::read(section)?;
    }
    let head = head.ok_or_else(|| none(section))?;
    let schema = message(section, head.offset, &head.bytes)?;
    let schema = schema.header_as_schema().ok_or_else(|| none(section))?;
    if schema.endianness() != Endianness::Little {
        return Err(unsupported(section.path(), "big-endian; little-endian streams are read"));
    }
    let schema = guarded(section.path(), head.offset, || try_fb_to_schema(schema))?;
    section.skip(head.body)?;
    Ok(Arc::new(schema))
}

fn count_rows(section: &mut Section) -> Result<u64, FormatError> {
    let mut rows = 0u64;
    while let Some(head) = Head::read(section)? {
        section.skip(head.body)?;
        rows = rows.saturating_add(head.rows);
    }
    Ok(rows)
}

/// Messages behind the schema.
pub(super) struct Messages {
    section: Section,
    decoder: FileDecoder,
    /// The head that was read last, if its body was not.
    next: Option<Head>,
    /// Whether the end was read, behind which a file has other things.
    ended: bool,
}

impl Messages {
    /// The head of the next table, with all dictionaries before it read.
    fn head(&mut self) -> Result<Option<Head>, FormatError> {
        if let Some(head) = self.next.take() {
            return Ok(Some(head));
        }
        while !self.ended {
            let Some(head) = Head::read(&mut self.section)? else { break };
            match head.kind {
                MessageHeader::RecordBatch => return Ok(Some(head)),
                MessageHeader::DictionaryBatch => {
                    let (block, bytes) = self.body(&head)?;
                    let (section, decoder) = (&self.section, &mut self.decoder);
                    guarded(section.path(), head.offset, || decoder.read_dictionary(&block, &bytes))?;
                }
                _ => {
                    let what = "a message that is neither a table nor a dictionary";
                    return Err(malformed(self.section.path(), head.offset, what));
                }
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// Reads the body behind a head, and checks what the decoder takes on trust.
    fn body(&mut self, head: &Head) -> Result<(Block, Buffer), FormatError> {
        let mut bytes = head.bytes.clone();
        self.section.append(head.body, &mut bytes)?;
        self.check(head, &bytes)?;
        let length = i32::try_from(head.bytes.len()).unwrap_or(i32::MAX);
        let block = Block::new(0, length, head.body.cast_signed());
        Ok((block, Buffer::from_vec(bytes)))
    }

    /// Checks that all buffers lie in the body, and that compressed ones can become what they say.
    fn check(&self, head: &Head, bytes: &[u8]) -> Result<(), FormatError> {
        let section = &self.section;
        let message = message(section, head.offset, &head.bytes)?;
        let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Ok(()) };
        let wrong = |what: String| malformed(section.path(), head.offset, what);
        if batch.nodes().iter().flatten().any(|node| node.length() < 0 || node.null_count() < 0) {
            return Err(wrong("a column of less than no values".into()));
        }
        let body = bytes.get(head.bytes.len()..).unwrap_or_default();
        let mut total = 0u64;
        for buffer in batch.buffers().iter().flatten() {
            let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
            let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
            let Some(buffer) = range.and_then(|range| body.get(range)) else {
                return Err(wrong("a buffer outside of the message's body".into()));
            };
            if batch.compression().is_none() || buffer.is_empty() {
                continue;
            }
            let length = buffer.first_chunk().map(|&length| i64_of(length));
            let length = length.filter(|&length| length >= -1).map(|length| length.max(0).cast_unsigned());
            let largest = (buffer.len() as u64).saturating_mul(LARGEST_RATIO);
            let Some(length) = length.filter(|&length| length <= largest) else {
                return Err(wrong(format!(
                    "{} compressed bytes that say they become more than they can",
                    buffer.len()
                )));
            };
            total = total.saturating_add(length);
        }
        let mut memory = Vec::<u8>::new();
        let there_is = usize::try_from(total).is_ok_and(|total| memory.try_reserve_exact(total).is_ok());
        if !there_is {
            let what = format!("a table that becomes {total} bytes, for which there is no memory");
            return Err(unsupported(section.path(), what));
        }
        Ok(())
    }
}

impl Tables for Messages {
    fn next(&mut self) -> Result<Option<RecordBatch>, FormatError> {
        let Some(head) = self.head()? else { return Ok(None) };
        let (block, bytes) = self.body(&head)?;
        let (section, decoder) = (&self.section, &self.decoder);
        guarded(section.path(), head.offset, || decoder.read_record_batch(&block, &bytes))
    }

    fn skip(&mut self, rows: u64) -> Result<u64, FormatError> {
        let mut passed = 0;
        while let Some(head) = self.head()? {
            if head.rows > rows - passed {
                self.next = Some(head);
                return Ok(passed);
            }
            self.section.skip(head.body)?;
            passed += head.rows;
        }
        Ok(passed)
    }
}
