"""Segments that were built apart from an index: parts and notes, written from detached.md alone."""

import os
import unicodedata
import uuid as uuids
from dataclasses import dataclass

import artifacts
import container
from container import Cursor, FormatError

PART_MAGIC = b"\x89GDP\r\n\x1a\n"
NOTE_MAGIC = b"\x89GDA\r\n\x1a\n"
HEADER, ENTRY, SUMS_ENTRY, NOTE = 128, 72, 128, 64
MAX_SEGMENTS, MAX_SUMS, MAX_PAYLOAD = 65536, 64, 1 << 20


@dataclass
class Part:
    number: int
    segments: list  # (container.Listed, examples)
    sums: list  # container.ListedArtifact
    payload: bytes


def read_part(folder, index):
    """The PART file of a part of this index."""
    file = "PART"
    if os.path.basename(os.path.abspath(folder)).endswith(".unfinished"):
        raise FormatError(file, "folder", None, "it is called .unfinished, so it is not a part")
    data = container.read_small(os.path.join(folder, file), file, HEADER + ENTRY * MAX_SEGMENTS + SUMS_ENTRY * MAX_SUMS + MAX_PAYLOAD + 4)
    c = Cursor(file, "header", data[:HEADER], 0)
    c.magic(PART_MAGIC)
    c.version()
    count = c.number(4, "number of segments")
    c.features()
    c.same("index UUID", index.uuid)
    number = c.number(8, "number of the part")
    c.zero(8)
    c.same("schema digest", index.digest)
    length = c.number(4, "bytes of the payload")
    sums_count = c.number(4, "number of sums")
    c.zero(12)
    c.crc()
    if sums_count > MAX_SUMS:
        c.refuse("number of sums", f"{sums_count}, above {MAX_SUMS}", 108)
    if count > MAX_SEGMENTS:
        c.refuse("number of segments", f"{count}, above {MAX_SEGMENTS}", 12)
    if number == 0:
        c.refuse("number of the part", "0", 56)
    if length > MAX_PAYLOAD:
        c.refuse("bytes of the payload", f"{length}, above {MAX_PAYLOAD}", 104)
    if len(data) != HEADER + ENTRY * count + SUMS_ENTRY * sums_count + length + 4:
        c.refuse("number of segments", f"{count}, with {sums_count} sums and {length} bytes of payload, but the file has {len(data)} bytes", 12)
    c = Cursor(file, "segments and payload", data[HEADER:], HEADER)
    segments, known = [], set()
    for i in range(count):
        at, uuid = c.at, c.take(16, f"segment {i}, UUID")
        rows, examples, size = (c.number(8, f"segment {i}, {name}") for name in ("rows", "examples", "bytes"))
        sha256 = c.take(32, f"segment {i}, SHA-256")
        if uuid in known:
            c.refuse(f"segment {i}, UUID", "stands twice", at)
        if not 1 <= rows <= 0xFFFFFFFF:
            c.refuse(f"segment {i}, rows", f"{rows}, outside 1 to 2^32 - 1", at + 16)
        if not 1 <= examples <= rows:
            c.refuse(f"segment {i}, examples", f"{examples} of {rows} rows", at + 24)
        known.add(uuid)
        name = f"{uuids.UUID(bytes=uuid)}.seg"
        segments.append((container.Listed(name, uuid, rows, size, sha256, [], by=file), examples))
    sums = [read_sums(c, i, known, segments) for i in range(sums_count)]
    if any(a.name.encode() >= b.name.encode() for a, b in zip(sums, sums[1:])):
        c.refuse("sums, name", "out of order", ENTRY * count)
    payload = c.take(length, "payload")
    c.crc()
    return Part(number, segments, sums, payload)


def read_sums(c, i, known, segments):
    """One entry of sums, which cover all rows."""
    at, uuid = c.at, c.take(16, f"sums {i}, UUID")
    size, sha256 = c.number(8, f"sums {i}, bytes"), c.take(32, f"sums {i}, SHA-256")
    kind, length = c.number(1, f"sums {i}, kind"), c.number(1, f"sums {i}, bytes of the name")
    name = c.take(64, f"sums {i}, name")
    c.zero(6)
    if uuid in known:
        c.refuse(f"sums {i}, UUID", "stands twice", at)
    known.add(uuid)
    if kind > 1:
        c.refuse(f"sums {i}, kind", f"{kind}", at + 56)
    try:
        text = name[:length].decode("utf-8")
    except UnicodeDecodeError:
        c.refuse(f"sums {i}, name", "not UTF-8", at + 58)
    if not 1 <= length <= 64 or any(name[length:]) or any(unicodedata.category(x) == "Cc" for x in text):
        c.refuse(f"sums {i}, name", f"{name!r} of {length} bytes", at + 57)
    covered = [(s, [(0, s.rows)]) for s, _ in segments]
    return container.ListedArtifact(text, f"{uuids.UUID(bytes=uuid)}.art", uuid, size, sha256, ["rows", "observed"][kind], 0, covered, by="PART")


def verify_part(folder, index):
    """The part, everything checked, its segments too; and what warnings these gave."""
    part, ids, warnings = read_part(folder, index), container.LiveIds(), []
    opened = [artifacts.Artifact(index, listed, folder) for listed in part.sums]
    for artifact in opened:
        artifact.verify()
    recounts = [artifacts.Recount(a) for a in opened if artifacts.Recount.is_possible(a)]
    for listed, examples in part.segments:
        segment, before = container.Segment(index, listed, folder), len(ids.seen)
        if (segment.generation, segment.ordinal) != (0, 0):
            segment.refuse("header, generation", 104, "a detached segment states no generation and no ordinal")
        for group in segment.verify():
            for one in recounts:
                one.add(segment, group)
            for i, example in enumerate(group.ids):
                ids.add(segment, group, group.first + i, example)
        if len(ids.seen) - before != examples:
            segment.refuse("ids", None, f"{len(ids.seen) - before} examples, but PART says {examples}")
        warnings += segment.warnings
    for one in recounts:
        one.compare()
    return part, warnings


def read_note(index, segment, generation):
    """Generation and ordinal in the note beside a segment; None without one. `generation` is that of the listing."""
    file = f"{segment.file.removesuffix('.seg')}.attached"
    path = os.path.join(index.folder, *file.split("/"))
    if not os.path.lexists(path):
        return None
    data = container.read_small(path, file, NOTE)
    c = Cursor(file, "note", data, 0)
    c.magic(NOTE_MAGIC)
    c.version()
    ordinal, stated = c.number(4, "ordinal"), c.number(8, "generation")
    c.same("index UUID", index.uuid)
    c.same("segment UUID", segment.listed.uuid)
    c.zero(4)
    c.crc()
    if not 1 <= stated < 1 << 63:
        c.refuse("generation", f"{stated}, outside 1 to 2^63 - 1", 16)
    if stated > generation:
        c.refuse("generation", f"{stated}, but the segment is there at generation {generation}", 16)
    return stated, ordinal
