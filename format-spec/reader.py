"""The second reader of gradix: `python reader.py --help`.

It was written from the pages of this folder alone (container.py, detached.py, artifacts.py, arithmetic.py, tiers.py, fold.py,
kronecker.py, curvature.py) and shares nothing with the crate. Exit codes: 0 good, 1 the files are refused, 2 the call is wrong.
"""

import argparse
import json
import struct
import sys

import numpy as np

import arithmetic
import artifacts
import container
import detached
import fold
import known_answers
import kronecker


class CallRefused(Exception):
    """What the caller asked for cannot be: exit code 2."""


def f32_hex(x):
    return [f"{v:08x}" for v in np.atleast_1d(np.asarray(x, "<f4")).view("<u4").tolist()]


def f64_hex(x):
    return struct.pack(">d", x).hex()


def open_all(args):
    index = container.read_index(args.index)
    generation, listed, derived = container.read_listing(args.listing, index)
    return index, generation, [container.Segment(index, s, index.folder) for s in listed], derived


def live(segments, each_group=lambda segment, group: None):
    """Every live row of the snapshot, all checks made: (segment, group, row, row in the group)."""
    ids = container.LiveIds()
    for segment in segments:
        for group in segment.verify():
            each_group(segment, group)
            for row, i in container.rows_of(segment, group):
                ids.add(segment, group, row, group.ids[i])
                yield segment, group, row, i


def verify(args):
    index, generation, segments, derived = open_all(args)
    opened = [artifacts.Artifact(index, a) for a in derived]
    for artifact in opened:
        artifact.verify()
    recounts = [artifacts.Recount(a) for a in opened if artifacts.Recount.is_possible(a)]

    def recount(segment, group):
        for one in recounts:
            one.add(segment, group)

    rows = sum(1 for _ in live(segments, recount))
    for one in recounts:
        one.compare()
    notes = [detached.read_note(index, s, generation) for s in segments if s.generation == 0]
    warnings = [w for s in segments for w in s.warnings]
    print(json.dumps({"segments": len(segments), "attached": sum(n is not None for n in notes),
                      "artifacts": len(opened), "recounted": len(recounts), "rows": sum(s.rows for s in segments), "live": rows, "warnings": warnings}))


def run_part(args):
    index = container.read_index(args.index)
    for folder in args.part:
        part, warnings = detached.verify_part(folder, index)
        print(json.dumps({"number": part.number, "segments": len(part.segments), "rows": sum(s.rows for s, _ in part.segments),
                          "examples": sum(n for _, n in part.segments), "payload": part.payload.hex(), "warnings": warnings}))


def dump(args):
    index, _, segments, _ = open_all(args)
    first, last = 0, None
    if args.rows:
        try:
            first, last = (int(x) if x else None for x in args.rows.split(":"))
        except ValueError as e:
            raise CallRefused("--rows wants a:b") from e
    for n, (segment, group, row, i) in enumerate(live(segments)):
        if n < (first or 0) or (last is not None and n >= last):
            continue
        blocks = {
            b.name: {
                "encoding": b.encoding,
                "scale": None if group.scales[k] is None else f32_hex(group.scales[k][i])[0],
                "norm": f32_hex(group.norms[k][i])[0],
                "codes": group.codes[k][i].tobytes().hex(),
                "decoded": f32_hex(group.decoded[k][i]),
            }
            for k, b in enumerate(index.blocks)
        }
        print(json.dumps({"segment": segment.file, "row": row, "id": group.ids[i].hex(),
                          "span": group.spans[i].tolist(), "source": group.sources[i],
                          "metadata": group.metadata[i].hex(), "blocks": blocks}))


def read_queries(path, index):
    """[list of f32 arrays by block] for each query."""
    try:
        with open(path, encoding="utf-8") as f:
            lists = json.load(f)
        queries = [np.array(q, np.uint32).view(np.float32) for q in lists]
    except (OSError, ValueError, OverflowError, TypeError) as e:
        raise CallRefused(f"{path}: {e}") from e
    dims = [b.dims for b in index.blocks]
    out = []
    for i, q in enumerate(queries):
        if q.shape != (sum(dims),):
            raise CallRefused(f"query {i} has {q.size} numbers, the index {sum(dims)}")
        blocks = np.split(q, np.cumsum(dims)[:-1])
        for part in blocks:
            try:
                arithmetic.check_query(part)
            except arithmetic.ValueRefused as e:
                raise CallRefused(f"query {i}: {e}") from e
        out.append(blocks)
    return out


def selected(args, index):
    """[(block ordinal, weight)] in the index's order."""
    names = [b.name for b in index.blocks]
    chosen = args.blocks if args.blocks else names
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(names):
        raise CallRefused(f"--blocks: each must be one of {names}, once")
    weights = args.weights if args.weights else [1.0] * len(chosen)
    if len(weights) != len(chosen) or not np.isfinite(weights).all():
        raise CallRefused("--weights: one finite weight for each selected block")
    if args.metric == "cosine" and min(weights) < 0:
        raise CallRefused("--weights: the cosine needs weights of at least 0")
    return sorted((names.index(n), np.float64(w)) for n, w in zip(chosen, weights))


def group_scores(index, group, query, blocks, metric):
    """f64 scores of all rows of a group for one query."""
    score = np.zeros(group.rows, np.float64)
    for k, w in blocks:
        b = arithmetic.block_scores(index.blocks[k].encoding, group.scales[k], group.codes[k], query[k])
        score = score + w * b
    if metric == "inner":
        return score
    q2, x2 = np.float64(0), np.zeros(group.rows, np.float64)
    for k, w in blocks:
        nq = np.float64(arithmetic.norms(query[k][None, :])[0])
        nx = group.norms[k].astype(np.float64)
        q2, x2 = q2 + w * (nq * nq), x2 + w * (nx * nx)
    if not (np.isfinite(q2) and np.isfinite(x2).all()):
        raise CallRefused("--weights: too large for the cosine")
    below = np.sqrt(q2) * np.sqrt(x2)
    zero = (x2 == 0) | (q2 == 0)
    return np.where(zero, 0.0, score / np.where(zero, 1.0, below))


def scores(args):
    index, _, segments, _ = open_all(args)
    queries, blocks = read_queries(args.queries, index), selected(args, index)
    rows, found, scored, last = [], [[] for _ in queries], [], None
    for segment, group, row, i in live(segments):
        if group is not last:
            scored = [group_scores(index, group, q, blocks, args.metric) for q in queries]
            last = group
        rows.append((group.ids[i], segment.file, row))
        for q, s in enumerate(scored):
            if not np.isfinite(s[i]):
                raise container.FormatError(segment.file, f"score of row {row}", None, "not finite")
            found[q].append(float(s[i]))
    out = []
    for one in found:
        hits = grouped(args.group, rows, one)
        by_id = sorted(hits, key=lambda h: h[1])  # stable: equal ids stay in row order
        answer = {}
        if args.top is not None:
            answer["top"] = [shown(h) for h in sorted(by_id, key=lambda h: -h[0])[: args.top]]
        if args.bottom is not None:
            answer["bottom"] = [shown(h) for h in sorted(by_id, key=lambda h: h[0])[: args.bottom]]
        out.append(answer or {"scores": [shown(h) for h in hits]})
    print(json.dumps({"queries": out}))


def grouped(how, rows, one):
    """[(score, id, file, row)]; a group stands for its first row of the greatest score, or its first."""
    if how == "none":
        return [(s, *r) for s, r in zip(one, rows)]
    hits = []
    for s, r in zip(one, rows):
        if hits and hits[-1][1] == r[0]:
            if how == "sum":
                hits[-1] = (hits[-1][0] + s, *hits[-1][1:])
            elif s > hits[-1][0]:
                hits[-1] = (s, *r)
        else:
            hits.append((s, *r))
    return hits


def shown(hit):
    return {"score": f64_hex(hit[0]), "id": hit[1].hex(), "segment": hit[2], "row": hit[3]}


def read_f32(path):
    try:
        with open(path, "rb") as f:
            data = f.read()
        return np.frombuffer(data, "<f4")
    except (OSError, ValueError) as e:
        raise CallRefused(f"{path}: {e}") from e


def run_fold(args):
    tensors = []
    for t in args.tensor:
        name, eq, path = t.rpartition("=")
        if not eq:
            raise CallRefused("--tensor wants name=file.f32")
        tensors.append((name, read_f32(path)))
    try:
        sketch = fold.fold(args.seed, args.dims, tensors, "per_tensor" if args.normalise else "none")
    except (fold.FoldError, OverflowError) as e:
        raise CallRefused(str(e)) from e
    print(json.dumps(sketch.view("<u4").tolist()))


def run_kronecker(args):
    matrices = []
    for m in args.matrix:
        parts = m.rsplit("=", 2)
        try:
            name, shape, path = parts
            n_in, n_out = (int(n) for n in shape.split("x"))
            matrices.append((name, read_f32(path).reshape(n_in, n_out)))
        except ValueError as e:
            raise CallRefused("--matrix wants name=NxM=file.f32, of N x M numbers") from e
    try:
        sketch = kronecker.sketch(args.seed, args.sides, matrices)
    except (fold.FoldError, OverflowError) as e:
        raise CallRefused(str(e)) from e
    print(json.dumps(sketch.view("<u4").tolist()))


def run_encode(args):
    x = read_f32(args.file)
    try:
        print(json.dumps(known_answers.encoded(args.encoding, x)))
    except arithmetic.ValueRefused as e:
        raise CallRefused(str(e)) from e


def run_known_answers(args):
    if args.write:
        known_answers.write(args.write)
    print(known_answers.markdown())


def parser():
    p = argparse.ArgumentParser(prog="reader.py", description=__doc__.split("\n")[0])
    sub = p.add_subparsers(dest="command", required=True)

    def command(name, run, about, indexed=False):
        c = sub.add_parser(name, help=about)
        c.set_defaults(run=run)
        if indexed:
            c.add_argument("index", metavar="INDEX_DIR")
            c.add_argument("--listing", required=True)
        return c

    command("verify", verify, "check every byte and number", True)
    c = command("dump", dump, "live rows as JSON lines", True)
    c.add_argument("--rows", help="a:b, counted over the live rows")
    c = command("scores", scores, "scores or a ranking as JSON", True)
    c.add_argument("--queries", required=True, help="JSON: for each query a list of u32, the bits of its f32")
    c.add_argument("--blocks", nargs="+")
    c.add_argument("--weights", nargs="+", type=float)
    c.add_argument("--metric", choices=["inner", "cosine"], default="inner")
    c.add_argument("--group", choices=["none", "max", "sum"], default="none")
    c.add_argument("--top", type=int)
    c.add_argument("--bottom", type=int)
    c = command("part", run_part, "check every byte and number of parts that were built apart from their index")
    c.add_argument("index", metavar="INDEX_DIR", help="the index, or a folder with a copy of its INDEX file")
    c.add_argument("part", metavar="PART_DIR", nargs="+")
    c = command("fold", run_fold, "fold tensors (raw little-endian f32 files)")
    c.add_argument("--seed", type=int, required=True)
    c.add_argument("--dims", type=int, required=True)
    c.add_argument("--normalise", action="store_true")
    c.add_argument("--tensor", action="append", required=True, metavar="NAME=FILE")
    c = command("kronecker", run_kronecker, "project matrices (raw little-endian f32 files) into one block")
    c.add_argument("--seed", type=int, required=True)
    c.add_argument("--sides", type=int, nargs=2, required=True, metavar=("P_IN", "P_OUT"))
    c.add_argument("--matrix", action="append", required=True, metavar="NAME=NxM=FILE")
    c = command("encode", run_encode, "encode one row of a raw f32 file")
    c.add_argument("--encoding", choices=list(arithmetic.CODE_TYPES), required=True)
    c.add_argument("file")
    c = command("known-answers", run_known_answers, "the tables of known-answers.md")
    c.add_argument("--write", metavar="DIR", help="also write their JSON files there")
    return p


def main(argv=None):
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except container.FormatError as e:
        print(f"refused: {e}", file=sys.stderr)
        return 1
    except CallRefused as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
