"""The known answers: the tables of known-answers.md, and the files fold-v1.json, kronecker-v1.json,
encodings-v1.json, tiers-v1.json and curvature-v1.json.

Everything is computed from fixed inputs, so that the files come out the same each time. All f32 and
f64 are given as bit patterns in hexadecimal.
"""

import json
import os
import struct

import numpy as np

import arithmetic
import curvature
import fold
import kronecker
import tiers

FOLD_CASES = [  # seed, parameter, elements, K
    (0, "w", 1, 16),
    (0, "w", 40, 64),
    (7, "model.layers.3.self_attn.q_proj.weight", 1000, 64),
    (2**64 - 1, "größe", 257, 16),
    (12345678901234567890, "lm_head", 5003, 1024),
]
TILE_CASES = [(7, "big", 1 << 35, 1 << 20), (7, "big", (1 << 24) + 1, 1 << 28)]

KRONECKER_CASES = [  # seed, parameter, p_in, p_out, n_in, n_out
    (0, "w", 1, 1, 1, 1),
    (0, "w", 2, 3, 2, 40),
    (7, "model.layers.3.self_attn.q_proj.weight", 4, 4, 40, 70),
    (2**64 - 1, "größe", 8, 5, 5, 5),
    (12345678901234567890, "lm_head", 16, 64, 33, 1000),
]
CURVATURE_CASES = [  # dims, width (None: full), rows, how many of them are taken out again, exponent, kappa, rank
    (1, None, 1, 0, 0, 2.0, None),
    (3, None, 4, 0, 0, 2.0, None),
    (3, 2, 4, 1, 0, 0.5, None),
    (2, None, 3, 0, None, 2.0, None),
    (17, None, 40, 0, 40, 2.0, 5),
    (17, 9, 40, 11, -130, 2.0, 4),
    (20, 10, 3, 0, 0, 2.0, None),
    (50, None, 300, 20, 0, 0.1, None),
    (50, 7, 300, 0, 0, 2.0, None),
]
WORD_CASES = [(7, "big", 16384, 1 << 35)]


def hex32(x):
    return [f"{v:08x}" for v in np.atleast_1d(np.asarray(x, "<f4")).view("<u4").tolist()]


def hex64(x):
    return struct.pack(">d", float(x)).hex()


def floats(*bits):
    return np.array(bits, np.uint32).view(np.float32)


def tile_answers(seed, name, elements, dims):
    k = fold.keys(seed, name)
    tiles = -(-elements // 16)
    n = fold.tile_bits(tiles)
    t = sorted({x for x in (0, 1, 2, 16, 255, tiles // 2, tiles - 1) if x < tiles})
    phase, h = fold.phases(k, n, t), fold.hashes(k, t)
    base = fold.bases(phase, dims)
    return {
        "seed": str(seed), "parameter": name, "elements": str(elements), "dims": dims, "n": n,
        "keys": [f"{x:08x}" for x in k.tolist()],
        "tiles": [
            {"t": int(a), "phase": f"{int(p):08x}", "h": f"{int(w):08x}", "base": int(b), "lane_of_0": int(w) >> 28}
            for a, p, w, b in zip(t, phase, h, base)
        ],
    }


def fold_answers():
    cases = []
    for seed, name, elements, dims in FOLD_CASES:
        answer = tile_answers(seed, name, elements, dims)
        ramp = np.arange(1, elements + 1, dtype=np.float32)
        answer["ramp"] = hex32(fold.fold(seed, dims, [(name, ramp)]))
        answer["ramp_per_tensor"] = hex32(fold.fold(seed, dims, [(name, ramp)], "per_tensor"))
        cases.append(answer)
    for case in TILE_CASES:
        cases.append(tile_answers(*case))
    return {"format": "gradix-fold-answers-1", "cases": cases}


def word_answers(seed, name, p, n):
    """Words of both sides at some rows and chunks of 32 columns."""
    inputs, outputs = kronecker.keys(seed, name)
    last = -(-n // 32) - 1
    places = sorted({(r, c) for r in (0, 1, p // 2, p - 1) if r < p for c in (0, 1, last // 2, last) if c <= last})
    def word(s, r, c):
        return f"{int(kronecker.words(s, [r], [c])[0, 0]):08x}"
    return [{"row": r, "chunk": c, "inputs": word(inputs, r, c), "outputs": word(outputs, r, c)} for r, c in places]


def kronecker_answers():
    cases = []
    for seed, name, p_in, p_out, n_in, n_out in KRONECKER_CASES:
        g = ramp(40, n_in * n_out, -12, 12).reshape(n_in, n_out)
        whole = np.arange(1, n_in * n_out + 1, dtype=np.float32).reshape(n_in, n_out)
        inputs, outputs = kronecker.keys(seed, name)
        cases.append({
            "seed": str(seed), "parameter": name, "sides": [p_in, p_out], "shape": [n_in, n_out],
            "keys": [f"{x:08x}" for x in [*inputs.tolist(), *outputs.tolist()]],
            "words": word_answers(seed, name, max(p_in, p_out), max(n_in, n_out)),
            "ramp": hex32(kronecker.sketch(seed, (p_in, p_out), [(name, whole)])),
            "gradient": hex32(g.reshape(-1)) if n_in * n_out <= 100 else None,
            "sketch": hex32(kronecker.sketch(seed, (p_in, p_out), [(name, g)])) if n_in * n_out <= 100 else None,
        })
    for seed, name, p, n in WORD_CASES:
        inputs, outputs = kronecker.keys(seed, name)
        cases.append({"seed": str(seed), "parameter": name, "keys": [f"{x:08x}" for x in [*inputs.tolist(), *outputs.tolist()]],
                      "words": word_answers(seed, name, p, n)})
    return {"format": "gradix-kronecker-answers-1", "cases": cases}


def curvature_rows(dims, count, exponent):
    """f32((i * 7919 mod 1009 - 504) / 300) times a power of two, or zeros, for element i."""
    i = np.arange(dims * count, dtype=np.int64)
    x = ((i * 7919 % 1009 - 504) / 300).astype(np.float32).reshape(count, dims)
    return x * np.float32(0) if exponent is None else (x.astype(np.float64) * 2.0**exponent).astype(np.float32)


def curvature_answers():
    cases = []
    for dims, width, count, less, exponent, kappa, rank in CURVATURE_CASES:
        rows = curvature_rows(dims, count, exponent)
        sums = curvature.Sums(dims, width)
        sums.add(rows)
        if less:
            sums.add(rows[:less], -1)
        factor = curvature.Factor(sums, kappa, rank)
        query = [float(x) for x in ramp(50, dims, -2, 2)]
        answer = factor.precondition(query)
        cases.append({
            "dims": dims, "width": width, "rows": count, "taken_out": less, "exponent": exponent, "kappa": kappa, "rank": rank,
            "power": hex64(sums.power), "values": [hex64(x) for x in sums.values],
            "lambda": hex64(factor.lam), "effective_dims": hex64(factor.effective_dims),
            "query": hex32(query), "preconditioned": [hex64(x) for x in answer],
            "self_influence": hex64(factor.self_influence(rows[count - 1])),
        })
    return {"format": "gradix-curvature-answers-1", "cases": cases}


def encoded(encoding, x):
    """One row: its input bits, scale, codes, decoded numbers and norm."""
    scale, codes = arithmetic.encode(encoding, x)
    y = arithmetic.decode(encoding, None if scale is None else np.array([scale]), codes[None, :])
    return {
        "encoding": encoding, "input": hex32(x), "scale": None if scale is None else hex32(scale)[0],
        "codes": codes.tobytes().hex(), "decoded": hex32(y[0]), "norm": hex32(arithmetic.norms(y))[0],
    }


def ramp(seed, n, low, high):
    """n f32 of either sign with exponents from low to high - 1, by a little counter generator."""
    x = fold.mix(np.arange(n, dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF))
    y = fold.mix(x ^ np.uint32(0x5BD1E995))
    exponent = y % np.uint32(high - low) + np.uint32(low + 127)
    return ((x & np.uint32(0x807FFFFF)) | (exponent << np.uint32(23))).view(np.float32)


def rows():
    f = np.float32
    return {
        "zeros": np.zeros(5, f),
        "negative zeros only": -np.zeros(5, f),
        "negative zero beside one": np.array([-0.0, 1, 0], f),
        "subnormals": floats(1, 0x80000001, 2, 3, 0x007FFFFF, 0x80400000),
        "just above subnormal": floats(0x00800000, 0x80800001, 1, 0x00FFFFFF),
        "f16 boundary below": np.array([65519.99, -65504, 1, 0.5], f),
        "f16 boundary": np.array([65520, -65504, 1, 0.5], f),
        "f16 boundary, negative": np.array([-65520, 65519, 3, 1], f),
        "f16 boundary at the least scale": np.array([65519.0, 65519.996, -32767.9], f) * f(2.0**-126),
        "f16 boundary, doubled least scale": np.array([65520.0, 1.0, -3.0], f) * f(2.0**-126),
        "powers of two": np.array([2.0**-i * (-1) ** i for i in range(40)], f),
        "1e-30": np.array([1e-30, -3e-31, 7e-33, 1e-38, 1e-45], f),
        "greatest norm": np.array([2.0**62], f),
        "nearly greatest norm": np.array([2.0**61, -(2.0**61), 2.0**60 * 1.999], f),
        "i8 ties": np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 63.5], f),
        "f16 ties": np.array([32768, 32784, 32800, 32816, 1, 2049 / 2048, 2051 / 2048, -(1 + 3 / 2048)], f),
        "f16 subnormal codes": np.array([1, 2.0**-30, 3 * 2.0**-40, 2.0**-40, 2.0**-39, 1.5 * 2.0**-39], f),
        "i8 least scale": floats(1, 0x80000040, 0x003FFFFF, 0x00C00000, 0x01000000),
        "thirds": np.array([1 / 3, -2 / 3, 1.0, 0.1, 0.7], f),
        "seventeen": ramp(1, 17, -3, 3),
        "wide": ramp(2, 100, -20, 5),
    }


def query_answer(q):
    t, p = arithmetic.quantise_query(q)
    return {"input": hex32(q), "scale": hex32(t)[0], "p": p.tolist()}


def score_answer(name, encoding, x, q):
    scale, codes = arithmetic.encode(encoding, x)
    scales = None if scale is None else np.array([scale])
    b = arithmetic.block_scores(encoding, scales, codes[None, :], q)[0]
    return {"name": name, "encoding": encoding, "row": hex32(x), "query": hex32(q),
            # As a whole score (0 + 1 * b), so that the sign of a zero block score is not asked.
            "score": hex64(np.float64(0) + b)}


def score_pairs():
    f = np.float32
    one = f(1)
    # All elements 16 apart share lane 0: a second fma meets a first result.
    def lane0(*values):
        out = np.zeros(16 * len(values) - 15, f)
        out[::16] = values
        return out

    e = np.finfo(f).eps  # 2^-23
    return {
        # 1 + 2^-24 (+ a bit): a tie, and just above a tie, that f64 alone would round twice.
        "tie to even": (lane0(1, 2.0**-12), lane0(1, 2.0**-12)),
        "above a tie": (lane0(1, 2.0**-12 * (one + e)), lane0(1, 2.0**-12)),
        "above a tie by 2^-54 and less": (lane0(1, 2.0**-12 * (one + e)), lane0(1, 2.0**-12 * (one - e))),
        "below a tie by 2^-70": (lane0(1, f(2.0**-12) * (one + e)), lane0(1, f(2.0**-12) * (one - e))),
        "odd, above a tie by 2^-100": (lane0(one + e, 2.0**-12, 2.0**-50), lane0(1, 2.0**-12, 2.0**-50)),
        "cancellation": (lane0(one + e, one + 2 * e), lane0(one + e, -one)),
        "product below subnormals": (lane0(floats(1)[0], 2.0**-126), lane0(floats(1)[0], 1)),
        "subnormal tie": (lane0(floats(1)[0], floats(3)[0]), lane0(0.5, 0.5)),
        "subnormal sum": (lane0(2.0**-100, -(2.0**-100) * (one + e)), lane0(2.0**-30 * (one + e), 2.0**-30)),
        "large": (lane0(2.0**61, 2.0**61), lane0(2.0**61, -(2.0**61) * (one - e))),
        "zero row": (np.zeros(20, f), ramp(3, 20, -3, 3)),
        "zero query": (ramp(3, 20, -3, 3), np.zeros(20, f)),
        "five": (ramp(4, 5, -3, 3), ramp(5, 5, -3, 3)),
        "sixteen": (ramp(6, 16, -10, 10), ramp(7, 16, -10, 10)),
        "two hundred": (ramp(8, 200, -12, 3), ramp(9, 200, -12, 3)),
        "small numbers": (ramp(10, 129, -70, -50), ramp(11, 129, -80, -40)),
    }


def random_fma():
    """Single fma with exponents chosen so that halves of an ulp and sticky bits meet."""
    a, b, c = ramp(20, 256, -2, 2), ramp(21, 256, -30, 30), ramp(22, 256, -6, 6)
    got = arithmetic.fma(a, b, c)
    return [hex32(v) for v in zip(a, b, c, got)]


def encoding_answers():
    data = rows()
    return {
        "format": "gradix-encodings-answers-1",
        "rows": [{"name": n, **encoded(e, x)} for n, x in data.items() for e in arithmetic.CODE_TYPES],
        "queries": [{"name": n, **query_answer(x)} for n, x in data.items()],
        "scores": [score_answer(n, e, x, q) for n, (x, q) in score_pairs().items() for e in arithmetic.CODE_TYPES],
        "fma": random_fma(),
    }


def rotation_answer(seed, block, dims):
    v = ramp(30 + dims, dims, -6, 3)
    return {"seed": str(seed), "block": block, "input": hex32(v), "rotated": hex32(tiers.rotate(seed, block, v[None, :])[0])}


def tier_answer(name, encoding, x, seed, block):
    scale, codes = arithmetic.encode(encoding, x)
    scales = None if scale is None else np.array([scale])
    decoded = arithmetic.decode(encoding, scales, codes[None, :])
    out = {"name": name, "encoding": encoding, "input": hex32(x), "seed": str(seed), "block": block}
    for tier in tiers.NUMBERS:
        if tiers.covers(tier, encoding):
            made = tiers.made(tier, seed, block, encoding, scales, codes[None, :], decoded)
            out[tier] = {"codes": made[0][0].tobytes().hex(), "first": hex32(made[1])[0], "second": hex32(made[2])[0]}
    return out


def tier_rows():
    data = rows()
    data["one"], data["two"] = ramp(12, 1, -3, 3), ramp(13, 2, -3, 3)
    data["constant"], data["one hot"] = np.full(70, 0.1, np.float32), np.eye(1, 129, 100, dtype=np.float32)[0]
    data["one thousand"] = ramp(14, 1000, -9, 4)
    return data


def tier_answers():
    dims = (1, 2, 3, 5, 8, 16, 17, 31, 33, 100, 127, 256)
    rotations = [rotation_answer(s, b, n) for n in dims for s, b in ((7, 0), (2**64 - 1, 65534))]
    made = [tier_answer(n, e, x, 7, 1) for n, x in tier_rows().items() for e in arithmetic.CODE_TYPES]
    return {"format": "gradix-tiers-answers-1", "rotations": rotations, "rows": made}


def write(folder):
    os.makedirs(folder, exist_ok=True)
    answers = (("fold-v1.json", fold_answers()), ("kronecker-v1.json", kronecker_answers()),
               ("encodings-v1.json", encoding_answers()), ("tiers-v1.json", tier_answers()),
               ("curvature-v1.json", curvature_answers()))
    for name, value in answers:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=1)
            f.write("\n")


PAGE_ROWS = ("zeros", "f16 boundary", "f16 subnormal codes", "i8 ties", "thirds", "i8 least scale")
PAGE_FMA = (  # a, b, c
    # Ties, to the even side; above and below a tie by less than f64 tells, where rounding twice goes wrong;
    (0x39800000, 0x39800000, 0x3F800000), (0x39800000, 0x39800000, 0x3F800001),
    (0x39800800, 0x397FF001, 0x3F800000), (0x39800001, 0x397FFFFE, 0x3F800001),
    # and ties between subnormals.
    (0x00000003, 0x3F000000, 0x00000001), (0x00000003, 0x3F000000, 0x00000002),
)
PAGE_SCORES = ("tie to even", "above a tie", "cancellation", "five", "sixteen")
PAGE_ROTATIONS = ((7, 0, 1), (7, 0, 2), (7, 0, 3), (2**64 - 1, 65534, 5), (7, 0, 16))
PAGE_TIERS = ("zeros", "thirds", "seventeen")


def table(head, lines):
    """A table in Markdown."""
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(str(x) for x in line) + " |" for line in lines), ""]


def words(of):
    return " ".join(of)


def encoding_tables():
    answers = encoding_answers()
    rows = [r for r in answers["rows"] if r["name"] in PAGE_ROWS and r["encoding"] != "f32"]
    scores = [s for s in answers["scores"] if s["name"] in PAGE_SCORES]
    named = {s["name"]: s for s in scores}
    return [
        "## Rows", "",
        *table(["row", "numbers"], [[n, words(hex32(x))] for n, x in rows_of(PAGE_ROWS).items()]),
        *table(["row", "encoding", "scale", "codes, as bytes of the file", "decoded numbers", "norm"],
               [[r["name"], r["encoding"], r["scale"] or "none", r["codes"], words(r["decoded"]), r["norm"]] for r in rows]),
        "## Queries of `i8` blocks", "",
        *table(["query", "t", "p"],
               [[q["name"], q["scale"], words(map(str, q["p"]))] for q in answers["queries"] if q["name"] in PAGE_ROWS]),
        "## `fma` and the sixteen lanes", "",
        *table(["a", "b", "c", "fma(a, b, c)"], page_fma()),
        "Scores of a row and a query as the only block, with the weight 1. Of the first three rows and queries, element 0 and",
        "element 16 are shown, which meet in lane 0; those between are +0. The last two fill five and all lanes.", "",
        *table(["scored", "row", "query"], [[n, spaced(s["row"]), spaced(s["query"])] for n, s in named.items()]),
        *table(["scored", *arithmetic.CODE_TYPES],
               [[n, *(s["score"] for s in scores if s["name"] == n)] for n in named]),
    ]


def page_fma():
    return [[*(f"{x:08x}" for x in abc), hex32(arithmetic.fma(*(floats(x) for x in abc)))[0]] for abc in PAGE_FMA]


def rows_of(names):
    return {n: x for n, x in rows().items() if n in names}


def spaced(of):
    """Every sixteenth number if all others are +0."""
    return words(of if any(w != "00000000" for i, w in enumerate(of) if i % 16) else of[::16])


def tier_tables():
    rotations = [rotation_answer(*place) for place in PAGE_ROTATIONS]
    data = tier_rows()
    made = [tier_answer(n, e, data[n], 7, 1) for n in PAGE_TIERS for e in arithmetic.CODE_TYPES]
    rows = [[r["name"], r["encoding"], tier, r[tier]["codes"], r[tier]["first"], r[tier]["second"]]
            for r in made for tier in tiers.NUMBERS if tier in r]
    return [
        "## Rotations of the `sign` tier", "",
        *table(["seed", "block", "v", "w"], [[r["seed"], r["block"], words(r["input"]), words(r["rotated"])] for r in rotations]),
        "## Tiers", "",
        "Of rows above, and of the row `seventeen` = " + words(hex32(data["seventeen"])) + ".",
        "They are in block 1; the `sign` tier has the seed 7. The factors are gain and spread, or scale and residual.", "",
        *table(["row", "encoding", "tier", "codes, as bytes of the file", "first factor", "second factor"], rows),
    ]


def fold_tables():
    cases = fold_answers()["cases"]
    label = lambda c: f"{c['seed']}, `{c['parameter']}`, {c['elements']}, {c['dims']}"
    signs = lambda h: "".join("-" if int(h, 16) >> j & 1 else "+" for j in range(16))
    used = (0, 1, 2, 3, 4, 8, 9, 10)
    out = [
        "## Keys of the fold", "",
        *table(["seed", "parameter", "elements", "K", "n", *(f"k[{i}]" for i in used)],
               [[c["seed"], f"`{c['parameter']}`", c["elements"], c["dims"], c["n"], *(c["keys"][i] for i in used)] for c in cases]),
        "## Tiles of the fold", "",
        *table(["seed, parameter, elements, K", "t", "phase", "base", "h", "lane of element 0", "signs of elements 0 to 15"],
               [[label(c), t["t"], t["phase"], t["base"], t["h"], t["lane_of_0"], f"`{signs(t['h'])}`"]
                for c in cases for t in c["tiles"]]),
        "## Sketches", "",
        "Of the tensor 1, 2, 3, ..., with the normalisation `none`, bucket after bucket:", "",
    ]
    for c in cases[:4]:
        numbers = np.array([int(x, 16) for x in c["ramp"]], np.uint32).view(np.float32)
        out.append(f"- {c['seed']}, `{c['parameter']}`, {c['elements']} elements, K = {c['dims']}: " + words(str(int(v)) for v in numbers))
    return out


def kronecker_tables():
    cases = kronecker_answers()["cases"]
    label = lambda c: f"{c['seed']}, `{c['parameter']}`"
    signs = lambda h: "".join("-" if int(h, 16) >> j & 1 else "+" for j in range(32))
    out = [
        "", "## Keys of projections", "",
        *table(["seed, parameter", *(f"k[{i}]" for i in range(8))], [[label(c), *c["keys"]] for c in cases[1:]]),
        "## Words and signs of projections", "",
        *table(["seed, parameter", "row", "columns from", "h of the inputs", "h of the outputs", "signs of the inputs"],
               [[label(c), w["row"], w["chunk"] * 32, w["inputs"], w["outputs"], f"`{signs(w['inputs'])}`"]
                for c in cases[1:] for w in c["words"][:4]]),
        "## Kronecker sketches", "",
        "Of the matrix of 1, 2, 3, ... in row-major order, row after row of the sketch, as bit patterns:", "",
    ]
    for c in cases[:4]:
        (p_in, p_out), (n_in, n_out) = c["sides"], c["shape"]
        out.append(f"- {label(c)}, {n_in} x {n_out} to {p_in} x {p_out}: " + words(c["ramp"]))
    return out


def curvature_tables():
    cases = curvature_answers()["cases"]
    out = ["", "## Sums of rows and preconditioned queries", ""]
    for c in cases[:4]:
        kind = "full" if c["width"] is None else f"nystrom of width {c['width']}"
        of = "zeros" if c["exponent"] is None else f"{c['rows']} rows of {c['dims']} dims"
        out += [
            f"{kind}, {of}, {c['taken_out']} taken out again, kappa {c['kappa']}:", "",
            f"- P {c['power']}, values {words(c['values'])}",
            f"- lambda {c['lambda']}, effective dims {c['effective_dims']}",
            f"- the query {words(c['query'])} becomes {words(c['preconditioned'])}",
            f"- the last row's self-influence {c['self_influence']}", "",
        ]
    return out[:-1]


def markdown():
    """The tables of known-answers.md."""
    return "\n".join(encoding_tables() + tier_tables() + fold_tables() + kronecker_tables() + curvature_tables())
