"""Coarse tiers, written from encodings.md ("Tiers") alone, bit for bit."""

import hashlib

import numpy as np

import arithmetic
import fold

ENCODINGS = {"sign": 4, "i8": 3}
NUMBERS = {"sign": 1, "i8": 2}
COVERED = {"sign": ("f32", "f16", "i8"), "i8": ("f32", "f16")}
MAX_GAIN, MAX_REMAINDER = np.float32(2.0**63), np.float32(2.0**77)
HALF_TURN = np.float32(1 / np.sqrt(2.0))


def covers(tier, encoding):
    """Whether blocks of this encoding have the tier."""
    return encoding in COVERED[tier]


def row_bytes(tier, dims):
    """Bytes of a row's codes, without padding."""
    return {"sign": -(-dims // 8), "i8": dims}[tier]


def up(v):
    """f64 -> f32: the least that is not below v * (1 + 2^-28)."""
    v = v * (1 + 2.0**-28)
    nearest = v.astype(np.float32)
    return np.where(nearest.astype(np.float64) < v, np.nextafter(nearest, np.float32(np.inf)), nearest)


def lanes_sum(x):
    """[rows, n] f64 -> [rows] f64, in the sixteen lanes."""
    steps = arithmetic.in_lanes(x)
    total = np.zeros((x.shape[0], arithmetic.LANES), np.float64)
    for i in range(steps.shape[1]):
        total = total + steps[:, i, :]
    return arithmetic.halve(total)


def signs(seed, block, dims):
    """[3, dims] bool: which elements each round multiplies by -1."""
    hashed = hashlib.sha512(b"gradix.rotation.1" + seed.to_bytes(8, "little") + block.to_bytes(4, "little"))
    k = np.frombuffer(hashed.digest(), "<u4")
    i = np.arange(dims, dtype=np.uint32)
    words = [fold.mix(fold.mix(i // np.uint32(32) + k[2 * r]) ^ k[2 * r + 1]) for r in range(3)]
    return np.array([(word >> (i % np.uint32(32))) & 1 for word in words], bool)


def hadamard(z):
    """[rows, n] f32 in place, n a power of two."""
    rows, n = z.shape
    h = 1
    while h < n:
        pairs = z.reshape(rows, -1, 2, h)
        a, b = pairs[:, :, 0, :].copy(), pairs[:, :, 1, :].copy()
        pairs[:, :, 0, :], pairs[:, :, 1, :] = a + b, a - b
        h *= 2
    z *= np.float32(1 / np.sqrt(np.float64(n)))


def rotate(seed, block, v):
    """[rows, dims] f32 -> the same, rotated."""
    w = np.array(v, np.float32)
    dims = w.shape[1]
    n = 1 << (dims.bit_length() - 1)
    half, m = dims // 2, -(-dims // 2)
    for flip in signs(seed, block, dims):
        w[:, flip] = -w[:, flip]
        if n < dims:
            a, b = w[:, :half].copy(), w[:, m:].copy()
            w[:, :half], w[:, m:] = (a + b) * HALF_TURN, (a - b) * HALF_TURN
        for first in [0] if n == dims else [0, dims - n]:
            z = np.ascontiguousarray(w[:, first : first + n])
            hadamard(z)
            w[:, first : first + n] = z
    return w


def sign_tier(seed, block, encoding, scales, codes):
    """codes [rows, dims] -> bits u8 [rows, ceil(dims / 8)], gains f32, spreads f32."""
    if encoding == "f32":
        _, exponent = np.frexp(np.max(np.abs(codes), axis=1).astype(np.float64))
        unit = np.ldexp(np.float64(1), exponent - 1)
        with np.errstate(under="ignore"):
            v = (codes.astype(np.float64) / unit[:, None]).astype(np.float32)
    else:
        unit, v = scales.astype(np.float64), codes.astype(np.float32)
    w = rotate(seed, block, v)
    bits = np.packbits(~np.signbit(w), axis=1, bitorder="little")
    magnitudes = np.abs(w).astype(np.float64)
    a, b = lanes_sum(magnitudes), lanes_sum(magnitudes * magnitudes)
    zero = ~v.any(axis=1)
    g = b / np.where(zero, 1, a)
    apart = magnitudes - g[:, None]
    c = lanes_sum(apart * apart)
    with np.errstate(under="ignore"):
        gain = (g * unit).astype(np.float32)
        spread = up((np.sqrt(c) + 2.0**-16 * np.sqrt(b)) * unit)
    bits[zero], gain[zero], spread[zero] = 0, 0, 0
    return bits, gain, spread


def i8_tier(y):
    """Decoded numbers [rows, dims] f32 -> codes i8 [rows, dims], scales f32, residuals f32."""
    m = np.max(np.abs(y), axis=1)
    s = np.maximum(m / np.float32(127), np.float32(arithmetic.MIN_SCALE))
    codes = np.clip(np.rint(y / s[:, None]), -127, 127).astype(np.int8)
    apart = y.astype(np.float64) - codes.astype(np.float64) * s.astype(np.float64)[:, None]
    residual = up(np.sqrt(lanes_sum(apart * apart)))
    zero = m == 0
    codes[zero], s[zero], residual[zero] = 0, 0, 0
    return codes, s, residual


def made(tier, seed, block, encoding, scales, codes, decoded):
    """Codes as bytes [rows, row_bytes], first and second factors."""
    if tier == "sign":
        return sign_tier(seed, block, encoding, scales, codes)
    if tier == "i8":
        made, s, residual = i8_tier(decoded)
        return made.view(np.uint8), s, residual
    raise ValueError(f"unknown tier {tier}")
