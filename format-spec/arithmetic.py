"""Encodings, norms and scores, written from encodings.md alone, bit for bit.

numpy rounds f32 and f64 additions, products, quotients and square roots correctly, so only the
fused multiply-add needs care (`fma`).
"""

import numpy as np

CODE_TYPES = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "i8": np.dtype("i1")}
# The greatest scale of each encoding; None if it has no scale.
MAX_SCALE = {"f32": None, "f16": np.float32(2.0**47), "i8": np.float32(2.0**56)}
MAX_NORM = np.float32(2.0**62)
MIN_SCALE = 2.0**-126
QUERY_LIMIT = 32512
LANES = 16


class ValueRefused(Exception):
    """Numbers that no writer may store, or a query that no reader may score."""


def in_lanes(x):
    """[rows, n] -> [rows, steps, 16], filled up with +0."""
    rows, n = x.shape
    steps = -(-n // LANES)
    if steps * LANES != n:
        x = np.concatenate([x, np.zeros((rows, steps * LANES - n), x.dtype)], axis=1)
    return x.reshape(rows, steps, LANES)


def halve(lanes):
    """Adds [rows, 16] lanes in halves -> [rows]."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = lanes[:, :width] + lanes[:, width : 2 * width]
    return lanes[:, 0]


def fma(a, b, c):
    """f32(a * b + c), rounded once.

    The product of two f32 is exact in f64. The sum is rounded to odd in f64 (TwoSum tells whether
    it was inexact and in which direction); 53 bits are more than 24 + 2, so rounding that to f32
    is the correct rounding, subnormals included.
    """
    p = a.astype(np.float64) * b.astype(np.float64)
    c = c.astype(np.float64)
    s = p + c
    t = s - p
    err = (p - (s - t)) + (c - t)
    bits = s.view(np.int64)
    # Towards the true value by one ulp where the last bit is even; the magnitude bits of an IEEE
    # number are ordered like integers. s = 0 only if the sum is exact.
    step = np.where((err > 0) == (s > 0), np.int64(1), np.int64(-1))
    nudge = (err != 0) & ((bits & 1) == 0) & np.isfinite(s)
    odd = np.where(nudge, bits + step, bits).view(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        return odd.astype(np.float32)


def norm_f64(y):
    """[rows, n] f32 -> [rows] f64: the L2 norms before the rounding to f32."""
    total = np.zeros((y.shape[0], LANES), np.float64)
    steps = in_lanes(y)
    for i in range(steps.shape[1]):
        v = steps[:, i, :].astype(np.float64)
        total = total + v * v
    return np.sqrt(halve(total))


def norms(y):
    """[rows, n] f32 -> [rows] f32, the norms that are stored."""
    with np.errstate(over="ignore"):
        return norm_f64(y).astype(np.float32)


def to_binary16(v):
    """f64 -> f16, rounded once, ties to even, without trusting numpy's f64 -> f16 path."""
    _, exponent = np.frexp(np.abs(v))
    quantum = np.ldexp(1.0, np.maximum(exponent - 11, -24))
    return np.copysign(np.rint(v / quantum) * quantum, v).astype("<f2")


def has_scale(encoding):
    return MAX_SCALE[encoding] is not None


def check_finite(x):
    if not np.isfinite(x).all():
        raise ValueRefused(f"position {int(np.argmin(np.isfinite(x)))} is not finite")


def check_norm(y):
    if norms(y[None, :])[0] > MAX_NORM:
        raise ValueRefused("the norm is above 2^62")


def check_query(q):
    """Refuses the numbers of one block that no query may have."""
    check_finite(q)
    check_norm(q)


def encode(encoding, x):
    """One row's numbers in one block -> (scale as f32, or None; codes). What is refused is a norm of the decoded row."""
    x = np.ascontiguousarray(x, np.float32)
    check_finite(x)
    scale, codes = encode_any(encoding, x)
    check_norm(decode(encoding, None if scale is None else np.array([scale]), codes[None, :])[0])
    return scale, codes


def encode_any(encoding, x):
    """Finite numbers, whatever their norm."""
    m = np.max(np.abs(x))
    if encoding == "f32":
        return None, x.astype("<f4")
    if has_scale(encoding) and m == 0:
        return np.float32(0), np.zeros(x.size, CODE_TYPES[encoding])
    if encoding == "f16":
        _, exponent = np.frexp(np.float64(m))
        s = np.ldexp(1.0, max(int(exponent) - 1 - 15, -126))
        if np.float64(m) / s >= 65520.0:
            s *= 2.0
        return np.float32(s), to_binary16(x.astype(np.float64) / s)
    if encoding == "i8":
        s = max(m / np.float32(127), np.float32(MIN_SCALE))
        return s, np.clip(np.rint(x / s), -127, 127).astype(np.int8)
    raise ValueRefused(f"unknown encoding {encoding}")


def decode(encoding, scales, codes):
    """scales [rows] or None, codes [rows, dims] -> f32 [rows, dims]."""
    if encoding == "f32":
        return codes.astype(np.float32)
    if encoding not in ("f16", "i8"):
        raise ValueRefused(f"unknown encoding {encoding}")
    exact = codes.astype(np.float64) * scales.astype(np.float64)[:, None]
    with np.errstate(over="ignore", under="ignore"):
        return exact.astype(np.float32)


def quantise_query(q):
    """One query's numbers in one block -> (query scale f32, p as int64)."""
    n = np.max(np.abs(q))
    if n == 0:
        return np.float32(0), np.zeros(q.size, np.int64)
    t = max(n / np.float32(QUERY_LIMIT), np.float32(MIN_SCALE))
    return t, np.clip(np.rint(q / t), -QUERY_LIMIT, QUERY_LIMIT).astype(np.int64)


def fma_dot(x, q):
    """x [rows, dims] f32, q [dims] f32 -> [rows] f32, in lanes."""
    xs, qs = in_lanes(x), in_lanes(q[None, :])
    lanes = np.zeros((x.shape[0], LANES), np.float32)
    for i in range(xs.shape[1]):
        lanes = fma(xs[:, i, :], qs[:, i, :], lanes)
    return halve(lanes)


def block_scores(encoding, scales, codes, q):
    """[rows] f64: b(q, x) of one block for each row."""
    if encoding == "i8":
        t, p = quantise_query(q)
        # Every partial sum is below 2^50 (dims <= 2^28), so f64 adds these integers exactly.
        d = codes.astype(np.float64) @ p.astype(np.float64)
        return d * (scales.astype(np.float64) * np.float64(t))
    if encoding not in ("f32", "f16"):
        raise ValueRefused(f"unknown encoding {encoding}")
    dot = fma_dot(codes.astype(np.float32), q).astype(np.float64)
    return dot if encoding == "f32" else dot * scales.astype(np.float64)
