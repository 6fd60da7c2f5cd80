//! Verification: checks all checksums, rows and references, and reports findings. Repairs nothing.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;

use super::Shared;
use super::artifacts::{check_regions, check_self_influence};
use super::attachment::{describe_note, read_note};
use super::error::{SnapshotError, show_id};
use super::snapshot::Snapshot;
use crate::codec;
use crate::manifest::{ManifestError, SELF_INFLUENCE, SegmentRecord};
use crate::scan::CancelToken;
use crate::schema::Schema;
use crate::segment::{
    CodeColumn, Kind, LiveSegment, Origin, RowEncoder, RowGroup, SegmentError, SegmentReader,
};

/// The result of [`Index::verify`](crate::Index::verify). `Serialize` with the feature `serde`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[must_use = "a report may have findings"]
pub struct Report {
    /// The generation that was verified.
    pub generation: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Artifacts that were read.
    pub artifacts: u64,
    /// Rows whose codes were checked, including dead ones.
    pub rows: u64,
    /// Live examples whose location in the manifest was compared with the segments.
    pub examples: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// All faults that were found.
    pub findings: Vec<Finding>,
}

/// Options of [`Index::verify_with`](crate::Index::verify_with).
#[derive(Default)]
#[must_use]
pub struct VerifyOptions<'a> {
    progress: Option<Box<dyn FnMut(VerifyProgress) + 'a>>,
    cancel: CancelToken,
}

impl fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

impl<'a> VerifyOptions<'a> {
    /// Calls a function before the first segment and after each. Default: none.
    pub fn progress(mut self, progress: impl FnMut(VerifyProgress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Lets [`CancelToken::cancel`] stop the verification, within the time that a segment takes.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Says what is done, and whether to go on.
    fn report(&mut self, bytes_done: u64, bytes_total: u64) -> Result<(), SnapshotError> {
        if let Some(progress) = &mut self.progress {
            progress(VerifyProgress { bytes_done, bytes_total });
        }
        if self.cancel.is_cancelled() { Err(SnapshotError::Cancelled) } else { Ok(()) }
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of the segments that are done.
    pub bytes_done: u64,
    /// Bytes of all segments.
    pub bytes_total: u64,
}

impl Report {
    /// Whether there are no findings.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// The file, or the manifest's column family.
    pub file: String,
    /// The fault, with its region and offset, or its id.
    pub message: String,
}

impl Finding {
    fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), message: message.into() }
    }

    /// The error and its chain of sources in one line.
    pub(super) fn from_error(file: &str, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(file, message)
    }
}

pub(super) fn run(shared: &Arc<Shared>, mut options: VerifyOptions<'_>) -> Result<Report, SnapshotError> {
    let mut report = Report::default();
    // The snapshot first: taking it refreshes the manifest.
    let snapshot = Snapshot::take(shared, None);
    if let Err(error) = shared.manifest()?.verify_checksums() {
        report.findings.push(Finding::from_error("manifest", &error));
    }
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        // A segment that cannot be opened is a finding too. Without all segments, examples cannot be
        // compared with the manifest, so each segment is verified alone.
        Err(
            error @ (SnapshotError::Segment(_)
            | SnapshotError::OtherSegment { .. }
            | SnapshotError::DeadRows { .. }),
        ) => {
            let report = each_alone(shared, report)?;
            // What went wrong was none of the segments: too many open files, say.
            return if report.is_sound() { Err(error) } else { Ok(report) };
        }
        Err(error) => return Err(error),
    };
    report.generation = snapshot.generation();
    if let Err(error) = verify_generations(&snapshot, &mut report) {
        report.findings.push(Finding::from_error("manifest", &error));
    }
    let mut all_read = true;
    let total = snapshot.segments().iter().map(|segment| segment.reader.bytes()).sum();
    options.report(0, total)?;
    for (segment, record) in snapshot.segments().iter().zip(snapshot.records()) {
        verify_segment(&segment.reader, snapshot.schema(), Some(record.sha256), &mut report);
        verify_note(shared, &segment.reader, record, &mut report);
        all_read &= verify_places(&snapshot, segment, &mut report);
        options.report(report.bytes, total)?;
    }
    if let Err(error) = verify_artifacts(&snapshot, &mut report) {
        report.findings.push(Finding::from_error("manifest/artifacts", &error));
    }
    // Unreadable ids are findings already, and the count of examples is incomplete.
    if !all_read {
        return Ok(report);
    }
    if let Err(error) = verify_examples(&snapshot, &mut report) {
        report.findings.push(Finding::from_error("manifest/examples", &error));
    }
    Ok(report)
}

/// Reports manifest records of a generation newer than the newest.
fn verify_generations(snapshot: &Snapshot, report: &mut Report) -> Result<(), ManifestError> {
    let manifest = snapshot.manifest()?;
    let (segments, last_commit) = (manifest.segments()?, manifest.last_commit()?);
    // Read last: a writer of this process may commit meanwhile.
    let newest = manifest.state()?.generation;
    let mut later = |family: &str, what: String, generation: u64| {
        if generation > newest {
            let message = format!("{what} is of generation {generation}, but the newest is {newest}");
            report.findings.push(Finding::new(family, message));
        }
    };
    for (segment, record) in segments {
        let generation = record.added.max(record.removed.unwrap_or(0));
        later("manifest/segments", format!("segment {segment}"), generation);
    }
    for (name, generation, _) in manifest.artifact_files()? {
        later("manifest/artifacts", format!("artifact {name:?}"), generation);
    }
    if let Some(generation) = last_commit {
        later("manifest/commits", "the last commit".into(), generation);
    }
    Ok(())
}

/// Checks the files of the artifacts, and what the manifest says of them.
fn verify_artifacts(snapshot: &Snapshot, report: &mut Report) -> Result<(), ManifestError> {
    let (manifest, shared) = (snapshot.manifest()?, snapshot.shared());
    for (name, record) in snapshot.artifacts()? {
        let Some(file) = record.file else { continue };
        for (segment, rows) in manifest.coverage(&name, &record)? {
            if snapshot
                .segment(segment)
                .is_none_or(|live| rows.max().is_some_and(|row| row >= live.reader.rows()))
            {
                let message = format!("{name:?} covers rows of segment {segment} that it does not have");
                report.findings.push(Finding::new("manifest/artifacts", message));
            }
        }
        let reader = match shared.open_artifact(file.artifact()) {
            Ok(reader) => reader,
            Err(error) => {
                let described = shared.artifacts.describe(&crate::artifact::file_name(file.artifact()));
                report.findings.push(Finding::from_error(&described, &error));
                continue;
            }
        };
        let before = report.findings.len();
        let mut found = |error| report.findings.push(Finding::from_error(reader.file(), &error));
        reader.verify(&mut found);
        let checked = match record.kind {
            SELF_INFLUENCE => check_self_influence(&reader, snapshot),
            _ => check_regions(&reader, snapshot.schema()),
        };
        checked.unwrap_or_else(&mut found);
        match reader.sha256() {
            Err(error) => found(error),
            Ok(digest)
                if report.findings.len() == before
                    && (digest, reader.bytes()) != (file.sha256, file.bytes) =>
            {
                let message = "the file's length or digest is not the manifest's";
                report.findings.push(Finding::new(reader.file(), message));
            }
            Ok(_) => {}
        }
        report.artifacts += 1;
        report.bytes += reader.bytes();
    }
    Ok(())
}

/// If no snapshot can be taken: verifies each segment of the newest generation alone.
fn each_alone(shared: &Arc<Shared>, mut report: Report) -> Result<Report, SnapshotError> {
    let manifest = shared.manifest()?;
    report.generation = manifest.state()?.generation;
    for (segment, record) in manifest.segments()? {
        if !record.is_visible(report.generation) {
            continue;
        }
        let name = crate::segment::file_name(segment);
        match shared.reader(segment) {
            Ok(reader) => {
                if u64::from(reader.rows()) != record.rows || reader.bytes() != record.bytes {
                    let message = format!(
                        "{} rows in {} bytes, where the manifest has {} in {}",
                        reader.rows(),
                        reader.bytes(),
                        record.rows,
                        record.bytes
                    );
                    report.findings.push(Finding::new(reader.file(), message));
                }
                verify_segment(&reader, &shared.identity.schema, Some(record.sha256), &mut report);
                let dead = manifest.dead(segment, report.generation)?;
                if dead.max().is_some_and(|row| row >= reader.rows()) {
                    let message = format!("{} has dead rows beyond its end", reader.file());
                    report.findings.push(Finding::new("manifest/deletes", message));
                }
            }
            Err(error) => {
                report.findings.push(Finding::from_error(&shared.storage.describe(&name), &error));
            }
        }
    }
    Ok(report)
}

/// Checks that the note of an attached segment, from which a lost manifest is recovered, says what the manifest does.
/// Without a note the segment would be recovered as one of the first commit.
fn verify_note(shared: &Shared, reader: &SegmentReader, record: &SegmentRecord, report: &mut Report) {
    if reader.origin().generation != 0 {
        return;
    }
    let (storage, segment) = (shared.storage.as_ref(), reader.segment());
    let expected = Origin { generation: record.added, ordinal: record.ordinal };
    let message = match read_note(storage, shared.identity.index, segment) {
        Ok(None) => return,
        Ok(Some(Ok(origin))) if origin == expected => return,
        Ok(Some(Ok(origin))) => format!(
            "it states segment {} of generation {}, where the manifest has segment {} of generation {}",
            origin.ordinal, origin.generation, expected.ordinal, expected.generation
        ),
        Ok(Some(Err(reason))) => reason,
        Err(error) => Finding::from_error("", &error).message,
    };
    report.findings.push(Finding::new(describe_note(storage, segment), message));
}

/// Checks every checksum of a file, its digest, and every row's codes, scale and norm.
pub(super) fn verify_segment(
    reader: &SegmentReader,
    schema: &Schema,
    sha256: Option<[u8; 32]>,
    report: &mut Report,
) {
    let file = reader.file();
    let before = report.findings.len();
    reader.verify(|error| report.findings.push(Finding::from_error(file, &error)));
    if report.findings.len() == before
        && let Some(expected) = sha256
    {
        match reader.sha256() {
            Ok(found) if found == expected => {}
            Ok(_) => report.findings.push(Finding::new(file, "the file's digest is not the manifest's")),
            Err(error) => report.findings.push(Finding::from_error(file, &error)),
        }
    }
    let encoder = RowEncoder::new(schema);
    let groups = (0..reader.groups().len()).into_par_iter();
    let groups: Vec<_> = groups.map(|group| verify_rows(reader, schema, &encoder, group)).collect();
    for (messages, error) in groups {
        report.findings.extend(messages.into_iter().map(|message| Finding::new(file, message)));
        // Unless the checksums have reported it already.
        let finding = error.map(|error| Finding::from_error(file, &error));
        report.findings.extend(finding.filter(|finding| !report.findings[before..].contains(finding)));
    }
    if let Some(error) = source_names_fault(reader) {
        report.findings.push(Finding::from_error(file, &error));
    }
    report.segments += 1;
    report.rows += u64::from(reader.rows());
    report.bytes += reader.bytes();
}

/// Checks that each source name is used by a row, and that the names are in the order of first use.
fn source_names_fault(reader: &SegmentReader) -> Option<SegmentError> {
    let mut used = 0;
    for group in 0..reader.groups().len() {
        // An unreadable column is a finding of `verify_rows`.
        for (row, source) in reader.sources(group).ok()?.into_iter().enumerate() {
            let ordinal = source as usize;
            if reader.source_name(source).is_none() || ordinal < used {
                continue;
            }
            if ordinal > used {
                let reason = format!("row {row} has source {ordinal} before any row has source {used}");
                return Some(reader.fault(Kind::Sources, group, 0, reason));
            }
            used += 1;
        }
    }
    let names = reader.source_names().len();
    (used < names).then(|| {
        let reason = format!("no row has source {used} of {names}");
        reader.fault(Kind::SourceNames, 0, 0, reason)
    })
}

/// The faults of the rows of a row group, and the error that stopped the check early, if one did.
fn verify_rows(
    reader: &SegmentReader,
    schema: &Schema,
    encoder: &RowEncoder,
    group: usize,
) -> (Vec<String>, Option<SegmentError>) {
    let mut messages = Vec::new();
    let found = |column: CodeColumn, row: usize, fault: String| {
        let name = &schema.spec().blocks()[column.block].name;
        let message = format!("block {name:?}, row group {group}, row {row}: {fault}");
        messages.push(reader.code_fault(column, message).to_string());
    };
    let error = try_verify_rows(reader, schema, encoder, group, found).err();
    (messages, error)
}

fn try_verify_rows(
    reader: &SegmentReader,
    schema: &Schema,
    encoder: &RowEncoder,
    group: usize,
    mut found: impl FnMut(CodeColumn, usize, String),
) -> Result<(), SegmentError> {
    // The small columns are parsed in full.
    let mut rows = RowGroup::open(reader, group)?;
    let mut values = vec![0f32; schema.spec().dims()];
    for row in 0..rows.len() {
        let stored = rows.row(row)?;
        for ((block, range), &encoding) in schema.spec().ranges().enumerate().zip(schema.encodings()) {
            let (codes, scale, values) = (stored.codes(block), stored.scale(block), &mut values[range]);
            let fault = match codec::check_codes(encoding, codes, values.len(), scale) {
                Err(fault) => Some(fault.to_string()),
                Ok(()) => {
                    encoding.decode(codes, scale, values);
                    let (norm, expected) = (stored.norm(block), codec::norm(values));
                    (norm.to_bits() != expected.to_bits())
                        .then(|| format!("norm {norm}, but the codes have {expected}"))
                }
            };
            if let Some(fault) = fault {
                found(CodeColumn { group, tier: None, block }, row, fault);
            }
        }
        if schema.tiers().is_empty() {
            continue;
        }
        // The tiers must be those of the row, bit for bit.
        let made = encoder.tiers(|block| (stored.codes(block), stored.scale(block)));
        for ((&tier, made), stored) in schema.tiers().iter().zip(made).zip(rows.tiers(row)?) {
            let mut end = 0;
            let factors = stored.factors.iter().zip(&made.factors);
            for ((block, dims), (factors, expected)) in schema.tier_blocks(tier).zip(factors) {
                let codes = end..end + tier.stride(dims);
                end = codes.end;
                let fault = if stored.codes[codes.clone()] != made.codes[codes] {
                    "its codes are not those of the row".into()
                } else if factors.to_bits() != expected.to_bits() {
                    format!("its factors are {factors}, but the row has {expected}")
                } else {
                    continue;
                };
                found(CodeColumn { group, tier: Some(tier), block }, row, fault);
            }
        }
    }
    Ok(())
}

/// Checks that the manifest lists each live run of rows at its location. `false` if some ids could not be
/// read, which `verify_segment` reports.
fn verify_places(snapshot: &Snapshot, segment: &LiveSegment, report: &mut Report) -> bool {
    let reader = &segment.reader;
    let mut all_read = true;
    for (ordinal, group) in reader.groups().iter().enumerate() {
        let Ok(ids) = reader.ids(ordinal) else {
            all_read = false;
            continue;
        };
        let mut alive = group.range().filter(|row| !segment.dead.contains(*row)).peekable();
        while let Some(first) = alive.next() {
            let id = ids.get((first - group.first_row) as usize);
            let mut rows = 1;
            while alive
                .next_if(|row| *row == first + rows && ids.get((row - group.first_row) as usize) == id)
                .is_some()
            {
                rows += 1;
            }
            report.examples += 1;
            let place = match snapshot.find(id) {
                Ok(place) => place,
                Err(error) => {
                    report.findings.push(Finding::from_error("manifest/examples", &error));
                    continue;
                }
            };
            let is_here = place.is_some_and(|(_, location)| {
                location.segment() == reader.segment() && location.first_row == first && location.rows == rows
            });
            if !is_here {
                let message = format!(
                    "example {} is at rows {first} to {}, where the manifest does not list it",
                    show_id(id),
                    first + rows
                );
                report.findings.push(Finding::new(reader.file(), message));
            }
        }
    }
    all_read
}

/// Checks that the segments contain every example of the manifest. `verify_places` has found each example of
/// the segments in the manifest, so it suffices that the counts are equal.
fn verify_examples(snapshot: &Snapshot, report: &mut Report) -> Result<(), ManifestError> {
    let mut listed = 0u64;
    let generation = snapshot.generation();
    let manifest = snapshot.manifest()?;
    manifest.for_each_example(|id, history| {
        let versions = history.0.windows(2).all(|pair| pair[0].generation < pair[1].generation);
        if !versions || history.0.is_empty() {
            report.findings.push(Finding::new(
                "manifest/examples",
                format!("the versions of example {} are empty or out of order", show_id(id)),
            ));
        }
        for version in history.0.iter().skip(1) {
            if !manifest.lists_superseded(version.generation, id)? {
                report.findings.push(Finding::new(
                    "manifest/superseded",
                    format!("generation {} of example {} is not listed", version.generation, show_id(id)),
                ));
            }
        }
        listed += u64::from(history.at(generation).is_some());
        Ok(())
    })?;
    if listed != report.examples {
        let message = format!("{listed} examples, but the segments have {}", report.examples);
        report.findings.push(Finding::new("manifest/examples", message));
    }
    Ok(())
}
