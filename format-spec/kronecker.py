"""The projections of Kronecker, version 1, written from kronecker.md alone.

Signs are integer arithmetic on numpy uint32; the sums of the sketch are taken one by one in float32.
"""

import hashlib

import numpy as np

import fold

U32 = np.uint32
PREFIX = b"gradix.kronecker.1"
WORD = 32
MAX_SIDE = 1 << 14


def keys(seed, name):
    """The keys of one parameter: four u32 of the inputs, four of the outputs."""
    digest = hashlib.sha512(PREFIX + seed.to_bytes(8, "little") + name.encode("utf-8")).digest()
    k = np.frombuffer(digest, "<u4")
    return k[:4], k[4:8]


def words(s, rows, chunks):
    """The words h of these rows and of these chunks of 32 columns, [rows, chunks]."""
    r = np.asarray(rows, U32)
    a = fold.mix(fold.mix(r + s[0]) ^ s[1])[:, None]
    b = fold.mix(fold.mix(r + s[2]) ^ s[3])[:, None]
    return fold.mix(fold.mix(np.asarray(chunks, U32)[None, :] + a) ^ b)


def signs(s, p, n):
    """P of one side, with its zeros, [p, n]."""
    if not 1 <= p <= MAX_SIDE:
        raise fold.FoldError(f"a side of {p}: 1 to 2^14 are possible")
    h = words(s, np.arange(p), np.arange(-(-n // WORD)))
    bits = (h[:, :, None] >> np.arange(WORD, dtype=U32)) & U32(1)
    sign = np.where(bits.reshape(p, -1)[:, :n] == 1, np.float32(-1), np.float32(1))
    return sign if n > p else np.where(np.eye(p, n, dtype=bool), sign, np.float32(0))


def length(p, n):
    return p if n > p else 1


def matrix(s, p, n):
    """A side as a device multiplies by it, [p, n]."""
    return signs(s, p, n) * np.float32(1.0 / np.sqrt(np.float64(length(p, n))))


def added(left, right):
    """left^T right: the terms one by one, in order; where left is 0, a term is left out."""
    total = np.zeros((left.shape[1], right.shape[1]), np.float32)
    for a, b in zip(left, right):
        total = np.where((a != 0)[:, None], total + a[:, None] * b[None, :], total)
    return total


def sketch(seed, sides, matrices, into=None):
    """The f32 values of a block, [p_in * p_out], of pairs (name, [n_in, n_out] array)."""
    p_in, p_out = sides
    values = np.zeros((p_in, p_out), np.float32) if into is None else into
    for name, g in matrices:
        g = np.asarray(g, "<f4")
        if g.ndim != 2:
            raise fold.FoldError(f"{name!r} is not a matrix")
        if not np.isfinite(g).all():
            raise fold.FoldError(f"{name!r} has an element that is not finite")
        n_in, n_out = g.shape
        inputs, outputs = keys(seed, name)
        p, q = signs(inputs, p_in, n_in), signs(outputs, p_out, n_out)
        scale = np.float32(1.0 / np.sqrt(np.float64(length(p_in, n_in) * length(p_out, n_out))))
        with np.errstate(over="ignore", invalid="ignore"):
            columns = added(np.ascontiguousarray(p.T), g)
            products = added(np.ascontiguousarray(q.T), np.ascontiguousarray(columns.T)).T
            values += products * scale
    if not np.isfinite(values).all():
        raise fold.FoldError("the sketch is not finite")
    return values.reshape(-1)
