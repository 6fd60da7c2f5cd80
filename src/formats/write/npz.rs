//! Archives of numpy. An array's length stands in front of it, under a checksum; so all wait for the last row.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::labels::{COLUMNS, Labels, Texts};
use super::npy::{descr, header};
use super::output::Output;
use super::spool::Spool;
use super::{add_blocks, check};
use crate::formats::input::unsupported;
use crate::formats::labels::{METADATA, OFFSETS, SPANS};
use crate::formats::numbers::u32_bytes;
use crate::formats::{Batch, FormatError, Number, RowSink};
use crate::sketch::SketchSpec;

/// An array for each block, and what is said of the rows.
pub(super) struct Sink {
    spec: SketchSpec,
    number: Number,
    output: Output,
    spool: Spool,
    labels: Labels,
    rows: u64,
}

impl Sink {
    pub(super) fn new(path: &Path, spec: &SketchSpec, number: Number) -> Result<Self, FormatError> {
        let cannot = |name: &str| Labels::is_label(name) || name.contains(['/', '\\']);
        if let Some(block) = spec.blocks().iter().find(|block| cannot(&block.name)) {
            return Err(unsupported(
                path,
                format!("a block cannot be the array {:?} of an archive", block.name),
            ));
        }
        let output = Output::create(path)?;
        let blocks = spec.blocks().len();
        let mut spool = Spool::new(path, &output.folder(), blocks + COLUMNS)?;
        let labels = Labels::new(&mut spool, blocks)?;
        Ok(Self { spec: spec.clone(), number, output, spool, labels, rows: 0 })
    }

    fn write_archive(&mut self) -> Result<(), FormatError> {
        let path = self.output.path().to_owned();
        let fails = |source: io::Error| FormatError::Io { path: path.clone(), operation: "write", source };
        let Self { spec, number, output, spool, labels, rows } = self;
        let mut archive = ZipWriter::new(BufWriter::with_capacity(1 << 20, output.file()));
        let stored =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        // Texts are padded to the length of the longest.
        let deflated = stored.compression_method(CompressionMethod::Deflated);
        let start = |archive: &mut ZipWriter<_>, name: &str, options, descr: &str, shape: &[u64]| {
            archive.start_file(format!("{name}.npy"), options).map_err(io::Error::from).map_err(fails)?;
            archive.write_all(&header(descr, shape)).map_err(fails)
        };
        for (column, block) in spec.blocks().iter().enumerate() {
            start(&mut archive, &block.name, stored, descr(*number), &[*rows, u64::from(block.dims)])?;
            spool.copy(column, &mut archive)?;
        }
        for texts in labels.texts() {
            if texts.name == METADATA {
                start(&mut archive, METADATA, stored, "|u1", &[spool.bytes(texts.bytes)])?;
                spool.copy(texts.bytes, &mut archive)?;
                start(&mut archive, &format!("{METADATA}{OFFSETS}"), stored, "<i8", &[*rows + 1])?;
                spool.copy(texts.offsets, &mut archive)?;
            } else {
                let width = Width::of(&texts, spool, *rows).map_err(fails)?;
                start(&mut archive, texts.name, deflated, &width.descr(), &[*rows])?;
                width.write(&texts, spool, *rows, &mut archive).map_err(fails)?;
            }
        }
        if let Some(spans) = labels.spans() {
            start(&mut archive, SPANS, stored, "<u4", &[*rows, 2])?;
            spool.copy(spans, &mut archive)?;
        }
        let mut file = archive.finish().map_err(io::Error::from).map_err(fails)?;
        file.flush().map_err(fails)
    }
}

impl RowSink for Sink {
    fn write(&mut self, batch: &Batch) -> Result<(), FormatError> {
        check(self.output.path(), &self.spec, self.rows, batch, true)?;
        let sources = batch.sources.iter().flatten().map(String::as_bytes);
        if batch.ids.iter().map(Vec::as_slice).chain(sources).any(|text| text.ends_with(&[0])) {
            let what = "an id or source that ends with a zero byte, which arrays of numpy cannot hold";
            return Err(unsupported(self.output.path(), what));
        }
        add_blocks(&mut self.spool, self.output.path(), &self.spec, self.number, self.rows, batch)?;
        self.labels.add(&mut self.spool, batch)?;
        self.rows += batch.rows as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), FormatError> {
        self.write_archive()?;
        self.output.finish()
    }
}

/// The type of an array of texts: code points if all are UTF-8, or else bytes, as many as the longest has.
enum Width {
    Unicode(usize),
    Bytes(usize),
}

impl Width {
    fn of(texts: &Texts, spool: &Spool, rows: u64) -> io::Result<Self> {
        let (mut bytes, mut chars) = (1, Some(1));
        texts.each(spool, rows, |text| {
            bytes = bytes.max(text.len());
            chars = chars.zip(str::from_utf8(text).ok()).map(|(chars, text)| text.chars().count().max(chars));
            Ok(())
        })?;
        Ok(chars.map_or(Self::Bytes(bytes), Self::Unicode))
    }

    fn descr(&self) -> String {
        match self {
            Self::Unicode(chars) => format!("<U{chars}"),
            Self::Bytes(bytes) => format!("|S{bytes}"),
        }
    }

    fn write(&self, texts: &Texts, spool: &Spool, rows: u64, into: &mut impl Write) -> io::Result<()> {
        let mut padded = Vec::new();
        texts.each(spool, rows, |text| {
            padded.clear();
            match self {
                Self::Unicode(chars) => {
                    let text = String::from_utf8_lossy(text);
                    padded.extend(text.chars().flat_map(|point| u32_bytes(u32::from(point))));
                    padded.resize(4 * chars, 0);
                }
                Self::Bytes(bytes) => {
                    padded.extend(text);
                    padded.resize(*bytes, 0);
                }
            }
            into.write_all(&padded)
        })
    }
}
