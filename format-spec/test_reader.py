"""Tests of the second reader, with a little writer of its own: `python -m unittest` in this folder."""

import hashlib
import io
import json
import os
import struct
import tempfile
import unittest
import uuid
import zlib
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction

import numpy as np
import zstandard

import arithmetic
import artifacts
import container
import detached
import fold
import known_answers
import kronecker
import reader
import tiers

INDEX_ID, SEGMENT_ID = uuid.UUID(int=0x11112222333344445555666677778888), uuid.UUID(int=0xAB << 90)
HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = [("a", 20, "f32"), ("b", 33, "f16"), ("c", 70, "i8")]
ORDER = {"f32": 1, "f16": 2, "i8": 3}

# Of the first row group: the ordinal of the ids among the regions, each of which takes a page.
IDS = len(BLOCKS) + 2
SOURCES = IDS + 2
GROUP = len(BLOCKS) + 6


def up(n, a):
    return -(-n // a) * a


def strings(items):
    ends = np.cumsum([0] + [len(i) for i in items]).astype("<u4")
    return ends.tobytes() + b"".join(items)


class Writer:
    """Builds one segment in memory; every piece can be replaced before `bytes` seals it."""

    def __init__(self, groups=(3, 2), compress=True):
        rng = np.random.default_rng(3)
        self.rows = [[rng.standard_normal(d).astype("f4") * 10.0 ** float(rng.integers(-9, 3)) for _, d, _ in BLOCKS]
                     for _ in range(sum(groups))]
        self.rows[1][1][:] = 0
        self.groups, self.compress, self.segment = groups, compress, SEGMENT_ID
        self.ids = [b"x", b"x", b"\x00y", b"z", b"w"]
        self.sources = [0, 0xFFFFFFFF, 0, 1, 1]
        self.spans = [(0, 3), (3, 0xFFFFFFFF), (0, 0xFFFFFFFF), (1, 2), (0, 0xFFFFFFFF)]
        self.names = [b"wiki", "größe".encode()]
        self.schema = {
            "spec": {"sketcher": {"kind": "dense", "name": "t", "digest": "d"},
                     "blocks": [{"name": n, "dims": d} for n, d, _ in BLOCKS]},
            "encodings": [e for _, _, e in BLOCKS]}
        self.features = (0, 0, 0)
        self.origin, self.reserved = (3, 1), bytes(8)
        self.tiers = []
        self.informative = False
        self.change = lambda regions: regions

    def body(self):
        return json.dumps(self.schema, separators=(",", ":")).encode()

    def index(self):
        b = self.body()
        head = b"\x89GDI\r\n\x1a\n" + struct.pack("<IIQQQ", 1, len(b), 0, 0, 0) + INDEX_ID.bytes
        head += struct.pack("<I", zlib.crc32(b))
        return head + struct.pack("<I", zlib.crc32(head)) + b

    def regions(self):
        """[[kind, block, group, encoding, version, compression, stride, raw]]"""
        out, first = [], 0
        for g, n in enumerate(self.groups):
            scales, norms = b"", b""
            for k, (_, dims, enc) in enumerate(BLOCKS):
                made = [arithmetic.encode(enc, r[k]) for r in self.rows[first : first + n]]
                s = None if not arithmetic.has_scale(enc) else np.array([m[0] for m in made], "<f4")
                c = np.array([m[1] for m in made])
                stride = up(dims * c.itemsize, 64)
                raw = b"".join(row.tobytes().ljust(stride, b"\0") for row in c)
                out.append([1, k, g, ORDER[enc], 1, 0, stride, raw])
                scales += b"" if s is None else s.tobytes()
                norms += arithmetic.norms(arithmetic.decode(enc, s, c)).tobytes()
            spans = np.array(self.spans[first : first + n], "<u4").T.tobytes()
            z = 1 if self.compress else 0
            out += [[2, 0, g, 0, 0, 0, 0, scales], [3, 0, g, 0, 0, 0, 0, norms],
                    [4, 0, g, 0, 0, z, 0, strings(self.ids[first : first + n])], [5, 0, g, 0, 0, z, 0, spans],
                    [6, 0, g, 0, 0, z, 0, np.array(self.sources[first : first + n], "<u4").tobytes()],
                    [7, 0, g, 0, 0, z, 0, strings([b"{}"] * n)]]
            for name, seed in self.tiers:
                out += self.tier_regions(name, seed, g, self.rows[first : first + n])
            if self.informative:
                # Kind and tier, block, group, encoding, version, compression, stride: all but the kind mean nothing here.
                out.append([(0x8001, 9), 9, 9, 9, 9, 9, 9, b"whatever"])
            first += n
        out.append([8, 0, 0, 0, 0, 0, 0, struct.pack("<I", len(self.names)) + strings(self.names)])
        return self.change(out)

    def add_tiers(self, *named):
        self.tiers = list(named)
        self.schema["tiers"] = [{"kind": n} | ({"seed": str(s)} if s is not None else {}) for n, s in named]
        self.features = (1, 0, 0)

    def tier_regions(self, name, seed, g, rows):
        """Codes of the blocks that have the tier, then factors; the tier stands in the second byte of the kind."""
        out, factors = [], b""
        for k, (_, dims, enc) in enumerate(BLOCKS):
            if not tiers.covers(name, enc):
                continue
            made = [arithmetic.encode(enc, r[k]) for r in rows]
            s = None if not arithmetic.has_scale(enc) else np.array([m[0] for m in made], "<f4")
            c = np.array([m[1] for m in made])
            codes, first, second = tiers.made(name, seed, k, enc, s, c, arithmetic.decode(enc, s, c))
            stride = up(codes.shape[1], 64)
            raw = b"".join(row.tobytes().ljust(stride, b"\0") for row in codes)
            out.append([(1, tiers.NUMBERS[name]), k, g, tiers.ENCODINGS[name], 1, 0, stride, raw])
            factors += first.astype("<f4").tobytes() + second.astype("<f4").tobytes()
        return out + [[(9, tiers.NUMBERS[name]), 0, g, 0, 0, 0, 0, factors]]

    def bytes(self, entry_change=None):
        head = b"\x89GDX\r\n\x1a\n" + struct.pack("<IIQQQ", 1, 128, *self.features) + INDEX_ID.bytes
        head += self.segment.bytes + hashlib.sha256(self.body()).digest()
        head += struct.pack("<QI", *self.origin) + self.reserved
        out = bytearray((head + struct.pack("<I", zlib.crc32(head))).ljust(4096, b"\0"))
        table, sums = b"", b""
        for r, (kind, block, group, enc, version, z, stride, raw) in enumerate(self.regions()):
            used = zstandard.ZstdCompressor().compress(raw) if z == 1 else raw
            stored = used.ljust(max(4096, up(len(used), 4096)), b"\0")
            kind, tier = kind if isinstance(kind, tuple) else (kind, 0)
            entry = [kind, tier, block, group, enc, version, z, 0, stride, len(out), len(stored), len(used), len(raw), 0]
            if entry_change:
                entry_change(r, entry)
            table += struct.pack("<HHIIHHHHIQQQQQ", *entry)
            for c in range(0, len(stored), 65536):
                sums += struct.pack("<I", zlib.crc32(self.segment.bytes + struct.pack("<IQ", r, c // 65536) + stored[c : c + 65536]))
            out += stored
        footer = struct.pack("<QIIIIQ", sum(self.groups), len(self.groups), len(BLOCKS), len(table) // 64, 65536, 0)
        footer += b"".join(struct.pack("<II", n, 0) for n in self.groups) + table + sums
        tail = struct.pack("<QQII", len(out), len(footer), zlib.crc32(footer), 1) + self.segment.bytes + bytes(12)
        self.footer_at = len(out)
        return bytes(out) + footer + tail + struct.pack("<I", zlib.crc32(tail)) + b"\n\x1a\r\nXDG\x89"


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def put(self, writer, segment=None, index_file=None, dead=(), **listing):
        d = self.dir.name
        os.makedirs(d + "/segments", exist_ok=True)
        segment = writer.bytes() if segment is None else segment
        file = f"segments/{SEGMENT_ID}.seg"
        with open(f"{d}/{file}", "wb") as f:
            f.write(segment)
        with open(d + "/INDEX", "wb") as f:
            f.write(writer.index() if index_file is None else index_file)
        entry = {"file": file, "rows": sum(writer.groups), "bytes": len(segment),
                 "sha256": hashlib.sha256(segment).hexdigest(), "dead": list(dead)}
        top = {"format": "gradix-listing-1", "index": str(INDEX_ID), "generation": 1,
               "schema_digest": hashlib.sha256(writer.body()).hexdigest(), "segments": [entry], "artifacts": []}
        for k, v in listing.items():
            (entry if k in entry else top)[k] = v
        with open(d + "/listing.json", "w", encoding="utf-8") as f:
            json.dump(top, f)

    def call(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = reader.main([args[0], self.dir.name, "--listing", self.dir.name + "/listing.json", *args[1:]])
        return code, out.getvalue(), err.getvalue()

    def refused(self, word=""):
        code, _, err = self.call("verify")
        self.assertEqual(code, 1, "not refused")
        self.assertIn(word, err)


class Containers(Case):
    def test_written_rows_come_back(self):
        for compress in (False, True):
            w = Writer(compress=compress)
            w.informative = compress
            self.put(w, dead=[[2, 3]])
            code, out, err = self.call("verify")
            self.assertEqual((code, err), (0, ""))
            self.assertEqual(json.loads(out), {"segments": 1, "attached": 0, "artifacts": 0, "recounted": 0, "rows": 5, "live": 4, "warnings": []})
            dumped = [json.loads(line) for line in self.call("dump")[1].splitlines()]
            self.assertEqual([r["row"] for r in dumped], [0, 1, 3, 4])
            self.assertEqual(bytes.fromhex(dumped[2]["id"]), b"z")
            self.assertEqual(dumped[2]["source"], "größe")
            self.assertEqual(dumped[3]["blocks"]["a"]["decoded"], known_answers.hex32(w.rows[4][0]))

    def test_every_flipped_byte_class_is_refused_by_checksums(self):
        # One byte in each 997, all of header, footer and tail: with the listing's SHA-256 made to
        # fit, the checksums inside the file must still catch each.
        w = Writer()
        good = w.bytes()
        at = set(range(0, len(good), 997)) | set(range(0, 140)) | set(range(w.footer_at, len(good)))
        for i in sorted(at):
            bad = bytearray(good)
            bad[i] ^= 1 << (i % 8)
            self.put(w, bytes(bad))
            self.refused()
        self.put(w, good, sha256="0" * 64)
        self.refused("SHA-256")

    def test_generation_and_reserved_bytes_of_a_header(self):
        for origin in [(0, 0), ((1 << 63) - 1, (1 << 32) - 1)]:
            w = Writer()
            w.origin = origin
            self.put(w)
            self.assertEqual(self.call("verify")[0], 0)
        w = Writer()
        w.origin = (1 << 63, 0)
        self.put(w)
        self.refused("generation")
        for at in range(8):
            w = Writer()
            w.reserved = bytes(at) + b"\1" + bytes(7 - at)
            self.put(w)
            self.refused("reserved")

    def test_every_flipped_byte_of_index_is_refused(self):
        w = Writer()
        good = w.index()
        for i in range(len(good)):
            bad = bytearray(good)
            bad[i] ^= 4
            self.put(w, index_file=bytes(bad))
            self.refused("INDEX")

    def test_truncated_files_are_refused(self):
        w = Writer()
        good = w.bytes()
        for n in (0, 1, 63, 4096, 8255, 8256, len(good) // 2, len(good) - 4096, len(good) - 1):
            self.put(w, good[:n])
            self.refused()
        self.put(w, index_file=w.index()[:-1])
        self.refused("INDEX")

    def test_wrong_region_entries_with_right_checksums_are_refused(self):
        changes = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (6, 2), (7, 1), (8, 64), (9, 4096),
                   (9, -4096), (10, 4096), (10, -4096), (11, 1), (11, 5000), (11, 1 << 54), (12, 1), (12, 1 << 40), (13, 1)]
        for region in (0, 2, 3, 5, 6, 9, 14, 18):
            for field, by in changes:
                w = Writer()

                def change(r, entry):
                    if r == region:
                        entry[field] = (entry[field] + by) % (1 << (64 if field > 8 else 16))

                segment = w.bytes(change)
                if segment == w.bytes():
                    continue
                self.put(w, segment)
                code, _, _ = self.call("verify")
                self.assertEqual(code, 1, f"region {region}, field {field} by {by}")

    def test_wrong_contents_with_right_checksums_are_refused(self):
        def edit(kind, fn, group=0):
            def change(regions):
                for r in regions:
                    if r[0] == kind and r[2] == group:
                        r[7] = fn(bytearray(r[7]))
                        break
                return regions
            return change

        def put(at, data):
            def fn(raw):
                raw[at : at + len(data)] = data
                return bytes(raw)
            return fn

        bad = {
            "code not finite": edit(1, put(0, b"\0\0\xc0\x7f")),
            "number is another": edit(1, put(0, b"\0\0\x80\x3f")),
            "row padding": edit(1, put(127, b"\1")),
            "scale -0": edit(2, put(4, b"\0\0\0\x80")),
            "scale not power of two": edit(2, put(0, b"\1\0\x80\x3f")),
            "scale subnormal": edit(2, put(0, b"\1\0\0\0")),
            "scale too large": edit(2, put(0, b"\0\0\x80\x7e")),
            "norm NaN": edit(3, put(0, b"\0\0\xc0\x7f")),
            "norm negative": edit(3, put(3, b"\xbf")),
            "id offsets": edit(4, put(0, b"\1")),
            "id falling": edit(4, put(4, b"\xff\xff\xff\xff")),
            "empty id": edit(4, put(4, b"\0\0\0\0")),
            "empty span": edit(5, put(12, b"\0\0\0\0")),
            "unknown source": edit(6, put(0, b"\5")),
            "sources out of order": edit(6, put(0, b"\1")),
            "too many names": edit(8, put(0, b"\xff\xff\xff\xff")),
            "metadata longer": edit(7, lambda raw: bytes(raw) + b"x"),
        }
        for name, change in bad.items():
            w = Writer()
            w.change = change
            self.put(w)
            self.assertEqual(self.call("verify")[0], 1, name)

    def test_missing_swapped_and_repeated_regions_are_refused(self):
        for change in (lambda r: r[1:], lambda r: r[:-1], lambda r: r + r[-1:], lambda r: [r[1], r[0]] + r[2:],
                       lambda r: r[:5] + r[6:], lambda r: []):
            w = Writer()
            w.change = change
            self.put(w)
            self.refused()

    def test_compressed_trailing_bytes_and_bombs_are_refused(self):
        frame = zstandard.ZstdCompressor().compress
        ids = strings([b"x", b"x", b"\x00y"])
        for used in (frame(ids) + b"\0", frame(ids) + frame(b""), frame(ids)[:-1], frame(bytes(1 << 24))):
            w = Writer(compress=False)

            def raw_frame(regions, used=used):
                regions[IDS][7] = used
                return regions

            def compressed(r, entry):
                if r == IDS:
                    entry[6], entry[12] = 1, len(ids)

            w.change = raw_frame
            self.put(w, w.bytes(compressed))
            self.refused("zstd frame")

    def test_foreign_and_newer_files_are_refused(self):
        w = Writer()
        w.features = (4, 0, 0)
        self.put(w)
        self.refused("features_read")
        w.features = (0, 4, 4)
        self.put(w)
        self.assertEqual(self.call("verify")[0], 0)
        other = Writer()
        other.schema["spec"]["sketcher"]["name"] = "u"
        self.put(other, segment=Writer().bytes())
        self.refused("schema digest")

    def test_bad_schemas_are_refused(self):
        def rapid(**more):
            return {"kind": "rapid_grad", "version": 1, "seed": "7", "normalisation": "none", "routing": "prefix", **more}

        specs = [rapid(), rapid(version=2), rapid(version="1"), rapid(x=1),
                 {"kind": "dense", "name": "t"}, {"kind": "other", "name": "", "digest": ""}]
        for sketcher in specs:
            w = Writer()
            w.schema["spec"]["sketcher"] = sketcher
            self.put(w)
            self.refused("schema")
        for body in (b"{", b'{"spec":1,"spec":1}', b"\xff", b"[" * 100000, b"null"):
            w = Writer()
            w.body = lambda body=body: body
            self.put(w)
            self.refused("schema")

    def test_kronecker_schemas(self):
        def schema(sides=((4, 5), (3, 11), (70, 1)), **more):
            w = Writer()
            w.schema["spec"]["sketcher"] = {"kind": "kronecker", "version": 1, "seed": "7", "sides": [list(s) for s in sides], **more}
            return w

        self.put(schema())
        self.call("verify")
        bad = [{"sides": s} for s in ([], [[4, 5]], [[4, 5], [3, 11], [70, 1], [1, 1]], [[5, 5], [3, 11], [70, 1]],
                                      [[4, 5], [33, 1, 1], [70, 1]], [[4, 5], [3, 11], [-70, -1]], [[4, 5], [3, 11], "70"],
                                      [[4, 5], [3, 11.0], [70, 1]], 7)]
        bad += [{"version": 2}, {"seed": 7}, {"routing": "prefix"}]
        for more in bad:
            w = schema()
            w.schema["spec"]["sketcher"].update(more)
            self.put(w)
            self.refused("schema")
        w = schema(((4, 5), (3, 11), (70, 1)))
        w.schema["spec"]["blocks"][0]["dims"] = 1 << 15
        w.schema["spec"]["sketcher"]["sides"][0] = [1 << 15, 1]
        self.put(w)
        self.refused("sides")
        # A kind that is not known is named.
        for kind in ("sjlt", 7, None, ["kronecker"]):
            w.schema["spec"]["sketcher"] = {"kind": kind, "seed": "7"}
            self.put(w)
            self.refused(f"unknown sketcher {kind!r}")

    def test_optimizers(self):
        adam = {"kind": "adam", "beta_1": "0.9", "beta_2": "0.999", "epsilon": "0.00000001", "state": "sha256:5d1f"}

        def put(step):
            w = Writer()
            w.schema["spec"]["optimizer"] = step
            self.put(w)

        for good in (adam, {**adam, "epsilon": "10", "beta_1": "0"}, {**adam, "state": "s" * 255}):
            put(good)
            self.call("verify")
        for more in ({"kind": "sgd"}, {"beta_1": "1"}, {"beta_2": "1.5"}, {"beta_1": 0.9}, {"beta_1": ".9"}, {"beta_1": "0.90"},
                     {"beta_1": "0."}, {"epsilon": "1e-8"}, {"epsilon": "-1"}, {"epsilon": "01"}, {"epsilon": ""},
                     {"epsilon": "1\n"}, {"epsilon": "0." + "1" * 63}, {"beta_1": "\u0660"}, {"state": ""}, {"state": "s" * 256},
                     {"more": 1}):
            put({**adam, **more})
            self.refused("optimizer")
        for step in (None, [], "adam", {"kind": "adam"}):
            put(step)
            self.refused("schema")

    def test_seeds_are_strings_of_digits(self):
        bad = [7, -1, True, None, 7.0, [7], "", "00", "07", "+7", "-7", "-0", " 7", "7 ", "7\n", "1e3", "7.0", "0x7", "1_0",
               "\u0667", str(1 << 64), "9" * 30]
        for seed in ["0", "7", str((1 << 64) - 1), *bad]:
            for tier in (False, True):
                w = Writer()
                sketcher = {"kind": "rapid_grad", "version": 1, "seed": "7" if tier else seed, "normalisation": "none",
                            "routing": "prefix"}
                # One f32 block of 16, so that nothing but the seed is wrong.
                w.schema["spec"] = {"sketcher": sketcher, "blocks": [{"name": "a", "dims": 16}]}
                w.schema["encodings"] = ["f32"]
                if tier:
                    w.schema["tiers"] = [{"kind": "sign", "seed": seed}]
                if seed in bad:
                    with self.assertRaisesRegex(container.FormatError, "seed"):
                        container.read_schema("INDEX", w.body())
                    self.put(w)
                    self.refused("seed")
                else:
                    sketcher, _, found = container.read_schema("INDEX", w.body())
                    self.assertEqual(found, [("sign", int(seed))] if tier else [])
                    self.assertEqual(sketcher["seed"], "7" if tier else seed)

    def test_codes_have_the_encoding_of_the_schema(self):
        w = Writer()
        w.add_tiers(*Tiers.BOTH)
        # Of the first row group, and one of the second.
        regions = [(n, r[3]) for n, r in enumerate(w.regions()) if r[0] in (1, (1, 1), (1, 2))]
        self.assertEqual([own for _, own in regions[: len(BLOCKS)]], [ORDER[e] for _, _, e in BLOCKS])
        for region, own in regions[: len(regions) // 2 + 1]:
            for encoding in range(max(ORDER.values()) + 3):
                for version in (0, 1, 2):
                    w = Writer()
                    w.add_tiers(*Tiers.BOTH)

                    def change(r, entry):
                        if r == region:
                            self.assertEqual((entry[0], entry[4]), (1, own))
                            entry[4:6] = encoding, version

                    self.put(w, w.bytes(change))
                    if (encoding, version) == (own, 1):
                        self.assertEqual(self.call("verify")[0], 0)
                    else:
                        self.refused(f"encoding{' version' * (encoding == own)} at offset {w.footer_at + 48 + 64 * region + 12 + 2 * (encoding == own)}")

    def test_sources_without_a_name_and_out_of_order_are_refused(self):
        for sources, what in (([0, 2, 0, 1, 1], f"group 0), row 1 at offset {4096 * (1 + SOURCES)}: source 2 of 2"),
                              ([0, 0, 0, 1, 0xFFFFFFFE], f"group 1), row 1 at offset {4096 * (1 + GROUP + SOURCES)}: source 4294967294 of 2"),
                              ([1, 0, 0, 1, 1], f"row 0 at offset {4096 * (1 + SOURCES)}: source 1 before any row has source 0"),
                              ([0, 0, 0xFFFFFFFF, 0, 0], "a name that no row uses")):
            w = Writer()
            w.sources = sources
            self.put(w)
            self.refused(what)
            self.assertIn(f"segments/{SEGMENT_ID}.seg", self.call("verify")[2])

    def test_zstd_window_is_bounded(self):
        for log in (27, 28):
            params = zstandard.ZstdCompressionParameters.from_level(3, window_log=log)
            pack = zstandard.ZstdCompressor(compression_params=params).compressobj()
            ids = strings([b"x", b"x", b"\x00y"])
            frame = pack.compress(ids) + pack.flush()
            # States its content size, in four bytes, without being a single segment.
            frame = frame[:4] + bytes([frame[4] | 0x80]) + frame[5:6] + len(ids).to_bytes(4, "little") + frame[6:]
            w = Writer(compress=False)

            def raw_frame(regions, frame=frame):
                regions[IDS][7] = frame
                return regions

            def compressed(r, entry):
                if r == IDS:
                    entry[6], entry[12] = 1, len(ids)

            w.change = raw_frame
            self.put(w, w.bytes(compressed))
            if log == 27:
                self.assertEqual(self.call("verify")[::2], (0, ""))
            else:
                self.refused("zstd frame")

    def test_bad_listings_are_refused(self):
        w = Writer()
        for change in ({"dead": [[1, 1]]}, {"generation": 1 << 63}, {"generation": -1}, {"generation": 1.0}, {"generation": "1"}, {"dead": [[2, 3], [0, 1]]}, {"dead": [[0, 6]]}, {"rows": 4}, {"bytes": 5},
                       {"file": "segments/../INDEX"}, {"file": "/etc/x"}, {"index": str(SEGMENT_ID)}, {"extra": 1},
                       {"schema_digest": "00" * 32}, {"format": "gradix-listing-2"}):
            self.put(w, **change)
            self.refused()

    def test_example_in_two_places_is_refused_unless_dead(self):
        w = Writer()
        w.ids[4] = b"x"
        self.put(w)
        self.refused("two places")
        self.put(w, dead=[[0, 2]])
        self.assertEqual(self.call("verify")[0], 0)
        # Row groups are rows 0 to 2 and 3 to 4: across their border, and around rows that are dead.
        for ids, dead in (([b"x", b"x", b"z", b"z", b"w"], []), ([b"x", b"x", b"x", b"z", b"w"], [[1, 2]]),
                          ([b"x", b"y", b"x", b"z", b"w"], [[1, 2]]), ([b"x", b"y", b"z", b"z", b"z"], [[3, 4]])):
            w.ids = ids
            self.put(w, dead=dead)
            self.refused("two places")
        w.ids = [b"x", b"x", b"z", b"z", b"w"]
        for dead in ([[2, 3]], [[3, 4]], [[2, 4]]):
            self.put(w, dead=dead)
            self.assertEqual(self.call("verify")[::2], (0, ""))


class Detached(Case):
    """Parts and notes, with a writer of their own."""

    SECOND = uuid.UUID(int=0xCD << 90)

    def setUp(self):
        super().setUp()
        # Five rows of four examples, and five of five; together ids that are no others.
        self.one, self.two = Writer(), Writer()
        self.two.segment, self.two.ids = self.SECOND, [b"1", b"2", b"3", b"4", b"5"]
        self.one.origin = self.two.origin = (0, 0)
        self.examples = [4, 5]
        self.folder = self.dir.name + "/00000007.part"
        self.put(self.one)

    def description(self, payload=b"pay", change=lambda fields: fields, segments=None):
        """PART, as the page has it: `change` is given its fields before they are sealed."""
        entries = []
        for w, examples in zip((self.one, self.two), self.examples) if segments is None else segments:
            data = w.bytes()
            entries.append([w.segment.bytes, sum(w.groups), examples, len(data), hashlib.sha256(data).digest()])
        fields = {"magic": b"\x89GDP\r\n\x1a\n", "version": 1, "count": len(entries), "features": (0, 0, 0), "index": INDEX_ID.bytes,
                  "number": 7, "zero": bytes(8), "digest": hashlib.sha256(self.one.body()).digest(), "length": len(payload),
                  "reserved": bytes(16), "entries": entries, "payload": payload}
        f = change(fields)
        head = f["magic"] + struct.pack("<IIQQQ", f["version"], f["count"], *f["features"]) + f["index"]
        head += struct.pack("<Q", f["number"]) + f["zero"] + f["digest"] + struct.pack("<I", f["length"]) + f["reserved"]
        body = b"".join(struct.pack("<16sQQQ32s", *entry) for entry in f["entries"]) + f["payload"]
        return head + struct.pack("<I", zlib.crc32(head)) + body + struct.pack("<I", zlib.crc32(body))

    def build(self, description=None, writers=None):
        os.makedirs(self.folder, exist_ok=True)
        for w in (self.one, self.two) if writers is None else writers:
            with open(f"{self.folder}/{w.segment}.seg", "wb") as f:
                f.write(w.bytes())
        with open(self.folder + "/PART", "wb") as f:
            f.write(self.description() if description is None else description)

    def part(self, folder=None):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = reader.main(["part", self.dir.name, folder or self.folder])
        return code, out.getvalue(), err.getvalue()

    def part_refused(self, word):
        code, _, err = self.part()
        self.assertEqual(code, 1, f"not refused: {word}")
        self.assertIn(word, err)

    def test_parts_come_back(self):
        self.build()
        code, out, err = self.part()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), {"number": 7, "segments": 2, "rows": 10, "examples": 9, "payload": b"pay".hex(), "warnings": []})
        # Under any name, and with other files beside it.
        copied = self.dir.name + "/copy"
        os.rename(self.folder, copied)
        with open(copied + "/README", "w") as f:
            f.write("from gpu-1")
        self.assertEqual(self.part(copied)[0], 0)
        # Without segments, and with the longest payload.
        self.build(self.description(bytes(1 << 20), segments=[]), writers=[])
        self.assertEqual(json.loads(self.part()[1])["segments"], 0)
        self.build(self.description(bytes((1 << 20) + 1), segments=[]), writers=[])
        self.part_refused("payload")

    def test_every_flipped_byte_and_each_cut_of_a_part_is_refused(self):
        good = self.description()
        for i in range(len(good)):
            bad = bytearray(good)
            bad[i] ^= 1 << (i % 8)
            self.build(bytes(bad), writers=[])
            self.part_refused("PART")
            self.build(good[:i], writers=[])
            self.part_refused("PART")
        self.build(good + b"\0", writers=[])
        self.part_refused("PART")

    def test_wrong_descriptions_with_right_checksums_are_refused(self):
        def field(name, value):
            return lambda f: f | {name: value}

        def entry(i, at, value):
            return lambda f: f | {"entries": [e[:at] + [value] + e[at + 1 :] if n == i else e for n, e in enumerate(f["entries"])]}

        for change, word in (
            (field("magic", b"\x89GDX\r\n\x1a\n"), "magic"), (field("version", 0), "version"), (field("version", 2), "version"),
            (field("count", 1), "number of segments"), (field("count", 3), "number of segments"), (field("count", 65537), "number of segments"),
            (field("features", (1, 0, 0)), "features_read"), (field("index", SEGMENT_ID.bytes), "index UUID"),
            (field("number", 0), "number of the part"), (field("zero", bytes(7) + b"\1"), "reserved"), (field("digest", bytes(32)), "schema digest"),
            (field("length", 2), "number of segments"), (field("length", 4), "number of segments"), (field("length", 1 << 31), "payload"),
            (field("reserved", b"\1" + bytes(15)), "reserved"), (entry(1, 0, SEGMENT_ID.bytes), "stands twice"),
            (entry(0, 1, 0), "segment 0, rows"), (entry(0, 1, 1 << 32), "segment 0, rows"), (entry(0, 1, 6), "but PART says 6"),
            (entry(1, 2, 0), "segment 1, examples"), (entry(1, 2, 6), "segment 1, examples"), (entry(0, 2, 5), "4 examples, but PART says 5"),
            (entry(0, 2, 3), "4 examples, but PART says 3"), (entry(0, 3, 1), "but PART says 1"), (entry(1, 3, 1 << 63), "but PART says"),
            (entry(1, 4, bytes(32)), "SHA-256"), (entry(1, 0, bytes(16)), "cannot be read"),
        ):
            self.build(self.description(change=change))
            self.part_refused(word)
        # What is only informative, or for writers, does not stop a reader.
        self.build(self.description(change=field("features", (0, 1 << 63, 1))))
        self.assertEqual(self.part()[0], 0)

    def test_what_is_not_a_whole_part_is_refused(self):
        self.build()
        unfinished = self.dir.name + "/00000008.unfinished"
        os.rename(self.folder, unfinished)
        self.assertIn("not a part", self.part(unfinished)[2])
        os.rename(unfinished, self.folder)
        os.remove(f"{self.folder}/{self.SECOND}.seg")
        self.part_refused("cannot be read")
        os.remove(self.folder + "/PART")
        self.part_refused("PART")

    def test_segments_of_a_part_are_checked(self):
        self.two.ids = [b"1", b"2", b"3", b"4", b"w"]
        self.build()
        self.part_refused("two places")
        # In two row groups they are two examples: the same one twice.
        self.two.ids = [b"1", b"2", b"3", b"3", b"4"]
        self.build()
        self.part_refused("two places")
        self.two.ids = [b"1", b"2", b"2", b"3", b"4"]
        self.examples = [4, 4]
        self.build()
        self.assertEqual(self.part()[0], 0)
        for origin in ((1, 0), (0, 1)):
            self.two.origin = origin
            self.build()
            self.part_refused("states no generation")
        self.two.origin = (0, 0)
        self.build()
        with open(f"{self.folder}/{self.SECOND}.seg", "r+b") as f:
            f.seek(5000)
            f.write(b"\1")
        self.part_refused("SHA-256")

    def note(self, change=lambda fields: fields):
        f = change({"magic": b"\x89GDA\r\n\x1a\n", "version": 1, "ordinal": 2, "generation": 1, "index": INDEX_ID.bytes,
                    "segment": SEGMENT_ID.bytes, "zero": bytes(4)})
        data = f["magic"] + struct.pack("<IIQ", f["version"], f["ordinal"], f["generation"]) + f["index"] + f["segment"] + f["zero"]
        return data + struct.pack("<I", zlib.crc32(data))

    def put_note(self, data):
        with open(f"{self.dir.name}/segments/{SEGMENT_ID}.attached", "wb") as f:
            f.write(data)

    def attached(self):
        code, out, err = self.call("verify")
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)["attached"]

    def test_notes_are_read(self):
        self.assertEqual(self.attached(), 0)
        self.put_note(self.note())
        self.assertEqual(self.attached(), 1)
        found = detached.read_note(*self.opened())
        self.assertEqual(found, (1, 2))
        # Only verification looks at it.
        self.put_note(b"")
        self.assertEqual(self.call("dump")[0], 0)
        self.refused(".attached")
        # Beside a segment whose header states a generation it means nothing.
        self.one.origin = (1, 0)
        self.put(self.one)
        self.assertEqual(self.attached(), 0)

    def opened(self):
        index = container.read_index(self.dir.name)
        generation, listed, _ = container.read_listing(self.dir.name + "/listing.json", index)
        return index, container.Segment(index, listed[0], index.folder), generation

    def test_every_flipped_byte_and_each_cut_of_a_note_is_refused(self):
        good, opened = self.note(), self.opened()
        bad = [good[:i] for i in range(len(good))] + [good + b"\0"]
        for i in range(len(good)):
            for bit in range(8):
                bad.append(good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :])
        for data in bad:
            self.put_note(data)
            with self.assertRaisesRegex(container.FormatError, ".attached"):
                detached.read_note(*opened)

    def test_wrong_notes_with_right_checksums_are_refused(self):
        for name, value, word in (
            ("magic", b"\x89GDP\r\n\x1a\n", "magic"), ("version", 0, "version"), ("version", 2, "version"), ("generation", 0, "generation"),
            ("generation", 2, "generation"), ("generation", 1 << 63, "generation"), ("index", SEGMENT_ID.bytes, "index UUID"),
            ("segment", INDEX_ID.bytes, "segment UUID"), ("zero", b"\0\0\0\1", "reserved"),
        ):
            self.put_note(self.note(lambda f: f | {name: value}))
            self.refused(word)
        self.put_note(self.note(lambda f: f | {"ordinal": (1 << 32) - 1}))
        self.assertEqual(self.attached(), 1)
        # A later listing has segments of later commits.
        self.put(self.one, generation=(1 << 63) - 1)
        self.put_note(self.note(lambda f: f | {"generation": (1 << 63) - 1}))
        self.assertEqual(self.attached(), 1)


class Artifacts(Case):
    """Sums and self-influence, with a writer of their own."""

    FIRST, LAST = uuid.UUID(int=0xEF << 90), uuid.UUID(int=0xFE << 90)
    WIDTHS = [0, 0, 8]

    def setUp(self):
        super().setUp()
        # The last row is dead, and was summed.
        self.segment = Writer()
        self.dead, self.covered = [[4, 5]], [[0, 5]]
        self.put(self.segment, dead=self.dead)

    def decoded(self, k):
        """The rows of a block as they are read back."""
        _, _, encoding = BLOCKS[k]
        made = [arithmetic.encode(encoding, r[k]) for r in self.segment.rows]
        s = None if not arithmetic.has_scale(encoding) else np.array([m[0] for m in made], "<f4")
        return arithmetic.decode(encoding, s, np.array([m[1] for m in made])).astype("f8")

    def sums(self, rows=range(5), widths=WIDTHS):
        """[[segment, block, dims, width, rank, rows, power, kappa, sums, numbers]]"""
        out = []
        for k, (_, dims, _) in enumerate(BLOCKS):
            y = self.decoded(k)[list(rows)]
            if widths[k] == 0:
                numbers = [sum(f[i] * f[j] for f in y) for i in range(dims) for j in range(i + 1)]
            else:
                size = -(-dims // widths[k])
                nested = [[sum(f[a : a + size]) for a in range(0, dims, size)] for f in y]
                numbers = [sum(f[i] * s[j] for f, s in zip(y, nested)) for i in range(dims) for j in range(-(-dims // size))]
            out.append([bytes(16), k, dims, widths[k], 0, len(y), float((y * y).sum()), 0.0, bytes(16), np.array(numbers, "<f8")])
        return out

    def roots(self):
        roots = np.array([0.5, 0.0, 1.5, 2.0, 0.0], "<f4")
        return [[SEGMENT_ID.bytes, k, 0, 0, 7, 5, 0.0, 2.0, self.FIRST.bytes, roots] for k in range(len(BLOCKS))]

    def bytes(self, name, kind, regions, change=lambda f: f, chunks=1 << 16):
        f = change({"magic": b"\x89GDR\r\n\x1a\n", "version": 1, "kind": kind, "features": (0, 0, 0), "index": INDEX_ID.bytes,
                    "artifact": name.bytes, "digest": hashlib.sha256(self.segment.body()).digest(), "zero": bytes(20),
                    "regions": regions, "after": b"", "reserved": bytes(16), "count": len(regions), "tail": bytes(28), "end": b"\x89GDR\r\n\x1a\n"})
        head = f["magic"] + struct.pack("<IIQQQ", f["version"], f["kind"], *f["features"]) + f["index"] + f["artifact"] + f["digest"] + f["zero"]
        out, table, sums = head + struct.pack("<I", zlib.crc32(head)), b"", b""
        for i, (*fields, numbers) in enumerate(f["regions"]):
            data = numbers.tobytes()
            table += struct.pack("<16sIIIIQdd16sQ", *fields, len(numbers)) + f["reserved"]
            for n in range(-(-len(data) // chunks)):
                part = data[n * chunks : (n + 1) * chunks]
                sums += struct.pack("<I", zlib.crc32(f["artifact"] + struct.pack("<II", i, n) + part))
            out += data
        table += sums + f["after"]
        tail = struct.pack("<QQII", len(out), len(table), f["count"], zlib.crc32(table)) + f["tail"]
        return out + table + tail + struct.pack("<I", zlib.crc32(tail)) + f["end"]

    def listed(self, name, data, label="curvature", kind="rows", covered=None, **more):
        os.makedirs(self.dir.name + "/artifacts", exist_ok=True)
        with open(f"{self.dir.name}/artifacts/{name}.art", "wb") as f:
            f.write(data)
        covered = self.covered if covered is None else covered
        return {"name": label, "file": f"artifacts/{name}.art", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                "kind": kind, "gone": 0, "covered": [{"file": f"segments/{SEGMENT_ID}.seg", "rows": covered}] * (covered != []), **more}

    def put_all(self, *listed):
        self.put(self.segment, dead=self.dead, artifacts=list(listed))

    def accepted(self, artifacts=1, recounted=1):
        code, out, err = self.call("verify")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual((json.loads(out)["artifacts"], json.loads(out)["recounted"]), (artifacts, recounted))

    def test_written_artifacts_are_read(self):
        sums = self.listed(self.FIRST, self.bytes(self.FIRST, 1, self.sums()))
        roots = self.listed(self.LAST, self.bytes(self.LAST, 2, self.roots()), "curvature/self-influence", "self_influence", [[0, 1], [2, 4]])
        self.put_all(sums, roots)
        self.accepted(2)
        # Sums of what no row shows: observed sketches, and rows that are gone.
        other = self.sums(widths=[1, 33, 70])
        for region in other:
            region[-1] = region[-1] * 3 - 1
        other = self.bytes(self.FIRST, 1, other)
        for more in ({"kind": "observed"}, {"kind": "observed", "gone": 7, "covered": []}, {"gone": 1}):
            self.put_all(self.listed(self.FIRST, other) | more)
            self.accepted(1, 0)
        # Of some rows only, and of none.
        for rows in ([0, 2, 3], []):
            data = self.bytes(self.FIRST, 1, self.sums(rows))
            self.put_all(self.listed(self.FIRST, data, covered=[[r, r + 1] for r in rows]))
            self.accepted()
        # Self-influence of a segment that is gone too; of none at all; with a rank and without.
        gone = [[self.LAST.bytes, *r[1:5], 2, *r[6:9], r[9][:2]] for r in self.roots()]
        for regions, covered in ((gone + self.roots(), [[0, 1], [2, 4]]), ([], []), ([r[:4] + [0] + r[5:] for r in self.roots()], [[0, 5]])):
            self.put_all(self.listed(self.LAST, self.bytes(self.LAST, 2, regions), kind="self_influence", covered=covered))
            self.accepted(1, 0)

    def test_every_flipped_byte_and_each_cut_of_an_artifact_is_refused(self):
        # Checks of the file alone, with the listing's length and SHA-256 made to fit; a block of the fewest numbers for each kind.
        index = container.read_index(self.dir.name)
        small = self.sums(widths=[1, 1, 1])
        for kind, listed_kind, regions, covered in ((1, "rows", small, []), (2, "self_influence", self.roots(), [])):
            good = self.bytes(self.FIRST, kind, regions)

            def check(data):
                with open(f"{self.dir.name}/artifacts/{self.FIRST}.art", "wb") as f:
                    f.write(data)
                listed = container.ListedArtifact("x", f"artifacts/{self.FIRST}.art", self.FIRST.bytes, len(data), hashlib.sha256(data).digest(),
                                                  listed_kind, 0, covered)
                artifacts.Artifact(index, listed).verify()

            os.makedirs(self.dir.name + "/artifacts", exist_ok=True)
            check(good)
            for i in range(len(good)):
                # features_write and features_info are not refused, but their checksum is.
                for bad in (good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :], good[:i]):
                    with self.assertRaisesRegex(container.FormatError, f"artifacts/{self.FIRST}.art"):
                        check(bad)
            with self.assertRaises(container.FormatError):
                check(good + b"\0")
            self.put_all(self.listed(self.FIRST, good, kind=listed_kind, covered=[]) | {"sha256": "0" * 64})
            self.refused("SHA-256")
            self.put_all(self.listed(self.FIRST, good, kind=listed_kind, covered=[]) | {"bytes": len(good) + 1})
            self.refused("but the listing says")

    def test_wrong_artifacts_with_right_checksums_are_refused(self):
        def field(name, value):
            return lambda f: f | {name: value}

        def region(i, at, value):
            return lambda f: f | {"regions": [r[:at] + [value(r[at]) if callable(value) else value] + r[at + 1 :] if n == i else r for n, r in enumerate(f["regions"])]}

        def number(i, at, value):
            def changed(numbers):
                numbers = numbers.copy()
                numbers[at] = value
                return numbers
            return region(i, 9, changed)

        nan, inf = float("nan"), float("inf")
        both = [(field("magic", b"\x89GDX\r\n\x1a\n"), "magic"), (field("version", 0), "version"), (field("version", 2), "version"),
                (field("kind", 0), "kind"), (field("kind", 3), "kind"), (field("features", (1, 0, 0)), "features_read"),
                (field("index", SEGMENT_ID.bytes), "index UUID"), (field("artifact", SEGMENT_ID.bytes), "artifact UUID"),
                (field("digest", bytes(32)), "schema digest"), (field("zero", bytes(19) + b"\1"), "reserved"), (field("tail", b"\1" + bytes(27)), "reserved"),
                (field("reserved", bytes(15) + b"\1"), "reserved"), (field("end", b"\x89GDX\r\n\x1a\n"), "magic"), (field("after", b"\0\0\0\0"), "checksums of chunks"),
                (field("count", 2), "number of regions"), (field("count", 4), "regions|region 3"), (field("count", 1 << 31), "number of regions"),
                (region(1, 1, 0), "region"), (region(2, 1, 3), "block"), (region(0, 5, 4), "region 0|rows"), (region(0, 5, 1 << 63), "region 0|rows"),
                (region(1, 9, lambda x: x[:-1]), "region 1, number of numbers"), (number(1, 0, nan), "region 1, number 0"), (number(2, 1, inf), "region 2, number 1")]
        sums = [(region(0, 0, SEGMENT_ID.bytes), "segment UUID"), (region(1, 2, 32), "dims"), (region(2, 3, 9), "number of numbers"),
                (region(2, 3, 71), "width"), (region(0, 4, 1), "rank"), (region(0, 6, nan), "power"), (region(0, 6, -1.0), "power"), (region(0, 7, 1.0), "kappa"),
                (region(0, 8, SEGMENT_ID.bytes), "UUID of the sums"), (region(0, 5, 6), "rows"), (region(0, 6, lambda p: p * (1 + 2.0**-39)), "power"),
                (number(0, 3, 0.0), "region 0, number 3"), (number(2, 5, -1e9), "region 2, number 5"), (lambda f: f | {"regions": f["regions"][::-1]}, "number of regions"),
                (lambda f: f | {"regions": self.sums([0, 1, 2, 3, 3])}, "power"), (lambda f: f | {"regions": self.sums([0, 1, 2, 3])}, "rows")]
        roots = [(region(1, 2, 33), "dims"), (region(1, 3, 1), "width"), (region(1, 6, 1.0), "power"), (region(1, 7, 3.0), "kappas"), (region(1, 7, nan), "kappa"),
                 (region(1, 7, -1.0), "kappa"), (region(1, 4, 0), "ranks"), (region(1, 8, SEGMENT_ID.bytes), "sums"), (number(1, 0, -1.0), "region 1, number 0"),
                 (number(1, 1, 1.0), "region 1, number 1"), (region(1, 0, self.LAST.bytes), "all blocks"),
                 (lambda f: f | {"regions": [r[:5] + [4] + r[6:9] + [r[9][:4]] for r in f["regions"]]}, "but the listing says 5")]
        for kind, name, regions, covered, changes in ((1, "rows", self.sums(), [[0, 5]], sums), (2, "self_influence", self.roots(), [[0, 1], [2, 4]], roots)):
            for change, word in both + changes:
                self.put_all(self.listed(self.FIRST, self.bytes(self.FIRST, kind, regions, change), kind=name, covered=covered))
                code, _, err = self.call("verify")
                self.assertEqual(code, 1, f"not refused: {word}")
                self.assertRegex(err, word)
                self.assertIn(f"artifacts/{self.FIRST}.art", err)
            # The other kind.
            other = {"rows": "self_influence", "self_influence": "rows"}[name]
            self.put_all(self.listed(self.FIRST, self.bytes(self.FIRST, kind, regions), kind=other, covered=covered))
            self.refused("kind")

    def test_bad_listings_of_artifacts_are_refused(self):
        good = self.listed(self.FIRST, self.bytes(self.FIRST, 1, self.sums()))
        segment = f"segments/{SEGMENT_ID}.seg"
        self.put_all(good)
        self.accepted()
        for change in ({"name": ""}, {"name": "x" * 256}, {"name": "a\0"}, {"name": 7}, {"file": f"segments/{self.FIRST}.art"}, {"file": f"artifacts/{self.FIRST}.seg"},
                       {"file": f"artifacts/{self.LAST}.art"}, {"bytes": 0}, {"sha256": "00"}, {"kind": "sums"}, {"gone": -1}, {"gone": 1.0}, {"more": 1}, {"covered": None},
                       {"covered": [{"file": segment, "rows": []}]}, {"covered": [{"file": segment, "rows": [[0, 6]]}]}, {"covered": [{"file": segment, "rows": [[3, 4], [0, 2]]}]},
                       {"covered": [{"file": segment}]}, {"covered": [{"file": f"segments/{self.LAST}.seg", "rows": [[0, 5]]}]},
                       {"covered": [{"file": segment, "rows": [[0, 5]]}] * 2}, {"kind": "self_influence", "gone": 1}):
            self.put_all(good | change)
            self.refused()
        for more in (good, good | {"name": "d"}, good | {"file": f"artifacts/{self.LAST}.art", "name": "curvatura"}):
            self.put_all(good, more)
            self.refused("listing.json")
        with open(self.dir.name + "/listing.json", encoding="utf-8") as f:
            without = json.load(f)
        del without["artifacts"]
        with open(self.dir.name + "/listing.json", "w", encoding="utf-8") as f:
            json.dump(without, f)
        self.refused("fields")

    def test_numbers_in_several_chunks(self):
        rows = 40000
        numbers = np.arange(rows, dtype="<f4")
        region = [SEGMENT_ID.bytes, 0, 0, 0, 0, rows, 0.0, 1.0, self.FIRST.bytes, numbers]
        listed = self.listed(self.FIRST, self.bytes(self.FIRST, 2, [region]), kind="self_influence", covered=[])
        self.put_all(listed)
        self.accepted(1, 0)
        data = self.bytes(self.FIRST, 2, [region], chunks=1 << 15)
        self.put_all(self.listed(self.FIRST, data, kind="self_influence", covered=[]))
        self.refused("checksums of chunks")
        data = bytearray(self.bytes(self.FIRST, 2, [region]))
        data[128 + 65536] ^= 1
        self.put_all(self.listed(self.FIRST, bytes(data), kind="self_influence", covered=[]))
        self.refused("region 0, chunk 1")


class Tiers(Case):
    BOTH = [("sign", 2**64 - 1), ("i8", None)]

    def test_nothing_that_is_known_goes_untested(self):
        self.assertEqual({e for _, _, e in BLOCKS}, set(container.ENCODING_NUMBERS))
        self.assertEqual(set(arithmetic.CODE_TYPES), set(container.ENCODING_NUMBERS))
        self.assertEqual([n for n, _ in self.BOTH], list(tiers.NUMBERS))

    def test_written_tiers_are_read(self):
        for named in (self.BOTH, self.BOTH[:1], self.BOTH[1:]):
            w = Writer()
            w.informative = True
            w.add_tiers(*named)
            self.put(w)
            self.assertEqual(self.call("verify")[::2], (0, ""))

    def test_wrong_tiers_are_refused(self):
        def edit(kind, tier, at, data):
            def change(regions):
                raw = next(r for r in regions if r[0] == (kind, tier))
                raw[7] = raw[7][:at] + data + raw[7][at + len(data) :]
                return regions
            return change

        nan = b"\0\0\xc0\x7f"
        bad = {"sign": edit(1, 1, 0, b"\x77"), "bit beyond": edit(1, 1, 2, b"\xff"), "padding": edit(1, 1, 63, b"\1"),
               "byte": edit(1, 2, 0, b"\x80"), "gain": edit(9, 1, 0, nan), "spread": edit(9, 1, 12, b"\0\0\x80\x3f"),
               "scale": edit(9, 2, 0, b"\1\0\0\0"), "residual": edit(9, 2, 12, b"\0\0\0\x80"),
               "missing": lambda r: [x for x in r if not isinstance(x[0], tuple)], "order": lambda r: r[:GROUP] + [r[GROUP + 1], r[GROUP]] + r[GROUP + 2 :]}
        for name, change in bad.items():
            w = Writer()
            w.add_tiers(*self.BOTH)
            self.put(w)
            self.assertEqual(self.call("verify")[0], 0)
            w.change = change
            self.put(w)
            self.assertEqual(self.call("verify")[0], 1, name)

    def test_features_must_be_those_of_the_schema(self):
        for named, features in ((self.BOTH, (0, 0, 0)), ([], (1, 0, 0)), (self.BOTH, (3, 0, 0))):
            w = Writer()
            if named:
                w.add_tiers(*named)
            w.features = features
            self.put(w)
            self.refused("features_read")

    def test_bad_tiers_in_the_schema_are_refused(self):
        sign = {"kind": "sign", "seed": "7"}
        for value in ([], {}, None, [1], ["i8"], [{"kind": "unknown"}], [{"kind": "sign"}], [sign | {"x": 1}],
                      [{"kind": "i8", "seed": "1"}], [sign, sign], [{"kind": "i8"}, sign]):
            w = Writer()
            w.schema["tiers"] = value
            self.put(w)
            self.refused("schema")

    def test_rotation_is_orthogonal(self):
        for dims in (1, 2, 7, 16, 127):
            r = tiers.rotate(3, 0, np.eye(dims, dtype=np.float32)).astype(np.float64)
            self.assertLess(np.abs(r @ r.T - np.eye(dims)).max(), 1e-6)


class Numbers(Case):
    def test_fma_rounds_once(self):
        cases = known_answers.random_fma() + known_answers.page_fma()
        rng = np.random.default_rng(9)
        a, b = rng.standard_normal((2, 2000)).astype("f4")
        c = (-(a.astype("f8") * b) * (1 + rng.choice([0, 1, 2.0**-24, 2.0**-40], 2000))).astype("f4")
        low = np.float32(2.0**-75)
        a, b = np.concatenate([a, a * low]), np.concatenate([b, b * low])
        c = np.concatenate([c, rng.integers(0, 40, 2000).astype("u4").view("f4")])
        cases += [known_answers.hex32(v) for v in zip(a, b, c, arithmetic.fma(a, b, c))]
        for row in cases:
            x, y, z, got = (np.array([int(v, 16)], "u4").view("f4")[0] for v in row)
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            near = [np.nextafter(got, np.float32(-np.inf)), got, np.nextafter(got, np.float32(np.inf))]
            away = [abs(Fraction(float(v)) - exact) for v in near]
            self.assertEqual(min(away), away[1])
            if away[1] in (away[0], away[2]):
                self.assertEqual(int(got.view("u4")) & 1, 0, row)

    def test_norm_that_is_refused_is_of_the_decoded_row(self):
        # The next f32 after 2^62: binary16 rounds it down to 2^62, which is allowed.
        x = np.array([np.nextafter(np.float32(2.0**62), np.float32(np.inf))])
        scale, codes = arithmetic.encode("f16", x)
        self.assertEqual(float(codes[0]) * float(scale), 2.0**62)
        for encoding, y in (("f32", x), ("f16", np.full(2, 2.0**62)), ("i8", np.full(2, 2.0**62)), ("f16", np.full(9, 3e38))):
            with self.assertRaisesRegex(arithmetic.ValueRefused, "norm"):
                arithmetic.encode(encoding, y.astype("f4"))
        with self.assertRaisesRegex(arithmetic.ValueRefused, "norm"):
            arithmetic.check_query(x)

    def test_encodings_round_to_the_nearest_code(self):
        for x in known_answers.rows().values():
            for encoding in ("f16", "i8"):
                scale, codes = arithmetic.encode(encoding, x)
                if scale == 0:
                    continue
                self.assertTrue(np.isfinite(codes).all())
                step = 1.0 if encoding == "i8" else np.maximum(np.abs(codes.astype("f8")) * 2.0**-10, 2.0**-24)
                error = np.abs(x.astype("f8") / np.float64(scale) - codes.astype("f8"))
                self.assertTrue((error <= step * 0.500001).all())
                with np.errstate(over="ignore"):
                    already_binary16 = (x.astype("f2").astype("f4") == x).all()
                if encoding == "f16" and already_binary16:
                    y = arithmetic.decode("f16", np.array([scale]), codes[None])[0]
                    self.assertEqual(y.tobytes(), x.tobytes())

    def test_scores_follow_the_page(self):
        w = Writer()
        self.put(w)
        q = np.concatenate(w.rows[3]).astype("f4")
        with open(self.dir.name + "/q.json", "w") as f:
            json.dump([q.view("u4").tolist()], f)
        code, out, err = self.call("scores", "--queries", self.dir.name + "/q.json", "--top", "2", "--bottom", "9")
        self.assertEqual((code, err), (0, ""))
        answer = json.loads(out)["queries"][0]
        self.assertEqual(len(answer["bottom"]), 5)
        values = [struct.unpack(">d", bytes.fromhex(h["score"]))[0] for h in answer["bottom"]]
        self.assertEqual(values, sorted(values))
        for h, v in zip(answer["bottom"], values):
            row = np.concatenate(w.rows[h["row"]]).astype("f8")
            self.assertLess(abs(v - row @ q), 0.02 * np.linalg.norm(row) * np.linalg.norm(q))
        for group, n in (("max", 4), ("sum", 4)):
            out = self.call("scores", "--queries", self.dir.name + "/q.json", "--group", group, "--metric", "cosine")[1]
            self.assertEqual(len(json.loads(out)["queries"][0]["scores"]), n)
        self.assertEqual(self.call("scores", "--queries", self.dir.name + "/q.json", "--blocks", "no")[0], 2)

    def test_ties_are_ordered_by_id_then_row(self):
        w = Writer()
        for r in w.rows:
            for b in r:
                b[:] = 0
        self.put(w)
        with open(self.dir.name + "/q.json", "w") as f:
            json.dump([[0] * sum(dims for _, dims, _ in BLOCKS)], f)
        for end in ("top", "bottom"):
            out = self.call("scores", "--queries", self.dir.name + "/q.json", "--" + end, "5")[1]
            self.assertEqual([h["row"] for h in json.loads(out)["queries"][0][end]], [2, 4, 0, 1, 3])


class Projections(unittest.TestCase):
    def test_sketch_is_the_product(self):
        # Whole numbers, and powers of four for both sides: no sum is rounded.
        rng = np.random.default_rng(5)
        for (p, q), shape in (((4, 16), (9, 40)), ((16, 4), (5, 33)), ((16, 64), (16, 64)), ((1, 1), (1, 1)), ((4, 4), (0, 3))):
            g = rng.integers(-50, 50, shape).astype("f4")
            inputs, outputs = kronecker.keys(11, "w")
            a, b = kronecker.matrix(inputs, p, shape[0]), kronecker.matrix(outputs, q, shape[1])
            self.assertEqual(kronecker.sketch(11, (p, q), [("w", g)]).tolist(), (a @ g @ b.T).reshape(-1).tolist())

    def test_whole_side_is_orthogonal(self):
        p = kronecker.matrix(kronecker.keys(3, "w")[0], 9, 7)
        self.assertEqual((p.T @ p).tolist(), np.eye(7).tolist())

    def test_signs_are_balanced_and_uncorrelated(self):
        # Five standard errors of 2^16 signs.
        s = kronecker.signs(kronecker.keys(3, "w")[1], 64, 1 << 16)
        self.assertLess(abs(s.sum(axis=1)).max(), 5 * 256)
        off = s @ s.T - np.eye(64) * (1 << 16)
        self.assertLess(abs(off).max(), 5 * 256)

    def test_what_is_no_matrix_is_refused(self):
        for bad in (np.zeros(3), np.array([[np.nan]]), np.full((40, 40), 3e38)):
            with self.assertRaises(fold.FoldError):
                kronecker.sketch(1, (2, 2), [("w", bad)])
        with self.assertRaises(fold.FoldError):
            kronecker.sketch(1, (2, (1 << 14) + 1), [("w", np.zeros((3, 3)))])


class Folds(unittest.TestCase):
    def test_places_are_a_bijection(self):
        for n in range(1, 13):
            k = fold.keys(n, "p")
            self.assertEqual(len(set(fold.places(k, n, np.arange(1 << n)).tolist())), 1 << n)

    def test_small_tensor_never_collides(self):
        bucket, _ = fold.buckets_and_signs(fold.keys(3, "w"), 1024, 1024)
        self.assertEqual(len(set(bucket.tolist())), 1024)

    def test_nesting_adds_neighbours(self):
        tensors = [("a", np.arange(500, dtype="f4")), ("b", -np.arange(33, dtype="f4"))]
        s = fold.fold(1, 256, tensors)
        while s.size > 16:
            s = fold.nest(s)
            self.assertEqual(s.tobytes(), fold.fold(1, s.size, tensors).tobytes())

    def test_sums_are_taken_one_by_one(self):
        x = known_answers.ramp(1, 700, -10, 10)
        bucket, sign = fold.buckets_and_signs(fold.keys(5, "w"), x.size, 16)
        slow = np.zeros(16, np.float32)
        for b, s, v in zip(bucket, sign, x):
            slow[b] = slow[b] + (-v if s else v)
        self.assertEqual(slow.tobytes(), fold.fold(5, 16, [("w", x)]).tobytes())

    def test_page_of_known_answers_is_this(self):
        with open(f"{HERE}/known-answers.md", encoding="utf-8") as f:
            page = f.read()
        tables = known_answers.markdown() + "\n"
        self.assertEqual(page[page.index("## "):], tables)

    def test_schema_of_the_page_is_read(self):
        with open(f"{HERE}/index-file.md", encoding="utf-8") as f:
            example = f.read().split("```json\n")[1].split("```")[0]
        sketcher, blocks, found = container.read_schema("INDEX", example.encode())
        self.assertEqual(sketcher["seed"], "7")
        self.assertEqual([(b.name, b.dims, b.encoding) for b in blocks], [("all", 4096, "f16")])
        self.assertEqual(found, [("sign", 1), ("i8", None)])
        # Keys in any order, but each of them once.
        turned = json.dumps(json.loads(example, object_pairs_hook=lambda pairs: dict(reversed(pairs))), indent=1)
        self.assertNotEqual("".join(turned.split()), "".join(example.split()))
        self.assertEqual(container.read_schema("INDEX", turned.encode())[:1], (sketcher,))
        for twice in (example.replace('"version":1', '"version":1,"version":1'), example.replace('"kind":"i8"', '"kind":"i8","kind":"i8"')):
            with self.assertRaises(container.FormatError):
                container.read_schema("INDEX", twice.encode())

    def test_golden_files_are_these(self):
        golden = f"{HERE}/../tests/golden"
        if not os.path.exists(golden):
            self.skipTest("there is this folder only, without the repository")
        for name, value in (("fold", known_answers.fold_answers()), ("kronecker", known_answers.kronecker_answers()), ("encodings", known_answers.encoding_answers()),
                            ("tiers", known_answers.tier_answers()), ("curvature", known_answers.curvature_answers())):
            with open(f"{golden}/{name}-v1.json", encoding="utf-8") as f:
                self.assertEqual(json.load(f), json.loads(json.dumps(value)))


if __name__ == "__main__":
    unittest.main()
