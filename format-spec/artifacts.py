"""Artifacts: numbers that were derived from rows, written from artifacts.md, and from curvature.md where sums are computed again."""

import hashlib
import math
import mmap
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

import container
from container import CHUNK, Cursor, FormatError

MAGIC = b"\x89GDR\r\n\x1a\n"
HEADER, ENTRY, TAIL = 128, 96, 64
# The kinds of a file, by those of a listing.
KINDS = {"rows": 1, "observed": 1, "self_influence": 2}
SUMS = 1
NUMBERS = {1: np.dtype("<f8"), 2: np.dtype("<f4")}


@dataclass
class Entry:
    """One region: its description in the table, and where its numbers and checksums are."""

    at: int  # offset of the entry in the file
    segment: bytes
    block: int
    width: int
    rank: int
    rows: int
    power: float
    kappa: float
    sums: bytes
    count: int
    offset: int
    first_chunk: int


class Artifact:
    """One open artifact file. Opening checks header, tail and table against the listing."""

    def __init__(self, index, listed):
        self.index, self.listed, self.file = index, listed, listed.file
        try:
            with open(os.path.join(index.folder, *listed.file.split("/")), "rb") as f:
                self.size = os.fstat(f.fileno()).st_size
                if self.size != listed.bytes:
                    self.refuse("file", None, f"{self.size} bytes, but the listing says {listed.bytes}")
                if self.size < HEADER + TAIL:
                    self.refuse("file", None, f"{self.size} bytes are less than any artifact has")
                self.data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as e:
            self.refuse("file", None, f"cannot be read: {e.strerror}")
        self.kind = self.read_header()
        self.read_table(*self.read_tail())

    def refuse(self, where, offset, what):
        raise FormatError(self.file, where, offset, what)

    def read_header(self):
        c = Cursor(self.file, "header", self.data[:HEADER], 0)
        c.magic(MAGIC)
        c.version()
        kind = c.number(4, "kind", KINDS[self.listed.kind])
        c.features()
        c.same("index UUID", self.index.uuid)
        c.same("artifact UUID", self.listed.uuid)
        c.same("schema digest", self.index.digest)
        c.zero(20)
        c.crc()
        return kind

    def read_tail(self):
        c = Cursor(self.file, "tail", self.data[-TAIL:], self.size - TAIL)
        offset, length = c.number(8, "offset of the table"), c.number(8, "bytes of the table")
        regions, crc = c.number(4, "number of regions"), c.number(4, "CRC32 of the table")
        c.zero(28)
        c.crc()
        c.magic(MAGIC)
        if offset < HEADER or offset + length + TAIL != self.size:
            c.refuse("offset of the table", f"{offset} with {length} bytes does not end at the tail", 0)
        if ENTRY * regions > length:
            c.refuse("number of regions", f"{regions} do not fit into {length} bytes", 16)
        if zlib.crc32(self.data[offset : offset + length]) != crc:
            c.refuse("CRC32 of the table", "does not match", 20)
        return offset, length, regions

    def read_table(self, offset, length, regions):
        c = Cursor(self.file, "table", self.data[offset : offset + length], offset)
        self.entries, end, chunks = [], HEADER, 0
        for i in range(regions):
            entry = self.read_entry(c, i, end, chunks)
            self.entries.append(entry)
            size = entry.count * NUMBERS[self.kind].itemsize
            end, chunks = end + size, chunks + -(-size // CHUNK)
            if end > offset:
                c.refuse(f"region {i}, number of numbers", f"{entry.count} reach beyond the table's start", c.at - 24)
        if end != offset:
            c.refuse("number of regions", f"they end at {end}, the table begins at {offset}", 0)
        self.checksums = np.frombuffer(c.take(4 * chunks, "checksums of chunks"), "<u4")
        if c.at != length:
            c.refuse("checksums of chunks", f"{length - c.at} bytes more than {chunks} checksums")
        self.check_regions(c)

    def read_entry(self, c, i, offset, first_chunk):
        sums, at, start = self.kind == SUMS, c.start + c.at, c.at

        def own(wanted, n, field):
            """The bytes of a field of one kind of artifact, which are zero in the other."""
            if wanted:
                return c.take(n, f"region {i}, {field}")
            c.zero(n, f"region {i}, {field}")
            return bytes(n)

        def number(data):
            return int.from_bytes(data, "little")

        segment = own(not sums, 16, "segment UUID")
        block = c.number(4, f"region {i}, block")
        dims, width = number(own(sums, 4, "dims")), number(own(sums, 4, "width"))
        rank = number(own(not sums, 4, "rank"))
        rows = c.number(8, f"region {i}, rows")
        power = struct.unpack("<d", own(sums, 8, "power"))[0]
        kappa = struct.unpack("<d", own(not sums, 8, "kappa"))[0]
        of_sums = own(not sums, 16, "UUID of the sums")
        count = c.number(8, f"region {i}, number of numbers")
        c.zero(16)
        if block >= len(self.index.blocks):
            c.refuse(f"region {i}, block", f"{block} of {len(self.index.blocks)}", start + 16)
        if not (math.isfinite(power) and power >= 0):
            c.refuse(f"region {i}, power", f"{power}", start + 40)
        if not (math.isfinite(kappa) and kappa >= 0):
            c.refuse(f"region {i}, kappa", f"{kappa}", start + 48)
        wanted = rows
        if sums:
            known = self.index.blocks[block].dims
            if dims != known:
                c.refuse(f"region {i}, dims", f"{dims}, where the block has {known}", start + 20)
            if width > dims:
                c.refuse(f"region {i}, width", f"{width}, above the dims", start + 24)
            wanted = dims * (dims + 1) // 2 if width == 0 else dims * len(groups(dims, width))
        if count != wanted:
            c.refuse(f"region {i}, number of numbers", f"{count}, where {wanted} belong", start + 72)
        return Entry(at, segment, block, width, rank, rows, power, kappa, of_sums, count, offset, first_chunk)

    def check_regions(self, c):
        """That the regions are those that the kind has, and those that the covered rows need."""
        blocks, found = len(self.index.blocks), [(e.segment, e.block) for e in self.entries]
        if self.kind == SUMS:
            if [e.block for e in self.entries] != list(range(blocks)):
                c.refuse("number of regions", "not one for each block, in their order", 0)
            return
        if len(set(found)) != len(found):
            c.refuse("number of regions", "a segment and block stand twice", 0)
        if len({(e.kappa, e.rank, e.sums) for e in self.entries}) > 1:
            c.refuse("number of regions", "of different kappas, ranks or sums", 0)
        for segment, _ in self.listed.covered:
            own = [e for e in self.entries if e.segment == segment.uuid]
            if {e.block for e in own} != set(range(blocks)):
                c.refuse("number of regions", f"{segment.file} does not have all blocks", 0)
            for e in own:
                if e.rows != segment.rows:
                    self.refuse("table, rows", e.at + 32, f"{e.rows}, but the listing says {segment.rows}")

    def numbers(self, i):
        """The numbers of a region, all checks made."""
        entry, kind = self.entries[i], NUMBERS[self.kind]
        data = self.data[entry.offset : entry.offset + entry.count * kind.itemsize]
        for n, first in enumerate(range(0, len(data), CHUNK)):
            seed = zlib.crc32(self.listed.uuid + struct.pack("<II", i, n))
            if zlib.crc32(data[first : first + CHUNK], seed) != int(self.checksums[entry.first_chunk + n]):
                self.refuse(f"region {i}, chunk {n}", entry.offset + first, "its checksum does not match")
        numbers = np.frombuffer(data, kind)
        good = np.isfinite(numbers) & ((self.kind == SUMS) | (numbers >= 0))
        if not good.all():
            at = int(good.argmin())
            self.refuse(f"region {i}, number {at}", entry.offset + at * kind.itemsize, f"{numbers[at]}")
        return numbers

    def verify(self):
        """Everything but what rows have to say."""
        if hashlib.sha256(self.data).digest() != self.listed.sha256:
            self.refuse("file", None, "its SHA-256 is not the one that the listing says")
        covered = {segment.uuid: rows for segment, rows in self.listed.covered}
        for i, entry in enumerate(self.entries):
            numbers = self.numbers(i)
            if self.kind != SUMS and entry.segment in covered:
                rest = numbers.copy()
                for a, b in covered[entry.segment]:
                    rest[a:b] = 0
                if rest.any():
                    at = int(rest.argmax())
                    self.refuse(f"region {i}, number {at}", entry.offset + 4 * at, "of a row that is not covered")


def groups(dims, width):
    """Where the groups of neighbours begin (curvature.md)."""
    return np.arange(0, dims, -(-dims // width))


class Recount:
    """Computes the sums of an artifact again, from the rows that it covers."""

    def __init__(self, artifact):
        self.artifact = artifact
        self.covered = {segment.file: rows for segment, rows in artifact.listed.covered}
        self.blocks = [Again(b.dims, e.width) for b, e in zip(artifact.index.blocks, artifact.entries)]

    @staticmethod
    def is_possible(artifact):
        return artifact.listed.kind == "rows" and artifact.listed.gone == 0

    def add(self, segment, group):
        rows = np.zeros(group.rows, bool)
        for a, b in self.covered.get(segment.file, []):
            rows[max(a - group.first, 0) : max(b - group.first, 0)] = True
        if rows.any():
            for block, decoded in zip(self.blocks, group.decoded):
                block.add(decoded[rows].astype(np.float64))

    def compare(self):
        rows = sum(b - a for ranges in self.covered.values() for a, b in ranges)
        for i, (again, entry) in enumerate(zip(self.blocks, self.artifact.entries)):
            def refuse(field, offset, found, wanted):
                self.artifact.refuse(f"region {i}, {field}", offset, f"{found}, but that of the covered rows is {wanted}")

            if entry.rows != rows:
                refuse("rows", entry.at + 32, entry.rows, rows)
            if abs(entry.power - again.power) > again.power * 2.0**-40:
                refuse("power", entry.at + 40, entry.power, again.power)
            found, (wanted, allowed) = self.artifact.numbers(i), again.flat()
            bad = np.abs(found - wanted) > allowed
            if bad.any():
                at = int(bad.argmax())
                refuse(f"number {at}", entry.offset + 8 * at, found[at], wanted[at])


class Again:
    """Sums of one block's rows in f64, and of the magnitudes of their products."""

    def __init__(self, dims, width):
        self.groups = None if width == 0 else groups(dims, width)
        columns = dims if width == 0 else len(self.groups)
        self.sums, self.magnitudes = np.zeros((dims, columns)), np.zeros((dims, columns))
        self.power, self.rows, self.largest = 0.0, 0, 0.0

    def add(self, y):
        right, magnitudes = y, np.abs(y)
        if self.groups is not None:
            right = np.add.reduceat(y, self.groups, axis=1)
        self.sums += y.T @ right
        self.magnitudes += magnitudes.T @ (magnitudes if self.groups is None else np.add.reduceat(magnitudes, self.groups, axis=1))
        self.power += float((y * y).sum())
        self.rows += len(y)
        self.largest = max(self.largest, float(magnitudes.max()))

    def flat(self):
        """The numbers in their order, and how far others may be from them."""
        allowed = self.magnitudes * 2.0**-12 + self.rows * self.largest**2 * 2.0**-120
        if self.groups is not None:
            return self.sums.reshape(-1), allowed.reshape(-1)
        lower = np.tril_indices(len(self.sums))
        return self.sums[lower], allowed[lower]
