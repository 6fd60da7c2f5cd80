"""Segments that were built apart from an index: parts and notes, written from detached.md alone."""

import os
import uuid as uuids
from dataclasses import dataclass

import container
from container import Cursor, FormatError

PART_MAGIC = b"\x89GDP\r\n\x1a\n"
NOTE_MAGIC = b"\x89GDA\r\n\x1a\n"
HEADER, ENTRY, NOTE = 128, 72, 64
MAX_SEGMENTS, MAX_PAYLOAD = 65536, 1 << 20


@dataclass
class Part:
    number: int
    segments: list  # (container.Listed, examples)
    payload: bytes


def read_part(folder, index):
    """The PART file of a part of this index."""
    file = "PART"
    if os.path.basename(os.path.abspath(folder)).endswith(".unfinished"):
        raise FormatError(file, "folder", None, "it is called .unfinished, so it is not a part")
    data = container.read_small(os.path.join(folder, file), file, HEADER + ENTRY * MAX_SEGMENTS + MAX_PAYLOAD + 4)
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
    c.zero(16)
    c.crc()
    if count > MAX_SEGMENTS:
        c.refuse("number of segments", f"{count}, above {MAX_SEGMENTS}", 12)
    if number == 0:
        c.refuse("number of the part", "0", 56)
    if length > MAX_PAYLOAD:
        c.refuse("bytes of the payload", f"{length}, above {MAX_PAYLOAD}", 104)
    if len(data) != HEADER + ENTRY * count + length + 4:
        c.refuse("number of segments", f"{count}, with {length} bytes of payload, but the file has {len(data)} bytes", 12)
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
    payload = c.take(length, "payload")
    c.crc()
    return Part(number, segments, payload)


def verify_part(folder, index):
    """The part, everything checked, its segments too; and what warnings these gave."""
    part, ids, warnings = read_part(folder, index), container.LiveIds(), []
    for listed, examples in part.segments:
        segment, before = container.Segment(index, listed, folder), len(ids.seen)
        if (segment.generation, segment.ordinal) != (0, 0):
            segment.refuse("header, generation", 104, "a detached segment states no generation and no ordinal")
        for group in segment.verify():
            for i, example in enumerate(group.ids):
                ids.add(segment, group, group.first + i, example)
        if len(ids.seen) - before != examples:
            segment.refuse("ids", None, f"{len(ids.seen) - before} examples, but PART says {examples}")
        warnings += segment.warnings
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
