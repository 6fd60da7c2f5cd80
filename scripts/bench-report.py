"""Shows what `make bench` measured: one table, the targets, and a plot.

    bench-report.py TABLE [PLOT]

TABLE is the CSV file of the run; PLOT the SVG file to write. Needs nothing but Python.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator
from xml.sax.saxutils import escape

BATCHES = (1, 10, 64, 100)
# Recalls that differ by less count as equal.
EQUAL_RECALL = 0.005
# Seconds of one query on two H100s, for 52,002 x 65,536.
PAPER_SECONDS, PAPER_CASE = 6.8, (52_002, 65_536)
ORDER = ("gradix", "torch", "numpy", "faiss", "usearch")


@dataclass(frozen=True)
class Line:
    """A line of the CSV file; what was not measured is None."""

    data: str
    rows: int
    dims: int
    encoding: str
    system: str
    batch: int
    k: int
    warm: bool
    seconds: float | None
    bytes: int | None
    roof_share: float | None
    resident_mb: float | None
    recall: float | None

    @property
    def case(self) -> tuple[str, int, int]:
        return self.data, self.rows, self.dims

    @property
    def is_gradix(self) -> bool:
        return self.system.startswith("gradix-")

    @property
    def suffix(self) -> str:
        """What is special about a line of gradix: one thread, the first scan, fewer rows."""
        found = re.search(r"-(t1|first|rows)$", self.system)
        return found[1] if found else ""


def read(path: Path) -> list[Line]:
    def number(text: str) -> float | None:
        return float(text) if text else None

    with open(path, newline="") as file:
        return [
            Line(
                data=line["data"],
                rows=int(line["rows"]),
                dims=int(line["dims"]),
                encoding=line["encoding"],
                system=line["system"],
                batch=int(line["batch"]),
                k=int(line["k"]),
                warm=line["warm"] == "1",
                seconds=number(line["seconds"]),
                bytes=int(line["bytes"]) if line["bytes"] else None,
                roof_share=number(line["roof_share"]),
                resident_mb=number(line["resident_mb"]),
                recall=number(line["recall"]),
            )
            for line in csv.DictReader(file)
        ]


def is_roof(line: Line) -> bool:
    return line.system.startswith(("memory-read", "disk-read"))


def case_name(case: tuple[str, int, int]) -> str:
    return f"{case[0]}, {case[1]:,} x {case[2]:,}"


def cases(lines: Iterable[Line]) -> list[tuple[str, int, int]]:
    """The cases in the order of the run; fewer rows of an index are no case."""
    return list(dict.fromkeys(line.case for line in lines if not is_roof(line) and line.suffix != "rows"))


def rank(line: Line) -> tuple[int, str, str]:
    family = next((at for at, name in enumerate(ORDER) if line.system.startswith(name)), len(ORDER))
    return family, line.encoding, line.system


def aligned(rows: list[list[str]], left: int) -> Iterator[str]:
    """Aligned rows of cells: the first `left` columns to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        yield "  ".join(cells).rstrip()


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def milliseconds(line: Line | None) -> str:
    if line is None:
        return ""
    if line.seconds is None:
        return "-"
    return f"{line.seconds * 1e3:,.2f}" if line.seconds < 0.1 else f"{line.seconds * 1e3:,.0f}"


def machine(lines: list[Line]) -> Iterator[str]:
    names = {
        "memory-read-t1": "reading memory, one thread",
        "memory-read": "reading memory, all threads",
        "disk-read": "reading the disk",
    }
    for line in lines:
        if line.data == "machine" and line.seconds and line.bytes:
            yield f"{names[line.system]}: {line.bytes / line.seconds / 1e9:.2f} GB/s"


def table(lines: list[Line], case: tuple[str, int, int]) -> Iterator[str]:
    """One row for each way to search: milliseconds by batch for ten results, then the details of one query."""
    groups: dict[tuple[str, str, bool], dict[tuple[int, int], Line]] = defaultdict(dict)
    for line in sorted((line for line in lines if line.case == case and not is_roof(line)), key=rank):
        groups[line.system, line.encoding, line.warm][line.batch, line.k] = line
    rows = [
        ["system", "codes", ""]
        + [f"{batch} quer{'y' if batch == 1 else 'ies'}, ms" for batch in BATCHES]
        + ["100 and top 100", "GB/s", "of roof", "resident MB", "recall@10", "@100"]
    ]
    for warm in (True, False):
        for (system, encoding, is_warm), found in groups.items():
            if is_warm != warm:
                continue
            one = found.get((1, 10))
            speed = one.bytes / one.seconds / 1e9 if one and one.bytes and one.seconds else None
            many = found.get((100, 10)) or found.get((64, 10)) or one
            hundred = found.get((100, 100)) or found.get((1, 100))
            rows.append(
                [system, encoding, "warm" if warm else "cold"]
                + [milliseconds(found.get((batch, 10))) for batch in BATCHES]
                + [
                    milliseconds(found.get((100, 100))),
                    shown(speed),
                    shown(one.roof_share if one else None),
                    shown(max((line.resident_mb or 0 for line in found.values())), 0),
                    shown(many.recall if many else None, 3),
                    shown(hundred.recall if hundred else None, 3),
                ]
            )
    yield from aligned(rows, 3)


@dataclass
class Target:
    """The targets and the measurements, case by case."""

    name: str
    limit: float
    at_least: bool
    measured: list[tuple[float, str]]
    unit: str = ""

    def row(self) -> list[str]:
        sign = ">=" if self.at_least else "<="
        wanted = f"{sign} {self.limit:.3g}{self.unit}"
        if not self.measured:
            return [self.name, wanted, "not measured", "", "", ""]
        worst = min(self.measured) if self.at_least else max(self.measured)
        best = max(self.measured) if self.at_least else min(self.measured)
        is_met = worst[0] >= self.limit if self.at_least else worst[0] <= self.limit
        met = sum(value >= self.limit if self.at_least else value <= self.limit for value, _ in self.measured)
        verdict = "met" if is_met else f"met in {met} of {len(self.measured)}" if met else "MISSED"
        return [
            self.name,
            wanted,
            verdict,
            f"{worst[0]:.3g}{self.unit}",
            worst[1],
            "" if len(self.measured) == 1 else f"{best[0]:.3g}{self.unit}",
        ]


class Measured:
    """Finds lines by what they measure."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = [line for line in lines if line.seconds is not None]
        self.cases = cases(self.lines)

    def gradix(self, encoding: str, batch: int, k: int = 10, warm: bool = True, suffix: str = "") -> Iterator[Line]:
        for line in self.lines:
            if (
                line.is_gradix
                and (line.encoding, line.batch, line.k, line.warm) == (encoding, batch, k, warm)
                and line.suffix == suffix
            ):
                yield line

    def encodings(self) -> list[str]:
        return list(dict.fromkeys(line.encoding for line in self.lines if line.is_gradix))

    def same(self, line: Line, **other: object) -> Line | None:
        """The line of the same case and the like, but for what is given."""
        wanted = {
            "case": line.case,
            "encoding": line.encoding,
            "batch": line.batch,
            "k": line.k,
            "warm": line.warm,
            "suffix": "",
            **other,
        }
        for found in self.lines:
            if found.is_gradix and all(getattr(found, name) == value for name, value in wanted.items()):
                return found
        return None

    def recall(self, line: Line) -> float:
        """The recall of similar lines with the most queries, since that of one query is imprecise."""
        alike = [
            other
            for other in self.lines
            if (other.case, other.system, other.encoding, other.k, other.warm)
            == (line.case, line.system, line.encoding, line.k, line.warm)
        ]
        return max(alike, key=lambda other: other.batch).recall or 0

    def against_peers(self, encoding: str, batch: int) -> list[tuple[float, str]]:
        """The time of the fastest peer of at least the same recall, relative to gradix's."""
        found = []
        for ours in self.gradix(encoding, batch):
            peers = [
                line
                for line in self.lines
                if not line.is_gradix
                and not is_roof(line)
                and (line.case, line.batch, line.k, line.warm) == (ours.case, ours.batch, ours.k, True)
                and self.recall(line) >= self.recall(ours) - EQUAL_RECALL
            ]
            if peers:
                fastest = min(peers, key=lambda line: line.seconds or math.inf)
                ratio = (fastest.seconds or 0) / (ours.seconds or math.inf)
                found.append((ratio, f"{case_name(ours.case)}, {fastest.system}"))
        return found

    def ratios(self, encoding: str, batch: int, path: str = "", suffix: str = "") -> list[tuple[float, str]]:
        """Seconds of these lines, or of another path, as a multiple of one query's in the same case."""
        found = []
        for line in self.gradix(path or encoding, batch, suffix=suffix):
            one = self.same(line, batch=1, encoding=encoding)
            if one and one.seconds and line.seconds:
                found.append((line.seconds / one.seconds, case_name(line.case)))
        return found


def targets(lines: list[Line]) -> list[Target]:
    """The targets, in order."""
    measured = Measured(lines)
    full = [encoding for encoding in measured.encodings() if encoding in ("i8", "f16", "f32")]
    coarse = [encoding for encoding in measured.encodings() if encoding.startswith("sign")]
    found = []

    def shares(encoding: str, warm: bool) -> list[tuple[float, str]]:
        chosen = measured.gradix(encoding, 1, warm=warm)
        return [(line.roof_share, case_name(line.case)) for line in chosen if line.roof_share is not None]

    for encoding in full:
        found.append(Target(f"{encoding}, one query, warm: share of memory's speed", 0.85, True, shares(encoding, True)))
    has_amx = any("amx" in line.system for line in measured.gradix("i8", 64))
    many = 1.5 if has_amx else 5
    name = f"i8, 64 queries ({'with' if has_amx else 'without'} AMX): times one query"
    found.append(Target(name, many, False, measured.ratios("i8", 64, "i8 planned")))
    found.append(Target("f16, 64 queries: times one query", 6, False, measured.ratios("f16", 64, "f16 planned")))
    found.append(Target("f16, 64 queries, every row in full: times one", 6, False, measured.ratios("f16", 64)))
    for encoding in full:
        name = f"{encoding}, one query, from disk: share of the disk's speed"
        found.append(Target(name, 0.9, True, shares(encoding, False)))
    planned = [f"{encoding} planned" for encoding in full]
    for encoding in full + planned + coarse:
        name = f"{encoding}, one query: times faster than the fastest peer of equal recall"
        found.append(Target(name, 2, True, measured.against_peers(encoding, 1)))
    for encoding in full + planned + coarse:
        name = f"{encoding}, 100 queries: times faster than the fastest peer of equal recall"
        found.append(Target(name, 3, True, measured.against_peers(encoding, 100)))
    found.extend(coarse_targets(measured, coarse))
    found.extend(paper_targets(measured, coarse))
    for encoding in full:
        worst = []
        for line in measured.gradix(encoding, 1, suffix="rows"):
            smallest = min(
                (other for other in measured.gradix(encoding, 1, suffix="rows") if other.data == line.data),
                key=lambda other: other.rows,
            )
            if line.rows > smallest.rows and line.seconds and smallest.seconds:
                growth = line.seconds / smallest.seconds / (line.rows / smallest.rows)
                worst.append((abs(growth - 1), f"{line.data}, {line.rows:,} against {smallest.rows:,} rows"))
        if worst:
            found.append(Target(f"{encoding}: time per row, rows x 2, 4, 8: deviation", 0.1, False, worst))
    for encoding in full:
        name = f"{encoding}: first scan, which verifies, against later ones"
        found.append(Target(name, 1.15, False, measured.ratios(encoding, 1, suffix="first")))
    return found


def coarse_targets(measured: Measured, coarse: list[str]) -> Iterator[Target]:
    for encoding in coarse or ["sign"]:
        faster, slower, lost = [], [], []
        for line in measured.gradix(encoding, 1, k=100):
            full = measured.same(line, encoding="i8")
            if not (full and full.seconds and line.seconds):
                continue
            if line.data == "gaussian":
                slower.append((line.seconds / full.seconds, case_name(line.case)))
            else:
                faster.append((full.seconds / line.seconds, case_name(line.case)))
        for k in (10, 100):
            for batch in BATCHES:
                for line in measured.gradix(encoding, batch, k=k):
                    full = measured.same(line, encoding="i8")
                    if full and full.recall is not None and line.recall is not None:
                        lost.append((full.recall - line.recall, f"{case_name(line.case)}, {batch} queries, top {k}"))
        yield Target(f"{encoding}, one query, gradients: times faster than i8", 5, True, faster)
        yield Target(f"{encoding}, one query, Gaussian: times slower than i8", 1.2, False, slower)
        yield Target(f"{encoding}: recall lost against i8", 0, False, lost)


def paper_targets(measured: Measured, coarse: list[str]) -> Iterator[Target]:
    for encodings, part in ((["f16"], 8), (coarse or ["sign"], 60)):
        for encoding in encodings:
            seconds = [
                (line.seconds, case_name(line.case))
                for line in measured.gradix(encoding, 1)
                if (line.rows, line.dims) == PAPER_CASE and line.seconds and not (part == 60 and line.data == "gaussian")
            ]
            name = f"{encoding}, one query, 52,002 x 65,536: 1/{part} of the paper's {PAPER_SECONDS} s"
            yield Target(name, PAPER_SECONDS / part, False, seconds, " s")


# The plot: a panel for each case, the batch from left to right, seconds upwards, both logarithmic.
PANEL = (470, 300)
MARGIN = (64, 56)
LEGEND = 190
COLOURS = {
    "gradix": ("#b30000", "#e34a33", "#fc8d59", "#7a0177", "#c51b8a", "#f768a1", "#d9a300", "#7f4f00"),
    "torch": ("#08519c", "#3182bd", "#6baed6", "#08306b"),
    "numpy": ("#636363", "#969696"),
    "faiss": ("#006d2c", "#31a354", "#74c476"),
    "usearch": ("#8c6d31", "#bd9e39", "#e7cb94"),
}
DASHES = {"f32": "", "f16": "7 3", "bf16": "7 3 2 3", "i8": "2 3"}


def label(line: Line) -> str:
    return f"gradix {line.encoding}" if line.is_gradix else line.system


def family(name: str) -> str:
    return next((start for start in COLOURS if name.startswith(start)), "numpy")


def plot(lines: list[Line]) -> str:
    drawn = [line for line in lines if line.warm and line.k == 10 and line.seconds and not line.suffix and not is_roof(line)]
    names = list(dict.fromkeys(label(line) for line in sorted(drawn, key=rank)))
    seen: dict[str, int] = defaultdict(int)
    colours, dashes = {}, {}
    for name in names:
        shades = COLOURS[family(name)]
        colours[name] = shades[seen[family(name)] % len(shades)]
        seen[family(name)] += 1
        encoding = next(line.encoding for line in drawn if label(line) == name)
        dashes[name] = "" if name.startswith("gradix") else DASHES.get(encoding, "")
    found = cases(drawn)
    columns = len({case[0] for case in found}) or 1
    sizes = list(dict.fromkeys(case[1:] for case in found))
    datas = list(dict.fromkeys(case[0] for case in found))
    width = columns * (PANEL[0] + MARGIN[0]) + LEGEND + 24
    height = max(len(sizes) * (PANEL[1] + MARGIN[1]) + 64, 20 * len(names) + 120)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="26" font-size="17" font-weight="bold">Seconds of a search, by queries in a batch '
        "(warm, top 10, all threads)</text>",
    ]
    for case in found:
        left = MARGIN[0] + datas.index(case[0]) * (PANEL[0] + MARGIN[0])
        top = 64 + sizes.index(case[1:]) * (PANEL[1] + MARGIN[1])
        here = [line for line in drawn if line.case == case]
        roofs = [line for line in lines if line.case == case and line.system == "memory-read"]
        parts.extend(panel(case, left, top, here, roofs, colours, dashes))
    left = width - LEGEND
    for at, name in enumerate(names):
        y = 74 + at * 20
        parts.append(stroke([(left, y), (left + 34, y)], colours[name], dashes[name], name.startswith("gradix")))
        weight = ' font-weight="bold"' if name.startswith("gradix") else ""
        parts.append(f'<text x="{left + 42}" y="{y + 4}"{weight}>{escape(name)}</text>')
    y = 74 + len(names) * 20
    parts.append(stroke([(left, y), (left + 34, y)], "#bbbbbb", "1 2", False))
    parts.append(f'<text x="{left + 42}" y="{y + 4}" fill="#666666">reading the codes once</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def stroke(points: list[tuple[float, float]], colour: str, dash: str, is_bold: bool) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    width = 2.8 if is_bold else 1.4
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def panel(
    case: tuple[str, int, int],
    left: float,
    top: float,
    lines: list[Line],
    roofs: list[Line],
    colours: dict[str, str],
    dashes: dict[str, str],
) -> Iterator[str]:
    width, height = PANEL
    seconds = [line.seconds for line in lines if line.seconds]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    high = max(high, low + 1)

    def x(batch: int) -> float:
        return left + 12 + (width - 24) * math.log10(batch) / 2

    def y(value: float) -> float:
        return top + height * (high - math.log10(value)) / (high - low)

    yield f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(case_name(case))}</text>'
    for power in range(low, high + 1):
        for step in range(1, 10 if power < high else 2):
            at = y(step * 10.0**power)
            colour = "#d0d0d0" if step == 1 else "#f2f2f2"
            yield f'<line x1="{left}" x2="{left + width}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}"/>'
        text = f"{10.0**power:g} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms"
        yield f'<text x="{left - 6}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{text}</text>'
    for batch in BATCHES:
        yield f'<line x1="{x(batch):.1f}" x2="{x(batch):.1f}" y1="{top}" y2="{top + height}" stroke="#e4e4e4"/>'
        shift = {64: -6, 100: 4}.get(batch, 0)
        yield f'<text x="{x(batch) + shift:.1f}" y="{top + height + 16}" text-anchor="middle">{batch}</text>'
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888888"/>'
    scanned = {line.encoding: line.bytes for line in lines if line.is_gradix and line.batch == 1}
    for roof in roofs:
        if roof.encoding in scanned and roof.seconds and roof.bytes and scanned[roof.encoding]:
            value = (scanned[roof.encoding] or 0) * roof.seconds / roof.bytes
            if low <= math.log10(value) <= high:
                at = y(value)
                yield stroke([(left, at), (left + width, at)], "#bbbbbb", "1 2", False)
                yield f'<text x="{left + width - 4}" y="{at - 3:.1f}" text-anchor="end" font-size="10" fill="#666666">{escape(roof.encoding)}</text>'
    by_name: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_name[label(line)].append(line)
    # Ours last, on top.
    for name in sorted(by_name, key=lambda name: name.startswith("gradix")):
        points = [(x(line.batch), y(line.seconds)) for line in sorted(by_name[name], key=lambda line: line.batch) if line.seconds]
        yield stroke(points, colours[name], dashes[name], name.startswith("gradix"))
        for at_x, at_y in points:
            yield f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{3 if name.startswith("gradix") else 2}" fill="{colours[name]}"/>'


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    lines = read(Path(sys.argv[1]))
    print("\n".join(machine(lines)))
    for case in cases(lines):
        print(f"\n{case_name(case)}")
        print("\n".join(table(lines, case)))
    rows = [["target", "wanted", "", "worst", "where", "best"]]
    rows.extend(target.row() for target in targets(lines))
    print("\nTargets")
    print("\n".join(aligned(rows, 6)))
    if len(sys.argv) == 3:
        Path(sys.argv[2]).write_text(plot(lines))


if __name__ == "__main__":
    main()
