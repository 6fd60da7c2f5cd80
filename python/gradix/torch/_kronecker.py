"""The projections of `Kronecker` by torch operations, on any device (format-spec/kronecker.md).

From the factors of a gradient, `(P_in a) (x) (P_out g)`, so that no example's matrix exists.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from ._factors import times
from ._hash import WORD, keys, mix

PREFIX = b"gradix.kronecker.1"
#: The entries of projections that are kept: 128 MiB.
KEPT_ENTRIES = 1 << 25


class Projections:
    """The matrices by which both sides are multiplied. Those used last are kept."""

    def __init__(self, seed: int):
        self._seed = seed
        self._kept: OrderedDict[tuple, torch.Tensor] = OrderedDict()

    def project(self, name: str, shape: list[int], sides: tuple[int, int], uses, device) -> torch.Tensor:
        """The sketch of one parameter from the factors of its uses: `[rows, p_in * p_out]`."""
        k = keys(PREFIX, self._seed, name)
        p_in = self._matrix(tuple(k[0:4]), sides[0], shape[0], device)
        p_out = self._matrix(tuple(k[4:8]), sides[1], shape[1], device)
        total = None
        for left, right in uses:
            part = times(left, p_in).transpose(1, 2) @ times(right, p_out)
            total = part if total is None else total + part
        return total.flatten(1)

    def _matrix(self, k: tuple, p: int, n: int, device) -> torch.Tensor:
        key = (k, p, n, str(device))
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        matrix = side(k, p, n, device)
        self._kept[key] = matrix
        while sum(kept.numel() for kept in self._kept.values()) > KEPT_ENTRIES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return matrix


def side(k: tuple, p: int, n: int, device) -> torch.Tensor:
    """One side, transposed and with its scale: `[n, p]`."""
    r = torch.arange(p, device=device)
    a = mix(mix((r + k[0]) & WORD) ^ k[1])[:, None]
    b = mix(mix((r + k[2]) & WORD) ^ k[3])[:, None]
    chunks = torch.arange(-(-n // 32), device=device)[None, :]
    h = mix(mix((chunks + a) & WORD) ^ b)[:, :, None]
    signs = 1 - 2 * ((h >> torch.arange(32, device=device)) & 1)
    signs = signs.reshape(p, -1)[:, :n].float()
    if n > p:
        # The quotient in float64, and then rounded.
        return (signs * torch.tensor(1.0 / p**0.5, dtype=torch.float64).float().item()).t().contiguous()
    return (signs * torch.eye(p, n, device=device)).t().contiguous()
