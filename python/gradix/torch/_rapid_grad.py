"""The fold of `RapidGrad` by torch operations, on any device (format-spec/sketch.md).

Signs and buckets are the engine's, bit for bit; the order of sums is another one, on the CPU always the same.
"""

from __future__ import annotations

import torch

from ._hash import WORD, keys, mix

PREFIX = b"gradix.rapid_grad.1"
TILE = 16
#: Norms below it count as zero.
SMALLEST_NORM = 2.0**-126


def fold(sums: torch.Tensor, seed: int, name: str, gradients: torch.Tensor) -> None:
    """Adds `gradients`, `[rows, elements]` of one whole parameter, to the sums `[rows, dims]` of its block."""
    rows, elements = gradients.shape
    dims = sums.shape[1]
    if elements == 0:
        return
    k = keys(PREFIX, seed, name)
    tiles = -(-elements // TILE)
    n, b = (tiles - 1).bit_length(), dims.bit_length() - 5
    t = torch.arange(tiles, device=gradients.device)
    phase = _phases(k, n, t)
    h = mix(mix((t + k[9]) & WORD) ^ k[10])

    # The tiles in the order of their phases: those of a base are neighbours. A turn without a tile has the number
    # of the first tile that does not exist.
    tile = torch.full((1 << n,), tiles, dtype=torch.int64, device=gradients.device)
    tile[phase >> (32 - n)] = t
    h = torch.cat([h, h.new_zeros(1)])[tile][:, None]
    lane = torch.arange(TILE, device=gradients.device)[None, :]
    j = lane ^ (h >> 28)
    element = tile[:, None] * TILE + j
    sign = (1 - 2 * ((h >> j) & 1)).to(gradients.dtype)
    there = element < elements
    sign = (sign * there).reshape(-1)
    values = gradients[:, (element * there).reshape(-1)] * sign

    buckets = sums.view(rows, TILE, dims // TILE)
    if n >= b:
        buckets += values.view(rows, 1 << b, 1 << (n - b), TILE).sum(2).transpose(1, 2)
    else:
        # No two turns share a base.
        values = values.view(rows, 1 << n, TILE)[:, phase >> (32 - n)]
        buckets.index_add_(2, phase >> (32 - b), values.transpose(1, 2))


def per_tensor(gradients: torch.Tensor) -> torch.Tensor:
    """Each row divided by its norm, and zero where the norm is tiny."""
    norm = gradients.double().square().sum(1, keepdim=True).sqrt()
    scale = torch.where(norm < SMALLEST_NORM, torch.zeros_like(norm), 1 / norm)
    return gradients * scale.float()


def _phases(k: list[int], n: int, t: torch.Tensor) -> torch.Tensor:
    x, mask, shift = t, (1 << n) - 1, max(1, (n + 1) // 2)
    for r in range(4):
        x = (x * (k[2 * r] | 1) + k[2 * r + 1]) & mask
        x = x ^ (x >> shift)
    return ((x << (32 - n)) + k[8]) & WORD
