"""The container of gradix: INDEX, listing and segments, written from the pages of this folder alone.

It takes the folder of an index and the exported listing of one snapshot (manifest.md), never the
RocksDB database. Everything that the pages say must be refused raises `FormatError`.
"""

import hashlib
import json
import mmap
import os
import re
import struct
import uuid as uuids
import zlib
from dataclasses import dataclass

import numpy as np
import zstandard

import arithmetic
import tiers

CONTAINER_VERSION = 1
PAGE = 4096
CHUNK = 65536
INDEX_MAGIC = b"\x89GDI\r\n\x1a\n"
SEGMENT_MAGIC = b"\x89GDX\r\n\x1a\n"
END_MAGIC = b"\n\x1a\r\nXDG\x89"
MAX_BODY = 16 << 20
ENCODING_NUMBERS = {"f32": 1, "f16": 2, "i8": 3}
KINDS = {1: "codes", 2: "scales", 3: "norms", 4: "ids", 5: "spans", 6: "sources", 7: "metadata",
         8: "source names", 9: "factors"}
FEATURE_TIERS = 1
COMPRESSED_KINDS = {4, 5, 6, 7, 8}
MAX_STORED_NORM = np.float32(2.0**62)
WHOLE = 0xFFFFFFFF
NO_SOURCE = 0xFFFFFFFF


class FormatError(Exception):
    """Names the file, the region or field, and the offset in the file (None: the file itself)."""

    def __init__(self, file, where, offset, what):
        at = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{file}: {where}{at}: {what}")
        self.file, self.where, self.offset, self.what = file, where, offset, what


def round_up(n, a):
    return -(-n // a) * a


class Cursor:
    """Fields of one structure, read in order; every refusal knows where it stands."""

    def __init__(self, file, where, data, offset):
        self.file, self.where, self.data, self.start, self.at = file, where, data, offset, 0

    def refuse(self, field, what, at=None):
        raise FormatError(self.file, f"{self.where}, {field}", self.start + (self.at if at is None else at), what)

    def take(self, n, field):
        if n > len(self.data) - self.at:
            self.refuse(field, f"{n} bytes wanted, {len(self.data) - self.at} left")
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def number(self, n, field, only=None):
        value = int.from_bytes(self.take(n, field), "little")
        if only is not None and value != only:
            self.refuse(field, f"{value}, where only {only} is known", self.at - n)
        return value

    def same(self, field, value):
        found = self.take(len(value), field)
        if found != value:
            self.refuse(field, f"{found.hex()}, where {value.hex()} belongs", self.at - len(value))

    def zero(self, n, field="reserved bytes"):
        if any(self.take(n, field)):
            self.refuse(field, "not zero", self.at - n)

    def crc(self, field="CRC32"):
        """The checksum of everything before this field."""
        end = self.at
        if self.number(4, field) != zlib.crc32(self.data[:end]):
            self.refuse(field, "does not match", end)

    def magic(self, magic):
        if self.take(8, "magic") != magic:
            self.refuse("magic", "not a gradix file of this kind", self.at - 8)

    def version(self):
        found = self.number(4, "container version")
        if found != CONTAINER_VERSION:
            self.refuse("container version", f"{found}; this reader knows {CONTAINER_VERSION}", self.at - 4)

    def features(self, read=0):
        """Bits of the read word must be these. Unknown bits of the others do not stop a reader."""
        words = [self.number(8, f"features_{name}") for name in ("read", "write", "info")]
        if words[0] != read:
            self.refuse("features_read", f"{words[0]:#x}, where {read:#x} belongs", self.at - 24)
        return words


def strict_json(file, where, offset, data):
    """JSON without duplicate keys, NaN, infinities or bytes that are not UTF-8."""

    def pairs(items):
        keys = [k for k, _ in items]
        if len(set(keys)) != len(keys):
            raise ValueError("a key stands twice")
        return dict(items)

    def constant(name):
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as e:
        raise FormatError(file, where, offset, f"not the JSON it should be: {e}") from e


class Fields:
    """Access to one JSON object that refuses missing, unknown and mistyped fields."""

    def __init__(self, file, where, offset, value, names):
        self.file, self.where, self.offset = file, where, offset
        if type(value) is not dict:
            self.refuse("not an object")
        if set(value) != set(names):
            self.refuse(f"fields {sorted(value)}, where {sorted(names)} are wanted")
        self.value = value

    def refuse(self, what):
        raise FormatError(self.file, self.where, self.offset, what)

    def get(self, name, kind):
        value = self.value[name]
        if type(value) is not kind:
            self.refuse(f"{name} is not {kind.__name__}")
        if kind is str:
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                self.refuse(f"{name} holds a lone surrogate")
        return value

    def integer(self, name, low, high):
        value = self.get(name, int)
        if not low <= value <= high:
            self.refuse(f"{name} is {value}, outside {low} to {high}")
        return value

    def seed(self, name):
        """A string of decimal digits: without leading zeros, signs or blanks, at most 2^64 - 1."""
        text = self.get(name, str)
        if not re.fullmatch("0|[1-9][0-9]{0,19}", text) or int(text) >= 1 << 64:
            self.refuse(f"{name} is {text!r}, not the digits of a number up to 2^64 - 1")
        return int(text)

    def one_of(self, name, values):
        value = self.get(name, str)
        if value not in values:
            self.refuse(f"{name} is {value!r}, none of {values}")
        return value


@dataclass
class Block:
    name: str
    dims: int
    encoding: str

    @property
    def has_scale(self):
        return arithmetic.has_scale(self.encoding)

    @property
    def stride(self):
        return round_up(self.dims * arithmetic.CODE_TYPES[self.encoding].itemsize, 64)


@dataclass
class Index:
    folder: str
    uuid: bytes
    digest: bytes
    sketcher: dict
    blocks: list
    tiers: list  # (name, seed or None)
    features: list

    def tier_blocks(self, tier):
        """The ordinals of the blocks that have a tier."""
        return [i for i, b in enumerate(self.blocks) if tiers.covers(tier, b.encoding)]


def read_small(path, file, most):
    """All bytes of a file that has no more than that."""
    try:
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size > most:
                raise FormatError(file, "file", None, f"{size} bytes, where {most} are the most that it can have")
            return f.read()
    except OSError as e:
        raise FormatError(file, "file", None, f"cannot be read: {e.strerror}") from e


def read_index(folder):
    """The INDEX file."""
    file = "INDEX"
    data = read_small(os.path.join(folder, file), file, 64 + MAX_BODY)
    c = Cursor(file, "header", data[:64], 0)
    c.magic(INDEX_MAGIC)
    c.version()
    length = c.number(4, "body length")
    features = c.features()
    index_uuid = c.take(16, "index UUID")
    body_crc = c.number(4, "CRC32 of the body")
    c.crc()
    if length > MAX_BODY or len(data) != 64 + length:
        raise FormatError(file, "header, body length", 12, f"{length}, but the file has {len(data)} bytes")
    body = data[64:]
    if zlib.crc32(body) != body_crc:
        raise FormatError(file, "header, CRC32 of the body", 56, "does not match")
    sketcher, blocks, found = read_schema(file, body)
    return Index(folder, index_uuid, hashlib.sha256(body).digest(), sketcher, blocks, found, features)


def read_schema(file, body):
    def fields(where, value, names):
        return Fields(file, f"schema{where}", 64, value, names)

    json_schema = strict_json(file, "schema", 64, body)
    tiered = type(json_schema) is dict and "tiers" in json_schema
    schema = fields("", json_schema, ["spec", "encodings"] + ["tiers"] * tiered)
    value = schema.get("spec", dict)
    stepped = "optimizer" in value
    spec = fields(", spec", value, ["sketcher", "blocks"] + ["optimizer"] * stepped)
    sketcher = spec.get("sketcher", dict)
    kind = sketcher.get("kind")
    if kind not in ("rapid_grad", "kronecker", "dense"):
        spec.refuse(f"unknown sketcher {kind!r}")
    rapid, kron = kind == "rapid_grad", kind == "kronecker"
    sides = None
    if kron:
        s = fields(", sketcher", sketcher, ["kind", "version", "seed", "sides"])
        s.integer("version", 1, 1)
        s.seed("seed")
        sides = s.get("sides", list)
    elif rapid:
        s = fields(", sketcher", sketcher, ["kind", "version", "seed", "normalisation", "routing"])
        s.integer("version", 1, 1)
        s.seed("seed")
        s.one_of("normalisation", ["none", "per_tensor"])
        s.one_of("routing", ["global", "prefix"])
    else:
        s = fields(", sketcher", sketcher, ["kind", "name", "digest"])
        s.get("name", str)
        s.get("digest", str)
    blocks, names = [], set()
    listed, encodings = spec.get("blocks", list), schema.get("encodings", list)
    if not 1 <= len(listed) <= 65535:
        spec.refuse(f"{len(listed)} blocks")
    if kron and len(sides) != len(listed):
        spec.refuse(f"sides of {len(sides)} blocks for {len(listed)}")
    if len(encodings) != len(listed):
        schema.refuse(f"{len(encodings)} encodings for {len(listed)} blocks")
    for i, (value, encoding) in enumerate(zip(listed, encodings)):
        b = fields(f", block {i}", value, ["name", "dims"])
        name, dims = b.get("name", str), b.integer("dims", 1, 1 << 28)
        if not 1 <= len(name.encode()) <= 255 or name in names:
            b.refuse(f"name {name!r} is empty, too long, or stands twice")
        if rapid and (dims < 16 or dims & (dims - 1)):
            b.refuse(f"dims {dims} is not a power of two from 16 up")
        if kron:
            pair = sides[i]
            if type(pair) is not list or [type(p) for p in pair] != [int, int] or not all(1 <= p <= 1 << 14 for p in pair):
                b.refuse(f"sides {pair!r} are not two integers from 1 to 2^14")
            if dims != pair[0] * pair[1]:
                b.refuse(f"dims {dims} are not the product of the sides {pair}")
        if encoding not in ENCODING_NUMBERS:
            schema.refuse(f"unknown encoding {encoding!r}")
        names.add(name)
        blocks.append(Block(name, dims, encoding))
    if rapid and sketcher["routing"] == "global" and len(blocks) != 1:
        spec.refuse("routing global has one block")
    if sum(b.dims for b in blocks) > 1 << 30:
        spec.refuse("the blocks are wider than 2^30 together")
    if stepped:
        read_optimizer(fields, spec.get("optimizer", dict))
    return sketcher, blocks, read_tiers(schema, fields, blocks) if tiered else []


def read_optimizer(fields, value):
    """What the optimizer's step was; nothing but its form can be checked."""
    step = fields(", optimizer", value, ["kind", "beta_1", "beta_2", "epsilon", "state"])
    step.one_of("kind", ["adam"])
    for name in ("beta_1", "beta_2", "epsilon"):
        text = step.get(name, str)
        if len(text) > 64 or not re.fullmatch(r"(0|[1-9][0-9]*)([.][0-9]*[1-9])?", text, re.ASCII):
            step.refuse(f"{name} {text!r} is not a decimal number of one text")
        if name != "epsilon" and not text.startswith("0"):
            step.refuse(f"{name} {text} is not below 1")
    if not 1 <= len(step.get("state", str).encode()) <= 255:
        step.refuse("state is not 1 to 255 bytes long")


def read_tiers(schema, fields, blocks):
    """[(name, seed or None)]"""
    out = []
    for i, value in enumerate(schema.get("tiers", list)):
        sign = type(value) is dict and value.get("kind") == "sign"
        t = fields(f", tier {i}", value, ["kind"] + ["seed"] * sign)
        kind = t.one_of("kind", list(tiers.NUMBERS))
        if out and tiers.NUMBERS[out[-1][0]] >= tiers.NUMBERS[kind]:
            t.refuse("a tier stands twice, or out of order")
        if not any(tiers.covers(kind, b.encoding) for b in blocks):
            t.refuse("no block has this tier")
        out.append((kind, t.seed("seed") if sign else None))
    if not out:
        schema.refuse("an empty list of tiers")
    return out


@dataclass
class Listed:
    file: str
    uuid: bytes
    rows: int
    bytes: int
    sha256: bytes
    dead: list
    by: str = "the listing"  # who says so


@dataclass
class ListedArtifact:
    name: str
    file: str
    uuid: bytes
    bytes: int
    sha256: bytes
    kind: str
    gone: int
    covered: list  # (Listed, ranges of rows)


UUID_PATTERN = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def file_of(fields, folder, extension, others):
    """The file of an entry of a listing, which no other entry has, and the UUID in it."""
    file = fields.get("file", str)
    match = re.fullmatch(rf"{folder}/({UUID_PATTERN})\.{extension}", file)
    if not match or any(file == other.file for other in others):
        fields.refuse(f"file {file!r} is not {folder}/<uuid>.{extension}, or stands twice")
    return file, uuids.UUID(match[1]).bytes


def digest_of(fields):
    if not re.fullmatch(r"[0-9a-f]{64}", fields.get("sha256", str)):
        fields.refuse("sha256 is not 64 lower-case hexadecimal digits")
    return bytes.fromhex(fields.value["sha256"])


def ranges_of(fields, name, rows):
    end, out = 0, []
    for r in fields.get(name, list):
        if type(r) is not list or [type(x) for x in r] != [int, int] or not end <= r[0] < r[1] <= rows:
            fields.refuse(f"{name} range {r!r} is not an ascending half-open range of the rows")
        end = r[1]
        out.append((r[0], r[1]))
    return out


def read_listing(path, index):
    """The exported listing -> its generation, its segments in order, and its artifacts."""
    name = os.path.basename(path)
    try:
        with open(path, "rb") as f:
            data = f.read()
    except OSError as e:
        raise FormatError(name, "file", None, f"cannot be read: {e.strerror}") from e
    top = Fields(name, "listing", 0, strict_json(name, "listing", 0, data),
                 ["format", "index", "generation", "schema_digest", "segments", "artifacts"])
    top.one_of("format", ["gradix-listing-1"])
    generation = top.integer("generation", 0, (1 << 63) - 1)
    if top.get("index", str) != str(uuids.UUID(bytes=index.uuid)):
        top.refuse("this is the listing of another index")
    if top.get("schema_digest", str) != index.digest.hex():
        top.refuse("the schema digest is not that of the INDEX file")
    segments = []
    for i, value in enumerate(top.get("segments", list)):
        s = Fields(name, f"segment {i}", 0, value, ["file", "rows", "bytes", "sha256", "dead"])
        file, uuid = file_of(s, "segments", "seg", segments)
        rows = s.integer("rows", 1, 0xFFFFFFFF)
        segments.append(Listed(file, uuid, rows, s.integer("bytes", 1, (1 << 63) - 1), digest_of(s), ranges_of(s, "dead", rows)))
    artifacts = []
    for i, value in enumerate(top.get("artifacts", list)):
        a = Fields(name, f"artifact {i}", 0, value, ["name", "file", "bytes", "sha256", "kind", "gone", "covered"])
        file, uuid = file_of(a, "artifacts", "art", artifacts)
        own = a.get("name", str)
        if not 1 <= len(own.encode()) <= 255 or "\0" in own or any(own.encode() <= other.name.encode() for other in artifacts):
            a.refuse(f"name {own!r} is not 1 to 255 bytes without 0, or out of order")
        kind, gone = a.one_of("kind", ["rows", "observed", "self_influence"]), a.integer("gone", 0, (1 << 63) - 1)
        if kind == "self_influence" and gone:
            a.refuse(f"gone is {gone}, of self-influence")
        artifacts.append(ListedArtifact(own, file, uuid, a.integer("bytes", 1, (1 << 63) - 1), digest_of(a), kind, gone,
                                        read_covered(name, i, a, segments)))
    return generation, segments, artifacts


def read_covered(name, i, artifact, segments):
    """[(segment, ranges of rows)], in the order of UUIDs"""
    known, covered = {s.file: s for s in segments}, []
    for value in artifact.get("covered", list):
        c = Fields(name, f"artifact {i}, covered", 0, value, ["file", "rows"])
        segment = known.get(c.get("file", str))
        if segment is None or any(segment.uuid <= other.uuid for other, _ in covered):
            c.refuse(f"file {c.value['file']!r} is no segment of the listing, or out of order")
        ranges = ranges_of(c, "rows", segment.rows)
        if not ranges:
            c.refuse("no rows")
        covered.append((segment, ranges))
    return covered


@dataclass
class Region:
    ordinal: int
    kind: int
    tier: int
    block: int
    group: int
    compression: int
    offset: int
    stored: int
    used: int
    raw: int
    entry: int  # offset of the entry in the file

    @property
    def name(self):
        kind = KINDS.get(self.kind, f"informative kind {self.kind:#x}")
        block = f" of block {self.block}" if self.kind == 1 else ""
        tier = f", tier {self.tier}" if self.kind in (1, 9) and self.tier else ""
        return f"region {self.ordinal} ({kind}{block}, group {self.group}{tier})"


@dataclass
class Group:
    """The decoded columns of one row group; `codes` and `scales` by block."""

    first: int
    rows: int
    ids: list
    spans: np.ndarray  # [rows, 2]
    sources: list  # name or None
    metadata: list
    codes: list
    scales: list
    norms: list
    decoded: list


class Segment:
    """One open segment file. Opening checks header, tail, footer and all region entries."""

    def __init__(self, index, listed, folder):
        self.index, self.listed, self.file = index, listed, listed.file
        try:
            with open(os.path.join(folder, *listed.file.split("/")), "rb") as f:
                self.size = os.fstat(f.fileno()).st_size
                if self.size != listed.bytes:
                    self.refuse("file", None, f"{self.size} bytes, but {listed.by} says {listed.bytes}")
                if self.size < 2 * PAGE + 64:
                    self.refuse("file", None, f"{self.size} bytes are less than any segment has")
                self.data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as e:
            self.refuse("file", None, f"cannot be read: {e.strerror}")
        self.warnings = []
        self.read_header()
        self.read_footer(*self.read_tail())

    def refuse(self, where, offset, what):
        raise FormatError(self.file, where, offset, what)

    def read_header(self):
        c = Cursor(self.file, "header", self.data[:PAGE], 0)
        c.magic(SEGMENT_MAGIC)
        c.version()
        c.number(4, "header length", 128)
        c.features(FEATURE_TIERS if self.index.tiers else 0)
        c.same("index UUID", self.index.uuid)
        c.same("segment UUID", self.listed.uuid)
        c.same("schema digest", self.index.digest)
        self.generation = c.number(8, "generation")
        if self.generation >= 1 << 63:
            c.refuse("generation", "2^63 or more", 104)
        self.ordinal = c.number(4, "ordinal")
        c.zero(8)
        c.crc()
        c.zero(PAGE - 128, "padding")

    def read_tail(self):
        start = self.size - 64
        c = Cursor(self.file, "tail", self.data[start:], start)
        if bytes(self.data[-8:]) != END_MAGIC:
            c.refuse("end magic", "not the end of a segment", 56)
        offset = c.number(8, "footer offset")
        length = c.number(8, "footer length")
        crc = c.number(4, "CRC32 of the footer")
        c.version()
        c.same("segment UUID", self.listed.uuid)
        c.zero(12)
        c.crc()
        if offset % PAGE or offset < 2 * PAGE or offset + length + 64 != self.size:
            c.refuse("footer offset", f"{offset} with length {length} does not end at the tail", 0)
        if zlib.crc32(self.data[offset:start]) != crc:
            self.refuse("tail, CRC32 of the footer", start + 16, "does not match")
        return offset, length

    def read_footer(self, offset, length):
        c = Cursor(self.file, "footer", self.data[offset : offset + length], offset)
        self.rows = c.number(8, "rows")
        groups = c.number(4, "number of row groups")
        c.number(4, "number of blocks", len(self.index.blocks))
        regions = c.number(4, "number of regions")
        c.number(4, "chunk length", CHUNK)
        c.zero(8)
        if self.rows != self.listed.rows:
            c.refuse("rows", f"{self.rows}, but {self.listed.by} says {self.listed.rows}", 0)
        if groups < 1:
            c.refuse("number of row groups", "0", 8)
        if 32 + 8 * groups + 64 * regions > length:
            c.refuse("number of regions", f"{groups} groups and {regions} regions do not fit", 8)
        self.group_rows = []
        for _ in range(groups):
            self.group_rows.append(c.number(4, "rows of a group"))
            c.zero(4)
            if self.group_rows[-1] < 1:
                c.refuse("rows of a group", "0", c.at - 8)
        if sum(self.group_rows) != self.rows:
            c.refuse("group table", f"{sum(self.group_rows)} rows, but the segment has {self.rows}", 32)
        self.regions, at, expected = [], PAGE, self.expected_kinds()
        for ordinal in range(regions):
            region = self.read_entry(c, ordinal, at, offset, expected)
            self.regions.append(region)
            at += region.stored
        if at != offset:
            c.refuse("region table", f"the regions end at {at}, the footer starts at {offset}", c.at)
        missing = next(expected, None)
        if missing:
            c.refuse("region table", f"{KINDS[missing[0]]} of group {missing[2]} is missing", c.at)
        chunks = [-(-r.stored // CHUNK) for r in self.regions]
        if length - c.at != 4 * sum(chunks):
            c.refuse("chunk checksums", f"{length - c.at} bytes, where {4 * sum(chunks)} belong")
        checksums = np.frombuffer(c.take(4 * sum(chunks), "chunk checksums"), "<u4")
        self.checksums = np.split(checksums, np.cumsum(chunks)[:-1])
        self.known = {(r.kind, r.tier, r.group, r.block): r for r in self.regions if r.kind < 0x8000}

    def expected_kinds(self):
        """(kind, tier, group, block) in the order of the page."""
        scaled = any(b.has_scale for b in self.index.blocks)
        for g in range(len(self.group_rows)):
            for b in range(len(self.index.blocks)):
                yield 1, 0, g, b
            for kind in range(2, 8):
                if kind != 2 or scaled:
                    yield kind, 0, g, 0
            for tier, _ in self.index.tiers:
                for b in self.index.tier_blocks(tier):
                    yield 1, tiers.NUMBERS[tier], g, b
                yield 9, tiers.NUMBERS[tier], g, 0
        yield 8, 0, 0, 0

    def read_entry(self, c, ordinal, at, footer, expected):
        entry = c.at
        kind, tier = c.number(2, "kind"), c.number(2, "tier")
        block, group = c.number(4, "block"), c.number(4, "row group")
        encoding, version = c.number(2, "encoding"), c.number(2, "encoding version")
        compression = c.number(2, "compression")
        c.zero(2)
        stride = c.number(4, "row stride")
        offset, stored, used, raw = (c.number(8, f) for f in ("offset", "stored length", "used length", "raw length"))
        c.zero(8)
        region = Region(ordinal, kind, tier, block, group, compression, offset, stored, used, raw, c.start + entry)

        def check(good, field, field_at, what):
            if not good:
                self.refuse(f"footer, {region.name}, {field}", region.entry + field_at, what)

        check(offset == at, "offset", 24, f"{offset}, where the region before ends at {at}")
        check(used < 1 << 54, "used length", 40, f"{used} bytes are 2^54 or more")
        check(used <= stored and stored == max(PAGE, round_up(used, PAGE)), "stored length", 32, f"{stored} for {used} used bytes")
        check(stored <= footer - at, "stored length", 32, "reaches beyond the footer's start")
        if kind >= 0x8000:
            return region
        check(kind in KINDS, "kind", 0, f"{kind} is not known")
        wanted = next(expected, None)
        check(wanted == (kind, tier, group, block), "kind", 0, f"stands where {wanted} (kind, tier, group, block) belongs")
        check(compression == 0 or (compression == 1 and kind in COMPRESSED_KINDS), "compression", 16, f"{compression}")
        if compression == 0:
            check(raw == used, "raw length", 48, f"{raw}, without compression, for {used} used bytes")
        else:
            check(raw <= min((1 << 20) + 256 * used, 1 << 30), "raw length", 48, f"{raw} is too much for {used} used bytes")
        rows, lengths = self.group_rows[group], {}
        if kind == 1:
            b = self.index.blocks[block]
            number = tiers.ENCODINGS[self.tier_name(tier)] if tier else ENCODING_NUMBERS[b.encoding]
            check(encoding == number, "encoding", 12, f"{encoding}, but the schema says {number}")
            check(version == 1, "encoding version", 14, f"{version}; this reader knows 1")
            wanted = round_up(tiers.row_bytes(self.tier_name(tier), b.dims), 64) if tier else b.stride
            check(stride == wanted, "row stride", 20, f"{stride}, where {wanted} belongs")
            lengths[1] = rows * wanted
        else:
            check((encoding, version, stride) == (0, 0, 0), "encoding, version or stride", 12, "not 0")
        lengths[2] = 4 * rows * sum(b.has_scale for b in self.index.blocks)
        lengths[3], lengths[5], lengths[6] = 4 * rows * len(self.index.blocks), 8 * rows, 4 * rows
        if kind == 9:
            lengths[9] = 8 * rows * len(self.index.tier_blocks(self.tier_name(tier)))
        if kind in lengths:
            check(raw == lengths[kind], "raw length", 48, f"{raw}, where {lengths[kind]} belongs")
        return region

    def tier_name(self, number):
        return next(name for name, n in tiers.NUMBERS.items() if n == number)

    def check_checksums(self, region):
        """Chunk checksums and padding of one region."""
        start, end = region.offset, region.offset + region.stored
        for c, want in enumerate(self.checksums[region.ordinal]):
            first = start + c * CHUNK
            seed = zlib.crc32(self.listed.uuid + struct.pack("<IQ", region.ordinal, c))
            if zlib.crc32(self.data[first : min(first + CHUNK, end)], seed) != int(want):
                self.refuse(f"{region.name}, chunk {c}", first, "its checksum does not match")
        padding = np.frombuffer(self.data[start + region.used : end], np.uint8)
        if padding.any():
            self.refuse(f"{region.name}, padding", start + region.used + int(padding.argmax()), "not zero")

    def raw(self, kind, group, block=0, tier=0):
        """The raw contents of a region, its checksums checked."""
        region = self.known[kind, tier, group, block]
        self.check_checksums(region)
        used = self.data[region.offset : region.offset + region.used]
        if region.compression == 0:
            return region, used
        return region, self.decompress(region, bytes(used))

    def decompress(self, region, used):
        """One zstd frame, all of `used`, of exactly the raw length; never a byte more is made."""
        if used[:4] != b"\x28\xb5\x2f\xfd":
            self.refuse(region.name, region.offset, "does not start with a zstd frame")
        d = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        out = bytearray()
        try:
            frame = zstandard.get_frame_parameters(used)
            if frame.content_size != region.raw:
                self.refuse(region.name, region.offset, f"is not one zstd frame of {region.raw} bytes")
            # The library does not look at the window of a frame whose contents fit its buffer.
            if frame.window_size > 1 << 27:
                self.refuse(region.name, region.offset, "is a zstd frame with a window of more than 2^27 bytes")
            for at in range(0, len(used), 256):
                if d.eof:
                    break
                out += d.decompress(used[at : at + 256])
                if len(out) > region.raw:
                    break
        except zstandard.ZstdError as e:
            self.refuse(region.name, region.offset, f"not a zstd frame: {e}")
        if not d.eof or d.unused_data or at + 256 < len(used) or len(out) != region.raw:
            self.refuse(region.name, region.offset, f"is not one zstd frame of {region.raw} bytes")
        return bytes(out)

    def strings(self, region, data, count, shortest, longest):
        """Byte strings."""
        table = 4 * (count + 1)
        if len(data) < table:
            self.refuse(region.name, region.offset, f"{len(data)} bytes hold no {count + 1} offsets")
        offsets = np.frombuffer(data, "<u4", count + 1).astype(np.int64)
        lengths = np.diff(offsets)
        if offsets[0] != 0 or (lengths < 0).any() or offsets[-1] != len(data) - table:
            self.refuse(region.name, region.offset, "its offsets do not rise from 0 to its end")
        if ((lengths < shortest) | (lengths > longest)).any():
            self.refuse(region.name, region.offset, f"a string is not of {shortest} to {longest} bytes")
        return [bytes(data[table + a : table + b]) for a, b in zip(offsets[:-1], offsets[1:])]

    def source_names(self):
        region, data = self.raw(8, 0)
        if len(data) < 8:
            self.refuse(region.name, region.offset, "too short")
        count = int.from_bytes(data[:4], "little")
        if count > (len(data) - 8) // 5:
            self.refuse(region.name, region.offset, f"{count} names do not fit")
        try:
            names = [n.decode("utf-8") for n in self.strings(region, data[4:], count, 1, 255)]
        except UnicodeDecodeError:
            self.refuse(region.name, region.offset, "a name is not UTF-8")
        if len(set(names)) != count:
            self.refuse(region.name, region.offset, "a name stands twice")
        return names

    def codes(self, group, block):
        """[rows, dims] codes of one block; the bytes after a row's last code must be zero."""
        b = self.index.blocks[block]
        region, data = self.raw(1, group, block)
        kind = arithmetic.CODE_TYPES[b.encoding]
        rows = np.frombuffer(data, np.uint8).reshape(-1, b.stride)
        rest = rows[:, b.dims * kind.itemsize :]
        if rest.any():
            row = int(rest.any(axis=1).argmax())
            self.refuse(f"{region.name}, row {row}", region.offset + row * b.stride, "padding of the row is not zero")
        codes = rows[:, : b.dims * kind.itemsize].copy().view(kind)
        if not np.isfinite(codes).all():
            row = int((~np.isfinite(codes)).any(axis=1).argmax())
            self.refuse(f"{region.name}, row {row}", region.offset + row * b.stride, "a code is not finite")
        return region, codes

    def groups(self):
        """Every row group, all of it checked: values, norms, ids, spans, sources."""
        names, used_names, first = self.source_names(), 0, 0
        for g, rows in enumerate(self.group_rows):
            scales, norms = self.scales(g), self.norms(g)
            codes, decoded = [], []
            for b, block in enumerate(self.index.blocks):
                region, c = self.codes(g, b)
                y = arithmetic.decode(block.encoding, scales[b], c)
                self.check_row_values(region, block, scales[b], c, y, norms[b])
                codes.append(c)
                decoded.append(y)
            self.check_tiers(g, codes, scales, decoded)
            region, data = self.raw(4, g)
            ids = self.strings(region, data, rows, 1, 4096)
            region, data = self.raw(5, g)
            spans = np.frombuffer(data, "<u4").reshape(2, rows).T
            if (spans[:, 0] >= spans[:, 1]).any():
                self.refuse(region.name, region.offset, "a span is empty")
            region, data = self.raw(6, g)
            sources = []
            for row, ordinal in enumerate(np.frombuffer(data, "<u4").tolist()):
                if ordinal == NO_SOURCE:
                    sources.append(None)
                    continue
                if ordinal >= len(names):
                    self.refuse(f"{region.name}, row {row}", region.offset, f"source {ordinal} of {len(names)}")
                if ordinal > used_names:
                    self.refuse(f"{region.name}, row {row}", region.offset,
                                f"source {ordinal} before any row has source {used_names}")
                used_names = max(used_names, ordinal + 1)
                sources.append(names[ordinal])
            region, data = self.raw(7, g)
            metadata = self.strings(region, data, rows, 0, 65536)
            yield Group(first, rows, ids, spans, sources, metadata, codes, scales, norms, decoded)
            first += rows
        if used_names != len(names):
            region = self.known[8, 0, 0, 0]
            self.refuse(region.name, region.offset, "a name that no row uses")

    def check_row_values(self, region, block, scales, codes, y, norms):
        def refuse(bad, what):
            if bad.any():
                row = int(bad.argmax())
                self.refuse(f"{region.name}, row {row}", region.offset + row * block.stride, what)

        if scales is not None:
            kind = arithmetic.CODE_TYPES[block.encoding]
            raw = np.ascontiguousarray(codes).view(np.uint8).reshape(len(codes), -1)
            assert raw.shape[1] == block.dims * kind.itemsize
            refuse((scales == 0) & raw.any(axis=1), "its scale is 0, but its codes are not")
        refuse(~np.isfinite(y).all(axis=1), "a decoded number is not finite")
        refuse(arithmetic.norms(y).view("<u4") != norms.view("<u4"), "its norm is not the stored one")
        if block.encoding == "i8" and (codes == -128).any():
            self.warnings.append(f"{self.file}: {region.name}: {int((codes == -128).sum())} codes are -128")

    def check_tiers(self, group, codes, scales, decoded):
        """Codes and factors of each tier: those that the rows give, bit for bit."""
        rows = self.group_rows[group]
        for tier, seed in self.index.tiers:
            number, blocks = tiers.NUMBERS[tier], self.index.tier_blocks(tier)
            region, data = self.raw(9, group, tier=number)
            factors = np.frombuffer(data, "<f4").reshape(len(blocks), 2, rows)
            for b, (first, second) in zip(blocks, factors):
                block = self.index.blocks[b]
                scale = (first == 0) | ((first >= np.float32(arithmetic.MIN_SCALE)) & (first <= arithmetic.MAX_SCALE["i8"]))
                good = {"sign": first <= tiers.MAX_GAIN, "i8": scale}[tier]
                good = good & ~np.signbit(first) & ~np.signbit(second) & (second <= tiers.MAX_REMAINDER)
                if not good.all():
                    self.refuse(f"{region.name}, block {b}, row {int(good.argmin())}", region.offset, "no factors of this tier")
                own, data = self.raw(1, group, b, number)
                bytes_, length = tiers.row_bytes(tier, block.dims), len(data) // rows
                stored = np.frombuffer(data, np.uint8).reshape(rows, length)
                made = tiers.made(tier, seed, b, block.encoding, scales[b], codes[b], decoded[b])
                same = (stored[:, :bytes_] == made[0]).all(axis=1) & ~stored[:, bytes_:].any(axis=1)
                if not same.all():
                    row = int(same.argmin())
                    self.refuse(f"{own.name}, row {row}", own.offset + row * length, "not the codes of the row")
                same = (first.view("<u4") == made[1].view("<u4")) & (second.view("<u4") == made[2].view("<u4"))
                if not same.all():
                    self.refuse(f"{region.name}, block {b}, row {int(same.argmin())}", region.offset, "not the factors of the row")

    def scales(self, group):
        """For each block an f32 array, or None."""
        blocks = self.index.blocks
        out = [None] * len(blocks)
        scaled = [i for i, b in enumerate(blocks) if b.has_scale]
        if not scaled:
            return out
        region, data = self.raw(2, group)
        table = np.frombuffer(data, "<f4").reshape(len(scaled), -1)
        for i, s in zip(scaled, table):
            bits = s.view("<u4")
            good = (bits == 0) | ((s >= np.float32(arithmetic.MIN_SCALE)) & (s <= arithmetic.MAX_SCALE[blocks[i].encoding]))
            if blocks[i].encoding == "f16":
                good &= (bits & 0x7FFFFF) == 0
            if not good.all():
                self.refuse(f"{region.name}, block {i}, row {int(good.argmin())}", region.offset, "not a scale")
            out[i] = s
        return out

    def norms(self, group):
        region, data = self.raw(3, group)
        table = np.frombuffer(data, "<f4").reshape(len(self.index.blocks), -1)
        good = (table >= 0) & (table <= MAX_STORED_NORM) & ~np.signbit(table)
        if not good.all():
            at = int(good.reshape(-1).argmin())
            self.refuse(region.name, region.offset + 4 * at, "not a norm")
        return list(table)

    def is_dead(self, row):
        return any(a <= row < b for a, b in self.listed.dead)

    def verify(self):
        """Everything: SHA-256, all checksums, all values. Returns the number of live rows."""
        if hashlib.sha256(self.data).digest() != self.listed.sha256:
            self.refuse("file", None, f"its SHA-256 is not the one that {self.listed.by} says")
        for region in self.regions:
            if region.kind >= 0x8000:
                self.check_checksums(region)
        yield from self.groups()


def rows_of(segment, group):
    """Live rows of a group: (row in the segment, row in the group)."""
    for i in range(group.rows):
        if not segment.is_dead(group.first + i):
            yield group.first + i, i


class LiveIds:
    """Checks that the live rows of one example stand one after the other, in one row group of the snapshot."""

    def __init__(self):
        self.seen, self.last, self.next = set(), None, None

    def add(self, segment, group, row, example):
        # Where a row goes on with the example of the live row before it.
        follows = (segment.file, row) == self.next and row != group.first
        if not (example == self.last and follows):
            if example in self.seen:
                raise FormatError(segment.file, f"ids, row {row}", None, f"example {example!r} lives in two places")
            self.seen.add(example)
        self.last, self.next = example, (segment.file, row + 1)
