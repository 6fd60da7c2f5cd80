"""The fold of RapidGrad, version 1, written from sketch.md alone.

Everything is integer arithmetic on numpy uint32 (which wraps modulo 2^32, as the page asks), so the
functions take arrays of tile numbers. Only `fold` touches floating point.
"""

import hashlib

import numpy as np

import arithmetic

U32 = np.uint32
PREFIX = b"gradix.rapid_grad.1"
TILE = 16


class FoldError(Exception):
    """A gradient, name or width that the fold refuses."""


def keys(seed, name):
    """The sixteen u32 keys of one parameter."""
    digest = hashlib.sha512(PREFIX + seed.to_bytes(8, "little") + name.encode("utf-8")).digest()
    return np.frombuffer(digest, "<u4")


def tile_bits(tiles):
    """n = ceil(log2 T)."""
    if not 1 <= tiles <= 1 << 31:
        raise FoldError(f"{tiles} tiles: 1 to 2^31 are possible")
    return (tiles - 1).bit_length()


def places(k, n, t):
    """The bijection of [0, 2^n), for an array of tiles."""
    x = np.asarray(t, U32).copy()
    mask, shift = U32((1 << n) - 1), U32(max(1, (n + 1) // 2))
    for r in range(4):
        x = (x * (k[2 * r] | U32(1)) + k[2 * r + 1]) & mask
        x ^= x >> shift
    return x


def phases(k, n, t):
    """The phase of each tile; it does not depend on K."""
    x = places(k, n, t)
    return (x << U32(32 - n) if n else np.zeros_like(x)) + k[8]


def mix(x):
    """The 32-bit finaliser of sketch.md."""
    x = x ^ (x >> U32(16))
    x = x * U32(0x7FEB352D)
    x = x ^ (x >> U32(15))
    x = x * U32(0x846CA68B)
    return x ^ (x >> U32(16))


def hashes(k, t):
    """The word that holds a tile's signs (bits 0 to 15) and its lane (bits 28 to 31)."""
    return mix(mix(np.asarray(t, U32) + k[9]) ^ k[10])


def bases(phase, dims):
    """The top b bits of each phase."""
    b = dims.bit_length() - 5
    return phase >> U32(32 - b) if b else np.zeros_like(phase)


def check_dims(dims):
    if dims < 16 or dims > 1 << 28 or dims & (dims - 1):
        raise FoldError(f"{dims} buckets: a power of two from 16 to 2^28 is needed")


def buckets_and_signs(k, elements, dims):
    """Bucket (int64) and sign (bool, true for -1) of every element of a tensor, in order."""
    tiles = -(-elements // TILE)
    t = np.arange(tiles, dtype=U32)
    h = hashes(k, t)[:, None]
    j = np.arange(TILE, dtype=U32)[None, :]
    base = bases(phases(k, tile_bits(tiles), t), dims)[:, None]
    bucket = ((j ^ (h >> U32(28))) * U32(dims // TILE) + base).astype(np.int64)
    sign = ((h >> j) & U32(1)).astype(bool)
    return bucket.reshape(-1)[:elements], sign.reshape(-1)[:elements]


def values(tensor, normalisation):
    """The numbers that a tensor adds, or None if it adds nothing."""
    x = np.ascontiguousarray(tensor, "<f4").reshape(-1)
    if not np.isfinite(x).all():
        raise FoldError(f"element {int(np.argmin(np.isfinite(x)))} is not finite")
    if x.size == 0 or normalisation == "none":
        return x if x.size else None
    norm = arithmetic.norm_f64(x[None, :])[0]
    if norm < 2.0**-126:
        return None
    return x * np.float32(1.0 / norm)


def fold(seed, dims, tensors, normalisation="none", into=None):
    """The f32 sketch of `tensors`, pairs (name, f32 array), that all belong to one block."""
    check_dims(dims)
    sketch = np.zeros(dims, np.float32) if into is None else into
    for name, tensor in tensors:
        x = values(tensor, normalisation)
        if x is None:
            continue
        bucket, sign = buckets_and_signs(keys(seed, name), x.size, dims)
        # ufunc.at adds one element after the other, in their order: the sums of the page.
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(sketch, bucket, np.where(sign, -x, x))
    if not np.isfinite(sketch).all():
        raise FoldError("the sketch is not finite")
    return sketch


def route(blocks, name):
    """The ordinal of the block for a parameter under routing "prefix"."""
    fitting = [
        (len(block.encode()), i)
        for i, block in enumerate(blocks)
        if name == block or name.startswith(block + ".")
    ]
    if not fitting:
        raise FoldError(f"no block takes parameter {name!r}")
    return max(fitting)[1]


def nest(sketch):
    """The sketch with half as many buckets."""
    if sketch.size < 32:
        raise FoldError("a sketch of 16 buckets has no half")
    return sketch[0::2] + sketch[1::2]
